//! What a client of a `protocol: auto` listener speaks, found out from what is said first.
//!
//! ```text
//!             ┌─ a request line, a preface, a ClientHello ─▶ http1, http2, tls
//! client ─────┼─ bytes that none of these begin with ──────▶ opaque
//!             └─ silent for a moment: connect to the listener's cluster, and wait for both
//! server ─────── speaks first ─────────────────────────────▶ opaque, over that connection
//! ```
//! Nobody waits for a time to pass: a client that speaks is judged by its bytes, and one that waits
//! for the server hears it as soon as the server has spoken. The connection that was made ahead
//! serves the tunnel, or is closed unused.
//!
//! # Invariants
//! - What was received to find out goes on with the connection.
//! - Bytes that could still be a request have a deadline and a longest length; then they are
//!   opaque.
//! - Waits for readiness may be dropped; a receive is made when there is something.
//!
//! # Not here
//! What the bytes mean: `verdict`.

pub mod verdict;

use std::cell::OnceCell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use ringway_router::ClusterId;
use ringway_stats::clock::now_ns;

use self::verdict::Verdict;
use crate::connection::Peer;
use crate::io::deadlines::after;
use crate::io::notify::Notify;
use crate::io::race::{self, Either};
use crate::io::resting::Glimpse;
use crate::io::socket::{Arrival, Socket};
use crate::limits::SPEAKS_FIRST_PATIENCE;
use crate::outcome::{Cause, Failure};
use crate::sys::block::Block;
use crate::tls::handshake::Side;
use crate::upstream::{self, Upstream};
use crate::worker::{Snapshot, Worker, guarded};

/// What a connection was found to be, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// HTTP/1, by a request line or by ALPN.
    Http1,
    /// HTTP/2, by its preface or by ALPN.
    Http2,
    /// TLS that is not ended here.
    Tls,
    /// Bytes of the client that are none of these.
    Opaque,
    /// The server spoke first, or ended first.
    ServerFirst,
    /// The client's first bytes said nothing until the deadline.
    Undecided,
}

impl Found {
    /// All of them, in the order of the counters.
    pub const LABELS: [&str; 6] = ["http1", "http2", "tls", "opaque", "server_first", "undecided"];

    /// Whether the bytes go to the listener's cluster as they are.
    #[must_use]
    pub fn is_opaque(self) -> bool {
        matches!(self, Self::Opaque | Self::ServerFirst | Self::Undecided)
    }
}

/// A connection whose protocol is known.
pub struct Detected {
    /// What it is.
    pub found: Found,
    /// What the client has sent.
    pub early: Block,
    /// The connection to the listener's cluster, if one was made: of use for opaque bytes.
    pub upstream: Option<Upstream>,
}

/// Why a connection came to nothing.
pub enum Ended {
    /// The client closed it before it said anything.
    Unused,
    /// It failed.
    Failed(Failure),
}

/// How patient a listener is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For bytes that do not say yet what they are.
    pub undecided: Duration,
    /// For a first byte of either side.
    pub silence: Duration,
}

/// A connection to the listener's cluster, made while the client is silent.
#[derive(Default)]
struct Ahead {
    made: OnceCell<Result<Upstream, Failure>>,
    done: Notify,
}

impl Ahead {
    /// Starts to connect. A task of its own: what it does must not be dropped half way.
    fn start(
        worker: &Rc<Worker>,
        snapshot: &Rc<Snapshot>,
        cluster: ClusterId,
        peer: &Peer,
    ) -> Rc<Self> {
        let ahead = Rc::new(Self::default());
        let (made, worker, snapshot) = (Rc::clone(&ahead), Rc::clone(worker), Rc::clone(snapshot));
        let peer = peer.clone();
        monoio::spawn(async move {
            let opened = pin!(upstream::open(&worker, &snapshot, cluster, &peer));
            let result = guarded(&worker, opened).await;
            let result = result.unwrap_or_else(|| Err(Cause::Internal.into()));
            if made.made.set(result).is_ok() {
                made.done.notify();
            }
        });
        ahead
    }

    /// Waits until it is made, or is not.
    async fn settle(&self) -> &Result<Upstream, Failure> {
        loop {
            if let Some(made) = self.made.get() {
                return made;
            }
            self.done.wait().await;
        }
    }

    /// Waits until the server has said something, or ended. Safe to drop.
    ///
    /// # Errors
    /// When there is no connection to it.
    async fn speaks(&self) -> Result<(), Failure> {
        let socket = self.settle().await.as_ref().map_err(Failure::clone)?.socket();
        while socket.readable().await.is_ok() && socket.glimpse_inside() == Glimpse::Nothing {}
        Ok(())
    }

