//! Roots and issuers: their records and keys, which of them signs, and moves of the rotation.
//!
//! ```text
//! ca/founded           when the first root was about to be made
//! ca/state             trust domain, lives, rotation, which issuer signs
//! ca/authority/ID      certificate of a root or an issuer; its key is in `Keys`
//! ca/issued/ID/SERIAL  an unexpired certificate (issue)
//! ca/token/HASH        a join token (token)
//! ca/deny/HASH, ca/crl/ID   denials and what was signed of them (deny)
//! ```
//!
//! # Invariants
//! - `ca/state` names only authorities whose record and key were written before it.
//! - The issuer that signs is under the root that signs, and not past half its life unless the
//!   root's key is out of reach.
//! - What no state names is removed: a process that was killed in the middle leaves nothing.
//!
//! One process changes authorities at a time: a lock here, the file's lock or a lease between
//! processes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose,
    SerialNumber,
};
use ringway_tls::UnixTime;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::fault::CaFault;
use super::identity;
use super::keys::{Keys, SigningKey, random};
use super::limits::AUTHORITIES_MAX;
use super::lives::Lives;
use super::rotation::{AuthorityId, Gate, Phase, Rotation, Wait};
use crate::store::{Local, Store, StoreFault};

const STATE: &str = "ca/state";
/// Written before the first key.
const FOUNDED: &str = "ca/founded";
const AUTHORITIES: &str = "ca/authority/";
const ROOT_NAME: &str = "Ringway root ";
pub(super) const ISSUER_NAME: &str = "Ringway issuer ";

/// The authority of one trust domain. All methods may block, as those of its store may.
#[derive(Debug)]
pub struct Authority {
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: Keys,
    pub(super) trust_domain: String,
    pub(super) lives: Lives,
    /// Those that have signed; as many as there are records, `AUTHORITIES_MAX` at most.
    signers: Mutex<HashMap<AuthorityId, Arc<Signer>>>,
    /// Held while authorities or the state change.
    moves: Mutex<()>,
}

/// What all depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) trust_domain: String,
    pub(super) lives: Lives,
    pub(super) rotation: Rotation,
    /// Signs leaves.
    pub(super) issuer: AuthorityId,
}

/// A root or an issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: AuthorityId,
    /// The root, of an issuer.
    pub(super) parent: Option<AuthorityId>,
    pub(super) pem: String,
    /// When it was made; its validity begins earlier by the skew.
    pub(super) made_s: u64,
    pub(super) until_s: u64,
}

impl Record {
    fn half_life_s(&self) -> u64 {
        self.made_s + self.until_s.saturating_sub(self.made_s) / 2
    }
}

/// A root or an issuer with its key.
pub(super) struct Signer {
    pub(super) record: Record,
    pub(super) issuer: Issuer<'static, SigningKey>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("id", &self.record.id).finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens the authority in `store`, or makes one with its root and issuer if there is none.
    ///
    /// # Errors
    /// [`CaFault::StateLost`] if there are keys but no state, [`CaFault::OtherTrustDomain`], and
    /// what the store says.
    pub fn open(
        store: Arc<dyn Store>,
        keys: Keys,
        trust_domain: &str,
        lives: Lives,
        now: UnixTime,
    ) -> Result<Authority, CaFault> {
        lives.check()?;
        identity::pusher(trust_domain)?;
        let authority = Authority::over(store, keys, trust_domain.to_owned(), lives);
        match authority.read::<State>(STATE)? {
            None => authority.found(now)?,
            Some((_, state)) if state.trust_domain != trust_domain => {
                let wanted = trust_domain.to_owned();
                return Err(CaFault::OtherTrustDomain { found: state.trust_domain, wanted });
            }
            Some((version, state)) => {
                if state.lives != lives {
                    authority.write(STATE, Some(version), &State { lives, ..state })?;
                }
            }
        }
        authority.tidy(now)?;
        Ok(authority)
    }

    /// Opens the authority that is in `store`, with the lives it was opened with last; for the
    /// command line.
    ///
    /// # Errors
    /// [`CaFault::NoAuthority`], and what the store says.
    pub fn existing(store: Arc<dyn Store>, keys: Keys) -> Result<Authority, CaFault> {
        let mut authority = Authority::over(store, keys, String::new(), Lives::default());
        let (_, state) = authority.read::<State>(STATE)?.ok_or(CaFault::NoAuthority)?;
        state.lives.check()?;
        (authority.trust_domain, authority.lives) = (state.trust_domain, state.lives);
        Ok(authority)
    }

