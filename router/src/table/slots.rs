//! A hash table from bytes to dense numbers: open addressing, eight bytes a slot.
//!
//! The keys stand elsewhere; the caller compares. Requests only look up, keys come from the
//! configuration alone, so a fixed seed is no weakness: a request cannot add to a chain.
//!
//! # Invariants
//! - At least one slot in eight is empty, so that every search ends.

use std::hash::{BuildHasher, Hasher};

/// Slots of a table. Empty is `number == u32::MAX`.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Box<[Slot]>,
    used: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    number: u32,
}

const EMPTY: Slot = Slot { hash: 0, number: u32::MAX };

/// Hash of a key and the space it belongs to.
#[inline]
pub(super) fn hash(space: u32, key: &[u8]) -> u32 {
    let seed = foldhash::quality::FixedState::with_seed(u64::from(space));
    let mut hasher = seed.build_hasher();
    hasher.write(key);
    (hasher.finish() >> 32) as u32
}

impl Slots {
    /// The number of the key with this hash for which `is` holds.
    #[inline]
    pub(super) fn find(&self, hash: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(hash);
        loop {
            let slot = self.slots[at];
            if slot.number == u32::MAX {
                return None;
            }
            if slot.hash == hash && is(slot.number) {
                return Some(slot.number);
            }
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
    }

    /// Maps the hash onto the slots without a division.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.slots.len() as u64) >> 32) as usize
    }

    /// Adds a key that is not there.
    pub(super) fn insert(&mut self, hash: u32, number: u32) {
        if (self.used + 1) * 8 > self.slots.len() * 7 {
            self.resize(((self.used + 1) * 2).max(8));
        }
        self.used += 1;
        self.place(Slot { hash, number });
    }

    fn place(&mut self, slot: Slot) {
        let mut at = self.home(slot.hash);
        while self.slots[at].number != u32::MAX {
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
        self.slots[at] = slot;
    }

    fn resize(&mut self, len: usize) {
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; len].into_boxed_slice());
        for slot in old {
            if slot.number != u32::MAX {
                self.place(slot);
            }
        }
    }

    /// Gives back what growing took in advance: three slots in four are used afterwards.
    pub(super) fn shrink(&mut self) {
        let len = (self.used * 4).div_ceil(3).max(self.used + 1);
        if self.used > 0 && len < self.slots.len() {
            self.resize(len);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val::<[_]>(&self.slots)
    }
}
