//! Opaque bytes both ways: TCP listeners, and HTTP connections after an upgrade.
//!
//! ```text
//! downstream ──▶ [block or pipe] ──▶ upstream
//! downstream ◀── [block or pipe] ◀── upstream
//!
//! a direction:  copy ── two full receives ──▶ splice ── end ──▶ FIN to the other side
//!                ▲                              │
//!                └── small bursts, or no pipe ──┘
//! ```
//!
//! # Invariants
//! - A direction is in exactly one mode, and changes with no read in flight.
//! - FIN is passed on as FIN once everything before it has gone out; the other direction lives on.
//! - RST is passed on as RST: an error on one side aborts the other, never the orderly end that
//!   would pass for a complete transfer. Where no operation waits on a side, because its direction
//!   has finished or is held up by the other side, it is looked at from time to time.
//! - The tunnel ends when neither direction has moved for the idle time.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use ringway_router::{ClusterId, ListenerId, Protocol};
use ringway_stats::clock::now_ns;

use crate::connection::Peer;
use crate::io::deadlines::after;
use crate::io::race::{self, Either};
use crate::io::socket::{Arrival, Socket};
use crate::io::splice::{self, Pace, Run, wait};
use crate::limits::{FAR_SIDE_LOOK, QUIET_TIME, SPLICE_BURST_BYTES_MIN, SPLICE_SMALL_BURSTS_MAX};
use crate::outcome::Cause;
use crate::recorder::{Outcome, Shard};
use crate::sys::block::Block;
use crate::tls::handshake::Side;
use crate::upstream::{self, Upstream};
use crate::worker::{Snapshot, Worker};

/// Full receives after which a direction changes to splice.
const FULL_RECEIVES: u32 = 2;

/// How a direction ended: everything went over, and then the end; or why not.
type End = Result<(), Cause>;

/// What the two directions know of each other.
struct Activity<'a> {
    last_ns: Cell<u64>,
    idle: Duration,
    /// Whether one direction has finished.
    half_closed: Cell<bool>,
    shard: &'a Shard,
}

/// One direction.
struct Direction<'a> {
    /// The side of the source; the sink is at the other.
    from: Side,
    source: &'a Socket,
    sink: &'a Socket,
    activity: &'a Activity<'a>,
    /// Small bursts in a row.
    small_bursts: Cell<u32>,
    /// What the last look found, if it was the end.
    found: Cell<Option<Cause>>,
}

impl Activity<'_> {
    fn touch(&self) {
        self.last_ns.set(now_ns());
    }

    fn idle_due_ns(&self) -> u64 {
        after(self.last_ns.get(), self.idle)
    }
}

