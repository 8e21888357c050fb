//! Changes on their way to watchers: the last ones kept, each sent to whom it concerns.
//!
//! # Invariants
//! - `oldest <= revision of the first kept event - 1`, and all events since `oldest` are kept.
//! - Sending never waits: a watcher whose channel is full is cut off.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::limits::{EVENTS_KEPT_MAX, EVENTS_QUEUED_MAX, WATCHES_MAX};
use super::{Event, StoreFault};

/// Watchers of one store and what they may still ask for.
#[derive(Debug)]
pub(super) struct Hub {
    kept: VecDeque<Event>,
    /// Changes after this revision are known.
    oldest: u64,
    /// Of the last change.
    revision: u64,
    watchers: Vec<Watcher>,
}

#[derive(Debug)]
struct Watcher {
    prefix: String,
    sender: mpsc::Sender<Event>,
}

impl Hub {
    /// Of a store that is at `revision`; what happened before is not known.
    pub(super) fn new(revision: u64) -> Hub {
        Hub { kept: VecDeque::new(), oldest: revision, revision, watchers: Vec::new() }
    }

    pub(super) fn publish(&mut self, event: Event) {
        self.revision = event.revision;
        self.watchers.retain(|watcher| {
            if event.key.starts_with(&watcher.prefix) {
                watcher.sender.try_send(event.clone()).is_ok()
            } else {
                !watcher.sender.is_closed()
            }
        });
        if self.kept.len() == EVENTS_KEPT_MAX
            && let Some(gone) = self.kept.pop_front()
        {
            self.oldest = gone.revision;
        }
        self.kept.push_back(event);
    }

    pub(super) fn watch(
        &mut self,
        prefix: &str,
        after: u64,
    ) -> Result<mpsc::Receiver<Event>, StoreFault> {
        // A revision of the future is one of a store that has since been restored from a copy.
        if after < self.oldest || after > self.revision {
            return Err(StoreFault::Compacted { oldest: self.revision });
        }
        self.watchers.retain(|watcher| !watcher.sender.is_closed());
        if self.watchers.len() >= WATCHES_MAX {
            return Err(StoreFault::Full { what: "watches", max: WATCHES_MAX as u64 });
        }
        let (sender, receiver) = mpsc::channel(EVENTS_QUEUED_MAX);
        let missed = self.kept.iter().filter(|event| event.revision > after);
        for event in missed.filter(|event| event.key.starts_with(prefix)) {
            // It fits: the channel is longer than what is kept.
            let _ = sender.try_send(event.clone());
        }
        self.watchers.push(Watcher { prefix: prefix.to_owned(), sender });
        Ok(receiver)
    }
}
