//! The client's side: our certificate, whom we expect, and sessions of one endpoint.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption, Tls12Resumption};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::{ServerName, UnixTime};

use crate::call::CallTime;
use crate::fault::Fault;
use crate::limits::EXPECTED_MAX;
use crate::material::{Bundle, KeyPair, Roots};
use crate::provider::{Provider, provider};
use crate::resume::EndpointSessions;
use crate::server::{BuildFault, versions};
use crate::session::Session;
use crate::spiffe::SpiffeId;
use crate::verify::{MeshVerifier, RootsVerifier};

/// What a client is made of.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Our certificate, shown to servers that ask for one.
    pub pair: Option<Arc<KeyPair>>,
    /// Whom we expect.
    pub trust: Trust,
    /// TLS 1.2 beside 1.3.
    pub tls12: bool,
    /// Application protocols in order of preference; none for no negotiation.
    pub alpn: Vec<Vec<u8>>,
    /// Tickets are kept and used.
    pub resumption: bool,
}

/// Whom a client expects.
#[derive(Debug, Clone)]
pub enum Trust {
    /// A member of the mesh with one of these ids; its host name does not matter.
    Mesh {
        /// Roots and CRLs.
        bundle: Arc<Bundle>,
        /// Never empty.
        expected: Box<[SpiffeId]>,
    },
    /// A service outside the mesh, by its host name.
    Roots(Arc<Roots>),
}

/// A client's configuration. Clones share its session cache.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    /// Peers are members of the mesh.
    mesh: bool,
    resumption: bool,
}

impl ClientTls {
    /// Makes a configuration with a session cache of its own.
    ///
    /// # Errors
    /// [`BuildFault`].
    pub fn build(settings: &ClientSettings) -> Result<ClientTls, BuildFault> {
        ClientTls::build_with(settings, provider())
    }

    /// As [`ClientTls::build`], with other groups and suites; for tests and benches.
    ///
    /// # Errors
    /// [`BuildFault`].
    pub fn build_with(
        settings: &ClientSettings,
        provider: &Provider,
    ) -> Result<ClientTls, BuildFault> {
        let verifier: Arc<dyn ServerCertVerifier> = match &settings.trust {
            Trust::Mesh { expected, .. } if expected.is_empty() => {
                return Err(BuildFault::NobodyExpected);
            }
            Trust::Mesh { expected, .. } if expected.len() > EXPECTED_MAX => {
                return Err(BuildFault::TooMuch { what: "expected identities", max: EXPECTED_MAX });
            }
            Trust::Mesh { bundle, expected } => {
                Arc::new(MeshVerifier::new(Arc::clone(bundle), expected.clone()))
            }
            Trust::Roots(roots) => Arc::new(RootsVerifier::new(Arc::clone(roots))),
        };
        let mut config =
            config(verifier, settings.pair.as_ref(), settings.tls12, provider, Arc::new(CallTime))?;
        config.alpn_protocols.clone_from(&settings.alpn);
        config.resumption = resumption(settings.resumption);
        let mesh = matches!(settings.trust, Trust::Mesh { .. });
        Ok(ClientTls { config: Arc::new(config), mesh, resumption: settings.resumption })
    }

    /// Over a configuration that is made elsewhere.
    #[cfg(test)]
    pub(crate) fn of_config(config: Arc<ClientConfig>) -> ClientTls {
        ClientTls { config, mesh: false, resumption: false }
    }

    /// What rustls has.
    #[cfg(test)]
    pub(crate) fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// A session for a connection that is being made; `name` is sent as SNI if it is a DNS name,
    /// and is what a service outside the mesh must prove. `now` decides which tickets are still
    /// good.
    ///
    /// # Errors
    /// [`Fault::Internal`], should rustls refuse its own configuration.
    pub fn connect(&self, name: ServerName<'static>, now: UnixTime) -> Result<Session, Fault> {
        Session::client(&self.config, name, self.mesh, now)
    }

    /// The same configuration with a session cache of its own: one for each endpoint and worker, so
    /// that no lock is shared between workers.
    #[must_use]
    pub fn for_endpoint(&self) -> ClientTls {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = resumption(self.resumption);
        ClientTls { config: Arc::new(config), mesh: self.mesh, resumption: self.resumption }
    }
}

/// What rustls takes, with the time from `time`: no application protocols, no resumption.
pub(crate) fn config(
    verifier: Arc<dyn ServerCertVerifier>,
    pair: Option<&Arc<KeyPair>>,
    tls12: bool,
    provider: &Provider,
    time: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, BuildFault> {
    let own = OwnCertificate(pair.map(|pair| Arc::clone(pair.certified())));
    let mut config = ClientConfig::builder_with_details(Arc::clone(provider.crypto()), time)
        .with_protocol_versions(versions(tls12))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(own));
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn resumption(is_on: bool) -> Resumption {
    if is_on {
        Resumption::store(Arc::new(EndpointSessions::default()))
            .tls12_resumption(Tls12Resumption::SessionIdOrTickets)
    } else {
        Resumption::disabled()
    }
}

/// Our certificate, if any; the server's wishes about its issuer are not looked at, since there is
/// no other.
#[derive(Debug)]
struct OwnCertificate(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for OwnCertificate {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}
