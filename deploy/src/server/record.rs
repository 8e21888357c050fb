//! What must outlive the pusher as one record, however long: in pieces that a store takes, behind a
//! pointer that is replaced last.
//!
//! # Invariants
//! - A reader sees the old record or the new one, never parts of both.
//! - Who has read an older pointer than there is now writes nothing.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::limits::VALUE_BYTES_MAX;
use crate::store::{Store, StoreFault};

/// Pieces of one record.
const PIECES_MAX: usize = 64;

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
    #[error("the record `{key}` has {bytes} bytes, more than fit into the store")]
    TooLong {
        /// Its name.
        key: String,
        /// As long as it is.
        bytes: usize,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pointer {
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
    /// Version of the pointer and what it says.
    read: Option<(u64, Pointer)>,
}

impl Record {
    /// The record `key`, and what it holds; nothing if it was never written.
    ///
    /// # Errors
    /// [`RecordFault`].
    pub fn open<T: DeserializeOwned>(
        store: Arc<dyn Store>,
        key: &'static str,
    ) -> Result<(Record, Option<T>), RecordFault> {
        let damaged = |text: String| RecordFault::Damaged { key: key.to_owned(), text };
        let Some(pointer) = store.get(key)? else {
            return Ok((Record { store, key, read: None }, None));
        };
        let parsed: Pointer =
            serde_json::from_slice(&pointer.value).map_err(|error| damaged(error.to_string()))?;
        let mut bytes = Vec::new();
        for nth in 0..parsed.pieces.min(PIECES_MAX) {
            let piece = store.get(&piece(key, parsed.number, nth))?;
            bytes.extend(piece.ok_or_else(|| damaged("a piece is missing".into()))?.value);
        }
        let value = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let read = Some((pointer.version, parsed));
        Ok((Record { store, key, read }, Some(value)))
    }

    /// Replaces what the record holds.
    ///
    /// # Errors
    /// [`RecordFault`]; then it holds what it did. [`StoreFault::Conflict`]: another pusher wrote.
    pub fn write<T: Serialize>(&mut self, value: &T) -> Result<(), RecordFault> {
        let bytes = serde_json::to_vec(value).map_err(|error| RecordFault::Damaged {
            key: self.key.to_owned(),
            text: error.to_string(),
        })?;
        let pieces: Vec<&[u8]> = bytes.chunks(VALUE_BYTES_MAX).collect();
        if pieces.len() > PIECES_MAX {
            return Err(RecordFault::TooLong { key: self.key.to_owned(), bytes: bytes.len() });
        }
        let number = fastrand::u64(..);
        for (nth, bytes) in pieces.iter().enumerate() {
            self.store.put_if_version(&piece(self.key, number, nth), None, bytes)?;
        }
        let pointer = Pointer { number, pieces: pieces.len() };
        let text = serde_json::to_vec(&pointer).unwrap_or_default();
        let expected = self.read.as_ref().map(|(version, _)| *version);
        match self.store.put_if_version(self.key, expected, &text) {
            Ok(version) => {
                if let Some((_, before)) = self.read.replace((version, pointer)) {
                    self.forget(&before);
                }
                Ok(())
            }
            Err(fault) => {
                self.forget(&pointer);
                Err(fault.into())
            }
        }
    }

    /// Removes pieces. What stays takes room and nothing else.
    fn forget(&self, pointer: &Pointer) {
        for nth in 0..pointer.pieces {
            let key = piece(self.key, pointer.number, nth);
            if let Ok(Some(entry)) = self.store.get(&key) {
                let _ = self.store.delete_if_version(&key, entry.version);
            }
        }
    }
}

fn piece(key: &str, number: u64, nth: usize) -> String {
    format!("{key}/{number}/{nth}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;

    #[test]
    fn a_record_of_any_length_comes_back_and_leaves_nothing_behind() {
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        let open = || Record::open::<String>(Arc::clone(&store), "conductor").expect("a record");
        let (mut record, nothing) = open();
        assert_eq!(nothing, None);
        for length in [0, 1, VALUE_BYTES_MAX, 3 * VALUE_BYTES_MAX] {
            let text = "x".repeat(length);
            record.write(&text).expect("room");
            assert_eq!(open().1, Some(text));
        }
        record.write(&String::new()).expect("room");
        assert_eq!(store.list("conductor").expect("a store").entries.len(), 2);
    }

    #[test]
    fn the_slower_of_two_pushers_writes_nothing() {
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        let open = || Record::open::<u32>(Arc::clone(&store), "conductor").expect("a record").0;
        let (mut first, mut second) = (open(), open());
        first.write(&1).expect("the first one");
        let late = second.write(&2);
        assert!(matches!(late, Err(RecordFault::Store(StoreFault::Conflict { .. }))), "{late:?}");
        let (_, value) = Record::open::<u32>(Arc::clone(&store), "conductor").expect("a record");
        assert_eq!(value, Some(1));
    }
}
