//! A client's HTTP/2 connection (RFC 9113): streams to tasks, and the connection's own affairs.
//!
//! ```text
//! bytes ─▶ bridge ─▶ h2 ─▶ a task for each stream
//!                    ▲
//!                    └── drain, age, idle time, floods: GOAWAY · silence: PING
//! ```
//!
//! # Invariants
//! - A stream never waits in the connection's task: accepting goes on whatever streams do.
//! - GOAWAY comes before the end, but for a peer that answers no PING. After it, open streams
//!   end in their own time.
//! - Memory of a connection is bounded: windows, streams, header lists and what waits to be sent
//!   each have their limit.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Request;
use ringway_router::Http2Config;
use ringway_stats::clock::now_ns;

use super::body::Pace;
use super::bridge::{self, Io, Line};
use super::flood::{Flood, OwnWatch, Watch};
use super::pulse::Pulse;
use super::stream;
use crate::connection::Peer;
use crate::io::deadlines::{Alarm, after};
use crate::io::race::{self, Either};
use crate::io::socket::Socket;
use crate::limits::{
    HTTP2_LOOK, HTTP2_PENDING_RESETS_MAX, HTTP2_RESETS_MAX, HTTP2_SEND_BUFFER_BYTES,
    STREAMS_BEFORE_TRIM,
};
use crate::outcome::{Cause, Failure};
use crate::shared::Instance;
use crate::sys::block::Block;
use crate::sys::reused::Reused;
use crate::worker::{Worker, guarded};

type Incoming = (Request<RecvStream>, SendResponse<Bytes>);

/// What the streams of a connection share.
pub struct Connection {
    /// The worker that has it.
    pub worker: Rc<Worker>,
    /// Who is at the other end.
    pub peer: Peer,
    /// The listening instance that it came in by.
    pub instance: Instance,
    /// Its bytes.
    pub line: Line,
    open: Cell<u32>,
    /// Most streams at once since it was last quiet.
    peak: Cell<u32>,
    /// When its last stream ended.
    quiet_ns: Cell<u64>,
}

/// Counts a stream for as long as it lives.
struct Guest(Rc<Connection>);

impl Guest {
    fn new(connection: &Rc<Connection>) -> Self {
        connection.open.set(connection.open.get() + 1);
        connection.peak.set(connection.peak.get().max(connection.open.get()));
        connection.worker.shard.http2.streams.increment();
        connection.worker.shard.http2.open.add(1);
        Self(Rc::clone(connection))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.quiet_ns.set(now_ns());
        self.0.worker.shard.http2.open.add(-1);
        if self.0.open.get() == 0 {
            let peak = self.0.peak.replace(0) as usize;
            if peak >= STREAMS_BEFORE_TRIM {
                self.0.worker.lot.note_quiet(peak);
            }
        }
    }
}

/// What happens on a connection.
enum Event {
    Stream(Box<Incoming>),
    /// It is over.
    End(Option<h2::Error>),
    /// Time to look after it.
    Look,
}

/// Serves a connection to its end. `early` has come already. `retire_ns` is when it has reached its
/// greatest age.
pub async fn serve(
    worker: Rc<Worker>,
    socket: Socket,
    peer: Peer,
    instance: Instance,
    early: Option<Block>,
    retire_ns: u64,
) {
    let alarm = socket.alarm(&worker.deadlines);
    let own_watch = Some(OwnWatch::default());
    let (io, line) = bridge::open(&worker, socket, early, Watch::of_client(), own_watch);
    let (open, peak, quiet_ns) = (Cell::new(0), Cell::new(0), Cell::new(now_ns()));
    let connection = Rc::new(Connection { worker, peer, instance, line, open, peak, quiet_ns });
    connection.worker.shard.http2.connections.increment();
    let limits = connection.limits();
    match shake(&connection, io, &alarm, &limits).await {
        Ok(h2) => Life::new(&connection, h2, &alarm, retire_ns, &limits).live().await,
        Err(failure) => connection.failed(&failure),
    }
}

