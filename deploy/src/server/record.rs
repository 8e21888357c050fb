//! What must outlive the pusher as one record, however long: in parts, each in pieces that a store
//! takes, behind a pointer that is replaced last.
//!
//! ```text
//! conductor ─▶ {rollout: 2 pieces, mesh: 1 piece, ...} ─▶ conductor/17/0, conductor/17/1, ...
//! ```
//!
//! # Invariants
//! - A reader sees the old record or the new one, never parts of both.
//! - A part that is as it was is not written again.
//! - Who has read an older pointer than there is now writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringway_protocol::PolicyHash;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::limits::VALUE_BYTES_MAX;
use crate::store::{Store, StoreFault};

/// Pieces of one part: 192 MiB, more than twice what a folder may have.
const PIECES_MAX: usize = 256;

/// Why a record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordFault {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// It is not what was written.
    #[error("the record `{key}` cannot be read: {text}")]
    Damaged {
        /// Its name.
        key: String,
        /// Why.
        text: String,
    },
    /// More than fits.
    #[error("`{part}` of the record `{key}` has {bytes} bytes, more than fit into the store")]
    TooLong {
        /// Its name.
        key: String,
        /// The part.
        part: String,
        /// As long as it is.
        bytes: usize,
    },
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pointer {
    parts: BTreeMap<String, Part>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Part {
    /// Of all its bytes.
    hash: PolicyHash,
    /// Drawn for every write, so that two who write at once do not meet; part of the keys of the
    /// pieces.
    number: u64,
    pieces: usize,
}

/// A record of a store.
#[derive(Debug)]
pub struct Record {
    store: Arc<dyn Store>,
    key: &'static str,
    /// Version of the pointer, if there is one.
    version: Option<u64>,
    pointer: Pointer,
    /// A pointer whose write failed, and may be in the store nevertheless.
    uncertain: Option<Vec<u8>>,
}

impl Record {
    /// The record `key`, empty if it was never written.
    ///
    /// # Errors
    /// [`RecordFault`].
    pub fn open(store: Arc<dyn Store>, key: &'static str) -> Result<Record, RecordFault> {
        let (mut version, mut pointer) = (None, Pointer::default());
        if let Some(entry) = store.get(key)? {
            version = Some(entry.version);
            pointer = serde_json::from_slice(&entry.value).map_err(|error| damaged(key, &error))?;
        }
        let record = Record { store, key, version, pointer, uncertain: None };
        record.sweep()?;
        Ok(record)
    }

    /// Removes pieces that no pointer names: those of a write that failed, or was cut short.
    fn sweep(&self) -> Result<(), RecordFault> {
        let named: BTreeSet<String> = self
            .pointer
            .parts
            .values()
            .flat_map(|part| (0..part.pieces).map(|nth| piece(self.key, part.number, nth)))
            .collect();
        for (key, entry) in self.store.list(&format!("{}/", self.key))?.entries {
            if !named.contains(&key) {
                let _ = self.store.delete_if_version(&key, entry.version);
            }
        }
        Ok(())
    }

    /// Takes the version of a pointer whose write failed and which is in the store nevertheless.
    fn settle(&mut self) -> Result<(), RecordFault> {
        let Some(uncertain) = &self.uncertain else { return Ok(()) };
        if let Some(entry) = self.store.get(self.key)?.filter(|entry| entry.value == *uncertain) {
            self.version = Some(entry.version);
        }
        self.uncertain = None;
        Ok(())
    }

    /// The names of its parts that begin with `prefix`.
    pub fn names(&self, prefix: &str) -> impl Iterator<Item = &str> {
        let names = self.pointer.parts.keys().map(String::as_str);
        names.filter(move |name| name.starts_with(prefix))
    }

    /// A part; nothing if there is none of this name.
    ///
    /// # Errors
    /// [`RecordFault`].
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, RecordFault> {
        let Some(part) = self.pointer.parts.get(name) else { return Ok(None) };
        let mut bytes = Vec::new();
        for nth in 0..part.pieces.min(PIECES_MAX) {
            let piece = self.store.get(&piece(self.key, part.number, nth))?;
            let missing = || damaged(self.key, &format!("a piece of `{name}` is missing"));
            bytes.extend(piece.ok_or_else(missing)?.value);
        }
        let value = serde_json::from_slice(&bytes);
        value.map(Some).map_err(|error| damaged(self.key, &format!("`{name}`: {error}")))
    }

    /// Begins to replace what the record holds.
    pub fn change(&mut self) -> Change<'_> {
        Change { record: self, next: Pointer::default(), written: Vec::new() }
    }

    /// Removes pieces. What stays takes room and nothing else.
    fn forget(&self, part: &Part) {
        for nth in 0..part.pieces {
            let key = piece(self.key, part.number, nth);
            if let Ok(Some(entry)) = self.store.get(&key) {
                let _ = self.store.delete_if_version(&key, entry.version);
            }
        }
    }
}

