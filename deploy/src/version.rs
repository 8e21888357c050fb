//! What names a policy, and what names a sidecar: hashes, generations, keys.
//!
//! A policy *is* its hash; a generation only orders what a sidecar was told. A sidecar takes a
//! generation above every one it took before, so that what is old and late changes nothing; going
//! back is a higher generation with an older hash.
//!
//! # Not here
//! How the bytes of a policy are written down and hashed (the compiler).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::{IDENTITY_BYTES_MAX, NODE_BYTES_MAX};

pub use ringway_protocol::{HashError, PolicyHash};

/// A policy and its place in the order of what a sidecar was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// Its order.
    pub generation: u64,
    /// What it is.
    pub hash: PolicyHash,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.hash.short(), self.generation)
    }
}

/// A sidecar: its workload's identity, which is also its class, and the name of its node, which is
/// unique within the identity. Written `identity/node`.
///
/// Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SidecarKey {
    identity: Arc<str>,
    /// Without a slash, so that the text can be read back.
    node: Arc<str>,
}

/// What is wrong with the name of a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotKey {
    /// No identity, or one longer than [`IDENTITY_BYTES_MAX`].
    #[error("the identity must have 1 to {IDENTITY_BYTES_MAX} bytes")]
    Identity,
    /// No node, a node with a slash, or one longer than [`NODE_BYTES_MAX`].
    #[error("the node must have 1 to {NODE_BYTES_MAX} bytes and no '/'")]
    Node,
}

impl SidecarKey {
    /// A sidecar by the identity that its certificate proves and the node that it names.
    ///
    /// # Errors
    /// Which of the two is empty, too long, or cannot be told from the other.
    pub fn new(identity: &str, node: &str) -> Result<SidecarKey, NotKey> {
        if identity.is_empty() || identity.len() > IDENTITY_BYTES_MAX {
            return Err(NotKey::Identity);
        }
        if node.is_empty() || node.len() > NODE_BYTES_MAX || node.contains('/') {
            return Err(NotKey::Node);
        }
        Ok(SidecarKey { identity: identity.into(), node: node.into() })
    }

    /// The identity of the workload, which names its class.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The name of the node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }
}

impl fmt::Display for SidecarKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.identity, self.node)
    }
}

impl TryFrom<String> for SidecarKey {
    type Error = NotKey;

    fn try_from(text: String) -> Result<SidecarKey, NotKey> {
        let (identity, node) = text.rsplit_once('/').ok_or(NotKey::Node)?;
        SidecarKey::new(identity, node)
    }
}

impl From<SidecarKey> for String {
    fn from(key: SidecarKey) -> String {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_reads_back_and_has_one_spelling() {
        let hash = PolicyHash::new([0xab; 32]);
        let text = hash.to_string();
        assert_eq!(text.parse(), Ok(hash));
        assert_eq!(hash.short(), "abababababab");
        assert_eq!(text.to_uppercase().parse::<PolicyHash>(), Err(HashError));
        assert_eq!(text[1..].parse::<PolicyHash>(), Err(HashError));
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<PolicyHash>(&json).unwrap(), hash);
    }

    #[test]
    fn a_key_reads_back_although_identities_have_slashes() {
        let key = SidecarKey::new("spiffe://mesh/ns/shop/sa/web", "node-3").unwrap();
        assert_eq!(key.to_string(), "spiffe://mesh/ns/shop/sa/web/node-3");
        assert_eq!(SidecarKey::try_from(key.to_string()), Ok(key));
    }

    #[test]
    fn keys_have_limits() {
        let identity = "i".repeat(IDENTITY_BYTES_MAX);
        let node = "n".repeat(NODE_BYTES_MAX);
        assert!(SidecarKey::new(&identity, &node).is_ok());
        assert_eq!(SidecarKey::new(&format!("{identity}i"), &node), Err(NotKey::Identity));
        assert_eq!(SidecarKey::new(&identity, &format!("{node}n")), Err(NotKey::Node));
        assert_eq!(SidecarKey::new("", "n"), Err(NotKey::Identity));
        assert_eq!(SidecarKey::new("i", ""), Err(NotKey::Node));
        assert_eq!(SidecarKey::new("i", "a/b"), Err(NotKey::Node));
    }
}
