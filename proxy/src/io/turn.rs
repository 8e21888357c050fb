//! Giving the other tasks of the worker a turn.
//!
//! A ring operation always goes through the kernel, so whoever else is ready runs meanwhile. On
//! epoll an operation on a ready socket completes at once: a connection whose two sides never
//! block would keep the worker for as long as they do not. Waking oneself is no way out: monoio
//! runs such a task next, before all others, and no timer fires while any task can run. So the
//! task waits for an event of the kernel that has come already.
//!
//! # Invariants
//! - A task does at most [`TURN_OPERATIONS`] receives and sends each time it is polled.
//! - On io_uring nothing here happens: no operation completes at its first poll.
//! - One descriptor for each worker, made when it is first needed. Without it nobody waits.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::task::{Poll, Waker};

use rustix::event::{EventfdFlags, eventfd};

use crate::limits::TURN_OPERATIONS;
use crate::sys::stream::Stream;

#[derive(Default)]
struct Gate {
    event: Option<OwnedFd>,
    waiting: Vec<Waker>,
}

thread_local! {
    static GATE: RefCell<Gate> = RefCell::default();
    /// What the task that is being polled may still do.
    static OPERATIONS: Cell<u32> = const { Cell::new(TURN_OPERATIONS) };
}

/// Begins a turn: a task is about to be polled.
pub fn begin() {
    OPERATIONS.set(TURN_OPERATIONS);
}

/// Takes one operation from the turn. When none is left, everybody else who is ready runs before
/// this returns.
pub async fn operation() {
    let left = OPERATIONS.get();
    if left == 0 {
        next().await;
    } else {
        OPERATIONS.set(left - 1);
    }
}

/// Runs `operation`. If it did not have to wait, everybody else who is ready runs before this
/// returns.
pub async fn fairly<T>(operation: impl Future<Output = T>) -> T {
    let mut operation = pin!(operation);
    let mut waited = false;
    let result = poll_fn(|context| {
        let polled = operation.as_mut().poll(context);
        waited |= polled.is_pending();
        polled
    })
    .await;
    if !waited {
        next().await;
    }
    result
}

/// Waits for one round of the driver, on either backend: everybody who is ready runs meanwhile.
pub async fn round() {
    next().await;
}

/// Waits for one round of the driver.
async fn next() {
    let mut asked = false;
    poll_fn(|context| {
        if asked {
            return Poll::Ready(());
        }
        asked = true;
        match ask(context.waker()) {
            Ok(()) => Poll::Pending,
            Err(_) => Poll::Ready(()),
        }
    })
    .await;
}

fn ask(waker: &Waker) -> io::Result<()> {
    GATE.with_borrow_mut(|gate| {
        if gate.event.is_none() {
            let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            monoio::spawn(open_forever(Stream::new(event.try_clone()?)?));
            gate.event = Some(event);
        }
        if let Some(event) = &gate.event
            && gate.waiting.is_empty()
        {
            rustix::io::write(event, &1u64.to_ne_bytes())?;
        }
        gate.waiting.push(waker.clone());
        Ok(())
    })
}

async fn open_forever(event: Stream) {
    while event.readable().await.is_ok() {
        let mut counter = [0u8; 8];
        let _ = rustix::io::read(event.fd(), &mut counter);
        for waker in GATE.with_borrow_mut(|gate| std::mem::take(&mut gate.waiting)) {
            waker.wake();
        }
    }
}
