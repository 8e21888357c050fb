//! A connection out of the runtime: a descriptor, what protects its bytes, and what can be seen of
//! it without receiving.
//!
//! # Invariants
//! - A look takes nothing that a later receive would give. What protects the bytes may take its own
//!   messages, such as session tickets, out of the way.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::tls::layer::Layer;

/// Receives of one look at a protected connection.
const LOOKS_MAX: u32 = 4;

/// What protects the bytes of a socket. TLS in the kernel will be a third form, with the operations
/// of the first.
pub enum Protection {
    /// Nothing.
    None,
    /// TLS, by this process.
    UserSpace(Box<Layer>),
}

/// A connection out of the runtime: its descriptor, and what protects it.
pub struct Resting {
    /// The descriptor.
    pub fd: OwnedFd,
    /// What protects its bytes.
    pub protection: Protection,
}

/// What can be seen on a socket without reading from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glimpse {
    /// Nothing has come.
    Nothing,
    /// Bytes are waiting.
    Bytes,
    /// The peer has closed its side.
    End,
    /// The connection was reset or failed.
    Broken,
}

impl Resting {
    /// What a receive would give.
    #[must_use]
    pub fn glimpse_inside(&self) -> Glimpse {
        glimpse_inside(self.fd.as_fd(), &self.protection)
    }

    /// What is known of the other side from its handshake.
    #[must_use]
    pub fn tls(&self) -> Option<&Layer> {
        match &self.protection {
            Protection::None => None,
            Protection::UserSpace(layer) => Some(layer),
        }
    }

    /// Closes the connection in the ordinary way.
    pub fn close(self) {
        if let Protection::UserSpace(layer) = &self.protection {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            layer.last_words(|words| _ = rustix::net::send(&self.fd, words, flags));
        }
    }
}

/// A [`look`] at what a receive would give. No operation may be in flight.
#[must_use]
pub fn glimpse_inside(fd: BorrowedFd<'_>, protection: &Protection) -> Glimpse {
    let seen = look(fd).unwrap_or(Glimpse::Broken);
    let Protection::UserSpace(layer) = protection else { return seen };
    if layer.holds_plaintext() {
        return Glimpse::Bytes;
    }
    if layer.has_ended() {
        return Glimpse::End;
    }
    match seen {
        // The rest of a record would answer whoever asks next.
        Glimpse::Nothing if layer.holds_partial() => return Glimpse::Bytes,
        Glimpse::Bytes => {}
        seen => return seen,
    }
    for _ in 0..LOOKS_MAX {
        let mut block = layer.take_partial();
        match rustix::net::recv(fd, block.spare_mut(), RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Glimpse::Broken,
            Ok((count, _)) => block.advance(count),
            Err(Errno::AGAIN | Errno::INTR) => return Glimpse::Nothing,
            Err(_) => return Glimpse::Broken,
        }
        match layer.look_into(block) {
            Glimpse::Nothing => {}
            found => return found,
        }
    }
    // Whoever has so much to say between two exchanges is of no use.
    Glimpse::Bytes
}

/// Looks at what has arrived on the wire without taking it: one system call.
///
/// # Errors
/// That of the connection, if it is broken.
pub fn look(fd: BorrowedFd<'_>) -> Result<Glimpse, Errno> {
    let mut byte = [0u8; 1];
    match rustix::net::recv(fd, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) => Ok(Glimpse::End),
        Ok(_) => Ok(Glimpse::Bytes),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Glimpse::Nothing),
        Err(error) => Err(error),
    }
}
