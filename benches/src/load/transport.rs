//! The socket of a connection and its TLS, never blocking once the load runs.
//!
//! ```text
//! Connecting ──▶ [Shaking hands] ──▶ Open
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

use super::{
    Wanted,
    tls::{Handshakes, Session},
};
use crate::limits::LOAD_SILENCE_MAX;

/// What the connections share with the loop.
#[derive(Debug)]
pub(super) struct Shared<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) poll: OwnedFd,
    /// What one read may bring.
    pub(super) room: Vec<u8>,
    pub(super) handshakes: Handshakes,
}

/// A socket on its way or open.
#[derive(Debug)]
pub(super) struct Transport {
    stream: TcpStream,
    tls: Option<Box<Session>>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Shaking,
    Open,
}

impl Transport {
    /// Opens it before the load begins, so that no request pays for it.
    pub(super) fn open_early(shared: &mut Shared<'_>, token: u64) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&shared.wanted.target, LOAD_SILENCE_MAX)?;
        let mut transport = Self::watched(shared, token, stream)?;
        transport.stream.set_read_timeout(Some(LOAD_SILENCE_MAX))?;
        if !transport.open(shared)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
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
        let tls = shared.wanted.tls.as_ref().map(Session::new).transpose()?.map(Box::new);
        Ok(Self { stream, tls, stage: Stage::Connecting })
    }

    /// Goes on with opening, or with sending what is sealed; says whether bytes may flow.
    pub(super) fn open(&mut self, shared: &mut Shared<'_>) -> io::Result<bool> {
        if self.stage == Stage::Connecting {
            sockopt::socket_error(self.stream.as_fd())??;
            if self.stream.peer_addr().is_err() {
                return Ok(false);
            }
            self.stage = Stage::Shaking;
        }
        if self.stage == Stage::Shaking {
            if let (Some(session), Some(tls)) = (&mut self.tls, &shared.wanted.tls) {
                if !session.shake(&mut self.stream)? {
                    return Ok(false);
                }
                session.count(tls, &mut shared.handshakes)?;
            }
            self.stage = Stage::Open;
        }
        self.flush()?;
        Ok(true)
    }

    /// Whether a read that did not fill its room has emptied the socket (epoll(7)). TLS
    /// gives what it has opened so far.
    pub(super) fn reads_to_the_end(&self) -> bool {
        self.tls.is_none()
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        if let Some(session) = &mut self.tls {
            session.say_goodbye(&mut self.stream);
        }
    }
}

impl Read for Transport {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.stream.read(room),
            Some(session) => session.read(&mut self.stream, room),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.stream.write(bytes),
            Some(session) => session.write(&mut self.stream, bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => Ok(()),
            Some(session) => session.flush(&mut self.stream),
        }
    }
}
