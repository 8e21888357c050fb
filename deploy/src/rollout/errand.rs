//! What one sidecar is to be told next.
//!
//! # Invariants
//! - One command at a time: the next follows the answer to the last.
//! - Generations rise within a connection, and above what the sidecar ran when it connected.

use super::member::{Member, Phase, Restore};
use super::{Command, Rollout, State};
use crate::version::{SidecarKey, Version};

/// What a sidecar is to be told.
enum Errand {
    Nothing,
    Stage(Version),
    Commit(Version),
    Revert(Version),
}

impl Rollout {
    /// Tells one sidecar what is next for it.
    pub(super) fn drive(&mut self, key: &SidecarKey, now: u64) -> Option<Command> {
        let member = self.members.get(key)?;
        let errand = if member.online { self.errand(key, member) } else { Errand::Nothing };
        let sidecar = key.clone();
        match errand {
            Errand::Nothing => None,
            Errand::Stage(Version { generation, hash }) => {
                self.members.update(key, |member| {
                    member.phase = Phase::Staging;
                    member.asked_ms = now;
                });
                Some(Command::Stage { sidecar, generation, hash })
            }
            Errand::Commit(Version { generation, hash }) => {
                self.members.update(key, |member| {
                    member.phase = Phase::Committed;
                    member.sent_ms.get_or_insert(now);
                });
                let probation_ms = self.plan.waits().probation_ms;
                Some(Command::Commit { sidecar, generation, hash, probation_ms })
            }
            Errand::Revert(Version { generation, hash }) => {
                self.members.update(key, |member| {
                    member.restore = Restore::Sent(generation);
                    member.asked_ms = now;
                });
                Some(Command::Revert { sidecar, generation, hash })
            }
        }
    }

    /// Tells everybody.
    pub(super) fn drive_all(&mut self, now: u64) -> Vec<Command> {
        let keys = self.members.keys();
        keys.iter().filter_map(|key| self.drive(key, now)).collect()
    }

    fn errand(&self, key: &SidecarKey, member: &Member) -> Errand {
        match &self.state {
            State::Staging { .. } => self.errand_of_step(key, member, false),
            State::Holding { at, .. } => {
                let reached = self.steps[*at].contains(member.candidate(key));
                self.errand_of_step(key, member, reached && self.paused_by.is_none())
            }
            State::Confirmed => self.errand_at_end(key, member),
            State::Halted { .. } => self.errand_back(key, member, self.release.revert_generation()),
        }
    }

    /// While the release is under way.
    fn errand_of_step(&self, key: &SidecarKey, member: &Member, may_apply: bool) -> Errand {
        let back = || self.errand_back(key, member, self.release.restore_generation());
        let Some(target) = self.target(key).filter(|_| member.affected) else {
            return back();
        };
        match member.phase {
            Phase::Idle => match back() {
                // It lacks even the last good policy: that first, the release after.
                Errand::Revert(version) => Errand::Revert(version),
                _ if matches!(member.restore, Restore::Sent(_)) => Errand::Nothing,
                _ => Errand::Stage(target),
            },
            Phase::Staged if may_apply => Errand::Commit(target),
            Phase::Failed { .. } => back(),
            Phase::Staging
            | Phase::Staged
            | Phase::Committed
            | Phase::Applied
            | Phase::Confirmed => Errand::Nothing,
        }
    }

    /// When the release is confirmed: whoever lacks it gets it by itself.
    fn errand_at_end(&self, key: &SidecarKey, member: &Member) -> Errand {
        let Some(target) = self.target(key) else { return Errand::Nothing };
        if member.running.is_some_and(|running| running.hash == target.hash)
            || member.seen > target.generation
        {
            return Errand::Nothing;
        }
        match member.phase {
            Phase::Idle => Errand::Stage(target),
            Phase::Staged => Errand::Commit(target),
            Phase::Staging
            | Phase::Committed
            | Phase::Applied
            | Phase::Confirmed
            | Phase::Failed { .. } => Errand::Nothing,
        }
    }

    /// Back to the last good policy, under this generation, if the sidecar does not run it.
    fn errand_back(&self, key: &SidecarKey, member: &Member, generation: u64) -> Errand {
        let Some(hash) = self.base_hash(key.identity()) else { return Errand::Nothing };
        let in_doubt = member.phase == Phase::Committed;
        let runs_it = !in_doubt && member.running.is_some_and(|running| running.hash == hash);
        let was_told = match member.restore {
            Restore::Sent(told) | Restore::Failed(told) => told >= generation,
            Restore::No => false,
        };
        if runs_it || was_told || member.seen > generation {
            return Errand::Nothing;
        }
        Errand::Revert(Version { generation, hash })
    }
}
