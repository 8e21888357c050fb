//! What a worker counts: its shard. One writer, any number of readers.
//!
//! # Invariants
//! - Only the worker that owns a shard writes to it.
//! - Every exchange is recorded exactly once, by [`Shard::record`].
//!
//! # Not here
//! Names and text: `admin::metrics`.

use std::net::SocketAddr;
use std::sync::OnceLock;

use ringway_stats::{Counter, Gauge, Histogram, Slots};
use ringway_tls::{Fault, Session};

use crate::detect::Found;
use crate::http2::flood::Flood;
use crate::http2::grpc::Status;
use crate::limits::SERIES_MAX;
use crate::outcome::Cause;
use crate::sys::alloc::allocations;
use crate::tls::handshake::Side;

/// The classes of status: informational is never final.
pub const STATUS_CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "none"];

/// What became of one exchange.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Series of the route, 0 when none matched.
    pub route: u32,
    /// Series of the cluster, when one was picked.
    pub cluster: Option<u32>,
    /// The endpoint that answered last.
    pub endpoint: Option<SocketAddr>,
    /// Status sent to the client; 0 when none was.
    pub status: u16,
    /// Why it did not go as it should.
    pub cause: Option<Cause>,
    /// From the last byte of the request head to the last of the response, nanoseconds.
    pub total_ns: u64,
    /// From sending the request to the first byte of the response, nanoseconds.
    pub upstream_ns: u64,
    /// Times the request was sent.
    pub attempts: u32,
    /// How it has ended, if it was a call of gRPC.
    pub grpc: Option<Status>,
}

/// Latency and results of one route or cluster.
#[derive(Debug, Default)]
pub struct Series {
    /// Latency, nanoseconds.
    pub latency: Histogram,
    /// Exchanges by class of status, as in [`STATUS_CLASSES`].
    pub by_class: [Counter; STATUS_CLASSES.len()],
    /// Calls of gRPC by how they ended, as in [`Status::LABELS`]; from the first one on.
    pub by_grpc: OnceLock<Box<[Counter; Status::LABELS.len()]>>,
}

impl Series {
    fn record(&self, status: u16, latency_ns: u64) {
        self.latency.record(latency_ns);
        let class = match status {
            200..300 => 0,
            300..400 => 1,
            400..500 => 2,
            500.. => 3,
            _ => 4,
        };
        self.by_class[class].increment();
    }
}

/// Connections of one listener.
#[derive(Debug, Default)]
pub struct ListenerSeries {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections closed.
    pub closed: Counter,
    /// Connections in plaintext where TLS is spoken too.
    pub plaintext: Counter,
    /// Connections by what they were found to speak, in the order of [`Found::LABELS`].
    pub found: [Counter; Found::LABELS.len()],
}

/// TLS connections of one side.
#[derive(Debug)]
pub struct TlsSeries {
    /// Handshakes done in full.
    pub full: Counter,
    /// Sessions resumed.
    pub resumed: Counter,
    /// Time from the first step of a handshake to its last, nanoseconds.
    pub handshake: Histogram,
    /// Connections that failed, in the order of [`Fault::LABELS`].
    pub faults: Vec<Counter>,
    /// Connections cut because their peer is trusted no more.
    pub cut: Counter,
    /// Handshakes given up for others, since their peer was silent.
    pub given_up: Counter,
}

impl Default for TlsSeries {
    fn default() -> Self {
        Self {
            full: Counter::new(),
            resumed: Counter::new(),
            handshake: Histogram::default(),
            faults: Fault::LABELS.iter().map(|_| Counter::new()).collect(),
            cut: Counter::new(),
            given_up: Counter::new(),
        }
    }
}

impl TlsSeries {
    /// Records a handshake that has taken `time_ns`.
    pub fn established(&self, session: &Session, time_ns: u64) {
        let counter = if session.negotiated().resumed { &self.resumed } else { &self.full };
        counter.increment();
        self.handshake.record(time_ns);
    }

    /// Records a connection that failed.
    pub fn failed(&self, fault: &Fault) {
        self.faults[fault.index()].increment();
    }
}

/// HTTP/2 connections with clients.
#[derive(Debug, Default)]
pub struct Http2Series {
    /// Connections begun.
    pub connections: Counter,
    /// Streams begun.
    pub streams: Counter,
    /// Streams open.
    pub open: Gauge,
    /// Connections ended for a flood of frames, in the order of [`Flood::LABELS`].
    pub floods: [Counter; Flood::LABELS.len()],
    /// Connections ended for another excess: resets, CONTINUATION, header lists.
    pub calmed: Counter,
    /// Connections ended because their client broke the protocol.
    pub breaches: Counter,
}

