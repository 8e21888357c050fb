//! A rollout: brings one release to the sidecars step by step, and back by itself when it harms.
//!
//! ```text
//!  start ──▶ Staging ──all staged, or at most 5 % missing──▶ Holding{step} ◀─┐ held, all well:
//!    │          │                                              │   │   └─────┘ the next step
//!    │          │ rejected, > 5 % missing, abort               │   │ the last step held, all well
//!    │          ▼                                              │   ▼
//!    │        Halted ◀──rolled back, > 5 % missing, abort──────┘ Confirmed
//!    └── nobody concerned is connected ────────────────────────────▲
//! ```
//!
//! In its two ends a rollout goes on to bring those who connect to the release (Confirmed), or to
//! the last good one (Halted), until the next release takes its place.
//!
//! # Invariants
//! - Nobody is told to apply before everybody who is connected and concerned has staged, or the
//!   stage is over and at most 5 % have not.
//! - Nobody is told to apply what it did not say to have staged on this connection.
//! - Halted sends nothing but reverts. A rollout never leaves Halted or Confirmed.
//! - Deadlines are absolute, and the state is written down before the commands are carried out (see
//!   [`Rollout::revision`]): a restart neither repeats nor skips a step.
//! - Only a tick walks over all members; an event costs the logarithm of their number, but for
//!   those that begin a step or an end, of which there are a dozen in a rollout.
//!
//! # Not here
//! Which release may follow which (`conductor`), frames and connections (the server).

use serde::{Deserialize, Serialize};

use crate::fleet::{Event, Fleet};
use crate::release::{Classes, Release};
use crate::version::{PolicyHash, SidecarKey, Version};

mod errand;
mod judge;
mod member;
mod plan;
mod reports;
mod summary;
mod why;

pub use plan::{Plan, PlanFault, Step, Waits, draw};
pub use summary::{Progress, RolloutSummary};
pub use why::{Place, Why};

use member::Members;

/// How often those who have not answered are looked through, in milliseconds.
const LOOK_EVERY_MS: u64 = 1_000;

/// What the server is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Send the policy to be checked and kept ready: a frame STAGE.
    Stage {
        /// To whom.
        sidecar: SidecarKey,
        /// Its order.
        generation: u64,
        /// Which policy.
        hash: PolicyHash,
    },
    /// Let it apply what it staged: a frame COMMIT.
    Commit {
        /// To whom.
        sidecar: SidecarKey,
        /// The order that it staged.
        generation: u64,
        /// The policy that it staged.
        hash: PolicyHash,
        /// How long it is to watch itself.
        probation_ms: u64,
    },
    /// Bring it to the last good policy: frames STAGE and COMMIT in one go, without probation.
    Revert {
        /// To whom.
        sidecar: SidecarKey,
        /// Its order, above every one it got.
        generation: u64,
        /// The last good policy of its class.
        hash: PolicyHash,
    },
    /// Every sidecar that is concerned runs the release: it is the last good one now.
    Finished {
        /// Which release.
        release: u64,
    },
    /// The release is stopped, and the reverts are under way.
    Halted {
        /// Which release.
        release: u64,
        /// Where and why, in words.
        why: String,
    },
}

impl Command {
    /// The sidecar that is to be told, if one is.
    #[must_use]
    pub fn sidecar(&self) -> Option<&SidecarKey> {
        match self {
            Command::Stage { sidecar, .. }
            | Command::Commit { sidecar, .. }
            | Command::Revert { sidecar, .. } => Some(sidecar),
            Command::Finished { .. } | Command::Halted { .. } => None,
        }
    }
}

/// Where a rollout is. Drawn above; it moves by `open_gate`, `begin_step`, `confirm` and `halt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Everybody checks the policy, nobody applies it.
    Staging {
        /// When those who did not answer are missing.
        until_ms: u64,
    },
    /// A step applies it and is watched.
    Holding {
        /// Which of the steps.
        at: usize,
        /// The earliest end.
        until_ms: u64,
    },
    /// All run it.
    Confirmed,
    /// Stopped; those who applied it return.
    Halted {
        /// Where it was stopped.
        place: Place,
        /// Why.
        why: Why,
    },
}

/// Why an operator's word was not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlFault {
    /// No release is being rolled out.
    #[error("no release is being rolled out")]
    NotRunning,
    /// Paused already.
    #[error("the rollout is paused by {0} already")]
    Paused(String),
    /// Not paused.
    #[error("the rollout is not paused")]
    NotPaused,
}

