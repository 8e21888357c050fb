//! Where the services are, for each class of sidecars: what the folder says, guarded, with names
//! looked up.
//!
//! # Invariants
//! - Endpoints that vanished all at once are kept for [`STALE_KEPT`] and marked.
//! - A name that was found once keeps what it had while it is not found.
//!
//! # Not here
//! Who is told of a change (`streams`), the look-up of names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Instant;

use ringway_protocol::Member;
use ringway_protocol::limits::MEMBERS_MAX;

use super::kept::EndpointTable;
use super::streams::Wanted;
use crate::compile::{EndpointSets, Policies};
use crate::guard::{self, KnownSets};
use crate::limits::STALE_KEPT;

/// The endpoints of all classes.
#[derive(Debug, Default)]
pub(super) struct Sets {
    /// By identity.
    known: BTreeMap<String, KnownSets>,
    /// When some that are kept although they vanished are to go.
    kept_until: Option<Instant>,
    /// Addresses that are names.
    names: BTreeSet<String>,
    resolved: HashMap<String, Vec<SocketAddr>>,
}

impl Sets {
    /// What was known when the state was written last, by identity.
    pub(super) fn of(
        kept: BTreeMap<String, EndpointSets>,
        resolved: HashMap<String, Vec<SocketAddr>>,
    ) -> Sets {
        let known = |sets: EndpointSets| {
            guard::endpoints(&KnownSets::new(), &sets, Instant::now(), STALE_KEPT)
        };
        let known = kept.into_iter().map(|(identity, sets)| (identity, known(sets)));
        Sets { known: known.collect(), resolved, ..Sets::default() }
    }

    /// What names were found to be, to be written down.
    pub(super) fn found(&self) -> &HashMap<String, Vec<SocketAddr>> {
        &self.resolved
    }

    /// What is known, by identity, to be written down.
    pub(super) fn kept(&self) -> EndpointTable {
        EndpointTable::of(self.known.iter().map(|(identity, known)| {
            (identity, known.iter().map(|(cluster, known)| (cluster, &known.endpoints)))
        }))
    }

    /// Takes what the policies of workloads, by name with their identities, say at `now`. Clusters
    /// that no policy of the folder has any more stay if `keeps` says so of identity and name: an
    /// older one runs somewhere, or may again.
    pub(super) fn update(
        &mut self,
        identities: &BTreeMap<String, String>,
        policies: &Policies,
        keeps: impl Fn(&str, &str) -> bool,
        now: Instant,
    ) {
        for (name, identity) in identities {
            let Some(policy) = policies.policy(name) else { continue };
            let known = self.known.remove(identity).unwrap_or_default();
            let mut next = guard::endpoints(&known, &policy.endpoints, now, STALE_KEPT);
            for (cluster, sets) in known {
                if !next.contains_key(&cluster) && keeps(identity, &cluster) {
                    next.insert(cluster, sets);
                }
            }
            self.known.insert(identity.clone(), next);
        }
        let deadlines = self.known.values().filter_map(|it| guard::deadline(it, STALE_KEPT));
        self.kept_until = deadlines.min();
        let sets = self.known.values().flat_map(KnownSets::values);
        let addresses = sets.flat_map(|it| &it.endpoints).map(|endpoint| &endpoint.address);
        let names = addresses.filter(|address| address.parse::<SocketAddr>().is_err());
        self.names = names.cloned().collect();
    }

    /// Whether [`Sets::update`] has something to do although nothing was said.
    #[must_use]
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.kept_until.is_some_and(|until| now >= until)
    }

    /// The clusters whose endpoints are kept although they vanished, by identity.
    pub(super) fn stale(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut stale = BTreeMap::<&str, Vec<&str>>::new();
        for (identity, known) in &self.known {
            for (cluster, _) in known.iter().filter(|(_, known)| known.stale_since.is_some()) {
                stale.entry(identity).or_default().push(cluster);
            }
        }
        stale
    }

    /// Names of endpoints that have to be looked up.
    #[must_use]
    pub(super) fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Takes what names were found to be. Gives whether that is new.
    pub(super) fn resolved(&mut self, found: Vec<(String, Vec<SocketAddr>)>) -> bool {
        let mut changed = false;
        for (name, mut addresses) in found {
            addresses.sort_unstable();
            addresses.dedup();
            addresses.truncate(MEMBERS_MAX);
            if !addresses.is_empty() && self.resolved.get(&name) != Some(&addresses) {
                self.resolved.insert(name, addresses);
                changed = true;
            }
        }
        self.resolved.retain(|name, _| self.names.contains(name));
        changed
    }

    /// The endpoints that sidecars of an identity are to have.
    #[must_use]
    pub(super) fn wanted(&self, identity: &str) -> Wanted {
        let mut wanted = Wanted::default();
        for (cluster, known) in self.known.get(identity).into_iter().flatten() {
            let mut members = Vec::with_capacity(known.endpoints.len());
            for endpoint in &known.endpoints {
                let weight = endpoint.weight;
                match endpoint.address.parse::<SocketAddr>() {
                    Ok(address) => members.push(Member { address, weight }),
                    Err(_) => {
                        let found = self.resolved.get(&endpoint.address).into_iter().flatten();
                        members.extend(found.map(|address| Member { address: *address, weight }));
                    }
                }
            }
            wanted.state.put(cluster, members);
            if known.stale_since.is_some() {
                wanted.stale.insert(cluster.clone());
            }
        }
        wanted
    }
}
