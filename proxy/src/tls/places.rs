//! A bounded number of places, given out in the order in which they were asked for.
//!
//! # Invariants
//! - At most `most` guards are alive.
//! - A place that becomes free goes to whoever has waited longest and still waits.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Somebody who waits.
#[derive(Default)]
struct Waiter {
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// The places.
pub struct Places {
    free: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
}

/// A place that is taken, until it is dropped.
pub struct Place(Rc<Places>);

/// Waits in the queue; leaves it when dropped.
struct Queued<'p> {
    places: &'p Rc<Places>,
    waiter: Rc<Waiter>,
}

impl Places {
    /// `most` free places.
    #[must_use]
    pub fn new(most: usize) -> Rc<Self> {
        Rc::new(Self { free: Cell::new(most), waiting: RefCell::default() })
    }

    /// Takes a place, waiting for one if none is free. Safe to drop.
    pub async fn take(self: &Rc<Self>) -> Place {
        let free = self.free.get();
        if free > 0 {
            self.free.set(free - 1);
            return Place(Rc::clone(self));
        }
        let waiter = Rc::new(Waiter::default());
        self.waiting.borrow_mut().push_back(Rc::clone(&waiter));
        let queued = Queued { places: self, waiter };
        poll_fn(|context| {
            if queued.waiter.granted.replace(false) {
                return Poll::Ready(());
            }
            *queued.waiter.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        Place(Rc::clone(self))
    }

    fn give_back(&self) {
        let next = self.waiting.borrow_mut().pop_front();
        match next {
            Some(waiter) => {
                waiter.granted.set(true);
                if let Some(waker) = waiter.waker.borrow_mut().take() {
                    waker.wake();
                }
            }
            None => self.free.set(self.free.get() + 1),
        }
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        // Granted, but given up before it was noticed: the next one has it.
        if self.waiter.granted.get() {
            self.places.give_back();
        } else {
            let mut waiting = self.places.waiting.borrow_mut();
            waiting.retain(|other| !Rc::ptr_eq(other, &self.waiter));
        }
    }
}

impl Place {
    /// Whether somebody waits for a place.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        !self.0.waiting.borrow().is_empty()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::Context;

    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn places_are_bounded_and_given_in_order() {
        let places = Places::new(1);
        let first = poll(pin!(places.take())).expect("a free place");
        let (mut second, mut third) = (pin!(places.take()), pin!(places.take()));
        assert!(poll(second.as_mut()).is_none());
        assert!(poll(third.as_mut()).is_none());
        drop(first);
        assert!(poll(third.as_mut()).is_none(), "who came later waits longer");
        let place = poll(second.as_mut()).expect("its turn");
        assert!(poll(third.as_mut()).is_none());
        drop(place);
        assert!(poll(third.as_mut()).is_some());
    }

    #[test]
    fn a_place_granted_to_somebody_who_left_is_not_lost() {
        let places = Places::new(1);
        let first = poll(pin!(places.take())).expect("a free place");
        let mut left = Box::pin(places.take());
        let mut waiting = Box::pin(places.take());
        assert!(poll(left.as_mut()).is_none());
        assert!(poll(waiting.as_mut()).is_none());
        drop(first);
        drop(left);
        assert!(poll(waiting.as_mut()).is_some());
        assert!(poll(pin!(places.take())).is_some(), "it came back when it was dropped");
    }
}
