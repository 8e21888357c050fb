//! The endpoints that a pusher has told a sidecar of, as both of them keep them.
//!
//! # Invariants
//! - Two sides with one [`EndpointsHash`] have the same endpoints.
//! - A change applies to what is known: frames count from 1 on every stream, and one that is out of
//!   step ends the stream.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::frame::{Endpoints, EndpointsChange};
use crate::hash::{HashError, PolicyHash};
use crate::limits::{CLUSTERS_MAX, MEMBERS_MAX};

/// An endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Where it is.
    pub address: SocketAddr,
    /// Share in proportion to the others; 0 gets nothing.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one(weight: &u32) -> bool {
    *weight == 1
}

/// BLAKE3-256 of all endpoints of a sidecar.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointsHash(PolicyHash);

impl fmt::Display for EndpointsHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::str::FromStr for EndpointsHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<EndpointsHash, HashError> {
        text.parse().map(EndpointsHash)
    }
}

/// Why a frame cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfStep {
    /// A frame is missing or came twice.
    #[error("frame {found} of the endpoints came where {expected} was due")]
    Sequence {
        /// Due.
        expected: u64,
        /// As it came.
        found: u64,
    },
    /// A change of a cluster that nothing is known of.
    #[error("a change of the endpoints of `{0}`, which are not known")]
    Unknown(String),
    /// More than the limit.
    #[error("more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
}

/// Endpoints by cluster. At most [`CLUSTERS_MAX`] of [`MEMBERS_MAX`] each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointsState {
    clusters: BTreeMap<String, Vec<Member>>,
}

impl EndpointsState {
    /// The endpoints of a cluster, by address; `None` if nothing is known of it.
    #[must_use]
    pub fn of(&self, cluster: &str) -> Option<&[Member]> {
        self.clusters.get(cluster).map(Vec::as_slice)
    }

    /// All clusters with their endpoints, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Member])> {
        self.clusters.iter().map(|(name, members)| (&**name, &**members))
    }

    /// Puts `members` in place of what is known of `cluster`. Of one address the first counts.
    pub fn put(&mut self, cluster: &str, mut members: Vec<Member>) {
        members.sort_by_key(|member| member.address);
        members.dedup_by_key(|member| member.address);
        self.clusters.insert(cluster.to_owned(), members);
    }

    /// Forgets the clusters that `keep` does not hold for.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.clusters.retain(|name, _| keep(name));
    }

    /// What all of it is known by.
    #[must_use]
    pub fn hash(&self) -> EndpointsHash {
        // A map of plain values cannot fail to become text.
        EndpointsHash(PolicyHash::of(&serde_json::to_string(&self.clusters).unwrap_or_default()))
    }

    /// Applies a frame. `sequence` is the number of the last one on this stream, 0 before the
    /// first, and becomes that of this one.
    ///
    /// # Errors
    /// [`OutOfStep`]; nothing has changed then.
    pub fn apply(&mut self, frame: Endpoints, sequence: &mut u64) -> Result<(), OutOfStep> {
        let expected = *sequence + 1;
        if frame.sequence != expected {
            return Err(OutOfStep::Sequence { expected, found: frame.sequence });
        }
        let Endpoints { cluster, change, .. } = frame;
        let members = match change {
            EndpointsChange::Gone {} => {
                self.clusters.remove(&cluster);
                *sequence = expected;
                return Ok(());
            }
            EndpointsChange::Full(members) => members,
            EndpointsChange::Change { set, gone } => {
                let known = self.clusters.get(&cluster);
                let known = known.ok_or_else(|| OutOfStep::Unknown(cluster.clone()))?;
                changed(known, set, &gone)
            }
        };
        let clusters = self.clusters.len() + usize::from(!self.clusters.contains_key(&cluster));
        for (count, what, max) in [
            (clusters, "clusters", CLUSTERS_MAX),
            (members.len(), "endpoints of a cluster", MEMBERS_MAX),
        ] {
            if count > max {
                return Err(OutOfStep::TooMany { what, max });
            }
        }
        self.put(&cluster, members);
        *sequence = expected;
        Ok(())
    }

    /// The changes that lead from `self` to `next`, in the order of the clusters.
    #[must_use]
    pub fn changes_to(&self, next: &EndpointsState) -> Vec<(String, EndpointsChange)> {
        let gone = self.clusters.keys().filter(|name| !next.clusters.contains_key(*name));
        let mut changes: Vec<(String, EndpointsChange)> =
            gone.map(|name| (name.clone(), EndpointsChange::Gone {})).collect();
        for (name, members) in &next.clusters {
            match self.clusters.get(name) {
                Some(known) if known == members => {}
                Some(known) => changes.push((name.clone(), difference(known, members))),
                None => changes.push((name.clone(), EndpointsChange::Full(members.clone()))),
            }
        }
        changes
    }
}

