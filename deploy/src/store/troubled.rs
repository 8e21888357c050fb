//! For tests: a store in memory whose medium fails as it is told to.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use super::{Event, Listing, Memory, Store, StoreFault, Versioned};

/// A store with troubles of its own.
#[derive(Debug, Default)]
pub(crate) struct Troubled {
    pub(crate) memory: Memory,
    /// Takes no write.
    pub(crate) is_full: AtomicBool,
    /// Says of writes of keys without a slash that they failed though they did not.
    pub(crate) lies: AtomicBool,
}

impl Troubled {
    fn room(&self) -> Result<(), StoreFault> {
        if self.is_full.load(Ordering::Relaxed) { Err(failed("no space left")) } else { Ok(()) }
    }
}

fn failed(text: &str) -> StoreFault {
    StoreFault::Io { doing: "write", text: text.to_owned() }
}

impl Store for Troubled {
    fn get(&self, key: &str) -> Result<Option<Versioned>, StoreFault> {
        self.memory.get(key)
    }

    fn list(&self, prefix: &str) -> Result<Listing, StoreFault> {
        self.memory.list(prefix)
    }

    fn put_if_version(&self, key: &str, old: Option<u64>, value: &[u8]) -> Result<u64, StoreFault> {
        self.room()?;
        let written = self.memory.put_if_version(key, old, value)?;
        let lies = !key.contains('/') && self.lies.load(Ordering::Relaxed);
        if lies { Err(failed("no answer")) } else { Ok(written) }
    }

    fn delete_if_version(&self, key: &str, expected: u64) -> Result<u64, StoreFault> {
        self.room()?;
        self.memory.delete_if_version(key, expected)
    }

    fn watch(&self, prefix: &str, after: u64) -> Result<mpsc::Receiver<Event>, StoreFault> {
        self.memory.watch(prefix, after)
    }
}
