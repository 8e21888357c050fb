//! Futures on the heap, on memory that the last one of their kind has left.
//!
//! A stream of HTTP/2 needs some 4 KiB of state for a moment. That is more than the allocator keeps
//! at hand for each thread, so asking it for each stream costs as much as parsing the request.
//!
//! # Invariants
//! - At most [`STREAM_PLACES_POOLED`] pieces wait in a thread's pool.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;

use super::placed::{Place, Placed};
use crate::limits::STREAM_PLACES_POOLED;

thread_local! {
    static POOL: RefCell<Vec<Heap>> = const { RefCell::new(Vec::new()) };
}

/// A pinned future on memory that is used again.
pub type Reused<F> = Placed<F, Heap>;

/// Memory of the allocator.
pub struct Heap {
    address: NonNull<u8>,
    layout: Layout,
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: `take` allocated it with this layout, and nobody else has it.
        unsafe { dealloc(self.address.as_ptr(), self.layout) };
    }
}

// SAFETY: the memory is allocated with the layout that is asked for, is owned by one value and is
// freed only when that is dropped.
unsafe impl Place for Heap {
    const BYTES_MAX: usize = isize::MAX as usize;
    const ALIGN_MAX: usize = usize::MAX;

    fn take(layout: Layout) -> Self {
        let pooled = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            let fits = pool.iter().rposition(|heap| heap.layout == layout)?;
            Some(pool.swap_remove(fits))
        });
        pooled.ok().flatten().unwrap_or_else(|| {
            // SAFETY: the layout is not empty, as `Placed::pin` asserts.
            let address = NonNull::new(unsafe { alloc(layout) });
            let Some(address) = address else { handle_alloc_error(layout) };
            Self { address, layout }
        })
    }

    fn address(&self) -> NonNull<u8> {
        self.address
    }

    fn give_back(self) {
        // While the thread ends the pool is gone already: the memory is then simply freed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < STREAM_PLACES_POOLED {
                pool.push(self);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_memory_is_kept_than_the_limit_says() {
        let future = || Reused::pin(|| std::future::ready([0u8; 100]));
        let many: Vec<_> = (0..=STREAM_PLACES_POOLED).map(|_| future()).collect();
        drop(many);
        POOL.with(|pool| assert_eq!(pool.borrow().len(), STREAM_PLACES_POOLED));
    }
}
