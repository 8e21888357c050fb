//! Futures on pages of their own.
//!
//! An active connection needs some 4 KiB of state, a parked one less than 1 KiB. Were the first on
//! the heap, it would leave holes between the parked ones that the allocator cannot give back: ten
//! thousand connections that were active at once would keep 40 MB for ever.
//!
//! # Invariants
//! - At most [`ACTIVE_MAPPINGS_POOLED`] mappings wait in a thread's pool.

use std::alloc::Layout;
use std::cell::RefCell;
use std::ptr::NonNull;

use super::block::Mapping;
use super::placed::{Place, Placed};
use crate::limits::{ACTIVE_BYTES_MAX, ACTIVE_MAPPINGS_POOLED};

const PAGE_BYTES: usize = 4096;

thread_local! {
    static POOL: RefCell<Vec<Mapping>> = const { RefCell::new(Vec::new()) };
}

/// A pinned future on a mapping of its own.
pub type Mapped<F> = Placed<F, Mapping>;

// SAFETY: a mapping starts on a page, is taken at least as long as asked for, is owned by one value
// and is unmapped only when that is dropped.
unsafe impl Place for Mapping {
    const BYTES_MAX: usize = ACTIVE_BYTES_MAX;
    const ALIGN_MAX: usize = PAGE_BYTES;

    fn take(layout: Layout) -> Self {
        let bytes = layout.size().next_multiple_of(PAGE_BYTES);
        let pooled = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            let fits = pool.iter().rposition(|mapping| mapping.length == bytes)?;
            Some(pool.swap_remove(fits))
        });
        pooled.ok().flatten().unwrap_or_else(|| Self::new(bytes))
    }

    fn address(&self) -> NonNull<u8> {
        self.address
    }

    fn give_back(self) {
        // While the thread ends the pool is gone already: the mapping is then simply unmapped.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < ACTIVE_MAPPINGS_POOLED {
                pool.push(self);
            }
        });
    }
}
