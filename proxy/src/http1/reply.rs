//! The response half of an exchange: from the upstream's first byte to the client's last.
//!
//! # Invariants
//! - A final response is sent once. Interim ones before it are passed on, and bounded.
//! - The connection to the upstream is reusable only if exactly one response came on it.
//! - The client's framing fits its version: what ends with the connection is chunked for HTTP/1.1,
//!   and chunks are taken off for HTTP/1.0.

use std::cell::Cell;
use std::time::Duration;

use ringway_router::HeaderEdits;
use ringway_stats::clock::now_ns;

use super::body::Body;
use super::compose::{self, Overflow, Persistence};
use super::connection::widen;
use super::plan::Forward;
use super::relay::{Coding, Relay, RelayFault, Side};
use super::request::Fields;
use super::response::{self, ResponseHead};
use super::scan::{Scan, Scanner};
use crate::io::deadlines::after;
use crate::io::socket::{Arrival, Socket};
use crate::limits::INTERIM_RESPONSES_MAX;
use crate::outcome::{Cause, Failure};
use crate::sys::block::Block;
use crate::tls::handshake::Side as TlsSide;
use crate::worker::Worker;

/// The response half of an exchange.
pub struct Reply<'a> {
    /// The worker.
    pub worker: &'a Worker,
    /// The client.
    pub down: &'a Socket,
    /// The endpoint.
    pub up: &'a Socket,
    /// The request.
    pub forward: &'a Forward,
    /// Whether the answer is to end the client's connection.
    pub closing: bool,
    /// What the rule does to response fields.
    pub edits: &'a HeaderEdits,
    /// How long either side may do nothing.
    pub idle: Duration,
    /// When the exchange must be over, on the clock of `now_ns`.
    pub deadline_ns: u64,
    /// When the first byte came; 0 before.
    pub first_byte_ns: Cell<u64>,
}

/// A response that went over whole.
pub struct ReplyEnd {
    /// Its status.
    pub status: u16,
    /// Whether the upstream connection may serve another exchange.
    pub reusable: bool,
    /// Whether the client's connection may serve another request, as it was told.
    pub keep_alive: bool,
    /// After a switch of protocols: what the endpoint has sent in the new one.
    pub upgraded: Option<Block>,
    /// An empty block, for what comes next.
    pub block: Block,
}

/// A response that did not.
pub struct ReplyFault {
    /// Why.
    pub failure: Failure,
    /// Whether the client has seen a part of the final response.
    pub started: bool,
    /// Whether the connection ended without one byte.
    pub unanswered: bool,
    /// The block that the response was to be written to; untouched if unanswered.
    pub out: Block,
}

/// What a final head leads to.
struct Start {
    body: Body,
    coding: Coding,
    keep_alive: bool,
    reusable: bool,
}

/// What a head leads to.
enum Step {
    /// The final response: its head is written.
    Final { status: u16, start: Start },
    /// Another head follows.
    Interim,
    /// The connection changes its protocol.
    Switch,
    /// Nothing that could be passed on.
    Refuse(Failure),
}

