//! Which slots of the process are taken.
//!
//! # Invariants
//! - A slot is free when nobody holds its load: the list keeps only weak references.

use std::sync::{Arc, Weak};

use super::{EndpointLoad, EndpointSlot};
use crate::limits::SLOTS_MAX;

/// All slots ever given, with the load that each was given with last.
#[derive(Clone, Debug, Default)]
pub(super) struct SlotList {
    given: Vec<Weak<EndpointLoad>>,
    /// Where to look for a free one next: those before it were taken when this list was built upon.
    next: usize,
}

impl SlotList {
    /// A free slot with a new load, the lowest that this list has not passed yet; `None` at
    /// [`SLOTS_MAX`].
    pub(super) fn take(
        &mut self,
        name: Option<Arc<str>>,
    ) -> Option<(EndpointSlot, Arc<EndpointLoad>)> {
        let load = Arc::new(EndpointLoad { name, ..EndpointLoad::default() });
        while self.next < self.given.len() {
            let at = self.next;
            self.next += 1;
            if self.given[at].strong_count() == 0 {
                self.given[at] = Arc::downgrade(&load);
                return Some((EndpointSlot(at as u32), load));
            }
        }
        if self.given.len() >= SLOTS_MAX {
            return None;
        }
        self.given.push(Arc::downgrade(&load));
        self.next = self.given.len();
        Some((EndpointSlot(self.next as u32 - 1), load))
    }

    /// The list to build the next table on.
    pub(super) fn reopened(&self) -> SlotList {
        SlotList { given: self.given.clone(), next: 0 }
    }

    pub(super) fn count(&self) -> usize {
        self.given.len()
    }
}
