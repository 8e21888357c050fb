//! The socket of a connection, never blocking once the load runs.
//!
//! ```text
//! Connecting ──▶ Open
//! ```
//!
//! # Invariants
//! - Readiness is edge-triggered: whoever reads or writes goes on until the socket has no more.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    event::epoll::{self, EventData, EventFlags},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, sockopt},
};

use super::Wanted;
use crate::limits::LOAD_SILENCE_MAX;

/// What the connections share with the loop.
#[derive(Debug)]
pub(super) struct Shared<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) poll: OwnedFd,
    /// What one read may bring.
    pub(super) room: Vec<u8>,
}

/// A socket on its way or open.
#[derive(Debug)]
pub(super) struct Transport {
    stream: TcpStream,
    is_open: bool,
}

impl Transport {
    /// Opens it before the load begins, so that no request pays for it.
    pub(super) fn open_early(shared: &mut Shared<'_>, token: u64) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&shared.wanted.target, LOAD_SILENCE_MAX)?;
        let mut transport = Self::watched(shared, token, stream)?;
        transport.is_open = true;
        transport.stream.set_nonblocking(true)?;
        Ok(transport)
    }

    /// Begins to open it. An event tells when to go on.
    pub(super) fn connect(shared: &mut Shared<'_>, token: u64) -> io::Result<Self> {
        let target = &shared.wanted.target;
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&fd, target) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        Self::watched(shared, token, TcpStream::from(fd))
    }

    fn watched(shared: &Shared<'_>, token: u64, stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let events = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&shared.poll, stream.as_fd(), EventData::new_u64(token), events)?;
        Ok(Self { stream, is_open: false })
    }

    /// Goes on with opening; says whether bytes may flow.
    pub(super) fn open(&mut self) -> io::Result<bool> {
        if !self.is_open {
            sockopt::socket_error(self.stream.as_fd())??;
            self.is_open = self.stream.peer_addr().is_ok();
        }
        Ok(self.is_open)
    }

    /// Whether a read that did not fill its room has emptied the socket (epoll(7)).
    pub(super) fn reads_to_the_end(&self) -> bool {
        true
    }
}

impl Read for Transport {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.stream.read(room)
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
