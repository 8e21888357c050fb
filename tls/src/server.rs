//! The server's side: which certificate for which name, who may connect, how sessions resume.

use std::sync::Arc;

use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

use crate::call::{self, CallTime};
use crate::fault::Fault;
use crate::limits::CERTIFICATES_MAX;
use crate::material::{Bundle, KeyPair};
use crate::provider::provider;
use crate::resume::BoundTickets;
use crate::session::Session;
use crate::verify::MeshVerifier;

/// What a server is made of.
#[derive(Debug)]
pub struct ServerSettings<'a> {
    /// The first is for clients that ask for no name or for one that no certificate has; at least
    /// one.
    pub certificates: &'a [Arc<KeyPair>],
    /// Who may connect.
    pub peers: Peers,
    /// TLS 1.2 beside 1.3.
    pub tls12: bool,
    /// Application protocols in order of preference; none for no negotiation.
    pub alpn: &'a [&'a [u8]],
    /// Tickets are issued and taken.
    pub resumption: bool,
}

/// Who may connect to a server.
#[derive(Debug, Clone)]
pub enum Peers {
    /// Everybody; no certificate is asked for.
    None,
    /// Members of the mesh: a certificate is required.
    Required(Arc<Bundle>),
    /// Members of the mesh and those without a certificate: one that is shown must be of the mesh.
    Optional(Arc<Bundle>),
}

/// Why settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildFault {
    /// A server without certificates.
    #[error("there is no certificate")]
    NoCertificate,
    /// More than the limit.
    #[error("more than {max} {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// A client of the mesh that expects nobody.
    #[error("no expected identity")]
    NobodyExpected,
    /// rustls refused.
    #[error("{0}")]
    Rustls(String),
}

impl From<rustls::Error> for BuildFault {
    fn from(error: rustls::Error) -> BuildFault {
        BuildFault::Rustls(error.to_string())
    }
}

/// A server's configuration. Clones share its ticket keys.
#[derive(Debug, Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    /// Peers are members of the mesh.
    mesh: bool,
}

impl ServerTls {
    /// Makes a configuration with ticket keys of its own.
    ///
    /// # Errors
    /// [`BuildFault`].
    pub fn build(settings: &ServerSettings<'_>) -> Result<ServerTls, BuildFault> {
        ServerTls::build_with(settings, provider())
    }

    /// As [`ServerTls::build`], with other groups and suites; for tests and benches.
    ///
    /// # Errors
    /// [`BuildFault`].
    pub fn build_with(
        settings: &ServerSettings<'_>,
        provider: &crate::provider::Provider,
    ) -> Result<ServerTls, BuildFault> {
        let config = config(settings, provider, Arc::new(CallTime))?;
        let mesh = matches!(settings.peers, Peers::Required(_));
        Ok(ServerTls { config: Arc::new(config), mesh })
    }

    /// A session for a connection that was accepted.
    ///
    /// # Errors
    /// [`Fault::Internal`], should rustls refuse its own configuration.
    pub fn accept(&self) -> Result<Session, Fault> {
        Session::server(&self.config, self.mesh)
    }
}

/// What rustls takes, with the time from `time`.
pub(crate) fn config(
    settings: &ServerSettings<'_>,
    provider: &crate::provider::Provider,
    time: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, BuildFault> {
    let certificates = Certificates::new(settings.certificates)?;
    let builder = ServerConfig::builder_with_details(Arc::clone(provider.crypto()), time)
        .with_protocol_versions(versions(settings.tls12))?;
    let mesh = |bundle: &Arc<Bundle>| MeshVerifier::new(Arc::clone(bundle), Box::default());
    let builder = match &settings.peers {
        Peers::None => builder.with_no_client_auth(),
        Peers::Required(bundle) => builder.with_client_cert_verifier(Arc::new(mesh(bundle))),
        Peers::Optional(bundle) => {
            builder.with_client_cert_verifier(Arc::new(mesh(bundle).optional()))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = settings.alpn.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config.ignore_client_order = true;
    if settings.resumption {
        config.ticketer = Arc::new(BoundTickets::new()?);
        config.send_tls13_tickets = 1;
    } else {
        config.ticketer = Arc::new(NoTickets);
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

pub(crate) fn versions(tls12: bool) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    if tls12 { &BOTH } else { &BOTH[..1] }
}

/// Issues and takes none.
#[derive(Debug)]
struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _plain: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _cipher: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// The certificates of a server by name.
#[derive(Debug)]
struct Certificates {
    /// The first is the default.
    all: Vec<Arc<CertifiedKey>>,
    /// DNS names in lower case with places in `all`, sorted; wildcards as `*.example.com`.
    names: Vec<(String, usize)>,
}

impl Certificates {
    fn new(pairs: &[Arc<KeyPair>]) -> Result<Certificates, BuildFault> {
        if pairs.is_empty() {
            return Err(BuildFault::NoCertificate);
        }
        if pairs.len() > CERTIFICATES_MAX {
            return Err(BuildFault::TooMuch { what: "certificates", max: CERTIFICATES_MAX });
        }
        let all = pairs.iter().map(|pair| Arc::clone(pair.certified())).collect();
        let mut names: Vec<(String, usize)> = Vec::new();
        for (index, pair) in pairs.iter().enumerate() {
            let lower = pair.info().dns_names.iter().map(|name| name.to_ascii_lowercase());
            names.extend(lower.map(|name| (name, index)));
        }
        // The sort is stable, so that of one name the earlier certificate stays first.
        names.sort();
        names.dedup();
        Ok(Certificates { all, names })
    }

    /// Places in `all` of the certificates that have exactly `name`.
    fn having(&self, name: &str) -> &[(String, usize)] {
        let start = self.names.partition_point(|(other, _)| other.as_str() < name);
        let count = self.names[start..].partition_point(|(other, _)| other.as_str() == name);
        &self.names[start..start + count]
    }

    /// The certificates for `name`: those that have it, else those with a wildcard for its first
    /// label (RFC 9525 section 6.3), else the default. Never empty.
    fn candidates(&self, name: Option<&str>) -> Vec<&Arc<CertifiedKey>> {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return vec![&self.all[0]] };
        let mut found = self.having(&name);
        if found.is_empty()
            && let Some((_, parent)) = name.split_once('.')
        {
            found = self.having(&format!("*.{parent}"));
        }
        if found.is_empty() {
            return vec![&self.all[0]];
        }
        found.iter().map(|(_, index)| &self.all[*index]).collect()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        call::asked_for(hello.server_name());
        let candidates = self.candidates(hello.server_name());
        let signs =
            |pair: &&Arc<CertifiedKey>| pair.key.choose_scheme(hello.signature_schemes()).is_some();
        let chosen = candidates.iter().copied().find(signs).or(candidates.first().copied());
        chosen.map(Arc::clone)
    }
}

#[cfg(test)]
mod tests;
