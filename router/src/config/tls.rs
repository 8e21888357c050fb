//! TLS and identity as a file states them.
//!
//! Files are named by their paths: those that are not absolute start at the folder of the
//! configuration file. Nothing here opens one.
//!
//! # Invariants
//! - An identity is `spiffe://trust-domain/path`, compared byte by byte.
//!
//! # Not here
//! What certificates contain and whether they fit together: `ringway-tls`.

use std::time::Duration;

use serde::Serialize;

use super::canonical::{is_default, milliseconds};

/// Who this process is in the mesh: what it shows to others, and whom it believes. A few KiB for
/// what the files hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IdentityConfig {
    /// File of the certificate chain, PEM, the leaf first; the leaf has exactly one SPIFFE id.
    /// Required.
    pub certificate: String,
    /// File of the private key of the leaf, PEM. Required.
    pub key: String,
    /// File of the roots of the mesh, PEM, one or more. Required. Adding one lets everybody in
    /// whom it vouches for.
    pub trust_bundle: String,
    /// Files of revocation lists, PEM or DER. Default none. Adding one refuses those that it lists,
    /// open connections included. At most
    /// [`REVOCATION_LISTS_MAX`](crate::limits::REVOCATION_LISTS_MAX); about the size of the file
    /// for each.
    #[serde(skip_serializing_if = "is_default")]
    pub revocation_lists: Vec<String>,
}

/// Whether a listener asks clients who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mtls {
    /// It does not: plaintext, or one-sided TLS where the listener has `tls`.
    #[default]
    Disabled,
    /// A client that speaks TLS must show a certificate of the mesh; one that does not is served in
    /// plaintext.
    Permissive,
    /// Every client must show a certificate of the mesh.
    Strict,
}

/// The lowest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    #[default]
    #[serde(rename = "1.3")]
    Tls13,
}

/// A certificate with its key. 56 bytes + text, and a few KiB for what the files hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PairConfig {
    /// File of the certificate chain, PEM, the leaf first. Required.
    pub certificate: String,
    /// File of the private key of the leaf, PEM. Required.
    pub key: String,
    /// File of an OCSP response to staple, DER. Default none.
    #[serde(skip_serializing_if = "is_default")]
    pub ocsp_response: Option<String>,
}

/// How a listener speaks TLS. About 60 bytes; its certificates come on top.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListenerTlsConfig {
    /// Certificates to choose from by the name that the client asks for (SNI); the first serves
    /// clients without a known one. Default: that of the top-level `identity`. At most
    /// [`CERTIFICATES_MAX`](crate::limits::CERTIFICATES_MAX).
    #[serde(skip_serializing_if = "is_default")]
    pub certificates: Vec<PairConfig>,
    /// `"1.2"` or `"1.3"`. Default `"1.3"`. `"1.2"` lets older clients in, with what is known to be
    /// weak about it; refused with `mtls: strict` and `permissive`.
    #[serde(skip_serializing_if = "is_default")]
    pub min_version: TlsVersion,
    /// Whether a client may resume an earlier session. Default true; false makes every handshake a
    /// full one, 0.1 to 0.3 ms of processor time more.
    #[serde(skip_serializing_if = "is_true")]
    pub resumption: bool,
    /// From accepting a connection to its established session. Default 10 s. Raising it lets slow
    /// clients hold a connection and its buffers (32 KiB at most) for longer.
    #[serde(serialize_with = "milliseconds", skip_serializing_if = "is_default_handshake")]
    pub handshake_timeout: Duration,
}

/// Default of [`ListenerTlsConfig::handshake_timeout`].
pub const HANDSHAKE: Duration = Duration::from_secs(10);

fn is_default_handshake(value: &Duration) -> bool {
    *value == HANDSHAKE
}

fn is_true(value: &bool) -> bool {
    *value
}

impl Default for ListenerTlsConfig {
    fn default() -> ListenerTlsConfig {
        ListenerTlsConfig {
            certificates: Vec::new(),
            min_version: TlsVersion::default(),
            resumption: true,
            handshake_timeout: HANDSHAKE,
        }
    }
}

/// Where connections for some names go that a listener passes on without ending their TLS. About
/// 60 bytes + text for each name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SniConfig {
    /// `name` (exactly) or `*.suffix` (any number of labels in front). An exact name goes before
    /// the longest suffix. At least one; each name once in a listener.
    pub hosts: Vec<String>,
    /// Name of a cluster. Required.
    pub cluster: String,
}

/// How connections to a cluster speak TLS. About 120 bytes + text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterTlsConfig {
    /// The name asked for (SNI); without `identity` also the name or address that the certificate
    /// must be for. Default without `identity`: the name in the endpoint's address, so it is
    /// required when one is `ip:port`; with `identity`: none is sent.
    #[serde(skip_serializing_if = "is_default")]
    pub server_name: Option<String>,
    /// File of the roots that are believed, PEM, or `system` for those of the host. Default
    /// `system`. Refused with `identity`.
    #[serde(skip_serializing_if = "is_default")]
    pub trust_bundle: Option<String>,
    /// File of a certificate chain to show, PEM, the leaf first. Default none. Needs `key`; refused
    /// with `identity`.
    #[serde(skip_serializing_if = "is_default")]
    pub certificate: Option<String>,
    /// File of the private key of that leaf, PEM.
    #[serde(skip_serializing_if = "is_default")]
    pub key: Option<String>,
    /// `"1.2"` or `"1.3"`. Default `"1.2"`: what outside services speak is not ours to choose.
    /// Raising it refuses those that only speak 1.2. Refused with `identity`, which is always 1.3.
    #[serde(skip_serializing_if = "is_default")]
    pub min_version: Option<TlsVersion>,
    /// Whether sessions are resumed. Default true; false makes every handshake a full one. About 2
    /// KiB for each endpoint and worker.
    #[serde(skip_serializing_if = "is_true")]
    pub resumption: bool,
}

impl Default for ClusterTlsConfig {
    fn default() -> ClusterTlsConfig {
        ClusterTlsConfig {
            server_name: None,
            trust_bundle: None,
            certificate: None,
            key: None,
            min_version: None,
            resumption: true,
        }
    }
}