impl Reply<'_> {
    /// Until when to wait for progress.
    #[must_use]
    pub fn due_ns(&self) -> u64 {
        after(now_ns(), self.idle).min(self.deadline_ns)
    }

    /// Receives the response into `block` and sends it to the client by way of `out`. `uploaded`
    /// says whether the request has been sent whole.
    ///
    /// # Errors
    /// With what the caller needs to answer or to try again.
    pub async fn run(
        &self,
        block: Block,
        out: Block,
        uploaded: &Cell<bool>,
    ) -> Result<ReplyEnd, ReplyFault> {
        let mut block = block;
        let mut out = out;
        for _ in 0..=INTERIM_RESPONSES_MAX {
            let end = match self.await_head(block).await {
                Ok((filled, end)) => {
                    block = filled;
                    end
                }
                Err((failure, unanswered)) => {
                    return Err(ReplyFault { failure, started: false, unanswered, out });
                }
            };
            let step = self.decide(&block.data()[..end], &mut out, uploaded.get());
            match step {
                Step::Refuse(failure) => {
                    return Err(ReplyFault { failure, started: false, unanswered: false, out });
                }
                Step::Switch => {
                    out = self.pass_on(out).await?;
                    block.consume(end);
                    return Ok(ReplyEnd {
                        status: 101,
                        reusable: false,
                        keep_alive: false,
                        upgraded: Some(block),
                        block: out,
                    });
                }
                Step::Interim => {
                    out = self.pass_on(out).await?;
                    block.consume(end);
                }
                Step::Final { status, start } => {
                    block.consume(end);
                    return self.send(status, start, (block, out), uploaded).await;
                }
            }
        }
        Err(fault_in(Cause::UpstreamMalformed, "too many interim responses", out))
    }

    async fn await_head(&self, block: Block) -> Result<(Block, usize), (Failure, bool)> {
        receive_head(self.up, block, || self.due_ns(), &self.first_byte_ns).await
    }

    /// How a final response will go out.
    fn start(&self, head: &ResponseHead<'_>, uploaded: bool) -> Start {
        let is_http10 = self.forward.is_http10;
        let coding = match (&head.body, is_http10) {
            (Body::Chunked(_), true) => Coding::Strip,
            (Body::UntilClose, false) => Coding::Wrap,
            _ => Coding::AsIs,
        };
        let ends_with_connection =
            is_http10 && matches!(head.body, Body::Chunked(_) | Body::UntilClose);
        let keep_alive =
            self.forward.keep_alive && uploaded && !ends_with_connection && !self.closing;
        Start { body: head.body, coding, keep_alive, reusable: head.keep_alive }
    }

    /// Parses a head and writes what the client gets to see of it to `out`.
    fn decide(&self, head: &[u8], out: &mut Block, uploaded: bool) -> Step {
        let malformed = |detail: &dyn std::fmt::Display| {
            Step::Refuse(Failure::with(Cause::UpstreamMalformed, detail))
        };
        let mut fields = Fields::new_const();
        let head = match response::parse(head, &mut fields, self.forward.to_head) {
            Ok(head) => head,
            Err(fault) => return malformed(&fault),
        };
        match head.status {
            101 if !self.forward.upgrade => malformed(&"101 without being asked"),
            101 if head.upgrade.is_none() => malformed(&"101 without Upgrade"),
            101 => match self.compose(&head, &Body::Done, Persistence::Upgrade, self.edits, out) {
                Ok(()) => Step::Switch,
                Err(Overflow) => Step::Refuse(Cause::HeadGrowth.into()),
            },
            // HTTP/1.0 has no interim responses (RFC 9110 section 15.2).
            100..200 if self.forward.is_http10 => Step::Interim,
            100..200 => {
                let edits = HeaderEdits::default();
                match self.compose(&head, &Body::Done, Persistence::Open, &edits, out) {
                    Ok(()) => Step::Interim,
                    Err(Overflow) => malformed(&"an interim head is too large"),
                }
            }
            status => {
                let start = self.start(&head, uploaded);
                match self.compose_final(&head, &start, out) {
                    Ok(()) => Step::Final { status, start },
                    Err(Overflow) => Step::Refuse(Cause::HeadGrowth.into()),
                }
            }
        }
    }

    fn compose_final(
        &self,
        head: &ResponseHead<'_>,
        start: &Start,
        out: &mut Block,
    ) -> Result<(), Overflow> {
        let persistence = Persistence::of(start.keep_alive, self.forward.is_http10);
        let body = match start.coding {
            Coding::AsIs => start.body,
            Coding::Wrap => Body::chunked(),
            Coding::Strip => Body::UntilClose,
        };
        self.compose(head, &body, persistence, self.edits, out)
    }

    /// Writes a head, to a larger block if it must be.
    fn compose(
        &self,
        head: &ResponseHead<'_>,
        body: &Body,
        persistence: Persistence,
        edits: &HeaderEdits,
        out: &mut Block,
    ) -> Result<(), Overflow> {
        let date = self.worker.date.now();
        compose::response(head, body, persistence, &date, edits, out).or_else(|Overflow| {
            *out = Block::large();
            compose::response(head, body, persistence, &date, edits, out)
        })
    }

    /// Sends a head that is not the final one.
    async fn pass_on(&self, out: Block) -> Result<Block, ReplyFault> {
        match self.down.send_until(out, self.due_ns()).await {
            (Ok(()), out) => Ok(out),
            (Err(error), out) => {
                let failure = Failure::of_io(TlsSide::Downstream, &error);
                Err(ReplyFault { failure, started: true, unanswered: false, out })
            }
        }
    }

    /// Sends the head in `out`, and the body, of which `block` holds the first bytes.
    async fn send(
        &self,
        status: u16,
        start: Start,
        (mut block, mut out): (Block, Block),
        uploaded: &Cell<bool>,
    ) -> Result<ReplyEnd, ReplyFault> {
        let Start { mut body, coding, keep_alive, mut reusable } = start;
        if coding == Coding::AsIs {
            // A small body goes out with the head.
            let window = block.len().min(out.spare());
            match body.take(&block.data()[..window]) {
                Ok(taken) => {
                    let fits = out.push(&block.data()[..taken]);
                    debug_assert!(fits, "the window was measured");
                    block.consume(taken);
                    self.worker.shard.copy_bytes.add(taken as u64);
                }
                Err(fault) => return Err(fault_in(Cause::UpstreamMalformed, fault, out)),
            }
        }
        let due_ns = self.due_ns();
        let out = match self.down.send_until(out, due_ns).await {
            (Ok(()), out) => out,
            (Err(error), out) => {
                let failure = Failure::of_io(TlsSide::Downstream, &error);
                return Err(ReplyFault { failure, started: true, unanswered: false, out });
            }
        };
        if !body.is_done() {
            let stop = Cell::new(false);
            let relay = self.relay(coding, &stop, uploaded);
            // On the heap: most bodies are out by now.
            block = match Box::pin(relay.run(&mut body, block)).await {
                Ok(rest) => rest,
                Err(fault) => {
                    let failure = Failure::with(relay_cause(&fault, self.deadline_ns), fault);
                    return Err(ReplyFault { failure, started: true, unanswered: false, out });
                }
            };
        }
        // Bytes behind the response answer nothing that was asked.
        reusable &= block.is_empty();
        block.clear();
        Ok(ReplyEnd { status, reusable, keep_alive, upgraded: None, block })
    }

    fn relay<'r>(
        &'r self,
        coding: Coding,
        stop: &'r Cell<bool>,
        uploaded: &'r Cell<bool>,
    ) -> Relay<'r> {
        Relay {
            source: self.up,
            sink: self.down,
            coding,
            idle: self.idle,
            deadline_ns: self.deadline_ns,
            stop,
            uploaded,
            shard: &self.worker.shard,
            wrapped: Cell::new(false),
        }
    }
}

