//! Whether a rollout stops, waits, or goes on.
//!
//! # Invariants
//! - A step ends when its time is over and everybody in it is well, failed or missing, within the
//!   limits below.
//! - No step begins while more than half of the sidecars that are concerned are away.
//! - After a restart nothing happens until half of them have come back: that the pusher is cut off
//!   is no news of the release.

use super::member::{Member, Phase};
use super::plan::Candidate;
use super::{Command, Rollout, State, Why};
use crate::version::SidecarKey;

/// Below so many in a step, one failure is enough to stop.
const SMALL_STEP: usize = 10;
/// Otherwise at least so many.
const FAILED_MIN: usize = 2;
/// And at least one in so many: 2 %.
const FAILED_ONE_IN: usize = 50;
/// More missing than one in so many stop: 5 %.
const MISSING_ONE_IN: usize = 20;

/// Who does not answer.
pub(super) struct Missing {
    pub(super) count: usize,
    first: Option<SidecarKey>,
}

impl Rollout {
    /// What follows from the numbers, without a look at each sidecar.
    pub(super) fn judge(&mut self, now: u64) -> Vec<Command> {
        if self.too_many_failed() {
            return match self.failure() {
                Some(why) => self.halt(why, now),
                None => Vec::new(),
            };
        }
        let tally = self.members.tally();
        match self.state {
            State::Staging { .. } if tally.awaited == 0 => self.go_on(0, now),
            State::Holding { .. } if tally.unsettled == 0 => self.go_on(0, now),
            State::Staging { .. }
            | State::Holding { .. }
            | State::Confirmed
            | State::Halted { .. } => Vec::new(),
        }
    }

    /// Goes on if a wait is over; `missing` is how many are not waited for.
    pub(super) fn go_on(&mut self, missing: usize, now: u64) -> Vec<Command> {
        if self.paused_by.is_some() || self.is_cut_off {
            return Vec::new();
        }
        let tally = self.members.tally();
        match self.state {
            State::Staging { until_ms } => {
                let latest = until_ms.saturating_add(self.plan.waits().stage_ms);
                let over = now >= until_ms.max(self.grace_until_ms)
                    && (tally.awaited <= missing || now >= latest);
                if over || (tally.awaited == 0 && !self.is_in_grace(now)) {
                    return self.open_gate(now);
                }
            }
            State::Holding { at, until_ms } => {
                let over = now >= until_ms && !self.is_in_grace(now);
                let settled = tally.unsettled <= missing && !self.most_are_away();
                if over && settled && self.is_empty_step(at, now) {
                    return self.begin_step(at + 1, now);
                }
            }
            State::Confirmed | State::Halted { .. } => {}
        }
        Vec::new()
    }

    /// Whether some are away because the pusher was.
    fn is_in_grace(&self, now: u64) -> bool {
        now < self.grace_until_ms && self.members.tally().away > 0
    }

    /// Whether more than half of those who are concerned are not connected.
    pub(super) fn most_are_away(&self) -> bool {
        let tally = self.members.tally();
        tally.away * 2 > tally.affected
    }

    fn too_many_failed(&self) -> bool {
        let tally = self.members.tally();
        if tally.failed == 0 {
            return false;
        }
        match &self.state {
            State::Staging { .. } => true,
            State::Holding { at, .. } => {
                let few = self.steps[*at].is_first() || tally.in_step < SMALL_STEP;
                let share = tally.failed * FAILED_ONE_IN >= tally.in_step;
                few || (tally.failed >= FAILED_MIN && share)
            }
            State::Confirmed | State::Halted { .. } => false,
        }
    }

    fn failure(&self) -> Option<Why> {
        let (sidecar, kind, reason) = self.members.first_failed()?;
        let failed = self.members.tally().failed;
        Some(Why::Failed { sidecar, kind, reason, failed, of: self.watched() })
    }

    /// How many are to answer at present.
    pub(super) fn watched(&self) -> usize {
        match self.state {
            State::Staging { .. } => self.members.tally().affected,
            State::Holding { .. } | State::Confirmed | State::Halted { .. } => {
                self.members.tally().in_step
            }
        }
    }

    /// Looks who is missing.
    pub(super) fn missing(&self, now: u64) -> Missing {
        let mut missing = Missing { count: 0, first: None };
        for (key, member) in self.members.iter() {
            if self.is_missing(member, now) {
                missing.count += 1;
                missing.first.get_or_insert_with(|| key.clone());
            }
        }
        missing
    }

    fn is_missing(&self, member: &Member, now: u64) -> bool {
        let waits = self.plan.waits();
        if now < self.grace_until_ms || self.is_cut_off {
            return false;
        }
        match self.state {
            // Who came later than that is late, not missing.
            State::Staging { until_ms } => {
                let late = now < member.joined_ms.saturating_add(waits.stage_ms);
                now >= until_ms && !late && member.is_awaited()
            }
            State::Holding { .. } => {
                let silent = now >= member.heard_ms.saturating_add(waits.missing_ms);
                let patience = 2 * (waits.probation_ms + waits.missing_ms);
                let slow = member.sent_ms.is_some_and(|sent| now >= sent.saturating_add(patience));
                member.is_unsettled() && (silent || slow)
            }
            State::Confirmed | State::Halted { .. } => false,
        }
    }

    /// Why to stop, if so many may not be missing.
    pub(super) fn too_many_missing(&self, missing: &Missing) -> Option<Why> {
        let of = self.watched();
        let sidecar = missing.first.clone()?;
        let stops = missing.count * MISSING_ONE_IN > of;
        stops.then_some(Why::Missing { sidecar, missing: missing.count, of })
    }
}

impl Member {
    pub(super) fn candidate<'m>(&self, key: &'m SidecarKey) -> Candidate<'m> {
        Candidate { key, canary: self.canary, draw: self.draw }
    }

    pub(super) fn is_failed(&self) -> bool {
        matches!(self.phase, Phase::Failed { .. })
    }
}
