//! What the threads of the process share, and how a table reaches the workers.
//!
//! ```text
//! control ── publish ──▶ current: Arc<Running>, generation ──▶ worker: Rc<Running> per exchange
//! ```
//!
//! # Invariants
//! - A worker looks at the generation between requests, never within one: an exchange keeps the
//!   table that it began with.
//! - The only things that several threads write are here: the generation, the drain flag, the
//!   load of each worker, and the endpoints' load cells inside the table.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::utils::CachePadded;
use ringway_router::{EndpointTable, ListenerId, Table};

use crate::io::backend::Backend;
use crate::limits::PLAINTEXT_PEERS_MAX;
use crate::recorder::Shard;
use crate::sample::Reservoir;
use crate::tls::credentials::Credentials;
use crate::worker::mailbox::Mailbox;

/// A table in use: the decisions, the endpoints, and where their series are.
pub struct Running {
    /// Counts the tables published since the start.
    pub generation: u64,
    /// The decisions.
    pub table: Arc<Table>,
    /// Where the clusters' endpoints are now.
    pub endpoints: EndpointTable,
    /// Series of each route, by `RouteId`.
    pub route_series: Box<[u32]>,
    /// Series of each cluster, by `ClusterId`.
    pub cluster_series: Box<[u32]>,
    /// What TLS connections are made with.
    pub credentials: Arc<Credentials>,
    /// The listener of the table that each listening instance serves, by instance.
    pub listener_of: Box<[Option<ListenerId>]>,
}

/// A listening address that has been bound, for as long as it is. It keeps its number while the
/// table around it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instance(pub u32);

impl Running {
    /// The same with other `endpoints`, as the next generation.
    #[must_use]
    pub fn successor(&self, endpoints: EndpointTable) -> Self {
        Self {
            generation: self.generation + 1,
            table: Arc::clone(&self.table),
            endpoints,
            route_series: self.route_series.clone(),
            cluster_series: self.cluster_series.clone(),
            credentials: Arc::clone(&self.credentials),
            listener_of: self.listener_of.clone(),
        }
    }

    /// The listener that `instance` serves; `None` once the table has dropped it.
    #[must_use]
    pub fn listener(&self, instance: Instance) -> Option<ListenerId> {
        self.listener_of.get(instance.0 as usize).copied().flatten()
    }
}

/// What a worker is reached by.
pub struct Seat {
    /// Its messages.
    pub mailbox: Mailbox,
    /// Its counters.
    pub shard: Arc<Shard>,
    /// Connections that it has.
    pub load: CachePadded<AtomicU32>,
    /// Who connects in plaintext where TLS is spoken too.
    pub plaintext: PlaintextPeers,
    /// Requests that it has routed; none unless the file wants it.
    pub samples: Reservoir,
}

/// Connections in plaintext to listeners that speak TLS too, by series of the listener and address
/// of the client. Written by one worker, once for each such connection; read by the admin thread.
#[derive(Debug, Default)]
pub struct PlaintextPeers(Mutex<PlaintextCounts>);

/// The counts of [`PlaintextPeers`].
#[derive(Debug, Default, Clone)]
pub struct PlaintextCounts {
    /// By listener and address.
    pub peers: BTreeMap<(u32, IpAddr), u64>,
    /// Those of addresses beyond [`PLAINTEXT_PEERS_MAX`], by listener.
    pub others: BTreeMap<u32, u64>,
}

impl PlaintextPeers {
    /// Counts a connection.
    pub fn count(&self, listener: u32, address: IpAddr) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = counts.peers.contains_key(&(listener, address));
        if known || counts.peers.len() < PLAINTEXT_PEERS_MAX {
            *counts.peers.entry((listener, address)).or_default() += 1;
        } else {
            *counts.others.entry(listener).or_default() += 1;
        }
    }

    /// The counts now.
    #[must_use]
    pub fn counts(&self) -> PlaintextCounts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The process.
pub struct Shared {
    /// What moves the bytes.
    pub backend: Backend,
    /// One seat for each worker.
    pub seats: Vec<Seat>,
    generation: AtomicU64,
    current: Mutex<Arc<Running>>,
    draining: AtomicBool,
}

impl Shared {
    /// A process with `seats`, about to use `first`.
    #[must_use]
    pub fn new(backend: Backend, seats: Vec<Seat>, first: Running) -> Self {
        Self {
            backend,
            seats,
            generation: AtomicU64::new(first.generation),
            current: Mutex::new(Arc::new(first)),
            draining: AtomicBool::new(false),
        }
    }

    /// The number of the table in use.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// The table in use.
    #[must_use]
    pub fn current(&self) -> Arc<Running> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts `next` in place. Workers take it before their next request.
    pub fn publish(&self, next: Running) {
        let generation = next.generation;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// Whether the process is on its way out.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Says that the process is on its way out: connections end after their next response.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Connections that clients have open.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        self.seats.iter().map(|seat| u64::from(seat.load.load(Ordering::Relaxed))).sum()
    }
}

/// A connection that was accepted, on its way to a worker.
#[derive(Debug)]
pub struct Accepted {
    /// The socket.
    pub fd: std::os::fd::OwnedFd,
    /// The address it comes from.
    pub peer: SocketAddr,
    /// The listening instance that it came in by.
    pub instance: Instance,
}
