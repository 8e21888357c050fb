//! The fleet in numbers: for the fleet page, the metrics, and the rotation of roots.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Fleet;
use super::sidecar::{Failure, Standing};
use crate::limits::FAILURES_SHOWN_MAX;
use crate::version::{PolicyHash, SidecarKey};

/// A sidecar in which the version that it was told last failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Who.
    pub sidecar: SidecarKey,
    /// What failed, and why.
    pub failure: Failure,
}

/// How many sidecars stand where.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct FleetSummary {
    /// Known sidecars, connected or not.
    pub known: usize,
    /// Known sidecars by where they stand; places where nobody stands are left out.
    pub standing: BTreeMap<Standing, usize>,
    /// Connected sidecars by the generation of what they run.
    pub generations: BTreeMap<u64, usize>,
    /// The failures, in the order of the keys, at most [`FAILURES_SHOWN_MAX`].
    pub failures: Vec<Failed>,
}

/// How far the fleet is with an edition of the roots, and with a root.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Gate {
    /// Connected sidecars.
    pub connected: usize,
    /// Connected ones that trust the edition asked for, or a later one.
    pub at_epoch: usize,
    /// Connected ones whose certificate chains to the root asked for.
    pub chained: usize,
    /// Known ones that are away, which may come back with what they had.
    pub away: usize,
    /// The latest end of a certificate, away or not, that chains to another root or to one that is
    /// not known: after it, no live certificate does.
    pub others_end_ms: Option<u64>,
}

impl Gate {
    /// Whether every connected sidecar trusts the edition.
    #[must_use]
    pub fn is_at_epoch(&self) -> bool {
        self.at_epoch == self.connected
    }

    /// Whether every connected sidecar's certificate chains to the root.
    #[must_use]
    pub fn is_chained(&self) -> bool {
        self.chained == self.connected
    }
}

impl Fleet {
    /// Counts who stands where. One pass.
    #[must_use]
    pub fn summary(&self) -> FleetSummary {
        let mut summary = FleetSummary { known: self.len(), ..FleetSummary::default() };
        for (key, sidecar) in self.sidecars() {
            let standing = sidecar.standing();
            *summary.standing.entry(standing).or_default() += 1;
            if let Some(applied) = sidecar.applied().filter(|_| sidecar.is_connected()) {
                *summary.generations.entry(applied.generation).or_default() += 1;
            }
            let failure = sidecar.failure().filter(|_| standing == Standing::Failed);
            if let Some(failure) = failure.filter(|_| summary.failures.len() < FAILURES_SHOWN_MAX) {
                summary.failures.push(Failed { sidecar: key.clone(), failure: failure.clone() });
            }
        }
        summary
    }

    /// Counts who trusts this edition of the roots and who chains to this root. One pass.
    #[must_use]
    pub fn gate(&self, epoch: u64, root: &PolicyHash) -> Gate {
        let mut gate = Gate::default();
        for (_, sidecar) in self.sidecars() {
            let chained = sidecar.certificate().is_some_and(|it| it.root == *root);
            if !chained {
                let end = sidecar.certificate().map(|it| it.not_after_ms);
                gate.others_end_ms = gate.others_end_ms.max(end);
            }
            if sidecar.is_connected() {
                gate.connected += 1;
                gate.chained += usize::from(chained);
                gate.at_epoch += usize::from(sidecar.bundle_epoch() >= epoch);
            } else {
                gate.away += 1;
            }
        }
        gate
    }
}
