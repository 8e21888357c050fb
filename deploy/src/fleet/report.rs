//! What a sidecar says: when it connects, and from then on.
//!
//! # Not here
//! The frames in which it says so (`ringway-protocol`).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::version::{PolicyHash, Version};

/// The label of sidecars that get a release first.
const CANARY: &str = "canary";

/// What a sidecar runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Which policy.
    pub version: Version,
    /// Whether its probation is over.
    pub confirmed: bool,
}

/// The certificate that a sidecar serves with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// End of its validity, in unix milliseconds.
    pub not_after_ms: u64,
    /// SHA-256 of the root that it chains to.
    pub root: PolicyHash,
}

/// What a sidecar says when it connects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// What it runs; nothing if it never ran a policy or lost its disk.
    pub running: Option<Running>,
    /// Hash over its endpoints.
    pub endpoints: Option<PolicyHash>,
    /// Its certificate.
    pub certificate: Option<Certificate>,
    /// Which edition of the bundle of roots it trusts.
    pub bundle_epoch: u64,
    /// Version of its program.
    pub software: String,
    /// What it can do; a policy may ask for it.
    pub capabilities: BTreeSet<String>,
    /// Labels of its node or of itself.
    pub labels: BTreeMap<String, String>,
}

impl Hello {
    /// Whether it is labelled `canary`, with any value but `false`.
    #[must_use]
    pub fn is_canary(&self) -> bool {
        is_canary(&self.labels)
    }
}

/// Whether these are labels of a canary.
pub(super) fn is_canary(labels: &BTreeMap<String, String>) -> bool {
    labels.get(CANARY).is_some_and(|value| value != "false")
}

/// How a sidecar stands with a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Checked and ready to be applied.
    Staged,
    /// Refused, with the reason; it runs what it ran.
    Rejected(String),
    /// Applied, and in probation.
    Applied,
    /// Applied, and its probation is over.
    Confirmed,
    /// It went back to what it ran before by itself, with the reason.
    RolledBack(String),
}

impl State {
    /// Cuts a reason to so many bytes, at a boundary of characters.
    pub(super) fn shorten(&mut self, bytes_max: usize) {
        match self {
            State::Rejected(reason) | State::RolledBack(reason) => shorten(reason, bytes_max),
            State::Staged | State::Applied | State::Confirmed => {}
        }
    }
}

/// Cuts a text to so many bytes, at a boundary of characters.
pub(super) fn shorten(text: &mut String, bytes_max: usize) {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

/// How a sidecar stands with one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which version.
    pub version: Version,
    /// How it stands with it.
    pub state: State,
}

impl Entry {
    /// Whether this is older news than the highest generation that was heard of, and not about what
    /// the sidecar runs: that may be confirmed or undone when the next is staged already.
    pub(crate) fn is_late(&self, seen: u64, running: Option<Version>) -> bool {
        self.version.generation < seen && running != Some(self.version)
    }
}

/// What a sidecar says while it is connected: at a change at once, and every ten seconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The versions it has to do with, at most `REPORT_ENTRIES_MAX`.
    pub entries: Vec<Entry>,
    /// Hash over its endpoints, if it changed.
    pub endpoints: Option<PolicyHash>,
    /// Its certificate, if it changed.
    pub certificate: Option<Certificate>,
    /// Why it has no newer certificate, in the sidecar's words; nothing if it needs none.
    pub renewal_problem: Option<String>,
    /// Which edition of the bundle of roots it trusts, if it changed.
    pub bundle_epoch: Option<u64>,
}
