//! The configuration as a file states it: one struct for each kind of object, every field
//! documented.
//!
//! Values are typed and defaults filled in, but names are not yet resolved and nothing is
//! cross-checked: that is [`Table::compile`](crate::Table::compile). Serialising gives the
//! canonical form that a table's hash is taken of: fields in the order of these structs, what
//! equals its default left out.
//!
//! # Not here
//! Reading text ([`load`](fn@crate::load)), and what is wrong with a value (`check`).
//!
//! Memory figures are for each object of the kind; `text` stands for the bytes of the names and
//! values in it.

pub(crate) mod canonical;
pub(crate) mod check;
pub mod control;
pub(crate) mod decode;
pub(crate) mod file;
pub mod http2;
pub(crate) mod names;
pub(crate) mod rules;
pub(crate) mod rules_check;
pub(crate) mod scalars;
pub(crate) mod schema;
pub mod tls;
pub(crate) mod tls_check;
pub(crate) mod tls_decode;
pub(crate) mod warnings;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use canonical::{display_all, is_default, milliseconds, optional_milliseconds};
use control::ControlConfig;
use http2::Http2Config;
use tls::{ClusterTlsConfig, IdentityConfig, ListenerTlsConfig, Mtls, SniConfig};

/// A whole configuration file.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(default)]
pub struct Config {
    /// Who this process is in the mesh. Default: nobody; then it speaks no mutual TLS.
    #[serde(skip_serializing_if = "is_default")]
    pub identity: Option<IdentityConfig>,
    /// Address of the admin server (metrics, readiness, running table). Default: none, no admin
    /// server.
    #[serde(skip_serializing_if = "is_default")]
    pub admin: Option<SocketAddr>,
    /// How the process ends.
    #[serde(skip_serializing_if = "is_default")]
    pub drain: DrainConfig,
    /// The pusher that says what this process does. Then the file has no `identity`, `listeners`,
    /// `routes` and `clusters`: they come from there. Default: none.
    #[serde(skip_serializing_if = "is_default")]
    pub control: Option<ControlConfig>,
    /// Where connections are accepted. At most [`LISTENERS_MAX`](crate::limits::LISTENERS_MAX).
    pub listeners: Vec<ListenerConfig>,
    /// What is done with HTTP requests. At most [`ROUTES_MAX`](crate::limits::ROUTES_MAX).
    pub routes: Vec<RouteConfig>,
    /// Sets of endpoints. At most [`CLUSTERS_MAX`](crate::limits::CLUSTERS_MAX).
    pub clusters: Vec<ClusterConfig>,
}

/// How the process ends after SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DrainConfig {
    /// How long connections are still accepted, so that those who balance to this process notice.
    /// Default 5 s. Raising it lengthens every shutdown; lowering it below the probe interval of
    /// the balancer refuses connections.
    #[serde(serialize_with = "milliseconds")]
    pub delay: Duration,
    /// How long the whole shutdown may take before what is left is cut, `delay` included. Default
    /// 25 s, below the 30 s after which Kubernetes kills.
    #[serde(serialize_with = "milliseconds")]
    pub timeout: Duration,
}

impl Default for DrainConfig {
    fn default() -> DrainConfig {
        DrainConfig { delay: Duration::from_secs(5), timeout: Duration::from_secs(25) }
    }
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 and 1.0; requests are routed.
    #[default]
    Http1,
    /// HTTP/2: with prior knowledge in plaintext, by ALPN over TLS; requests are routed.
    Http2,
    /// Opaque bytes; every connection goes to the listener's cluster.
    Tcp,
    /// TLS that is passed on as it is; the name that the client asks for (SNI) decides the cluster.
    #[serde(rename = "tls-passthrough")]
    TlsPassthrough,
    /// Found out for each connection from what is said first: as `http1`, `http2`,
    /// `tls-passthrough`, or else as `tcp`.
    Auto,
}

impl Protocol {
    /// As a file writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
            Protocol::Tcp => "tcp",
            Protocol::TlsPassthrough => "tls-passthrough",
            Protocol::Auto => "auto",
        }
    }

    /// Whether its requests, or some of them, are routed by `routes`.
    #[must_use]
    pub fn has_routes(self) -> bool {
        matches!(self, Protocol::Http1 | Protocol::Http2 | Protocol::Auto)
    }

    /// Whether some of its clients may speak HTTP/2.
    #[must_use]
    pub fn may_speak_http2(self) -> bool {
        matches!(self, Protocol::Http2 | Protocol::Auto)
    }

    /// Whether TLS may be passed on by the name that is asked for.
    #[must_use]
    pub fn has_server_names(self) -> bool {
        matches!(self, Protocol::TlsPassthrough | Protocol::Auto)
    }
}

