//! Endpoints: the addresses behind a table's clusters, which change with name resolution without a
//! new table.
//!
//! ```text
//! Table ──────┐
//! Addresses ──┼──build──▶ EndpointTable ──pick──▶ Endpoint { address, slot, load }
//! previous ───┘
//! ```
//!
//! The load of an endpoint is one cache line that all workers share. It and the slot go from one
//! table to the next as long as the endpoint has the same cluster name, address and host name: a
//! connection made for one name is not reused for another.
//!
//! # Invariants
//! - A slot belongs to one endpoint at a time. It is given to another one only when nobody holds
//!   the [`EndpointLoad`] of the old one any more: no table, no exchange ([`InFlight`]), no pooled
//!   connection that keeps the `Arc`.
//! - Endpoints of a cluster are in the order of the file, each address once.
//! - Choosing takes no lock and does not allocate.
//!
//! # Not here
//! Health: every endpoint with a weight can be chosen.

mod slots;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::config::{Balance, Discovery};
use crate::limits::{ADDRESSES_MAX, ENDPOINTS_MAX, WEIGHT_MAX};
use crate::table::{Cluster, ClusterId, Table};
use slots::SlotList;

/// A number of an endpoint in the process, dense: usable as index into a worker's pools. At most
/// [`SLOTS_MAX`](crate::limits::SLOTS_MAX).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct EndpointSlot(u32);

impl EndpointSlot {
    /// The number.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What all workers know of an endpoint: one cache line, of which only atomics change.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct EndpointLoad {
    in_flight: AtomicU32,
    /// Here and not in [`Endpoint`], which is read for every exchange; it is needed for a new
    /// connection only.
    name: Option<Arc<str>>,
}

impl EndpointLoad {
    /// Exchanges in flight, over all workers.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts an exchange that begins; [`EndpointLoad::end`] must follow.
    #[inline]
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an exchange that ended.
    #[inline]
    pub fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An exchange in flight; dropping it ends it.
#[derive(Debug)]
pub struct InFlight(Arc<EndpointLoad>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A member of a cluster at one address.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where it is.
    pub address: SocketAddr,
    /// Its number in the process.
    pub slot: EndpointSlot,
    /// Its load, shared by all workers.
    pub load: Arc<EndpointLoad>,
    /// Share in proportion to the others; 0 is never chosen.
    pub weight: u32,
}

impl Endpoint {
    /// The name that the file gives it, without the port and a dot at its end; `None` if the file
    /// has its address.
    pub fn name(&self) -> Option<&str> {
        self.load.name.as_deref()
    }

    /// Counts an exchange until the guard is dropped.
    #[inline]
    pub fn begin(&self) -> InFlight {
        self.load.begin();
        InFlight(Arc::clone(&self.load))
    }
}

/// What names resolve to, where the last answer that had an address stays, and what the pusher says
/// of clusters.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    known: HashMap<Box<str>, Vec<SocketAddr>>,
    /// Addresses and weights by cluster.
    pushed: HashMap<Box<str>, Vec<(SocketAddr, u32)>>,
}

impl Addresses {
    /// Nothing known yet.
    pub fn new() -> Addresses {
        Addresses::default()
    }

    /// Every `name:port` of the table that must be resolved, each once, in the order of the file.
    pub fn names(table: &Table) -> Vec<&str> {
        let mut seen = std::collections::HashSet::new();
        let endpoints = table.clusters().iter().flat_map(|cluster| &cluster.endpoints);
        let names = endpoints.filter(|endpoint| endpoint.literal.is_none());
        names.map(|endpoint| &*endpoint.address).filter(|name| seen.insert(*name)).collect()
    }

    /// Takes the answer for a `name:port`; at most [`ADDRESSES_MAX`] of it. An empty answer leaves
    /// the last one in place. Gives whether anything changed; order does not count.
    pub fn resolved(&mut self, name: &str, mut addresses: Vec<SocketAddr>) -> bool {
        if addresses.is_empty() {
            return false;
        }
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        if self.known.get(name) == Some(&addresses) {
            return false;
        }
        self.known.insert(name.into(), addresses);
        true
    }

    /// What a `name:port` resolves to; empty if it never did.
    pub fn of(&self, name: &str) -> &[SocketAddr] {
        self.known.get(name).map_or(&[], Vec::as_slice)
    }

