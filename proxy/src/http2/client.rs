//! HTTP/2 connections to endpoints, shared by the requests of a worker.
//!
//! ```text
//! pick ─▶ a connection with room ─▶ Lease ─▶ stream
//!            └─ none: one opens, whoever else needs one meanwhile waits for it
//! ```
//!
//! # Invariants
//! - A new connection is made only when all others to the endpoint are at the limit that its
//!   SETTINGS state, or leave.
//! - A connection is used only under the policy (identity, roots) that it was made under.
//! - A stream that stands still holds up no other: the windows of all streams fit into that of
//!   their connection, unless the file says otherwise.
//! - One that is silent is asked by PING, one that is idle is closed, one that leaves (GOAWAY) gets
//!   no new streams; its own go on.
//! - The endpoint's count of exchanges goes by streams.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use ringway_router::ClusterId;
use ringway_stats::clock::now_ns;

use super::bridge::{self, Io, Line};
use super::flood::Watch;
use super::pulse::Pulse;
use crate::connection::Peer;
use crate::io::deadlines::{Alarm, after};
use crate::io::notify::Notify;
use crate::limits::{HTTP2_RESETS_MAX, HTTP2_SEND_BUFFER_BYTES, HTTP2_SMALL_FRAMES_BUDGET};
use crate::outcome::{Cause, Failure};
use crate::tls::places::Places;
use crate::upstream::{CONNECT_ATTEMPTS_MAX, Picked, establish, pick};
use crate::worker::{Snapshot, Worker, guarded};

/// An endpoint under a policy.
type Key = (usize, SocketAddr, u64);

/// The connections of one worker, by endpoint.
#[derive(Default)]
pub struct Clients(RefCell<HashMap<Key, Shelf>>);

struct Shelf {
    clients: Vec<Rc<Client>>,
    /// One at a time opens a connection.
    opening: Rc<Places>,
    /// Why the last one could not, and when.
    failed: Option<(u64, Failure)>,
}

/// A connection.
pub struct Client {
    send: SendRequest<Bytes>,
    open: Cell<usize>,
    /// Most streams at once, whatever the endpoint allows.
    most: usize,
    /// It gets no new streams.
    leaving: Cell<bool>,
    /// When its last stream ended.
    quiet_ns: Cell<u64>,
    /// It has no streams any more: its task looks anew when it is due.
    quiet: Notify,
    idle: Duration,
}

/// A stream's place on a connection.
pub struct Lease {
    picked: Picked,
    client: Rc<Client>,
}

impl Lease {
    fn new(picked: Picked, client: Rc<Client>) -> Self {
        client.open.set(client.open.get() + 1);
        Self { picked, client }
    }

    /// Begins requests.
    #[must_use]
    pub fn sender(&self) -> SendRequest<Bytes> {
        self.client.send.clone()
    }

    /// Where it leads.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.picked.address
    }

    /// The connection takes no more streams.
    pub fn leaves(&self) {
        self.client.leaving.set(true);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.client.open.set(self.client.open.get() - 1);
        self.client.quiet_ns.set(now_ns());
        if self.client.open.get() == 0 {
            self.client.quiet.notify();
        }
    }
}

impl Clients {
    fn find(&self, key: &Key) -> Option<Rc<Client>> {
        let shelves = self.0.borrow();
        let has_room = |client: &&Rc<Client>| {
            let most = client.send.current_max_send_streams().min(client.most);
            !client.leaving.get() && client.open.get() < most
        };
        shelves.get(key)?.clients.iter().find(has_room).cloned()
    }

    fn opening(&self, key: Key) -> Rc<Places> {
        let mut shelves = self.0.borrow_mut();
        let shelf = shelves.entry(key).or_insert_with(|| Shelf {
            clients: Vec::new(),
            opening: Places::new(1),
            failed: None,
        });
        Rc::clone(&shelf.opening)
    }

    fn note_failure(&self, key: &Key, failure: &Failure) {
        if let Some(shelf) = self.0.borrow_mut().get_mut(key) {
            shelf.failed = Some((now_ns(), failure.clone()));
        }
    }

