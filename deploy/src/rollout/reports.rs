//! What sidecars say, and what follows for where they stand.
//!
//! # Invariants
//! - What is late, said twice, or about something else moves nobody backwards.

use super::member::{Member, Members, Phase, Restore};
use super::{Rollout, State, draw};
use crate::fleet::{self, Entry, Event, FailureKind};
use crate::limits::{FORGET_AFTER_MS, SIDECARS_MAX};
use crate::version::{SidecarKey, Version};

/// One in so many of those who are concerned has to be connected before others are forgotten.
const BACK_ONE_IN: usize = 10;

impl Rollout {
    /// Notes what happened; gives the sidecar that may be told something now.
    pub(super) fn note(&mut self, event: Event, now: u64) -> Option<SidecarKey> {
        match event {
            Event::Connected { sidecar, canary, running } => {
                let running = running.map(|running| (running.version, running.confirmed));
                self.meet(&sidecar, canary, running, now);
                self.is_cut_off &= self.most_are_away();
                Some(sidecar)
            }
            Event::Disconnected { sidecar } => {
                self.part(&sidecar);
                None
            }
            Event::Forgotten { sidecar } => {
                self.members.remove(&sidecar);
                self.is_cut_off &= self.most_are_away();
                None
            }
            Event::Reported { sidecar, entry } => {
                self.hear(&sidecar, entry, now);
                Some(sidecar)
            }
            Event::Heard { sidecar } => {
                self.members.update(&sidecar, |member| member.heard_ms = now);
                None
            }
            Event::Restarted => {
                self.restart(now);
                None
            }
        }
    }

    /// A sidecar connected: what it says that it runs counts, whatever it was told before.
    pub(super) fn meet(
        &mut self,
        key: &SidecarKey,
        canary: bool,
        running: Option<(Version, bool)>,
        now: u64,
    ) {
        if self.members.get(key).is_none() {
            if self.members.len() >= SIDECARS_MAX {
                return;
            }
            self.members.insert(key.clone(), self.newcomer(key, canary, now));
        }
        let target = self.target(key);
        let ended = !self.is_running();
        self.members.update(key, |member| {
            member.online = true;
            member.asked_ms = now;
            member.heard_ms = now;
            if matches!(member.restore, Restore::Sent(_)) {
                member.restore = Restore::No;
            }
            let Some((version, confirmed)) = running else {
                return member.lose_everything(ended);
            };
            member.seen = member.seen.max(version.generation);
            member.run(version);
            if matches!(member.phase, Phase::Failed { .. }) {
                return;
            }
            if Some(version) != target {
                member.phase = Phase::Idle;
                return;
            }
            member.sent_ms.get_or_insert(now);
            if confirmed {
                member.phase = Phase::Confirmed;
            } else if member.phase != Phase::Confirmed {
                member.phase = Phase::Applied;
            }
        });
    }

    fn newcomer(&self, key: &SidecarKey, canary: bool, now: u64) -> Member {
        let target = self.target(key).map(|target| target.hash);
        Member {
            affected: target.is_some() && target != self.base_hash(key.identity()),
            canary,
            draw: draw(key, self.release.number),
            online: true,
            joined_ms: now,
            asked_ms: now,
            heard_ms: now,
            sent_ms: None,
            seen: 0,
            running: None,
            previous: None,
            phase: Phase::Idle,
            restore: Restore::No,
        }
    }

    /// A connection ended. After the rollout only failures are remembered of those who are away.
    fn part(&mut self, key: &SidecarKey) {
        let ended = !self.is_running();
        let failed = self.members.get(key).is_some_and(Member::is_failed);
        if ended && !failed {
            self.members.remove(key);
        } else {
            self.members.update(key, |member| member.online = false);
        }
    }

    /// Forgets who has been away for so long that the fleet would have forgotten it, had it known
    /// it: after a restart nobody says of those who never came back that they are gone.
    pub(super) fn forget(&mut self, now: u64) {
        let tally = self.members.tally();
        if tally.affected.saturating_sub(tally.away) * BACK_ONE_IN < tally.affected {
            // It could as well be the pusher that is cut off.
            return;
        }
        let is_gone = |member: &Member| {
            !member.online && now >= member.heard_ms.saturating_add(FORGET_AFTER_MS)
        };
        let gone = self.members.iter().filter(|(_, member)| is_gone(member));
        let gone: Vec<SidecarKey> = gone.map(|(key, _)| key.clone()).collect();
        if gone.is_empty() {
            return;
        }
        gone.iter().for_each(|key| self.members.remove(key));
        self.is_cut_off &= self.most_are_away();
        self.revision += 1;
    }

