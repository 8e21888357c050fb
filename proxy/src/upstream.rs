//! Connections to endpoints: picked, taken from the pool or opened, given back.
//!
//! # Invariants
//! - An endpoint's count of exchanges in flight goes up when it is picked and down when its
//!   [`Upstream`] is dropped, however that happens.
//! - A request is never put on a connection that still owes another response.
//!
//! # Not here
//! Retries after bytes were sent: `http1::exchange`.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ringway_router::{Cluster, ClusterId, EndpointSlot, InFlight};
use ringway_stats::clock::now_ns;
use ringway_tls::ServerName;

use crate::connection::Peer;
use crate::io::deadlines::after;
use crate::io::socket::Socket;
use crate::outcome::{Cause, Failure};
use crate::proxy_protocol;
use crate::sys::block::Block;
use crate::tls::credentials::ClusterTls;
use crate::tls::handshake;
use crate::worker::{Snapshot, Worker};

/// Endpoints tried before a request fails for want of a connection.
pub const CONNECT_ATTEMPTS_MAX: u32 = 3;

/// An endpoint that was picked, and counts the exchange.
pub struct Picked {
    snapshot: Rc<Snapshot>,
    cluster: ClusterId,
    /// Where it is.
    pub address: SocketAddr,
    /// Its place in the table of endpoints.
    pub slot: EndpointSlot,
    _in_flight: InFlight,
}

impl Picked {
    /// The cluster that it is of.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        self.snapshot.running.table.cluster(self.cluster)
    }

    /// How connections to it are protected.
    #[must_use]
    pub fn tls(&self) -> Option<&ClusterTls> {
        self.snapshot.running.credentials.cluster(self.cluster)
    }

    /// The name that the file gives it, if that is not an address.
    fn name(&self) -> Option<&str> {
        let endpoints = self.snapshot.running.endpoints.cluster(self.cluster);
        endpoints.iter().find(|endpoint| endpoint.slot == self.slot)?.name()
    }

    /// What connections to it are made under; 0 for plaintext.
    #[must_use]
    pub fn policy(&self) -> u64 {
        self.tls().map_or(0, |tls| tls.policy)
    }
}

/// A connection to an endpoint, in use by one exchange or tunnel.
pub struct Upstream {
    worker: Rc<Worker>,
    picked: Picked,
    /// `None` only once it has been given back.
    socket: Option<Socket>,
    reused: bool,
}

impl Upstream {
    /// The connection.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        self.socket.as_ref().expect("the socket leaves with the upstream")
    }

    /// Whether it has served another exchange before.
    #[must_use]
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// Where it leads.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.picked.address
    }

    /// Puts the connection into the pool. It must have read its whole response.
    pub fn give_back(mut self) {
        let Picked { address, slot, .. } = self.picked;
        let policy = self.picked.policy();
        let cluster = self.picked.cluster();
        // A connection that began with somebody's PROXY header speaks for nobody else.
        let Some(socket) = self.socket.take().filter(|_| cluster.send_proxy_protocol.is_none())
        else {
            return;
        };
        socket.receiving().clear();
        let most = usize::try_from(cluster.pool_idle_max).unwrap_or(usize::MAX);
        let place = (slot, address, policy);
        self.worker.pool.give(place, socket, cluster.pool_idle_timeout, most);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if self.socket.is_some() {
            self.worker.shard.upstream_closed.increment();
        }
    }
}

/// Which connection will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Any open one, or a new one.
    Any,
    /// A new one.
    Fresh,
}

/// Picks an endpoint of `cluster` and gets a connection to it. When connecting fails another
/// endpoint is tried: nothing has been sent yet. No attempt goes on past `deadline_ns`.
///
/// # Errors
/// [`Cause::NoEndpoint`], [`Cause::UpstreamTimeout`] past the deadline, or the last attempt's
/// failure.
pub async fn acquire(
    worker: &Rc<Worker>,
    snapshot: &Rc<Snapshot>,
    cluster: ClusterId,
    peer: &Peer,
    want: Want,
    deadline_ns: u64,
) -> Result<Upstream, Failure> {
    let mut avoid = None;
    let mut attempt = 1;
    loop {
        let picked = pick(worker, snapshot, cluster, avoid)?;
        if want != Want::Fresh
            && let Some(socket) = pooled(worker, &picked)
        {
            worker.shard.upstream_reused.increment();
            return Ok(Upstream {
                worker: Rc::clone(worker),
                picked,
                socket: Some(socket),
                reused: true,
            });
        }
        match connect(worker, picked, peer, deadline_ns).await {
            Ok(upstream) => return Ok(upstream),
            Err((failure, slot)) => {
                worker.shard.connect_failures.increment();
                let late =
                    matches!(failure.cause, Cause::ConnectTimeout | Cause::UpstreamTlsTimeout);
                if late && now_ns() >= deadline_ns {
                    return Err(Failure { cause: Cause::UpstreamTimeout, ..failure });
                }
                if attempt == CONNECT_ATTEMPTS_MAX
                    || snapshot.running.endpoints.cluster(cluster).len() < 2
                {
                    return Err(failure);
                }
                attempt += 1;
                avoid = Some(slot);
            }
        }
    }
}

