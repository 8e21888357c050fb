//! The deny list, and the CRLs that are made of it.
//!
//! A denial stops joins and renewals at once. Peers learn of it by CRLs: one for each issuer that
//! has signed something denied and unexpired (RFC 5280 section 5).
//!
//! # Invariants
//! - An identity's denial is on CRLs with all its unexpired serial numbers, by their records. One
//!   of a serial number is on that of every issuer: numbers are random, so it means one
//!   certificate.
//! - A CRL is signed anew when its entries change or half its life is over, else it stays the same,
//!   byte by byte, over restarts too: whoever has it need not get it again.

use std::collections::BTreeMap;

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use ringway_tls::{SpiffeId, UnixTime};
use serde::{Deserialize, Serialize};

use super::authority::{Authority, moment, signing};
use super::fault::{CaFault, Refusal};
use super::identity;
use super::issue::{ISSUED, Kept, issued_of};
use super::limits::{CRL_ENTRIES_MAX, CRL_LIFE_S, DENIALS_MAX, NOTE_BYTES_MAX};
use super::rotation::AuthorityId;

pub(super) const DENIALS: &str = "ca/deny/";
pub(super) const CRLS: &str = "ca/crl/";

/// Who or what is denied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// All certificates of an identity, those to come included.
    Identity(String),
    /// One certificate, by its serial number in 32 lower-case hexadecimal digits.
    Serial(String),
}

/// A denial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// Who or what.
    pub subject: Subject,
    /// For people, and for the peer's log.
    pub reason: String,
    /// When it began, in seconds since 1970.
    pub since_s: u64,
    /// When it ends, in seconds since 1970; never, if there is none.
    pub until_s: Option<u64>,
}

/// A signed list of revoked serial numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Crl {
    /// Whose certificates are on it.
    pub issuer: AuthorityId,
    /// The list.
    pub pem: String,
    /// Number of certificates on it.
    pub entries: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Signed {
    number: u64,
    signed_s: u64,
    /// Of what is on it.
    digest: String,
    pem: String,
}

impl Subject {
    /// Reads `spiffe://...` or a serial number, with or without colons.
    ///
    /// # Errors
    /// [`CaFault::Input`] if it is neither.
    pub fn parse(text: &str) -> Result<Subject, CaFault> {
        if text.contains("://") {
            return Ok(Subject::Identity(identity::parse(text)?.to_string()));
        }
        let digits = text.replace(':', "").to_ascii_lowercase();
        if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(CaFault::Input(format!(
                "{text} is neither an identity nor a serial number of 32 digits"
            )));
        }
        Ok(Subject::Serial(digits))
    }

    fn text(&self) -> &str {
        match self {
            Subject::Identity(text) | Subject::Serial(text) => text,
        }
    }

    pub(super) fn key(&self) -> String {
        format!("{DENIALS}{}", blake3::hash(self.text().as_bytes()).to_hex())
    }
}

impl Denial {
    /// Whether it is about the certificate `serial` of `id`.
    pub(super) fn names(&self, id: &str, serial: &str) -> bool {
        match &self.subject {
            Subject::Identity(denied) => denied == id,
            Subject::Serial(denied) => denied == serial,
        }
    }

    pub(super) fn is_over(&self, now_s: u64) -> bool {
        self.until_s.is_some_and(|until_s| until_s < now_s)
    }
}

/// Whether each list has room for its serial numbers.
fn check_room(revoked: &BTreeMap<AuthorityId, BTreeMap<String, u64>>) -> Result<(), CaFault> {
    if revoked.values().any(|serials| serials.len() > CRL_ENTRIES_MAX) {
        return Err(CaFault::Full { what: "serial numbers of a CRL", max: CRL_ENTRIES_MAX });
    }
    Ok(())
}

impl Authority {
    /// Denies `subject` until `until`, or for good; a denial that is there is replaced.
    ///
    /// # Errors
    /// [`CaFault::Full`], also of a list of revoked certificates; [`CaFault::Input`] for the
    /// pusher's own identity; what the store says.
    pub fn deny(
        &self,
        subject: Subject,
        reason: &str,
        until: Option<UnixTime>,
        now: UnixTime,
    ) -> Result<Denial, CaFault> {
        if reason.len() > NOTE_BYTES_MAX {
            return Err(CaFault::Full { what: "bytes of the reason", max: NOTE_BYTES_MAX });
        }
        if subject.text() == identity::pusher(&self.trust_domain)?.as_str() {
            return Err(CaFault::Input("without the pusher nobody would learn of it".into()));
        }
        let key = subject.key();
        let before = self.read::<Denial>(&key)?;
        let version = before.as_ref().map(|(version, _)| *version);
        if version.is_none() && self.store.list(DENIALS)?.entries.len() >= DENIALS_MAX {
            return Err(CaFault::Full { what: "denials", max: DENIALS_MAX });
        }
        let until_s = until.map(|until| until.as_secs());
        let denial = Denial { subject, reason: reason.to_owned(), since_s: now.as_secs(), until_s };
        self.write(&key, version, &denial)?;
        // One too many would leave nobody with a list.
        if let Err(full) = self.revoked(now).and_then(|revoked| check_room(&revoked)) {
            match before {
                None => _ = self.delete(&key)?,
                Some((_, before)) => {
                    let version = self.read::<Denial>(&key)?.map(|(version, _)| version);
                    self.write(&key, version, &before)?;
                }
            }
            return Err(full);
        }
        Ok(denial)
    }

    /// Takes a denial back. Returns whether there was one.
    ///
    /// # Errors
    /// What the store says.
    pub fn allow(&self, subject: &Subject) -> Result<bool, CaFault> {
        self.delete(&subject.key())
    }

