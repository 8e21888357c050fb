//! Bodies of responses from a connection of HTTP/1.1 to a stream, and the pace of both directions.
//!
//! ```text
//! SendStream ◀─ bytes ◀─ block ◀─ endpoint     received only while there is a window
//! ```
//!
//! # Invariants
//! - One block is held; what the client does not take is not read.
//! - Neither direction times out while the other moves.
//!
//! # Not here
//! Bodies of requests: `upload`.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use ringway_stats::clock::now_ns;

use super::translate;
use crate::http1::body::Body;
use crate::http1::scan::{Scan, Scanner};
use crate::io::deadlines::{Alarm, Deadlines, after};
use crate::io::race::{self, Either};
use crate::io::socket::{Arrival, Socket};
use crate::limits::TRAILER_BYTES_MAX;
use crate::outcome::{Cause, Failure};
use crate::recorder::Shard;
use crate::sys::block::Block;
use crate::tls::handshake::Side;

/// How long the two directions of a stream may take.
pub struct Pace {
    idle: Duration,
    /// When the exchange must be over, on the clock of `now_ns`.
    deadline_ns: u64,
    moved_ns: Cell<u64>,
    /// One for each [`Wait`]: they go on side by side.
    alarms: [Alarm; 3],
}

/// What a stream waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// What comes from the client.
    Request,
    /// What comes from the endpoint, and room for it at the client.
    Response,
    /// Room at the endpoint for what comes from the client.
    Upload,
}

impl Pace {
    /// For a stream of the client at `socket`, either side of which may do nothing for `idle`.
    #[must_use]
    pub fn new(
        socket: &Socket,
        deadlines: &Rc<Deadlines>,
        idle: Duration,
        deadline_ns: u64,
    ) -> Self {
        let alarm = || socket.alarm(deadlines);
        let alarms = [alarm(), alarm(), alarm()];
        Self { idle, deadline_ns, moved_ns: Cell::new(now_ns()), alarms }
    }

    /// Until when to wait for progress.
    #[must_use]
    pub fn due_ns(&self) -> u64 {
        after(self.moved_ns.get().max(now_ns()), self.idle).min(self.deadline_ns)
    }

    /// Something has moved.
    pub fn moved(&self) {
        self.moved_ns.set(now_ns());
    }

    /// Waits for `work`; `None` when neither direction has moved for too long.
    pub async fn timely<T>(&self, wait: Wait, work: impl Future<Output = T>) -> Option<T> {
        let alarm = &self.alarms[wait as usize];
        let mut work = pin!(work);
        loop {
            let due_ns = after(self.moved_ns.get(), self.idle).min(self.deadline_ns);
            if now_ns() >= due_ns {
                return None;
            }
            let waited = pin!(alarm.wait_until(due_ns));
            match race::first(work.as_mut(), waited).await {
                Either::Left(done) => {
                    alarm.clear();
                    return Some(done);
                }
                Either::Right(()) => {}
            }
        }
    }

    /// Why an endpoint that does nothing is given up.
    #[must_use]
    pub fn stall_cause(&self) -> Cause {
        if now_ns() >= self.deadline_ns { Cause::UpstreamTimeout } else { Cause::UpstreamStalled }
    }
}

/// Why the body of a response did not go over whole.
#[derive(Debug)]
pub enum RelayFault {
    /// The client's doing.
    Client(Failure),
    /// The endpoint's doing.
    Upstream(Failure),
}

impl RelayFault {
    /// The cause.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Client(failure) | Self::Upstream(failure) => failure.cause,
        }
    }

    /// As the failure of an exchange.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Client(failure) | Self::Upstream(failure) => failure,
        }
    }
}

/// Moves the body of a response from an endpoint to a stream.
pub struct Relay<'a> {
    /// The endpoint.
    pub up: &'a Socket,
    /// How long that may take.
    pub pace: &'a Pace,
    /// Where bytes are counted.
    pub shard: &'a Shard,
    /// Set when the client has reset the stream.
    pub gone: &'a Cell<bool>,
}

