//! Verification of the peer: webpki for the path, our own rules for the identity.
//!
//! [`MeshVerifier`] serves both directions: path to a root of the bundle, CRLs, then the SVID rules
//! of [`crate::certificate::workload`] and, for a client, the expected ids. [`RootsVerifier`] is
//! for services outside the mesh: path and host name.
//!
//! # Invariants
//! - The error that rustls gets decides the alert; the detailed [`Fault`] is left in
//!   [`crate::call`].
//! - The peer is named to the session only after all rules held.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, RevocationOptions, RevocationOptionsBuilder,
    UnknownStatusPolicy,
};

use crate::call;
use crate::certificate::{self, NotSvid};
use crate::fault::{Fault, IdentityFault};
use crate::limits::CHAIN_CERTIFICATES_MAX;
use crate::material::{Bundle, Roots};
use crate::provider::{provider, sha256};
use crate::spiffe::SpiffeId;

mod accepted;

use accepted::Accepted;

/// What all verifiers have in common: a peer signs the handshake with the key of its certificate.
macro_rules! signatures_of_handshakes {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, dss, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

/// Why there is no acceptable path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathFault {
    Expired {
        since_s: u64,
    },
    NotYetValid {
        for_s: u64,
    },
    Untrusted,
    Revoked,
    Usage(&'static str),
    Certificate(&'static str),
    /// The host name that was asked for, and those of the certificate.
    Name {
        expected: String,
        found: String,
    },
}

/// What a path is verified against.
#[derive(Clone, Copy)]
pub(crate) struct Anchors<'a> {
    pub(crate) roots: &'a [TrustAnchor<'static>],
    pub(crate) crls: &'a [CertRevocationList<'static>],
}

/// Finds a path from `chain` (leaf first) to a root; returns the first and the last second in which
/// all of the path is valid.
///
/// Status unknown to the CRLs is accepted, and so are CRLs past their nextUpdate: a list that is
/// not renewed must not cut the mesh off, while what it revokes stays revoked.
pub(crate) fn path(
    anchors: Anchors<'_>,
    chain: (&CertificateDer<'_>, &[CertificateDer<'_>]),
    now: UnixTime,
    usage: KeyUsage,
) -> Result<(u64, u64), PathFault> {
    let (leaf, intermediates) = chain;
    if intermediates.len() >= CHAIN_CERTIFICATES_MAX {
        return Err(PathFault::Certificate("its chain is too long"));
    }
    let crls: Vec<&CertRevocationList<'_>> = anchors.crls.iter().collect();
    let end_entity =
        EndEntityCert::try_from(leaf).map_err(|error| crate::fault::of_path(&error))?;
    let verified = end_entity
        .verify_for_usage(
            provider().crypto().signature_verification_algorithms.all,
            anchors.roots,
            intermediates,
            now,
            usage,
            revocation(&crls),
            None,
        )
        .map_err(|error| crate::fault::of_path(&error))?;
    let (mut since, mut until) = validity(leaf);
    for issuer in verified.intermediate_certificates() {
        let may_sign = certificate::may_sign(&issuer.der());
        let may_sign = may_sign.ok_or(PathFault::Certificate("it cannot be read"))?;
        // webpki does not look at keyUsage (RFC 5280 section 6.1.4 (n)).
        if !may_sign {
            return Err(PathFault::Certificate("its issuer may not sign certificates"));
        }
        let (not_before, not_after) = validity(&issuer.der());
        since = since.max(not_before);
        until = until.min(not_after);
    }
    Ok((since, until))
}

fn revocation<'a>(crls: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
    let builder = RevocationOptionsBuilder::new(crls).ok()?;
    Some(builder.with_status_policy(UnknownStatusPolicy::Allow).build())
}

/// First and last second of a certificate; none, if it cannot be read.
fn validity(der: &CertificateDer<'_>) -> (u64, u64) {
    let (not_before, not_after) = certificate::validity(der).unwrap_or((i64::MAX, 0));
    (u64::try_from(not_before).unwrap_or(0), u64::try_from(not_after).unwrap_or(0))
}

impl PathFault {
    /// In the words for connections; `leaf` gives the serial number.
    pub(crate) fn of_peer(self, leaf: &CertificateDer<'_>) -> Fault {
        match self {
            PathFault::Expired { since_s } => Fault::PeerCertificateExpired { since_s },
            PathFault::NotYetValid { for_s } => Fault::PeerCertificateNotYetValid { for_s },
            PathFault::Untrusted => Fault::PeerUntrusted,
            PathFault::Revoked => Fault::PeerRevoked { serial: certificate::serial(leaf) },
            PathFault::Usage(text) => Fault::PeerUsage(text),
            PathFault::Certificate(text) => Fault::PeerCertificate(text),
            PathFault::Name { expected, found } => Fault::PeerName { expected, found },
        }
    }
}

/// Leaves `fault` for the session and gives rustls the error with the alert that fits
/// (RFC 8446 section 6.2).
fn refuse(fault: Fault) -> Error {
    let error = match &fault {
        Fault::PeerCertificateExpired { .. } => CertificateError::Expired,
        Fault::PeerCertificateNotYetValid { .. } => CertificateError::NotValidYet,
        Fault::PeerUntrusted => CertificateError::UnknownIssuer,
        Fault::PeerRevoked { .. } => CertificateError::Revoked,
        Fault::PeerUsage(_) => CertificateError::InvalidPurpose,
        Fault::PeerIdentity { .. } => CertificateError::ApplicationVerificationFailure,
        Fault::PeerSpiffe(_) | Fault::PeerName { .. } => CertificateError::NotValidForName,
        _ => CertificateError::BadEncoding,
    };
    call::refused(fault);
    Error::InvalidCertificate(error)
}

