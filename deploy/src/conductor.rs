//! The conductor: the fleet, the history of releases, and the one rollout that is current.
//!
//! ```text
//!  sidecars ──hello, report, goodbye──▶ fleet ──events──▶ rollout ──commands──▶ server
//!  operators ──release, rollback, pause, resume, abort, now──▲
//!  clock ──tick──────────────────────────────────────────────▲      history ◀── how it ended
//! ```
//!
//! The server calls this and nothing else of the rollout. Each call returns what is to be sent.
//!
//! # Invariants
//! - One rollout at a time; another release is refused, or takes its place when that is asked for.
//! - When [`Conductor::revision`] changed, [`Conductor::stored`] is written down before the
//!   commands of that call are carried out. Then a restart neither repeats nor skips a step.
//!
//! # Not here
//! The store, the policies by hash, connections.

use serde::{Deserialize, Serialize};

use crate::fleet::{ConnectionId, Event, Fleet, FleetFault, Hello, Report};
use crate::release::{Classes, Draft, DraftFault, History, KnownClasses, Outcome, Profile};
use crate::rollout::{Command, ControlFault, Plan, Rollout, RolloutSummary};
use crate::version::{PolicyHash, SidecarKey, Version};

/// How often the fleet is looked through for those who are away for too long.
const SWEEP_EVERY_MS: u64 = 60_000;

/// Why there is no release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseFault {
    /// Another one is being rolled out, and it was not asked to take its place.
    #[error("release {0} is being rolled out")]
    Running(u64),
    /// Something is wrong with it.
    #[error(transparent)]
    Draft(#[from] DraftFault),
}

/// What must outlive the pusher.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Stored {
    history: History,
    rollout: Option<Rollout>,
}

impl Stored {
    /// The state of a pusher that never ran, or that lost its state while sidecars may remember
    /// generations up to this one.
    #[must_use]
    pub fn starting_above(generation: u64) -> Stored {
        Stored { history: History::starting_above(generation), rollout: None }
    }

    /// All classes that are named, each as often as it is.
    pub fn classes(&self) -> impl Iterator<Item = &Classes> {
        let released = self.history.entries().iter().map(|entry| &entry.release.classes);
        released.chain(self.rollout.iter().flat_map(Rollout::classes))
    }

    /// Finds the classes that are only named, as after reading, among those that are known.
    ///
    /// # Errors
    /// The hash of some that are not.
    pub fn find(&mut self, known: &KnownClasses) -> Result<(), PolicyHash> {
        let named = self.rollout.iter_mut().flat_map(Rollout::classes_mut);
        for classes in self.history.classes_mut().chain(named) {
            if !classes.find(known) {
                return Err(classes.hash());
            }
        }
        Ok(())
    }
}

/// The fleet, the history, and the current rollout.
#[derive(Debug, Default)]
pub struct Conductor {
    fleet: Fleet,
    stored: Stored,
    /// What happened outside of the rollout that must be written down.
    revision: u64,
    swept_ms: u64,
}

impl Conductor {
    /// Goes on from what was stored. No sidecar is connected.
    #[must_use]
    pub fn restore(stored: Stored, now: u64) -> Conductor {
        let mut conductor =
            Conductor { stored, swept_ms: now, revision: 1, ..Conductor::default() };
        if let Some(rollout) = &mut conductor.stored.rollout {
            let commands = rollout.on_event(Event::Restarted, now);
            // Who is away is told nothing.
            debug_assert!(commands.is_empty(), "{commands:?}");
        }
        conductor
    }

    /// Takes a release and begins to roll it out.
    ///
    /// # Errors
    /// That another one is under way, unless `supersede`; or what is wrong with this one.
    pub fn release(
        &mut self,
        draft: Draft,
        supersede: bool,
        now: u64,
    ) -> Result<Vec<Command>, ReleaseFault> {
        let plan = Plan::of(draft.profile);
        self.release_by(plan, draft, supersede, now)
    }

    /// Takes a release and rolls it out by a plan of its own.
    ///
    /// # Errors
    /// As [`Conductor::release`].
    pub fn release_by(
        &mut self,
        plan: Plan,
        draft: Draft,
        supersede: bool,
        now: u64,
    ) -> Result<Vec<Command>, ReleaseFault> {
        let running = self.running().map(|rollout| rollout.release().number);
        if let Some(number) = running.filter(|_| !supersede) {
            return Err(ReleaseFault::Running(number));
        }
        let release = self.stored.history.add(draft, now)?;
        self.revision += 1;
        if let Some(number) = running {
            let outcome = Outcome::Superseded { at_ms: now, by: release.number };
            self.stored.history.settle(number, outcome);
        }
        if let Some(rollout) = &self.stored.rollout {
            self.revision += rollout.revision();
            self.fleet.unwant(rollout.release().generation);
        }
        let base = self.stored.history.last_good();
        let (rollout, commands) = Rollout::start(release, plan, base, &self.fleet, now);
        self.stored.rollout = Some(rollout);
        Ok(self.note(commands, now))
    }

    /// Releases the policies of an earlier release again; without a number, of the good one before
    /// the last good one, so that a second rollback undoes the first.
    ///
    /// # Errors
    /// As [`Conductor::release`], and that there is no such release.
    pub fn rollback(
        &mut self,
        to: Option<u64>,
        author: &str,
        profile: Profile,
        supersede: bool,
        now: u64,
    ) -> Result<Vec<Command>, ReleaseFault> {
        let draft = Draft { profile, ..self.stored.history.draft_back(to, author)? };
        self.release(draft, supersede, now)
    }

