//! A connection from a client, from accept to the protocol that serves it.
//!
//! ```text
//! Accepted ─▶ prepare: [PROXY header] ─▶ [TLS] ─▶ [detect] ─▶ Prepared
//!                                                                │
//!                           Idle ◀──▶ http1::connection ◀──┴──▶ http2::server, tunnel
//! ```

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;

use arrayvec::ArrayString;
use ringway_router::{Listener, ListenerId, Protocol};
use ringway_stats::clock::now_ns;
use ringway_tls::Alpn;
use rustix::net::getsockname;
use std::fmt::Write;

use crate::detect::{Detected, Ended, Found, Patience, detect};
use crate::http1;
use crate::http1::connection::{Connection, UNSET};
use crate::http2;
use crate::io::deadlines::after;
use crate::io::pacing;
use crate::io::resting::Resting;
use crate::io::socket::{Arrival, Socket};
use crate::outcome::{Cause, Failure};
use crate::passthrough;
use crate::proxy_protocol;
use crate::shared::{Accepted, Instance};
use crate::sys::block::Block;
use crate::tls::admit::{Admitted, Rejected, admit};
use crate::tls::peer::TlsPeer;
use crate::tunnel;
use crate::upstream::Upstream;
use crate::worker::{Snapshot, Worker};

/// Longest text of an IP address.
const ADDRESS_TEXT_BYTES: usize = 45;

/// Who is at the other end, as far as we know.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The client: the address of the connection, or what a PROXY header says.
    pub address: SocketAddr,
    /// The address that the client wanted, where a PROXY header says so.
    pub destination: Option<SocketAddr>,
    /// The IP address of the connection itself, which `trusted_proxies` is about.
    pub hop: IpAddr,
    /// The client's IP address as text.
    pub text: ArrayString<ADDRESS_TEXT_BYTES>,
    /// What its TLS handshake told, if it speaks TLS.
    pub tls: Option<Rc<TlsPeer>>,
}

impl Peer {
    /// A peer that nobody has spoken for.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        // An IPv4 client of an IPv6 listener is an IPv4 client.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let mut text = ArrayString::new();
        let written = write!(text, "{}", address.ip());
        debug_assert!(written.is_ok(), "an address fits");
        Self { address, destination: None, hop: address.ip(), text, tls: None }
    }

    /// Whether it has proved to be a member of the mesh.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.identity.is_some())
    }

    fn spoken_for(self, source: SocketAddr, destination: SocketAddr) -> Self {
        Self { destination: Some(destination), hop: self.hop, ..Self::new(source) }
    }
}

/// What serves a connection.
pub enum Prepared {
    /// Requests are read from it.
    Http1 {
        /// The connection.
        connection: Box<Connection>,
        /// What the client has sent already.
        early: Option<Block>,
    },
    /// It is served to its end: a tunnel, or HTTP/2. On the heap, so that the task of an HTTP/1.1
    /// connection is not as large.
    ToTheEnd(Pin<Box<dyn Future<Output = ()>>>),
}

/// A connection between requests, out of the runtime.
pub struct Idle {
    /// The connection.
    pub resting: Resting,
    /// Who is at the other end.
    pub peer: Peer,
    /// The listening instance that it came in by.
    pub instance: Instance,
    /// Whether a request has come on it.
    pub served: bool,
    /// When it has reached its greatest age, on the clock of `now_ns`.
    pub retire_ns: u64,
    /// When it is closed if nothing comes, on the clock of `now_ns`.
    pub due_ns: u64,
}

impl Idle {
    /// Takes it up again.
    #[must_use]
    pub fn resume(self, worker: &Rc<Worker>) -> Option<Prepared> {
        let Self { resting, peer, instance, served, retire_ns, due_ns } = self;
        let socket = Socket::awake(resting, &worker.deadlines, &worker.handshakes.live).ok()?;
        let (worker, served, due_ns) = (Rc::clone(worker), Cell::new(served), Cell::new(due_ns));
        let connection = Connection { worker, socket, peer, instance, served, due_ns, retire_ns };
        Some(Prepared::Http1 { connection: Box::new(connection), early: None })
    }
}

/// Serves a connection until it is to be parked, or to its end.
pub async fn serve(prepared: impl Future<Output = Option<Prepared>>) -> Option<Idle> {
    match prepared.await? {
        Prepared::Http1 { connection, early } => http1::connection::serve(connection, early).await,
        Prepared::ToTheEnd(served) => {
            served.await;
            None
        }
    }
}

