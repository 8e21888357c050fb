//! Where connections wait that have nothing to do: out of the runtime, in one epoll set.
//!
//! ```text
//! task ── a second of silence ──▶ Parked: descriptor, peer ── readable ──▶ new task
//!                                        │ due, or a drain
//!                                        └──▶ closed
//! ```
//! A task with its registration, its operation and its deadlines takes more than 1 KiB, most of it
//! in monoio. A parked connection takes an entry of some 200 bytes. The set is one descriptor that
//! the runtime waits for, on io_uring as on epoll.
//!
//! # Invariants
//! - A parked connection owes nothing and is owed nothing: no byte of a request has come.
//! - It counts as open: its guest is kept with it.
//! - A descriptor leaves the set before it is used or closed.
//!
//! # Not here
//! Idle connections to endpoints: `pool`. They are taken by the task that needs them.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::pin;
use std::rc::Rc;

use ringway_stats::clock::now_ns;
use rustix::event::epoll;
use slab::Slab;

use super::{Guest, Worker, resume};
use crate::connection::Idle;
use crate::io::deadlines::{Alarm, Deadlines, after};
use crate::io::race;
use crate::limits::{PARKED_BEFORE_TRIM, PARKED_LOOK_INTERVAL, PARKED_WOKEN_PER_TURN, TRIM_DELAY};
use crate::sys::alloc;
use crate::sys::stream::Stream;
use crate::tls::peer::TlsPeer;

/// No deadline.
const NEVER: u64 = u64::MAX;

struct Parked {
    idle: Idle,
    guest: Guest,
}

/// The parked connections of one worker.
pub struct Lot {
    /// The epoll set; its data are keys of `parked`.
    set: Rc<Stream>,
    alarm: Alarm,
    parked: RefCell<Slab<Parked>>,
    /// When to look for connections that are due, at the latest.
    look_ns: Cell<u64>,
    /// Connections and streams that have gone quiet since free memory was last given back.
    since_trim: Cell<usize>,
    trim_ns: Cell<u64>,
}

impl Lot {
    /// An empty one.
    ///
    /// # Errors
    /// When the system gives no epoll set.
    pub fn new(deadlines: &Rc<Deadlines>) -> io::Result<Self> {
        let set = Rc::new(Stream::new(epoll::create(epoll::CreateFlags::CLOEXEC)?)?);
        Ok(Self {
            alarm: Alarm::new(deadlines, Rc::clone(&set)),
            set,
            parked: RefCell::default(),
            look_ns: Cell::new(NEVER),
            since_trim: Cell::new(0),
            trim_ns: Cell::new(NEVER),
        })
    }

    /// Keeps a connection until something comes or it is due. One that cannot be kept is closed.
    pub(super) fn park(&self, idle: Idle, guest: Guest) {
        let due_ns = idle.due_ns;
        let mut parked = self.parked.borrow_mut();
        let entry = parked.vacant_entry();
        let data = epoll::EventData::new_u64(entry.key() as u64);
        let events = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        if let Err(error) = epoll::add(self.set.fd(), &idle.resting.fd, data, events) {
            tracing::warn!(%error, "an idle connection cannot be kept");
            return;
        }
        entry.insert(Parked { idle, guest });
        self.look_ns.set(self.look_ns.get().min(due_ns));
        self.note_quiet(1);
    }

    /// Notes that `count` connections or streams have gone quiet.
    ///
    /// Free memory lies scattered among what connections still need, and the allocator returns it
    /// only when told to. When many have gone quiet and no more do, that is worth a walk through
    /// its lists.
    pub fn note_quiet(&self, count: usize) {
        self.since_trim.set(self.since_trim.get() + count);
        if self.since_trim.get() >= PARKED_BEFORE_TRIM {
            self.trim_ns.set(after(now_ns(), TRIM_DELAY));
        }
        self.alarm.hasten(self.next_ns());
    }

    fn next_ns(&self) -> u64 {
        self.look_ns.get().min(self.trim_ns.get())
    }

    /// Closes everything.
    pub fn clear(&self) {
        let all = std::mem::take(&mut *self.parked.borrow_mut());
        for (_, parked) in all {
            let _ = epoll::delete(self.set.fd(), &parked.idle.resting.fd);
            parked.idle.resting.close();
        }
    }

    /// Closes every protected connection whose peer is not `trusted`. Returns how many.
    pub fn cut(&self, trusted: impl Fn(&TlsPeer) -> bool) -> u64 {
        let distrusted = |parked: &Parked| {
            parked
                .idle
                .resting
                .tls()
                .is_some_and(|layer| layer.peer().identity.is_some() && !trusted(layer.peer()))
        };
        let parked = self.parked.borrow();
        let keys = parked.iter().filter(|(_, parked)| distrusted(parked)).map(|(key, _)| key);
        let keys: Vec<usize> = keys.collect();
        drop(parked);
        for key in &keys {
            drop(self.take(*key));
        }
        keys.len() as u64
    }

    fn take(&self, key: usize) -> Option<Parked> {
        let parked = self.parked.borrow_mut().try_remove(key)?;
        let _ = epoll::delete(self.set.fd(), &parked.idle.resting.fd);
        Some(parked)
    }

    /// Closes what is due.
    fn expire(&self, now: u64) {
        let mut next = NEVER;
        let mut due = Vec::new();
        for (key, parked) in self.parked.borrow().iter() {
            if parked.idle.due_ns <= now {
                due.push(key);
            } else {
                next = next.min(parked.idle.due_ns);
            }
        }
        for key in due {
            if let Some(parked) = self.take(key) {
                parked.idle.resting.close();
            }
        }
        // Those due a moment apart are taken together: the look is as long as the lot is full.
        self.look_ns.set(next.max(after(now, PARKED_LOOK_INTERVAL)));
        if next == NEVER {
            self.look_ns.set(NEVER);
        }
    }

    fn trim(&self, deadlines: &Deadlines) {
        self.trim_ns.set(NEVER);
        self.since_trim.set(0);
        deadlines.shrink();
        alloc::give_back_free_memory();
    }
}

/// Wakes and closes parked connections. A task that runs as long as the worker does.
pub(super) async fn attend(worker: Rc<Worker>) {
    let lot = &worker.lot;
    let mut events = Vec::with_capacity(PARKED_WOKEN_PER_TURN);
    loop {
        {
            let due = pin!(lot.alarm.wait_until(lot.next_ns()));
            race::first(pin!(lot.set.readable()), due).await;
        }
        events.clear();
        let now_at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let room = rustix::buffer::spare_capacity(&mut events);
        if epoll::wait(lot.set.fd(), room, Some(&now_at_once)).is_err() {
            events.clear();
        }
        for event in &events {
            let key = event.data.u64();
            if let Some(Parked { idle, guest }) =
                lot.take(usize::try_from(key).unwrap_or(usize::MAX))
            {
                resume(idle, guest);
            }
        }
        let now = now_ns();
        if now >= lot.look_ns.get() {
            lot.expire(now);
        }
        if now >= lot.trim_ns.get() {
            lot.trim(&worker.deadlines);
        }
    }
}
