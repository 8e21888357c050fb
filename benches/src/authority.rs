//! A throw-away authority: certificates to try things with, and for measurements.
//!
//! # Invariants
//! - An authority that is read from its key is the one that was made: its name never changes.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use std::time::{Duration, SystemTime};

use crate::error::Error;

/// What signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, PEM.
    pub(crate) certificate: String,
    /// Its key, PEM.
    pub(crate) key: String,
}

/// A certificate and its key, PEM.
pub(crate) struct Leaf {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

fn failed(error: &rcgen::Error) -> Error {
    Error::Usage(format!("make a certificate: {error}"))
}

impl Authority {
    /// The authority of `key`, or of a new key.
    pub(crate) fn new(key: Option<&str>) -> Result<Self, Error> {
        let key = match key {
            Some(pem) => KeyPair::from_pem(pem).map_err(|error| failed(&error))?,
            None => KeyPair::generate().map_err(|error| failed(&error))?,
        };
        let mut params = CertificateParams::new(Vec::new()).map_err(|error| failed(&error))?;
        params.distinguished_name.push(DnType::CommonName, "ringway throw-away authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2046, 1, 1);
        let certificate = params.self_signed(&key).map_err(|error| failed(&error))?.pem();
        let text = key.serialize_pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate, key: text })
    }

    /// A certificate for the identity `id`, and for the DNS names `names`.
    pub(crate) fn leaf(
        &self,
        id: &str,
        names: &[&str],
        usages: &[ExtendedKeyUsagePurpose],
        life: Duration,
    ) -> Result<Leaf, Error> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).map_err(|error| failed(&error))?;
        params.distinguished_name.push(DnType::CommonName, id.rsplit('/').next().unwrap_or(id));
        params.subject_alt_names.push(SanType::URI(id.try_into().map_err(|error| failed(&error))?));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        // Clocks of others may be behind.
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(60)).into();
        params.not_after = (now + life).into();
        let key = KeyPair::generate().map_err(|error| failed(&error))?;
        let certificate =
            params.signed_by(&key, &self.issuer).map_err(|error| failed(&error))?.pem();
        Ok(Leaf { certificate, key: key.serialize_pem() })
    }
}