fn pooled(worker: &Worker, picked: &Picked) -> Option<Socket> {
    let Picked { slot, address, .. } = *picked;
    worker.pool.take(slot, address, picked.policy(), &worker.handshakes.live)
}

/// [`acquire`] for a tunnel: always a new connection.
///
/// # Errors
/// As [`acquire`].
pub async fn open(
    worker: &Rc<Worker>,
    snapshot: &Rc<Snapshot>,
    cluster: ClusterId,
    peer: &Peer,
) -> Result<Upstream, Failure> {
    acquire(worker, snapshot, cluster, peer, Want::Fresh, u64::MAX).await
}

/// Picks an endpoint of `cluster`, another than `avoid` if there is one.
///
/// # Errors
/// [`Cause::NoEndpoint`].
pub fn pick(
    worker: &Worker,
    snapshot: &Rc<Snapshot>,
    cluster: ClusterId,
    avoid: Option<EndpointSlot>,
) -> Result<Picked, Failure> {
    let running = &snapshot.running;
    let config = running.table.cluster(cluster);
    let cursor = &snapshot.cursors[cluster.index()];
    let mut turn = cursor.get();
    let draw = worker.random();
    let endpoint = running.endpoints.pick(cluster, config.balance, &mut turn, draw, avoid);
    cursor.set(turn);
    let endpoint = endpoint.ok_or_else(|| {
        Failure::with(Cause::NoEndpoint, format_args!("cluster `{}`", config.name))
    })?;
    Ok(Picked {
        snapshot: Rc::clone(snapshot),
        cluster,
        address: endpoint.address,
        slot: endpoint.slot,
        _in_flight: endpoint.begin(),
    })
}

async fn connect(
    worker: &Rc<Worker>,
    picked: Picked,
    peer: &Peer,
    deadline_ns: u64,
) -> Result<Upstream, (Failure, EndpointSlot)> {
    match establish(worker, &picked, peer, deadline_ns).await {
        Ok(socket) => {
            let worker = Rc::clone(worker);
            Ok(Upstream { worker, picked, socket: Some(socket), reused: false })
        }
        Err(failure) => Err((failure, picked.slot)),
    }
}

/// A new connection to an endpoint, protected as its cluster asks for.
///
/// # Errors
/// Why there is none; nothing has been sent but a PROXY header.
pub async fn establish(
    worker: &Rc<Worker>,
    picked: &Picked,
    peer: &Peer,
    deadline_ns: u64,
) -> Result<Socket, Failure> {
    let address = picked.address;
    let cluster = picked.cluster();
    let left = Duration::from_nanos(deadline_ns.saturating_sub(now_ns()));
    let timeout = cluster.connect_timeout.min(left);
    // One time for all: the connection, its PROXY header and its handshake.
    let due_ns = after(now_ns(), timeout);
    let version = cluster.send_proxy_protocol;
    let failed = |error: io::Error| {
        let cause = match error.kind() {
            io::ErrorKind::TimedOut => Cause::ConnectTimeout,
            _ => Cause::ConnectFailed,
        };
        Failure::with(cause, format_args!("{address}: {error}"))
    };
    let socket = Socket::connect(address, timeout, &worker.deadlines).await.map_err(failed)?;
    worker.shard.upstream_opened.increment();
    if let Some(version) = version {
        let mut header = Block::small();
        let local = peer.destination.unwrap_or(address);
        let fits = header.push(&proxy_protocol::write(version, peer.address, local));
        debug_assert!(fits, "a PROXY header fits in a block");
        if let (Err(error), _) = socket.send_until(header, due_ns).await {
            worker.shard.upstream_closed.increment();
            return Err(failed(error));
        }
    }
    let socket = match picked.tls() {
        None => socket,
        Some(tls) => {
            // On the heap: it is rare, and its state large.
            let protected = Box::pin(protect(worker, socket, tls, picked, due_ns)).await;
            protected.map_err(|failure| {
                worker.shard.upstream_closed.increment();
                let detail = failure.detail.as_deref().unwrap_or_default();
                let (cause, separator) = (failure.cause, if detail.is_empty() { "" } else { ": " });
                Failure::with(cause, format_args!("{address}{separator}{detail}"))
            })?
        }
    };
    Ok(socket)
}

/// TLS with the endpoint that was picked.
async fn protect(
    worker: &Worker,
    socket: Socket,
    tls: &ClusterTls,
    picked: &Picked,
    due_ns: u64,
) -> Result<Socket, Failure> {
    let client = worker.sessions.client(tls, picked.address);
    let named = picked.name().filter(|_| tls.names_endpoints);
    let named = named.and_then(|name| ServerName::try_from(name.to_owned()).ok());
    let name = tls.name.as_ref().or(named.as_ref());
    let end = handshake::End {
        worker,
        side: handshake::Side::Upstream,
        generation: picked.snapshot.running.generation,
        due_ns,
    };
    handshake::connect(end, socket, &client, name, picked.address).await
}
