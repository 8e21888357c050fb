//! Whom the load believes.
//!
//! The signature of a handshake is checked in every case, since that is what a client pays for.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::{
    DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::error::Error;

/// Verifies a chain once a second, and in between takes it as it is: the load opens connections to
/// the same target all the time, and should have less to do than the target.
#[derive(Debug)]
pub(super) struct Remembering {
    verifier: Arc<WebPkiServerVerifier>,
    accepted: Mutex<Option<Accepted>>,
}

/// A chain that was verified, for the one name that a load asks for.
#[derive(Debug, PartialEq, Eq)]
struct Accepted {
    /// Leaf first.
    chain: Vec<CertificateDer<'static>>,
    second: u64,
}

impl Accepted {
    fn is(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], second: u64) -> bool {
        let shown = std::iter::once(leaf).chain(rest);
        self.second == second && self.chain.iter().eq(shown)
    }
}

impl Remembering {
    pub(super) fn new(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| Error::Usage(format!("TLS: {error}")))?;
        Ok(Self { verifier, accepted: Mutex::default() })
    }
}

impl ServerCertVerifier for Remembering {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if accepted.as_ref().is_some_and(|it| it.is(leaf, rest, now.as_secs())) {
            return Ok(ServerCertVerified::assertion());
        }
        let verified = self.verifier.verify_server_cert(leaf, rest, name, ocsp, now)?;
        let chain = std::iter::once(leaf).chain(rest).map(|it| it.clone().into_owned()).collect();
        *accepted = Some(Accepted { chain, second: now.as_secs() });
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Takes any certificate.
#[derive(Debug)]
pub(super) struct Anybody(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::authority::Authority;

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    fn leaf(of: &Authority, life: Duration) -> CertificateDer<'static> {
        der(&of.leaf("spiffe://a/b", &["a.test"], &[ServerAuth], life).unwrap().certificate)
    }

    #[test]
    fn a_chain_is_remembered_for_a_second_and_no_other_is_taken_for_it() {
        let authority = Authority::new(None).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(der(&authority.certificate)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Remembering::new(roots, provider).unwrap();
        let name = ServerName::try_from("a.test").unwrap();
        let now = UnixTime::now();
        let later =
            |seconds| UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + seconds));
        let takes = |leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], now| {
            verifier.verify_server_cert(leaf, rest, &name, &[], now).is_ok()
        };

        let good = leaf(&authority, Duration::from_secs(60));
        let stranger = leaf(&Authority::new(None).unwrap(), Duration::from_secs(60));
        assert!(!takes(&stranger, &[], now));
        assert!(takes(&good, &[], now));
        assert!(takes(&good, &[], now));
        assert!(!takes(&stranger, &[], now));
        assert!(!takes(&stranger, std::slice::from_ref(&good), now));
        assert!(takes(&good, &[], later(1)));
        assert!(!takes(&good, &[], later(62)), "it has expired");
        assert!(!takes(&good, &[], later(62)));
    }
}
