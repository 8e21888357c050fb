//! A future in memory of a kind of its own, for what is large and lives shortly beside much that is
//! small and lives long.
//!
//! # Invariants
//! - The future is written once, before the handle exists, and dropped once, by the handle.
//! - The memory does not move when the handle does, so the future is pinned.
//! - What a future has left is used again: in steady state no memory is asked for.
//!
//! # Not here
//! Where the memory comes from, and how much of it waits: `mapped`, `reused`.

use std::alloc::Layout;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

/// A piece of memory.
///
/// # Safety
/// Until it is given back, the memory at `address` has at least the layout that it was taken for,
/// is the place's alone, and stays where it is.
pub unsafe trait Place: Sized {
    /// Largest size that is taken.
    const BYTES_MAX: usize;
    /// Largest alignment that is kept to.
    const ALIGN_MAX: usize;

    /// Takes memory for `layout`, which is within the limits and not empty.
    fn take(layout: Layout) -> Self;

    /// Where it is.
    fn address(&self) -> NonNull<u8>;

    /// Gives it back, for the next one.
    fn give_back(self);
}

/// A pinned future in a place.
pub struct Placed<F, P: Place> {
    /// `None` only while `drop` runs.
    place: Option<P>,
    future: PhantomData<F>,
}

impl<F, P: Place> Placed<F, P> {
    /// Puts the future that `make` makes there, without a copy of all of it where the compiler can
    /// build it in place.
    #[must_use]
    #[inline(always)]
    pub fn pin(make: impl FnOnce() -> F) -> Self {
        const {
            assert!(size_of::<F>() > 0 && size_of::<F>() <= P::BYTES_MAX);
            assert!(align_of::<F>() <= P::ALIGN_MAX);
        }
        let place = P::take(Layout::new::<F>());
        // SAFETY: the memory has the layout of `F`, and nobody else has it.
        unsafe { place.address().cast::<F>().write(make()) };
        Self { place: Some(place), future: PhantomData }
    }
}

impl<F: Future, P: Place> Future for Placed<F, P> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        // The option is emptied by `drop` alone.
        let place = this.place.as_ref().expect("a live future has its place");
        let mut future = place.address().cast::<F>();
        // SAFETY: `pin` wrote the future there; `&mut self` makes the access exclusive. It never
        // moves: the memory is not handed out until `drop` has dropped the future in place.
        let future = unsafe { Pin::new_unchecked(future.as_mut()) };
        future.poll(context)
    }
}

impl<F, P: Place> Unpin for Placed<F, P> {}

impl<F, P: Place> Drop for Placed<F, P> {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        // SAFETY: `pin` wrote the future there and nothing else has dropped it.
        unsafe { place.address().cast::<F>().drop_in_place() };
        place.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::Waker;

    use super::super::block::Mapping;
    use super::super::reused::Heap;
    use super::*;

    fn runs_where_it_is_and_is_dropped_once<P: Place>() {
        let alive = Rc::new(());
        let held = Rc::clone(&alive);
        let mut first = true;
        let mut placed = Placed::<_, P>::pin(|| async move {
            let room = [7u8; 5000];
            std::future::poll_fn(|_| {
                if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            let _held = held;
            room.iter().map(|byte| u32::from(*byte)).sum::<u32>()
        });
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(Pin::new(&mut placed).poll(&mut context), Poll::Pending);
        let mut moved = pin!(placed);
        assert_eq!(moved.as_mut().poll(&mut context), Poll::Ready(35_000));
        assert_eq!(Rc::strong_count(&alive), 1);
        let unpolled = Placed::<_, P>::pin(|| {
            let held = Rc::clone(&alive);
            async move { drop(held) }
        });
        assert_eq!(Rc::strong_count(&alive), 2);
        drop(unpolled);
        assert_eq!(Rc::strong_count(&alive), 1);
    }

    fn memory_is_used_again<P: Place>() {
        let future = || Placed::<_, P>::pin(|| std::future::ready([0u8; 100]));
        let address = |placed: &Placed<_, P>| placed.place.as_ref().unwrap().address();
        let first = future();
        let place = address(&first);
        drop(first);
        assert_eq!(address(&future()), place);
    }

    #[test]
    fn a_future_runs_where_it_is_and_is_dropped_once() {
        runs_where_it_is_and_is_dropped_once::<Mapping>();
        runs_where_it_is_and_is_dropped_once::<Heap>();
    }

    #[test]
    fn what_a_future_has_left_is_used_again() {
        memory_is_used_again::<Mapping>();
        memory_is_used_again::<Heap>();
    }
}
