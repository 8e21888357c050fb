//! What outlives the process of a sidecar that a pusher tells what to do.
//!
//! ```text
//! state_dir/  id/{key.pem,chain.pem,bundle.pem,revoked.pem}
//!             policies/HASH.json     the last three, each a file that `ringway check` reads
//!             record.json            current, previous, on probation?, what was undone last
//!             endpoints.json
//! ```
//!
//! # Invariants
//! - A file is written whole or not at all: beside it, synced, renamed, the folder synced.
//! - The record names only policies whose files are there; one whose bytes have changed since is
//!   not used, and what was used before it is.
//! - Whoever ends on probation other than in order starts with what was good before.
//! - What was decided holds though it cannot be written; it is written as soon as it can be. Only
//!   a policy that is new is not begun before the record says so.
//! - One process at a time has the folder.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ringway_protocol::{EndpointsState, PolicyHash, Running};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::STATE_FILE_BYTES_MAX;

/// Policies that are kept.
const POLICIES_KEPT: usize = 3;

/// Why a policy is not used whose probation the process did not outlive.
pub const CRASHED: &str = "the process ended while it was on probation";

/// Why one is not used under which the process was ended, in order, again and again.
pub const RESTARTED: &str = "the process was ended twice while it was on probation";

/// Restarts in order on a probation from which on they are the policy's doing: whoever looks after
/// the process ends it because it does not serve.
const RESTARTS_MAX: u32 = 2;

/// Why the state cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// The system refuses.
    #[error("{path}: {error}")]
    Io {
        /// The file or folder.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// Another process has it.
    #[error("{0} is in use by another process: each sidecar needs a state_dir of its own")]
    Taken(String),
    /// The process ends: nothing new is begun.
    #[error("the sidecar is about to end")]
    Ending,
}

/// A policy with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its generation and hash.
    pub running: Running,
    /// The text that the hash is of.
    pub text: String,
}

/// What a start finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Boot {
    /// What to start with; `None` before the first policy was confirmed.
    pub policy: Option<Policy>,
    /// It has not been confirmed yet.
    pub on_probation: bool,
    /// What was good before it, if its file is there.
    pub previous: Option<Policy>,
    /// A policy that was undone, which the pusher does not know yet.
    pub undone: Option<Refused>,
}

/// A policy that was undone: it is not taken again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// Its generation and hash.
    pub running: Running,
    /// Why.
    pub reason: String,
    /// The pusher knows.
    told: bool,
}

/// What `record.json` holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    current: Option<Running>,
    /// What was confirmed last, if that is not `current`.
    previous: Option<Running>,
    /// `current` has not been confirmed.
    on_probation: bool,
    /// The process has ended in order.
    orderly: bool,
    /// The highest generation that was ever taken: lower ones are stale.
    highest: u64,
    /// How often the process was ended in order on this probation.
    #[serde(default, skip_serializing_if = "is_none")]
    restarts: u32,
    /// What was undone last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<Refused>,
}

/// Whether there were none: an earlier version reads a record that does not say so.
fn is_none(restarts: &u32) -> bool {
    *restarts == 0
}

impl Record {
    /// Why what was in use last does harm, by how the process has ended; notes an end in order.
    fn harm(&mut self) -> Option<&'static str> {
        if !self.on_probation {
            return None;
        }
        self.restarts += u32::from(self.orderly);
        match self.orderly {
            false => Some(CRASHED),
            true => (self.restarts >= RESTARTS_MAX).then_some(RESTARTED),
        }
    }

    /// What was confirmed last is current again, and what is current is refused from now on.
    fn go_back(&mut self, reason: String) {
        self.refused = self.current.map(|running| Refused { running, reason, told: false });
        self.current = self.previous.take();
        (self.on_probation, self.restarts) = (false, 0);
    }
}

/// What the record said before [`StateDir::begin`].
#[derive(Debug)]
#[must_use]
pub struct Before(Record);

/// The folder.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    record: Record,
    /// The file does not say so yet.
    dirty: bool,
    /// The process is about to end.
    ended: bool,
    /// Holds the lock for as long as the process lives.
    _lock: File,
}

