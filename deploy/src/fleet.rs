//! The fleet: what each sidecar last said of itself, and since when.
//!
//! ```text
//!             hello                    goodbye                 FORGET_AFTER_MS
//! (unknown) ────────▶ connected since ─────────▶ away since ────────────────────▶ (unknown)
//!                         ▲                          │  or first, when the fleet is full
//!                         └────────── hello ─────────┘
//! ```
//!
//! # Invariants
//! - At most [`SIDECARS_MAX`] sidecars. When a new one comes to a full fleet, the one that is away
//!   longest is forgotten for it; if all are connected, the new one is refused.
//! - At most [`NODES_MAX`] of an identity, likewise: it makes up the names of its nodes, and must
//!   not take the places of all others.
//! - A report with a generation below one that was seen before is late and changes nothing, unless
//!   it is about what the sidecar runs. So is one that was sent under an older connection: the
//!   sidecar may have lost its disk in between.
//! - What happens here comes out as an [`Event`], so that a rollout needs no other source.
//!
//! # Not here
//! Whom to tell what (`rollout`). Nothing of this is stored: sidecars say it again when they
//! connect.

use std::collections::BTreeMap;

use crate::limits::{
    CAPABILITIES_MAX, FORGET_AFTER_MS, GENERATION_MAX, LABELS_MAX, NODES_MAX, REASON_BYTES_MAX,
    REPORT_ENTRIES_MAX, SIDECARS_MAX, WORD_BYTES_MAX,
};
use crate::version::{SidecarKey, Version};

mod report;
mod sidecar;
mod summary;

pub use report::{Certificate, Entry, Hello, Report, Running, State};
pub use sidecar::{Connection, Failure, FailureKind, Sidecar, SidecarView, Standing};
pub use summary::{Failed, FleetSummary, Gate};

/// A stream of a sidecar, numbered by the server; a number never comes twice, not even after a
/// restart. The sidecar is told it and names it in its reports, which go over other connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ConnectionId(pub u64);

/// Something that happened to a sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It connected, for the first time or again.
    Connected {
        /// Who.
        sidecar: SidecarKey,
        /// Whether it is labelled `canary`.
        canary: bool,
        /// What it runs.
        running: Option<Running>,
    },
    /// Its connection ended.
    Disconnected {
        /// Who.
        sidecar: SidecarKey,
    },
    /// It was away for too long, and is not counted any more.
    Forgotten {
        /// Who.
        sidecar: SidecarKey,
    },
    /// It said how it stands with a version.
    Reported {
        /// Who.
        sidecar: SidecarKey,
        /// What it said.
        entry: Entry,
    },
    /// It reported, and nothing of it was about versions.
    Heard {
        /// Who.
        sidecar: SidecarKey,
    },
    /// The pusher itself began anew: every connection is gone.
    Restarted,
}

/// Why the fleet does not take what a sidecar says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetFault {
    /// [`SIDECARS_MAX`] are connected.
    #[error("{SIDECARS_MAX} sidecars are connected, which is the maximum")]
    Full,
    /// [`NODES_MAX`] of its identity are connected.
    #[error("{NODES_MAX} sidecars of {0} are connected, which is the maximum")]
    Nodes(String),
    /// Never connected, or forgotten.
    #[error("{0} is not known")]
    Unknown(SidecarKey),
    /// Sent under a connection that does not count any more; what matters is said again.
    #[error("{0} has another connection by now")]
    Late(SidecarKey),
    /// More reports than there is news.
    #[error("{0} reports too often")]
    TooOften(SidecarKey),
    /// More than a limit.
    #[error("{what}: more than {max}")]
    TooMuch {
        /// What there is too much of, and its unit.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// Above [`GENERATION_MAX`], which no release has.
    #[error("generation {0} cannot be")]
    Generation(u64),
}

/// Every sidecar that is known, by its key.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    sidecars: BTreeMap<SidecarKey, Sidecar>,
    /// How many of them each identity has.
    nodes: BTreeMap<String, usize>,
}

impl Fleet {
    /// Notes that a sidecar connected. An older connection of the same sidecar counts no more.
    ///
    /// # Errors
    /// Why it is refused; an older connection of it stays then.
    pub fn hello(
        &mut self,
        key: &SidecarKey,
        hello: Hello,
        connection: ConnectionId,
        now: u64,
    ) -> Result<Vec<Event>, FleetFault> {
        check_hello(&hello)?;
        let mut events = Vec::new();
        if !self.sidecars.contains_key(key)
            && let Some(forgotten) = self.place(key)?
        {
            self.forget(&forgotten);
            events.push(Event::Forgotten { sidecar: forgotten });
        }
        let canary = hello.is_canary();
        let running = hello.running;
        match self.sidecars.get_mut(key) {
            Some(sidecar) => sidecar.connect(hello, connection, now),
            None => {
                self.sidecars.insert(key.clone(), Sidecar::new(hello, connection, now));
                *self.nodes.entry(key.identity().to_owned()).or_default() += 1;
            }
        }
        events.push(Event::Connected { sidecar: key.clone(), canary, running });
        Ok(events)
    }

    /// Notes that a connection ended; nothing, if the sidecar has a newer one.
    pub fn goodbye(
        &mut self,
        key: &SidecarKey,
        connection: ConnectionId,
        now: u64,
    ) -> Option<Event> {
        let ended = self.sidecars.get_mut(key)?.disconnect(connection, now);
        ended.then(|| Event::Disconnected { sidecar: key.clone() })
    }

