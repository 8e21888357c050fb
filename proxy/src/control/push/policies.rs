//! What becomes of the policies that the pusher sends.
//!
//! ```text
//! STAGE ─▶ checked, kept on disk ─▶ staged ─ COMMIT ─▶ recorded, applied ─▶ watched ─┬▶ confirmed
//!             └─▶ rejected                       └─▶ rejected                        └▶ undone
//!                                                                    going back ◀──────┘
//!                                                                      └▶ what was good before
//! ```
//!
//! # Invariants
//! - The record says that a policy is on probation before it is applied: whatever happens while it
//!   is, the next start knows.
//! - What was good before is in memory for as long as something else is on probation: going back
//!   does not hang on the disk, and is tried until it is done.
//! - A policy is confirmed once the record says so; one that was undone is not taken again.
//! - What is said again is answered again: a stage or commit of what runs changes nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use ringway_protocol::{CAPABILITIES, Commit, Running, Stage, State, StateReport, Traffic};

use super::probation::{Lately, Probation, Verdict};
use super::state::{Boot, Policy, StateDir, StateError};
use super::{Orders, STATES, SharedState};
use crate::control::status::Status;

/// Reports that wait to be sent; the oldest goes first when there are more.
const REPORTS_MAX: usize = 64;
/// Probation of a policy that the process was ended under, in order, ms.
const PROBATION_AGAIN_MS: u64 = 60_000;
/// Between two attempts to go back, ms: what doubles from the first to the second.
const BACK_AGAIN_MS: (u64, u64) = (1_000, 30_000);

/// A policy that is watched.
#[derive(Debug)]
struct Watched {
    probation: Probation,
    running: Running,
    applied: Instant,
    /// A connection to the pusher was made since it was applied.
    reached: bool,
}

/// A policy that is good, while the record does not say so yet.
#[derive(Debug)]
struct Confirming {
    running: Running,
    applied: Instant,
}

/// What is to be used again, in place of a policy that was undone.
#[derive(Debug)]
struct GoingBack {
    /// `None`: nothing, as before the first policy.
    target: Option<Running>,
    /// When to try, on the clock of [`Policies::look`], ms.
    at_ms: u64,
    /// How long to wait after another failure, ms.
    wait_ms: u64,
}

/// A policy of the last process that could not be applied yet.
#[derive(Debug)]
struct Waiting {
    policy: Policy,
    on_probation: bool,
}

/// The policies of a sidecar.
pub struct Policies {
    state: SharedState,
    orders: Orders,
    status: Arc<Status>,
    staged: Option<Policy>,
    /// What is in use.
    current: Option<Policy>,
    /// What was good before it, while it is not confirmed.
    good: Option<Policy>,
    watched: Option<Watched>,
    confirming: Option<Confirming>,
    going_back: Option<GoingBack>,
    waiting: Option<Waiting>,
    lately: Lately,
    reports: VecDeque<StateReport>,
}

impl Policies {
    /// What the start found. `applied`: the policy of `boot` is in use.
    #[must_use]
    pub fn new(
        state: SharedState,
        orders: Orders,
        status: Arc<Status>,
        boot: Boot,
        applied: bool,
        now_ms: u64,
    ) -> Policies {
        let mut policies = Policies {
            state,
            orders,
            status,
            staged: None,
            current: None,
            good: boot.previous.filter(|_| boot.on_probation),
            watched: None,
            confirming: None,
            going_back: None,
            waiting: None,
            lately: Lately::default(),
            reports: VecDeque::new(),
        };
        if let Some(refused) = boot.undone {
            policies.report(refused.running, State::RolledBack, refused.reason, 0);
        }
        let on_probation = boot.on_probation;
        match boot.policy {
            Some(policy) if applied => {
                let running = policy.running;
                policies.current = Some(policy);
                if on_probation {
                    policies.watch(running, PROBATION_AGAIN_MS, now_ms, 0.0, false);
                }
            }
            policy => policies.waiting = policy.map(|policy| Waiting { policy, on_probation }),
        }
        policies.show();
        policies
    }

