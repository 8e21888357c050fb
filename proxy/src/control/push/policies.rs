//! What becomes of the policies that the pusher sends.
//!
//! ```text
//! STAGE ─▶ checked, kept on disk ─▶ staged ─ COMMIT ─▶ recorded, applied ─▶ watched ─┬▶ confirmed
//!             └─▶ rejected                       └─▶ rejected                        └▶ undone
//! ```
//!
//! # Invariants
//! - The record says that a policy is on probation before it is applied: whatever happens while it
//!   is, the next start knows.
//! - What is said again is answered again: a stage or commit of what runs changes nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use ringway_protocol::{CAPABILITIES, Commit, Running, Stage, State, StateReport, Traffic};

use super::probation::{Lately, Probation, Verdict};
use super::state::{Boot, CRASHED, Policy, StateDir};
use super::{Orders, STATES, SharedState};
use crate::control::status::Status;

/// Reports that wait to be sent; the oldest goes first when there are more.
const REPORTS_MAX: usize = 64;
/// Probation of a policy that the process was ended under, in order, ms.
const PROBATION_AGAIN_MS: u64 = 60_000;

/// A policy that is watched.
#[derive(Debug)]
struct Watched {
    probation: Probation,
    running: Running,
    applied: Instant,
    /// A connection to the pusher was made since it was applied.
    reached: bool,
}

/// The policies of a sidecar.
pub struct Policies {
    state: SharedState,
    orders: Orders,
    status: Arc<Status>,
    staged: Option<Policy>,
    running: Option<Running>,
    watched: Option<Watched>,
    /// A policy of the last process that could not be applied yet.
    waiting: Option<Policy>,
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
            running: None,
            watched: None,
            waiting: None,
            lately: Lately::default(),
            reports: VecDeque::new(),
        };
        if let Some(running) = boot.undone {
            policies.report(running, State::RolledBack, CRASHED.to_owned(), 0);
        }
        match boot.policy {
            Some(policy) if applied => {
                policies.running = Some(policy.running);
                if boot.on_probation {
                    policies.watch(policy.running, PROBATION_AGAIN_MS, now_ms, false);
                }
            }
            waiting => policies.waiting = waiting,
        }
        policies.show();
        policies
    }

    /// What is in use.
    #[must_use]
    pub fn running(&self) -> Option<Running> {
        self.running
    }

    /// Whether what is in use is not confirmed yet.
    #[must_use]
    pub fn is_on_probation(&self) -> bool {
        self.watched.is_some()
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
        self.reports.drain(..count.min(self.reports.len()));
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
        if self.running == Some(running) {
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
        if self.running == Some(running) {
            self.report_running(running);
            return;
        }
        let Some(policy) = self.staged.take_if(|policy| policy.running == running) else {
            self.reject(running, "it was not staged here".to_owned(), 0);
            return;
        };
        if let Err(reason) = self.apply(policy).await {
            self.reject(running, reason, began.elapsed().as_millis() as u64);
            self.show();
            return;
        }
        self.waiting = None;
        self.running = Some(running);
        self.lately.count(now_ms, traffic);
        let took_ms = began.elapsed().as_millis() as u64;
        self.report(running, State::Applied, String::new(), took_ms);
        self.watch(running, commit.probation_ms, now_ms, reachable);
        if commit.probation_ms == 0 {
            self.confirm();
        }
        self.show();
    }

    async fn apply(&self, policy: Policy) -> Result<(), String> {
        let running = policy.running;
        let recorded =
            self.state.with(|state| state.keep(&policy).and_then(|()| state.begin(running)));
        recorded.map_err(|error| format!("it cannot be recorded: {error}"))?;
        let applied = self.orders.apply(Some(policy)).await;
        if applied.is_err() {
            let (_, written) = self.state.with(StateDir::roll_back);
            if let Err(error) = written {
                tracing::error!(%error, "the record cannot be written");
            }
        }
        applied
    }

    fn watch(&mut self, running: Running, duration_ms: u64, now_ms: u64, reachable: bool) {
        let start = self.lately.last();
        let probation = Probation::new(now_ms, duration_ms, start, &self.lately, reachable);
        let applied = Instant::now();
        self.watched = Some(Watched { probation, running, applied, reached: false });
    }

    /// Takes note of what has been counted, and judges what is on probation. About once a second.
    pub async fn look(&mut self, now_ms: u64, traffic: Traffic) {
        let Some(watched) = &self.watched else {
            self.lately.count(now_ms, traffic);
            self.try_waiting().await;
            return;
        };
        match watched.probation.look(now_ms, traffic, watched.reached) {
            Verdict::Watching => {}
            Verdict::Good => self.confirm(),
            Verdict::Harmful(harm) => self.undo(harm.to_string()).await,
        }
        self.show();
    }

    /// What the last process ran is tried again for as long as it cannot be applied: its
    /// certificate may have expired, or its port be taken for a moment.
    async fn try_waiting(&mut self) {
        let Some(policy) = self.waiting.clone() else { return };
        if self.orders.apply(Some(policy.clone())).await.is_ok() {
            self.running = Some(policy.running);
            self.waiting = None;
            self.show();
        }
    }

    fn confirm(&mut self) {
        let Some(watched) = self.watched.take() else { return };
        if let Err(error) = self.state.with(StateDir::confirm) {
            // It runs and is good; the next start would not know.
            tracing::error!(%error, "a policy is confirmed and cannot be recorded so");
        }
        let Watched { running, applied, .. } = watched;
        tracing::info!(
            generation = running.generation,
            hash = %running.hash.short(),
            "policy confirmed"
        );
        let took_ms = applied.elapsed().as_millis() as u64;
        self.report(running, State::Confirmed, String::new(), took_ms);
    }

    async fn undo(&mut self, reason: String) {
        let Some(Watched { running, applied, .. }) = self.watched.take() else { return };
        tracing::error!(
            generation = running.generation,
            hash = %running.hash.short(),
            "policy undone: {reason}"
        );
        let (policy, written) = self.state.with(StateDir::roll_back);
        if let Err(error) = written {
            tracing::error!(%error, "the record cannot be written");
        }
        let before = policy.as_ref().map(|policy| policy.running);
        match self.orders.apply(policy).await {
            Ok(()) => self.running = before,
            Err(error) => tracing::error!("nor can the one before be applied: {error}"),
        }
        let took_ms = applied.elapsed().as_millis() as u64;
        self.report(running, State::RolledBack, reason, took_ms);
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
        let state = if self.watched.is_some() { State::Applied } else { State::Confirmed };
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
            push.running = self.running;
            push.on_probation = self.watched.is_some();
            push.staged = self.staged.as_ref().map(|policy| policy.running);
        });
    }
}
