//! A connection of the load, never blocking: one request at a time.
//!
//! ```text
//! Closed ──begin──▶ Connecting ──▶ Sending ──▶ Reading ──▶ Idle ──begin──▶ Sending
//!    ▲                                            │           │
//!    └── error, last reply, as many as it may ◀───┴───────────┘ the target closed it
//! ```
//!
//! # Invariants
//! - Readiness is edge-triggered: whoever drives a connection goes on until the socket has no more.
//! - A failed connection is closed; the next request opens a new one.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    event::epoll::{self, EventData, EventFlags},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, sockopt},
};

use super::{Wanted, reply::Reply};

/// One connection, open or not.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Option<TcpStream>,
    state: State,
    /// Received and not yet understood: the beginning of a head or of a chunk.
    kept: Vec<u8>,
    /// Requests sent since it was opened.
    sent: u32,
    /// Number of the request that is on it.
    number: u64,
}

#[derive(Debug)]
enum State {
    Closed,
    Connecting,
    Sending { written: usize },
    Reading(Reply),
    Idle,
}

/// What driving a connection came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It waits for its socket.
    Waiting,
    /// The reply has ended, with this status.
    Answered(u16),
}

impl Connection {
    pub(super) fn new() -> Self {
        Self { stream: None, state: State::Closed, kept: Vec::new(), sent: 0, number: 0 }
    }

    /// Opens the connection before the load begins, so that no request pays for it.
    pub(super) fn open_early(
        &mut self,
        poll: &OwnedFd,
        token: u64,
        target: SocketAddr,
    ) -> io::Result<()> {
        let stream = TcpStream::connect_timeout(&target, crate::limits::LOAD_SILENCE_MAX)?;
        stream.set_nonblocking(true)?;
        self.take_over(poll, token, stream)?;
        self.state = State::Idle;
        Ok(())
    }

    /// Begins a request, on a new connection if there is none. An event tells when to go on.
    pub(super) fn begin(
        &mut self,
        poll: &OwnedFd,
        token: u64,
        wanted: &Wanted,
        number: u64,
    ) -> io::Result<()> {
        self.number = number;
        if self.stream.is_some() {
            self.state = State::Sending { written: 0 };
            return self.send(wanted);
        }
        let family =
            if wanted.target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&fd, &wanted.target) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        self.take_over(poll, token, TcpStream::from(fd))?;
        self.state = State::Connecting;
        Ok(())
    }

    fn take_over(&mut self, poll: &OwnedFd, token: u64, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let events = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(poll, stream.as_fd(), EventData::new_u64(token), events)?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Whether a request is on it.
    pub(super) fn is_busy(&self) -> bool {
        !matches!(self.state, State::Closed | State::Idle)
    }

    /// Goes on as far as the socket lets it.
    ///
    /// # Errors
    /// Those of the socket, and of a reply that is none. The caller closes the connection.
    pub(super) fn drive(&mut self, wanted: &Wanted, room: &mut [u8]) -> io::Result<Progress> {
        let Some(stream) = &mut self.stream else { return Ok(Progress::Waiting) };
        if matches!(self.state, State::Connecting) {
            sockopt::socket_error(stream.as_fd())??;
            if stream.peer_addr().is_err() {
                return Ok(Progress::Waiting);
            }
            self.state = State::Sending { written: 0 };
        }
        self.send(wanted)?;
        let Some(stream) = &mut self.stream else { return Ok(Progress::Waiting) };
        match &mut self.state {
            State::Reading(reply) => match read(stream, reply, &mut self.kept, room)? {
                Progress::Waiting => Ok(Progress::Waiting),
                Progress::Answered(status) => {
                    let most = wanted.requests_per_connection.unwrap_or(u32::MAX);
                    if reply.last || reply.may_end() || self.sent >= most {
                        self.close();
                    } else {
                        self.state = State::Idle;
                    }
                    Ok(Progress::Answered(status))
                }
            },
            State::Idle => {
                // An end between requests is the target's good right; bytes are not.
                match stream.read(room) {
                    Ok(0) => self.close(),
                    Ok(_) => return Err(ErrorKind::InvalidData.into()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => self.close(),
                }
                Ok(Progress::Waiting)
            }
            State::Closed | State::Connecting | State::Sending { .. } => Ok(Progress::Waiting),
        }
    }

    /// Writes what is left of the request, if one is being sent.
    fn send(&mut self, wanted: &Wanted) -> io::Result<()> {
        let (Some(stream), State::Sending { written }) = (&mut self.stream, &mut self.state) else {
            return Ok(());
        };
        let request = wanted.exchange.request(self.number);
        while *written < request.len() {
            match stream.write(&request[*written..]) {
                Ok(count) => *written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.sent += 1;
        self.state = State::Reading(wanted.exchange.reply());
        Ok(())
    }

    /// Closes the connection, whatever is on it.
    pub(super) fn close(&mut self) {
        *self = Self::new();
    }
}

/// Reads until the reply has ended or the socket has no more.
fn read(
    stream: &mut TcpStream,
    reply: &mut Reply,
    kept: &mut Vec<u8>,
    room: &mut [u8],
) -> io::Result<Progress> {
    loop {
        let before = kept.len();
        room[..before].copy_from_slice(kept);
        let got = match stream.read(&mut room[before..]) {
            Ok(0) if reply.may_end() => return Ok(Progress::Answered(reply.status)),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Waiting),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let filled = before + got;
        let drained = filled < room.len();
        let used = reply.take(&room[..filled])?;
        kept.clear();
        kept.extend_from_slice(&room[used..filled]);
        if reply.is_done() {
            // One request at a time: nothing may follow its reply.
            return if kept.is_empty() {
                Ok(Progress::Answered(reply.status))
            } else {
                Err(ErrorKind::InvalidData.into())
            };
        }
        // A read that did not fill its room has emptied the socket (epoll(7)), but for an end that
        // came with the bytes: the next event tells.
        if drained && !reply.may_end() {
            return Ok(Progress::Waiting);
        }
    }
}
