//! Why a rollout stopped, in facts and in words.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::plan::Step;
use crate::fleet::FailureKind;
use crate::version::SidecarKey;

/// Where a rollout was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Before anyone applied.
    Stage,
    /// In a step.
    Step(Step),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Stage => f.write_str("stage, nobody applied it"),
            Place::Step(step) => step.fmt(f),
        }
    }
}

/// Why a rollout stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Sidecars refused or undid it.
    Failed {
        /// The first of them, in the order of the keys.
        sidecar: SidecarKey,
        /// Whether it refused or undid it.
        kind: FailureKind,
        /// In its words.
        reason: String,
        /// How many failed, this one included.
        failed: usize,
        /// How many there were in the step, or to be staged.
        of: usize,
    },
    /// Sidecars did not answer.
    Missing {
        /// The first of them, in the order of the keys.
        sidecar: SidecarKey,
        /// How many are missing, this one included.
        missing: usize,
        /// How many there were in the step, or to be staged.
        of: usize,
    },
    /// Somebody stopped it.
    Aborted {
        /// Who.
        by: String,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Failed { sidecar, kind, reason, failed, of } => {
                write!(f, "{sidecar} {kind}: {reason}")?;
                if *failed > 1 { write!(f, " ({failed} of {of} failed)") } else { Ok(()) }
            }
            Why::Missing { sidecar, missing, of } => {
                write!(f, "{missing} of {of} sidecars do not answer, {sidecar} is one")
            }
            Why::Aborted { by } => write!(f, "aborted by {by}"),
        }
    }
}