    /// Takes the endpoints, addresses with weights, of a cluster that has them from the pusher; at
    /// most [`ENDPOINTS_MAX`]. They may come before the cluster itself. Gives whether anything
    /// changed.
    pub fn pushed(&mut self, cluster: &str, mut members: Vec<(SocketAddr, u32)>) -> bool {
        members.truncate(ENDPOINTS_MAX);
        for (_, weight) in &mut members {
            *weight = (*weight).min(WEIGHT_MAX);
        }
        if self.pushed.get(cluster).map_or(&[][..], Vec::as_slice) == members {
            return false;
        }
        self.pushed.insert(cluster.into(), members);
        true
    }

    /// Forgets the pushed endpoints of clusters that `keep` does not hold for. Gives whether there
    /// were any.
    pub fn retain_pushed(&mut self, mut keep: impl FnMut(&str) -> bool) -> bool {
        let before = self.pushed.len();
        self.pushed.retain(|cluster, _| keep(cluster));
        self.pushed.len() != before
    }

    /// Forgets names that the table does not have.
    pub fn retain(&mut self, table: &Table) {
        let names: std::collections::HashSet<&str> = Addresses::names(table).into_iter().collect();
        self.known.retain(|name, _| names.contains(&**name));
    }
}

/// The endpoints of one cluster.
#[derive(Debug)]
struct Members {
    name: Box<str>,
    endpoints: Box<[Endpoint]>,
    /// For each endpoint the sum of the weights up to and including its own; empty if all are 1.
    sums: Box<[u64]>,
    /// Sum of all weights.
    total: u64,
    /// Step of the round robin: coprime to `total`, so that a turn visits each place once, heavy
    /// endpoints spread out.
    step: u64,
}

impl Members {
    fn new(name: &str, endpoints: Vec<Endpoint>) -> Members {
        let mut total = 0;
        let mut sums: Vec<u64> = Vec::with_capacity(endpoints.len());
        for endpoint in &endpoints {
            total += u64::from(endpoint.weight);
            sums.push(total);
        }
        let equal = endpoints.iter().all(|endpoint| endpoint.weight == 1);
        Members {
            name: name.into(),
            endpoints: endpoints.into(),
            sums: if equal { Box::default() } else { sums.into() },
            total,
            step: if equal { 1 } else { golden_step(total) },
        }
    }

    /// The endpoint whose share `point`, below `total`, falls in.
    #[inline]
    fn at(&self, point: u64) -> usize {
        match self.sums.is_empty() {
            true => point as usize,
            false => self.sums.partition_point(|sum| *sum <= point),
        }
    }

    /// The next endpoint after `index` that has a weight.
    #[inline]
    fn after(&self, index: usize) -> usize {
        let (before, from) = self.endpoints.split_at(index + 1);
        let weighted = |endpoint: &Endpoint| endpoint.weight > 0;
        let next = from.iter().position(weighted).map(|next| index + 1 + next);
        next.or_else(|| before.iter().position(weighted)).unwrap_or(index)
    }

    fn round_robin(&self, cursor: &mut u32, avoid: Option<EndpointSlot>) -> &Endpoint {
        let turn = u64::from(*cursor) % self.total;
        *cursor = cursor.wrapping_add(1);
        let index =
            self.at((u128::from(turn) * u128::from(self.step) % u128::from(self.total)) as u64);
        let chosen = &self.endpoints[index];
        match avoid {
            Some(avoid) if avoid == chosen.slot => &self.endpoints[self.after(index)],
            _ => chosen,
        }
    }

    fn least_request(&self, draw: u64, avoid: Option<EndpointSlot>) -> &Endpoint {
        // Multiply-shift maps 32 random bits onto 0..total without a division; total is below 2^41.
        let point = |bits: u32| ((u128::from(bits) * u128::from(self.total)) >> 32) as u64;
        let first = self.at(point(draw as u32));
        let mut second = self.at(point((draw >> 32) as u32));
        if second == first {
            second = self.after(first);
        }
        let (first, second) = (&self.endpoints[first], &self.endpoints[second]);
        if avoid == Some(first.slot) {
            return second;
        }
        if avoid == Some(second.slot) {
            return first;
        }
        // Load per weight, counting this exchange; compared crosswise to stay in integers.
        let burden = |one: &Endpoint, other: &Endpoint| {
            (u64::from(one.load.in_flight()) + 1) * u64::from(other.weight)
        };
        if burden(second, first) < burden(first, second) { second } else { first }
    }
}

