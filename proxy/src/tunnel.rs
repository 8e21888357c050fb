//! Opaque bytes both ways: TCP listeners, and HTTP connections after an upgrade.
//!
//! ```text
//! downstream ──▶ [block or pipe] ──▶ upstream
//! downstream ◀── [block or pipe] ◀── upstream
//! ```
//!
//! A direction begins with copies, since most tunnels carry small messages, and changes to splice
//! after two receives that filled their block.
//!
//! # Invariants
//! - A direction is in exactly one mode, and changes with no read in flight.
//! - FIN is passed on as FIN once everything before it has gone out; the other direction lives on.
//! - RST is passed on as RST: an error on one side aborts the other, never the orderly end that
//!   would pass for a complete transfer.
//! - The tunnel ends when neither direction has moved for the idle time.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringway_router::ListenerId;
use ringway_stats::clock::now_ns;

use crate::connection::Peer;
use crate::io::deadlines::after;
use crate::io::pipe::Pipe;
use crate::io::race::{self, Either};
use crate::io::socket::{Arrival, Socket};
use crate::io::splice::{self, Pace, Run};
use crate::outcome::Cause;
use crate::recorder::{Outcome, Shard};
use crate::sys::block::Block;
use crate::upstream;
use crate::worker::{Snapshot, Worker};

/// Full receives after which a direction changes to splice.
const FULL_RECEIVES: u32 = 2;

/// How a direction ended.
#[derive(Debug)]
enum End {
    /// Everything went over, and then the end.
    Finished,
    /// The side that was read from broke.
    SourceBroken,
    /// The side that was written to broke.
    SinkBroken,
    /// Neither direction moved for the idle time.
    Idle,
}

/// How the two sides of a tunnel came apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both sides finished.
    Finished,
    /// The client broke it off.
    DownstreamBroken,
    /// The endpoint broke it off.
    UpstreamBroken,
    /// It was idle for too long.
    Idle,
}

impl TunnelEnd {
    /// The cause that it is recorded with.
    #[must_use]
    pub fn cause(self) -> Option<Cause> {
        match self {
            Self::Finished => None,
            Self::DownstreamBroken => Some(Cause::ClientReset),
            Self::UpstreamBroken => Some(Cause::UpstreamReset),
            Self::Idle => Some(Cause::UpstreamStalled),
        }
    }
}

/// What the two directions know of each other.
struct Activity<'a> {
    last_ns: Cell<u64>,
    idle: Duration,
    shard: &'a Shard,
}

impl Pace for Activity<'_> {
    fn due_ns(&self) -> u64 {
        after(self.last_ns.get(), self.idle)
    }

    fn stalled(&self) -> bool {
        now_ns() >= self.due_ns()
    }

    fn moved(&self, count: u64) {
        self.last_ns.set(now_ns());
        self.shard.splice_bytes.add(count);
    }
}

/// Serves a connection of a TCP listener.
pub async fn serve(
    worker: &Rc<Worker>,
    socket: Socket,
    peer: &Peer,
    table: (Rc<Snapshot>, ListenerId),
    early: Block,
) {
    let (snapshot, listener) = table;
    let running = &snapshot.running;
    let Some(cluster) = running.table.listener(listener).cluster else { return };
    let started_ns = now_ns();
    let mut outcome = Outcome {
        route: 0,
        cluster: Some(running.cluster_series[cluster.index()]),
        endpoint: None,
        status: 0,
        cause: None,
        total_ns: 0,
        upstream_ns: 0,
        attempts: 1,
    };
    match upstream::open(worker, &snapshot, cluster, peer).await {
        Ok(upstream) => {
            outcome.upstream_ns = now_ns().saturating_sub(started_ns);
            outcome.endpoint = Some(upstream.address());
            let idle = running.table.cluster(cluster).idle_timeout;
            let end = run(&socket, upstream.socket(), early, Block::small(), idle, &worker.shard);
            outcome.cause = end.await.cause();
        }
        Err(failure) => {
            tracing::debug!(cause = failure.cause.label(), peer = %peer.address, "{failure}");
            outcome.cause = Some(failure.cause);
            socket.abort();
        }
    }
    outcome.total_ns = now_ns().saturating_sub(started_ns);
    worker.shard.record_tunnel(&outcome);
}

