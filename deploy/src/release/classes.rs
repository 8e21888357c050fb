//! Which policy each class is to have: shared by all who name it, and stored once.
//!
//! # Invariants
//! - Equal hashes are equal classes.
//! - Written down with what names it is the hash alone; the classes are written once beside that
//!   (`server::core::kept`), however many releases name them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::version::PolicyHash;

/// Hash of the policy of each class, by the identity of the workload.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "PolicyHash", into = "PolicyHash")]
pub struct Classes {
    hash: PolicyHash,
    policies: Arc<BTreeMap<String, PolicyHash>>,
}

/// Classes by their hash.
pub type KnownClasses = HashMap<PolicyHash, Classes>;

impl Classes {
    /// BLAKE3-256 of them as JSON.
    #[must_use]
    pub fn hash(&self) -> PolicyHash {
        self.hash
    }

    /// Finds the classes that are only named, as after reading, among those that are known. Gives
    /// whether they were there.
    pub(crate) fn find(&mut self, known: &KnownClasses) -> bool {
        let found = known.get(&self.hash);
        if let Some(found) = found {
            self.clone_from(found);
        }
        found.is_some()
    }
}

impl From<BTreeMap<String, PolicyHash>> for Classes {
    fn from(policies: BTreeMap<String, PolicyHash>) -> Classes {
        let text = serde_json::to_string(&policies).unwrap_or_default();
        Classes { hash: PolicyHash::of(&text), policies: Arc::new(policies) }
    }
}

impl Default for Classes {
    fn default() -> Classes {
        Classes::from(BTreeMap::new())
    }
}

/// Those of this hash; which they are is to be found.
impl From<PolicyHash> for Classes {
    fn from(hash: PolicyHash) -> Classes {
        Classes { hash, policies: Arc::default() }
    }
}

impl From<Classes> for PolicyHash {
    fn from(classes: Classes) -> PolicyHash {
        classes.hash
    }
}

impl PartialEq for Classes {
    fn eq(&self, other: &Classes) -> bool {
        self.hash == other.hash
    }
}

impl Eq for Classes {}

impl Deref for Classes {
    type Target = BTreeMap<String, PolicyHash>;

    fn deref(&self) -> &BTreeMap<String, PolicyHash> {
        &self.policies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_written_by_their_hash_and_found_again() {
        let classes = Classes::from(BTreeMap::from([("web".to_owned(), PolicyHash::of("a"))]));
        let text = serde_json::to_string(&classes).expect("text");
        assert_eq!(text, format!("\"{}\"", classes.hash()));
        let mut read: Classes = serde_json::from_str(&text).expect("classes");
        assert!(read.is_empty());
        assert!(!read.find(&KnownClasses::new()));
        assert!(read.find(&KnownClasses::from([(classes.hash(), classes.clone())])));
        assert_eq!(read.get("web"), Some(&PolicyHash::of("a")));
        assert_ne!(read, Classes::default());
    }
}
