//! A client's HTTP/1.1 connection: one request after the other, and the silence between them.
//!
//! ```text
//!           ┌───────────── Next ─────────────┐
//!           ▼                                │
//!  parked ─▶ awaiting head ──▶ exchange ─────┤
//!    ▲          │ a second of silence        └─▶ lingering ─▶ closed
//!    └──────────┘
//! ```
//! A parked connection owns no block and no task: it waits in the worker's `parking` lot.
//!
//! # Invariants
//! - Requests are answered in the order in which they came.
//! - After an answer that ends the connection, input is still taken for a while: closing with
//!   input unread sends RST, which can overtake the answer.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringway_stats::clock::now_ns;

use super::answer;
use super::compose::Persistence;
use super::exchange::{self, Flow};
use super::scan::{Scan, ScanFault, Scanner};
use crate::connection::{Idle, Peer};
use crate::io::deadlines::after;
use crate::io::socket::{Arrival, Socket};
use crate::limits::{LINGER_TIME, QUIET_TIME};
use crate::outcome::{Cause, Failure};
use crate::recorder::Outcome;
use crate::shared::Instance;
use crate::sys::block::Block;
use crate::sys::mapped::Mapped;
use crate::tls::handshake::Side;
use crate::worker::Worker;

/// A client's connection.
pub struct Connection {
    /// The worker that has it.
    pub worker: Rc<Worker>,
    /// The socket.
    pub socket: Socket,
    /// Who is at the other end.
    pub peer: Peer,
    /// The listening instance that it came in by.
    pub instance: Instance,
    /// Whether a request has come on it.
    pub served: Cell<bool>,
    /// When it is closed if no byte of a request comes, on the clock of `now_ns`; [`UNSET`] while
    /// it is not silent. Part of a TLS record is no such byte.
    pub due_ns: Cell<u64>,
    /// When it has reached its greatest age, on the clock of `now_ns`: the next answer ends it.
    pub retire_ns: u64,
}

/// No deadline of silence.
pub const UNSET: u64 = 0;

/// What came of waiting for acknowledgements.
enum Settled {
    /// They are there.
    Yes,
    /// The client has sent something first, or its connection has broken.
    Readable,
    /// The connection is over.
    Closed,
}

/// Why a connection is not active any more.
enum Pause {
    /// Nothing has come for a second.
    Quiet,
    /// It is over.
    Closed,
}

/// What came of waiting for a head.
enum Awaited {
    Head { input: Block, start: usize, end: usize },
    Quiet,
    Closed,
    Fault(Failure),
}

/// Serves a connection until it is to be parked, or to its end. `early` are bytes that have come
/// already.
pub async fn serve(connection: Box<Connection>, mut early: Option<Block>) -> Option<Idle> {
    let mut connection = connection;
    loop {
        let input = early.take().unwrap_or_else(Block::small);
        // On pages of its own: many are active for a moment, and few for long.
        match Mapped::pin(|| connection.active(input)).await {
            Pause::Closed => return None,
            Pause::Quiet if connection.worker.closing_idle() => return None,
            Pause::Quiet => {}
        }
        let due_ns = connection.silent_until();
        if due_ns <= now_ns() {
            return None;
        }
        match connection.settle(due_ns).await {
            Settled::Yes => {}
            Settled::Readable => continue,
            Settled::Closed => return None,
        }
        let Connection { worker, socket, peer, instance, served, retire_ns, .. } = *connection;
        let socket = match socket.rest() {
            Ok(resting) => {
                let served = served.get();
                return Some(Idle { resting, peer, instance, served, retire_ns, due_ns });
            }
            Err(socket) => socket,
        };
        // No descriptor to be had: it waits where it is.
        let due = Cell::new(due_ns);
        *connection = Connection { worker, socket, peer, instance, served, due_ns: due, retire_ns };
        if !matches!(connection.socket.idle_until(due_ns).await, Ok(true)) {
            return None;
        }
    }
}

/// Answers a connection that cannot be served, and closes it.
pub async fn turn_away(worker: &Rc<Worker>, socket: Socket, failure: &Failure) {
    let mut out = Block::small();
    let date = worker.date.now();
    if answer::write_failure(failure, false, Persistence::Close, &date, &mut out).is_ok() {
        let _ = socket.send_until(out, after(now_ns(), LINGER_TIME)).await;
        socket.linger().await;
    }
}

impl Connection {
    /// Whether the next answer is to end the connection.
    #[must_use]
    pub fn closing(&self) -> bool {
        self.worker.shared.draining() || (self.retire_ns != u64::MAX && now_ns() >= self.retire_ns)
    }

    /// How long the client may take for its next request, or for its first.
    fn patience(&self, first: bool) -> Duration {
        self.worker.table_for(self.instance).map_or(Duration::ZERO, |(snapshot, listener)| {
            let listener = snapshot.running.table.listener(listener);
            if first { listener.head_timeout } else { listener.idle_timeout }
        })
    }

