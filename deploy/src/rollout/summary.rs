//! How a rollout stands, in numbers and in words.

use std::fmt;

use serde::Serialize;

use super::{Place, Rollout, State, Why};
use crate::version::SidecarKey;

/// Where a rollout is, for the fleet page, the metrics and `status --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RolloutSummary {
    /// Number of the release.
    pub release: u64,
    /// Its generation.
    pub generation: u64,
    /// Sidecars that the release changes something for, connected or not.
    pub concerned: usize,
    /// Those that were told to apply it, or refused or undid it.
    pub in_step: usize,
    /// Those that run it, in probation or after.
    pub applied: usize,
    /// Those that run it and whose probation is over.
    pub confirmed: usize,
    /// Those that refused or undid it.
    pub failed: usize,
    /// Who paused it.
    pub paused_by: Option<String>,
    /// Where it is.
    pub progress: Progress,
}

/// Where a rollout is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Everybody checks it.
    Staging {
        /// How many are ready.
        ready: usize,
        /// Milliseconds until the others are missing.
        left_ms: u64,
    },
    /// A step is in probation or watched after that.
    Step {
        /// Which.
        step: String,
        /// Milliseconds left of the probation.
        probation_left_ms: u64,
        /// Milliseconds left of the whole step.
        left_ms: u64,
        /// How many have not confirmed.
        unsettled: usize,
        /// One of them, the first in the order of the keys.
        waits_for: Option<SidecarKey>,
        /// How many sidecars that are concerned are away.
        away: usize,
    },
    /// It is the last good one.
    Confirmed,
    /// It was stopped.
    Halted {
        /// Where.
        place: Place,
        /// Why.
        why: Why,
        /// How many still run it, or may.
        carrying: usize,
    },
}

impl Rollout {
    /// How it stands. Walks over all sidecars at worst.
    #[must_use]
    pub fn summary(&self, now: u64) -> RolloutSummary {
        let tally = self.members.tally();
        RolloutSummary {
            release: self.release.number,
            generation: self.release.generation,
            concerned: tally.affected,
            in_step: tally.in_step,
            applied: tally.carrying,
            confirmed: tally.confirmed,
            failed: tally.failed,
            paused_by: self.paused_by.clone(),
            progress: self.progress(now),
        }
    }

    fn progress(&self, now: u64) -> Progress {
        let tally = self.members.tally();
        match &self.state {
            State::Staging { until_ms } => Progress::Staging {
                ready: tally.affected - tally.awaited,
                left_ms: until_ms.max(&self.grace_until_ms).saturating_sub(now),
            },
            State::Holding { at, until_ms } => {
                let left_ms = until_ms.saturating_sub(now);
                let mut unsettled = self.members.iter().filter(|(_, it)| it.is_unsettled());
                Progress::Step {
                    step: self.steps[*at].to_string(),
                    probation_left_ms: left_ms.saturating_sub(self.plan.waits().bake_ms),
                    left_ms,
                    unsettled: tally.unsettled,
                    waits_for: unsettled.next().map(|(key, _)| key.clone()),
                    away: tally.away,
                }
            }
            State::Confirmed => Progress::Confirmed,
            State::Halted { place, why } => Progress::Halted {
                place: place.clone(),
                why: why.clone(),
                carrying: tally.carrying,
            },
        }
    }
}

impl fmt::Display for RolloutSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "release {}: ", self.release)?;
        match &self.progress {
            Progress::Staging { ready, left_ms } => write!(
                f,
                "staged on {ready} of {}, nobody applies it yet, for another {} s at most",
                sidecars(self.concerned),
                seconds(*left_ms)
            )?,
            Progress::Step { .. } => self.describe_step(f)?,
            Progress::Confirmed if self.concerned == 0 => {
                f.write_str("confirmed, for whoever connects")?;
            }
            Progress::Confirmed => {
                write!(f, "confirmed on {} of {}", self.confirmed, sidecars(self.concerned))?;
            }
            Progress::Halted { place, why, carrying } => {
                write!(f, "halted at {place}: {why}")?;
                if *carrying > 0 {
                    write!(f, "; {} still to go back", sidecars(*carrying))?;
                }
            }
        }
        match &self.paused_by {
            Some(by) => write!(f, "; paused by {by}"),
            None => Ok(()),
        }
    }
}

impl RolloutSummary {
    fn describe_step(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress::Step { step, probation_left_ms, left_ms, unsettled, waits_for, away } =
            &self.progress
        else {
            return Ok(());
        };
        let all = sidecars(self.concerned);
        write!(f, "{step} of {all} applied ({}), ", self.applied)?;
        if away * 2 > self.concerned {
            write!(f, "waits for {} to come back", sidecars(*away))?;
        } else if *probation_left_ms > 0 {
            write!(f, "in probation for another {} s", seconds(*probation_left_ms))?;
        } else if *left_ms > 0 {
            write!(f, "watched for another {} s", seconds(*left_ms))?;
        } else if let Some(sidecar) = waits_for {
            write!(f, "waits for {} to confirm, {sidecar} is one", sidecars(*unsettled))?;
        } else {
            f.write_str("ready for the next step")?;
        }
        if self.failed > 0 { write!(f, "; {} failed", self.failed) } else { Ok(()) }
    }
}

/// Whole seconds, a part of one counted as one.
fn seconds(ms: u64) -> u64 {
    ms.div_ceil(1000)
}

fn sidecars(count: usize) -> String {
    if count == 1 { "1 sidecar".to_owned() } else { format!("{count} sidecars") }
}
