//! TLS and identity as the table keeps them: names of files, expected identities, names to route
//! by. What the files contain is the proxy's to read.

use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::FixedState;

use super::ClusterId;
use crate::config::tls::{
    ClusterTlsConfig, HANDSHAKE, IdentityConfig, Mtls, PairConfig, TlsVersion,
};
use crate::config::{ClusterConfig, ListenerConfig};
use crate::host::{Pattern, fold, pattern};

/// The files of the process's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// Certificate chain, PEM.
    pub certificate: Box<str>,
    /// Private key, PEM.
    pub key: Box<str>,
    /// Roots of the mesh, PEM.
    pub trust_bundle: Box<str>,
    /// Revocation lists, PEM or DER.
    pub revocation_lists: Box<[Box<str>]>,
}

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    /// Certificate chain, PEM.
    pub certificate: Box<str>,
    /// Private key, PEM.
    pub key: Box<str>,
    /// OCSP response to staple, DER.
    pub ocsp_response: Option<Box<str>>,
}

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// What to choose from by SNI, the first for clients without a known name. Empty: the
    /// identity's alone.
    pub certificates: Box<[PairFiles]>,
    /// The lowest version; 1.3 wherever clients are asked for a certificate.
    pub min_version: TlsVersion,
    /// Whether sessions are resumed.
    pub resumption: bool,
    /// From accepting a connection to its established session.
    pub handshake_timeout: Duration,
}

/// How connections to a cluster speak TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterTls {
    /// Mutual, with the identity of the process, always 1.3.
    Mesh {
        /// The endpoint must be one of them; never empty.
        expected: Box<[Box<str>]>,
        /// The SNI to send.
        server_name: Option<Box<str>>,
        /// Whether sessions are resumed.
        resumption: bool,
    },
    /// To a service outside the mesh; its name is checked.
    Outside {
        /// SNI and name to check; `None` for the name of the endpoint, which then has one.
        server_name: Option<Box<str>>,
        /// Whom to believe.
        roots: RootsFile,
        /// What to show.
        pair: Option<PairFiles>,
        /// The lowest version.
        min_version: TlsVersion,
        /// Whether sessions are resumed.
        resumption: bool,
    },
}

/// Where roots come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootsFile {
    /// The host's own.
    System,
    /// A file, PEM.
    File(Box<str>),
}

/// Which cluster takes a connection, by the name that its client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SniRoutes {
    exact: HashMap<Box<str>, ClusterId, FixedState>,
    /// By suffix, its dot included.
    suffixes: HashMap<Box<str>, ClusterId, FixedState>,
    otherwise: Option<ClusterId>,
}

impl SniRoutes {
    /// The cluster for a name in any case: that of the exact name, of the longest suffix, or the
    /// one for everything else. `None`: the connection is refused.
    pub fn cluster_for(&self, name: Option<&str>) -> Option<ClusterId> {
        let mut buffer = [0; 256];
        let folded = name.and_then(|name| fold(name, &mut buffer));
        let known = folded.and_then(|name| self.named(std::str::from_utf8(name).ok()?));
        known.or(self.otherwise)
    }

    fn named(&self, name: &str) -> Option<ClusterId> {
        if let Some(exact) = self.exact.get(name) {
            return Some(*exact);
        }
        // At least one label stands before the suffix.
        let dots = name.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'.');
        let mut suffixes = dots.filter_map(|(dot, _)| self.suffixes.get(&name[dot..]));
        suffixes.next().copied()
    }

    fn bytes(&self) -> usize {
        let names = self.exact.keys().chain(self.suffixes.keys());
        names.map(|name| name.len() + size_of::<(Box<str>, ClusterId)>()).sum()
    }
}

type Clusters<'c> = HashMap<&'c str, ClusterId, FixedState>;

fn boxed(text: &str) -> Box<str> {
    text.into()
}

fn all_boxed(texts: &[String]) -> Box<[Box<str>]> {
    texts.iter().map(|text| boxed(text)).collect()
}

pub(super) fn identity(config: &IdentityConfig) -> IdentityFiles {
    IdentityFiles {
        certificate: boxed(&config.certificate),
        key: boxed(&config.key),
        trust_bundle: boxed(&config.trust_bundle),
        revocation_lists: all_boxed(&config.revocation_lists),
    }
}

fn pair(config: &PairConfig) -> PairFiles {
    PairFiles {
        certificate: boxed(&config.certificate),
        key: boxed(&config.key),
        ocsp_response: config.ocsp_response.as_deref().map(boxed),
    }
}