    /// What is in use.
    #[must_use]
    pub fn running(&self) -> Option<Running> {
        self.current.as_ref().map(|policy| policy.running)
    }

    /// Whether what is in use is not confirmed yet.
    #[must_use]
    pub fn is_on_probation(&self) -> bool {
        self.watched.is_some() || self.confirming.is_some() || self.going_back.is_some()
    }

    /// What has become of policies, to be reported, the oldest first.
    pub fn reports(&self) -> impl Iterator<Item = &StateReport> {
        self.reports.iter()
    }

    /// Whether something is to be reported at once.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.reports.is_empty()
    }

    /// The pusher has taken the first `count` reports.
    pub fn reported(&mut self, count: usize) {
        for report in self.reports.drain(..count.min(self.reports.len())) {
            if report.state == State::RolledBack {
                let running = Running { generation: report.generation, hash: report.hash };
                note(self.state.with(|state| state.told(running)));
            }
        }
    }

    /// A connection to the pusher was made under what is in use now.
    pub fn reached(&mut self) {
        if let Some(watched) = &mut self.watched {
            watched.reached = true;
        }
    }

    /// The pusher wants a policy to be made ready.
    pub async fn stage(&mut self, stage: Stage) {
        let began = Instant::now();
        let running = Running { generation: stage.generation, hash: stage.hash };
        if let Some(reason) = self.refusal(running) {
            self.reject(running, reason, 0);
            return;
        }
        if self.running() == Some(running) {
            self.report_running(running);
            return;
        }
        let prepared = self.prepare(stage, running).await;
        let took_ms = began.elapsed().as_millis() as u64;
        match prepared {
            Ok(policy) => {
                tracing::info!(
                    generation = running.generation,
                    hash = %running.hash.short(),
                    took_ms,
                    "policy staged"
                );
                self.staged = Some(policy);
                self.report(running, State::Staged, String::new(), took_ms);
            }
            Err(reason) => self.reject(running, reason, took_ms),
        }
        self.show();
    }

    /// Why a policy is not taken again: it was undone here.
    fn refusal(&self, running: Running) -> Option<String> {
        let why = self.state.with(|state| state.refusal(running).map(str::to_owned))?;
        Some(format!("generation {} was undone here: {why}", running.generation))
    }

    /// Checks a policy and keeps it on disk.
    async fn prepare(&self, stage: Stage, running: Running) -> Result<Policy, String> {
        let highest = self.state.with(|state| state.highest());
        // The last one may come again: its file may have been lost.
        if running.generation < highest {
            return Err(format!(
                "generation {} is stale: {highest} was taken here already",
                running.generation
            ));
        }
        let missing: Vec<&str> = stage
            .requires
            .iter()
            .map(String::as_str)
            .filter(|needed| !CAPABILITIES.contains(needed))
            .collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(format!("unsupported: this version cannot do {missing}"));
        }
        let policy = Policy { running, text: stage.policy };
        self.orders.check(policy.clone()).await?;
        let kept = self.state.with(|state| state.keep(&policy));
        kept.map_err(|error| format!("it cannot be kept: {error}"))?;
        Ok(policy)
    }

    /// The pusher wants the staged policy to be applied.
    pub async fn commit(&mut self, commit: Commit, traffic: Traffic, now_ms: u64, reachable: bool) {
        let began = Instant::now();
        let running = Running { generation: commit.generation, hash: commit.hash };
        if self.state.with(|state| state.is_ended()) {
            // No fault of the policy: the pusher sees that the sidecar goes away.
            tracing::info!("a policy is not applied: the sidecar is about to end");
            return;
        }
        if let Some(reason) = self.refusal(running) {
            self.reject(running, reason, 0);
            return;
        }
        if self.running() == Some(running) {
            self.report_running(running);
            return;
        }
        let Some(policy) = self.staged.take_if(|policy| policy.running == running) else {
            self.reject(running, "it was not staged here".to_owned(), 0);
            return;
        };
        if let Err(reason) = self.apply(&policy).await {
            self.reject(running, reason, began.elapsed().as_millis() as u64);
            self.show();
            return;
        }
        self.replace(policy);
        self.lately.count(now_ms, traffic);
        // What was counted under a policy on probation says nothing about how it was before.
        let watched = self.watched.as_ref().map(|watched| watched.probation.before());
        let before = watched.unwrap_or_else(|| self.lately.share());
        let took_ms = began.elapsed().as_millis() as u64;
        self.report(running, State::Applied, String::new(), took_ms);
        self.watch(running, commit.probation_ms, now_ms, before, reachable);
        if commit.probation_ms == 0 {
            self.confirm();
        }
        self.show();
    }

    async fn apply(&self, policy: &Policy) -> Result<(), String> {
        let recorded = self.state.with(|state| {
            state.keep(policy)?;
            state.begin(policy.running)
        });
        let before = recorded.map_err(|error| format!("it cannot be recorded: {error}"))?;
        let applied = self.orders.apply(Some(policy.clone())).await;
        if applied.is_err() {
            note(self.state.with(|state| state.restore(before)));
        }
        applied
    }

    /// `policy` is in use from now on. What the record names to go back to is kept at hand.
    fn replace(&mut self, policy: Policy) {
        let previous = self.state.with(|state| state.previous());
        let waiting = self.waiting.take().map(|waiting| waiting.policy);
        let before = [self.current.replace(policy), self.good.take(), waiting];
        let is_previous = |policy: &Policy| Some(policy.running) == previous;
        self.good = before.into_iter().flatten().find(is_previous);
        (self.confirming, self.going_back) = (None, None);
    }

    fn watch(
        &mut self,
        running: Running,
        duration_ms: u64,
        now_ms: u64,
        before: f64,
        reachable: bool,
    ) {
        let start = self.lately.last();
        let probation = Probation::new(now_ms, duration_ms, start, before, reachable);
        let applied = Instant::now();
        self.watched = Some(Watched { probation, running, applied, reached: false });
    }

    /// Takes note of what has been counted, judges what is on probation, and tries again what has
    /// failed. About once a second.
    pub async fn look(&mut self, now_ms: u64, traffic: Traffic) {
        // What cannot be written was said when it failed first.
        let is_written = self.state.with(StateDir::flush).is_ok();
        if let Some(watched) = &self.watched {
            match watched.probation.look(now_ms, traffic, watched.reached) {
                Verdict::Watching => {}
                Verdict::Good => self.confirm(),
                Verdict::Harmful(harm) => self.undo(harm.to_string(), now_ms).await,
            }
        } else {
            if is_written {
                self.confirmed();
            }
            if self.going_back.is_some() {
                self.go_back(now_ms).await;
            } else {
                self.lately.count(now_ms, traffic);
                self.try_waiting(now_ms).await;
            }
        }
        self.show();
    }

    /// What the last process ran is tried again for as long as it cannot be applied: its
    /// certificate may have expired, or its port be taken for a moment.
    async fn try_waiting(&mut self, now_ms: u64) {
        let Some(Waiting { policy, on_probation }) = &self.waiting else { return };
        let (policy, on_probation) = (policy.clone(), *on_probation);
        if self.orders.apply(Some(policy.clone())).await.is_ok() {
            self.waiting = None;
            if on_probation {
                self.watch(policy.running, PROBATION_AGAIN_MS, now_ms, 0.0, false);
            }
            self.current = Some(policy);
        }
    }

    fn confirm(&mut self) {
        let Some(Watched { running, applied, .. }) = self.watched.take() else { return };
        self.confirming = Some(Confirming { running, applied });
        match self.state.with(StateDir::confirm) {
            Ok(()) => self.confirmed(),
            failed => note(failed),
        }
    }

    /// Says that what is good is confirmed, once that is written.
    fn confirmed(&mut self) {
        let Some(Confirming { running, applied }) = self.confirming.take() else { return };
        self.good = None;
        tracing::info!(
            generation = running.generation,
            hash = %running.hash.short(),
            "policy confirmed"
        );
        let took_ms = applied.elapsed().as_millis() as u64;
        self.report(running, State::Confirmed, String::new(), took_ms);
    }

    async fn undo(&mut self, reason: String, now_ms: u64) {
        let Some(Watched { running, applied, .. }) = self.watched.take() else { return };
        tracing::error!(
            generation = running.generation,
            hash = %running.hash.short(),
            "policy undone: {reason}"
        );
        let reason = StateReport::cut(reason);
        let (target, written) = self.state.with(|state| state.roll_back(reason.clone()));
        note(written);
        self.lately.clear();
        self.going_back = Some(GoingBack { target, at_ms: now_ms, wait_ms: BACK_AGAIN_MS.0 });
        self.go_back(now_ms).await;
        let took_ms = applied.elapsed().as_millis() as u64;
        self.report(running, State::RolledBack, reason, took_ms);
    }

    /// Uses again what was good before, if it is time to try.
    async fn go_back(&mut self, now_ms: u64) {
        let Some(back) = self.going_back.take_if(|back| now_ms >= back.at_ms) else { return };
        match self.apply_again(back.target).await {
            Ok(policy) => (self.current, self.good) = (policy, None),
            Err(error) => {
                tracing::error!(
                    again_in_ms = back.wait_ms,
                    "what was good before cannot be applied: {error}"
                );
                let at_ms = now_ms.saturating_add(back.wait_ms);
                let wait_ms = (back.wait_ms * 2).min(BACK_AGAIN_MS.1);
                self.going_back = Some(GoingBack { at_ms, wait_ms, ..back });
            }
        }
    }

    /// Applies what was good before: what is at hand, or else what is on disk.
    async fn apply_again(&self, target: Option<Running>) -> Result<Option<Policy>, String> {
        let at_hand = self.good.as_ref().filter(|good| Some(good.running) == target);
        let policy = match (target, at_hand) {
            (None, _) => None,
            (Some(_), Some(good)) => {
                // The next start wants its file.
                note(self.state.with(|state| state.keep(good)));
                Some(good.clone())
            }
            (Some(running), None) => Some(self.state.with(|state| state.policy(running))?),
        };
        self.orders.apply(policy.clone()).await?;
        Ok(policy)
    }

    fn reject(&mut self, running: Running, reason: String, took_ms: u64) {
        tracing::error!(
            generation = running.generation,
            hash = %running.hash.short(),
            "policy rejected: {reason}"
        );
        self.report(running, State::Rejected, reason, took_ms);
    }

    /// Says again how what runs is.
    fn report_running(&mut self, running: Running) {
        let state = if self.is_on_probation() { State::Applied } else { State::Confirmed };
        self.report(running, state, String::new(), 0);
    }

    fn report(&mut self, running: Running, state: State, reason: String, took_ms: u64) {
        let Running { generation, hash } = running;
        let reason = StateReport::cut(reason);
        let report = StateReport { generation, hash, state, reason, took_ms };
        self.status.update_push(|push| {
            for (count, counted) in push.states.iter_mut().zip(STATES) {
                *count += u64::from(counted == state);
            }
            if matches!(state, State::Rejected | State::RolledBack) {
                push.last_refused = Some(report.clone());
            }
        });
        if self.reports.len() == REPORTS_MAX {
            self.reports.pop_front();
        }
        self.reports.push_back(report);
    }

    fn show(&self) {
        self.status.update_push(|push| {
            push.running = self.running();
            push.on_probation = self.is_on_probation();
            push.staged = self.staged.as_ref().map(|policy| policy.running);
        });
    }
}

/// Says what could not be written; it holds nevertheless, and is written later.
fn note(written: Result<(), StateError>) {
    if let Err(error) = written {
        tracing::error!("the state cannot be written yet: {error}");
    }
}

#[cfg(test)]
mod tests;