/// What is spoken with the endpoints of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClusterProtocol {
    /// HTTP/1.1; for tunnels, whatever their clients speak.
    #[default]
    Http1,
    /// HTTP/2: with prior knowledge in plaintext, by ALPN over TLS.
    Http2,
}

/// A place where connections are accepted. About 300 bytes, and a socket for each worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ListenerConfig {
    /// Name, unique among the listeners. Required.
    pub name: String,
    /// `ip:port`. Required. Port 0 takes a free one when the process starts.
    pub address: Option<SocketAddr>,
    /// `http1`, `http2`, `tcp`, `tls-passthrough` or `auto`. Default `http1`. With `auto` the first
    /// bytes of each connection decide; a client that is silent for 20 ms causes a connection to
    /// `cluster`, and whoever speaks first decides.
    #[serde(skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// The cluster that connections go to. Required for `tcp`, refused for `http1` and `http2`. For
    /// `tls-passthrough` it takes those that no name of `sni` holds for, for `auto` those and what
    /// is neither HTTP nor TLS; without it they are refused.
    #[serde(skip_serializing_if = "is_default")]
    pub cluster: Option<String>,
    /// Where TLS that is not ended here goes by the name that the client asks for. Only for
    /// `tls-passthrough`, which needs this or `cluster`, and `auto`. At most
    /// [`SNI_ROUTES_MAX`](crate::limits::SNI_ROUTES_MAX).
    #[serde(skip_serializing_if = "is_default")]
    pub sni: Vec<SniConfig>,
    /// `disabled`, `permissive` or `strict`: whether clients must show a certificate of the mesh.
    /// Default `disabled`. The others need the top-level `identity`; `strict` refuses plaintext.
    #[serde(skip_serializing_if = "is_default")]
    pub mtls: Mtls,
    /// How TLS is spoken. Default: it is not, unless `mtls` says so. Not for `tls-passthrough`.
    /// About 8 KiB for each connection.
    #[serde(skip_serializing_if = "is_default")]
    pub tls: Option<Box<ListenerTlsConfig>>,
    /// Every connection must open with a PROXY protocol header (version 1 or 2); one without is
    /// closed. Default false. Turn it on only where nobody but a trusted balancer can connect: the
    /// header is believed.
    #[serde(skip_serializing_if = "is_default")]
    pub accept_proxy_protocol: bool,
    /// Addresses (`10.0.0.0/8` or `10.0.0.1`) whose `X-Forwarded-*` and `X-Request-Id` are kept.
    /// Default none: they are replaced. Adding one lets it choose the client address that origins
    /// see. 18 bytes each.
    #[serde(serialize_with = "display_all", skip_serializing_if = "is_default")]
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// From the first byte of a request head to its last, and for bytes that do not say yet what
    /// they are (`auto`). Default 10 s. Raising it lets slow
    /// clients hold a connection and its buffer (64 KiB at most) for longer.
    #[serde(serialize_with = "optional_milliseconds", skip_serializing_if = "is_default")]
    pub head_timeout: Option<Duration>,
    /// How long a connection may be silent: between requests for `http1` and `auto` (default
    /// 5 min), in both directions for `tcp` (default 1 h; that of the cluster for `auto`). Raising
    /// it keeps more idle connections, about 1 KiB each.
    #[serde(serialize_with = "optional_milliseconds", skip_serializing_if = "is_default")]
    pub idle_timeout: Option<Duration>,
    /// Connections open at once over all workers; one more is answered 503 (`http1`) or reset
    /// (`tcp`). Default unlimited. Raising it allows that many more file descriptors and buffers.
    #[serde(skip_serializing_if = "is_default")]
    pub max_connections: Option<u32>,
    /// How old a connection may become: the first answer after that closes it. Only for `http1` and
    /// `auto`, at least 1 s. Default none. Lowering it makes clients connect more often, and where
    /// TLS is spoken prove who they are.
    #[serde(serialize_with = "optional_milliseconds", skip_serializing_if = "is_default")]
    pub max_connection_age: Option<Duration>,
    /// Limits of HTTP/2 connections. Only for `http2` and `auto`.
    #[serde(skip_serializing_if = "is_default")]
    pub http2: Http2Config,
}