    /// Denials that hold.
    ///
    /// # Errors
    /// What the store says.
    pub fn denials(&self, now: UnixTime) -> Result<Vec<Denial>, CaFault> {
        let records = self.list::<Denial>(DENIALS)?.into_iter();
        let denials = records.map(|(_, _, denial)| denial);
        Ok(denials.filter(|denial| !denial.is_over(now.as_secs())).collect())
    }

    /// Whether the identity, or the certificate it shows, may have another.
    ///
    /// # Errors
    /// [`Refusal::Denied`]; what the store says.
    pub fn check_denied(
        &self,
        id: &SpiffeId,
        serial: Option<&str>,
        now: UnixTime,
    ) -> Result<(), CaFault> {
        let serial = serial.map(|serial| Subject::Serial(serial.to_ascii_lowercase()));
        for subject in [Some(Subject::Identity(id.to_string())), serial].into_iter().flatten() {
            let Some((_, denial)) = self.read::<Denial>(&subject.key())? else { continue };
            if !denial.is_over(now.as_secs()) {
                let (subject, reason) = (subject.text().to_owned(), denial.reason);
                return Err(Refusal::Denied { subject, reason }.into());
            }
        }
        Ok(())
    }

    /// The CRLs of today: of the issuer that signs, and of others that have something to revoke.
    /// They go with the bundle, which so has one always.
    ///
    /// # Errors
    /// [`CaFault::Full`] if one would have too many entries; what the store and the keys say.
    pub fn crls(&self, now: UnixTime) -> Result<Vec<Crl>, CaFault> {
        let revoked = self.revoked(now)?;
        check_room(&revoked)?;
        let signing = self.state()?.1.issuer;
        let (mut crls, nothing) = (Vec::new(), BTreeMap::new());
        for issuer in self.authorities()?.iter().filter(|record| record.parent.is_some()) {
            let serials = match revoked.get(&issuer.id) {
                Some(serials) => serials,
                None if issuer.id == signing => &nothing,
                None => continue,
            };
            let pem = self.crl(&issuer.id, serials, now)?;
            crls.push(Crl { issuer: issuer.id.clone(), pem, entries: serials.len() });
        }
        Ok(crls)
    }

    /// Serial numbers to revoke by issuer, with the second since when.
    fn revoked(
        &self,
        now: UnixTime,
    ) -> Result<BTreeMap<AuthorityId, BTreeMap<String, u64>>, CaFault> {
        let mut revoked: BTreeMap<AuthorityId, BTreeMap<String, u64>> = BTreeMap::new();
        let denials = self.denials(now)?;
        let mut issuers = Vec::new();
        if denials.iter().any(|denial| matches!(denial.subject, Subject::Serial(_))) {
            issuers = self.authorities()?;
            issuers.retain(|record| record.parent.is_some());
        }
        for denial in denials {
            match &denial.subject {
                Subject::Serial(serial) => {
                    for issuer in &issuers {
                        let serials = revoked.entry(issuer.id.clone()).or_default();
                        serials.insert(serial.clone(), denial.since_s);
                    }
                }
                Subject::Identity(id) => {
                    for (key, _, kept) in self.list::<Kept>(&issued_of(id))? {
                        let serial = key.rsplit('/').next().unwrap_or_default();
                        if kept.until_s.saturating_add(self.lives.skew_s()) >= now.as_secs() {
                            let serials = revoked.entry(kept.issuer).or_default();
                            serials.insert(serial.to_owned(), denial.since_s);
                        }
                    }
                }
            }
        }
        Ok(revoked)
    }

    fn crl(
        &self,
        issuer: &AuthorityId,
        serials: &BTreeMap<String, u64>,
        now: UnixTime,
    ) -> Result<String, CaFault> {
        let _moving = self.moving();
        let key = format!("{CRLS}{}", issuer.as_str());
        let before = self.read::<Signed>(&key)?;
        let version = before.as_ref().map(|(version, _)| *version);
        let mut hasher = blake3::Hasher::new();
        for (serial, since_s) in serials {
            hasher.update(serial.as_bytes()).update(&since_s.to_be_bytes());
        }
        let digest = hasher.finalize().to_hex().to_string();
        let now_s = now.as_secs();
        let number = match before {
            Some((_, signed))
                if signed.digest == digest && now_s < signed.signed_s + CRL_LIFE_S / 2 =>
            {
                return Ok(signed.pem);
            }
            Some((_, signed)) => signed.number + 1,
            None => 1,
        };
        let params = CertificateRevocationListParams {
            this_update: moment(now_s.saturating_sub(self.lives.skew_s())),
            next_update: moment(now_s + CRL_LIFE_S),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: serials
                .iter()
                .map(|(serial, since_s)| revoke(serial, *since_s))
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.signer(issuer)?.issuer).map_err(signing)?;
        let pem = list.pem().map_err(signing)?;
        self.write(&key, version, &Signed { number, signed_s: now_s, digest, pem: pem.clone() })?;
        Ok(pem)
    }

    /// Removes records of certificates that have expired; returns how many.
    pub(super) fn sweep_issued(&self, now_s: u64) -> Result<usize, CaFault> {
        let mut removed = 0;
        for (key, _, kept) in self.list::<Kept>(ISSUED)? {
            if kept.until_s.saturating_add(self.lives.skew_s()) < now_s && self.delete(&key)? {
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn revoke(serial: &str, since_s: u64) -> RevokedCertParams {
    let digits = |at: usize| serial.get(2 * at..2 * at + 2);
    let bytes: Vec<u8> =
        (0..serial.len() / 2).filter_map(|at| u8::from_str_radix(digits(at)?, 16).ok()).collect();
    RevokedCertParams {
        serial_number: SerialNumber::from_slice(&bytes),
        revocation_time: moment(since_s),
        reason_code: None,
        invalidity_date: None,
    }
}
