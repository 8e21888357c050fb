//! One deadline per direction of a socket, checked by one sweep per worker.
//!
//! A timer per operation would cost an insertion and a removal for every read of every request.
//! Here a deadline is a number in a table: setting it is a store, and the sweep wakes up only when
//! the earliest one known is due. What is overdue is acted on through the socket itself, so that
//! no read has to be dropped:
//!
//! ```text
//! Cancel    ends a receive that was started with the alarm's handle; no byte is lost
//! Shutdown  shuts both directions down: pending reads see the end, pending writes an error
//! Wake      wakes the task that waits on the alarm
//! Brief     the same, for a wait that may not become longer: nothing postpones it
//! Idle      the same, for a connection between requests: a drain ends these early
//! ```
//!
//! # Invariants
//! - `next_due` is never later than the earliest deadline in the table.
//! - An alarm outlives no socket: it is dropped with it and leaves the table.
//!
//! # Not here
//! What an expired deadline means: the connection that set it decides.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use monoio::io::{CancelHandle, Canceller};
use ringway_stats::clock::now_ns;
use rustix::net::Shutdown;
use slab::Slab;

use super::race;
use crate::limits::DEADLINE_GRAIN;
use crate::sys::stream::Stream;

/// No deadline.
const NEVER: u64 = u64::MAX;

/// What happens when a deadline passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// The receive in flight ends with `ECANCELED`.
    Cancel,
    /// Both directions of the socket are shut down.
    Shutdown,
    /// The task that waits on the alarm runs.
    Wake,
    /// As `Wake`; nothing makes it later.
    Brief,
    /// As `Wake`; nothing is lost when it comes early.
    Idle,
}

struct Entry {
    due_ns: u64,
    expiry: Expiry,
    expired: bool,
    /// No wait goes on, whatever deadline it sets.
    ended: bool,
    watched: bool,
    canceller: Option<Canceller>,
    waker: Option<Waker>,
    stream: Rc<Stream>,
}

/// The deadlines of one worker.
#[derive(Default)]
pub struct Deadlines {
    entries: RefCell<Slab<Entry>>,
    next_due_ns: Cell<u64>,
    sweeper: RefCell<Option<Waker>>,
}

impl Deadlines {
    /// An empty table.
    #[must_use]
    pub fn new() -> Rc<Self> {
        Rc::new(Self { next_due_ns: Cell::new(NEVER), ..Self::default() })
    }

    /// The sweep: a task that runs for as long as the worker does.
    pub async fn sweep_forever(self: Rc<Self>) {
        loop {
            let due = self.next_due_ns.get();
            let now = now_ns();
            if now >= due {
                self.sweep(now);
                // Deadlines set a moment apart are taken together.
                monoio::time::sleep(DEADLINE_GRAIN).await;
            } else if due == NEVER {
                self.earlier_than(NEVER).await;
            } else {
                let pause = Duration::from_nanos(due - now).max(DEADLINE_GRAIN);
                let earlier = pin!(self.earlier_than(due));
                race::first(earlier, pin!(monoio::time::sleep(pause))).await;
            }
        }
    }