/// One release on its way to the sidecars.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rollout {
    release: Release,
    /// The last good policies, which everybody returns to.
    base: Classes,
    plan: Plan,
    state: State,
    /// Known from the opening of the gate.
    steps: Vec<Step>,
    members: Members,
    paused_by: Option<String>,
    /// Until then nobody is missing: the pusher itself was away.
    grace_until_ms: u64,
    /// Since the pusher itself was away, not even half of the sidecars have come back.
    is_cut_off: bool,
    /// When those who have not answered were looked through last.
    looked_ms: u64,
    revision: u64,
}

impl Rollout {
    /// The classes that it names.
    pub(crate) fn classes(&self) -> [&Classes; 2] {
        [&self.release.classes, &self.base]
    }

    /// The same, to be found.
    pub(crate) fn classes_mut(&mut self) -> [&mut Classes; 2] {
        [&mut self.release.classes, &mut self.base]
    }

    /// Begins: tells every connected sidecar of the classes that change to stage the release.
    ///
    /// `base` is the last good release.
    #[must_use]
    pub fn start(
        release: Release,
        plan: Plan,
        base: Option<&Release>,
        fleet: &Fleet,
        now: u64,
    ) -> (Rollout, Vec<Command>) {
        let until_ms = now.saturating_add(plan.waits().stage_ms);
        let mut rollout = Rollout {
            release,
            base: base.map(|base| base.classes.clone()).unwrap_or_default(),
            plan,
            state: State::Staging { until_ms },
            steps: Vec::new(),
            members: Members::default(),
            paused_by: None,
            grace_until_ms: 0,
            is_cut_off: false,
            looked_ms: now,
            revision: 1,
        };
        for (key, sidecar) in fleet.sidecars().filter(|(_, sidecar)| sidecar.is_connected()) {
            let confirmed = sidecar.applied() == sidecar.confirmed();
            let running = sidecar.applied().map(|version| (version, confirmed));
            rollout.meet(key, sidecar.is_canary(), running, now);
        }
        let mut commands = rollout.drive_all(now);
        commands.extend(rollout.judge(now));
        (rollout, commands)
    }

    /// Takes what happened to a sidecar.
    #[must_use = "commands are to be carried out"]
    pub fn on_event(&mut self, event: Event, now: u64) -> Vec<Command> {
        let Some(sidecar) = self.note(event, now) else {
            return self.judge(now);
        };
        let mut commands: Vec<Command> = self.drive(&sidecar, now).into_iter().collect();
        commands.extend(self.judge(now));
        commands
    }

    /// Looks who is missing, and goes on when a wait is over. Walks over all sidecars once.
    #[must_use = "commands are to be carried out"]
    pub fn tick(&mut self, now: u64) -> Vec<Command> {
        self.looked_ms = now;
        self.forget(now);
        let missing = self.missing(now);
        if let Some(why) = self.too_many_missing(&missing) {
            return self.halt(why, now);
        }
        self.go_on(missing.count, now)
    }