/// Finds out what serves a connection. `None` when nothing does.
pub async fn prepare(worker: Rc<Worker>, accepted: Accepted) -> Option<Prepared> {
    let Accepted { fd, peer, instance } = accepted;
    let (snapshot, listener) = worker.table_for(instance)?;
    let Ok(socket) = Socket::new(fd, &worker.deadlines) else {
        worker.shard.record_cause(Cause::Descriptors);
        return None;
    };
    pacing::on_accepted(socket.fd(), peer);
    let config = snapshot.running.table.listener(listener);
    let protocol = config.protocol;
    let over =
        config.max_connections.is_some_and(|most| worker.open_of(instance) > u64::from(most));
    if over {
        worker.shard.record_cause(Cause::Overloaded);
        // Inside TLS nothing can be said before a handshake, which is what there is no room for.
        let spoken = if config.tls.is_some() { Protocol::Tcp } else { protocol };
        refuse(&worker, socket, spoken, Cause::Overloaded.into()).await;
        return None;
    }
    let mut peer = Peer::new(peer);
    let mut early = None;
    if config.accept_proxy_protocol {
        match proxy_header(&socket, config.head_timeout).await {
            Ok((addresses, block)) => {
                if let Some((source, destination)) = addresses {
                    peer = peer.spoken_for(source, destination);
                }
                early = Some(block);
            }
            Err(failure) => {
                turned_away(&worker, &peer, &failure);
                return None;
            }
        }
    }
    let mut socket = socket;
    if let Some(server) = snapshot.running.credentials.listener(listener) {
        let generation = snapshot.running.generation;
        let admitted = admit(&worker, socket, early.take(), config, server, generation).await;
        Admitted { socket, early } =
            admitted_or_answered(&worker, &peer, protocol, admitted).await?;
        peer.tls = socket.tls().map(|layer| Rc::clone(layer.peer()));
        if peer.tls.is_none() {
            worker.count_plaintext(instance, peer.address.ip());
        }
    }
    if protocol != Protocol::Http1 {
        peer.destination = peer.destination.or_else(|| local_address(&socket));
    }
    let mut serves = Serves::by_config(protocol);
    let mut ahead = None;
    if protocol == Protocol::Auto {
        let found = Box::pin(find_out(&worker, &snapshot, (&socket, &peer), early, config)).await;
        let Detected { found, early: block, upstream } = found_or_ended(&worker, &peer, found)?;
        worker.count_found(instance, found);
        (early, ahead) = (Some(block), upstream);
        serves = Serves::by_finding(found, config);
    }
    let known = Known { socket, peer, instance, early, ahead };
    known.served_by(serves, worker, (Rc::clone(&snapshot), listener))
}

/// A connection of which everything is known that decides what serves it.
struct Known {
    socket: Socket,
    peer: Peer,
    instance: Instance,
    early: Option<Block>,
    ahead: Option<Upstream>,
}

impl Known {
    /// What serves it; `None` if nothing does.
    fn served_by(
        self,
        serves: Serves,
        worker: Rc<Worker>,
        table: (Rc<Snapshot>, ListenerId),
    ) -> Option<Prepared> {
        let Self { socket, peer, instance, early, ahead } = self;
        let snapshot = Rc::clone(&table.0);
        let config = snapshot.running.table.listener(table.1);
        let retire_ns = retire_ns(&worker, config);
        if serves == Serves::Http2 {
            let served = http2::server::serve(worker, socket, peer, instance, early, retire_ns);
            return Some(Prepared::ToTheEnd(Box::pin(served)));
        }
        if serves == Serves::Http1 {
            let (served, due_ns) = (Cell::new(false), Cell::new(UNSET));
            let connection =
                Connection { worker, socket, peer, instance, served, due_ns, retire_ns };
            let early = early.filter(|block| !block.is_empty());
            return Some(Prepared::Http1 { connection: Box::new(connection), early });
        }
        let early = early.unwrap_or_else(Block::small);
        if serves == Serves::ByName {
            let carried = passthrough::serve(worker, socket, peer, table, early);
            return Some(Prepared::ToTheEnd(Box::pin(carried)));
        }
        let Some(cluster) = config.cluster else {
            turned_away(&worker, &peer, &Cause::UnknownProtocol.into());
            socket.abort();
            return None;
        };
        let carried = tunnel::serve(worker, socket, peer, table, (cluster, ahead), early);
        Some(Prepared::ToTheEnd(Box::pin(carried)))
    }
}

/// When a connection has reached its greatest age: up to a tenth earlier, so that those which came
/// together do not all go together.
fn retire_ns(worker: &Worker, config: &Listener) -> u64 {
    config.max_connection_age.map_or(u64::MAX, |age| {
        let spread = u64::try_from(age.as_nanos() / 10).unwrap_or(u64::MAX);
        after(now_ns(), age) - worker.random() % spread.max(1)
    })
}

