//! Releases: which policy each class is to have, who said so, and what became of it.
//!
//! # Invariants
//! - Numbers rise by one. Generations rise by [`GENERATIONS_PER_RELEASE`]: a release at generation
//!   `g` owns `g - 1`, which carries the last good hashes to those who lack them, `g` itself, and
//!   `g + 1`, which carries the last good hashes back to those who applied it. So every order that
//!   a sidecar can get is known from the release alone, by any replica and after any restart.
//! - The history holds at most [`RELEASES_KEPT_MAX`] releases, the last good one always among them.
//!
//! # Not here
//! How a release reaches the sidecars (`rollout`), the policies themselves.

mod classes;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{
    AUTHOR_BYTES_MAX, CLASSES_MAX, GENERATION_MAX, MESSAGE_BYTES_MAX, RELEASES_KEPT_MAX,
};
use crate::version::Version;

pub use classes::{Classes, KnownClasses};

/// Generations that a release owns: before, itself, after.
pub const GENERATIONS_PER_RELEASE: u64 = 3;

/// How patiently a release is rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Canary and steps, each held for probation and bake.
    #[default]
    Standard,
    /// The same order without waiting: for a developer's machine.
    Dev,
    /// Staged on all, then applied by all at once: for an emergency.
    Now,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Profile::Standard => "standard",
            Profile::Dev => "dev",
            Profile::Now => "now",
        })
    }
}

/// What somebody wants to release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Hash of the policy of each class, by the identity of the workload.
    pub classes: Classes,
    /// Who: the identity that the client certificate proves, at most [`AUTHOR_BYTES_MAX`].
    pub author: String,
    /// Why, at most [`MESSAGE_BYTES_MAX`].
    pub message: String,
    /// Whether a guard (sudden emptiness) was overruled.
    pub forced: bool,
    /// How patiently.
    pub profile: Profile,
}

/// A set of policies that sidecars are to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its place in the history, from 1.
    pub number: u64,
    /// Its order among what sidecars are told; see the invariants above.
    pub generation: u64,
    /// Hash of the policy of each class, by the identity of the workload.
    pub classes: Classes,
    /// Who released it.
    pub author: String,
    /// Why.
    pub message: String,
    /// When, in unix milliseconds.
    pub created_ms: u64,
    /// The last good release when this one was made.
    pub parent: Option<u64>,
    /// Whether a guard was overruled.
    pub forced: bool,
    /// How patiently it is rolled out.
    pub profile: Profile,
}

impl Release {
    /// What a sidecar of this class is to run.
    #[must_use]
    pub fn version(&self, class: &str) -> Option<Version> {
        let hash = *self.classes.get(class)?;
        Some(Version { generation: self.generation, hash })
    }

    /// The generation that carries last good hashes to those who lack them, below this release.
    #[must_use]
    pub fn restore_generation(&self) -> u64 {
        self.generation - 1
    }

    /// The generation that carries last good hashes back to those who applied this release.
    #[must_use]
    pub fn revert_generation(&self) -> u64 {
        self.generation + 1
    }
}

/// What became of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is being rolled out.
    Running,
    /// Every sidecar that is concerned runs it, or it waits for the first to connect.
    Confirmed {
        /// When, in unix milliseconds.
        at_ms: u64,
    },
    /// It was stopped and undone.
    Halted {
        /// When, in unix milliseconds.
        at_ms: u64,
        /// Where and why, in words.
        why: String,
    },
    /// Another release took its place.
    Superseded {
        /// When, in unix milliseconds.
        at_ms: u64,
        /// The number of the other.
        by: u64,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Running => f.write_str("running"),
            Outcome::Confirmed { .. } => f.write_str("confirmed"),
            Outcome::Halted { why, .. } => write!(f, "halted {why}"),
            Outcome::Superseded { by, .. } => write!(f, "superseded by release {by}"),
        }
    }
}

/// A release and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The release.
    pub release: Release,
    /// What became of it.
    pub outcome: Outcome,
}

/// Why a release cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftFault {
    /// More than [`CLASSES_MAX`].
    #[error("{0} classes, at most {CLASSES_MAX} are possible")]
    Classes(usize),
    /// Nobody, or a name longer than [`AUTHOR_BYTES_MAX`].
    #[error("the author must have 1 to {AUTHOR_BYTES_MAX} bytes")]
    Author,
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("the message has {0} bytes, at most {MESSAGE_BYTES_MAX} are possible")]
    Message(usize),
    /// Past [`GENERATION_MAX`].
    #[error("there are no generations left")]
    Generations,
    /// Not, or no longer, in the history.
    #[error("release {0} is not in the history")]
    Unknown(u64),
    /// No confirmed release before the last good one.
    #[error("there is no earlier good release to go back to")]
    NothingEarlier,
}

/// A stored history breaks an invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("numbers and generations of the stored history do not rise at release {0}")]
pub struct NotRising(u64);