    /// A sidecar connected.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn hello(
        &mut self,
        key: &SidecarKey,
        hello: Hello,
        connection: ConnectionId,
        now: u64,
    ) -> Result<Vec<Command>, FleetFault> {
        let events = self.fleet.hello(key, hello, connection, now)?;
        Ok(self.pass_on(events, now))
    }

    /// A connection ended.
    #[must_use = "commands are to be carried out"]
    pub fn goodbye(
        &mut self,
        key: &SidecarKey,
        connection: ConnectionId,
        now: u64,
    ) -> Vec<Command> {
        let event = self.fleet.goodbye(key, connection, now);
        self.pass_on(event, now)
    }

    /// A sidecar reported, under this connection.
    ///
    /// # Errors
    /// Why the report is not taken.
    pub fn report(
        &mut self,
        key: &SidecarKey,
        report: Report,
        connection: ConnectionId,
        now: u64,
    ) -> Result<Vec<Command>, FleetFault> {
        let events = self.fleet.report(key, report, connection, now)?;
        Ok(self.pass_on(events, now))
    }

    /// Does what is due; early calls do no harm.
    #[must_use = "commands are to be carried out"]
    pub fn tick(&mut self, now: u64) -> Vec<Command> {
        let mut commands = Vec::new();
        if now >= self.swept_ms.saturating_add(SWEEP_EVERY_MS) {
            self.swept_ms = now;
            let events = self.fleet.sweep(now);
            commands.extend(self.pass_on(events, now));
        }
        if let Some(rollout) = &mut self.stored.rollout {
            let due = rollout.tick(now);
            commands.extend(self.note(due, now));
        }
        commands
    }

    /// When [`Conductor::tick`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> u64 {
        let sweep = self.swept_ms.saturating_add(SWEEP_EVERY_MS);
        let rollout = self.stored.rollout.as_ref().and_then(Rollout::next_deadline);
        rollout.map_or(sweep, |deadline| deadline.min(sweep))
    }

    /// Lets nobody else apply the release until it is resumed.
    ///
    /// # Errors
    /// That there is nothing to pause.
    pub fn pause(&mut self, by: &str) -> Result<(), ControlFault> {
        self.rollout_mut()?.pause(by)
    }

    /// Goes on after a pause.
    ///
    /// # Errors
    /// That nothing is paused.
    pub fn resume(&mut self, now: u64) -> Result<Vec<Command>, ControlFault> {
        let commands = self.rollout_mut()?.resume(now)?;
        Ok(self.note(commands, now))
    }

    /// Stops the rollout, and brings those who applied the release back.
    ///
    /// # Errors
    /// That there is nothing to stop.
    pub fn abort(&mut self, by: &str, now: u64) -> Result<Vec<Command>, ControlFault> {
        let commands = self.rollout_mut()?.abort(by, now)?;
        Ok(self.note(commands, now))
    }

    /// Skips the waits of the rollout, but not the stage.
    ///
    /// # Errors
    /// That there is nothing to hurry, or that it is paused.
    pub fn hurry(&mut self, now: u64) -> Result<Vec<Command>, ControlFault> {
        let commands = self.rollout_mut()?.hurry(now)?;
        Ok(self.note(commands, now))
    }

    /// What each sidecar said of itself.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The releases, and what became of each.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.stored.history
    }

    /// How the current rollout stands; none before the first release.
    #[must_use]
    pub fn summary(&self, now: u64) -> Option<RolloutSummary> {
        Some(self.stored.rollout.as_ref()?.summary(now))
    }

    /// What is to be written down.
    #[must_use]
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Rises when [`Conductor::stored`] must be written down.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision + self.stored.rollout.as_ref().map_or(0, Rollout::revision)
    }

    /// The current rollout, for tests that look inside.
    #[cfg(test)]
    pub(crate) fn rollout(&self) -> Option<&Rollout> {
        self.stored.rollout.as_ref()
    }

    fn running(&self) -> Option<&Rollout> {
        self.stored.rollout.as_ref().filter(|rollout| rollout.is_running())
    }

    fn rollout_mut(&mut self) -> Result<&mut Rollout, ControlFault> {
        self.stored.rollout.as_mut().ok_or(ControlFault::NotRunning)
    }

    fn pass_on(&mut self, events: impl IntoIterator<Item = Event>, now: u64) -> Vec<Command> {
        let mut commands = Vec::new();
        for event in events {
            if let Some(rollout) = &mut self.stored.rollout {
                commands.extend(rollout.on_event(event, now));
            }
        }
        self.note(commands, now)
    }

    /// Notes what sidecars are told, and how the release ended.
    fn note(&mut self, commands: Vec<Command>, now: u64) -> Vec<Command> {
        for command in &commands {
            match command {
                Command::Stage { sidecar, generation, hash }
                | Command::Commit { sidecar, generation, hash, .. }
                | Command::Revert { sidecar, generation, hash } => {
                    let version = Version { generation: *generation, hash: *hash };
                    self.fleet.want(sidecar, version);
                }
                Command::Finished { release } => {
                    self.stored.history.settle(*release, Outcome::Confirmed { at_ms: now });
                }
                Command::Halted { release, why } => {
                    let outcome = Outcome::Halted { at_ms: now, why: why.clone() };
                    self.stored.history.settle(*release, outcome);
                    if let Some(rollout) = &self.stored.rollout {
                        self.fleet.unwant(rollout.release().generation);
                    }
                }
            }
        }
        commands
    }
}
