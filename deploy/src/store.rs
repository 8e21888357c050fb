//! The pusher's state: small records, each with a version, which survive a crash.
//!
//! ```text
//! put_if_version(key, expected, value) ──▶ [entries] ──▶ revision + 1 ──▶ watchers
//!      Conflict ◀── someone else was first    │
//!                        get, list ◀──────────┘
//! ```
//!
//! Every change makes the store's revision one higher, and an entry's version is the revision that
//! wrote it: the `mod_revision` of etcd, the `resourceVersion` of Kubernetes.
//!
//! # Invariants
//! - What a call returned as written is there after a kill at any moment.
//! - There is no unconditional write: whoever writes names the version that it has read.
//! - A watcher sees every change after the revision that it named, in order, or its channel ends
//!   (it lists again). It may see a key whose entry has changed again since.
//!
//! # Why the methods block
//! A record changes a few times a minute, and a caller has several to read and one to write with
//! signing between them: such an operation as a whole goes through `spawn_blocking`, never onto a
//! control thread itself. So the trait can stand behind `Arc<dyn Store>`, and the certificate
//! authority needs no runtime in its tests. A store over the network runs its client on a thread of
//! its own and waits here for the answer, with a deadline that becomes [`StoreFault::Io`].
//!
//! # Not here
//! Private keys (`ca::keys`), reports of sidecars (memory of the server), snapshots.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ringway_tls::UnixTime;
use tokio::sync::mpsc;

mod lease;
pub mod limits;
mod local;
mod memory;
#[cfg(test)]
pub(crate) mod troubled;
mod watch;

pub use lease::Lease;
pub use local::Local;
pub use memory::Memory;

use limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Where the pusher keeps its state. All methods may block for a write to disk or a round trip.
pub trait Store: Send + Sync + fmt::Debug {
    /// The entry of `key`, if there is one.
    ///
    /// # Errors
    /// [`StoreFault::Key`], and what the medium says.
    fn get(&self, key: &str) -> Result<Option<Versioned>, StoreFault>;

    /// All entries whose keys begin with `prefix`, in the order of their bytes, as of one revision.
    ///
    /// # Errors
    /// What the medium says.
    fn list(&self, prefix: &str) -> Result<Listing, StoreFault>;

    /// Writes `value` if the entry has the version `expected`, which is `None` if there must be no
    /// entry. Returns the new version.
    ///
    /// # Errors
    /// [`StoreFault::Conflict`] if it has another; a limit; what the medium says.
    fn put_if_version(
        &self,
        key: &str,
        expected: Option<u64>,
        value: &[u8],
    ) -> Result<u64, StoreFault>;

    /// Removes the entry if it has the version `expected`. Returns the revision of that.
    ///
    /// # Errors
    /// [`StoreFault::Conflict`] if it has another or is gone; what the medium says.
    fn delete_if_version(&self, key: &str, expected: u64) -> Result<u64, StoreFault>;

    /// Changes of keys that begin with `prefix`, after the revision `after`, which is usually that
    /// of a listing.
    ///
    /// # Errors
    /// [`StoreFault::Compacted`] if changes since then are no longer known: list, then watch from
    /// there. [`StoreFault::Full`] for too many watches.
    fn watch(&self, prefix: &str, after: u64) -> Result<mpsc::Receiver<Event>, StoreFault>;

    /// Takes or prolongs the lease `name` for `holder` until `now + ttl`.
    ///
    /// The fencing number grows with every change of holder and every lapse, never otherwise: who
    /// writes it into what it does can be told from a predecessor that has not noticed its end.
    ///
    /// # Errors
    /// [`StoreFault::Held`] if another holds it; a limit; what the medium says.
    fn lease(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        now: UnixTime,
    ) -> Result<Lease, StoreFault> {
        lease::take(self, name, holder, ttl, now)
    }

    /// Gives the lease `name` back, if `holder` has it.
    ///
    /// # Errors
    /// What the medium says.
    fn release(&self, name: &str, holder: &str) -> Result<(), StoreFault> {
        lease::release(self, name, holder)
    }
}

/// A value and the revision that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// Greater than 0.
    pub version: u64,
    /// `len() <= VALUE_BYTES_MAX`.
    pub value: Vec<u8>,
}

/// Entries as of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The store's revision; no entry has a greater version.
    pub revision: u64,
    /// Keys and entries, sorted by key.
    pub entries: Vec<(String, Versioned)>,
}

/// A change. It carries no value: by the time it is read there may be a newer one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Of the change.
    pub revision: u64,
    /// Whose entry changed.
    pub key: String,
    /// How.
    pub change: Change,
}

/// What happened to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new or has a new value.
    Put,
    /// It is gone.
    Delete,
}

/// Why a store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// The entry has another version than the caller has read.
    #[error("the entry has changed meanwhile: {}", version_words(*current))]
    Conflict {
        /// The version that it has; none if there is no entry.
        current: Option<u64>,
    },
    /// The key cannot be one.
    #[error("{0}")]
    Key(&'static str),
    /// More than a limit.
    #[error("{what}: more than {max}")]
    Full {
        /// What there is too much of, and its unit.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// Changes after the revision are no longer known.
    #[error("changes before revision {oldest} are no longer known")]
    Compacted {
        /// A watch may begin at this revision.
        oldest: u64,
    },
    /// Another has the lease.
    #[error("{holder} holds the lease until {until_s} s since 1970")]
    Held {
        /// Who.
        holder: String,
        /// In seconds since 1970.
        until_s: u64,
    },
    /// Another process has the file open.
    #[error("{}: in use by {holder}", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
        /// `process 17`, as far as it is known.
        holder: String,
    },
    /// The file is not what a store wrote. It is never replaced.
    #[error("{}: not usable as a store: {text}; restore it from a copy", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        text: String,
    },
    /// The medium failed.
    #[error("{doing}: {text}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        text: String,
    },
}

fn version_words(current: Option<u64>) -> String {
    current.map_or("there is none".to_owned(), |version| format!("it has version {version}"))
}

/// What both stores ask of a key: not empty, no longer than the limit, and of characters that need
/// no quoting in a path; a store whose names have no slash would write another character for it.
fn check_key(key: &str) -> Result<(), StoreFault> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(StoreFault::Key("a key has 1 to 240 bytes"));
    }
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_');
    if !key.bytes().all(allowed) {
        return Err(StoreFault::Key("a key has only letters, digits, '/', '.', '-' and '_'"));
    }
    Ok(())
}

fn check_value(value: &[u8]) -> Result<(), StoreFault> {
    if value.len() > VALUE_BYTES_MAX {
        let max = VALUE_BYTES_MAX as u64;
        return Err(StoreFault::Full { what: "bytes of a value", max });
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