/// Receives from `up` until a head is complete. Returns the block with it at its front, and its
/// length. `first_byte_ns`, 0 before, is set when something has come.
///
/// # Errors
/// Why there is none, and whether the connection ended without one byte.
pub async fn receive_head(
    up: &Socket,
    block: Block,
    due_ns: impl Fn() -> u64,
    first_byte_ns: &Cell<u64>,
) -> Result<(Block, usize), (Failure, bool)> {
    let mut block = block;
    let mut scanner = Scanner::new();
    let malformed =
        |detail: &dyn std::fmt::Display| (Failure::with(Cause::UpstreamMalformed, detail), false);
    loop {
        match scanner.scan(block.data()) {
            Ok(Scan::Complete { start: 0, end }) => return Ok((block, end)),
            Ok(Scan::Complete { .. }) => return Err(malformed(&"it begins with empty lines")),
            Ok(Scan::Partial) => {}
            Err(fault) => return Err(malformed(&fault)),
        }
        if block.spare() == 0 {
            block = widen(block);
        }
        let nothing = block.is_empty() && first_byte_ns.get() == 0;
        block = match up.recv_or_shutdown(block, due_ns()).await {
            Arrival::Data(block) => block,
            Arrival::End(_) if nothing => return Err((Cause::UpstreamClosed.into(), true)),
            Arrival::End(_) => return Err((Cause::UpstreamTruncated.into(), false)),
            Arrival::Silence(_) => return Err((Cause::UpstreamTimeout.into(), false)),
            Arrival::Broken(error) => {
                let failure = Failure::of_io(TlsSide::Upstream, &error);
                return Err((failure, nothing));
            }
        };
        if nothing {
            first_byte_ns.set(now_ns());
        }
    }
}

fn fault_in(cause: Cause, detail: impl std::fmt::Display, out: Block) -> ReplyFault {
    let failure = Failure::with(cause, detail);
    ReplyFault { failure, started: false, unanswered: false, out }
}

fn relay_cause(fault: &RelayFault, deadline_ns: u64) -> Cause {
    match fault {
        RelayFault::Truncated => Cause::UpstreamTruncated,
        RelayFault::Source(error) => Cause::of_io(TlsSide::Upstream, error),
        RelayFault::Sink(error) => Cause::of_io(TlsSide::Downstream, error),
        RelayFault::Stopped(_) => Cause::ClientReset,
        RelayFault::Chunk(_) | RelayFault::Trailers => Cause::UpstreamMalformed,
        RelayFault::Stalled(Side::Sink) => Cause::ClientStalled,
        RelayFault::Stalled(Side::Source) if now_ns() >= deadline_ns => Cause::UpstreamTimeout,
        RelayFault::Stalled(Side::Source) => Cause::UpstreamStalled,
    }
}
