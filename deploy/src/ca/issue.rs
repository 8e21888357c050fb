//! Certificates for workloads, operators and the pusher itself.
//!
//! # Invariants
//! - What is issued is recorded first, so that a denial finds it and a rotation waits for it.
//! - A leaf never outlives its issuer.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PublicKeyData, SanType,
};
use ringway_tls::{CertificateDer, CertificateInfo, SpiffeId, UnixTime};
use serde::{Deserialize, Serialize};

use super::authority::{Authority, ISSUER_NAME, hex, moment, serial, signing};
use super::csr::Applicant;
use super::fault::{CaFault, Refusal};
use super::identity::{self, Role};
use super::keys::{Secret, SigningKey};
use super::limits::{ISSUED_PER_IDENTITY_MAX, SERVING_NAMES_MAX};
use super::lives::renew_at_s;
use super::rotation::AuthorityId;

pub(super) const ISSUED: &str = "ca/issued/";

/// A certificate as its owner gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Issued {
    /// Whom it is for.
    pub id: String,
    /// Serial number, 32 hexadecimal digits.
    pub serial: String,
    /// The leaf and its issuer, PEM.
    pub chain_pem: String,
    /// Roots to trust, PEM.
    pub bundle_pem: String,
    /// Of that bundle.
    pub bundle_epoch: u64,
    /// Last second of its validity, since 1970.
    pub until_s: u64,
    /// When to renew it, in seconds since 1970.
    pub renew_at_s: u64,
}

/// A certificate with its private key, made here: for the pusher itself and for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The certificate.
    pub issued: Issued,
    /// Its key, PEM.
    pub key_pem: Secret,
}

/// Who is at the other end of a TLS connection, by a certificate that TLS has verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its identity.
    pub id: SpiffeId,
    /// Serial number of its certificate, in hexadecimal digits.
    pub serial: String,
    /// Last second of its certificate, since 1970.
    pub until_s: u64,
    /// The issuer of its certificate, if it is one of ours.
    pub issuer: Option<AuthorityId>,
}

impl Peer {
    /// Reads the leaf of a peer. Trust is not decided here: TLS has verified it.
    ///
    /// # Errors
    /// [`Refusal::Peer`].
    pub fn read(leaf: &CertificateDer<'_>) -> Result<Peer, Refusal> {
        let info = CertificateInfo::read(leaf).ok_or(Refusal::Peer("it cannot be read"))?;
        let issuer = info.issuer.strip_prefix("CN=").and_then(|cn| cn.strip_prefix(ISSUER_NAME));
        Ok(Peer {
            id: info.spiffe.ok_or(Refusal::Peer("it has no identity"))?,
            serial: info.serial,
            until_s: u64::try_from(info.not_after).unwrap_or(0),
            issuer: issuer.map(|id| AuthorityId(id.to_owned())),
        })
    }
}

/// What is remembered of an unexpired certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) id: String,
    pub(super) issuer: AuthorityId,
    pub(super) until_s: u64,
}

/// What a leaf says beside its key.
struct Leaf {
    id: SpiffeId,
    /// DNS names and addresses, for the pusher alone.
    names: Vec<SanType>,
    life_s: u64,
}

impl Authority {
    /// A new certificate for a workload that shows an unexpired one; `draw` is a random number.
    ///
    /// # Errors
    /// [`CaFault::Refused`] if the peer is denied, expired or no workload, or the request unusable.
    pub fn renew(
        &self,
        peer: &Peer,
        csr: &[u8],
        now: UnixTime,
        draw: u32,
    ) -> Result<Issued, CaFault> {
        identity::check_workload(&peer.id, &self.trust_domain)?;
        self.check_denied(&peer.id, Some(&peer.serial), now)?;
        // A connection may be older than the end of the certificate that it was made with.
        if now.as_secs() > peer.until_s {
            return Err(Refusal::Expired { since_s: now.as_secs() - peer.until_s }.into());
        }
        let applicant = Applicant::read(csr)?;
        self.workload(&applicant, peer.id.clone(), now, draw)
    }

    /// A certificate for a workload; whoever calls has decided that it gets one.
    pub(super) fn workload(
        &self,
        applicant: &Applicant,
        id: SpiffeId,
        now: UnixTime,
        draw: u32,
    ) -> Result<Issued, CaFault> {
        let leaf = Leaf { id, names: Vec::new(), life_s: self.lives.leaf_s() };
        self.sign(&applicant.0, leaf, now, draw)
    }

    /// Key and certificate of an operator, for `life` or [`super::Lives::operator_s`].
    ///
    /// # Errors
    /// [`CaFault::Input`] for a name or life that cannot be, [`CaFault::Refused`] if denied.
    pub fn operator(
        &self,
        role: Role,
        name: &str,
        life: Option<Duration>,
        now: UnixTime,
    ) -> Result<Credentials, CaFault> {
        let id = identity::operator(&self.trust_domain, role, name)?;
        self.check_denied(&id, None, now)?;
        let life_s = life.map_or(self.lives.operator_s(), |life| life.as_secs());
        if life_s == 0 || life_s > self.lives.issuer_s() / 2 {
            let max_s = self.lives.issuer_s() / 2;
            return Err(CaFault::Input(format!("an operator's certificate lives 1 to {max_s} s")));
        }
        self.credentials(Leaf { id, names: Vec::new(), life_s }, now, 1 << 31)
    }

