//! A future on pages of its own, for what is large and lives shortly beside much that is small
//! and lives long.
//!
//! An active connection needs some 4 KiB of state, a parked one less than 1 KiB. Were the first on
//! the heap, it would leave holes between the parked ones that the allocator cannot give back: ten
//! thousand connections that were active at once would keep 40 MB for ever.
//!
//! # Invariants
//! - The future is written once, before the handle exists, and dropped once, by the handle.
//! - The mapping does not move when the handle does, so the future is pinned.
//! - Mappings are pooled per thread: in steady state nothing is mapped.

use std::cell::RefCell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::block::Mapping;
use crate::limits::{ACTIVE_BYTES_MAX, ACTIVE_MAPPINGS_POOLED};

const PAGE_BYTES: usize = 4096;

thread_local! {
    static POOL: RefCell<Vec<Mapping>> = const { RefCell::new(Vec::new()) };
}

/// A pinned future on a mapping of its own.
pub struct Mapped<F> {
    /// `None` only while `drop` runs.
    mapping: Option<Mapping>,
    future: PhantomData<F>,
}

impl<F> Mapped<F> {
    const BYTES: usize = size_of::<F>().next_multiple_of(PAGE_BYTES);

    /// Puts `future` there.
    #[must_use]
    pub fn pin(future: F) -> Self {
        const {
            assert!(size_of::<F>() > 0 && size_of::<F>() <= ACTIVE_BYTES_MAX);
            assert!(align_of::<F>() <= PAGE_BYTES);
        }
        let mapping = take(Self::BYTES);
        // SAFETY: the mapping is writable, starts on a page, is at least as long as `F`, and
        // nobody else has it.
        unsafe { mapping.address.cast::<F>().write(future) };
        Self { mapping: Some(mapping), future: PhantomData }
    }
}

impl<F: Future> Future for Mapped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        // The option is emptied by `drop` alone.
        let mapping = this.mapping.as_ref().expect("a live future has its mapping");
        let mut future = mapping.address.cast::<F>();
        // SAFETY: `pin` wrote the future there; `&mut self` makes the access exclusive. It never
        // moves: the mapping is not handed out, and its address does not change until `drop` has
        // dropped the future in place.
        let future = unsafe { Pin::new_unchecked(future.as_mut()) };
        future.poll(context)
    }
}

impl<F> Unpin for Mapped<F> {}

impl<F> Drop for Mapped<F> {
    fn drop(&mut self) {
        let Some(mapping) = self.mapping.take() else { return };
        // SAFETY: `pin` wrote the future there and nothing else has dropped it.
        unsafe { mapping.address.cast::<F>().drop_in_place() };
        // While the thread ends the pool is gone already: the mapping is then simply unmapped.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < ACTIVE_MAPPINGS_POOLED {
                pool.push(mapping);
            }
        });
    }
}

fn take(bytes: usize) -> Mapping {
    let pooled = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        let fits = pool.iter().rposition(|mapping| mapping.length == bytes)?;
        Some(pool.swap_remove(fits))
    });
    pooled.ok().flatten().unwrap_or_else(|| Mapping::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::Waker;

    #[test]
    fn the_future_runs_where_it_is_and_is_dropped_once() {
        let alive = Rc::new(());
        let held = Rc::clone(&alive);
        let mut first = true;
        let mut mapped = Mapped::pin(async move {
            let room = [7u8; 5000];
            std::future::poll_fn(|_| {
                if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            let _held = held;
            room.iter().map(|byte| u32::from(*byte)).sum::<u32>()
        });
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(Pin::new(&mut mapped).poll(&mut context), Poll::Pending);
        let mut moved = pin!(mapped);
        assert_eq!(moved.as_mut().poll(&mut context), Poll::Ready(35_000));
        assert_eq!(Rc::strong_count(&alive), 1);
        let unpolled = Mapped::pin({
            let held = Rc::clone(&alive);
            async move { drop(held) }
        });
        assert_eq!(Rc::strong_count(&alive), 2);
        drop(unpolled);
        assert_eq!(Rc::strong_count(&alive), 1);
    }

    #[test]
    fn a_mapping_is_used_again_by_a_future_of_its_size() {
        let future = || Mapped::pin(std::future::ready([0u8; 100]));
        let address = |mapped: &Mapped<_>| mapped.mapping.as_ref().unwrap().address;
        let first = future();
        let place = address(&first);
        drop(first);
        assert_eq!(address(&future()), place);
    }
}
