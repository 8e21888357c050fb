//! What the authority shows: to sidecars the bundle, to operators its state, as JSON or in words.

use ringway_protocol::PolicyHash;
use ringway_tls::UnixTime;
use serde::Serialize;

use super::authority::{Authority, State};
use super::deny::{Crl, DENIALS, Denial};
use super::fault::CaFault;
use super::issue::{ISSUED, Peer};
use super::lives::Lives;
use super::rotation::{AuthorityId, Gate, Phase, Wait};
use super::token::{Record as Token, TOKENS};

/// What a member of the mesh trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bundle {
    /// Grows when the roots change. CRLs change without it.
    pub epoch: u64,
    /// One or two roots, PEM.
    pub roots_pem: String,
    /// CRLs of issuers that have something to revoke.
    pub crls: Vec<Crl>,
    /// SHA-256 over the roots alone, in hexadecimal digits, as `ringway_tls::Bundle::fingerprint`
    /// of them without CRLs: what a sidecar that joins is given to know the pusher by.
    pub roots_sha256: String,
}

/// The whole of the authority, for `ringway-push ca show`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct View {
    /// Of the identities.
    pub trust_domain: String,
    /// Of the bundle.
    pub epoch: u64,
    /// Of the rotation.
    pub phase: Phase,
    /// The issuer that signs.
    pub issuer: AuthorityId,
    /// How long certificates are valid.
    pub lives: Lives,
    /// Roots and issuers.
    pub authorities: Vec<AuthorityView>,
    /// Unexpired certificates, as far as they have been swept.
    pub issued: usize,
    /// Tokens that can still be used.
    pub tokens: usize,
    /// Denials that hold.
    pub denials: Vec<Denial>,
    /// SHA-256 of the roots.
    pub roots_sha256: String,
}

/// A root or an issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuthorityView {
    /// Its name.
    pub id: AuthorityId,
    /// The root above it, of an issuer.
    pub root: Option<AuthorityId>,
    /// When it was made, in seconds since 1970.
    pub made_s: u64,
    /// Last second of its validity, since 1970.
    pub until_s: u64,
    /// Its key is there.
    pub has_key: bool,
}

/// What a call to advance a rotation came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advanced {
    /// Of the bundle, after it.
    pub epoch: u64,
    /// After it.
    pub phase: Phase,
    /// What it waits for, if it did not move.
    pub wait: Option<Wait>,
}

/// Records that were removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Of expired certificates.
    pub issued: usize,
    /// Of tokens whose end is a week ago.
    pub tokens: usize,
    /// Denials that are over.
    pub denials: usize,
}

impl Authority {
    /// What members trust now.
    ///
    /// # Errors
    /// As [`Authority::crls`].
    pub fn bundle(&self, now: UnixTime) -> Result<Bundle, CaFault> {
        let (_, state) = self.state()?;
        let roots_pem = self.bundle_pem(&state)?;
        let roots_sha256 = fingerprint(&roots_pem)?;
        Ok(Bundle { epoch: state.rotation.epoch(), roots_pem, crls: self.crls(now)?, roots_sha256 })
    }

    pub(super) fn bundle_pem(&self, state: &State) -> Result<String, CaFault> {
        let mut pem = String::new();
        for root in state.rotation.bundle() {
            pem.push_str(&self.authority(root)?.pem);
        }
        Ok(pem)
    }

    /// Where the rotation is and what it waits for, without moving it.
    ///
    /// # Errors
    /// What the store says.
    pub fn rotation(&self, gate: Gate, now: UnixTime) -> Result<Advanced, CaFault> {
        let (_, state) = self.state()?;
        let until_s = match state.rotation.retiring() {
            Some(root) => self.signed_until_s(root, now)?,
            None => 0,
        };
        let mut next = state.rotation.clone();
        let wait = next.step(gate, &self.lives, until_s, now.as_secs()).err();
        let (epoch, phase) = (state.rotation.epoch(), state.rotation.phase().clone());
        Ok(Advanced { epoch, phase, wait })
    }