    /// The pusher began anew: everybody is away, and is given time to come back.
    fn restart(&mut self, now: u64) {
        let waits = self.plan.waits();
        self.grace_until_ms = now.saturating_add(waits.missing_ms.max(waits.stage_ms));
        self.is_cut_off = self.members.tally().affected > 0;
        for key in self.members.keys() {
            self.part(&key);
            self.members.update(&key, |member| {
                member.heard_ms = now;
                // The time in which nobody could answer does not count against it.
                member.sent_ms = member.sent_ms.map(|_| now);
            });
        }
        self.revision += 1;
    }

    /// A sidecar said how it stands with a version.
    fn hear(&mut self, key: &SidecarKey, entry: Entry, now: u64) {
        let version = entry.version;
        let target = self.target(key);
        let base = self.base_hash(key.identity());
        let backs = [self.release.restore_generation(), self.release.revert_generation()];
        let is_back = Some(version.hash) == base && backs.contains(&version.generation);
        let ended = matches!(self.state, State::Halted { .. });
        let mut has_failed = false;
        self.members.update(key, |member| {
            member.heard_ms = now;
            let failed_before = member.is_failed();
            if entry.is_late(member.seen, member.running) {
                return;
            }
            member.seen = member.seen.max(version.generation);
            if is_back {
                member.hear_of_return(version, &entry.state, ended);
            } else if Some(version) == target {
                member.hear_of_release(version, entry.state, now);
            } else {
                member.hear_of_other(version, &entry.state);
            }
            has_failed = member.is_failed() && !failed_before;
        });
        if has_failed {
            // Written down before the sidecar may forget it.
            self.revision += 1;
        }
    }
}

impl Member {
    /// It has no policy at all: a new disk, or a new workload under an old name.
    fn lose_everything(&mut self, ended: bool) {
        self.running = None;
        self.previous = None;
        self.seen = 0;
        self.restore = Restore::No;
        // While the release is under way, a failure counts whatever came after it.
        if ended || !self.is_failed() {
            self.phase = Phase::Idle;
        }
    }

    fn hear_of_release(&mut self, version: Version, state: fleet::State, now: u64) {
        if self.is_failed() {
            return;
        }
        match state {
            fleet::State::Staged => {
                // Said again after a commit, it did not get it, or lost it.
                if !matches!(self.phase, Phase::Applied | Phase::Confirmed) {
                    self.phase = Phase::Staged;
                }
            }
            fleet::State::Rejected(reason) => {
                if !matches!(self.phase, Phase::Applied | Phase::Confirmed) {
                    self.phase = Phase::Failed { kind: FailureKind::Rejected, reason };
                }
            }
            fleet::State::Applied => {
                self.run(version);
                self.sent_ms.get_or_insert(now);
                if self.phase != Phase::Confirmed {
                    self.phase = Phase::Applied;
                }
            }
            fleet::State::Confirmed => {
                self.run(version);
                self.sent_ms.get_or_insert(now);
                self.phase = Phase::Confirmed;
            }
            fleet::State::RolledBack(reason) => {
                self.undo(version);
                self.phase = Phase::Failed { kind: FailureKind::RolledBack, reason };
            }
        }
    }

    fn hear_of_return(&mut self, version: Version, state: &fleet::State, halted: bool) {
        match state {
            fleet::State::Staged => {}
            fleet::State::Applied | fleet::State::Confirmed => {
                self.run(version);
                self.restore = Restore::No;
                if halted && !self.is_failed() {
                    self.phase = Phase::Idle;
                }
            }
            fleet::State::Rejected(_) | fleet::State::RolledBack(_) => {
                self.undo(version);
                self.restore = Restore::Failed(version.generation);
            }
        }
    }

    fn hear_of_other(&mut self, version: Version, state: &fleet::State) {
        match state {
            fleet::State::Staged | fleet::State::Rejected(_) => {}
            fleet::State::Applied | fleet::State::Confirmed => self.run(version),
            fleet::State::RolledBack(_) => self.undo(version),
        }
    }
}

impl Members {
    /// The first member that failed, how and why.
    pub(super) fn first_failed(&self) -> Option<(SidecarKey, FailureKind, String)> {
        self.iter().find_map(|(key, member)| match &member.phase {
            Phase::Failed { kind, reason } => Some((key.clone(), *kind, reason.clone())),
            Phase::Idle
            | Phase::Staging
            | Phase::Staged
            | Phase::Committed
            | Phase::Applied
            | Phase::Confirmed => None,
        })
    }
}
