//! TLS of control threads: the rules of the mesh over rustls as runtimes adapt it.
//!
//! Workers drive sessions themselves; a control thread has a runtime, whose adapter takes what is
//! made here. Who is believed and how is decided by the same code.
//!
//! # Not here
//! Resumption: control connections are few and long.

use std::sync::Arc;

use rustls::time_provider::DefaultTimeProvider;
use rustls::{ClientConfig, ServerConfig};

use crate::call;
use crate::client;
use crate::fault::Fault;
use crate::material::{Bundle, KeyPair};
use crate::provider::provider;
use crate::server::{self, BuildFault, Peers, ServerSettings};
use crate::spiffe::SpiffeId;
use crate::verify::{MeshVerifier, PinnedVerifier, verified_before};
use rustls_pki_types::CertificateDer;

/// What is negotiated (RFC 7301).
const ALPN: &[u8] = b"http/1.1";

/// A client that shows `pair` and expects `expected`, a member of the mesh.
///
/// # Errors
/// [`BuildFault`].
pub fn client(
    pair: Option<&Arc<KeyPair>>,
    bundle: &Arc<Bundle>,
    expected: SpiffeId,
) -> Result<Arc<ClientConfig>, BuildFault> {
    let verifier = MeshVerifier::new(Arc::clone(bundle), Box::new([expected]));
    let mut config =
        client::config(Arc::new(verifier), pair, false, provider(), Arc::new(DefaultTimeProvider))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// A client that has no certificate and knows no bundle: it believes a server whose chain holds,
/// and leads to, the root with the hash `root_sha256`, and whose identity has the path `path`.
///
/// # Errors
/// [`BuildFault`].
pub fn pinned_client(
    root_sha256: [u8; 32],
    path: &'static str,
) -> Result<Arc<ClientConfig>, BuildFault> {
    let verifier = PinnedVerifier::new(root_sha256, path);
    let mut config =
        client::config(Arc::new(verifier), None, false, provider(), Arc::new(DefaultTimeProvider))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// A server that shows `pair`. Clients may come without a certificate; one that is shown must be of
/// the mesh, and [`peer`] says whose it is.
///
/// # Errors
/// [`BuildFault`].
pub fn server(pair: &Arc<KeyPair>, bundle: &Arc<Bundle>) -> Result<Arc<ServerConfig>, BuildFault> {
    let settings = ServerSettings {
        certificates: std::slice::from_ref(pair),
        peers: Peers::Optional(Arc::clone(bundle)),
        tls12: false,
        alpn: &[ALPN],
        resumption: false,
    };
    let config = server::config(&settings, provider(), Arc::new(DefaultTimeProvider))?;
    Ok(Arc::new(config))
}

/// Whom the chain of an established connection is for, leaf first.
///
/// # Errors
/// [`Fault`], should the leaf not be what was verified.
pub fn peer(chain: &[CertificateDer<'_>]) -> Result<Option<SpiffeId>, Fault> {
    chain.first().map(verified_before).transpose()
}

/// Why the last connection that failed on this thread was refused by us, in our words; `None` if it
/// was not. Asked right after the failure.
#[must_use]
pub fn refusal() -> Option<Fault> {
    call::leave().0.fault
}

#[cfg(test)]
mod tests;
