//! Certificate, key, bundle and CRL files: from bytes to values that are known to be usable.
//!
//! A [`KeyPair`] whose key does not match its certificate does not exist; whether it may be used
//! now and with which bundle is asked with the time at hand. A file that was cut while it was
//! written gives an error, unless it was cut between two certificates: that a chain is short is
//! seen by [`Bundle::check`].
//!
//! # Not here
//! Files themselves and when to read them again (`proxy`).

use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};

use crate::certificate::{self, CertificateInfo, NotSvid};
use crate::fault::{IdentityFault, duration_words};
use crate::limits::{CHAIN_CERTIFICATES_MAX, OCSP_BYTES_MAX, PEM_BYTES_MAX, ROOTS_MAX};
use crate::provider::provider;
use crate::spiffe::SpiffeId;
use crate::verify::{Anchors, PathFault};

mod bundle;

pub use bundle::Bundle;

/// Why files cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MaterialFault {
    /// No certificate in the file.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// No private key in the file.
    #[error("there is no private key in it")]
    NoKey,
    /// The key asks for a password.
    #[error("the private key is encrypted")]
    EncryptedKey,
    /// More than one private key.
    #[error("there are {0} private keys in it")]
    SeveralKeys(usize),
    /// The text is not PEM, or the file is cut.
    #[error("it is not well-formed PEM: {0}")]
    Pem(String),
    /// Bytes that are no certificate.
    #[error("certificate {number} cannot be read")]
    BadCertificate {
        /// Place in the file, from 1.
        number: usize,
    },
    /// A key of a kind or size that is not supported.
    #[error("the private key is of a kind that is not supported: {0}")]
    UnsupportedKey(String),
    /// The key belongs to another certificate.
    #[error("the private key does not match the certificate")]
    KeyMismatch,
    /// Past the validity.
    #[error("{what} expired {} ago", duration_words(*.since_s))]
    Expired {
        /// Seconds since its end.
        since_s: u64,
        /// Which certificate.
        what: String,
    },
    /// Before the validity.
    #[error("{what} is not valid for another {}", duration_words(*.for_s))]
    NotYetValid {
        /// Seconds until its beginning.
        for_s: u64,
        /// Which certificate.
        what: String,
    },
    /// No path to a root of the bundle.
    #[error("the certificate leads to no root of the bundle")]
    Untrusted,
    /// A rule of X.509 is broken on the path to the root.
    #[error("the certificate is not acceptable: {0}")]
    Unacceptable(&'static str),
    /// On a CRL.
    #[error("the certificate is revoked: serial {serial}")]
    Revoked {
        /// Serial number of the leaf in hexadecimal digits; an issuer may be the one revoked.
        serial: String,
    },
    /// The certificate names no workload, or several.
    #[error("the certificate {0}")]
    Identity(IdentityFault),
    /// The certificate may do too much or too little.
    #[error("the certificate may not be used for this: {0}")]
    Usage(&'static str),
    /// No root in the bundle.
    #[error("there is no root certificate in it")]
    NoRoot,
    /// A root that cannot be one.
    #[error("root {number} cannot be used: {text}")]
    BadRoot {
        /// Place in the file, from 1.
        number: usize,
        /// Why.
        text: String,
    },
    /// A CRL that cannot be read or is of a kind that is not supported.
    #[error("CRL {number} cannot be used: {text}")]
    BadCrl {
        /// Place among all CRLs, from 1.
        number: usize,
        /// Why.
        text: String,
    },
    /// More than the limit.
    #[error("{what}: more than {max}")]
    TooMuch {
        /// What there is too much of, and its unit.
        what: &'static str,
        /// The limit.
        max: usize,
    },
}

/// A certificate chain with its private key, which match.
#[derive(Debug)]
pub struct KeyPair {
    certified: Arc<CertifiedKey>,
    /// One for each certificate, leaf first; `1 <= len() <= CHAIN_CERTIFICATES_MAX`.
    chain: Vec<CertificateInfo>,
}

impl KeyPair {
    /// Reads a chain (leaf first) and its key, which may stand in one file, and an OCSP response.
    ///
    /// # Errors
    /// What makes the files unusable at any time.
    pub fn parse(
        chain_pem: &[u8],
        key_pem: &[u8],
        ocsp_der: Option<&[u8]>,
    ) -> Result<KeyPair, MaterialFault> {
        let certificates =
            certificates(chain_pem, "certificates in a chain", CHAIN_CERTIFICATES_MAX)?;
        let chain = certificates
            .iter()
            .enumerate()
            .map(|(index, der)| {
                let unreadable = MaterialFault::BadCertificate { number: index + 1 };
                CertificateInfo::read(der).ok_or(unreadable)
            })
            .collect::<Result<Vec<_>, _>>()?;
        if chain.is_empty() {
            return Err(MaterialFault::NoCertificate);
        }
        let key = provider()
            .crypto()
            .key_provider
            .load_private_key(private_key(key_pem)?)
            .map_err(|error| MaterialFault::UnsupportedKey(error.to_string()))?;
        let mut certified = CertifiedKey::new(certificates, key);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(MaterialFault::KeyMismatch),
            Err(_) => return Err(MaterialFault::BadCertificate { number: 1 }),
        }
        if ocsp_der.is_some_and(|ocsp| ocsp.len() > OCSP_BYTES_MAX) {
            return Err(MaterialFault::TooMuch { what: "bytes of OCSP", max: OCSP_BYTES_MAX });
        }
        certified.ocsp = ocsp_der.filter(|ocsp| !ocsp.is_empty()).map(<[u8]>::to_vec);
        Ok(KeyPair { certified: Arc::new(certified), chain })
    }

    /// What rustls takes.
    #[must_use]
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// What the leaf says.
    #[must_use]
    pub fn info(&self) -> &CertificateInfo {
        &self.chain[0]
    }

    /// What all certificates say, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateInfo] {
        &self.chain
    }

    /// The SPIFFE ID of the leaf, if its only URI is one.
    #[must_use]
    pub fn spiffe(&self) -> Option<&SpiffeId> {
        self.info().spiffe.as_ref()
    }

    /// Whether all certificates of the chain are in their validity.
    ///
    /// # Errors
    /// [`MaterialFault::Expired`] or [`MaterialFault::NotYetValid`] of the first that is not.
    pub fn check_validity(&self, now: UnixTime) -> Result<(), MaterialFault> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        for (index, info) in self.chain.iter().enumerate() {
            let what = if index == 0 {
                "the certificate".to_owned()
            } else {
                format!("the intermediate certificate {}", info.name())
            };
            if now > info.not_after {
                return Err(MaterialFault::Expired { since_s: now.abs_diff(info.not_after), what });
            }
            if now < info.not_before {
                return Err(MaterialFault::NotYetValid {
                    for_s: now.abs_diff(info.not_before),
                    what,
                });
            }
        }
        Ok(())
    }

    /// The workload that the pair is for, by the rules for X.509-SVIDs.
    ///
    /// # Errors
    /// [`MaterialFault::Identity`] or [`MaterialFault::Usage`].
    pub fn as_identity(&self) -> Result<&SpiffeId, MaterialFault> {
        certificate::workload(&self.certified.cert[0]).map_err(|fault| match fault {
            NotSvid::Encoding => MaterialFault::BadCertificate { number: 1 },
            NotSvid::Identity(fault) => MaterialFault::Identity(fault),
            NotSvid::Usage(text) => MaterialFault::Usage(text),
        })?;
        self.spiffe().ok_or(MaterialFault::Identity(IdentityFault::None))
    }
}

