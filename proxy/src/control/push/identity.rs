//! The sidecar's own key and certificate: made here, signed by the pusher, kept in the state
//! folder.
//!
//! # Invariants
//! - A key never leaves the process but to its own disk; every certificate has a new one.
//! - Certificate and key are one file, so that no crash leaves a pair that does not fit together.
//! - A certificate that is valid stays in use until the next one is on disk.
//! - The epoch of roots and revocations never falls, but where the sidecar joins anew.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair as Key, PKCS_ECDSA_P256_SHA256};
use ringway_protocol::Joined;
use ringway_tls::{Bundle, KeyPair, MaterialFault, SpiffeId, UnixTime};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::state::{StateDir, StateError};

/// Chain and key, as the policy names it.
const PAIR_FILE: &str = "svid.pem";
/// Roots.
const BUNDLE_FILE: &str = "bundle.pem";
/// Revocation lists.
const REVOKED_FILE: &str = "revoked.pem";
/// What the pusher said about the certificate.
const ABOUT_FILE: &str = "about.json";

/// Why there is no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The folder.
    #[error("{0}")]
    State(#[from] StateError),
    /// What the files hold.
    #[error("the certificate in state_dir cannot be used: {0}")]
    Material(#[from] MaterialFault),
    /// A key or a request cannot be made.
    #[error("a key cannot be made: {0}")]
    Key(#[from] rcgen::Error),
    /// The answer of the pusher is not what was asked for.
    #[error("the pusher's answer cannot be used: {0}")]
    Answer(String),
}

/// What the pusher said about certificate and roots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    renew_at_s: u64,
    epoch: u64,
}

/// A key with a request for a certificate, PEM.
pub struct Request {
    key: Key,
    /// What is sent.
    pub csr: String,
}

impl Request {
    /// Makes a new key (ECDSA on P-256).
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new() -> Result<Request, IdentityError> {
        let key = Key::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        // The pusher takes the key from it and nothing else.
        let csr = CertificateParams::default().serialize_request(&key)?.pem()?;
        Ok(Request { key, csr })
    }
}

/// An identity in use.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Certificate and key.
    pub pair: Arc<KeyPair>,
    /// Roots and revocations.
    pub bundle: Arc<Bundle>,
    about: About,
}