    /// Takes a report that was sent under this connection.
    ///
    /// # Errors
    /// That the sidecar is unknown or has another connection, or what of the report is past a
    /// limit; nothing is noted then.
    pub fn report(
        &mut self,
        key: &SidecarKey,
        report: Report,
        connection: ConnectionId,
        now: u64,
    ) -> Result<Vec<Event>, FleetFault> {
        if report.entries.len() > REPORT_ENTRIES_MAX {
            return Err(FleetFault::TooMuch { what: "entries", max: REPORT_ENTRIES_MAX });
        }
        for entry in &report.entries {
            check_generation(Some(entry.version))?;
        }
        let Some(sidecar) = self.sidecars.get_mut(key) else {
            return Err(FleetFault::Unknown(key.clone()));
        };
        match sidecar.connection() {
            Connection::Connected { id, .. } if id == connection => {}
            Connection::Connected { .. } | Connection::Away { .. } => {
                return Err(FleetFault::Late(key.clone()));
            }
        }
        sidecar.heard(&report, now);
        if report.entries.is_empty() {
            return Ok(vec![Event::Heard { sidecar: key.clone() }]);
        }
        let mut events = Vec::with_capacity(report.entries.len());
        for mut entry in report.entries {
            entry.state.shorten(REASON_BYTES_MAX);
            sidecar.note(&entry, now);
            events.push(Event::Reported { sidecar: key.clone(), entry });
        }
        Ok(events)
    }

    /// Notes what a sidecar was told to run.
    pub fn want(&mut self, key: &SidecarKey, version: Version) {
        if let Some(sidecar) = self.sidecars.get_mut(key) {
            sidecar.want(version);
        }
    }

    /// Notes that what was told under a generation holds no more for those who do not run it.
    pub fn unwant(&mut self, generation: u64) {
        for sidecar in self.sidecars.values_mut() {
            sidecar.unwant(generation);
        }
    }

    /// Forgets who has been away for [`FORGET_AFTER_MS`].
    pub fn sweep(&mut self, now: u64) -> Vec<Event> {
        let gone = |sidecar: &Sidecar| {
            sidecar.away_since().is_some_and(|since| now >= since.saturating_add(FORGET_AFTER_MS))
        };
        let keys: Vec<SidecarKey> =
            self.sidecars.iter().filter(|(_, it)| gone(it)).map(|(key, _)| key.clone()).collect();
        keys.into_iter()
            .map(|sidecar| {
                self.forget(&sidecar);
                Event::Forgotten { sidecar }
            })
            .collect()
    }

    /// A sidecar by its key.
    #[must_use]
    pub fn sidecar(&self, key: &SidecarKey) -> Option<&Sidecar> {
        self.sidecars.get(key)
    }

    /// Every sidecar, in the order of the keys.
    pub fn sidecars(&self) -> impl Iterator<Item = (&SidecarKey, &Sidecar)> {
        self.sidecars.iter()
    }

    /// How many are known, connected or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sidecars.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sidecars.is_empty()
    }

    /// Who has to be forgotten for `key`, a new one, if anybody has to.
    fn place(&self, key: &SidecarKey) -> Result<Option<SidecarKey>, FleetFault> {
        if self.nodes.get(key.identity()).is_some_and(|nodes| *nodes >= NODES_MAX) {
            let is_of_it = |other: &SidecarKey| other.identity() == key.identity();
            let full = || FleetFault::Nodes(key.identity().to_owned());
            return self.away_longest(is_of_it).ok_or_else(full).map(Some);
        }
        if self.sidecars.len() >= SIDECARS_MAX {
            return self.away_longest(|_| true).ok_or(FleetFault::Full).map(Some);
        }
        Ok(None)
    }

    fn forget(&mut self, key: &SidecarKey) {
        if self.sidecars.remove(key).is_none() {
            return;
        }
        if let Some(nodes) = self.nodes.get_mut(key.identity()) {
            *nodes -= 1;
            if *nodes == 0 {
                self.nodes.remove(key.identity());
            }
        }
    }

    fn away_longest(&self, may_go: impl Fn(&SidecarKey) -> bool) -> Option<SidecarKey> {
        let candidates = self.sidecars.iter().filter(|(key, _)| may_go(key));
        let away = candidates.filter_map(|(key, it)| Some((it.away_since()?, key)));
        away.min().map(|(_, key)| key.clone())
    }
}

fn check_hello(hello: &Hello) -> Result<(), FleetFault> {
    check_generation(hello.running.map(|running| running.version))?;
    at_most("labels", hello.labels.len(), LABELS_MAX)?;
    at_most("capabilities", hello.capabilities.len(), CAPABILITIES_MAX)?;
    let labels = hello.labels.iter().flat_map(|(name, value)| [name, value]);
    for word in labels.chain(&hello.capabilities).chain([&hello.software]) {
        at_most("bytes of a word", word.len(), WORD_BYTES_MAX)?;
    }
    Ok(())
}

fn check_generation(version: Option<Version>) -> Result<(), FleetFault> {
    match version {
        Some(version) if version.generation > GENERATION_MAX => {
            Err(FleetFault::Generation(version.generation))
        }
        Some(_) | None => Ok(()),
    }
}

fn at_most(what: &'static str, length: usize, max: usize) -> Result<(), FleetFault> {
    if length > max { Err(FleetFault::TooMuch { what, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
