//! Payload from socket to socket through a pipe with `splice(2)`, never in user space.
//!
//! ```text
//! source ──▶ [pipe] ──▶ sink
//! ```
//!
//! The call is made directly once the ring says that a socket is ready. `IORING_OP_SPLICE` would
//! be handed to a kernel thread for each direction, whatever its size.
//!
//! # Invariants
//! - A pipe returns to the pool only when empty: a leftover byte would surface in another
//!   connection.
//! - `in_pipe` is what went in less what came out. An `EAGAIN` on the way in means "no input" only
//!   when it is zero: a full pipe says the same.
//!
//! # Not here
//! Half-close and idle time (`tunnel`), framing (`http1`).

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};

use super::socket::Socket;
use crate::limits::{PIPE_BYTES, PIPES_POOLED};

/// A pipe and what is in it.
pub struct Pipe {
    output: OwnedFd,
    input: OwnedFd,
    capacity: usize,
    in_pipe: usize,
}

/// What one attempt to move bytes did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes.
    Bytes(usize),
    /// The source has ended.
    End,
    /// The socket is not ready.
    Blocked,
}

thread_local! {
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

impl Pipe {
    /// An empty pipe, from the pool if there is one. `None` when the system gives no pipe, or one
    /// so small that copying is cheaper: then bytes are copied, and nothing else changes.
    #[must_use]
    pub fn take() -> Option<Self> {
        if let Some(pipe) = POOL.with(|pool| pool.borrow_mut().pop()) {
            return Some(pipe);
        }
        let (output, input) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // Over the user's share of pipe memory the kernel refuses to grow it, or granted a page
        // to begin with (pipe(7), pipe-user-pages-soft).
        let capacity = rustix::pipe::fcntl_setpipe_size(&input, PIPE_BYTES)
            .or_else(|_| rustix::pipe::fcntl_getpipe_size(&input))
            .ok()?;
        (capacity >= PIPE_BYTES / 4).then_some(Self { output, input, capacity, in_pipe: 0 })
    }

    /// Gives the pipe back. One with bytes in it is closed instead.
    pub fn give(self) {
        if self.in_pipe > 0 {
            return;
        }
        POOL.with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < PIPES_POOLED {
                pool.push(self);
            }
        });
    }

    /// Closes the pipes of this thread that nobody uses.
    pub fn close_pooled() {
        POOL.with(|pool| pool.borrow_mut().clear());
    }

    /// Bytes in the pipe.
    #[must_use]
    pub fn len(&self) -> usize {
        self.in_pipe
    }

    /// Whether nothing is in the pipe.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_pipe == 0
    }

    /// Moves up to `most` bytes from `source` into the pipe.
    ///
    /// # Errors
    /// Those of the source.
    pub fn fill(&mut self, source: &Socket, most: u64) -> io::Result<Moved> {
        let room = self.capacity.saturating_sub(self.in_pipe);
        let length = room.min(usize::try_from(most).unwrap_or(usize::MAX));
        if length == 0 {
            return Ok(Moved::Blocked);
        }
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        match rustix::pipe::splice(source.fd(), None, &self.input, None, length, flags) {
            Ok(0) => Ok(Moved::End),
            Ok(count) => {
                self.in_pipe += count;
                Ok(Moved::Bytes(count))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Moved::Blocked),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves what is in the pipe to `sink`.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn drain(&mut self, sink: &Socket) -> io::Result<Moved> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        match rustix::pipe::splice(&self.output, None, sink.fd(), None, self.in_pipe, flags) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                self.in_pipe -= count;
                Ok(Moved::Bytes(count))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Moved::Blocked),
            Err(error) => Err(error.into()),
        }
    }
}