    /// [`Authority::existing`] in the state folder of a pusher: `state.redb` and `keys/`.
    ///
    /// # Errors
    /// [`CaFault::NoAuthority`], [`StoreFault::InUse`] if a pusher runs on it, what the system
    /// says.
    pub fn in_folder(folder: &Path) -> Result<Authority, CaFault> {
        let file = folder.join("state.redb");
        if !file.is_file() {
            return Err(CaFault::NoAuthority);
        }
        let store = Arc::new(Local::open(&file)?);
        Authority::existing(store, Keys::folder(&folder.join("keys"))?)
    }

    fn over(store: Arc<dyn Store>, keys: Keys, trust_domain: String, lives: Lives) -> Authority {
        let (signers, moves) = (Mutex::new(HashMap::new()), Mutex::new(()));
        Authority { store, keys, trust_domain, lives, signers, moves }
    }

    /// Of the identities that it issues.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// How long certificates are valid.
    #[must_use]
    pub fn lives(&self) -> &Lives {
        &self.lives
    }

    /// The first root and issuer of a mesh.
    fn found(&self, now: UnixTime) -> Result<(), CaFault> {
        let _moving = self.moving();
        // Keys without the record that founding began are those of a state that is gone, not of a
        // start that was cut short.
        if self.store.get(FOUNDED)?.is_none() {
            if !self.keys.names()?.is_empty() {
                return Err(CaFault::StateLost);
            }
            self.write(FOUNDED, None, &now.as_secs())?;
        }
        let root = self.make_root(now)?;
        let issuer = self.make_issuer(&root.id, now)?;
        let state = State {
            trust_domain: self.trust_domain.clone(),
            lives: self.lives,
            rotation: Rotation::steady(root.id),
            issuer: issuer.id,
        };
        self.write(STATE, None, &state)?;
        Ok(())
    }

    pub(super) fn state(&self) -> Result<(u64, State), CaFault> {
        self.read(STATE)?.ok_or(CaFault::NoAuthority)
    }

    /// The state, and the issuer that signs now: replaced if it is past half its life.
    pub(super) fn signing(&self, now: UnixTime) -> Result<(State, Arc<Signer>), CaFault> {
        let (_, state) = self.state()?;
        let signer = self.signer(&state.issuer)?;
        if now.as_secs() < signer.record.half_life_s() {
            return Ok((state, signer));
        }
        let _moving = self.moving();
        let (version, mut state) = self.state()?;
        let signer = self.signer(&state.issuer)?;
        if now.as_secs() < signer.record.half_life_s() {
            return Ok((state, signer));
        }
        match self.make_issuer(state.rotation.issuing(), now) {
            Ok(next) => {
                tracing::info!(issuer = next.id.as_str(), "issuer replaced at half its life");
                state.issuer = next.id.clone();
                self.write(STATE, Some(version), &state)?;
                Ok((state, self.signer(&next.id)?))
            }
            // The root's key may have been carried away; the issuer is of use until its end.
            Err(fault) if now.as_secs() + self.lives.leaf_s() <= signer.record.until_s => {
                tracing::warn!(%fault, "issuer is past half its life and cannot be replaced");
                Ok((state, signer))
            }
            Err(fault) => Err(fault),
        }
    }

    /// Begins to replace the root, unless that is under way. Returns whether it began now.
    ///
    /// # Errors
    /// What the store and the keys say.
    pub fn rotate(&self, now: UnixTime) -> Result<bool, CaFault> {
        let _moving = self.moving();
        let (version, mut state) = self.state()?;
        if !matches!(state.rotation.phase(), Phase::Steady { .. }) {
            return Ok(false);
        }
        let root = self.make_root(now)?;
        let began = state.rotation.introduce(root.id, now.as_secs());
        self.write(STATE, Some(version), &state)?;
        Ok(began)
    }

    /// Goes back to the old root. Returns whether that began now; `false` if there is nothing to go
    /// back from or it is under way.
    ///
    /// # Errors
    /// [`CaFault::TooLate`] once a root is out of the bundle; what the store says.
    pub fn abort_rotation(&self, now: UnixTime) -> Result<bool, CaFault> {
        let _moving = self.moving();
        let (version, mut state) = self.state()?;
        if !state.rotation.abort(now.as_secs())? {
            return Ok(false);
        }
        state.issuer = self.issuer_under(state.rotation.issuing(), &state.issuer, now)?;
        self.write(STATE, Some(version), &state)?;
        Ok(true)
    }