impl StateDir {
    /// Opens the folder at `path`, making it if it is missing, for the owner alone.
    ///
    /// # Errors
    /// [`StateError`]. A record that cannot be read is none: what it named is found no more, which
    /// is logged.
    pub fn open(path: &Path) -> Result<StateDir, StateError> {
        for folder in [path.to_owned(), path.join("id"), path.join("policies")] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(|error| failed(&folder, error))?;
        }
        let lock_path = path.join("lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        // A disk that is read-only has the file of an earlier start: it can be locked too.
        let lock = options.open(&lock_path).or_else(|_| File::open(&lock_path));
        let lock = lock.map_err(|error| failed(&lock_path, error))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(StateError::Taken(path.display().to_string()));
        }
        let record_path = path.join("record.json");
        let damaged = |error: &dyn std::error::Error| {
            tracing::error!(%error, "{}: cannot be read, starting anew", record_path.display());
            Record::default()
        };
        let record = match read(&record_path) {
            Ok(text) => serde_json::from_str(&text).unwrap_or_else(|error| damaged(&error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::default(),
            // Bytes that are no text.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => damaged(&error),
            Err(error) => return Err(failed(&record_path, error)),
        };
        Ok(StateDir { path: path.to_owned(), record, dirty: false, ended: false, _lock: lock })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of the policy with `hash`.
    #[must_use]
    pub fn policy_path(&self, hash: PolicyHash) -> PathBuf {
        self.path.join("policies").join(format!("{hash}.json"))
    }

    /// The highest generation that was ever taken.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.record.highest
    }

    /// Whether the process is about to end.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// What was confirmed before what is in use: what to go back to.
    #[must_use]
    pub fn previous(&self) -> Option<Running> {
        self.record.previous
    }

    /// Why `running` is not taken again; `None` if it was never undone.
    #[must_use]
    pub fn refusal(&self, running: Running) -> Option<&str> {
        let refused = self.record.refused.as_ref().filter(|refused| refused.running == running);
        refused.map(|refused| &*refused.reason)
    }

    /// Decides what to start with, and takes note that the process runs.
    pub fn boot(&mut self) -> Boot {
        let mut next = self.record.clone();
        let previous = next.previous.and_then(|previous| {
            let policy = self.policy(previous);
            policy.inspect_err(|reason| tracing::error!("the policy before: {reason}")).ok()
        });
        let mut boot = Boot { previous, ..Boot::default() };
        if let Some(current) = next.current {
            let harm = next.harm();
            let kept = harm.map_or_else(|| self.policy(current), |why| Err(why.to_owned()));
            match kept {
                Ok(policy) => boot.policy = Some(policy),
                Err(reason) => {
                    tracing::error!(hash = %current.hash.short(), "policy not used: {reason}");
                    boot.policy = boot.previous.take();
                    if harm.is_some() {
                        next.go_back(reason);
                    } else if boot.policy.is_some() {
                        next.current = next.previous.take();
                        (next.on_probation, next.restarts) = (false, 0);
                    }
                }
            }
        }
        boot.on_probation = next.on_probation;
        boot.undone = next.refused.clone().filter(|refused| !refused.told);
        // Under what is not in use nothing can crash.
        next.orderly &= boot.policy.is_none();
        if let Err(error) = self.set(next) {
            tracing::error!("a crash would not be seen by the next start: {error}");
        }
        boot
    }

    /// The policy named by `running`, if its file is as it was written.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn policy(&self, running: Running) -> Result<Policy, String> {
        let path = self.policy_path(running.hash);
        let text = read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if PolicyHash::of(&text) != running.hash {
            return Err(format!("{} is not what was written", path.display()));
        }
        Ok(Policy { running, text })
    }