/// What serves a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serves {
    Http1,
    Http2,
    Tunnel,
    ByName,
}

impl Serves {
    fn by_config(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http1 => Self::Http1,
            Protocol::Http2 => Self::Http2,
            Protocol::Tcp | Protocol::Auto => Self::Tunnel,
            Protocol::TlsPassthrough => Self::ByName,
        }
    }

    fn by_finding(found: Found, config: &Listener) -> Self {
        match found {
            Found::Http1 => Self::Http1,
            Found::Http2 => Self::Http2,
            // Where TLS is ended, TLS inside of it is nobody's business.
            Found::Tls if config.tls.is_none() => Self::ByName,
            Found::Tls | Found::Opaque | Found::ServerFirst | Found::Undecided => Self::Tunnel,
        }
    }
}

/// Finds out what a client speaks: by what was agreed on in its handshake, else by what is said.
async fn find_out(
    worker: &Rc<Worker>,
    snapshot: &Rc<Snapshot>,
    (socket, peer): (&Socket, &Peer),
    early: Option<Block>,
    config: &Listener,
) -> Result<Detected, Ended> {
    let early = early.unwrap_or_else(Block::small);
    let agreed = peer.tls.as_ref().and_then(|tls| tls.alpn).map(|alpn| match alpn {
        Alpn::Http1 => Found::Http1,
        Alpn::H2 => Found::Http2,
    });
    if let Some(found) = agreed {
        return Ok(Detected { found, early, upstream: None });
    }
    let patience = Patience { undecided: config.head_timeout, silence: config.idle_timeout };
    detect(worker, snapshot, (socket, peer), early, config.cluster, patience).await
}

fn found_or_ended(
    worker: &Worker,
    peer: &Peer,
    found: Result<Detected, Ended>,
) -> Option<Detected> {
    match found {
        Ok(detected) => return Some(detected),
        Err(Ended::Unused) => {}
        Err(Ended::Failed(failure)) => turned_away(worker, peer, &failure),
    }
    None
}

/// The connection, or `None` for one that was rejected: it is recorded, and told in plaintext where
/// that is what it speaks.
async fn admitted_or_answered(
    worker: &Rc<Worker>,
    peer: &Peer,
    protocol: Protocol,
    admitted: Result<Admitted, Rejected>,
) -> Option<Admitted> {
    match admitted {
        Ok(admitted) => return Some(admitted),
        Err(Rejected::Unused) => {}
        Err(Rejected::Failed(failure)) => turned_away(worker, peer, &failure),
        Err(Rejected::Plaintext(socket)) => {
            let failure = Cause::ClientPlaintext.into();
            turned_away(worker, peer, &failure);
            refuse(worker, socket, protocol, failure).await;
        }
    }
    None
}

/// Records a connection that does not come as far as a protocol.
fn turned_away(worker: &Worker, peer: &Peer, failure: &Failure) {
    tracing::debug!(cause = failure.cause.label(), peer = %peer.address, "{failure}");
    worker.shard.record_cause(failure.cause);
}

fn local_address(socket: &Socket) -> Option<SocketAddr> {
    getsockname(socket.fd()).ok().and_then(|address| SocketAddr::try_from(address).ok())
}

/// Answers a connection that is not served, where its protocol has words for it.
async fn refuse(worker: &Rc<Worker>, socket: Socket, protocol: Protocol, failure: Failure) {
    if protocol == Protocol::Http1 {
        http1::connection::turn_away(worker, socket, &failure).await;
    } else {
        socket.abort();
    }
}

type Header = (Option<(SocketAddr, SocketAddr)>, Block);

/// Reads the PROXY header, and what came behind it.
async fn proxy_header(socket: &Socket, timeout: std::time::Duration) -> Result<Header, Failure> {
    let due_ns = after(now_ns(), timeout);
    let mut block = Block::small();
    loop {
        block = match socket.recv_until(block, due_ns).await {
            Arrival::Data(block) => block,
            Arrival::End(_) | Arrival::Broken(_) => return Err(Cause::ClientClosed.into()),
            Arrival::Silence(_) => return Err(Cause::RequestTimeout.into()),
        };
        match proxy_protocol::parse(block.data()) {
            Ok(Some(header)) => {
                block.consume(header.length);
                // Whoever comes next wants room for as much as a block has.
                block.compact();
                return Ok((header.addresses, block));
            }
            Ok(None) => {}
            Err(fault) => return Err(Failure::with(Cause::ProxyHeader, fault)),
        }
    }
}
