//! One sidecar, as far as it has told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::ConnectionId;
use super::report::{Certificate, Entry, Hello, Report, State, shorten};
use crate::limits::REASON_BYTES_MAX;
use crate::version::{PolicyHash, Version};

/// Whether a sidecar is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    /// It is.
    Connected {
        /// By which connection.
        id: ConnectionId,
        /// Since when, in unix milliseconds.
        since_ms: u64,
    },
    /// It is not.
    Away {
        /// Since when, in unix milliseconds.
        since_ms: u64,
    },
}

/// What is known of a sidecar, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SidecarView {
    /// Where it stands.
    pub standing: Standing,
    /// Whether it is connected.
    pub connection: Connection,
    /// What it was told to run.
    pub wanted: Option<Version>,
    /// What it has ready.
    pub staged: Option<Version>,
    /// What it runs.
    pub applied: Option<Version>,
    /// What it runs and has found good.
    pub confirmed: Option<Version>,
    /// The last version that failed in it.
    pub failure: Option<Failure>,
    /// Milliseconds since it said something.
    pub silent_ms: u64,
    /// Milliseconds until its certificate ends; negative after that.
    pub certificate_left_ms: Option<i64>,
    /// Why it has no newer one, in the sidecar's words.
    pub renewal_problem: Option<String>,
    /// Which edition of the roots it trusts.
    pub bundle_epoch: u64,
    /// Version of its program.
    pub software: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// How a version failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// It was refused when it was staged.
    Rejected,
    /// It was applied and undone by the sidecar itself.
    RolledBack,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FailureKind::Rejected => "rejected",
            FailureKind::RolledBack => "rolled back",
        })
    }
}

/// A version that failed in a sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Which version.
    pub version: Version,
    /// How.
    pub kind: FailureKind,
    /// Why, in the sidecar's words.
    pub reason: String,
    /// When it was reported, in unix milliseconds.
    pub at_ms: u64,
}

/// Where a sidecar stands, the first of these that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Not connected.
    Away,
    /// The version it was told last failed.
    Failed,
    /// It runs no policy at all.
    Empty,
    /// It runs what it was told last, in probation.
    Probation,
    /// It runs what it was told last, or was told nothing yet.
    Current,
    /// What it was told last is ready to be applied.
    Staged,
    /// It was told something and has not answered.
    Waiting,
}

/// One sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sidecar {
    connection: Connection,
    /// The last that it was told to stage, apply or return to.
    wanted: Option<Version>,
    staged: Option<Version>,
    applied: Option<Version>,
    confirmed: Option<Version>,
    failure: Option<Failure>,
    /// The highest generation it spoke of.
    seen: u64,
    /// When it was last heard of.
    heard_ms: u64,
    certificate: Option<Certificate>,
    renewal_problem: Option<String>,
    bundle_epoch: u64,
    endpoints: Option<PolicyHash>,
    software: String,
    capabilities: BTreeSet<String>,
    labels: BTreeMap<String, String>,
}

impl Sidecar {
    pub(super) fn new(hello: Hello, id: ConnectionId, now: u64) -> Sidecar {
        let mut sidecar = Sidecar {
            connection: Connection::Connected { id, since_ms: now },
            wanted: None,
            staged: None,
            applied: None,
            confirmed: None,
            failure: None,
            seen: 0,
            heard_ms: now,
            certificate: None,
            renewal_problem: None,
            bundle_epoch: 0,
            endpoints: None,
            software: String::new(),
            capabilities: BTreeSet::new(),
            labels: BTreeMap::new(),
        };
        sidecar.connect(hello, id, now);
        sidecar
    }

    /// What it says now counts for everything but what it was told and what failed.
    pub(super) fn connect(&mut self, hello: Hello, id: ConnectionId, now: u64) {
        self.connection = Connection::Connected { id, since_ms: now };
        self.heard_ms = now;
        self.staged = None;
        self.applied = hello.running.map(|running| running.version);
        match hello.running {
            Some(running) => {
                self.seen = self.seen.max(running.version.generation);
                if running.confirmed {
                    self.confirmed = self.applied;
                }
            }
            // It lost what it had, and with it what it knows of generations.
            None => {
                self.seen = 0;
                self.confirmed = None;
                self.wanted = None;
                self.failure = None;
            }
        }
        self.endpoints = hello.endpoints;
        self.certificate = hello.certificate;
        self.bundle_epoch = hello.bundle_epoch;
        self.software = hello.software;
        self.capabilities = hello.capabilities;
        self.labels = hello.labels;
    }

    /// Whether this connection was the one that counts.
    pub(super) fn disconnect(&mut self, ended: ConnectionId, now: u64) -> bool {
        match self.connection {
            Connection::Connected { id, .. } if id == ended => {
                self.connection = Connection::Away { since_ms: now };
                true
            }
            Connection::Connected { .. } | Connection::Away { .. } => false,
        }
    }

    pub(super) fn heard(&mut self, report: &Report, now: u64) {
        self.heard_ms = now;
        self.endpoints = report.endpoints.or(self.endpoints);
        self.certificate = report.certificate.or(self.certificate);
        self.renewal_problem.clone_from(&report.renewal_problem);
        if let Some(problem) = &mut self.renewal_problem {
            shorten(problem, REASON_BYTES_MAX);
        }
        self.bundle_epoch = report.bundle_epoch.unwrap_or(self.bundle_epoch);
    }

