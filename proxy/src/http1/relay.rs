//! Moves a message body from one connection to the other, checking its framing on the way.
//!
//! ```text
//! source ─▶ block ─▶ take (body, chunked) ─▶ sink      up to 64 KiB ahead
//! source ─▶ pipe ──────────────────────────▶ sink      a longer run of plain bytes
//! ```
//!
//! # Invariants
//! - One block per direction: what the sink does not take is not read from the source.
//! - What comes behind the body is kept for the next message, never sent with this one.
//!
//! # Not here
//! Heads, and what a fault means for the exchange.

use std::cell::Cell;
use std::fmt::Write;
use std::io;
use std::time::Duration;

use arrayvec::ArrayString;
use ringway_stats::clock::now_ns;
use thiserror::Error;

use super::body::Body;
use super::chunked::ChunkFault;
use super::compose;
use super::scan::{Scan, Scanner};
use crate::io::deadlines::after;
use crate::io::socket::{Arrival, Socket};
use crate::io::splice::{self, Pace, Run};
use crate::limits::{SPLICE_BYTES_MIN, TRAILER_BYTES_MAX};
use crate::recorder::Shard;
use crate::sys::block::Block;

/// How the body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it came.
    AsIs,
    /// The chunked coding is taken off.
    Strip,
    /// The chunked coding is put on.
    Wrap,
}

/// The two ends of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where the body comes from.
    Source,
    /// Where it goes.
    Sink,
}

/// Why a body did not go over whole.
#[derive(Debug, Error)]
pub enum RelayFault {
    /// The source closed inside the body.
    #[error("the body ended early")]
    Truncated,
    /// Reading failed.
    #[error("{0}")]
    Source(io::Error),
    /// Writing failed.
    #[error("{0}")]
    Sink(io::Error),
    /// The chunked coding is broken.
    #[error("{0}")]
    Chunk(#[from] ChunkFault),
    /// The trailer section is broken or too long.
    #[error("the trailer section is malformed or longer than {TRAILER_BYTES_MAX} bytes")]
    Trailers,
    /// This side did nothing for too long, or the exchange ran out of time waiting for it.
    #[error("no progress")]
    Stalled(Side),
    /// The other direction ended the exchange while this one waited for the side.
    #[error("stopped")]
    Stopped(Side),
}

/// One direction of an exchange.
pub struct Relay<'a> {
    /// Where the body comes from.
    pub source: &'a Socket,
    /// Where it goes.
    pub sink: &'a Socket,
    /// How it is written.
    pub coding: Coding,
    /// How long either side may do nothing.
    pub idle: Duration,
    /// When the exchange must be over, on the clock of `now_ns`.
    pub deadline_ns: u64,
    /// Set by the other direction.
    pub stop: &'a Cell<bool>,
    /// Whether the request has gone over whole. Before, two directions are at work, and what moves
    /// in one keeps the other from timing out.
    pub uploaded: &'a Cell<bool>,
    /// Where bytes are counted.
    pub shard: &'a Shard,
    /// Whether a chunk has been opened by `Wrap` that the next one has to close.
    pub wrapped: Cell<bool>,
}

impl Pace for Relay<'_> {
    fn due_ns(&self) -> u64 {
        after(now_ns(), self.idle).min(self.deadline_ns)
    }

    fn moved(&self, count: u64) {
        self.shard.splice_bytes.add(count);
        self.progressed();
    }

    fn stop(&self) -> bool {
        self.stop.get()
    }
}