    /// Why none could be opened, if that was tried to the end since `asked_ns`.
    fn failure_since(&self, key: &Key, asked_ns: u64) -> Option<Failure> {
        let shelves = self.0.borrow();
        let (failed_ns, failure) = shelves.get(key)?.failed.as_ref()?;
        (*failed_ns >= asked_ns).then(|| failure.clone())
    }

    fn add(&self, key: Key, client: &Rc<Client>) {
        if let Some(shelf) = self.0.borrow_mut().get_mut(&key) {
            shelf.clients.push(Rc::clone(client));
        }
    }

    /// Forgets a connection that has ended, and the endpoint with its last one.
    fn remove(&self, key: &Key, client: &Rc<Client>) {
        let mut shelves = self.0.borrow_mut();
        let Some(shelf) = shelves.get_mut(key) else { return };
        shelf.clients.retain(|other| !Rc::ptr_eq(other, client));
        // Nobody else holds the place: nobody opens one.
        if shelf.clients.is_empty() && Rc::strong_count(&shelf.opening) == 1 {
            shelves.remove(key);
        }
    }

    /// No connection gets new streams: each ends with its last one.
    pub fn clear(&self) {
        for shelf in self.0.borrow().values() {
            for client in &shelf.clients {
                client.leaving.set(true);
            }
        }
    }
}

/// Picks an endpoint of `cluster` and a connection to it with room for a stream. When connecting
/// fails another endpoint is tried. No attempt goes on past `deadline_ns`.
///
/// # Errors
/// As those of `upstream::acquire`.
pub async fn lease(
    worker: &Rc<Worker>,
    snapshot: &Rc<Snapshot>,
    cluster: ClusterId,
    peer: &Peer,
    deadline_ns: u64,
) -> Result<Lease, Failure> {
    let mut avoid = None;
    let mut attempt = 1;
    loop {
        let picked = pick(worker, snapshot, cluster, avoid)?;
        let key = (picked.slot.index(), picked.address, picked.policy());
        let known = || worker.clients.find(&key);
        if let Some(client) = known() {
            worker.shard.upstream_reused.increment();
            return Ok(Lease::new(picked, client));
        }
        let opening = worker.clients.opening(key);
        let asked_ns = now_ns();
        let place = opening.take().await;
        // Somebody else may have opened one meanwhile.
        if let Some(client) = known() {
            worker.shard.upstream_reused.increment();
            return Ok(Lease::new(picked, client));
        }
        if now_ns() >= deadline_ns {
            // Its time went by in the queue: it does not take that of those behind it.
            return Err(Cause::UpstreamTimeout.into());
        }
        let slot = picked.slot;
        // All who have waited for one attempt share how it ended: each of them would take as long.
        let shared = worker.clients.failure_since(&key, asked_ns);
        let opened = match shared {
            Some(failure) => Err(failure),
            None => open(worker, picked, peer, key, deadline_ns).await.inspect_err(|failure| {
                // What was for want of this request's own time says nothing to the others.
                if now_ns() < deadline_ns {
                    worker.clients.note_failure(&key, failure);
                }
                worker.shard.connect_failures.increment();
            }),
        };
        match opened {
            Ok(lease) => return Ok(lease),
            Err(failure) => {
                drop(place);
                let late =
                    matches!(failure.cause, Cause::ConnectTimeout | Cause::UpstreamTlsTimeout);
                if late && now_ns() >= deadline_ns {
                    return Err(Failure { cause: Cause::UpstreamTimeout, ..failure });
                }
                let endpoints = snapshot.running.endpoints.cluster(cluster).len();
                if attempt == CONNECT_ATTEMPTS_MAX || endpoints < 2 {
                    return Err(failure);
                }
                attempt += 1;
                avoid = Some(slot);
            }
        }
    }
}