    /// Takes how it stands with a version, unless that is late.
    pub(super) fn note(&mut self, entry: &Entry, now: u64) {
        let version = entry.version;
        let failed = |it: &Failure| it.version == version;
        let late = entry.is_late(self.seen, self.applied);
        if late || self.failure.as_ref().is_some_and(failed) {
            return;
        }
        self.seen = self.seen.max(version.generation);
        match &entry.state {
            State::Staged => self.staged = Some(version),
            State::Applied => self.apply(version),
            State::Confirmed => {
                self.apply(version);
                self.confirmed = Some(version);
            }
            State::Rejected(reason) => self.fail(FailureKind::Rejected, version, reason, now),
            State::RolledBack(reason) => {
                self.fail(FailureKind::RolledBack, version, reason, now);
                // It came from a policy whose probation was over, or from none.
                if self.applied == Some(version) {
                    self.applied = self.confirmed.filter(|confirmed| *confirmed != version);
                }
            }
        }
    }

    pub(super) fn want(&mut self, version: Version) {
        self.wanted = Some(version);
    }

    pub(super) fn unwant(&mut self, generation: u64) {
        self.wanted = self.wanted.filter(|wanted| wanted.generation != generation);
    }

    fn apply(&mut self, version: Version) {
        self.applied = Some(version);
        self.failure = None;
    }

    fn fail(&mut self, kind: FailureKind, version: Version, reason: &str, now: u64) {
        self.staged = self.staged.filter(|staged| *staged != version);
        self.failure = Some(Failure { version, kind, reason: reason.to_owned(), at_ms: now });
    }

    /// What is known of it at `now`.
    #[must_use]
    pub fn view(&self, now: u64) -> SidecarView {
        let left = |certificate: Certificate| {
            certificate.not_after_ms.cast_signed().saturating_sub(now.cast_signed())
        };
        SidecarView {
            standing: self.standing(),
            connection: self.connection(),
            wanted: self.wanted(),
            staged: self.staged(),
            applied: self.applied(),
            confirmed: self.confirmed(),
            failure: self.failure().cloned(),
            silent_ms: now.saturating_sub(self.heard_ms()),
            certificate_left_ms: self.certificate().map(left),
            renewal_problem: self.renewal_problem.clone(),
            bundle_epoch: self.bundle_epoch(),
            software: self.software().to_owned(),
            labels: self.labels().map(|(name, value)| (name.into(), value.into())).collect(),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        if !self.is_connected() {
            return Standing::Away;
        }
        if self.failure.as_ref().is_some_and(|it| self.wanted.is_none_or(|v| v == it.version)) {
            return Standing::Failed;
        }
        if self.applied.is_some() && self.wanted.is_none_or(|wanted| Some(wanted) == self.applied) {
            let over = self.applied == self.confirmed;
            return if over { Standing::Current } else { Standing::Probation };
        }
        if self.wanted.is_some() {
            let ready = self.wanted == self.staged;
            return if ready { Standing::Staged } else { Standing::Waiting };
        }
        Standing::Empty
    }

    /// Whether it is connected, and since when.
    #[must_use]
    pub fn connection(&self) -> Connection {
        self.connection
    }

    /// Whether it is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.away_since().is_none()
    }

    /// Since when it is away, in unix milliseconds.
    #[must_use]
    pub fn away_since(&self) -> Option<u64> {
        match self.connection {
            Connection::Connected { .. } => None,
            Connection::Away { since_ms } => Some(since_ms),
        }
    }

    /// The last that it was told to stage, apply or return to.
    #[must_use]
    pub fn wanted(&self) -> Option<Version> {
        self.wanted
    }

    /// What is ready to be applied.
    #[must_use]
    pub fn staged(&self) -> Option<Version> {
        self.staged
    }

    /// What it runs.
    #[must_use]
    pub fn applied(&self) -> Option<Version> {
        self.applied
    }

    /// The last whose probation was over.
    #[must_use]
    pub fn confirmed(&self) -> Option<Version> {
        self.confirmed
    }

    /// The last version that failed, until another is applied.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// When it was last heard of, in unix milliseconds.
    #[must_use]
    pub fn heard_ms(&self) -> u64 {
        self.heard_ms
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> Option<Certificate> {
        self.certificate
    }

    /// Which edition of the bundle of roots it trusts.
    #[must_use]
    pub fn bundle_epoch(&self) -> u64 {
        self.bundle_epoch
    }

    /// Hash over its endpoints.
    #[must_use]
    pub fn endpoints(&self) -> Option<PolicyHash> {
        self.endpoints
    }

    /// Version of its program.
    #[must_use]
    pub fn software(&self) -> &str {
        &self.software
    }

    /// Whether it has a capability.
    #[must_use]
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.contains(capability)
    }

    /// Its labels.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether it is labelled `canary`.
    #[must_use]
    pub fn is_canary(&self) -> bool {
        super::report::is_canary(&self.labels)
    }
}