    /// Takes the next step of a rotation if `gate` and the time allow it: to be called every few
    /// seconds while one is under way. Returns what it waits for, if it did not move.
    ///
    /// # Errors
    /// What the store and the keys say.
    pub fn advance(&self, gate: Gate, now: UnixTime) -> Result<Result<Phase, Wait>, CaFault> {
        let _moving = self.moving();
        let (version, mut state) = self.state()?;
        let now_s = now.as_secs();
        // What is cheap to know is asked first; certificates are counted when all else is met.
        if let Err(wait) = state.rotation.clone().step(gate, &self.lives, 0, now_s) {
            return Ok(Err(wait));
        }
        let signed_until_s = match state.rotation.retiring() {
            Some(root) => self.signed_until_s(&root.clone(), now)?,
            None => 0,
        };
        if let Err(wait) = state.rotation.step(gate, &self.lives, signed_until_s, now_s) {
            return Ok(Err(wait));
        }
        state.issuer = self.issuer_under(state.rotation.issuing(), &state.issuer, now)?;
        self.write(STATE, Some(version), &state)?;
        tracing::info!(epoch = state.rotation.epoch(), phase = ?state.rotation.phase(), "rotation");
        self.tidy_while_moving(now)?;
        Ok(Ok(state.rotation.phase().clone()))
    }

    /// An issuer under `root`: `current` if it is, else the newest that is in the first half of its
    /// life, else a new one.
    fn issuer_under(
        &self,
        root: &AuthorityId,
        current: &AuthorityId,
        now: UnixTime,
    ) -> Result<AuthorityId, CaFault> {
        let mut issuers = self.authorities()?;
        issuers.retain(|record| record.parent.as_ref() == Some(root));
        if issuers.iter().any(|record| record.id == *current) {
            return Ok(current.clone());
        }
        issuers.retain(|record| now.as_secs() < record.half_life_s());
        match issuers.into_iter().max_by_key(|record| record.made_s) {
            Some(record) => Ok(record.id),
            None => Ok(self.make_issuer(root, now)?.id),
        }
    }