/// The preface and the first SETTINGS.
async fn shake(
    connection: &Connection,
    io: Io,
    alarm: &Alarm,
    limits: &Http2Config,
) -> Result<h2::server::Connection<Io, Bytes>, Failure> {
    let due_ns = after(now_ns(), connection.patience(|listener| listener.head_timeout));
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_bytes())
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_frame_size(limits.max_frame_size)
        .max_header_list_size(limits.max_header_list_size)
        .max_send_buffer_size(HTTP2_SEND_BUFFER_BYTES)
        .max_concurrent_reset_streams(HTTP2_RESETS_MAX)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS_MAX)
        // Over the whole life of a connection, which may be long; `flood` counts by time.
        .max_local_error_reset_streams(None);
    let shaken = pin!(builder.handshake(io));
    match race::first(shaken, pin!(alarm.wait_until(due_ns))).await {
        Either::Left(Ok(h2)) => Ok(h2),
        Either::Left(Err(error)) => {
            connection.count_end(&error);
            Err(Failure::with(Cause::RequestMalformed, error))
        }
        Either::Right(()) => Err(Cause::RequestTimeout.into()),
    }
}

impl Connection {
    /// What its listener says of connections; what holds by default once it is gone.
    fn limits(&self) -> Http2Config {
        self.worker.table_for(self.instance).map_or(Http2Config::DEFAULT, |(snapshot, listener)| {
            snapshot.running.table.listener(listener).http2
        })
    }

    fn patience(&self, of: impl Fn(&ringway_router::Listener) -> Duration) -> Duration {
        self.worker.table_for(self.instance).map_or(Duration::ZERO, |(snapshot, listener)| {
            of(snapshot.running.table.listener(listener))
        })
    }

    /// The pace of one of its streams.
    #[must_use]
    pub fn pace(&self, idle: Duration, deadline_ns: u64) -> Pace {
        Pace::new(self.line.socket(), &self.worker.deadlines, idle, deadline_ns)
    }

    fn failed(&self, failure: &Failure) {
        tracing::debug!(cause = failure.cause.label(), peer = %self.peer.address, "{failure}");
        self.worker.shard.record_cause(failure.cause);
    }

    /// Counts a connection that h2 ended for what its client did.
    fn count_end(&self, error: &h2::Error) {
        let series = &self.worker.shard.http2;
        match error.reason() {
            Some(Reason::ENHANCE_YOUR_CALM) => series.calmed.increment(),
            _ if is_breach(error) => series.breaches.increment(),
            _ => {}
        }
    }

    fn flooded(&self, flood: Flood) {
        self.worker.shard.http2.floods[flood as usize].increment();
        let what = Flood::LABELS[flood as usize];
        tracing::warn!(peer = %self.peer.address, "ended for a flood of {what} frames");
    }
}

/// A connection whose handshake is over.
struct Life<'a> {
    connection: &'a Rc<Connection>,
    h2: h2::server::Connection<Io, Bytes>,
    pulse: Pulse,
    alarm: &'a Alarm,
    retire_ns: u64,
    /// GOAWAY has been sent, or is about to be.
    leaving: bool,
    /// It is being ended for a flood.
    cut: bool,
}

impl<'a> Life<'a> {
    fn new(
        connection: &'a Rc<Connection>,
        mut h2: h2::server::Connection<Io, Bytes>,
        alarm: &'a Alarm,
        retire_ns: u64,
        limits: &Http2Config,
    ) -> Self {
        let pulse = Pulse::new(h2.ping_pong(), limits);
        Self { connection, h2, pulse, alarm, retire_ns, leaving: false, cut: false }
    }

    async fn live(mut self) {
        let mut ended = false;
        while !ended {
            match self.event().await {
                Event::Stream(incoming) => self.start(*incoming),
                Event::Look => ended = !self.look(),
                Event::End(error) => {
                    if let Some(error) = error {
                        self.broken(&error);
                    }
                    return;
                }
            }
        }
    }