/// What a record is to hold. Without [`Change::commit`] it holds what it did.
pub struct Change<'a> {
    record: &'a mut Record,
    next: Pointer,
    /// Parts that no pointer names yet.
    written: Vec<Part>,
}

impl Change<'_> {
    /// Puts a part in.
    ///
    /// # Errors
    /// [`RecordFault`].
    pub fn put<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), RecordFault> {
        let bytes = serde_json::to_vec(value).map_err(|error| damaged(self.record.key, &error))?;
        let hash = PolicyHash::new(*blake3::hash(&bytes).as_bytes());
        let known = self.record.pointer.parts.get(name).filter(|part| part.hash == hash);
        let part = match known {
            Some(known) => known.clone(),
            None => self.write(name, hash, &bytes)?,
        };
        self.next.parts.insert(name.to_owned(), part);
        Ok(())
    }

    /// Puts a part in whose name says what it holds, so that it never changes.
    ///
    /// # Errors
    /// [`RecordFault`].
    pub fn put_once<T: Serialize + ?Sized>(
        &mut self,
        name: &str,
        value: &T,
    ) -> Result<(), RecordFault> {
        if self.next.parts.contains_key(name) {
            return Ok(());
        }
        match self.record.pointer.parts.get(name) {
            Some(known) => {
                self.next.parts.insert(name.to_owned(), known.clone());
                Ok(())
            }
            None => self.put(name, value),
        }
    }

    fn write(&mut self, name: &str, hash: PolicyHash, bytes: &[u8]) -> Result<Part, RecordFault> {
        let key = self.record.key;
        let pieces = bytes.len().div_ceil(VALUE_BYTES_MAX);
        if pieces > PIECES_MAX {
            let (key, part) = (key.to_owned(), name.to_owned());
            return Err(RecordFault::TooLong { key, part, bytes: bytes.len() });
        }
        let part = Part { hash, number: fastrand::u64(..), pieces };
        self.written.push(part.clone());
        for (nth, bytes) in bytes.chunks(VALUE_BYTES_MAX).enumerate() {
            self.record.store.put_if_version(&piece(key, part.number, nth), None, bytes)?;
        }
        Ok(part)
    }

    /// Replaces what the record holds by the parts that were put in, and no others.
    ///
    /// # Errors
    /// [`RecordFault`]; then it holds what it did. [`StoreFault::Conflict`]: another pusher wrote.
    pub fn commit(mut self) -> Result<(), RecordFault> {
        let next = std::mem::take(&mut self.next);
        let text = serde_json::to_vec(&next).map_err(|error| damaged(self.record.key, &error))?;
        self.record.settle()?;
        let (store, key) = (&self.record.store, self.record.key);
        let version = match store.put_if_version(key, self.record.version, &text) {
            Ok(version) => version,
            Err(fault @ StoreFault::Conflict { .. }) => return Err(fault.into()),
            Err(fault) => {
                // What the pointer names stays, in case that it is there.
                self.written.clear();
                self.record.uncertain = Some(text);
                return Err(fault.into());
            }
        };
        self.written.clear();
        self.record.version = Some(version);
        let before = std::mem::replace(&mut self.record.pointer, next);
        let is_named = |part: &Part| {
            self.record.pointer.parts.values().any(|named| named.number == part.number)
        };
        for part in before.parts.values().filter(|part| !is_named(part)) {
            self.record.forget(part);
        }
        Ok(())
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        for part in &self.written {
            self.record.forget(part);
        }
    }
}

fn damaged(key: &str, text: &dyn std::fmt::Display) -> RecordFault {
    RecordFault::Damaged { key: key.to_owned(), text: text.to_string() }
}