impl Relay<'_> {
    /// Moves `body`, of which `block` holds the first bytes, and ends the stream. Says whether
    /// nothing came behind it.
    ///
    /// # Errors
    /// When it did not go over whole; the stream is still to be reset.
    pub async fn run(
        &self,
        body: Body,
        block: Block,
        stream: &mut SendStream<Bytes>,
    ) -> Result<bool, RelayFault> {
        let (mut body, mut block) = (body, block);
        loop {
            let (consumed, payload) = take(&mut body, &mut block)?;
            if payload > 0 {
                self.shard.copy_bytes.add(payload as u64);
                send_bytes(stream, &block.data()[..payload], body.is_done(), self.pace).await?;
            }
            block.consume(consumed);
            if body.is_done() {
                if payload == 0 {
                    end(stream)?;
                }
                return Ok(block.is_empty());
            }
            if matches!(body, Body::Trailers) {
                return self.trailers(block, stream).await;
            }
            block = match self.receive(block, stream).await? {
                Some(block) => block,
                None if matches!(body, Body::UntilClose) => {
                    end(stream)?;
                    return Ok(false);
                }
                None => return Err(RelayFault::Upstream(Cause::UpstreamTruncated.into())),
            };
            self.pace.moved();
        }
    }

    /// Receives more behind what `block` holds; `None` at the end. A client that resets the stream
    /// meanwhile ends the wait.
    async fn receive(
        &self,
        block: Block,
        stream: &mut SendStream<Bytes>,
    ) -> Result<Option<Block>, RelayFault> {
        let mut block = block;
        block.compact();
        let mut work = pin!(self.up.recv_patient(block, self.pace.due_ns()));
        let gone = pin!(poll_fn(|context| stream.poll_reset(context).map(drop)));
        let arrival = match race::first(work.as_mut(), gone).await {
            Either::Left(arrival) => arrival,
            Either::Right(()) => {
                self.gone.set(true);
                self.up.shutdown();
                work.await
            }
        };
        if self.gone.get() {
            return Err(RelayFault::Client(Cause::ClientReset.into()));
        }
        match arrival {
            Arrival::Data(block) => Ok(Some(block)),
            Arrival::End(_) => Ok(None),
            Arrival::Silence(_) => Err(RelayFault::Upstream(self.pace.stall_cause().into())),
            Arrival::Broken(error) => {
                Err(RelayFault::Upstream(Failure::of_io(Side::Upstream, &error)))
            }
        }
    }

    /// Collects the trailer section and ends the stream with it.
    async fn trailers(
        &self,
        block: Block,
        stream: &mut SendStream<Bytes>,
    ) -> Result<bool, RelayFault> {
        let malformed =
            || RelayFault::Upstream(Failure::with(Cause::UpstreamMalformed, "the trailers"));
        let mut block = block;
        let mut scanner = Scanner::trailers();
        let length = loop {
            match scanner.scan(block.data()) {
                Ok(Scan::Complete { end, .. }) => break end,
                Ok(Scan::Partial) if block.len() <= TRAILER_BYTES_MAX => {}
                Ok(Scan::Partial) | Err(_) => return Err(malformed()),
            }
            let received = self.receive(block, stream).await?;
            let truncated = || RelayFault::Upstream(Cause::UpstreamTruncated.into());
            block = received.ok_or_else(truncated)?;
        };
        if length > TRAILER_BYTES_MAX {
            return Err(malformed());
        }
        let fields = translate::trailers(&block.data()[..length]).map_err(RelayFault::Upstream)?;
        block.consume(length);
        match fields {
            Some(fields) => stream.send_trailers(fields).map_err(client)?,
            None => end(stream)?,
        }
        Ok(block.is_empty())
    }
}

/// Bytes of `block` that belong to the body, and how many of them, at its front, are data.
fn take(body: &mut Body, block: &mut Block) -> Result<(usize, usize), RelayFault> {
    let malformed = |fault| RelayFault::Upstream(Failure::with(Cause::UpstreamMalformed, fault));
    if let Body::Chunked(chunked) = body {
        let advance = chunked.strip(block.data_mut()).map_err(malformed)?;
        if advance.at_trailers {
            *body = Body::Trailers;
        }
        return Ok((advance.consumed, advance.payload));
    }
    let taken = body.take(block.data()).map_err(malformed)?;
    Ok((taken, taken))
}

fn client(error: h2::Error) -> RelayFault {
    RelayFault::Client(Failure::with(Cause::ClientReset, error))
}

/// Ends the stream behind what was sent.
fn end(stream: &mut SendStream<Bytes>) -> Result<(), RelayFault> {
    stream.send_data(Bytes::new(), true).map_err(client)
}

/// Sends all of `bytes`, and the end of the stream with the last of them if `ends`, as the client's
/// window opens.
///
/// # Errors
/// When the client takes no more.
pub async fn send_bytes(
    stream: &mut SendStream<Bytes>,
    bytes: &[u8],
    ends: bool,
    pace: &Pace,
) -> Result<(), RelayFault> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let room = room(stream, rest.len(), pace, Wait::Response).await?;
        let (now, later) = rest.split_at(rest.len().min(room));
        rest = later;
        let last = ends && rest.is_empty();
        stream.send_data(Bytes::copy_from_slice(now), last).map_err(client)?;
        pace.moved();
    }
    Ok(())
}

/// [`send_bytes`] for bytes that need no copy, in either direction.
///
/// # Errors
/// When the other side takes no more.
pub async fn send_frame(
    stream: &mut SendStream<Bytes>,
    frame: Bytes,
    ends: bool,
    (pace, wait): (&Pace, Wait),
) -> Result<(), RelayFault> {
    let mut rest = frame;
    if rest.is_empty() && ends {
        return end(stream);
    }
    while !rest.is_empty() {
        let room = room(stream, rest.len(), pace, wait).await?;
        let now = rest.split_to(rest.len().min(room));
        let last = ends && rest.is_empty();
        stream.send_data(now, last).map_err(client)?;
        pace.moved();
    }
    Ok(())
}

/// Waits until some of `wanted` bytes may be sent; how many.
async fn room(
    stream: &mut SendStream<Bytes>,
    wanted: usize,
    pace: &Pace,
    wait: Wait,
) -> Result<usize, RelayFault> {
    stream.reserve_capacity(wanted);
    let opened = poll_fn(|context| {
        loop {
            if stream.capacity() > 0 {
                return Poll::Ready(Ok(stream.capacity()));
            }
            match stream.poll_capacity(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(client(error))),
                Poll::Ready(None) => {
                    let gone = RelayFault::Client(Cause::ClientReset.into());
                    return Poll::Ready(Err(gone));
                }
            }
        }
    });
    match pace.timely(wait, opened).await {
        Some(opened) => opened,
        None => Err(RelayFault::Client(Cause::ClientStalled.into())),
    }
}