/// Opens a connection and takes its first stream.
async fn open(
    worker: &Rc<Worker>,
    picked: Picked,
    peer: &Peer,
    key: Key,
    deadline_ns: u64,
) -> Result<Lease, Failure> {
    let socket = establish(worker, &picked, peer, deadline_ns).await?;
    let alarm = socket.alarm(&worker.deadlines);
    let (io, line) = bridge::open(worker, socket, None, Watch::of_server(), None);
    let limits = picked.cluster().http2;
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_bytes())
        .max_frame_size(limits.max_frame_size)
        .max_header_list_size(limits.max_header_list_size)
        .max_concurrent_reset_streams(HTTP2_RESETS_MAX)
        // Over the whole life of a connection, which may be long; `flood` counts by time.
        .max_local_error_reset_streams(None)
        // Small messages of streams that stand still must not end everybody's connection.
        .data_frame_budget(HTTP2_SMALL_FRAMES_BUDGET)
        .max_send_buffer_size(HTTP2_SEND_BUFFER_BYTES);
    // Writes the preface and waits for nothing.
    let made = builder.handshake(io).await.map_err(|error| {
        worker.shard.upstream_closed.increment();
        Failure::with(Cause::ConnectFailed, error)
    });
    let (send, connection) = made?;
    let client = Rc::new(Client {
        send,
        open: Cell::new(0),
        most: limits.max_concurrent_streams as usize,
        leaving: Cell::new(false),
        quiet_ns: Cell::new(now_ns()),
        quiet: Notify::default(),
        idle: picked.cluster().pool_idle_timeout,
    });
    worker.clients.add(key, &client);
    let lease = Lease::new(picked, Rc::clone(&client));
    let worker = Rc::clone(worker);
    monoio::spawn(async move {
        let mut connection = connection;
        let pulse = Pulse::new(connection.ping_pong(), &limits);
        let life = Life { client: &client, line, alarm, pulse };
        guarded(&worker, pin!(life.live(connection))).await;
        client.leaving.set(true);
        worker.clients.remove(&key, &client);
        worker.shard.upstream_closed.increment();
    });
    Ok(lease)
}

/// A connection as its own task sees it.
struct Life<'a> {
    client: &'a Client,
    line: Line,
    alarm: Alarm,
    pulse: Pulse,
}

impl Life<'_> {
    async fn live(mut self, connection: h2::client::Connection<Io, Bytes>) {
        let mut connection = connection;
        loop {
            let ended = {
                let mut due = pin!(self.alarm.idle_until(self.next_look_ns()));
                let mut quiet = pin!(self.client.quiet.wait());
                let (pulse, line) = (&mut self.pulse, &self.line);
                poll_fn(|context| {
                    if let Poll::Ready(result) = Pin::new(&mut connection).poll(context) {
                        if let Err(error) = result {
                            tracing::debug!("a connection to an endpoint ended: {error}");
                        }
                        return Poll::Ready(true);
                    }
                    if line.flood().is_some() {
                        return Poll::Ready(false);
                    }
                    pulse.poll(context);
                    if quiet.as_mut().poll(context).is_ready() {
                        return Poll::Ready(false);
                    }
                    due.as_mut().poll(context).map(|()| false)
                })
                .await
            };
            if ended || !self.look() {
                return;
            }
        }
    }

    fn next_look_ns(&self) -> u64 {
        let ping_ns = self.pulse.due_ns(&self.line);
        let idle_ns = after(self.client.quiet_ns.get(), self.client.idle);
        let due_ns = if self.client.open.get() == 0 { ping_ns.min(idle_ns) } else { ping_ns };
        due_ns.max(after(now_ns(), Duration::from_millis(5)))
    }

    /// Looks after the connection. False if it is given up.
    fn look(&mut self) -> bool {
        let now = now_ns();
        let client = self.client;
        let is_idle = client.open.get() == 0;
        if is_idle && (client.leaving.get() || now >= after(client.quiet_ns.get(), client.idle)) {
            return false;
        }
        if self.line.flood().is_some() {
            tracing::warn!("an endpoint floods its connection: it is given up");
            self.line.socket().abort();
            return false;
        }
        if !self.pulse.look(&self.line, now) {
            tracing::debug!("an endpoint answers no PING: its connection is given up");
            self.line.socket().abort();
            return false;
        }
        true
    }
}