/// What a member shows its certificate as.
#[derive(Debug, Clone, Copy)]
enum Usage {
    Client,
    Server,
}

/// Verifies members of the mesh.
#[derive(Debug)]
pub(crate) struct MeshVerifier {
    bundle: Arc<Bundle>,
    /// Ids that are accepted; empty for all that the bundle vouches for.
    expected: Box<[SpiffeId]>,
    /// A client may come without a certificate.
    optional: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl MeshVerifier {
    pub(crate) fn new(bundle: Arc<Bundle>, expected: Box<[SpiffeId]>) -> MeshVerifier {
        let algorithms = provider().crypto().signature_verification_algorithms;
        MeshVerifier { bundle, expected, optional: false, algorithms }
    }

    /// The same, for clients that may come without a certificate.
    pub(crate) fn optional(self) -> MeshVerifier {
        MeshVerifier { optional: true, ..self }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
    ) -> Result<(), Error> {
        let key = accepted::Key::new(&self.bundle, usage as u8, leaf, intermediates);
        let Accepted { id, valid: (_, until) } = match accepted::get(&key, now) {
            Some(known) => known,
            None => {
                let usage = match usage {
                    Usage::Client => KeyUsage::client_auth(),
                    Usage::Server => KeyUsage::server_auth(),
                };
                let valid = path(self.bundle.anchors(), (leaf, intermediates), now, usage)
                    .map_err(|fault| refuse(fault.of_peer(leaf)))?;
                let id = certificate::workload(leaf).map_err(|fault| refuse(fault.of_peer()))?;
                let found = Accepted { id, valid };
                accepted::keep(key, found.clone());
                found
            }
        };
        if !self.expected.is_empty() && !self.expected.contains(&id) {
            let expected = self.expected.iter().map(SpiffeId::as_str).collect::<Vec<_>>();
            let expected = expected.join(" or ");
            return Err(refuse(Fault::PeerIdentity { expected, found: id }));
        }
        call::set_peer_until(until);
        call::accepted(id);
        Ok(())
    }
}

impl NotSvid {
    fn of_peer(self) -> Fault {
        match self {
            NotSvid::Encoding => Fault::PeerCertificate("it cannot be read"),
            NotSvid::Identity(fault) => Fault::PeerSpiffe(fault),
            NotSvid::Usage(text) => Fault::PeerUsage(text),
        }
    }
}

impl ClientCertVerifier for MeshVerifier {
    /// None: a client of the mesh has one certificate, and the names of the roots are nobody's
    /// business.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        !self.optional
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now, Usage::Client)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures_of_handshakes!();
}

impl ServerCertVerifier for MeshVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now, Usage::Server)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures_of_handshakes!();
}

/// Verifies services outside the mesh by their host name (RFC 9525).
#[derive(Debug)]
pub(crate) struct RootsVerifier {
    roots: Arc<Roots>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl RootsVerifier {
    pub(crate) fn new(roots: Arc<Roots>) -> RootsVerifier {
        let algorithms = provider().crypto().signature_verification_algorithms;
        RootsVerifier { roots, algorithms }
    }
}

impl ServerCertVerifier for RootsVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = (end_entity, intermediates);
        let (_, until) = path(self.roots.anchors(), chain, now, KeyUsage::server_auth())
            .map_err(|fault| refuse(fault.of_peer(end_entity)))?;
        EndEntityCert::try_from(end_entity)
            .and_then(|leaf| leaf.verify_is_valid_for_subject_name(server_name))
            .map_err(|error| refuse(crate::fault::of_path(&error).of_peer(end_entity)))?;
        call::set_peer_until(until);
        Ok(ServerCertVerified::assertion())
    }

    signatures_of_handshakes!();
}

/// Verifies a server of a mesh of which only the hash of a root is known, and the path that the
/// server's identity has. The root must be in the chain that the server shows.
#[derive(Debug)]
pub(crate) struct PinnedVerifier {
    root_sha256: [u8; 32],
    path: &'static str,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinnedVerifier {
    pub(crate) fn new(root_sha256: [u8; 32], path: &'static str) -> PinnedVerifier {
        let algorithms = provider().crypto().signature_verification_algorithms;
        PinnedVerifier { root_sha256, path, algorithms }
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = intermediates.iter().find(|der| sha256(der) == self.root_sha256);
        let root = pinned.and_then(|der| webpki::anchor_from_trusted_cert(der).ok());
        let root = root.ok_or_else(|| refuse(Fault::PeerUntrusted))?.to_owned();
        let anchors = Anchors { roots: &[root], crls: &[] };
        path(anchors, (end_entity, intermediates), now, KeyUsage::server_auth())
            .map_err(|fault| refuse(fault.of_peer(end_entity)))?;
        let id = certificate::workload(end_entity).map_err(|fault| refuse(fault.of_peer()))?;
        if id.path() != self.path {
            let expected = format!("spiffe://{}{}", id.trust_domain(), self.path);
            return Err(refuse(Fault::PeerIdentity { expected, found: id }));
        }
        Ok(ServerCertVerified::assertion())
    }

    signatures_of_handshakes!();
}

/// Whom a leaf that was verified before is for; used for sessions that were resumed.
pub(crate) fn verified_before(leaf: &CertificateDer<'_>) -> Result<SpiffeId, Fault> {
    certificate::workload(leaf).map_err(NotSvid::of_peer)
}

impl From<IdentityFault> for Fault {
    fn from(fault: IdentityFault) -> Fault {
        Fault::PeerSpiffe(fault)
    }
}

#[cfg(test)]
mod tests;
