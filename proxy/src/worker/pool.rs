//! Idle connections to endpoints, kept by one worker for its own use.
//!
//! # Invariants
//! - A connection in the pool has had its whole response read and owes nothing to anybody.
//! - Bytes or an end seen on an idle connection take it out: what comes without a request belongs
//!   to no exchange.
//! - Last in, first out: under light load the surplus grows old and is closed.
//! - What has been idle for long is a descriptor and nothing else.
//!
//! # Not here
//! The retry when a connection dies just as it is used: `http1::exchange`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringway_router::EndpointSlot;
use ringway_stats::clock::now_ns;

use crate::io::deadlines::{Deadlines, after};
use crate::io::notify::Notify;
use crate::io::resting::{Glimpse, Resting};
use crate::io::socket::Socket;
use crate::limits::{POOLED_UPSTREAMS_MAX, QUIET_TIME};
use crate::recorder::Shard;
use crate::tls::live::Register;
use crate::tls::peer::TlsPeer;

/// A pooled connection's socket.
enum Kept {
    /// As it was used last: the next exchange allocates nothing.
    Ready(Socket),
    /// Out of the runtime, because it was idle for long.
    Resting(Resting),
    /// On its way from the one to the other.
    Gone,
}

impl Kept {
    fn glimpse(&self) -> Glimpse {
        match self {
            Self::Ready(socket) => socket.glimpse_inside(),
            Self::Resting(resting) => resting.glimpse_inside(),
            Self::Gone => Glimpse::Broken,
        }
    }

    /// Lets go of all but the descriptor and its protection. Without another descriptor to be had
    /// it stays as it is.
    fn rest(&mut self) {
        *self = match std::mem::replace(self, Self::Gone) {
            Self::Ready(socket) => match socket.rest() {
                Ok(resting) => Self::Resting(resting),
                Err(socket) => Self::Ready(socket),
            },
            other => other,
        };
    }

    fn wake(self, deadlines: &Rc<Deadlines>, live: &Rc<Register>) -> Option<Socket> {
        match self {
            Self::Ready(socket) => Some(socket),
            Self::Resting(resting) => Socket::awake(resting, deadlines, live).ok(),
            Self::Gone => None,
        }
    }

    fn tls_peer(&self) -> Option<&TlsPeer> {
        let layer = match self {
            Self::Ready(socket) => socket.tls(),
            Self::Resting(resting) => resting.tls(),
            Self::Gone => None,
        };
        layer.map(|layer| &**layer.peer())
    }

    fn close(self) {
        if let Self::Resting(resting) = self {
            resting.close();
        }
    }
}

struct Pooled {
    socket: Kept,
    address: SocketAddr,
    /// What it was made under (`ClusterTls::policy`); 0 for plaintext.
    policy: u64,
    since_ns: u64,
    until_ns: u64,
}

/// The idle connections of one worker.
pub struct Pool {
    /// By slot of the endpoint.
    shelves: RefCell<Vec<VecDeque<Pooled>>>,
    total: Cell<usize>,
    filled: Notify,
    deadlines: Rc<Deadlines>,
    shard: Arc<Shard>,
}

/// How often the pool is looked through.
const EVICTION_INTERVAL: Duration = Duration::from_millis(200);

impl Pool {
    /// An empty pool that counts in `shard`.
    #[must_use]
    pub fn new(shard: Arc<Shard>, deadlines: Rc<Deadlines>) -> Self {
        let (shelves, filled) = (RefCell::default(), Notify::default());
        Self { shelves, total: Cell::new(0), filled, deadlines, shard }
    }