/// Carries a connection to an endpoint of `cluster`, over `ahead` if that is there already.
pub async fn serve(
    worker: Rc<Worker>,
    socket: Socket,
    peer: Peer,
    table: (Rc<Snapshot>, ListenerId),
    (cluster, ahead): (ClusterId, Option<Upstream>),
    early: Block,
) {
    let (snapshot, listener) = table;
    let running = &snapshot.running;
    let listener = running.table.listener(listener);
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
        grpc: None,
    };
    let opened = match ahead {
        Some(upstream) => Ok(upstream),
        None => upstream::open(&worker, &snapshot, cluster, &peer).await,
    };
    match opened {
        Ok(upstream) => {
            outcome.upstream_ns = now_ns().saturating_sub(started_ns);
            outcome.endpoint = Some(upstream.address());
            let idle = running.table.cluster(cluster).idle_timeout;
            // What `auto` says of silence is meant for requests.
            let idle = match listener.protocol {
                Protocol::Auto => idle,
                _ => idle.min(listener.idle_timeout),
            };
            let end = run(&socket, upstream.socket(), early, Block::small(), idle, &worker.shard);
            outcome.cause = end.await.err();
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
) -> End {
    let last_ns = Cell::new(now_ns());
    let activity = Activity { last_ns, idle, half_closed: Cell::new(false), shard };
    let forth = Direction::new(Side::Downstream, (down, up), &activity);
    let back = Direction::new(Side::Upstream, (up, down), &activity);
    // What the first to end did to the other is not the other's fault.
    let verdict = Cell::new(Ok(()));
    let ended = |end: End| {
        if end.is_err() && verdict.get().is_ok() {
            verdict.set(end);
            down.abort();
            up.abort();
        }
    };
    let (carried_forth, carried_back) = (pin!(forth.carry(early)), pin!(back.carry(late)));
    let (forth_end, back_end) = race::both(carried_forth, carried_back, |first| match first {
        Either::Left(end) | Either::Right(end) => ended(*end),
    })
    .await;
    ended(forth_end);
    ended(back_end);
    verdict.get()
}

impl<'a> Direction<'a> {
    fn new(
        from: Side,
        (source, sink): (&'a Socket, &'a Socket),
        activity: &'a Activity<'a>,
    ) -> Self {
        let (small_bursts, found) = (Cell::new(0), Cell::new(None));
        Self { from, source, sink, activity, small_bursts, found }
    }

    fn source_broken(&self, error: &io::Error) -> Cause {
        Cause::of_io(self.from, error)
    }

    fn sink_broken(&self, error: &io::Error) -> Cause {
        let to = match self.from {
            Side::Downstream => Side::Upstream,
            Side::Upstream => Side::Downstream,
        };
        Cause::of_io(to, error)
    }

    /// Why a wait came to nothing.
    fn stall(&self) -> Cause {
        self.found.get().unwrap_or(Cause::TunnelIdle)
    }

    async fn carry(&self, first: Block) -> End {
        let end = self.move_all(first).await;
        if end.is_ok() {
            self.sink.finish().await;
            // From now on nothing is read from the source: the other direction keeps an eye on it.
            self.activity.half_closed.set(true);
            self.sink.receiving().hasten(after(now_ns(), FAR_SIDE_LOOK));
        }
        end
    }

    async fn move_all(&self, first: Block) -> End {
        if !(self.source.is_plain() && self.sink.is_plain()) {
            return self.copy(first, u32::MAX).await.unwrap_or(Ok(()));
        }
        let mut block = first;
        loop {
            if let Some(end) = self.copy(block, FULL_RECEIVES).await {
                return end;
            }
            match splice::run(self.source, self.sink, splice::ENDLESS, self).await {
                Run::Complete | Run::End => return Ok(()),
                Run::SourceBroken(error) => return Err(self.source_broken(&error)),
                Run::SinkBroken(error) => return Err(self.sink_broken(&error)),
                Run::SourceStalled | Run::SinkStalled | Run::Stopped => return Err(self.stall()),
                Run::Dry => block = Block::small(),
                Run::Refused(_) => block = Block::large(),
            }
        }
    }

    /// Copies until the end, or until `most` full receives in a row: splicing pays (`None`).
    async fn copy(&self, first: Block, most: u32) -> Option<End> {
        let mut block = first;
        let mut full = 0;
        loop {
            if !block.is_empty() {
                full = if block.spare() == 0 { full + 1 } else { 0 };
                self.activity.shard.copy_bytes.add(block.len() as u64);
                block = match self.send(block).await {
                    Ok(block) => block,
                    Err(cause) => return Some(Err(cause)),
                };
                if full >= most {
                    self.small_bursts.set(0);
                    return None;
                }
                if full == FULL_RECEIVES {
                    block = Block::large();
                }
            }
            block = match self.receive(block).await {
                Ok(Some(block)) => block,
                Ok(None) => return Some(Ok(())),
                Err(cause) => return Some(Err(cause)),
            };
        }
    }

    /// Receives into the empty `block`, which goes back to the pool while nothing comes for long.
    /// `None` at the end of input.
    async fn receive(&self, block: Block) -> Result<Option<Block>, Cause> {
        let quiet_ns = after(now_ns(), QUIET_TIME).min(self.due_ns());
        let mut arrival = self.source.recv_until(block, quiet_ns).await;
        loop {
            match arrival {
                Arrival::Data(block) => return Ok(Some(block)),
                Arrival::End(_) => return Ok(None),
                Arrival::Broken(error) => return Err(self.source_broken(&error)),
                Arrival::Silence(block) => block.retire(),
            }
            match wait(self, || self.due_ns(), |due| self.source.readable_until(due)).await {
                Ok(true) => {}
                Ok(false) => return Err(self.stall()),
                Err(error) => return Err(self.source_broken(&error)),
            }
            arrival = self.source.recv_until(Block::small(), self.due_ns()).await;
        }
    }

    async fn send(&self, block: Block) -> Result<Block, Cause> {
        let mut rest = block;
        self.activity.touch();
        while !rest.is_empty() {
            let look = || {
                if self.stalled() {
                    self.sink.abort();
                }
            };
            let moved = || self.activity.touch();
            let (sent, block) = self.sink.send_some(rest, self.sink_pause(), look, moved).await;
            if let Err(error) = sent {
                return Err(self.found.get().unwrap_or_else(|| self.sink_broken(&error)));
            }
            rest = block;
        }
        Ok(rest)
    }

    /// How long to wait for the sink before looking at the source, from which nothing is read
    /// meanwhile.
    fn sink_pause(&self) -> Duration {
        FAR_SIDE_LOOK.min(self.activity.idle)
    }
}

impl Pace for Direction<'_> {
    fn due_ns(&self) -> u64 {
        let idle_ns = self.activity.idle_due_ns();
        if !self.activity.half_closed.get() {
            return idle_ns;
        }
        idle_ns.min(after(now_ns(), FAR_SIDE_LOOK))
    }

    fn sink_due_ns(&self) -> u64 {
        after(now_ns(), self.sink_pause()).min(self.activity.idle_due_ns())
    }

    /// Looks at both sides and at the clock.
    fn stalled(&self) -> bool {
        let found = if let Some(error) = self.source.failure() {
            Some(self.source_broken(&error))
        } else if let Some(error) = self.sink.failure() {
            Some(self.sink_broken(&error))
        } else if now_ns() >= self.activity.idle_due_ns() {
            Some(Cause::TunnelIdle)
        } else {
            None
        };
        self.found.set(found);
        found.is_some()
    }

    fn moved(&self, count: u64) {
        self.activity.touch();
        self.activity.shard.splice_bytes.add(count);
    }

    fn dry(&self, burst: u64) -> bool {
        let so_far = self.small_bursts.get();
        self.small_bursts.set(match burst {
            0 => so_far,
            1..SPLICE_BURST_BYTES_MIN => so_far + 1,
            _ => 0,
        });
        self.small_bursts.get() >= SPLICE_SMALL_BURSTS_MAX
    }
}