/// Rules for the requests of some hosts. 24 bytes + text; its hosts and rules come on top.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RouteConfig {
    /// Name, unique among the routes; it stands in metrics and logs. Required.
    pub name: String,
    /// Names of the `http1`, `http2` and `auto` listeners that it serves. Default: all of them.
    #[serde(skip_serializing_if = "is_default")]
    pub listeners: Vec<String>,
    /// `name` (exactly), `*.suffix` (any number of labels in front) or `*`. Default: every host.
    /// Case, a port and a trailing dot do not count. About 60 bytes + text for each.
    #[serde(skip_serializing_if = "is_default")]
    pub hosts: Vec<String>,
    /// What is done, in any order: the most specific match wins, the order in the file decides
    /// between equals. At least one.
    pub rules: Vec<RuleConfig>,
}

/// What is done with the requests that match. About 80 bytes + text; equal header edits of all
/// rules share memory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleConfig {
    /// Line of the file it starts on; 0 if it does not come from one. Not part of the canonical
    /// form.
    #[serde(skip)]
    pub line: u32,
    /// Alternatives: the rule matches if one of them does. Default: it matches every request. 12
    /// bytes for each host of the route, and what its conditions take.
    #[serde(skip_serializing_if = "is_default")]
    pub matches: Vec<MatchConfig>,
    /// Clusters that answer, by weight. Exactly one of `backends`, `redirect` and `respond` is
    /// required.
    #[serde(skip_serializing_if = "is_default")]
    pub backends: Vec<BackendConfig>,
    /// Changes of the request line on its way to the cluster. Only with `backends`. Default: none.
    #[serde(skip_serializing_if = "is_default")]
    pub rewrite: Option<Box<RewriteConfig>>,
    /// Sends the client elsewhere.
    #[serde(skip_serializing_if = "is_default")]
    pub redirect: Option<Box<RedirectConfig>>,
    /// Answers directly.
    #[serde(skip_serializing_if = "is_default")]
    pub respond: Option<Box<RespondConfig>>,
    /// Changes of the header fields of the request before it is forwarded.
    #[serde(skip_serializing_if = "is_default")]
    pub request_headers: Option<Box<HeaderEditsConfig>>,
    /// Changes of the header fields of the response before it is passed on.
    #[serde(skip_serializing_if = "is_default")]
    pub response_headers: Option<Box<HeaderEditsConfig>>,
    /// From the end of the request head to the end of the response. Default: none. Raising it lets
    /// slow origins hold a connection on both sides for longer.
    #[serde(serialize_with = "optional_milliseconds", skip_serializing_if = "is_default")]
    pub timeout: Option<Duration>,
    /// How long neither side may send a byte during an exchange. Default 5 min. Raising it keeps
    /// stalled exchanges.
    #[serde(serialize_with = "milliseconds", skip_serializing_if = "is_default_stream_idle")]
    pub idle_timeout: Duration,
    /// Bytes of a request body, as a number or with a unit (`64KiB`, `10MiB`, `1GiB`). A larger one
    /// is answered 413. Default: unlimited. Bodies are streamed, so raising it costs no memory
    /// here.
    #[serde(skip_serializing_if = "is_default")]
    pub max_request_body: Option<u64>,
}

/// Default of [`RuleConfig::idle_timeout`].
pub const STREAM_IDLE: Duration = Duration::from_secs(300);

/// Default of [`ClusterConfig::idle_timeout`] and of [`ListenerConfig::idle_timeout`] for `tcp` and
/// `tls-passthrough`.
pub const TUNNEL_IDLE: Duration = Duration::from_secs(3600);

fn is_default_stream_idle(value: &Duration) -> bool {
    *value == STREAM_IDLE
}

impl Default for RuleConfig {
    fn default() -> RuleConfig {
        RuleConfig {
            line: 0,
            matches: Vec::new(),
            backends: Vec::new(),
            rewrite: None,
            redirect: None,
            respond: None,
            request_headers: None,
            response_headers: None,
            timeout: None,
            idle_timeout: STREAM_IDLE,
            max_request_body: None,
        }
    }
}

/// Conditions that must all hold. 16 bytes if there is one on anything but the path, and 40 + text
/// for each header field and query parameter.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MatchConfig {
    /// Condition on the path. Default: every path.
    #[serde(skip_serializing_if = "is_default")]
    pub path: Option<PathConfig>,
    /// The method, with its case. Default: every method.
    #[serde(skip_serializing_if = "is_default")]
    pub method: Option<String>,
    /// Conditions on header fields, each name at most once. Several fields of one name are joined
    /// by a comma first.
    #[serde(skip_serializing_if = "is_default")]
    pub headers: Vec<ConditionConfig>,
    /// Conditions on query parameters, each name at most once. Of several of one name the first
    /// counts; names and values are compared after percent-decoding (`+` stays a plus sign).
    #[serde(skip_serializing_if = "is_default")]
    pub query: Vec<ConditionConfig>,
    /// The identity that the client has proved: `spiffe://trust-domain/path`, or with `/*` at its
    /// end everything below. A request without one never matches. Default: everybody. 24 bytes +
    /// text for each different one.
    #[serde(skip_serializing_if = "is_default")]
    pub identity: Option<String>,
}