    /// Waits until a deadline before `due_ns` is set.
    async fn earlier_than(&self, due_ns: u64) {
        poll_fn(|context| {
            if self.next_due_ns.get() < due_ns {
                return Poll::Ready(());
            }
            *self.sweeper.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn sweep(&self, now: u64) {
        let mut next = NEVER;
        for (_, entry) in self.entries.borrow_mut().iter_mut() {
            if entry.due_ns <= now {
                entry.expire();
            } else {
                next = next.min(entry.due_ns);
            }
        }
        self.next_due_ns.set(next);
    }

    /// Gives back the room of sockets that are gone.
    pub fn shrink(&self) {
        self.entries.borrow_mut().shrink_to_fit();
    }

    /// Lets every idle wait end as if its deadline had passed.
    pub fn expire_idle(&self) {
        for (_, entry) in self.entries.borrow_mut().iter_mut() {
            if entry.expiry == Expiry::Idle && entry.due_ns != NEVER {
                entry.expire();
            }
        }
    }

    /// Shows the streams that are watched to `look`, from entry `from` on and `most` entries at
    /// most. Returns the entry to go on with, `None` at the end.
    pub fn look(&self, from: usize, most: usize, mut look: impl FnMut(&Stream)) -> Option<usize> {
        let entries = self.entries.borrow();
        let end = entries.capacity().min(from + most);
        for entry in (from..end).filter_map(|key| entries.get(key)) {
            if entry.watched {
                look(&entry.stream);
            }
        }
        (end < entries.capacity()).then_some(end)
    }

    fn not_later_than(&self, due_ns: u64) {
        if due_ns >= self.next_due_ns.get() {
            return;
        }
        self.next_due_ns.set(due_ns);
        if let Some(sweeper) = self.sweeper.borrow_mut().take() {
            sweeper.wake();
        }
    }
}

impl Entry {
    fn expire(&mut self) {
        self.due_ns = NEVER;
        self.expired = true;
        match self.expiry {
            Expiry::Cancel => {
                self.canceller = self.canceller.take().map(Canceller::cancel);
            }
            Expiry::Shutdown => {
                let _ = rustix::net::shutdown(self.stream.fd(), Shutdown::Both);
            }
            Expiry::Wake | Expiry::Brief | Expiry::Idle => {}
        }
        // Whoever waits on the alarm learns of it, whatever else was asked for.
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The deadline of one direction of a socket.
pub struct Alarm {
    deadlines: Rc<Deadlines>,
    key: usize,
}

impl Alarm {
    /// Enters `stream` in the table, without a deadline.
    #[must_use]
    pub fn new(deadlines: &Rc<Deadlines>, stream: Rc<Stream>) -> Self {
        let key = deadlines.entries.borrow_mut().insert(Entry {
            due_ns: NEVER,
            expiry: Expiry::Wake,
            expired: false,
            ended: false,
            watched: false,
            canceller: None,
            waker: None,
            stream,
        });
        Self { deadlines: Rc::clone(deadlines), key }
    }

    fn with<R>(&self, change: impl FnOnce(&mut Entry) -> R) -> R {
        change(&mut self.deadlines.entries.borrow_mut()[self.key])
    }

    /// Sets the deadline to `due_ns` on the clock of `now_ns`, in place of any before.
    pub fn set(&self, due_ns: u64, expiry: Expiry) {
        let due_ns = self.with(|entry| {
            entry.due_ns = if entry.ended { 0 } else { due_ns };
            entry.expiry = expiry;
            entry.expired = false;
            entry.due_ns
        });
        self.deadlines.not_later_than(due_ns);
    }

    /// Ends the wait that is under way as if its deadline had passed, and each that begins before
    /// [`Self::clear`].
    pub fn end(&self) {
        self.with(|entry| {
            entry.ended = true;
            entry.due_ns = 0;
        });
        self.deadlines.not_later_than(0);
    }

    /// The deadline as it stands, postponed or not; `due_ns` if there is none or it is later.
    #[must_use]
    pub fn no_earlier_than(&self, due_ns: u64) -> u64 {
        self.with(|entry| if entry.due_ns == NEVER { due_ns } else { due_ns.max(entry.due_ns) })
    }

    /// [`Self::set`], counted from now.
    pub fn set_after(&self, pause: Duration, expiry: Expiry) {
        self.set(after(now_ns(), pause), expiry);
    }

    /// Moves a deadline that has not passed to `due_ns`, if that is later and it is not brief.
    pub fn postpone(&self, due_ns: u64) {
        self.with(|entry| {
            if entry.due_ns != NEVER && entry.expiry != Expiry::Brief && !entry.ended {
                entry.due_ns = entry.due_ns.max(due_ns);
            }
        });
    }

    /// Brings a deadline that has been set forward to `due_ns`, if that is earlier.
    pub fn hasten(&self, due_ns: u64) {
        self.with(|entry| {
            if !entry.expired {
                entry.due_ns = entry.due_ns.min(due_ns);
            }
        });
        self.deadlines.not_later_than(due_ns);
    }

    /// Has the stream shown by [`Deadlines::look`]; one alarm of each does.
    pub fn watch(&self) {
        self.with(|entry| entry.watched = true);
    }

    /// Lets go of what only receives need: a connection that waits for readiness may do so for
    /// hours.
    pub fn rest(&self) {
        self.with(|entry| entry.canceller = None);
    }

    /// Takes the deadline back.
    pub fn clear(&self) {
        self.with(|entry| {
            entry.due_ns = NEVER;
            entry.expired = false;
            entry.ended = false;
        });
    }

    /// Whether the deadline set last has passed.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.with(|entry| entry.expired)
    }

    /// A handle for a receive that `Expiry::Cancel` is to end.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.with(|entry| entry.canceller.get_or_insert_with(Canceller::new).handle())
    }

    /// Waits until `due_ns`.
    pub async fn wait_until(&self, due_ns: u64) {
        self.wait(due_ns, Expiry::Wake).await;
    }

    /// Waits until `due_ns` and no longer, whatever else moves meanwhile.
    pub async fn briefly_until(&self, due_ns: u64) {
        self.wait(due_ns, Expiry::Brief).await;
    }

    /// Waits until `due_ns`, for something that a drain may end early.
    pub async fn idle_until(&self, due_ns: u64) {
        self.wait(due_ns, Expiry::Idle).await;
    }

    async fn wait(&self, due_ns: u64, expiry: Expiry) {
        self.set(due_ns, expiry);
        poll_fn(|context| {
            self.with(|entry| {
                if entry.expired {
                    return Poll::Ready(());
                }
                if !entry.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    entry.waker = Some(context.waker().clone());
                }
                Poll::Pending
            })
        })
        .await;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.deadlines.entries.borrow_mut().remove(self.key);
    }
}

/// `pause` after `now_ns`, without overflow.
#[must_use]
pub fn after(now_ns: u64, pause: Duration) -> u64 {
    now_ns.saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(NEVER))
}