    /// The authority `id` with its key.
    pub(super) fn signer(&self, id: &AuthorityId) -> Result<Arc<Signer>, CaFault> {
        let mut signers = self.signers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signer) = signers.get(id) {
            return Ok(Arc::clone(signer));
        }
        let record = self.authority(id)?;
        let key = SigningKey::from_pem(&self.keys.load(id.as_str())?)?;
        let issuer = Issuer::from_ca_cert_pem(&record.pem, key).map_err(signing)?;
        let signer = Arc::new(Signer { record, issuer });
        signers.insert(id.clone(), Arc::clone(&signer));
        Ok(signer)
    }

    pub(super) fn authority(&self, id: &AuthorityId) -> Result<Record, CaFault> {
        let key = format!("{AUTHORITIES}{}", id.as_str());
        match self.read(&key)? {
            Some((_, record)) => Ok(record),
            None => Err(CaFault::Record { key, text: "it is not there".to_owned() }),
        }
    }

    pub(super) fn authorities(&self) -> Result<Vec<Record>, CaFault> {
        Ok(self.list(AUTHORITIES)?.into_iter().map(|(_, _, record)| record).collect())
    }

    fn make_root(&self, now: UnixTime) -> Result<Record, CaFault> {
        let key = SigningKey::generate()?;
        let until_s = now.as_secs() + self.lives.root_s();
        let (id, params) = self.params(ROOT_NAME, 1, until_s, now)?;
        let pem = params.self_signed(&key).map_err(signing)?.pem();
        self.keep(Record { id, parent: None, pem, made_s: now.as_secs(), until_s }, &key)
    }

    fn make_issuer(&self, root: &AuthorityId, now: UnixTime) -> Result<Record, CaFault> {
        let above = self.signer(root)?;
        let until_s = above.record.until_s.min(now.as_secs() + self.lives.issuer_s());
        if until_s < now.as_secs() + self.lives.leaf_s() {
            return Err(CaFault::RootEnds { root: root.as_str().to_owned() });
        }
        let key = SigningKey::generate()?;
        let (id, params) = self.params(ISSUER_NAME, 0, until_s, now)?;
        let pem = params.signed_by(&key, &above.issuer).map_err(signing)?.pem();
        let parent = Some(root.clone());
        self.keep(Record { id, parent, pem, made_s: now.as_secs(), until_s }, &key)
    }

    /// Key first, then the record.
    fn keep(&self, record: Record, key: &SigningKey) -> Result<Record, CaFault> {
        if self.authorities()?.len() >= AUTHORITIES_MAX {
            return Err(CaFault::Full { what: "roots and issuers", max: AUTHORITIES_MAX });
        }
        self.keys.put(record.id.as_str(), &key.pem())?;
        self.write(&format!("{AUTHORITIES}{}", record.id.as_str()), None, &record)?;
        Ok(record)
    }

    /// What a root's or an issuer's certificate is made of. The id is in its name, so that no two
    /// have the same: verifiers choose issuers and CRLs by name.
    fn params(
        &self,
        name: &str,
        issuers_below: u8,
        until_s: u64,
        now: UnixTime,
    ) -> Result<(AuthorityId, CertificateParams), CaFault> {
        let id = AuthorityId(hex(&random::<8>()?));
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("{name}{}", id.as_str()));
        params.serial_number = Some(serial()?);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(issuers_below));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        params.not_before = moment(now.as_secs().saturating_sub(self.lives.skew_s()));
        params.not_after = moment(until_s);
        Ok((id, params))
    }

    /// Removes authorities that no state names or that have expired, and keys without a record.
    fn tidy(&self, now: UnixTime) -> Result<(), CaFault> {
        let _moving = self.moving();
        self.tidy_while_moving(now)
    }

    pub(super) fn tidy_while_moving(&self, now: UnixTime) -> Result<(), CaFault> {
        let (_, state) = self.state()?;
        let known = state.rotation.known();
        let mut kept = Vec::new();
        for (key, version, record) in self.list::<Record>(AUTHORITIES)? {
            let root = record.parent.as_ref().unwrap_or(&record.id);
            let over = record.until_s.saturating_add(self.lives.skew_s()) < now.as_secs();
            let gone = record.parent.is_some() && over && record.id != state.issuer;
            if known.contains(&root) && !gone {
                kept.push(record.id.0);
                continue;
            }
            self.signers.lock().unwrap_or_else(PoisonError::into_inner).remove(&record.id);
            self.delete(&format!("{}{}", super::deny::CRLS, record.id.as_str()))?;
            self.store.delete_if_version(&key, version)?;
        }
        for name in self.keys.names()? {
            if !kept.contains(&name) {
                self.keys.remove(&name)?;
            }
        }
        Ok(())
    }

    pub(super) fn moving(&self) -> MutexGuard<'_, ()> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(u64, T)>, CaFault> {
        let Some(entry) = self.store.get(key)? else { return Ok(None) };
        Ok(Some((entry.version, decode(key, &entry.value)?)))
    }

    pub(super) fn write<T: Serialize>(
        &self,
        key: &str,
        version: Option<u64>,
        record: &T,
    ) -> Result<u64, CaFault> {
        let value = serde_json::to_vec(record)
            .map_err(|error| CaFault::Record { key: key.to_owned(), text: error.to_string() })?;
        Ok(self.store.put_if_version(key, version, &value)?)
    }

    /// Keys, versions and records below `prefix`.
    pub(super) fn list<T: DeserializeOwned>(
        &self,
        prefix: &str,
    ) -> Result<Vec<(String, u64, T)>, CaFault> {
        let mut records = Vec::new();
        for (key, entry) in self.store.list(prefix)?.entries {
            let record = decode(&key, &entry.value)?;
            records.push((key, entry.version, record));
        }
        Ok(records)
    }

    /// Removes an entry, if it is there; whoever changes it at the same time wins.
    pub(super) fn delete(&self, key: &str) -> Result<bool, CaFault> {
        let Some(entry) = self.store.get(key)? else { return Ok(false) };
        match self.store.delete_if_version(key, entry.version) {
            Ok(_) => Ok(true),
            Err(StoreFault::Conflict { .. }) => Ok(false),
            Err(fault) => Err(fault.into()),
        }
    }
}

fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, CaFault> {
    serde_json::from_slice(value)
        .map_err(|error| CaFault::Record { key: key.to_owned(), text: error.to_string() })
}

#[allow(clippy::needless_pass_by_value)] // It is what `map_err` gives.
pub(super) fn signing(error: rcgen::Error) -> CaFault {
    CaFault::Sign(error.to_string())
}

/// A serial number of 16 random bytes. The first two bits are 01, so that it is positive and has 32
/// hexadecimal digits in every notation (RFC 5280 section 4.1.2.2 asks for a positive one).
pub(super) fn serial() -> Result<SerialNumber, CaFault> {
    let mut bytes = random::<16>()?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// A second since 1970 as certificates write it; beyond the year 9999, its last second.
pub(super) fn moment(at_s: u64) -> OffsetDateTime {
    const LAST_S: u64 = 253_402_300_799;
    let at_s = i64::try_from(at_s.min(LAST_S)).unwrap_or_default();
    OffsetDateTime::from_unix_timestamp(at_s).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
