//! A bounded number of places, given out in the order in which they were asked for.
//!
//! # Invariants
//! - At most `most` guards are alive.
//! - A place that becomes free goes to whoever has waited longest and still waits.
//! - Who keeps a place idle gives it up as soon as somebody waits for one; who has been idle
//!   longest goes first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::io::race::{self, Either};

/// Somebody who waits.
#[derive(Default)]
struct Waiter {
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Waiter {
    fn grant(&self) {
        self.granted.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Waits for [`Self::grant`].
    async fn granted(&self) {
        poll_fn(|context| {
            if self.granted.replace(false) {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// The places.
pub struct Places {
    free: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
    /// Those with a place who are asked to give it up when somebody waits.
    idle: RefCell<VecDeque<Rc<Waiter>>>,
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
        let (waiting, idle) = Default::default();
        Rc::new(Self { free: Cell::new(most), waiting, idle })
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
        let idle = self.idle.borrow_mut().pop_front();
        if let Some(idle) = idle {
            idle.grant();
        }
        queued.waiter.granted().await;
        Place(Rc::clone(self))
    }

    fn give_back(&self) {
        let next = self.waiting.borrow_mut().pop_front();
        match next {
            Some(waiter) => waiter.grant(),
            None => self.free.set(self.free.get() + 1),
        }
    }
}

/// Has a place and does nothing with it; leaves the list when dropped.
struct Idle<'p> {
    places: &'p Rc<Places>,
    asked: Rc<Waiter>,
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.places.idle.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.asked));
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

    /// Runs `other`, for whose sake the place is kept, until somebody waits for a place: `None`,
    /// and the place is to be dropped.
    pub async fn while_idle<T>(&self, other: impl Future<Output = T>) -> Option<T> {
        if self.is_waited_for() {
            return None;
        }
        let asked = Rc::new(Waiter::default());
        self.0.idle.borrow_mut().push_back(Rc::clone(&asked));
        let idle = Idle { places: &self.0, asked };
        match race::first(pin!(other), pin!(idle.asked.granted())).await {
            Either::Left(result) => Some(result),
            Either::Right(()) => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
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

    #[test]
    fn who_is_idle_longest_makes_room_and_nobody_does_without_need() {
        let places = Places::new(2);
        let first = poll(pin!(places.take())).expect("a free place");
        let second = poll(pin!(places.take())).expect("a free place");
        let mut longest = Box::pin(first.while_idle(std::future::pending::<()>()));
        let mut shorter = Box::pin(second.while_idle(std::future::pending::<()>()));
        assert!(poll(longest.as_mut()).is_none());
        assert!(poll(shorter.as_mut()).is_none());
        let mut third = Box::pin(places.take());
        assert!(poll(third.as_mut()).is_none());
        assert!(poll(shorter.as_mut()).is_none(), "one place is asked for");
        assert_eq!(poll(longest.as_mut()), Some(None));
        drop(longest);
        assert_eq!(poll(pin!(first.while_idle(async {}))), Some(None), "it is still waited for");
        drop(first);
        let third = poll(third.as_mut()).expect("its turn");
        assert_eq!(poll(pin!(third.while_idle(async {}))), Some(Some(())));
        drop(shorter);
        assert!(places.idle.borrow().is_empty(), "who is done is asked no more");
    }
}
