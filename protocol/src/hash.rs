//! The identity of a policy.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// BLAKE3-256 of the bytes of a policy's text; 64 hexadecimal digits in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PolicyHash([u8; 32]);

/// Why a text is not a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 hexadecimal digits")]
pub struct HashError;

impl PolicyHash {
    /// Hashes `text`.
    #[must_use]
    pub fn of(text: &str) -> PolicyHash {
        PolicyHash(*blake3::hash(text.as_bytes()).as_bytes())
    }

    /// From the bytes of a digest.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> PolicyHash {
        PolicyHash(bytes)
    }

    /// The bytes of the digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

impl fmt::Display for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PolicyHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<PolicyHash, HashError> {
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if !text.bytes().all(lower) {
            return Err(HashError);
        }
        blake3::Hash::from_hex(text).map(|hash| PolicyHash(*hash.as_bytes())).map_err(|_| HashError)
    }
}

impl TryFrom<String> for PolicyHash {
    type Error = HashError;

    fn try_from(text: String) -> Result<PolicyHash, HashError> {
        text.parse()
    }
}

impl From<PolicyHash> for String {
    fn from(hash: PolicyHash) -> String {
        hash.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_written_and_in_no_other_way() {
        let hash = PolicyHash::of("{}");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.short().len(), 12);
        for wrong in ["", "ab", &hash.to_string().to_uppercase(), &format!("{hash}0")] {
            assert_eq!(wrong.parse::<PolicyHash>(), Err(HashError), "{wrong}");
        }
    }
}