    /// The root that is to go, for counting [`Gate::chained_to_old`] with [`Authority::root_of`].
    ///
    /// # Errors
    /// What the store says.
    pub fn retiring(&self) -> Result<Option<AuthorityId>, CaFault> {
        Ok(self.state()?.1.rotation.retiring().cloned())
    }

    /// Where the rotation is.
    ///
    /// # Errors
    /// What the store says.
    pub fn phase(&self) -> Result<Phase, CaFault> {
        Ok(self.state()?.1.rotation.phase().clone())
    }

    /// The root under which is signed now.
    ///
    /// # Errors
    /// What the store says.
    pub fn signing_root(&self) -> Result<AuthorityId, CaFault> {
        Ok(self.state()?.1.rotation.issuing().clone())
    }

    /// SHA-256 of the certificate of a root, by which sidecars name it.
    ///
    /// # Errors
    /// What the store says.
    pub fn root_sha256(&self, id: &AuthorityId) -> Result<PolicyHash, CaFault> {
        let pem = self.authority(id)?.pem;
        let unusable = |text: String| CaFault::Record { key: "ca/authority".to_owned(), text };
        let bundle = ringway_tls::Bundle::parse(pem.as_bytes(), &[])
            .map_err(|fault| unusable(fault.to_string()))?;
        let root = bundle.roots().first().ok_or_else(|| unusable("it is empty".to_owned()))?;
        Ok(PolicyHash::new(root.sha256))
    }

    /// The root that a peer's certificate leads to, if it is one of ours.
    ///
    /// # Errors
    /// What the store says.
    pub fn root_of(&self, peer: &Peer) -> Result<Option<AuthorityId>, CaFault> {
        let Some(issuer) = &peer.issuer else { return Ok(None) };
        let found = self.authorities()?.into_iter().find(|record| record.id == *issuer);
        Ok(found.and_then(|record| record.parent))
    }

    /// Everything but secrets.
    ///
    /// # Errors
    /// What the store and the keys say.
    pub fn view(&self, now: UnixTime) -> Result<View, CaFault> {
        let (_, state) = self.state()?;
        let keys = self.keys.names()?;
        let authorities = self.authorities()?.into_iter().map(|record| AuthorityView {
            has_key: keys.iter().any(|name| name == record.id.as_str()),
            id: record.id,
            root: record.parent,
            made_s: record.made_s,
            until_s: record.until_s,
        });
        let authorities = authorities.collect();
        let tokens = self.tokens()?;
        let usable =
            |token: &&super::TokenView| token.uses_left > 0 && token.until_s >= now.as_secs();
        Ok(View {
            roots_sha256: fingerprint(&self.bundle_pem(&state)?)?,
            trust_domain: state.trust_domain,
            epoch: state.rotation.epoch(),
            phase: state.rotation.phase().clone(),
            issuer: state.issuer,
            lives: self.lives,
            authorities,
            issued: self.store.list(ISSUED)?.entries.len(),
            tokens: tokens.iter().filter(usable).count(),
            denials: self.denials(now)?,
        })
    }

    /// Removes records of what is over, and replaces the issuer if its time has come. To be called
    /// every hour or so.
    ///
    /// # Errors
    /// What the store and the keys say.
    pub fn sweep(&self, now: UnixTime) -> Result<Swept, CaFault> {
        self.signing(now)?;
        let now_s = now.as_secs();
        let mut swept = Swept { issued: self.sweep_issued(now_s)?, ..Swept::default() };
        for (key, _, token) in self.list::<Token>(TOKENS)? {
            if token.is_forgotten(now_s) && self.delete(&key)? {
                swept.tokens += 1;
            }
        }
        for (key, _, denial) in self.list::<Denial>(DENIALS)? {
            if denial.is_over(now_s) && self.delete(&key)? {
                swept.denials += 1;
            }
        }
        let _moving = self.moving();
        self.tidy_while_moving(now)?;
        Ok(swept)
    }
}

fn fingerprint(roots_pem: &str) -> Result<String, CaFault> {
    let bundle = ringway_tls::Bundle::parse(roots_pem.as_bytes(), &[]).map_err(|fault| {
        CaFault::Record { key: "ca/authority".to_owned(), text: fault.to_string() }
    })?;
    Ok(super::authority::hex(&bundle.fingerprint()))
}
