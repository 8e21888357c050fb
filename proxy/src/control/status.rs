//! What the admin thread may know of the control thread's work.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::credentials::Shown;
use super::push::PushStatus;

/// The state of the configuration.
#[derive(Debug, Clone, Default)]
pub struct ConfigStatus {
    /// Files applied since the start, the first included.
    pub applied: u64,
    /// Files rejected.
    pub rejected: u64,
    /// Why the newest file was rejected; `None` if it is in use.
    pub problem: Option<String>,
    /// How long the last file took from reading to publishing.
    pub last_reload: Duration,
    /// Certificate files.
    pub credentials: CredentialStatus,
    /// Names that could not be resolved at the last attempt.
    pub unresolved: Vec<String>,
    /// The pusher; `None` if the file names none.
    pub push: Option<PushStatus>,
}

/// The state of the certificate files.
#[derive(Debug, Clone, Default)]
pub struct CredentialStatus {
    /// Sets taken since the start, the first included.
    pub generation: u64,
    /// Files whose new content was taken while the process ran.
    pub taken: u64,
    /// Files whose new content was refused.
    pub refused: u64,
    /// Why the newest content of files is not in use.
    pub problems: Vec<String>,
    /// The certificates in use.
    pub shown: Vec<Shown>,
}

/// [`ConfigStatus`], shared.
#[derive(Debug, Default)]
pub struct Status(Mutex<ConfigStatus>);

impl Status {
    /// The state now.
    #[must_use]
    pub fn get(&self) -> ConfigStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the state.
    pub fn update(&self, change: impl FnOnce(&mut ConfigStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Changes what is known of the pusher.
    pub fn update_push(&self, change: impl FnOnce(&mut PushStatus)) {
        self.update(|status| change(status.push.get_or_insert_default()));
    }
}
