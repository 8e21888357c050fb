//! Whom the load believes.
//!
//! A load opens connections to the same target all the time. Verifying costs it more than the
//! target's signing costs the target, and a target that waits for its load is measured while it
//! falls asleep and wakes up. So of many handshakes only some are verified, and of few all.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use rustls::{
    DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{error::Error, limits::VERIFIED_EVERY};

/// What was good and when.
type Last<T> = Mutex<Option<(T, Instant)>>;

/// Takes a chain that was verified, and any signature after one that was, for [`VERIFIED_EVERY`].
#[derive(Debug)]
pub(super) struct Sampled {
    provider: Arc<CryptoProvider>,
    /// Verifies chains; without it any is taken.
    chains: Option<Arc<WebPkiServerVerifier>>,
    /// Leaf first; for the one name that a load asks for.
    chain: Last<Vec<CertificateDer<'static>>>,
    signature: Last<()>,
}

/// `result` of `verify`, or `good` if `last` was, matches and is not too long ago.
fn sampled<T, R>(
    last: &Last<T>,
    matches: impl Fn(&T) -> bool,
    good: R,
    verify: impl FnOnce() -> Result<(T, R), rustls::Error>,
) -> Result<R, rustls::Error> {
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    if last.as_ref().is_some_and(|(it, at)| now < *at + VERIFIED_EVERY && matches(it)) {
        return Ok(good);
    }
    let (what, result) = verify()?;
    *last = Some((what, now));
    Ok(result)
}

impl Sampled {
    /// Believes whoever `roots` have signed for the name.
    ///
    /// # Errors
    /// When there are no roots.
    pub(super) fn by(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        let known = Arc::clone(&provider);
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), known)
            .build()
            .map_err(|error| Error::Usage(format!("TLS: {error}")))?;
        Ok(Self { chains: Some(chains), ..Self::anybody(provider) })
    }

    /// Believes anybody whose signature belongs to the certificate.
    pub(super) fn anybody(provider: Arc<CryptoProvider>) -> Self {
        Self { provider, chains: None, chain: Mutex::default(), signature: Mutex::default() }
    }

    fn signed(
        &self,
        verify: impl FnOnce(
            &WebPkiSupportedAlgorithms,
        ) -> Result<HandshakeSignatureValid, rustls::Error>,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let good = HandshakeSignatureValid::assertion();
        let algorithms = &self.provider.signature_verification_algorithms;
        sampled(&self.signature, |()| true, good, || Ok(((), verify(algorithms)?)))
    }
}

impl ServerCertVerifier for Sampled {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let good = ServerCertVerified::assertion();
        let Some(chains) = &self.chains else { return Ok(good) };
        let shown = || std::iter::once(leaf).chain(rest);
        let same = |chain: &Vec<CertificateDer<'static>>| chain.iter().eq(shown());
        sampled(&self.chain, same, good, || {
            let verified = chains.verify_server_cert(leaf, rest, name, ocsp, now)?;
            Ok((shown().map(|it| it.clone().into_owned()).collect(), verified))
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(|known| verify_tls12_signature(message, certificate, signed, known))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(|known| verify_tls13_signature(message, certificate, signed, known))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
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

    fn leaf(of: &Authority) -> CertificateDer<'static> {
        let life = Duration::from_secs(60);
        der(&of.leaf("spiffe://a/b", &["a.test"], &[ServerAuth], life).unwrap().certificate)
    }

    /// Lets `last` be as long ago as it takes for it not to count.
    fn forget<T>(last: &Last<T>) {
        last.lock().unwrap().as_mut().unwrap().1 -= VERIFIED_EVERY;
    }

    #[test]
    fn a_good_chain_is_taken_again_for_a_while_and_no_other_in_its_place() {
        let authority = Authority::new(None).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(der(&authority.certificate)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let sampled = Sampled::by(roots, provider).unwrap();
        let name = ServerName::try_from("a.test").unwrap();
        let now = UnixTime::now();
        let expired = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 61));
        let takes = |leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], now| {
            sampled.verify_server_cert(leaf, rest, &name, &[], now).is_ok()
        };

        let good = leaf(&authority);
        let stranger = leaf(&Authority::new(None).unwrap());
        assert!(!takes(&stranger, &[], now));
        assert!(takes(&good, &[], now));
        assert!(!takes(&stranger, &[], now));
        assert!(!takes(&stranger, std::slice::from_ref(&good), now));
        forget(&sampled.chain);
        assert!(!takes(&good, &[], expired), "it is verified again");
        assert!(takes(&good, &[], now));
    }

    #[test]
    fn a_bad_signature_is_found_by_the_next_sample() {
        let last = Mutex::default();
        let bad = || Err(rustls::Error::General("bad".to_owned()));
        let sample = |verify: &dyn Fn() -> Result<((), u8), rustls::Error>| {
            sampled(&last, |()| true, 0, verify)
        };
        assert!(sample(&bad).is_err());
        assert!(sample(&bad).is_err(), "what was bad is never taken");
        assert_eq!(sample(&|| Ok(((), 1))).unwrap(), 1);
        last.lock().unwrap().as_mut().unwrap().1 += Duration::from_secs(60);
        assert_eq!(sample(&bad).unwrap(), 0);
        last.lock().unwrap().as_mut().unwrap().1 -= Duration::from_secs(60);
        forget(&last);
        assert!(sample(&bad).is_err());
    }
}