/// Everything one worker counts.
#[derive(Debug)]
pub struct Shard {
    /// By route series.
    pub routes: Slots<Series>,
    /// By cluster series.
    pub clusters: Slots<Series>,
    /// By listener series.
    pub listeners: Slots<ListenerSeries>,
    /// Failures by cause, in the order of [`Cause::ALL`].
    pub causes: Vec<Counter>,
    /// Connections accepted from clients.
    pub downstream_accepted: Counter,
    /// Connections with clients that have ended.
    pub downstream_closed: Counter,
    /// Connections opened to endpoints.
    pub upstream_opened: Counter,
    /// Connections to endpoints that have ended.
    pub upstream_closed: Counter,
    /// Exchanges on a connection that was open already.
    pub upstream_reused: Counter,
    /// Attempts to connect that failed.
    pub connect_failures: Counter,
    /// Requests sent once more.
    pub retries: Counter,
    /// Idle connections to endpoints in the pool.
    pub pooled: Gauge,
    /// Payload moved by splice.
    pub splice_bytes: Counter,
    /// Payload moved through buffers.
    pub copy_bytes: Counter,
    /// TLS with clients.
    pub tls_downstream: TlsSeries,
    /// TLS with endpoints.
    pub tls_upstream: TlsSeries,
    /// HTTP/2 connections with clients.
    pub http2: Http2Series,
    /// Tunnels and upgraded connections that have ended.
    pub tunnels: Counter,
    /// Times that accepting paused for want of descriptors or memory.
    pub accept_pauses: Counter,
    /// Connections handed to a less loaded worker.
    pub handed_over: Counter,
    /// Connections ended because the peer was silent.
    pub silent_peers: Counter,
    /// Connection tasks that panicked.
    pub panics: Counter,
    /// Allocations of the worker's thread.
    pub allocations: Gauge,
    /// Generation of the table that the worker uses.
    pub generation: Gauge,
    /// Thread id, for the time it spends on a processor.
    pub thread: Gauge,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            routes: Slots::new(SERIES_MAX),
            clusters: Slots::new(SERIES_MAX),
            listeners: Slots::new(SERIES_MAX),
            causes: Cause::ALL.iter().map(|_| Counter::new()).collect(),
            downstream_accepted: Counter::new(),
            downstream_closed: Counter::new(),
            upstream_opened: Counter::new(),
            upstream_closed: Counter::new(),
            upstream_reused: Counter::new(),
            connect_failures: Counter::new(),
            retries: Counter::new(),
            pooled: Gauge::new(),
            splice_bytes: Counter::new(),
            copy_bytes: Counter::new(),
            tls_downstream: TlsSeries::default(),
            tls_upstream: TlsSeries::default(),
            http2: Http2Series::default(),
            tunnels: Counter::new(),
            accept_pauses: Counter::new(),
            handed_over: Counter::new(),
            silent_peers: Counter::new(),
            panics: Counter::new(),
            allocations: Gauge::new(),
            generation: Gauge::new(),
            thread: Gauge::new(),
        }
    }
}

impl Shard {
    /// Records an exchange.
    pub fn record(&self, outcome: &Outcome) {
        if let Some(series) = self.routes.touch(outcome.route as usize) {
            series.record(outcome.status, outcome.total_ns);
        }
        if let Some(series) = outcome.cluster.and_then(|id| self.clusters.touch(id as usize)) {
            series.record(outcome.status, outcome.upstream_ns);
        }
        if let Some(cause) = outcome.cause {
            self.causes[cause as usize].increment();
        }
        self.allocations.set(i64::try_from(allocations()).unwrap_or(i64::MAX));
        if let Some(status) = outcome.grpc {
            self.record_call(outcome, status);
        }
    }

    /// Records how a call of gRPC has ended.
    #[inline(never)]
    fn record_call(&self, outcome: &Outcome, status: Status) {
        let route = self.routes.touch(outcome.route as usize);
        let cluster = outcome.cluster.and_then(|id| self.clusters.touch(id as usize));
        for series in [route, cluster].into_iter().flatten() {
            series.by_grpc.get_or_init(Box::default)[status.index()].increment();
        }
    }

    /// Records a tunnel: its cluster's series hold the time that connecting took.
    pub fn record_tunnel(&self, outcome: &Outcome) {
        self.tunnels.increment();
        if let Some(series) = outcome.cluster.and_then(|id| self.clusters.touch(id as usize)) {
            series.record(outcome.status, outcome.upstream_ns);
        }
        if let Some(cause) = outcome.cause {
            self.record_cause(cause);
        }
    }

    /// What is counted of TLS on one side.
    #[must_use]
    pub fn tls(&self, side: Side) -> &TlsSeries {
        match side {
            Side::Downstream => &self.tls_downstream,
            Side::Upstream => &self.tls_upstream,
        }
    }

    /// Records a failure outside of any exchange.
    pub fn record_cause(&self, cause: Cause) {
        self.causes[cause as usize].increment();
    }

    /// Connections with clients that are open now.
    #[must_use]
    pub fn downstream_open(&self) -> u64 {
        self.downstream_accepted.value().saturating_sub(self.downstream_closed.value())
    }
}