/// `Some` if the listener speaks TLS.
pub(super) fn listener(config: &ListenerConfig) -> Option<ListenerTls> {
    let stated = match (&config.tls, config.mtls) {
        (Some(tls), _) => tls,
        (None, Mtls::Disabled) => return None,
        (None, Mtls::Permissive | Mtls::Strict) => {
            return Some(ListenerTls {
                certificates: Box::default(),
                min_version: TlsVersion::Tls13,
                resumption: true,
                handshake_timeout: HANDSHAKE,
            });
        }
    };
    Some(ListenerTls {
        certificates: stated.certificates.iter().map(pair).collect(),
        min_version: stated.min_version,
        resumption: stated.resumption,
        handshake_timeout: stated.handshake_timeout,
    })
}

pub(super) fn sni(config: &ListenerConfig, clusters: &Clusters<'_>) -> SniRoutes {
    let mut routes = SniRoutes::default();
    for entry in &config.sni {
        let Some(cluster) = clusters.get(entry.cluster.as_str()) else { continue };
        for host in &entry.hosts {
            match pattern(host) {
                Ok(Pattern::Exact(name)) => {
                    routes.exact.insert(name.to_ascii_lowercase().into(), *cluster);
                }
                Ok(Pattern::Suffix(suffix)) => {
                    routes.suffixes.insert(suffix.to_ascii_lowercase().into(), *cluster);
                }
                // The check refuses them.
                Ok(Pattern::Any) | Err(_) => {}
            }
        }
    }
    routes.otherwise = config.cluster.as_deref().and_then(|name| clusters.get(name).copied());
    routes
}

/// `Some` if connections to the cluster speak TLS.
pub(super) fn cluster(config: &ClusterConfig) -> Option<ClusterTls> {
    let stated = config.tls.as_deref();
    let server_name = stated.and_then(|tls| tls.server_name.as_deref());
    let server_name = server_name.map(|name| boxed(name.strip_suffix('.').unwrap_or(name)));
    if !config.identity.is_empty() {
        let expected = all_boxed(&config.identity);
        let resumption = stated.is_none_or(|tls| tls.resumption);
        return Some(ClusterTls::Mesh { expected, server_name, resumption });
    }
    let stated = stated?;
    let roots = match &stated.trust_bundle {
        Some(file) => RootsFile::File(boxed(file)),
        None => RootsFile::System,
    };
    Some(ClusterTls::Outside {
        server_name,
        roots,
        pair: client_pair(stated),
        min_version: stated.min_version.unwrap_or(TlsVersion::Tls12),
        resumption: stated.resumption,
    })
}

fn client_pair(config: &ClusterTlsConfig) -> Option<PairFiles> {
    let (certificate, key) = (config.certificate.as_deref()?, config.key.as_deref()?);
    Some(PairFiles { certificate: boxed(certificate), key: boxed(key), ocsp_response: None })
}

fn pair_bytes(pair: &PairFiles) -> usize {
    let staple = pair.ocsp_response.as_ref().map_or(0, |file| file.len());
    pair.certificate.len() + pair.key.len() + staple
}

fn texts_bytes(texts: &[Box<str>]) -> usize {
    size_of_val(texts) + texts.iter().map(|text| text.len()).sum::<usize>()
}

impl IdentityFiles {
    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        let own = self.certificate.len() + self.key.len() + self.trust_bundle.len();
        own + texts_bytes(&self.revocation_lists)
    }
}

/// Bytes on the heap of what a listener has for TLS.
pub(super) fn listener_bytes(tls: Option<&ListenerTls>, sni: &SniRoutes) -> usize {
    let pairs = tls.map_or(0, |tls| {
        let texts = tls.certificates.iter().map(pair_bytes).sum::<usize>();
        size_of_val::<[_]>(&tls.certificates) + texts
    });
    pairs + sni.bytes()
}

impl ClusterTls {
    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        let name = |name: &Option<Box<str>>| name.as_ref().map_or(0, |name| name.len());
        match self {
            ClusterTls::Mesh { expected, server_name, .. } => {
                texts_bytes(expected) + name(server_name)
            }
            ClusterTls::Outside { server_name, roots, pair, .. } => {
                let roots = match roots {
                    RootsFile::System => 0,
                    RootsFile::File(file) => file.len(),
                };
                name(server_name) + roots + pair.as_ref().map_or(0, pair_bytes)
            }
        }
    }
}
