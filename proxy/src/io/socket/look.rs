//! What can be told of a socket without waiting and without taking anything from it.

use std::io;

use rustix::net::sockopt;

use super::Socket;
use crate::io::resting::{Glimpse, glimpse_inside, look};

impl Socket {
    /// How the connection has failed, if it has and nobody was told yet: whoever asks is.
    #[must_use]
    pub fn failure(&self) -> Option<io::Error> {
        let said = sockopt::socket_error(self.fd()).flatten().err()?;
        Some(self.cause_of(said.into()))
    }

    /// What an error of a plain system call on the descriptor comes from.
    #[must_use]
    pub fn cause_of(&self, error: io::Error) -> io::Error {
        self.stream.cause_of(error)
    }

    /// Bytes that a send would take now, or a little more; 0 when the kernel does not say.
    #[must_use]
    pub fn room(&self) -> u64 {
        let Ok(buffer) = sockopt::socket_send_buffer_size(self.fd()) else { return 0 };
        self.stream.outstanding().map_or(0, |queued| (buffer as u64).saturating_sub(queued))
    }

    /// Whether the peer has not acknowledged all that was sent.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        self.stream.outstanding().is_ok_and(|bytes| bytes > 0)
    }

    /// Looks at what has arrived on the wire without taking it: one system call.
    #[must_use]
    pub fn glimpse(&self) -> Glimpse {
        look(self.fd()).unwrap_or_else(|error| {
            // It is told once.
            self.stream.remember(error);
            Glimpse::Broken
        })
    }

    /// [`Self::glimpse`] at what a receive would give. No operation may be in flight: what protects
    /// the socket may have to take its own messages, such as session tickets, out of the way.
    #[must_use]
    pub fn glimpse_inside(&self) -> Glimpse {
        glimpse_inside(self.fd(), &self.protection)
    }
}