/// A condition on the normalised path: exactly one of the three.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PathConfig {
    /// The whole path.
    Exact(String),
    /// Whole segments from the start: `/foo` holds for `/foo`, `/foo/` and `/foo/x`, not for
    /// `/foobar`.
    Prefix(String),
    /// A regular expression for the whole path, anchored at both ends. Up to 256 KiB compiled, and
    /// as much again for each worker that uses it.
    Regex(String),
}

/// A condition on a header field or query parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConditionConfig {
    /// Name of the header field (any case) or parameter (with its case). Required.
    pub name: String,
    /// What must hold of it.
    #[serde(flatten)]
    pub value: ValueConfig,
}

/// What must hold of the value: exactly one of the three.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueConfig {
    /// The whole value, with its case.
    Exact(String),
    /// A regular expression for the whole value, anchored at both ends. Costs like that of a path.
    Regex(String),
    /// `true`: it is there, whatever its value.
    Present(bool),
}

/// A cluster's part of a rule's requests. 8 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendConfig {
    /// Name of a cluster. Required.
    pub cluster: String,
    /// Share in proportion to the sum of the rule's weights. Default 1; 0 sends nothing. Up to 1
    /// 000 000.
    #[serde(skip_serializing_if = "is_one")]
    pub weight: u32,
}

fn is_one(value: &u32) -> bool {
    *value == 1
}

/// Changes of the request line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RewriteConfig {
    /// New `Host`. Default: unchanged.
    #[serde(skip_serializing_if = "is_default")]
    pub host: Option<String>,
    /// New path; the query stays. Default: unchanged.
    #[serde(skip_serializing_if = "is_default")]
    pub path: Option<ReplaceConfig>,
}

/// A new path: exactly one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplaceConfig {
    /// Replaces the whole path.
    Full(String),
    /// Replaces the prefix that the rule matched (all matches of the rule must have the same),
    /// joined with exactly one slash: `/foo` to `/bar` makes `/foo/x` into `/bar/x`.
    Prefix(String),
}

/// Sends the client elsewhere. The query stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RedirectConfig {
    /// `http` or `https`. Default: that of the request.
    #[serde(skip_serializing_if = "is_default")]
    pub scheme: Option<String>,
    /// New host. Default: that of the request.
    #[serde(skip_serializing_if = "is_default")]
    pub host: Option<String>,
    /// New port. Default: that of the scheme if one is given, otherwise that of the listener. The
    /// default port of the scheme is not written.
    #[serde(skip_serializing_if = "is_default")]
    pub port: Option<u16>,
    /// New path. Default: that of the request.
    #[serde(skip_serializing_if = "is_default")]
    pub path: Option<ReplaceConfig>,
    /// 301, 302, 303, 307 or 308. Default 302.
    pub status: u16,
}

/// Answers directly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RespondConfig {
    /// 200 to 599. Default 200.
    pub status: u16,
    /// Body, up to 4 KiB. Default: empty.
    #[serde(skip_serializing_if = "is_default")]
    pub body: String,
    /// `Content-Type` of the body. Default `text/plain; charset=utf-8`; not written when the body
    /// is empty.
    #[serde(skip_serializing_if = "is_default")]
    pub content_type: Option<String>,
    /// Further header fields, name and value.
    #[serde(skip_serializing_if = "is_default")]
    pub headers: BTreeMap<String, String>,
}

/// Changes of header fields, in this order. Names in any case; those that frame the message or
/// belong to one connection (`Content-Length`, `Transfer-Encoding`, `Connection` ...) and `Host`
/// are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HeaderEditsConfig {
    /// Names whose fields are all removed.
    #[serde(skip_serializing_if = "is_default")]
    pub remove: Vec<String>,
    /// Fields that replace all of their name.
    #[serde(skip_serializing_if = "is_default")]
    pub set: BTreeMap<String, String>,
    /// Fields added beside those of their name.
    #[serde(skip_serializing_if = "is_default")]
    pub add: BTreeMap<String, String>,
}

/// How a cluster chooses among its endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The less loaded of two drawn by weight; load is counted by all workers together.
    #[default]
    LeastRequest,
    /// In turn, by weight; each worker has its own turn.
    RoundRobin,
}

