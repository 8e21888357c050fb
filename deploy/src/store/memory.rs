//! A store that ends with its process: for tests and the `dev` profile.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::limits::ENTRIES_MAX;
use super::watch::Hub;
use super::{Change, Event, Listing, Store, StoreFault, Versioned, check_key, check_value};

/// A store in memory.
#[derive(Debug)]
pub struct Memory {
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    entries: BTreeMap<String, Versioned>,
    revision: u64,
    hub: Hub,
}

impl Memory {
    /// An empty one.
    #[must_use]
    pub fn new() -> Memory {
        let held = Held { entries: BTreeMap::new(), revision: 0, hub: Hub::new(0) };
        Memory { held: Mutex::new(held) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing under the lock leaves it half changed.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::new()
    }
}

impl Held {
    fn check_version(&self, key: &str, expected: Option<u64>) -> Result<(), StoreFault> {
        let current = self.entries.get(key).map(|entry| entry.version);
        if current == expected { Ok(()) } else { Err(StoreFault::Conflict { current }) }
    }

    fn changed(&mut self, key: &str, change: Change) -> u64 {
        self.revision += 1;
        let revision = self.revision;
        self.hub.publish(Event { revision, key: key.to_owned(), change });
        revision
    }
}

impl Store for Memory {
    fn get(&self, key: &str) -> Result<Option<Versioned>, StoreFault> {
        check_key(key)?;
        Ok(self.held().entries.get(key).cloned())
    }

    fn list(&self, prefix: &str) -> Result<Listing, StoreFault> {
        let held = self.held();
        let entries = held.entries.range(prefix.to_owned()..);
        let entries = entries.take_while(|(key, _)| key.starts_with(prefix));
        let entries = entries.map(|(key, entry)| (key.clone(), entry.clone())).collect();
        Ok(Listing { revision: held.revision, entries })
    }

    fn put_if_version(
        &self,
        key: &str,
        expected: Option<u64>,
        value: &[u8],
    ) -> Result<u64, StoreFault> {
        check_key(key)?;
        check_value(value)?;
        let mut held = self.held();
        held.check_version(key, expected)?;
        if expected.is_none() && held.entries.len() as u64 >= ENTRIES_MAX {
            return Err(StoreFault::Full { what: "entries", max: ENTRIES_MAX });
        }
        let version = held.changed(key, Change::Put);
        held.entries.insert(key.to_owned(), Versioned { version, value: value.to_vec() });
        Ok(version)
    }

    fn delete_if_version(&self, key: &str, expected: u64) -> Result<u64, StoreFault> {
        check_key(key)?;
        let mut held = self.held();
        held.check_version(key, Some(expected))?;
        held.entries.remove(key);
        Ok(held.changed(key, Change::Delete))
    }

    fn watch(&self, prefix: &str, after: u64) -> Result<mpsc::Receiver<Event>, StoreFault> {
        self.held().hub.watch(prefix, after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_a_store() {
        super::super::tests::conforms(Memory::new);
    }
}