    /// The connection, once it is made. `None` if there is none.
    async fn take(self: Rc<Self>) -> Option<Upstream> {
        let _ = self.settle().await;
        Rc::into_inner(self)?.made.into_inner()?.ok()
    }
}

/// What ended a wait.
enum Event {
    Client,
    ServerSpoke,
    NoServer(Failure),
    Late,
}

/// Finds out what the client at the other end of `socket` speaks. `early` has come already;
/// opaque bytes go to `cluster`.
///
/// # Errors
/// When the connection ended, or nobody said anything.
pub async fn detect(
    worker: &Rc<Worker>,
    snapshot: &Rc<Snapshot>,
    (socket, peer): (&Socket, &Peer),
    early: Block,
    cluster: Option<ClusterId>,
    patience: Patience,
) -> Result<Detected, Ended> {
    let mut silent_ns = after(now_ns(), patience.silence);
    let mut undecided_ns = None;
    let mut ahead: Option<Rc<Ahead>> = None;
    let mut no_server = None;
    let mut block = early;
    let (found, block) = loop {
        match verdict::of(block.data()) {
            Some(verdict) => break (verdict.into(), block),
            None if block.is_empty() => {}
            None => {
                undecided_ns.get_or_insert_with(|| after(now_ns(), patience.undecided));
            }
        }
        let mut due_ns = undecided_ns.unwrap_or(silent_ns);
        let may_connect = ahead.is_none() && no_server.is_none() && cluster.is_some();
        if may_connect {
            due_ns = due_ns.min(after(now_ns(), SPEAKS_FIRST_PATIENCE));
        }
        match event(socket, due_ns, ahead.as_deref()).await {
            Event::Client => {
                block = match receive(socket, block).await? {
                    Arrived::Bytes(block) => block,
                    Arrived::Last(block) => break (Found::Opaque, block),
                };
            }
            Event::ServerSpoke => break (Found::ServerFirst, block),
            Event::NoServer(failure) => {
                // A client of HTTP needs none; one that waits for the server is not left waiting.
                silent_ns = silent_ns.min(after(now_ns(), patience.undecided));
                (ahead, no_server) = (None, Some(failure));
            }
            Event::Late => {
                if let Some(cluster) = cluster.filter(|_| may_connect) {
                    ahead = Some(Ahead::start(worker, snapshot, cluster, peer));
                } else if undecided_ns.is_some() {
                    break (Found::Undecided, block);
                } else {
                    let failure = no_server.unwrap_or_else(|| Cause::RequestTimeout.into());
                    return Err(Ended::Failed(failure));
                }
            }
        }
    };
    let upstream = match ahead {
        Some(ahead) if found.is_opaque() => ahead.take().await,
        _ => None,
    };
    Ok(Detected { found, early: block, upstream })
}

/// Waits for the client, and for the server if there is one.
async fn event(socket: &Socket, due_ns: u64, ahead: Option<&Ahead>) -> Event {
    let client = pin!(socket.idle_until(due_ns));
    let ready = match ahead {
        None => client.await,
        Some(ahead) => match race::first(client, pin!(ahead.speaks())).await {
            Either::Left(ready) => ready,
            Either::Right(Ok(())) => return Event::ServerSpoke,
            Either::Right(Err(failure)) => return Event::NoServer(failure),
        },
    };
    // A wait that failed has its error told by the receive.
    if ready.unwrap_or(true) { Event::Client } else { Event::Late }
}

/// What a receive brought.
enum Arrived {
    /// What there is now; perhaps no more than before, inside TLS.
    Bytes(Block),
    /// The client will send no more.
    Last(Block),
}

/// Takes what has come.
async fn receive(socket: &Socket, block: Block) -> Result<Arrived, Ended> {
    match socket.recv_until(block, after(now_ns(), RECEIVE_TIME)).await {
        Arrival::Data(block) | Arrival::Silence(block) => Ok(Arrived::Bytes(block)),
        Arrival::End(block) if block.is_empty() => Err(Ended::Unused),
        Arrival::End(block) => Ok(Arrived::Last(block)),
        Arrival::Broken(error) => Err(Ended::Failed(Failure::of_io(Side::Downstream, &error))),
    }
}

/// How long the rest of a TLS record is waited for, without an eye on the server.
const RECEIVE_TIME: Duration = Duration::from_millis(5);

impl From<Verdict> for Found {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Http1 => Self::Http1,
            Verdict::Http2 => Self::Http2,
            Verdict::Tls => Self::Tls,
            Verdict::Opaque => Self::Opaque,
        }
    }
}
