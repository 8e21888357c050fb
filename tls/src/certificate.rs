//! What a certificate says, read for people, for choosing by name and for SVID rules.
//!
//! Nothing here decides about trust: paths are verified by webpki (`verify`). This is a reader of
//! the same bytes that shows names, validity and usage.

use std::fmt::Write as _;
use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use crate::fault::IdentityFault;
use crate::provider::sha256;
use crate::spiffe::SpiffeId;

/// Characters of a URI that are repeated in an error.
const URI_SHOWN_MAX: usize = 128;

/// What is known of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Distinguished name of whom it is for, as `CN=a, O=b`; may be empty.
    pub subject: String,
    /// Distinguished name of who signed it.
    pub issuer: String,
    /// Serial number in hexadecimal digits.
    pub serial: String,
    /// The SPIFFE ID, if its only URI is one.
    pub spiffe: Option<SpiffeId>,
    /// All URIs among its names.
    pub uris: Vec<String>,
    /// All DNS names, with `*.` in front if one is a wildcard.
    pub dns_names: Vec<String>,
    /// All addresses among its names.
    pub addresses: Vec<IpAddr>,
    /// First second of its validity, since 1970.
    pub not_before: i64,
    /// Last second of its validity; `not_before <= not_after` is not checked here.
    pub not_after: i64,
    /// SHA-256 of the whole certificate.
    pub sha256: [u8; 32],
    /// Kind and size of its key: `ECDSA P-256`, `RSA 2048`, `Ed25519`.
    pub key: String,
    /// It may sign certificates (basicConstraints).
    pub is_ca: bool,
}

/// Why a certificate is no X.509-SVID of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotSvid {
    /// The bytes are no certificate.
    Encoding,
    /// It names no workload, or several.
    Identity(IdentityFault),
    /// It may do too much or too little.
    Usage(&'static str),
}

impl CertificateInfo {
    /// Reads a certificate; `None` if it is none.
    #[must_use]
    pub fn read(der: &CertificateDer<'_>) -> Option<CertificateInfo> {
        let certificate = parse(der)?;
        let names = Names::of(&certificate);
        let spiffe = match names.uris.as_slice() {
            [uri] => SpiffeId::parse(uri).ok(),
            _ => None,
        };
        Some(CertificateInfo {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: hex(certificate.raw_serial()),
            spiffe,
            uris: names.uris,
            dns_names: names.dns,
            addresses: names.addresses,
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            sha256: sha256(der),
            key: key_kind(&certificate),
            is_ca: certificate.is_ca(),
        })
    }

    /// How the certificate is called in errors.
    pub(crate) fn name(&self) -> String {
        match (&self.spiffe, self.dns_names.first()) {
            (Some(id), _) => id.to_string(),
            (None, Some(name)) => name.clone(),
            (None, None) if self.subject.is_empty() => format!("serial {}", self.serial),
            (None, None) => self.subject.clone(),
        }
    }
}

/// The names of a certificate by kind.
#[derive(Default)]
struct Names {
    uris: Vec<String>,
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Names {
    fn of(certificate: &X509Certificate<'_>) -> Names {
        let mut names = Names::default();
        let Ok(Some(extension)) = certificate.subject_alternative_name() else { return names };
        for name in &extension.value.general_names {
            match name {
                GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
                GeneralName::DNSName(dns) => names.dns.push((*dns).to_owned()),
                GeneralName::IPAddress(bytes) => names.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        names
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Some(certificate),
        Ok(_) | Err(_) => None,
    }
}

/// The workload that a certificate is for, by the rules for leaves (X509-SVID sections 2 to 4): its
/// only URI is a SPIFFE ID with a path, it may sign data, and neither certificates nor CRLs.
pub(crate) fn workload(der: &CertificateDer<'_>) -> Result<SpiffeId, NotSvid> {
    let certificate = parse(der).ok_or(NotSvid::Encoding)?;
    let mut uris = Names::of(&certificate).uris;
    let uri = match (uris.pop(), uris.len()) {
        (Some(uri), 0) => uri,
        (None, _) => return Err(NotSvid::Identity(IdentityFault::None)),
        (Some(_), others) => return Err(NotSvid::Identity(IdentityFault::Several(others + 1))),
    };
    let id = SpiffeId::parse(&uri).map_err(|fault| {
        let uri = uri.chars().take(URI_SHOWN_MAX).collect();
        NotSvid::Identity(IdentityFault::Invalid { uri, fault })
    })?;
    if id.path().is_empty() {
        return Err(NotSvid::Identity(IdentityFault::NoPath));
    }
    if certificate.is_ca() {
        return Err(NotSvid::Usage("it is an authority's, not a workload's"));
    }
    let usage = certificate.key_usage().map_err(|_| NotSvid::Encoding)?;
    let usage = usage.ok_or(NotSvid::Usage("it has no keyUsage"))?.value;
    if !usage.digital_signature() {
        return Err(NotSvid::Usage("its keyUsage lacks digitalSignature"));
    }
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(NotSvid::Usage("its keyUsage has keyCertSign or cRLSign"));
    }
    Ok(id)
}

/// Validity of a certificate in seconds since 1970.
pub(crate) fn validity(der: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let certificate = parse(der)?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// Whether an issuer's keyUsage, if any, lets it sign certificates; `None` if it cannot be read.
pub(crate) fn may_sign(der: &CertificateDer<'_>) -> Option<bool> {
    let certificate = parse(der)?;
    Some(certificate.key_usage().ok()?.is_none_or(|usage| usage.value.key_cert_sign()))
}

/// Serial number of a certificate in hexadecimal digits; empty if it cannot be read.
pub(crate) fn serial(der: &CertificateDer<'_>) -> String {
    parse(der).map(|certificate| hex(certificate.raw_serial())).unwrap_or_default()
}

fn key_kind(certificate: &X509Certificate<'_>) -> String {
    let info = certificate.public_key();
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(point)) => format!("ECDSA P-{}", point.key_size()),
        _ => match info.algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" => "Ed25519".into(),
            "1.3.101.113" => "Ed448".into(),
            oid => format!("key of kind {oid}"),
        },
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