    /// When the connection is closed if its silence goes on.
    fn silent_until(&self) -> u64 {
        if self.due_ns.get() == UNSET {
            let patience = self.patience(!self.served.get());
            self.due_ns.set(after(now_ns(), patience).min(self.retire_ns));
        }
        self.due_ns.get()
    }

    /// Waits until the client has acknowledged all answers: that it is gone is noticed as long as
    /// its connection does not rest.
    async fn settle(&self, due_ns: u64) -> Settled {
        while self.socket.is_owed() {
            if now_ns() >= due_ns || self.worker.closing_idle() {
                return Settled::Closed;
            }
            match self.socket.idle_until(after(now_ns(), QUIET_TIME).min(due_ns)).await {
                Ok(true) => return Settled::Readable,
                Ok(false) => {}
                Err(_) => return Settled::Closed,
            }
        }
        if self.worker.closing_idle() { Settled::Closed } else { Settled::Yes }
    }

    /// Serves requests until a second of silence, or the end.
    async fn active(&self, input: Block) -> Pause {
        let mut input = input;
        loop {
            match self.await_head(input).await {
                Awaited::Head { input: block, start, end } => {
                    self.served.set(true);
                    match exchange::run(self, block, start..end).await {
                        Flow::Next(block) => input = block,
                        Flow::Close => return Pause::Closed,
                    }
                }
                Awaited::Quiet => return Pause::Quiet,
                Awaited::Closed => return Pause::Closed,
                Awaited::Fault(failure) => {
                    self.reject(failure).await;
                    return Pause::Closed;
                }
            }
        }
    }

    /// Receives until a head is complete. `input` may hold bytes of it, and of the next ones.
    async fn await_head(&self, input: Block) -> Awaited {
        let mut input = input;
        if input.is_empty() {
            let due_ns = after(now_ns(), QUIET_TIME);
            input = match self.socket.recv_until(input, due_ns).await {
                Arrival::Data(block) => block,
                Arrival::Silence(block) => {
                    block.retire();
                    return Awaited::Quiet;
                }
                Arrival::End(_) | Arrival::Broken(_) => return Awaited::Closed,
            };
        }
        self.due_ns.set(UNSET);
        let mut scanner = Scanner::new();
        let mut due_ns = None;
        loop {
            match scanner.scan(input.data()) {
                Ok(Scan::Complete { start, end }) => return Awaited::Head { input, start, end },
                Ok(Scan::Partial) => {}
                Err(fault) => return Awaited::Fault(scan_failure(fault)),
            }
            // A TLS handshake has no line end to wait for.
            if input.data().starts_with(&[0x16, 0x03]) {
                let detail = "a TLS handshake on a plaintext listener";
                return Awaited::Fault(Failure::with(Cause::RequestMalformed, detail));
            }
            if input.spare() == 0 {
                input = widen(input);
            }
            let due_ns = *due_ns.get_or_insert_with(|| after(now_ns(), self.patience(true)));
            input = match self.socket.recv_until(input, due_ns).await {
                Arrival::Data(block) => block,
                Arrival::Silence(_) => return Awaited::Fault(Cause::RequestTimeout.into()),
                Arrival::End(_) => {
                    self.worker.shard.record_cause(Cause::ClientClosed);
                    return Awaited::Closed;
                }
                Arrival::Broken(error) => {
                    let broken = Failure::of_io(Side::Downstream, &error);
                    self.worker.shard.record_cause(broken.cause);
                    return Awaited::Closed;
                }
            };
        }
    }

    /// Answers what is no request, and ends the connection.
    async fn reject(&self, failure: Failure) {
        tracing::debug!(cause = failure.cause.label(), peer = %self.peer.address, "{failure}");
        self.worker.shard.record(&Outcome {
            route: 0,
            cluster: None,
            endpoint: None,
            status: failure.cause.status(),
            cause: Some(failure.cause),
            total_ns: 0,
            upstream_ns: 0,
            attempts: 0,
            grpc: None,
        });
        let mut out = Block::small();
        let date = self.worker.date.now();
        let written = answer::write_failure(&failure, false, Persistence::Close, &date, &mut out);
        if written.is_ok() {
            let _ = self.socket.send_until(out, after(now_ns(), LINGER_TIME)).await;
            self.socket.linger().await;
        }
    }
}

fn scan_failure(fault: ScanFault) -> Failure {
    let cause = match fault {
        ScanFault::BareLf | ScanFault::EmptyLines => Cause::RequestMalformed,
        ScanFault::FirstLineTooLong => Cause::RequestLineTooLong,
        ScanFault::HeadTooLong => Cause::RequestHeadTooLarge,
    };
    Failure::with(cause, fault)
}

/// A block with the same data and room behind it: the same one if requests that are answered stand
/// in front, else a larger one.
#[must_use]
pub fn widen(mut block: Block) -> Block {
    if block.headroom() > 0 {
        block.compact();
        return block;
    }
    let mut larger = Block::large();
    let fits = larger.push(block.data());
    debug_assert!(fits, "heads are bounded below the large block");
    larger
}
