//! How patiently a release is rolled out: waits, percentages, and who belongs to which step.
//!
//! # Invariants
//! - Percentages rise and end with 100; no wait is longer than [`WAIT_MS_MAX`].
//! - Who belongs to a step follows from the sidecar's key and the number of the release, so that
//!   any replica finds the same; who belongs to one belongs to every later one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{PERCENTS_MAX, WAIT_MS_MAX};
use crate::release::Profile;
use crate::version::SidecarKey;

/// Draws go from 0 to this, exclusively: a hundredth of a percent each.
const DRAWS: u64 = 10_000;
/// Below so many sidecars percentages mean nothing: one, then all.
const SMALL_FLEET: usize = 10;

/// How long a rollout waits for what, in milliseconds; 0 to [`WAIT_MS_MAX`] each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// For the answers to a stage; 30 s. Longer lets slow sidecars in, and every release wait for
    /// dead ones.
    pub stage_ms: u64,
    /// Probation in the sidecar after it applied; 60 s. Longer lets it notice what is rare, and
    /// keeps two tables in its memory for as long.
    pub probation_ms: u64,
    /// How long a step is watched after that; 60 s.
    pub bake_ms: u64,
    /// After so long without a word a sidecar of a step is missing; 60 s. At least what sidecars
    /// take to come back after the pusher restarted.
    pub missing_ms: u64,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits { stage_ms: 30_000, probation_ms: 60_000, bake_ms: 60_000, missing_ms: 60_000 }
    }
}

/// What is wrong with a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlanFault {
    /// None, more than [`PERCENTS_MAX`], not rising, or not ending with 100.
    #[error("percentages must rise, end with 100, and be {PERCENTS_MAX} at most")]
    Percents,
    /// Longer than [`WAIT_MS_MAX`].
    #[error("a wait is longer than {WAIT_MS_MAX} ms")]
    Wait,
}

/// Waits and percentages of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    waits: Waits,
    percents: Vec<u8>,
    /// All at once as soon as all have staged, and no bake.
    at_once: bool,
}

impl Plan {
    /// A plan with these waits and percentages.
    ///
    /// # Errors
    /// What cannot be.
    pub fn new(waits: Waits, percents: &[u8]) -> Result<Plan, PlanFault> {
        let rises = percents.windows(2).all(|pair| pair[0] < pair[1]);
        let ends = percents.first() != Some(&0) && percents.last() == Some(&100);
        if !rises || !ends || percents.len() > PERCENTS_MAX {
            return Err(PlanFault::Percents);
        }
        let Waits { stage_ms, probation_ms, bake_ms, missing_ms } = waits;
        if [stage_ms, probation_ms, bake_ms, missing_ms].iter().any(|wait| *wait > WAIT_MS_MAX) {
            return Err(PlanFault::Wait);
        }
        Ok(Plan { waits, percents: percents.to_vec(), at_once: false })
    }

    /// The plan of a profile.
    #[must_use]
    pub fn of(profile: Profile) -> Plan {
        Plan::with_waits(profile, Waits::default())
    }

    /// The plan of a profile with these waits, longer ones cut to [`WAIT_MS_MAX`]; a profile that
    /// does not wait does not wait for them either.
    #[must_use]
    pub fn with_waits(profile: Profile, waits: Waits) -> Plan {
        let Waits { stage_ms, probation_ms, bake_ms, missing_ms } = waits;
        let waits = Waits {
            stage_ms: stage_ms.min(WAIT_MS_MAX),
            probation_ms: probation_ms.min(WAIT_MS_MAX),
            bake_ms: bake_ms.min(WAIT_MS_MAX),
            missing_ms: missing_ms.min(WAIT_MS_MAX),
        };
        let mut plan = Plan { waits, percents: vec![1, 10, 50, 100], at_once: false };
        match profile {
            Profile::Standard => {}
            Profile::Dev => {
                plan.waits.probation_ms = 0;
                plan.waits.bake_ms = 0;
            }
            Profile::Now => plan.hurry(),
        }
        plan
    }

    /// Leaves out every wait but the stage, and every step but the last.
    pub(super) fn hurry(&mut self) {
        self.at_once = true;
        self.waits.bake_ms = 0;
    }

    /// Its waits.
    #[must_use]
    pub fn waits(&self) -> Waits {
        self.waits
    }

    /// The steps for these sidecars.
    pub(super) fn steps<'m>(
        &self,
        count: usize,
        candidates: impl Iterator<Item = Candidate<'m>>,
    ) -> Vec<Step> {
        if self.at_once {
            return vec![Step::Percent(100)];
        }
        if count >= SMALL_FLEET {
            let percents = self.percents.iter().map(|percent| Step::Percent(*percent));
            return std::iter::once(Step::Canary).chain(percents).collect();
        }
        let mut first: Option<Candidate<'m>> = None;
        for candidate in candidates {
            if candidate.canary {
                return vec![Step::Canary, Step::Percent(100)];
            }
            if first.is_none_or(|first| (candidate.draw, candidate.key) < (first.draw, first.key)) {
                first = Some(candidate);
            }
        }
        let one = first.map(|first| Step::One(first.key.clone()));
        one.into_iter().chain([Step::Percent(100)]).collect()
    }
}

/// What decides to which step a sidecar belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'m> {
    pub(super) key: &'m SidecarKey,
    pub(super) canary: bool,
    pub(super) draw: u16,
}

/// A part of the sidecars that are concerned; each contains the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Those labelled `canary`.
    Canary,
    /// One, for want of a canary in a small fleet.
    One(SidecarKey),
    /// Canaries, and so many percent of all by draw.
    Percent(u8),
}

impl Step {
    /// Whether the step contains the sidecar.
    pub(super) fn contains(&self, candidate: Candidate<'_>) -> bool {
        match self {
            Step::Canary => candidate.canary,
            Step::One(key) => candidate.key == key,
            Step::Percent(100) => true,
            Step::Percent(percent) => {
                candidate.canary || candidate.draw < u16::from(*percent) * (DRAWS / 100) as u16
            }
        }
    }

    /// Whether one failure is enough to stop, whatever the size.
    pub(super) fn is_first(&self) -> bool {
        match self {
            Step::Canary | Step::One(_) => true,
            Step::Percent(_) => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Canary => f.write_str("canary"),
            Step::One(_) => f.write_str("one sidecar"),
            Step::Percent(percent) => write!(f, "{percent} %"),
        }
    }
}

/// The draw of a sidecar in a release: a number below 10 000.
#[must_use]
pub fn draw(key: &SidecarKey, release: u64) -> u16 {
    let mut hasher = blake3::Hasher::new();
    // An identity has no zero byte, so that no two keys are one text.
    hasher.update(key.identity().as_bytes()).update(&[0]);
    hasher.update(key.node().as_bytes()).update(&[0]);
    hasher.update(&release.to_le_bytes());
    let digest = hasher.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    (u64::from_le_bytes(first) % DRAWS) as u16
}