/// Carries bytes between two connections until both have ended. `early` and `late` are bytes
/// that the client and the endpoint have sent already.
pub async fn run(
    down: &Socket,
    up: &Socket,
    early: Block,
    late: Block,
    idle: Duration,
    shard: &Shard,
) -> TunnelEnd {
    let activity = Activity { last_ns: Cell::new(now_ns()), idle, shard };
    let forth = direction(down, up, early, &activity);
    let back = direction(up, down, late, &activity);
    let break_off = |end: &End| {
        if !matches!(end, End::Finished) {
            down.abort();
            up.abort();
        }
    };
    let mut first_is_forth = true;
    let (forth, back) = race::both(forth, back, |first| match first {
        Either::Left(end) => break_off(end),
        Either::Right(end) => {
            first_is_forth = false;
            break_off(end);
        }
    })
    .await;
    // A direction that ends badly after the other has finished breaks its own two sides.
    break_off(if first_is_forth { &back } else { &forth });
    match (first_is_forth, forth, back) {
        (_, End::Finished, End::Finished) => TunnelEnd::Finished,
        (true, End::Finished, End::SourceBroken) | (false, End::SinkBroken, End::Finished) => {
            TunnelEnd::UpstreamBroken
        }
        (true, End::Finished, End::SinkBroken) | (false, End::SourceBroken, End::Finished) => {
            TunnelEnd::DownstreamBroken
        }
        (true, End::SourceBroken, _) | (false, _, End::SinkBroken) => TunnelEnd::DownstreamBroken,
        (true, End::SinkBroken, _) | (false, _, End::SourceBroken) => TunnelEnd::UpstreamBroken,
        (_, _, _) => TunnelEnd::Idle,
    }
}

async fn direction(source: &Socket, sink: &Socket, first: Block, activity: &Activity<'_>) -> End {
    let end = match copy(source, sink, first, activity).await {
        Some(end) => end,
        None => splice(source, sink, activity).await,
    };
    if matches!(end, End::Finished) {
        sink.finish();
    }
    end
}

/// Copies until the end, or until splicing pays (`None`).
async fn copy(
    source: &Socket,
    sink: &Socket,
    first: Block,
    activity: &Activity<'_>,
) -> Option<End> {
    let mut block = first;
    let mut full = 0;
    loop {
        if !block.is_empty() {
            full = if block.spare() == 0 { full + 1 } else { 0 };
            activity.shard.copy_bytes.add(block.len() as u64);
            block = match send(sink, block, activity).await {
                Ok(block) => block,
                Err(end) => return Some(end),
            };
            activity.last_ns.set(now_ns());
            if full >= FULL_RECEIVES {
                return None;
            }
        }
        block = match source.recv_patient(block, activity.due_ns()).await {
            Arrival::Data(block) => block,
            Arrival::End(_) => return Some(End::Finished),
            Arrival::Broken(_) => return Some(End::SourceBroken),
            Arrival::Silence(_) if activity.stalled() => return Some(End::Idle),
            Arrival::Silence(block) => block,
        };
    }
}

async fn send(sink: &Socket, block: Block, activity: &Activity<'_>) -> Result<Block, End> {
    activity.last_ns.set(now_ns());
    match sink.send_until(block, activity.due_ns()).await {
        (Ok(()), block) => Ok(block),
        (Err(error), _) if error.kind() == io::ErrorKind::TimedOut => Err(End::Idle),
        (Err(_), _) => Err(End::SinkBroken),
    }
}

async fn splice(source: &Socket, sink: &Socket, activity: &Activity<'_>) -> End {
    let Some(mut pipe) = Pipe::take() else {
        // No pipe to be had: go on as before, and ask no more.
        return copy_on(source, sink, activity).await;
    };
    let ended = splice::run(source, sink, u64::MAX, &mut pipe, activity).await;
    pipe.give();
    match ended {
        Run::Complete | Run::End => End::Finished,
        Run::SourceBroken(_) => End::SourceBroken,
        Run::SinkBroken(_) => End::SinkBroken,
        Run::Stalled | Run::Stopped => End::Idle,
    }
}

async fn copy_on(source: &Socket, sink: &Socket, activity: &Activity<'_>) -> End {
    loop {
        if let Some(end) = copy(source, sink, Block::large(), activity).await {
            return end;
        }
    }
}
