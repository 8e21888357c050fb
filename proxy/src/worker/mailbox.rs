//! Messages to a worker from other threads.
//!
//! An async channel would wake the worker through its waker, which panics on a runtime without
//! cross-thread wakers. A counter in the kernel does the same job on both backends.
//!
//! # Invariants
//! - The queue is bounded; a full one gives the message back.
//! - The eventfd is written only when `pending` flips, so a burst costs one write.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};

use crate::limits::MAILBOX_MESSAGES_MAX;
use crate::shared::{Accepted, Instance};

/// What a worker is told.
#[derive(Debug)]
pub enum Message {
    /// Accept on this socket.
    Listen {
        /// The instance it belongs to.
        instance: Instance,
        /// The series that its connections are counted in.
        series: u32,
        /// The socket.
        fd: OwnedFd,
    },
    /// Take what waits on the instance's socket, then close it.
    StopListening(Instance),
    /// Serve a connection that another worker accepted.
    Serve(Accepted),
    /// There is a new table: let go of the old one.
    Refresh,
    /// Roots or revocations have changed: cut the connections of peers that are trusted no more.
    Distrust,
    /// Close connections that are idle.
    CloseIdle,
}

/// The queue of one worker.
pub struct Mailbox {
    queue: ArrayQueue<Message>,
    pending: AtomicBool,
    event: Arc<OwnedFd>,
}

impl Mailbox {
    /// An empty mailbox.
    ///
    /// # Errors
    /// When the system gives no eventfd.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            queue: ArrayQueue::new(MAILBOX_MESSAGES_MAX),
            pending: AtomicBool::new(false),
            event: Arc::new(event),
        })
    }

    /// Leaves a message.
    ///
    /// # Errors
    /// The message, when the queue is full.
    pub fn post(&self, message: Message) -> Result<(), Message> {
        self.queue.push(message)?;
        if !self.pending.swap(true, Ordering::AcqRel) {
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
        Ok(())
    }

    /// A descriptor that is readable when there are messages.
    ///
    /// # Errors
    /// When it cannot be duplicated.
    pub fn event(&self) -> io::Result<OwnedFd> {
        self.event.try_clone()
    }

    /// Takes the signal back; called before the messages are taken.
    pub fn acknowledge(&self) {
        let mut counter = [0u8; 8];
        while rustix::io::read(&self.event, &mut counter).is_ok() {}
        self.pending.store(false, Ordering::Release);
    }

    /// The next message.
    #[must_use]
    pub fn take(&self) -> Option<Message> {
        self.queue.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_gives_the_message_back() {
        let mailbox = Mailbox::new().unwrap();
        for _ in 0..MAILBOX_MESSAGES_MAX {
            mailbox.post(Message::Refresh).unwrap();
        }
        assert!(matches!(mailbox.post(Message::Refresh), Err(Message::Refresh)));
        assert!(mailbox.take().is_some());
        assert!(mailbox.post(Message::Refresh).is_ok());
    }

    #[test]
    fn messages_posted_after_the_acknowledgement_signal_again() {
        let mailbox = Mailbox::new().unwrap();
        let event = mailbox.event().unwrap();
        let signalled = || rustix::io::read(&event, &mut [0u8; 8]).is_ok();
        mailbox.post(Message::Refresh).unwrap();
        mailbox.post(Message::Refresh).unwrap();
        assert!(signalled());
        mailbox.acknowledge();
        assert!(!signalled());
        mailbox.post(Message::Refresh).unwrap();
        assert!(signalled());
    }
}
