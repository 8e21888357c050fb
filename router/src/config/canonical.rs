//! The canonical form of a configuration and its hash.
//!
//! The form is JSON with the fields in the order of the structs, durations in milliseconds and
//! defaults left out, so that key order, comments, format and the way a value is written do not
//! show. Names keep their case, lists their order: both can matter.
//!
//! # Invariants
//! - Two configurations with one hash behave alike. (Two with different hashes may behave alike,
//!   too.)

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::Config;

/// BLAKE3 of the canonical form of a configuration: the identity of the table compiled of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TableHash([u8; 32]);

impl TableHash {
    /// Hashes `config`.
    pub fn of(config: &Config) -> TableHash {
        // The first bytes name the form, so that a later form of the same model cannot collide with
        // this one.
        let mut hasher = blake3::Hasher::new_derive_key("ringway table 1");
        let mut out = BufWriter::with_capacity(64 << 10, Update(&mut hasher));
        // Neither serialising plain structs nor hashing can fail; an error would still change the
        // hash.
        let written = serde_json::to_writer(&mut out, config).is_ok() && out.flush().is_ok();
        drop(out);
        hasher.update(&[u8::from(written)]);
        TableHash(*hasher.finalize().as_bytes())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 hexadecimal digits, for log lines.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

impl fmt::Display for TableHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for TableHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

struct Update<'a>(&'a mut blake3::Hasher);

impl Write for Update<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether `value` says nothing that its default does not.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Writes a duration as whole milliseconds, the unit that all settings are kept in.
pub(super) fn milliseconds<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
}

/// Writes a duration that may be absent.
pub(super) fn optional_milliseconds<S: Serializer>(
    value: &Option<Duration>,
    to: S,
) -> Result<S::Ok, S::Error> {
    value.map(|value| u64::try_from(value.as_millis()).unwrap_or(u64::MAX)).serialize(to)
}

/// Writes a list of things by their text.
pub(super) fn display_all<T: fmt::Display, S: Serializer>(
    values: &[T],
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(ToString::to_string))
}