/// Roots for services outside the mesh.
#[derive(Debug)]
pub struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
}

impl Roots {
    /// Reads a PEM file; every certificate in it must be usable as a root.
    ///
    /// # Errors
    /// What makes the file unusable.
    pub fn parse(pem: &[u8]) -> Result<Roots, MaterialFault> {
        let certificates = certificates(pem, "root certificates", ROOTS_MAX)?;
        let anchors = certificates.iter().enumerate().map(|(index, der)| anchor(index, der));
        let anchors = anchors.collect::<Result<Vec<_>, _>>()?;
        if anchors.is_empty() {
            return Err(MaterialFault::NoRoot);
        }
        Ok(Roots { anchors })
    }

    /// Takes what the system's store has; what cannot be used as a root is left out, and so is what
    /// goes beyond the limit.
    pub fn from_certificates(
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Roots {
        let usable = certificates.into_iter().filter_map(|der| anchor(0, &der).ok());
        Roots { anchors: usable.take(ROOTS_MAX).collect() }
    }

    /// Number of roots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.anchors.len()
    }

    /// Whether there is no root, so that nothing is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    pub(crate) fn anchors(&self) -> Anchors<'_> {
        Anchors { roots: &self.anchors, crls: &[] }
    }
}

fn anchor(index: usize, der: &CertificateDer<'_>) -> Result<TrustAnchor<'static>, MaterialFault> {
    match webpki::anchor_from_trusted_cert(der) {
        Ok(anchor) => Ok(anchor.to_owned()),
        Err(error) => Err(MaterialFault::BadRoot { number: index + 1, text: error.to_string() }),
    }
}

/// All certificates of a PEM file.
fn certificates(
    pem: &[u8],
    what: &'static str,
    max: usize,
) -> Result<Vec<CertificateDer<'static>>, MaterialFault> {
    check_pem(pem, PEM_BYTES_MAX)?;
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        found.push(certificate.map_err(|error| MaterialFault::Pem(error.to_string()))?);
        if found.len() > max {
            return Err(MaterialFault::TooMuch { what, max });
        }
    }
    Ok(found)
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, MaterialFault> {
    check_pem(pem, PEM_BYTES_MAX)?;
    if pem.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED) {
        return Err(MaterialFault::EncryptedKey);
    }
    let keys = PrivateKeyDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| MaterialFault::Pem(error.to_string()))?;
    let count = keys.len();
    match (keys.into_iter().next(), count) {
        (Some(key), 1) => Ok(key),
        (Some(_), count) => Err(MaterialFault::SeveralKeys(count)),
        (None, _) => Err(MaterialFault::NoKey),
    }
}