fn changed(known: &[Member], set: Vec<Member>, gone: &[SocketAddr]) -> Vec<Member> {
    let mut members: BTreeMap<SocketAddr, Member> =
        known.iter().map(|member| (member.address, *member)).collect();
    for address in gone {
        members.remove(address);
    }
    members.extend(set.into_iter().map(|member| (member.address, member)));
    members.into_values().collect()
}

/// What leads from `known` to `next`: a change, or all of them if that is shorter.
fn difference(known: &[Member], next: &[Member]) -> EndpointsChange {
    let is_new = |member: &&Member| known.binary_search(member).is_err();
    let set: Vec<Member> = next.iter().filter(is_new).copied().collect();
    let stays =
        |address: &SocketAddr| next.binary_search_by_key(address, |member| member.address).is_ok();
    let gone: Vec<SocketAddr> =
        known.iter().map(|member| member.address).filter(|address| !stays(address)).collect();
    if set.len() + gone.len() >= next.len() {
        return EndpointsChange::Full(next.to_vec());
    }
    EndpointsChange::Change { set, gone }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn states() -> impl Strategy<Value = EndpointsState> {
        let member = (0_u8..40, 0_u32..3)
            .prop_map(|(last, weight)| Member { address: ([10, 0, 0, last], 80).into(), weight });
        let members = proptest::collection::vec(member, 0..30);
        proptest::collection::btree_map("[abc]", members, 0..3).prop_map(|clusters| {
            let mut state = EndpointsState::default();
            for (name, members) in clusters {
                state.put(&name, members);
            }
            state
        })
    }

    fn frame(cluster: &str, sequence: u64, change: EndpointsChange) -> Endpoints {
        Endpoints { cluster: cluster.into(), sequence, change, stale: false }
    }

    proptest! {
        #[test]
        fn the_changes_between_two_states_lead_from_one_to_the_other(
            from in states(),
            to in states(),
        ) {
            let mut state = from.clone();
            let mut sequence = 0;
            for (number, (cluster, change)) in from.changes_to(&to).into_iter().enumerate() {
                let frame = frame(&cluster, number as u64 + 1, change);
                state.apply(frame, &mut sequence).unwrap();
            }
            prop_assert_eq!(&state, &to);
            prop_assert_eq!(state.hash() == from.hash(), from == to);
        }
    }

    #[test]
    fn one_endpoint_of_many_costs_one_endpoint() {
        let mut from = EndpointsState::default();
        let members: Vec<Member> =
            (0..100).map(|n| Member { address: ([10, 0, 0, n], 80).into(), weight: 1 }).collect();
        from.put("a", members.clone());
        let mut to = from.clone();
        to.put("a", members[1..].to_vec());
        let gone = vec![members[0].address];
        let change = EndpointsChange::Change { set: Vec::new(), gone };
        assert_eq!(from.changes_to(&to), [("a".to_owned(), change)]);
    }

    #[test]
    fn a_frame_out_of_step_changes_nothing() {
        let mut state = EndpointsState::default();
        let mut sequence = 4;
        let skipped = frame("a", 6, EndpointsChange::Full(Vec::new()));
        let expected = OutOfStep::Sequence { expected: 5, found: 6 };
        assert_eq!(state.apply(skipped, &mut sequence), Err(expected));
        let change = EndpointsChange::Change { set: Vec::new(), gone: Vec::new() };
        let unknown = state.apply(frame("a", 5, change), &mut sequence);
        assert_eq!(unknown, Err(OutOfStep::Unknown("a".into())));
        assert_eq!((state, sequence), (EndpointsState::default(), 4));
    }

    #[test]
    fn clusters_and_endpoints_have_a_maximum() {
        let many = |count: usize| -> Vec<Member> {
            let address = |n: usize| SocketAddr::from(([10, 0, 0, 1], n as u16 + 1));
            (0..count).map(|n| Member { address: address(n), weight: 1 }).collect()
        };
        let mut state = EndpointsState::default();
        let mut sequence = 0;
        let full = |count| frame("a", 1, EndpointsChange::Full(many(count)));
        assert!(state.apply(full(MEMBERS_MAX + 1), &mut sequence).is_err());
        assert!(state.apply(full(MEMBERS_MAX), &mut sequence).is_ok());
        for n in 1..CLUSTERS_MAX {
            state.put(&format!("c{n}"), Vec::new());
        }
        let more = state.apply(frame("b", 2, EndpointsChange::Full(Vec::new())), &mut sequence);
        assert_eq!(more, Err(OutOfStep::TooMany { what: "clusters", max: CLUSTERS_MAX }));
        let known = frame("a", 2, EndpointsChange::Full(Vec::new()));
        assert!(state.apply(known, &mut sequence).is_ok());
    }
}