/// A number near `total` times the golden ratio that has no factor in common with it.
fn golden_step(total: u64) -> u64 {
    let start = (total as f64 * 0.618_033_988_749_895) as u64;
    let coprime = |step: &u64| gcd(*step, total) == 1;
    (start.max(1)..=total.max(1)).find(coprime).unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The endpoints of every cluster of one table. Immutable; replaced when addresses or the table
/// change.
#[derive(Debug)]
pub struct EndpointTable {
    clusters: Box<[Members]>,
    slots: SlotList,
}

impl EndpointTable {
    /// The endpoints of `table` at `addresses`. An endpoint that `previous` has under the same
    /// cluster name, address and host name keeps its slot and its load. Names that resolve to
    /// nothing have no endpoints.
    pub fn build(
        table: &Table,
        addresses: &Addresses,
        previous: Option<&EndpointTable>,
    ) -> EndpointTable {
        let mut known: HashMap<(&str, SocketAddr), &Endpoint, foldhash::fast::FixedState> =
            HashMap::default();
        let mut slots = previous.map_or_else(SlotList::default, |table| table.slots.reopened());
        for members in previous.iter().flat_map(|table| &table.clusters) {
            for endpoint in &members.endpoints {
                known.insert((&members.name, endpoint.address), endpoint);
            }
        }
        let mut clusters = Vec::with_capacity(table.clusters().len());
        for cluster in table.clusters() {
            let mut endpoints = Vec::new();
            for Member { address, weight, name } in members(cluster, addresses) {
                let old = known.get(&(&*cluster.name, address));
                let old = old.filter(|old| old.name() == name.as_deref());
                let (slot, load) = match old {
                    Some(old) => (old.slot, Arc::clone(&old.load)),
                    None => match slots.take(name) {
                        Some(taken) => taken,
                        None => continue,
                    },
                };
                endpoints.push(Endpoint { address, slot, load, weight });
            }
            clusters.push(Members::new(&cluster.name, endpoints));
        }
        EndpointTable { clusters: clusters.into(), slots }
    }

    /// The endpoints of a cluster.
    ///
    /// # Panics
    /// `id` is of another table that has more clusters.
    #[inline]
    pub fn cluster(&self, id: ClusterId) -> &[Endpoint] {
        &self.clusters[id.index()].endpoints
    }

    /// One more than the largest slot ever given: what an array indexed by slots needs.
    pub fn slot_count(&self) -> usize {
        self.slots.count()
    }

    /// The endpoint for an exchange with a cluster. `cursor` is the worker's place in the round
    /// robin of the cluster, `draw` 64 random bits for the choice by load. `avoid` is not chosen if
    /// another one can be. `None` if no endpoint has a weight. The load is not counted yet:
    /// [`Endpoint::begin`].
    ///
    /// # Panics
    /// `id` is of another table that has more clusters.
    #[inline]
    pub fn pick(
        &self,
        id: ClusterId,
        balance: Balance,
        cursor: &mut u32,
        draw: u64,
        avoid: Option<EndpointSlot>,
    ) -> Option<&Endpoint> {
        let members = &self.clusters[id.index()];
        if members.total == 0 {
            return None;
        }
        if let [only] = &members.endpoints[..] {
            return Some(only);
        }
        Some(match balance {
            Balance::LeastRequest => members.least_request(draw, avoid),
            Balance::RoundRobin => members.round_robin(cursor, avoid),
        })
    }
}

struct Member {
    address: SocketAddr,
    weight: u32,
    name: Option<Arc<str>>,
}

/// The members of a cluster, each address once: the first that names it decides its weight and
/// name.
fn members(cluster: &Cluster, addresses: &Addresses) -> Vec<Member> {
    let mut seen = std::collections::HashSet::new();
    let mut members = Vec::new();
    if cluster.discovery == Discovery::Pushed {
        let pushed = addresses.pushed.get(&cluster.name).map_or(&[][..], Vec::as_slice);
        let fresh = pushed.iter().filter(|(address, _)| seen.insert(*address));
        return fresh.map(|&(address, weight)| Member { address, weight, name: None }).collect();
    }
    for endpoint in &cluster.endpoints {
        let literal = endpoint.literal.as_slice();
        let name = endpoint.host_name().map(Arc::from);
        let resolved = if literal.is_empty() { addresses.of(&endpoint.address) } else { literal };
        for address in resolved {
            if seen.insert(*address) {
                members.push(Member {
                    address: *address,
                    weight: endpoint.weight,
                    name: name.clone(),
                });
            }
        }
    }
    members
}

#[cfg(test)]
mod tests;
