//! The sidecars of a rollout: where each stands with the release, and how many stand where.
//!
//! ```text
//!       Stage           staged          Commit             applied           confirmed
//! Idle ───────▶ Staging ──────▶ Staged ───────▶ Committed ────────▶ Applied ──────────▶ Confirmed
//!  ▲               │ rejected      │                │ rolled back     │
//!  │               └───────────────┴────▶ Failed ◀──┴─────────────────┘
//!  └── connected again and does not run the release; from everywhere but Failed
//! ```
//!
//! # Invariants
//! - The tally is the sum over the members: they change in [`Members::update`] only.
//! - A member that failed stays so, unless it lost its disk after the rollout ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fleet::FailureKind;
use crate::version::{SidecarKey, Version};

/// Where a sidecar stands with the release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// It was not told of it, or forgot.
    Idle,
    /// It was told to stage it.
    Staging,
    /// It is ready to apply it.
    Staged,
    /// It was told to apply it, and may or may not have done so.
    Committed,
    /// It runs it, in probation.
    Applied,
    /// It runs it, and its probation is over.
    Confirmed,
    /// It refused or undid it.
    Failed { kind: FailureKind, reason: String },
}

/// Where a sidecar stands with the last good policy that it was told to return to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Restore {
    /// It was not told to.
    No,
    /// It was told under this generation, and has not answered.
    Sent(u64),
    /// It could not, under this generation.
    Failed(u64),
}

/// A sidecar, as the rollout sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Member {
    /// Whether the release changes anything for it.
    pub(super) affected: bool,
    /// Whether it was a canary when it was seen first.
    pub(super) canary: bool,
    pub(super) draw: u16,
    pub(super) online: bool,
    /// When it was seen first.
    pub(super) joined_ms: u64,
    /// When it was last told something that it has to answer, or connected.
    pub(super) asked_ms: u64,
    /// When it was last heard of.
    pub(super) heard_ms: u64,
    /// When it was first told to apply the release; with that it is in the step.
    pub(super) sent_ms: Option<u64>,
    /// The highest generation it spoke of.
    pub(super) seen: u64,
    pub(super) running: Option<Version>,
    /// What it ran before, and returns to when it undoes what it runs.
    pub(super) previous: Option<Version>,
    pub(super) phase: Phase,
    pub(super) restore: Restore,
}

impl Member {
    /// Notes what it runs.
    pub(super) fn run(&mut self, version: Version) {
        if self.running != Some(version) {
            self.previous = self.running.replace(version);
        }
    }

    /// Notes that it went back from a version to what it ran before.
    pub(super) fn undo(&mut self, version: Version) {
        if self.running == Some(version) {
            self.running = self.previous.take();
        }
    }

    /// Whether it is in the step and neither well nor failed.
    pub(super) fn is_unsettled(&self) -> bool {
        match self.phase {
            Phase::Idle | Phase::Staging | Phase::Staged => self.sent_ms.is_some(),
            Phase::Committed | Phase::Applied => true,
            Phase::Confirmed | Phase::Failed { .. } => false,
        }
    }

    /// Whether it is still to say that it staged the release.
    pub(super) fn is_awaited(&self) -> bool {
        self.affected && matches!(self.phase, Phase::Idle | Phase::Staging)
    }

    /// Whether it can get the release for the first time: it is ready, or may soon be.
    pub(super) fn is_next(&self, now: u64, stage_ms: u64) -> bool {
        let fresh = self.affected && self.online && self.sent_ms.is_none();
        let soon = self.is_awaited() && now < self.asked_ms.saturating_add(stage_ms);
        fresh && (soon || self.phase == Phase::Staged)
    }

    /// Whether it runs the release, as far as is known.
    pub(super) fn may_run_release(&self) -> bool {
        match self.phase {
            Phase::Committed | Phase::Applied | Phase::Confirmed => true,
            Phase::Idle | Phase::Staging | Phase::Staged | Phase::Failed { .. } => false,
        }
    }
}

/// How many members stand where. Those that the release does not concern are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// All.
    pub(super) affected: usize,
    /// Not connected.
    pub(super) away: usize,
    /// Still to say that they staged.
    pub(super) awaited: usize,
    /// Told to apply, or failed.
    pub(super) in_step: usize,
    /// In the step, and neither well nor failed.
    pub(super) unsettled: usize,
    /// Runs it, or may.
    pub(super) carrying: usize,
    /// Runs it, and probation is over.
    pub(super) confirmed: usize,
    /// Refused or undid it.
    pub(super) failed: usize,
    /// Told to return to the last good policy, and connected.
    pub(super) returning: usize,
}

impl Tally {
    fn of(member: &Member) -> Tally {
        if !member.affected {
            return Tally::default();
        }
        let in_step = member.sent_ms.is_some() || member.is_failed();
        let returning = member.online && matches!(member.restore, Restore::Sent(_));
        Tally {
            affected: 1,
            away: usize::from(!member.online),
            awaited: usize::from(member.is_awaited()),
            in_step: usize::from(in_step),
            unsettled: usize::from(member.is_unsettled()),
            carrying: usize::from(member.may_run_release()),
            confirmed: usize::from(member.phase == Phase::Confirmed),
            failed: usize::from(member.is_failed()),
            returning: usize::from(returning),
        }
    }

    fn combine(&mut self, other: Tally, how: fn(usize, usize) -> usize) {
        self.affected = how(self.affected, other.affected);
        self.away = how(self.away, other.away);
        self.awaited = how(self.awaited, other.awaited);
        self.in_step = how(self.in_step, other.in_step);
        self.unsettled = how(self.unsettled, other.unsettled);
        self.carrying = how(self.carrying, other.carrying);
        self.confirmed = how(self.confirmed, other.confirmed);
        self.failed = how(self.failed, other.failed);
        self.returning = how(self.returning, other.returning);
    }

    fn add(&mut self, other: Tally) {
        self.combine(other, |sum, one| sum + one);
    }

    fn subtract(&mut self, other: Tally) {
        self.combine(other, |sum, one| sum - one);
    }
}

/// The sidecars of a rollout, by key. Stored as the map alone.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    map: BTreeMap<SidecarKey, Member>,
    tally: Tally,
}

impl Members {
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn get(&self, key: &SidecarKey) -> Option<&Member> {
        self.map.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&SidecarKey, &Member)> {
        self.map.iter()
    }

    pub(super) fn keys(&self) -> Vec<SidecarKey> {
        self.map.keys().cloned().collect()
    }

    pub(super) fn insert(&mut self, key: SidecarKey, member: Member) {
        self.remove(&key);
        self.tally.add(Tally::of(&member));
        self.map.insert(key, member);
    }

    pub(super) fn remove(&mut self, key: &SidecarKey) {
        if let Some(member) = self.map.remove(key) {
            self.tally.subtract(Tally::of(&member));
        }
    }

    /// Changes a member, if there is one of this key.
    pub(super) fn update(&mut self, key: &SidecarKey, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.map.get_mut(key) {
            self.tally.subtract(Tally::of(member));
            change(member);
            self.tally.add(Tally::of(member));
        }
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.map.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        let map = BTreeMap::<SidecarKey, Member>::deserialize(deserializer)?;
        let mut tally = Tally::default();
        for member in map.values() {
            tally.add(Tally::of(member));
        }
        Ok(Members { map, tally })
    }
}