impl Relay<'_> {
    /// Moves `body`, of which `block` holds the first bytes. Returns what `block` held behind its
    /// end.
    ///
    /// # Errors
    /// When the body did not go over whole. Both connections are then of no further use.
    pub async fn run(&self, body: &mut Body, block: Block) -> Result<Block, RelayFault> {
        let mut block = block;
        loop {
            let mut rest = self.pass(body, block).await?;
            if body.is_done() {
                return Ok(rest);
            }
            if matches!(body, Body::Trailers) {
                return self.trailers(body, rest).await;
            }
            if self.coding == Coding::AsIs
                && body.run() >= SPLICE_BYTES_MIN
                && rest.is_empty()
                && self.source.is_plain()
                && self.sink.is_plain()
            {
                drop(rest);
                self.splice(body).await?;
                rest = Block::small();
                if body.is_done() {
                    return Ok(rest);
                }
            }
            match self.fetch(rest, body).await? {
                Some(filled) => block = filled,
                None => return self.source_ended(body).await,
            }
        }
    }

    /// Sends what of `block` belongs to the body and returns the rest.
    async fn pass(&self, body: &mut Body, mut block: Block) -> Result<Block, RelayFault> {
        if block.is_empty() {
            return Ok(block);
        }
        let (consumed, payload) = self.take(body, &mut block)?;
        let mut rest = Block::with_room(0);
        if consumed < block.len() {
            rest = Block::with_room(block.len() - consumed);
            let kept = rest.push(&block.data()[consumed..]);
            debug_assert!(kept, "the rest fits");
        }
        block.truncate(payload);
        if payload > 0 {
            if self.coding == Coding::Wrap {
                self.open_chunk(&mut block, payload);
            }
            self.shard.copy_bytes.add(payload as u64);
            let sent = self.send(block).await?;
            if rest.is_empty() {
                return Ok(sent);
            }
        }
        Ok(rest)
    }

    /// Bytes of `block` that belong to the body, and how many of them, at its front, go out.
    fn take(&self, body: &mut Body, block: &mut Block) -> Result<(usize, usize), RelayFault> {
        if let (Coding::Strip, Body::Chunked(chunked)) = (self.coding, &mut *body) {
            let advance = chunked.strip(block.data_mut())?;
            if advance.at_trailers {
                *body = Body::Trailers;
            }
            return Ok((advance.consumed, advance.payload));
        }
        let taken = body.take(block.data())?;
        Ok((taken, taken))
    }

    /// Gives the other direction, if it is at work, as much time as this one has.
    fn progressed(&self) {
        if !self.uploaded.get() {
            let due_ns = self.due_ns();
            self.source.sending().postpone(due_ns);
            self.sink.receiving().postpone(due_ns);
        }
    }

    /// Puts the size line in front of `payload` bytes, and the end of the chunk before it.
    fn open_chunk(&self, block: &mut Block, payload: usize) {
        let mut line = ArrayString::<WRAP_HEADROOM>::new();
        let end = if self.wrapped.replace(true) { "\r\n" } else { "" };
        let written = write!(line, "{end}{payload:x}\r\n");
        let fits = written.is_ok() && block.prepend(line.as_bytes());
        debug_assert!(fits, "headroom was left for the size line");
    }

    /// Sends all of `block`, as it is.
    ///
    /// # Errors
    /// When the sink does not take it.
    pub async fn send(&self, block: Block) -> Result<Block, RelayFault> {
        match self.sink.send_until(block, self.due_ns()).await {
            (Ok(()), block) => {
                self.progressed();
                Ok(block)
            }
            (Err(_), _) if self.stop.get() => Err(RelayFault::Stopped(Side::Sink)),
            (Err(error), _) if error.kind() == io::ErrorKind::TimedOut => {
                Err(RelayFault::Stalled(Side::Sink))
            }
            (Err(error), _) => Err(RelayFault::Sink(error)),
        }
    }

    /// Receives more; `None` at the end of input.
    async fn fetch(&self, block: Block, body: &Body) -> Result<Option<Block>, RelayFault> {
        if self.stop.get() {
            return Err(RelayFault::Stopped(Side::Source));
        }
        let mut block = block;
        let known = !matches!(body, Body::UntilClose);
        if block.is_empty() && known && body.run() > block.capacity() as u64 {
            block = Block::large();
        }
        if self.coding == Coding::Wrap {
            block.clear_with_headroom(WRAP_HEADROOM);
        } else {
            block.compact();
        }
        let arrival = self.source.recv_patient(block, self.due_ns()).await;
        match arrival {
            _ if self.stop.get() => Err(RelayFault::Stopped(Side::Source)),
            Arrival::Data(block) => Ok(Some(block)),
            Arrival::End(_) => Ok(None),
            Arrival::Silence(_) => Err(RelayFault::Stalled(Side::Source)),
            Arrival::Broken(error) => Err(RelayFault::Source(error)),
        }
    }

    async fn source_ended(&self, body: &mut Body) -> Result<Block, RelayFault> {
        if !matches!(body, Body::UntilClose) {
            return Err(RelayFault::Truncated);
        }
        *body = Body::Done;
        if self.coding == Coding::Wrap {
            let mut last = Block::small();
            let end = if self.wrapped.get() { &b"\r\n0\r\n\r\n"[..] } else { b"0\r\n\r\n" };
            let fits = last.push(end);
            debug_assert!(fits, "an empty block has room for seven bytes");
            self.send(last).await?;
        }
        Ok(Block::small())
    }

    /// Splices the run that is sure to come.
    async fn splice(&self, body: &mut Body) -> Result<(), RelayFault> {
        let run = body.run();
        // The deadline of the receive before, which counted from its beginning.
        self.source.receiving().clear();
        match splice::run(self.source, self.sink, run, self).await {
            Run::Complete => {
                body.skip(run);
                Ok(())
            }
            Run::End if matches!(body, Body::UntilClose) => {
                *body = Body::Done;
                Ok(())
            }
            Run::End => Err(RelayFault::Truncated),
            Run::SourceBroken(error) => Err(RelayFault::Source(error)),
            Run::SinkBroken(error) => Err(RelayFault::Sink(error)),
            // No pipe to be had: what is left is copied.
            Run::Refused(count) => {
                body.skip(count);
                Ok(())
            }
            Run::SinkStalled => Err(self.stalled(Side::Sink)),
            Run::SourceStalled => Err(self.stalled(Side::Source)),
            Run::Stopped | Run::Dry => Err(RelayFault::Stopped(Side::Source)),
        }
    }

    fn stalled(&self, side: Side) -> RelayFault {
        if self.stop.get() { RelayFault::Stopped(side) } else { RelayFault::Stalled(side) }
    }

    /// Collects the trailer section, passes on what may stand in it, and ends the body.
    async fn trailers(&self, body: &mut Body, block: Block) -> Result<Block, RelayFault> {
        let mut block = block;
        let mut scanner = Scanner::trailers();
        let end = loop {
            match scanner.scan(block.data()) {
                Ok(Scan::Complete { end, .. }) => break end,
                Ok(Scan::Partial) if block.len() <= TRAILER_BYTES_MAX => {}
                Ok(Scan::Partial) | Err(_) => return Err(RelayFault::Trailers),
            }
            let received = self.fetch(block, body).await?;
            block = received.ok_or(RelayFault::Truncated)?;
        };
        if end > TRAILER_BYTES_MAX {
            return Err(RelayFault::Trailers);
        }
        if self.coding == Coding::AsIs {
            let mut out = Block::small();
            compose::trailers(&block.data()[..end], &mut out).map_err(|_| RelayFault::Trailers)?;
            self.send(out).await?;
        }
        block.consume(end);
        *body = Body::Done;
        Ok(block)
    }
}

/// Room for `CR LF`, a size of sixteen digits and `CR LF`.
pub const WRAP_HEADROOM: usize = 20;