fn piece(key: &str, number: u64, nth: usize) -> String {
    format!("{key}/{number}/{nth}")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::store::Memory;
    use crate::store::troubled::Troubled;

    fn opened(store: &Arc<Memory>) -> Record {
        Record::open(Arc::clone(store) as Arc<dyn Store>, "conductor").expect("a record")
    }

    fn keys(store: &Memory) -> Vec<String> {
        let listed = store.list("conductor").expect("a store").entries;
        listed.into_iter().map(|(key, _)| key).collect()
    }

    fn write(record: &mut Record, parts: &[(&str, &str)]) -> Result<(), RecordFault> {
        let mut change = record.change();
        for (name, text) in parts {
            change.put(name, text)?;
        }
        change.commit()
    }

    #[test]
    fn parts_of_any_length_come_back_and_leave_nothing_behind() {
        let store = Arc::new(Memory::new());
        let mut record = opened(&store);
        assert_eq!(record.read::<String>("a").expect("a record"), None);
        for length in [0, 1, VALUE_BYTES_MAX, 3 * VALUE_BYTES_MAX] {
            let text = "x".repeat(length);
            write(&mut record, &[("a", &text), ("b", "b")]).expect("room");
            let read = opened(&store);
            assert_eq!(read.read("a").expect("a part"), Some(text));
            assert_eq!(read.read("b").expect("a part"), Some("b".to_owned()));
        }
        write(&mut record, &[("a", "")]).expect("room");
        assert_eq!(keys(&store).len(), 2, "the pointer and a piece");
        assert_eq!(opened(&store).names("").collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_part_that_is_as_it_was_is_not_written_again() {
        let store = Arc::new(Memory::new());
        let mut record = opened(&store);
        write(&mut record, &[("a", "1"), ("b", "1")]).expect("room");
        let before = keys(&store);
        write(&mut record, &[("a", "1"), ("b", "2")]).expect("room");
        let after = keys(&store);
        assert_eq!(after.iter().filter(|key| before.contains(key)).count(), 2, "pointer and `a`");

        let mut change = record.change();
        change.put_once("a", "never looked at").expect("room");
        change.put_once("c", "3").expect("room");
        change.put_once("c", "never looked at").expect("room");
        change.commit().expect("room");
        let read = opened(&store);
        assert_eq!(read.read("a").expect("a part"), Some("1".to_owned()));
        assert_eq!(read.read("c").expect("a part"), Some("3".to_owned()));
        assert_eq!(read.names("").collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn the_slower_of_two_pushers_writes_nothing() {
        let store = Arc::new(Memory::new());
        let (mut first, mut second) = (opened(&store), opened(&store));
        write(&mut first, &[("a", "1")]).expect("the first one");
        let late = write(&mut second, &[("a", "2")]);
        assert!(matches!(late, Err(RecordFault::Store(StoreFault::Conflict { .. }))), "{late:?}");
        assert_eq!(opened(&store).read("a").expect("a part"), Some("1".to_owned()));
        assert_eq!(keys(&store).len(), 2, "nothing is left of the second");
    }

    #[test]
    fn a_piece_that_is_missing_and_a_record_of_another_kind_are_said() {
        let store = Arc::new(Memory::new());
        let mut record = opened(&store);
        write(&mut record, &[("a", "1")]).expect("room");
        let pieces = keys(&store).into_iter().filter(|key| key.contains('/'));
        for key in pieces {
            let version = store.get(&key).expect("a store").expect("a piece").version;
            store.delete_if_version(&key, version).expect("a store");
        }
        let read = opened(&store).read::<String>("a").expect_err("a piece is missing");
        assert!(read.to_string().contains("a piece of `a` is missing"), "{read}");

        let version = store.get("conductor").expect("a store").map(|entry| entry.version);
        store.put_if_version("conductor", version, b"{\"number\":1}").expect("room");
        let opened = Record::open(store, "conductor").expect_err("of another kind");
        assert!(opened.to_string().contains("cannot be read"), "{opened}");
    }

    #[test]
    fn a_write_that_failed_and_is_there_nevertheless_stops_nothing() {
        let store = Arc::new(Troubled::default());
        let opened = || Record::open(Arc::clone(&store) as Arc<dyn Store>, "conductor");
        let mut record = opened().expect("a record");
        write(&mut record, &[("a", "1"), ("b", "1")]).expect("room");
        store.lies.store(true, Ordering::Relaxed);
        assert!(write(&mut record, &[("a", "2"), ("b", "1")]).is_err());
        let read = opened().expect("a record");
        assert_eq!(read.read("a").expect("a part"), Some("2".to_owned()), "it is there");
        store.lies.store(false, Ordering::Relaxed);
        write(&mut record, &[("a", "3"), ("b", "1")]).expect("room");
        let read = opened().expect("a record");
        assert_eq!(read.read("a").expect("a part"), Some("3".to_owned()));
        assert_eq!(read.read("b").expect("a part"), Some("1".to_owned()));
        assert_eq!(keys(&store.memory).len(), 3, "what was left over is swept at the start");
    }
}
