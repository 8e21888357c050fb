//! What is asked of the core, and why it is not done.

use serde::{Deserialize, Serialize};

use super::super::record::RecordFault;
use crate::conductor::ReleaseFault;
use crate::guard::Held;
use crate::model::Mode;
use crate::release::Profile;
use crate::rollout::{ControlFault, Waits};

/// How the pusher is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How releases of the folder are rolled out.
    pub profile: Profile,
    /// How long rollouts wait for what.
    pub waits: Waits,
    /// Whether a change of the folder waits for somebody to release it.
    pub manual: bool,
    /// What is done about bad objects.
    pub mode: Mode,
}

/// What an operator asks of a release.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ask {
    /// Why, for the history.
    pub message: String,
    /// Releases although a guard holds it.
    pub force: bool,
    /// Takes the place of a rollout that is under way.
    pub supersede: bool,
    /// How it is rolled out; as the pusher is set up if absent.
    pub profile: Option<Profile>,
}

/// Why there is no release.
#[derive(Debug, thiserror::Error)]
pub enum AskFault {
    /// Nothing differs from what was released last.
    #[error("there is nothing to release: the folder is as it was released")]
    Nothing,
    /// A guard holds it.
    #[error("held: {0}; `--force` releases it nevertheless")]
    Held(Held),
    /// The rollout.
    #[error(transparent)]
    Release(#[from] ReleaseFault),
    /// The state cannot be written: nothing was sent.
    #[error("the state cannot be written: {0}")]
    Record(#[from] RecordFault),
    /// Nothing to pause, resume or abort.
    #[error(transparent)]
    Control(#[from] ControlFault),
}
