//! Signing requests: the public key in them, after its owner has proved to have the private one.
//!
//! Names, usages and every other wish in a request are ignored: what a certificate says is decided
//! by who asks, not by what is asked (RFC 2986 section 4 leaves that to the authority).

use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use ringway_tls::pki_types::CertificateSigningRequestDer;
use ringway_tls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::fault::Refusal;
use super::limits::CSR_BYTES_MAX;

/// A public key whose private key the peer has.
#[derive(Debug)]
pub(crate) struct Applicant(pub(crate) SubjectPublicKeyInfo);

impl Applicant {
    /// Reads a request in PEM or DER.
    ///
    /// # Errors
    /// [`Refusal::Csr`].
    pub(crate) fn read(csr: &[u8]) -> Result<Applicant, Refusal> {
        if csr.len() > CSR_BYTES_MAX {
            return Err(Refusal::Csr("it is too long"));
        }
        // DER begins with the tag of a sequence.
        let der = if csr.first() == Some(&0x30) {
            CertificateSigningRequestDer::from(csr)
        } else {
            CertificateSigningRequestDer::from_pem_slice(csr)
                .map_err(|_| Refusal::Csr("it is not PEM"))?
        };
        let request = match X509CertificationRequest::from_der(&der) {
            Ok(([], request)) => request,
            Ok(_) | Err(_) => return Err(Refusal::Csr("it cannot be read")),
        };
        let spki = &request.certification_request_info.subject_pki;
        let key = SubjectPublicKeyInfo::from_der(spki.raw)
            .map_err(|_| Refusal::Csr("its key is not of ECDSA P-256"))?;
        if key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(Refusal::Csr("its key is not of ECDSA P-256"));
        }
        request.verify_signature().map_err(|_| Refusal::Csr("its signature is not by its key"))?;
        Ok(Applicant(key))
    }
}