    async fn event(&mut self) -> Event {
        let due_ns = self.next_look_ns();
        let mut due = pin!(self.alarm.idle_until(due_ns));
        let (h2, pulse) = (&mut self.h2, &mut self.pulse);
        let (line, cut) = (&self.connection.line, self.cut);
        let is_flood = || line.flood().is_some() && !cut;
        poll_fn(|context| {
            // Before h2 sees the end of a peer that has ended with its flood.
            if is_flood() {
                return Poll::Ready(Event::Look);
            }
            if let Some(event) = poll_streams(h2, context) {
                return Poll::Ready(event);
            }
            if is_flood() {
                return Poll::Ready(Event::Look);
            }
            pulse.poll(context);
            due.as_mut().poll(context).map(|()| Event::Look)
        })
        .await
    }

    fn start(&self, (request, respond): Incoming) {
        let guest = Guest::new(self.connection);
        let connection = Rc::clone(self.connection);
        monoio::spawn(async move {
            let worker = Rc::clone(&connection.worker);
            let served = Reused::pin(|| stream::serve(connection, request, respond));
            guarded(&worker, pin!(served)).await;
            drop(guest);
        });
    }

    fn idle_ns(&self) -> u64 {
        let idle = self.connection.patience(|listener| listener.idle_timeout);
        after(self.connection.quiet_ns.get(), idle)
    }

    fn next_look_ns(&self) -> u64 {
        if self.leaving {
            return after(now_ns(), HTTP2_LOOK);
        }
        let ping_ns = self.pulse.due_ns(&self.connection.line);
        let idle_ns = if self.connection.open.get() == 0 { self.idle_ns() } else { u64::MAX };
        ping_ns.min(self.retire_ns).min(idle_ns).max(after(now_ns(), Duration::from_millis(5)))
    }

    /// Looks after the connection. False if it is given up.
    fn look(&mut self) -> bool {
        let now = now_ns();
        let connection = self.connection;
        if let Some(flood) = connection.line.flood()
            && !self.cut
        {
            connection.flooded(flood);
            (self.leaving, self.cut) = (true, true);
            self.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            return true;
        }
        let is_idle = connection.open.get() == 0;
        let worker = &connection.worker;
        let must_leave = now >= self.retire_ns
            || worker.closing_idle()
            || worker.shared.draining()
            || worker.table_for(connection.instance).is_none()
            || (is_idle && now >= self.idle_ns());
        if must_leave && !self.leaving {
            self.leaving = true;
            self.h2.graceful_shutdown();
            return true;
        }
        if !self.pulse.look(&connection.line, now) {
            connection.failed(&Cause::ClientStalled.into());
            connection.line.socket().abort();
            return false;
        }
        true
    }

    /// Records why a connection broke, if that was somebody's fault.
    fn broken(&self, error: &h2::Error) {
        let connection = self.connection;
        if error.is_io() || error.reason() == Some(Reason::NO_ERROR) {
            if connection.open.get() > 0 {
                tracing::debug!(peer = %connection.peer.address, "the connection broke: {error}");
            }
            return;
        }
        if error.is_remote() {
            return;
        }
        // A flood has been counted already.
        if !self.cut {
            connection.count_end(error);
        }
        connection.failed(&Failure::with(Cause::RequestMalformed, error));
    }
}

/// Whether h2 ended a connection because the peer broke the protocol (RFC 9113 section 5.4.1).
fn is_breach(error: &h2::Error) -> bool {
    let is_of_peer = |reason| ![Reason::NO_ERROR, Reason::INTERNAL_ERROR].contains(&reason);
    error.is_go_away() && error.is_library() && error.reason().is_some_and(is_of_peer)
}

fn poll_streams(
    h2: &mut h2::server::Connection<Io, Bytes>,
    context: &mut Context<'_>,
) -> Option<Event> {
    match h2.poll_accept(context) {
        Poll::Pending => None,
        Poll::Ready(Some(Ok(incoming))) => Some(Event::Stream(Box::new(incoming))),
        Poll::Ready(Some(Err(error))) => Some(Event::End(Some(error))),
        Poll::Ready(None) => Some(Event::End(None)),
    }
}