    /// An open connection to the endpoint at `address`.
    ///
    /// It is looked at first, however short it was idle: a system call (0.4 us here) that keeps a
    /// second response, which may follow the first by microseconds, from answering the next
    /// request.
    #[must_use]
    pub fn take(
        &self,
        slot: EndpointSlot,
        address: SocketAddr,
        policy: u64,
        live: &Rc<Register>,
    ) -> Option<Socket> {
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.get_mut(slot.index())?;
        let now = now_ns();
        while let Some(pooled) = shelf.pop_back() {
            self.count(-1);
            let usable = pooled.address == address
                && pooled.policy == policy
                && now < pooled.until_ns
                && pooled.socket.glimpse() == Glimpse::Nothing;
            if !usable {
                pooled.socket.close();
            } else if let Some(socket) = pooled.socket.wake(&self.deadlines, live) {
                return Some(socket);
            }
            self.closed();
        }
        None
    }

    /// Keeps `socket`, made under `policy`, for `idle`, unless the endpoint has `most` already.
    pub fn give(
        &self,
        (slot, address, policy): (EndpointSlot, SocketAddr, u64),
        socket: Socket,
        idle: Duration,
        most: usize,
    ) {
        let mut shelves = self.shelves.borrow_mut();
        let slot = slot.index();
        if shelves.len() <= slot {
            shelves.resize_with(slot + 1, VecDeque::new);
        }
        let shelf = &mut shelves[slot];
        if shelf.len() >= most || self.total.get() >= POOLED_UPSTREAMS_MAX {
            self.closed();
            return;
        }
        let since_ns = now_ns();
        let until_ns = after(since_ns, idle);
        let socket = Kept::Ready(socket);
        shelf.push_back(Pooled { socket, address, policy, since_ns, until_ns });
        self.count(1);
        self.filled.notify();
    }

    /// Closes what is too old or was closed by the endpoint. A task that runs as long as the
    /// worker does.
    pub async fn evict_forever(self: Rc<Self>) {
        loop {
            self.filled.wait().await;
            monoio::time::sleep(EVICTION_INTERVAL).await;
            self.evict();
            if self.total.get() > 0 {
                self.filled.notify();
            }
        }
    }

    fn evict(&self) {
        let now = now_ns();
        let interval = EVICTION_INTERVAL.as_nanos() as u64;
        for shelf in self.shelves.borrow_mut().iter_mut() {
            shelf.retain_mut(|pooled| {
                let settled = now.saturating_sub(pooled.since_ns) >= interval;
                if now.saturating_sub(pooled.since_ns) >= QUIET_TIME.as_nanos() as u64 {
                    pooled.socket.rest();
                }
                let keep = now < pooled.until_ns
                    && !(settled && pooled.socket.glimpse() != Glimpse::Nothing);
                if !keep {
                    std::mem::replace(&mut pooled.socket, Kept::Gone).close();
                    self.count(-1);
                    self.closed();
                }
                keep
            });
            if shelf.is_empty() && shelf.capacity() > 64 {
                shelf.shrink_to_fit();
            }
        }
    }

    /// Closes every protected connection whose peer is not `trusted`. Returns how many.
    pub fn cut(&self, trusted: impl Fn(&TlsPeer) -> bool) -> u64 {
        let mut cut = 0;
        for shelf in self.shelves.borrow_mut().iter_mut() {
            shelf.retain(|pooled| {
                let keep = match pooled.socket.tls_peer() {
                    Some(peer) if peer.identity.is_some() => trusted(peer),
                    _ => true,
                };
                if !keep {
                    cut += 1;
                    self.count(-1);
                    self.closed();
                }
                keep
            });
        }
        cut
    }

    /// Closes everything.
    pub fn clear(&self) {
        for shelf in self.shelves.borrow_mut().iter_mut() {
            for pooled in shelf.drain(..) {
                pooled.socket.close();
                self.count(-1);
                self.closed();
            }
        }
    }

    fn count(&self, change: i64) {
        self.total.set(self.total.get().saturating_add_signed(change as isize));
        self.shard.pooled.add(change);
    }

    fn closed(&self) {
        self.shard.upstream_closed.increment();
    }
}