/// In the label of PKCS #8 and in the header of older files.
const ENCRYPTED: &[u8] = b"ENCRYPTED";

/// What the PEM reader lets pass: a file that is too long or ends within the line of a label.
fn check_pem(pem: &[u8], max: usize) -> Result<(), MaterialFault> {
    if pem.len() > max {
        return Err(MaterialFault::TooMuch { what: "bytes of PEM", max });
    }
    let last = pem.trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    let is_end = last.starts_with(b"-----END ") && last.ends_with(b"-----");
    if last.starts_with(b"-") && !is_end {
        return Err(MaterialFault::Pem("the file is cut".into()));
    }
    Ok(())
}

impl MaterialFault {
    /// A path fault in the words for files; `leaf` is the certificate in question.
    #[allow(clippy::needless_pass_by_value)] // It is what `map_err` gives.
    fn of_path(fault: PathFault, leaf: &CertificateInfo) -> MaterialFault {
        match fault {
            PathFault::Expired { since_s } => {
                MaterialFault::Expired { since_s, what: "the certificate".into() }
            }
            PathFault::NotYetValid { for_s } => {
                MaterialFault::NotYetValid { for_s, what: "the certificate".into() }
            }
            PathFault::Untrusted => MaterialFault::Untrusted,
            PathFault::Revoked => MaterialFault::Revoked { serial: leaf.serial.clone() },
            PathFault::Usage(text) => MaterialFault::Usage(text),
            PathFault::Certificate(text) => MaterialFault::Unacceptable(text),
            PathFault::Name { .. } => MaterialFault::Unacceptable("its names"),
        }
    }
}

#[cfg(test)]
mod tests;