/// Releases, oldest first, and what became of each.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct History {
    /// Numbers and generations rise.
    entries: Vec<Entry>,
    /// The release of this number is confirmed and in `entries`.
    last_good: Option<u64>,
    /// Generations up to this one are spent, even if no release says so.
    floor: u64,
}

#[derive(Deserialize)]
struct Stored {
    entries: Vec<Entry>,
    last_good: Option<u64>,
    floor: u64,
}

impl TryFrom<Stored> for History {
    type Error = NotRising;

    fn try_from(stored: Stored) -> Result<History, NotRising> {
        for pair in stored.entries.windows(2) {
            let (older, newer) = (&pair[0].release, &pair[1].release);
            let rises = older.number < newer.number
                && older.revert_generation() < newer.restore_generation();
            if !rises {
                return Err(NotRising(newer.number));
            }
        }
        let Stored { entries, last_good, floor } = stored;
        Ok(History { entries, last_good, floor })
    }
}

impl History {
    /// An empty history whose generations begin above this one: for a pusher that lost its state
    /// while sidecars remember theirs.
    #[must_use]
    pub fn starting_above(generation: u64) -> History {
        History { floor: generation, ..History::default() }
    }

    /// Every release that is kept, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The classes of every release that is kept.
    pub(crate) fn classes_mut(&mut self) -> impl Iterator<Item = &mut Classes> {
        self.entries.iter_mut().map(|entry| &mut entry.release.classes)
    }

    /// A release by its number.
    #[must_use]
    pub fn entry(&self, number: u64) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.release.number == number)
    }

    /// The release that was confirmed last: what sidecars run, or return to.
    #[must_use]
    pub fn last_good(&self) -> Option<&Release> {
        self.entry(self.last_good?).map(|entry| &entry.release)
    }

    /// Makes a release of the draft and notes it as running.
    ///
    /// # Errors
    /// What is wrong with the draft; nothing is noted then.
    pub fn add(&mut self, draft: Draft, now: u64) -> Result<Release, DraftFault> {
        check(&draft)?;
        let last = self.entries.last().map(|entry| &entry.release);
        let spent = last.map_or(self.floor, |last| last.revert_generation().max(self.floor));
        if spent >= GENERATION_MAX - GENERATIONS_PER_RELEASE {
            return Err(DraftFault::Generations);
        }
        let release = Release {
            number: last.map_or(1, |last| last.number + 1),
            // Its generation of before lies between what is spent and this.
            generation: spent + 2,
            classes: draft.classes,
            author: draft.author,
            message: draft.message,
            created_ms: now,
            parent: self.last_good,
            forced: draft.forced,
            profile: draft.profile,
        };
        self.entries.push(Entry { release: release.clone(), outcome: Outcome::Running });
        self.forget_oldest();
        Ok(release)
    }

    /// A draft that goes back to the policies of an earlier release; without a number, to the good
    /// one before the last good one.
    ///
    /// # Errors
    /// That there is no such release.
    pub fn draft_back(&self, to: Option<u64>, author: &str) -> Result<Draft, DraftFault> {
        let release = match to {
            Some(number) => &self.entry(number).ok_or(DraftFault::Unknown(number))?.release,
            None => self.good_before_last().ok_or(DraftFault::NothingEarlier)?,
        };
        Ok(Draft {
            classes: release.classes.clone(),
            author: author.to_owned(),
            message: format!("back to release {}: {}", release.number, release.message)
                .chars()
                .take(MESSAGE_BYTES_MAX / 4)
                .collect(),
            forced: false,
            profile: Profile::Standard,
        })
    }

    /// Notes what became of a release; a confirmed one becomes the last good.
    pub fn settle(&mut self, number: u64, outcome: Outcome) {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.release.number == number)
        else {
            return;
        };
        if matches!(outcome, Outcome::Confirmed { .. }) {
            self.last_good = Some(number);
        }
        entry.outcome = outcome;
    }

    fn good_before_last(&self) -> Option<&Release> {
        let good = |entry: &&Entry| {
            matches!(entry.outcome, Outcome::Confirmed { .. })
                && Some(entry.release.number) != self.last_good
        };
        self.entries.iter().rev().find(good).map(|entry| &entry.release)
    }

    fn forget_oldest(&mut self) {
        if self.entries.len() > RELEASES_KEPT_MAX {
            let is_last_good = Some(self.entries[0].release.number) == self.last_good;
            self.entries.remove(usize::from(is_last_good));
        }
    }
}

fn check(draft: &Draft) -> Result<(), DraftFault> {
    if draft.classes.len() > CLASSES_MAX {
        return Err(DraftFault::Classes(draft.classes.len()));
    }
    if draft.author.is_empty() || draft.author.len() > AUTHOR_BYTES_MAX {
        return Err(DraftFault::Author);
    }
    if draft.message.len() > MESSAGE_BYTES_MAX {
        return Err(DraftFault::Message(draft.message.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