    /// Keeps the text of a policy that is about to be staged.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, policy: &Policy) -> Result<(), StateError> {
        let path = self.policy_path(policy.running.hash);
        if read(&path).is_ok_and(|text| text == policy.text) {
            return Ok(());
        }
        write(&path, policy.text.as_bytes())
    }

    /// Takes note that `running` is in use from now on, on probation. Gives what to
    /// [`StateDir::restore`] if it cannot be applied.
    ///
    /// # Errors
    /// When the record cannot be written, or the process ends; then what it said before holds.
    pub fn begin(&mut self, running: Running) -> Result<Before, StateError> {
        if self.ended {
            return Err(StateError::Ending);
        }
        let before = self.record.clone();
        let Record { current, previous, on_probation, highest, .. } = before;
        // What was never confirmed is nothing to go back to.
        let previous = if on_probation { previous } else { current };
        let next = Record {
            current: Some(running),
            previous,
            on_probation: true,
            orderly: false,
            highest: highest.max(running.generation),
            restarts: 0,
            refused: before.refused.clone(),
        };
        self.write_record(&next)?;
        self.record = next;
        self.dirty = false;
        Ok(Before(before))
    }

    /// Takes note that what was begun is not in use: all is as before, and its generation taken.
    ///
    /// # Errors
    /// When the record cannot be written yet.
    pub fn restore(&mut self, Before(before): Before) -> Result<(), StateError> {
        let Record { orderly, highest, .. } = self.record;
        self.set(Record { orderly, highest, ..before })
    }

    /// Takes note that what is in use is good, and forgets policies that nothing names any more.
    ///
    /// # Errors
    /// When the record cannot be written yet.
    pub fn confirm(&mut self) -> Result<(), StateError> {
        let mut next = Record { on_probation: false, restarts: 0, ..self.record.clone() };
        // What is stale is refused anyway.
        let highest = next.highest;
        next.refused =
            next.refused.filter(|refused| !refused.told || refused.running.generation >= highest);
        self.set(next)?;
        self.prune();
        Ok(())
    }

    /// Takes note that what was confirmed last is to be used again, and what was in use never is:
    /// `reason`. Gives the former.
    ///
    /// # Errors
    /// When the record cannot be written yet. The policy is given nevertheless.
    pub fn roll_back(&mut self, reason: String) -> (Option<Running>, Result<(), StateError>) {
        let mut next = self.record.clone();
        next.go_back(reason);
        let current = next.current;
        (current, self.set(next))
    }

    /// Takes note that the pusher knows that `running` was undone.
    ///
    /// # Errors
    /// When the record cannot be written yet.
    pub fn told(&mut self, running: Running) -> Result<(), StateError> {
        let mut next = self.record.clone();
        if let Some(refused) = next.refused.as_mut().filter(|refused| refused.running == running) {
            refused.told = true;
        }
        self.set(next)
    }

    /// Takes note that the process is about to end in order: nothing is begun from now on.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn end(&mut self) -> Result<(), StateError> {
        self.ended = true;
        self.set(Record { orderly: true, ..self.record.clone() })
    }

    /// Writes what could not be written, if there is anything.
    ///
    /// # Errors
    /// When it still cannot be.
    pub fn flush(&mut self) -> Result<(), StateError> {
        if self.dirty {
            self.write_record(&self.record)?;
            self.dirty = false;
            tracing::info!("the record is written again");
        }
        Ok(())
    }

    /// The endpoints that were known last; none if there is no such file or it is damaged.
    #[must_use]
    pub fn endpoints(&self) -> EndpointsState {
        let path = self.path.join("endpoints.json");
        let text = read(&path).unwrap_or_default();
        if text.is_empty() {
            return EndpointsState::default();
        }
        serde_json::from_str(&text).unwrap_or_else(|error| {
            tracing::error!(%error, "{}: cannot be read, starting without", path.display());
            EndpointsState::default()
        })
    }

    /// Keeps endpoints for the next start.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep_endpoints(&self, endpoints: &EndpointsState) -> Result<(), StateError> {
        let path = self.path.join("endpoints.json");
        let text = serde_json::to_vec(endpoints)
            .map_err(|error| failed(&path, io::Error::other(error)))?;
        write(&path, &text)
    }

    /// The bytes of a file of the identity; `None` if it is not there.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn identity_file(&self, name: &str) -> Result<Option<String>, StateError> {
        let path = self.path.join("id").join(name);
        match read(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path, error)),
        }
    }

    /// Replaces files of the identity, in the order given.
    ///
    /// # Errors
    /// When one cannot be written; those before it have been.
    pub fn write_identity(&self, files: &[(&str, &str)]) -> Result<(), StateError> {
        for (name, text) in files {
            write(&self.path.join("id").join(name), text.as_bytes())?;
        }
        Ok(())
    }

    /// From now on `record` holds. It is written at once, or later if that fails.
    fn set(&mut self, record: Record) -> Result<(), StateError> {
        if record != self.record || self.dirty || !self.path.join("record.json").exists() {
            self.record = record;
            self.dirty = true;
            self.write_record(&self.record)?;
            self.dirty = false;
        }
        Ok(())
    }

    fn write_record(&self, record: &Record) -> Result<(), StateError> {
        let path = self.path.join("record.json");
        let text = serde_json::to_vec_pretty(record)
            .map_err(|error| failed(&path, io::Error::other(error)))?;
        write(&path, &text)
    }

    /// Removes the oldest policies beyond [`POLICIES_KEPT`] that the record does not name. What
    /// cannot be removed stays.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(self.path.join("policies")) else { return };
        let named: Vec<PathBuf> = [self.record.current, self.record.previous]
            .into_iter()
            .flatten()
            .map(|running| self.policy_path(running.hash))
            .collect();
        let mut others: Vec<_> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let written = entry.metadata().ok()?.modified().ok()?;
                (!named.contains(&entry.path())).then(|| (written, entry.path()))
            })
            .collect();
        others.sort();
        let kept = POLICIES_KEPT.saturating_sub(named.len());
        let removed = others.len().saturating_sub(kept);
        for (_, path) in &others[..removed] {
            let _ = fs::remove_file(path);
        }
    }
}

fn failed(path: &Path, error: io::Error) -> StateError {
    StateError::Io { path: path.display().to_string(), error }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(STATE_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Replaces a file: beside it, synced, renamed, the folder synced.
fn write(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let beside = path.with_extension("new");
    let written = (|| {
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    })();
    written.map_err(|error| {
        let _ = fs::remove_file(&beside);
        failed(path, error)
    })
}

#[cfg(test)]
mod tests;
