//! A future on the heap, on memory that the last one of its kind has left.
//!
//! A stream of HTTP/2 needs some 4 KiB of state for a moment. That is more than the allocator keeps
//! at hand for each thread, so asking it for each stream costs as much as parsing the request.
//!
//! # Invariants
//! - The future is written once, before the handle exists, and dropped once, by the handle.
//! - The memory does not move when the handle does, so the future is pinned.
//! - At most [`STREAM_PLACES_POOLED`] pieces wait in a thread's pool.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

use crate::limits::STREAM_PLACES_POOLED;

thread_local! {
    static POOL: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
}

/// Memory of some layout that nobody else has.
struct Place {
    address: NonNull<u8>,
    layout: Layout,
}

impl Place {
    fn new(layout: Layout) -> Self {
        // SAFETY: the size is not zero, as `Reused::pin` asserts.
        let address = NonNull::new(unsafe { alloc(layout) });
        let Some(address) = address else { handle_alloc_error(layout) };
        Self { address, layout }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // SAFETY: `new` allocated it with this layout, and nobody else has it.
        unsafe { dealloc(self.address.as_ptr(), self.layout) };
    }
}

/// A pinned future on memory that is used again.
pub struct Reused<F> {
    /// `None` only while `drop` runs.
    place: Option<Place>,
    future: PhantomData<F>,
}

impl<F> Reused<F> {
    /// Puts the future that `make` makes there, without a copy of all of it where the compiler can
    /// build it in place.
    #[must_use]
    #[inline(always)]
    pub fn pin(make: impl FnOnce() -> F) -> Self {
        const { assert!(size_of::<F>() > 0) }
        let place = take(Layout::new::<F>());
        // SAFETY: the memory has the layout of `F`, and nobody else has it.
        unsafe { place.address.cast::<F>().write(make()) };
        Self { place: Some(place), future: PhantomData }
    }
}

impl<F: Future> Future for Reused<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        // The option is emptied by `drop` alone.
        let place = this.place.as_ref().expect("a live future has its memory");
        let mut future = place.address.cast::<F>();
        // SAFETY: `pin` wrote the future there; `&mut self` makes the access exclusive. It never
        // moves: the memory is not handed out until `drop` has dropped the future in place.
        let future = unsafe { Pin::new_unchecked(future.as_mut()) };
        future.poll(context)
    }
}

impl<F> Unpin for Reused<F> {}

impl<F> Drop for Reused<F> {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        // SAFETY: `pin` wrote the future there and nothing else has dropped it.
        unsafe { place.address.cast::<F>().drop_in_place() };
        // While the thread ends the pool is gone already: the memory is then simply freed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < STREAM_PLACES_POOLED {
                pool.push(place);
            }
        });
    }
}

fn take(layout: Layout) -> Place {
    let pooled = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        let fits = pool.iter().rposition(|place| place.layout == layout)?;
        Some(pool.swap_remove(fits))
    });
    pooled.ok().flatten().unwrap_or_else(|| Place::new(layout))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;
    use std::task::Waker;

    #[test]
    fn the_future_runs_where_it_is_and_is_dropped_once() {
        let alive = Rc::new(());
        let held = Rc::clone(&alive);
        let mut first = true;
        let mut future = Reused::pin(|| async move {
            let room = [7u8; 5000];
            std::future::poll_fn(|_| {
                if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            let _held = held;
            room.iter().map(|byte| u32::from(*byte)).sum::<u32>()
        });
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(Pin::new(&mut future).poll(&mut context), Poll::Pending);
        assert_eq!(Pin::new(&mut future).poll(&mut context), Poll::Ready(35_000));
        drop(future);
        assert_eq!(Rc::strong_count(&alive), 1);
        let unpolled = Reused::pin(|| {
            let held = Rc::clone(&alive);
            async move { drop(held) }
        });
        assert_eq!(Rc::strong_count(&alive), 2);
        drop(unpolled);
        assert_eq!(Rc::strong_count(&alive), 1);
    }

    #[test]
    fn memory_is_used_again_by_a_future_of_its_size_and_kept_within_limits() {
        let future = || Reused::pin(|| std::future::ready([0u8; 100]));
        let address = |reused: &Reused<_>| reused.place.as_ref().unwrap().address;
        let first = future();
        let place = address(&first);
        drop(first);
        assert_eq!(address(&future()), place);
        let many: Vec<_> = (0..=STREAM_PLACES_POOLED).map(|_| future()).collect();
        drop(many);
        POOL.with(|pool| assert_eq!(pool.borrow().len(), STREAM_PLACES_POOLED));
    }
}