    /// Key and certificate that the pusher serves with, as `spiffe://DOMAIN/ringway/pusher`, and
    /// for `names`, which are DNS names or addresses so that `curl` can verify it too.
    ///
    /// # Errors
    /// [`CaFault::Input`] for a name that cannot be one.
    pub fn serving(
        &self,
        names: &[String],
        now: UnixTime,
        draw: u32,
    ) -> Result<Credentials, CaFault> {
        if names.len() > SERVING_NAMES_MAX {
            return Err(CaFault::Full { what: "names of the pusher", max: SERVING_NAMES_MAX });
        }
        let id = identity::pusher(&self.trust_domain)?;
        let names = names.iter().map(|name| match name.parse::<IpAddr>() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) if ringway_tls::ServerName::try_from(name.as_str()).is_err() => {
                Err(CaFault::Input(format!("{name} is no DNS name")))
            }
            Err(_) => Ok(SanType::DnsName(name.as_str().try_into().map_err(signing)?)),
        });
        let names = names.collect::<Result<Vec<_>, _>>()?;
        self.credentials(Leaf { id, names, life_s: self.lives.leaf_s() }, now, draw)
    }

    fn credentials(&self, leaf: Leaf, now: UnixTime, draw: u32) -> Result<Credentials, CaFault> {
        let key = SigningKey::generate()?;
        let issued = self.sign(&key, leaf, now, draw)?;
        Ok(Credentials { issued, key_pem: key.pem() })
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        leaf: Leaf,
        now: UnixTime,
        draw: u32,
    ) -> Result<Issued, CaFault> {
        let (state, signer) = self.signing(now)?;
        let (now_s, id) = (now.as_secs(), leaf.id.as_str());
        let until_s = signer.record.until_s.min(now_s.saturating_add(leaf.life_s));
        let serial = serial()?;
        let digits = hex(&serial.to_bytes());

        let mut params = CertificateParams::default();
        // Without a subject the names are critical (RFC 5280 section 4.2.1.6).
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into().map_err(signing)?)];
        params.subject_alt_names.extend(leaf.names);
        params.serial_number = Some(serial);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = moment(now_s.saturating_sub(self.lives.skew_s()));
        params.not_after = moment(until_s);

        let issuer = signer.record.id.clone();
        self.keep_issued(&digits, Kept { id: id.to_owned(), issuer, until_s }, now_s)?;
        let certificate = params.signed_by(key, &signer.issuer).map_err(signing)?;
        Ok(Issued {
            id: id.to_owned(),
            serial: digits,
            chain_pem: certificate.pem() + &signer.record.pem,
            bundle_pem: self.bundle_pem(&state)?,
            bundle_epoch: state.rotation.epoch(),
            until_s,
            renew_at_s: renew_at_s(now_s, until_s, draw),
        })
    }

    /// Records a certificate that is about to be signed, and forgets the expired ones of its owner.
    #[allow(clippy::needless_pass_by_value)] // It is made for this.
    fn keep_issued(&self, serial: &str, kept: Kept, now_s: u64) -> Result<(), CaFault> {
        let prefix = issued_of(&kept.id);
        let mut unexpired = 0;
        for (key, _, before) in self.list::<Kept>(&prefix)? {
            if before.until_s.saturating_add(self.lives.skew_s()) < now_s {
                self.delete(&key)?;
            } else {
                unexpired += 1;
            }
        }
        if unexpired >= ISSUED_PER_IDENTITY_MAX {
            return Err(Refusal::TooMany(kept.id).into());
        }
        self.write(&format!("{prefix}{serial}"), None, &kept)?;
        Ok(())
    }

    /// End of the last certificate under `root` that is valid and not denied; 0 if there is none.
    pub(super) fn signed_until_s(&self, root: &AuthorityId, now: UnixTime) -> Result<u64, CaFault> {
        let mut issuers = self.authorities()?;
        issuers.retain(|record| record.parent.as_ref() == Some(root));
        let denied = self.denials(now)?;
        let mut until_s = 0;
        for (key, _, kept) in self.list::<Kept>(ISSUED)? {
            let ours = issuers.iter().any(|record| record.id == kept.issuer);
            let serial = key.rsplit('/').next().unwrap_or_default();
            if ours && kept.until_s > until_s && !denied.iter().any(|d| d.names(&kept.id, serial)) {
                until_s = kept.until_s;
            }
        }
        Ok(until_s)
    }
}

/// Where the certificates of an identity are recorded: by its digest, for an id may be longer than
/// a key.
pub(super) fn issued_of(id: &str) -> String {
    format!("{ISSUED}{}/", &blake3::hash(id.as_bytes()).to_hex()[..32])
}
