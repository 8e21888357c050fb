//! A connection with one request at a time: HTTP/1.1, or raw bytes.
//!
//! ```text
//! Closed ──begin──▶ Connecting ──▶ Sending ──▶ Reading ──▶ Idle ──begin──▶ Sending
//!    ▲                                            │           │
//!    └── error, last reply, as many as it may ◀───┴───────────┘ the target closed it
//! ```
//!
//! # Invariants
//! - A failed connection is closed; the next request opens a new one.

use std::io::{self, ErrorKind, Read, Write};

use super::{
    Wanted,
    connection::Answer,
    reply::Reply,
    transport::{Shared, Transport},
};

/// One connection, open or not.
#[derive(Debug)]
pub(super) struct Serial {
    transport: Option<Transport>,
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

impl Serial {
    pub(super) fn new() -> Self {
        Self { transport: None, state: State::Closed, kept: Vec::new(), sent: 0, number: 0 }
    }

    pub(super) fn open_early(&mut self, shared: &mut Shared<'_>, token: u64) -> io::Result<()> {
        self.transport = Some(Transport::open_early(shared, token)?);
        self.state = State::Idle;
        Ok(())
    }

    /// Begins a request, on a new connection if there is none. An event tells when to go on.
    pub(super) fn begin(
        &mut self,
        shared: &mut Shared<'_>,
        token: u64,
        number: u64,
    ) -> io::Result<()> {
        self.number = number;
        if self.transport.is_some() {
            self.state = State::Sending { written: 0 };
            return self.send(shared.wanted);
        }
        self.transport = Some(Transport::connect(shared, token)?);
        self.state = State::Connecting;
        Ok(())
    }

    /// Goes on as far as the socket lets it; the answer, if it has ended.
    ///
    /// # Errors
    /// Those of the socket, and of a reply that is none. The caller closes the connection.
    pub(super) fn drive(
        &mut self,
        shared: &mut Shared<'_>,
        hung_up: bool,
    ) -> io::Result<Option<Answer>> {
        let Some(transport) = &mut self.transport else { return Ok(None) };
        if !transport.open(shared)? {
            return Ok(None);
        }
        if matches!(self.state, State::Connecting) {
            self.state = State::Sending { written: 0 };
        }
        self.send(shared.wanted)?;
        let Some(transport) = &mut self.transport else { return Ok(None) };
        match &mut self.state {
            State::Reading(reply) => {
                let answered = read(transport, reply, &mut self.kept, &mut shared.room)?;
                let most = shared.wanted.requests_per_connection.unwrap_or(u32::MAX);
                let status = reply.status;
                if !answered {
                    return Ok(None);
                }
                if hung_up || reply.last || reply.may_end() || self.sent >= most {
                    self.close();
                } else {
                    self.state = State::Idle;
                }
                Ok(Some(Answer::Status(status)))
            }
            State::Idle => {
                // An end between requests is the target's good right; bytes are not.
                match transport.read(&mut shared.room) {
                    Ok(0) => self.close(),
                    Ok(_) => return Err(ErrorKind::InvalidData.into()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => self.close(),
                }
                Ok(None)
            }
            State::Closed | State::Connecting | State::Sending { .. } => Ok(None),
        }
    }

    /// Writes what is left of the request, if one is being sent.
    fn send(&mut self, wanted: &Wanted) -> io::Result<()> {
        let (Some(transport), State::Sending { written }) = (&mut self.transport, &mut self.state)
        else {
            return Ok(());
        };
        let request = wanted.exchange.request(self.number);
        while *written < request.len() {
            match transport.write(&request[*written..]) {
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

/// Reads until the reply has ended, which it says, or the socket has no more.
fn read(
    transport: &mut Transport,
    reply: &mut Reply,
    kept: &mut Vec<u8>,
    room: &mut [u8],
) -> io::Result<bool> {
    loop {
        let before = kept.len();
        room[..before].copy_from_slice(kept);
        let got = match transport.read(&mut room[before..]) {
            Ok(0) if reply.may_end() => return Ok(true),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let filled = before + got;
        let drained = filled < room.len() && transport.reads_to_the_end();
        let used = reply.take(&room[..filled])?;
        kept.clear();
        kept.extend_from_slice(&room[used..filled]);
        if reply.is_done() {
            // One request at a time: nothing may follow its reply.
            return if kept.is_empty() { Ok(true) } else { Err(ErrorKind::InvalidData.into()) };
        }
        // A read that did not fill its room has emptied the socket (epoll(7)), but for an end that
        // came with the bytes: the next event tells.
        if drained && !reply.may_end() {
            return Ok(false);
        }
    }
}