impl Identity {
    /// What the folder holds; `None` before the first join.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load(state: &StateDir) -> Result<Option<Identity>, IdentityError> {
        let file = |name| state.identity_file(name);
        let (Some(pair), Some(bundle)) = (file(PAIR_FILE)?, file(BUNDLE_FILE)?) else {
            return Ok(None);
        };
        let revoked = file(REVOKED_FILE)?.unwrap_or_default();
        let about = file(ABOUT_FILE)?.and_then(|text| serde_json::from_str(&text).ok());
        let pair = KeyPair::parse(pair.as_bytes(), pair.as_bytes(), None)?;
        pair.as_identity()?;
        let bundle = Bundle::parse(bundle.as_bytes(), &lists(&revoked))?;
        let about = about.unwrap_or_default();
        Ok(Some(Identity { pair: Arc::new(pair), bundle: Arc::new(bundle), about }))
    }

    /// Takes the answer to `request`, and keeps it. `held`: the identity that is renewed, whose
    /// roots stay if those of the answer are older; `None` to join.
    ///
    /// # Errors
    /// [`IdentityError`]; then the certificate in the folder is the one of before.
    pub fn take(
        state: &StateDir,
        held: Option<&Identity>,
        request: &Request,
        answer: &Joined,
        now: UnixTime,
    ) -> Result<Identity, IdentityError> {
        let unusable = |fault: MaterialFault| IdentityError::Answer(fault.to_string());
        let pem = format!("{}\n{}", answer.chain.trim_end(), request.key.serialize_pem());
        let pair = KeyPair::parse(pem.as_bytes(), pem.as_bytes(), None).map_err(unusable)?;
        pair.as_identity().map_err(unusable)?;
        let newer = held.filter(|held| held.epoch() > answer.epoch);
        let (bundle, epoch) = match newer {
            Some(held) => (Arc::clone(&held.bundle), held.epoch()),
            None => {
                let lists = lists(&answer.revocations);
                let bundle = Bundle::parse(answer.roots.as_bytes(), &lists).map_err(unusable)?;
                (Arc::new(bundle), answer.epoch)
            }
        };
        bundle.check(&pair, now).map_err(unusable)?;
        let about = About { renew_at_s: answer.renew_at_s, epoch };
        // The roots first: they vouch for the old certificate and for the new one.
        if newer.is_none() {
            let roots = [(BUNDLE_FILE, &*answer.roots), (REVOKED_FILE, &*answer.revocations)];
            state.write_identity(&roots)?;
        }
        state.write_identity(&[(PAIR_FILE, &pem), (ABOUT_FILE, &about.to_text())])?;
        Ok(Identity { pair: Arc::new(pair), bundle, about })
    }

    /// Takes other roots and revocations, and keeps them; `None` if they are older than those in
    /// use.
    ///
    /// # Errors
    /// [`IdentityError`], when they cannot be read or do not vouch for the certificate in use; then
    /// nothing has changed.
    pub fn with_bundle(
        &self,
        state: &StateDir,
        answer: &ringway_protocol::Bundle,
        now: UnixTime,
    ) -> Result<Option<Identity>, IdentityError> {
        if answer.epoch < self.epoch() {
            return Ok(None);
        }
        let unusable = |fault: MaterialFault| IdentityError::Answer(fault.to_string());
        let bundle = Bundle::parse(answer.roots.as_bytes(), &lists(&answer.revocations))
            .map_err(unusable)?;
        if self.is_valid(now) {
            bundle.check(&self.pair, now).map_err(unusable)?;
        }
        let about = About { epoch: answer.epoch, ..self.about };
        state.write_identity(&[
            (BUNDLE_FILE, &answer.roots),
            (REVOKED_FILE, &answer.revocations),
            (ABOUT_FILE, &about.to_text()),
        ])?;
        Ok(Some(Identity { pair: Arc::clone(&self.pair), bundle: Arc::new(bundle), about }))
    }

    /// Who the sidecar is. What was loaded has an identity.
    #[must_use]
    pub fn id(&self) -> Option<&SpiffeId> {
        self.pair.spiffe()
    }

    /// Whether the certificate may be shown at `now`.
    #[must_use]
    pub fn is_valid(&self, now: UnixTime) -> bool {
        self.pair.check_validity(now).is_ok()
    }

    /// When to renew, seconds since 1970: as the pusher said, or half of the life if that is not
    /// known or not before its end.
    #[must_use]
    pub fn renew_at_s(&self) -> u64 {
        let leaf = self.pair.info();
        let (from, until) = (leaf.not_before.unsigned_abs(), leaf.not_after.unsigned_abs());
        match self.about.renew_at_s {
            said if said > from && said < until => said,
            _ => from + until.saturating_sub(from) / 2,
        }
    }

    /// Epoch of the roots and revocations.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.about.epoch
    }

    /// When the certificate ends, seconds since 1970.
    #[must_use]
    pub fn not_after_s(&self) -> u64 {
        self.pair.info().not_after.unsigned_abs()
    }

    /// SHA-256 of the root that the certificate leads to, hexadecimal; empty if it leads to none.
    #[must_use]
    pub fn root(&self, now: UnixTime) -> String {
        let root = self.bundle.root_of(&self.pair, now);
        root.map(crate::admin::certificates::fingerprint).unwrap_or_default()
    }
}

impl About {
    fn to_text(self) -> String {
        // Two numbers cannot fail to become text.
        serde_json::to_string(&self).unwrap_or_default()
    }
}

/// The revocation lists of a file; none of an empty one.
fn lists(text: &str) -> Vec<&[u8]> {
    if text.trim().is_empty() { Vec::new() } else { vec![text.as_bytes()] }
}

#[cfg(test)]
mod tests;
