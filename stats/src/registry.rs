//! Names to dense ids, so that a series is found by an index and not by a hash.
//!
//! Owned by the control thread, which asks for every name at each reload; workers only ever see
//! ids.
//!
//! # Invariants
//! - An id belongs to one name for the life of the process: a route that disappears and returns
//!   continues its series.
//! - Ids are dense: `0..len`. Id [`OVERFLOW`] is taken from the start by [`OVERFLOW_NAME`], and
//!   shared by every name past the capacity.
//!
//! # Not here
//! The series ([`Slots`](crate::Slots)) and forgetting names: the capacity bounds them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::limits::SERIES_MAX;

/// The id that names past the capacity share.
pub const OVERFLOW: u32 = 0;

/// The name of [`OVERFLOW`].
pub const OVERFLOW_NAME: &str = "_overflow";

/// Names and their ids.
#[derive(Clone, Debug)]
pub struct Registry {
    ids: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
    /// 1 <= capacity <= SERIES_MAX; names.len() <= capacity.
    capacity: usize,
    overflowed: u64,
}

impl Registry {
    /// A registry of at most `capacity` ids, the overflow id among them; cut to `1..=SERIES_MAX`.
    ///
    /// A [`Slots`](crate::Slots) of the same capacity has a slot for every id.
    pub fn new(capacity: usize) -> Self {
        let name: Arc<str> = Arc::from(OVERFLOW_NAME);
        Self {
            ids: HashMap::from([(Arc::clone(&name), OVERFLOW)]),
            names: vec![name],
            capacity: capacity.clamp(1, SERIES_MAX),
            overflowed: 0,
        }
    }

    /// The id of `name`, the same each time; [`OVERFLOW`] if the name is new and there is no room.
    pub fn id(&mut self, name: &str) -> u32 {
        if let Some(&id) = self.ids.get(name) {
            return id;
        }
        if self.names.len() >= self.capacity {
            self.overflowed += 1;
            return OVERFLOW;
        }
        let id = self.names.len() as u32;
        let name: Arc<str> = Arc::from(name);
        self.ids.insert(Arc::clone(&name), id);
        self.names.push(name);
        id
    }

    /// The name of `id`.
    pub fn name(&self, id: u32) -> Option<&str> {
        self.names.get(id as usize).map(AsRef::as_ref)
    }

    /// Names in order of their ids, to hand to the admin thread.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Ids given out, the overflow id included.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Never: the overflow id is always there.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// How often a name was refused an id of its own. A name counts at each reload that asks for
    /// it.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_dense_and_stable_for_a_name() {
        let mut registry = Registry::new(10);
        assert_eq!(registry.id("reviews"), 1);
        assert_eq!(registry.id("ratings"), 2);
        assert_eq!(registry.id("reviews"), 1);
        assert_eq!(registry.name(2), Some("ratings"));
        assert_eq!(registry.name(3), None);
        assert_eq!(registry.len(), 3);
        assert_eq!(registry.overflowed(), 0);
    }

    #[test]
    fn name_past_the_capacity_shares_the_overflow_id_and_is_counted() {
        let mut registry = Registry::new(2);
        assert_eq!(registry.id("fits"), 1);
        assert_eq!(registry.id("one-too-many"), OVERFLOW);
        assert_eq!(registry.id("one-too-many"), OVERFLOW);
        assert_eq!(registry.id("fits"), 1);
        assert_eq!((registry.len(), registry.overflowed()), (2, 2));
        assert_eq!(registry.name(OVERFLOW), Some(OVERFLOW_NAME));
    }

    #[test]
    fn capacity_of_zero_still_holds_the_overflow_id() {
        let mut registry = Registry::new(0);
        assert_eq!(registry.id("any"), OVERFLOW);
        assert_eq!(registry.len(), 1);
    }
}