/// Version of a PROXY protocol header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocolVersion {
    /// Text, one line.
    V1,
    /// Binary.
    V2,
}

/// Where a cluster has its endpoints from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Discovery {
    /// From the file.
    #[default]
    File,
    /// From the pusher, as they come and go.
    Pushed,
}

/// A set of endpoints that serve the same. About 230 bytes + text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterConfig {
    /// Name, unique among the clusters. Required.
    pub name: String,
    /// Its members. At most [`ENDPOINTS_MAX`](crate::limits::ENDPOINTS_MAX).
    pub endpoints: Vec<EndpointConfig>,
    /// `file` or `pushed`: where its endpoints come from. Default `file`. `pushed` is written by
    /// the pusher; there are none until it says so, and `endpoints` are refused.
    #[serde(skip_serializing_if = "is_default")]
    pub discovery: Discovery,
    /// `least_request` or `round_robin`. Default `least_request`.
    #[serde(skip_serializing_if = "is_default")]
    pub balance: Balance,
    /// From the first packet to an established connection. Default 1 s. Raising it delays the
    /// answer when an endpoint is gone.
    #[serde(serialize_with = "milliseconds")]
    pub connect_timeout: Duration,
    /// How long a tunnel to it may be silent in both directions. Default 1 h; the shorter of this
    /// and the listener's holds. Raising it keeps more idle tunnels.
    #[serde(serialize_with = "milliseconds")]
    pub idle_timeout: Duration,
    /// Connections kept for the next request.
    #[serde(skip_serializing_if = "is_default")]
    pub pool: PoolConfig,
    /// `http1` or `http2`: what is spoken with its endpoints. Default `http1`. With `http2` a
    /// worker keeps as few connections to an endpoint as its concurrent requests need.
    #[serde(skip_serializing_if = "is_default")]
    pub protocol: ClusterProtocol,
    /// Limits of HTTP/2 connections. Only for `protocol: http2`.
    #[serde(skip_serializing_if = "is_default")]
    pub http2: Http2Config,
    /// Opens every connection with a PROXY protocol header of this version, `v1` or `v2`. Default:
    /// none. Connections are then not shared between clients.
    #[serde(skip_serializing_if = "is_default")]
    pub send_proxy_protocol: Option<ProxyProtocolVersion>,
    /// Whom the endpoints must prove to be one of: `spiffe://trust-domain/path`, one or a list.
    /// Connections are then mutual TLS with our own identity, which the file must have. Default: no
    /// TLS, or that of `tls`. At most [`IDENTITIES_MAX`](crate::limits::IDENTITIES_MAX).
    #[serde(skip_serializing_if = "is_default")]
    pub identity: Vec<String>,
    /// How TLS is spoken; without `identity` to a service outside the mesh, whose name is checked.
    /// Default: it is not, unless `identity` says so. About 8 KiB for each connection.
    #[serde(skip_serializing_if = "is_default")]
    pub tls: Option<Box<ClusterTlsConfig>>,
}

impl Default for ClusterConfig {
    fn default() -> ClusterConfig {
        ClusterConfig {
            name: String::new(),
            endpoints: Vec::new(),
            discovery: Discovery::File,
            balance: Balance::default(),
            connect_timeout: Duration::from_secs(1),
            idle_timeout: TUNNEL_IDLE,
            pool: PoolConfig::default(),
            http2: Http2Config::DEFAULT,
            protocol: ClusterProtocol::Http1,
            send_proxy_protocol: None,
            identity: Vec::new(),
            tls: None,
        }
    }
}

/// Idle connections to a cluster's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PoolConfig {
    /// How long an idle connection is kept. Default 3 s; keep it below what the application itself
    /// allows, or requests meet closing connections. Raising it saves connects.
    #[serde(serialize_with = "milliseconds")]
    pub idle_timeout: Duration,
    /// Idle connections for each endpoint and worker. Default 1024; 0 turns reuse off. About 1 KiB
    /// each.
    pub idle_max: u32,
}

impl Default for PoolConfig {
    fn default() -> PoolConfig {
        PoolConfig { idle_timeout: Duration::from_secs(3), idle_max: 1024 }
    }
}

/// A member of a cluster, by address or name. 24 bytes + text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointConfig {
    /// `ip:port` or `name:port`. Required. A name is resolved when the file is loaded and every 30
    /// s; every address of it is an endpoint.
    pub address: String,
    /// Share of the cluster's requests in proportion to the others. Default 1; 0 sends nothing.
    #[serde(skip_serializing_if = "is_one")]
    pub weight: u32,
}

#[cfg(test)]
mod tests;
