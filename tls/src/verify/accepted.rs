//! Chains that were verified before, kept by each thread.
//!
//! A path to a root depends on the chain, the bundle and the time alone, and costs a verification
//! of a signature for each certificate and each CRL: some 50 us, a quarter of a mutual handshake.
//! A mesh has few peers that connect often. That a peer has the key of its certificate is proved in
//! every handshake; nothing of that is kept.
//!
//! # Invariants
//! - What is kept was accepted in full: path, revocation, and the rules of an SVID.
//! - It counts under the same roots and CRLs, for the same usage, and while all of the path is
//!   valid. A new list makes another bundle, and everything is verified anew.

use std::cell::RefCell;
use std::collections::HashMap;

use rustls_pki_types::{CertificateDer, UnixTime};

use crate::limits::ACCEPTED_CHAINS_MAX;
use crate::material::Bundle;
use crate::provider::Sha256;
use crate::spiffe::SpiffeId;

/// What a chain is known by: a digest of all that its verification depends on but the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

/// What became of a verification.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    /// Whose chain it is.
    pub(super) id: SpiffeId,
    /// First and last second in which all of the path is valid.
    pub(super) valid: (u64, u64),
}

thread_local! {
    static ACCEPTED: RefCell<HashMap<Key, Accepted>> = RefCell::default();
}

impl Key {
    /// The key of a chain under `bundle`; `usage` tells a client's from a server's.
    pub(super) fn new(
        bundle: &Bundle,
        usage: u8,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Key {
        let mut digest = Sha256::default();
        digest.update(&bundle.fingerprint());
        digest.update(&[usage]);
        for certificate in std::iter::once(leaf).chain(intermediates) {
            digest.update(&certificate.len().to_be_bytes());
            digest.update(certificate);
        }
        Key(digest.finish())
    }
}

/// What `key` came to before, if that holds at `now`.
pub(super) fn get(key: &Key, now: UnixTime) -> Option<Accepted> {
    ACCEPTED.with_borrow(|all| {
        let found = all.get(key)?;
        let (since, until) = found.valid;
        (since..=until).contains(&now.as_secs()).then(|| found.clone())
    })
}

/// Keeps what `key` came to. When there are too many, all are forgotten: they are verified again.
pub(super) fn keep(key: Key, accepted: Accepted) {
    ACCEPTED.with_borrow_mut(|all| {
        if all.len() >= ACCEPTED_CHAINS_MAX {
            all.clear();
        }
        all.insert(key, accepted);
    });
}

/// Number of chains that this thread keeps.
#[cfg(test)]
pub(super) fn count() -> usize {
    ACCEPTED.with_borrow(HashMap::len)
}