    /// When [`Rollout::tick`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let look = self.looked_ms.saturating_add(LOOK_EVERY_MS);
        match self.state {
            State::Staging { .. } if self.members.tally().awaited == 0 => {
                Some(self.grace_until_ms.max(look))
            }
            State::Staging { until_ms } => Some(until_ms.max(self.grace_until_ms).max(look)),
            State::Holding { until_ms, .. } if self.members.tally().unsettled == 0 => {
                Some(until_ms.max(self.grace_until_ms).max(look))
            }
            State::Holding { .. } => Some(look),
            State::Confirmed | State::Halted { .. } => None,
        }
    }

    /// Begins no further step, and lets nobody else apply, until it is resumed. Time goes on, and
    /// so does the watch over those who applied.
    ///
    /// # Errors
    /// That it has ended, or is paused.
    pub fn pause(&mut self, by: &str) -> Result<(), ControlFault> {
        self.check_running()?;
        if let Some(by) = &self.paused_by {
            return Err(ControlFault::Paused(by.clone()));
        }
        self.paused_by = Some(by.to_owned());
        self.revision += 1;
        Ok(())
    }

    /// Goes on after a pause; a wait that ended meanwhile is over.
    ///
    /// # Errors
    /// That it has ended, or is not paused.
    pub fn resume(&mut self, now: u64) -> Result<Vec<Command>, ControlFault> {
        self.check_running()?;
        self.paused_by.take().ok_or(ControlFault::NotPaused)?;
        self.revision += 1;
        let mut commands = self.drive_all(now);
        commands.extend(self.tick(now));
        Ok(commands)
    }

    /// Stops, and brings those who applied the release back.
    ///
    /// # Errors
    /// That it has ended.
    pub fn abort(&mut self, by: &str, now: u64) -> Result<Vec<Command>, ControlFault> {
        self.check_running()?;
        Ok(self.halt(Why::Aborted { by: by.to_owned() }, now))
    }

    /// Skips the waits: after the stage, which is not skipped, all apply at once.
    ///
    /// # Errors
    /// That it has ended, or is paused.
    pub fn hurry(&mut self, now: u64) -> Result<Vec<Command>, ControlFault> {
        self.check_running()?;
        if let Some(by) = &self.paused_by {
            return Err(ControlFault::Paused(by.clone()));
        }
        self.plan.hurry();
        self.revision += 1;
        if !matches!(self.state, State::Holding { .. }) {
            return Ok(Vec::new());
        }
        self.state = State::Holding { at: self.steps.len() - 1, until_ms: now };
        let mut commands = self.drive_all(now);
        commands.extend(self.judge(now));
        Ok(commands)
    }

    /// The release.
    #[must_use]
    pub fn release(&self) -> &Release {
        &self.release
    }

    /// Whether it has neither been confirmed nor halted.
    #[must_use]
    pub fn is_running(&self) -> bool {
        match self.state {
            State::Staging { .. } | State::Holding { .. } => true,
            State::Confirmed | State::Halted { .. } => false,
        }
    }

    /// Where and why it was halted, in words.
    #[must_use]
    pub fn halted(&self) -> Option<String> {
        match &self.state {
            State::Halted { place, why } => Some(format!("at {place}: {why}")),
            State::Staging { .. } | State::Holding { .. } | State::Confirmed => None,
        }
    }

    /// Rises when something changed that must not be lost. What sidecars reported meanwhile they
    /// say again when they connect.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn check_running(&self) -> Result<(), ControlFault> {
        if self.is_running() { Ok(()) } else { Err(ControlFault::NotRunning) }
    }

    /// The last good policy of a class; a class that the release does not change has it too.
    fn base_hash(&self, class: &str) -> Option<PolicyHash> {
        self.base.get(class).copied()
    }

    /// What the release has for a sidecar.
    fn target(&self, key: &SidecarKey) -> Option<Version> {
        self.release.version(key.identity())
    }

    /// The stage is over: fixes the steps and begins the first.
    fn open_gate(&mut self, now: u64) -> Vec<Command> {
        let concerned = || self.members.iter().filter(|(_, it)| it.affected && it.online);
        let candidates = concerned().map(|(key, member)| member.candidate(key));
        self.steps = self.plan.steps(concerned().count(), candidates);
        self.begin_step(0, now)
    }

    /// Begins the first step from this one on that has somebody new, or confirms.
    fn begin_step(&mut self, from: usize, now: u64) -> Vec<Command> {
        self.revision += 1;
        let waits = self.plan.waits();
        for at in from..self.steps.len() {
            if self.is_empty_step(at, now) {
                continue;
            }
            let until_ms = now.saturating_add(waits.probation_ms).saturating_add(waits.bake_ms);
            self.state = State::Holding { at, until_ms };
            return self.drive_all(now);
        }
        self.confirm(now)
    }

    /// Whether this step has nobody who can still get the release by it.
    fn is_empty_step(&self, at: usize, now: u64) -> bool {
        let stage_ms = self.plan.waits().stage_ms;
        let step = &self.steps[at];
        let mut members = self.members.iter();
        !members.any(|(key, it)| it.is_next(now, stage_ms) && step.contains(it.candidate(key)))
    }

    /// The release is the last good one.
    fn confirm(&mut self, now: u64) -> Vec<Command> {
        self.revision += 1;
        self.state = State::Confirmed;
        self.paused_by = None;
        let mut commands = vec![Command::Finished { release: self.release.number }];
        commands.extend(self.drive_all(now));
        commands
    }

    /// Stops, and brings those who applied the release back.
    fn halt(&mut self, why: Why, now: u64) -> Vec<Command> {
        self.revision += 1;
        let place = match &self.state {
            State::Holding { at, .. } => Place::Step(self.steps[*at].clone()),
            State::Staging { .. } | State::Confirmed | State::Halted { .. } => Place::Stage,
        };
        let words = format!("at {place}: {why}");
        self.state = State::Halted { place, why };
        self.paused_by = None;
        let mut commands = vec![Command::Halted { release: self.release.number, why: words }];
        commands.extend(self.drive_all(now));
        commands
    }
}

#[cfg(test)]
mod tests;
