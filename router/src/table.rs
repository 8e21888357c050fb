//! The compiled table: immutable, shared by all workers, asked once for each request.
//!
//! ```text
//! host ──▶ group ──┬─▶ exact path ──┐
//!   exact          ├─▶ prefixes ────┤   candidates in order of precedence:
//!   *.suffix       ├─▶ regexes ─────┼─▶ the first whose conditions hold
//!   *              └─▶ any path ────┘   names the rule
//! ```
//!
//! # Precedence
//! The most specific match wins, whatever route it is in (Gateway API, HTTPRoute):
//!
//! 1. host: exact, then the longest suffix, then any. A host's rules come before those of less
//!    specific hosts, but do not hide them: if none of them matches, the next group is tried.
//! 2. path: exact, then the longest prefix, then regular expressions (the longest as written
//!    first), then any path. The prefix `/` holds for every path, so it is no condition and ranks
//!    with a match that names no path: below regular expressions, which could never be reached
//!    otherwise.
//! 3. a method before none.
//! 4. more header conditions before fewer, then more query conditions before fewer, then a
//!    condition on the client's identity before none.
//! 5. the order in the file.
//!
//! # Invariants
//! - Ids are dense: `0..listeners().len()` and so on; ids of one table mean nothing in another.
//! - [`Table::route`] takes no lock and does not allocate, except to join several fields of one
//!   name for a regular expression; its time depends on the labels of the host, the segments of the
//!   path and the candidates of one bucket, not on the number of routes.

mod actions;
mod compile;
mod conditions;
mod index;
mod slots;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::action::{Action, HeaderEdits, NO_EDITS};
use crate::config::canonical::TableHash;
use crate::config::control::ControlConfig;
use crate::config::http2::Http2Config;
use crate::config::tls::Mtls;
use crate::config::{Balance, ClusterProtocol, Discovery, Protocol, ProxyProtocolVersion};
use crate::host::fold;
pub(crate) use actions::matched_prefix;
pub(crate) use compile::build;
pub use conditions::Field;
pub(crate) use conditions::{Condition, Conditions, Failure, Test, Value};
pub(crate) use index::{Bucket, Candidate, Index, PathClass};
pub use tls::{ClusterTls, IdentityFiles, ListenerTls, PairFiles, RootsFile, SniRoutes};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(pub(crate) u32);

        impl $name {
            /// Its place in the table's list, from 0.
            #[inline]
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id!(
    /// A listener of one table.
    ListenerId
);
id!(
    /// A route of one table.
    RouteId
);
id!(
    /// A rule of one table; numbered over all routes.
    RuleId
);
id!(
    /// A cluster of one table.
    ClusterId
);

/// Where connections are accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Unique name.
    pub name: Box<str>,
    /// Address; port 0 takes a free one.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where connections go: `Some` for [`Protocol::Tcp`], and perhaps for
    /// [`Protocol::TlsPassthrough`] and [`Protocol::Auto`], where it is the last resort of `sni`.
    pub cluster: Option<ClusterId>,
    /// Where connections go by name: for [`Protocol::TlsPassthrough`] and [`Protocol::Auto`].
    pub sni: SniRoutes,
    /// Whether clients are asked who they are.
    pub mtls: Mtls,
    /// How TLS is spoken: `Some` exactly if it is.
    pub tls: Option<ListenerTls>,
    /// Whether connections open with a PROXY protocol header.
    pub accept_proxy_protocol: bool,
    /// Whose forwarding fields are kept.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// From the first byte of a request head to its last.
    pub head_timeout: Duration,
    /// How long a connection may be silent.
    pub idle_timeout: Duration,
    /// Connections at once over all workers.
    pub max_connections: Option<u32>,
    /// After so long the next answer closes the connection.
    pub max_connection_age: Option<Duration>,
    /// Limits of HTTP/2 connections.
    pub http2: Http2Config,
}

impl Listener {
    /// Whether TLS is spoken here, if not by every client ([`Mtls::Permissive`]).
    #[inline]
    pub fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }
}

/// A set of endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Unique name.
    pub name: Box<str>,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// From the first packet to an established connection.
    pub connect_timeout: Duration,
    /// How long a tunnel may be silent.
    pub idle_timeout: Duration,
    /// How long an idle connection is kept.
    pub pool_idle_timeout: Duration,
    /// Idle connections for each endpoint and worker.
    pub pool_idle_max: u32,
    /// Opens connections with a PROXY protocol header.
    pub send_proxy_protocol: Option<ProxyProtocolVersion>,
    /// What is spoken with its endpoints.
    pub protocol: ClusterProtocol,
    /// Limits of HTTP/2 connections.
    pub http2: Http2Config,
    /// How TLS is spoken: `Some` exactly if it is.
    pub tls: Option<ClusterTls>,
    /// Where its members come from.
    pub discovery: Discovery,
    /// Its members as the file names them.
    pub endpoints: Vec<EndpointName>,
}

/// A member of a cluster as the file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointName {
    /// `ip:port` or `name:port`.
    pub address: Box<str>,
    /// The address if it is one; `None` if the name must be resolved.
    pub literal: Option<SocketAddr>,
    /// Share in proportion to the others; 0 is never chosen.
    pub weight: u32,
}

impl EndpointName {
    /// The name of `name:port`, without a dot at its end; `None` if the address is one.
    pub(crate) fn host_name(&self) -> Option<&str> {
        if self.literal.is_some() {
            return None;
        }
        let (name, _) = self.address.rsplit_once(':')?;
        Some(name.strip_suffix('.').unwrap_or(name))
    }
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long connections are still accepted.
    pub delay: Duration,
    /// How long the whole may take.
    pub timeout: Duration,
}

#[derive(Debug)]
struct Route {
    /// Where its name starts in `Table::names`.
    name: u32,
    first_rule: u32,
}

/// What is done with the requests that match.
#[derive(Debug)]
pub struct Rule {
    route: RouteId,
    line: u32,
    timeout_ms: u32,
    idle_timeout_ms: u32,
    /// `u64::MAX` for none.
    max_request_body: u64,
    action: Action,
    request_headers: Option<Arc<HeaderEdits>>,
    response_headers: Option<Arc<HeaderEdits>>,
}

impl Rule {
    /// The route it belongs to.
    #[inline]
    pub fn route(&self) -> RouteId {
        self.route
    }

    /// What is done.
    #[inline]
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// Edits of the request's header fields.
    #[inline]
    pub fn request_headers(&self) -> &HeaderEdits {
        self.request_headers.as_deref().unwrap_or(&NO_EDITS)
    }

    /// Edits of the response's header fields.
    #[inline]
    pub fn response_headers(&self) -> &HeaderEdits {
        self.response_headers.as_deref().unwrap_or(&NO_EDITS)
    }

    /// From the end of the request head to the end of the response.
    #[inline]
    pub fn timeout(&self) -> Option<Duration> {
        let limited = self.timeout_ms > 0;
        limited.then(|| Duration::from_millis(u64::from(self.timeout_ms)))
    }

    /// How long neither side may send a byte.
    #[inline]
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.idle_timeout_ms))
    }

    /// Bytes of a request body; a larger one is answered 413.
    #[inline]
    pub fn max_request_body(&self) -> Option<u64> {
        (self.max_request_body != u64::MAX).then_some(self.max_request_body)
    }

    /// Line of the file; `None` if the configuration did not come from one.
    pub fn line(&self) -> Option<u32> {
        (self.line > 0).then_some(self.line)
    }
}

/// What of a request decides its rule.
#[derive(Clone, Copy, Debug)]
pub struct RequestKey<'a> {
    /// Where it came in.
    pub listener: ListenerId,
    /// Host in any case; a port in it does not count.
    pub host: &'a str,
    /// Normalised path without the query.
    pub path: &'a str,
    /// Query without the question mark.
    pub query: Option<&'a str>,
    /// Method with its case.
    pub method: &'a str,
    /// Header fields in their order.
    pub fields: &'a [Field<'a>],
    /// Who the client has proved to be, `spiffe://trust-domain/path`.
    pub identity: Option<&'a str>,
}

/// A compiled configuration.
pub struct Table {
    hash: TableHash,
    identity: Option<IdentityFiles>,
    admin: Option<SocketAddr>,
    control: Option<Box<ControlConfig>>,
    drain: Drain,
    listeners: Box<[Listener]>,
    clusters: Box<[Cluster]>,
    /// One more than there are routes: each ends where the next begins.
    routes: Box<[Route]>,
    names: Box<str>,
    rules: Box<[Rule]>,
    index: Index,
    conditions: Conditions,
    shared_bytes: usize,
}

impl Table {
    /// BLAKE3 of the canonical form of the configuration: the table's identity.
    pub fn hash(&self) -> &TableHash {
        &self.hash
    }

    /// The files of the process's identity; `None` if it has none.
    pub fn identity(&self) -> Option<&IdentityFiles> {
        self.identity.as_ref()
    }

    /// Address of the admin server.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The pusher that says what is done; `None` if the file does.
    pub fn control(&self) -> Option<&ControlConfig> {
        self.control.as_deref()
    }

    /// The same decisions in the process that `own` describes: its admin address, drain and pusher.
    /// The hash stays: it names the decisions.
    #[must_use]
    pub fn in_process_of(self, own: &Table) -> Table {
        Table { admin: own.admin, control: own.control.clone(), drain: own.drain, ..self }
    }

    /// How the process ends.
    pub fn drain(&self) -> Drain {
        self.drain
    }

    /// All listeners; [`ListenerId`]s index them.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// A listener.
    ///
    /// # Panics
    /// `id` is of another table that has more listeners.
    pub fn listener(&self, id: ListenerId) -> &Listener {
        &self.listeners[id.index()]
    }

    /// Ids of all listeners.
    pub fn listener_ids(&self) -> impl Iterator<Item = ListenerId> + use<> {
        (0..self.listeners.len() as u32).map(ListenerId)
    }

    /// The listener called `name`. Takes time with the number of listeners; not for the request
    /// path.
    pub fn listener_named(&self, name: &str) -> Option<ListenerId> {
        self.listener_ids().find(|id| &*self.listener(*id).name == name)
    }

    /// All clusters; [`ClusterId`]s index them.
    pub fn clusters(&self) -> &[Cluster] {
        &self.clusters
    }

    /// A cluster.
    ///
    /// # Panics
    /// `id` is of another table that has more clusters.
    #[inline]
    pub fn cluster(&self, id: ClusterId) -> &Cluster {
        &self.clusters[id.index()]
    }

    /// Ids of all clusters.
    pub fn cluster_ids(&self) -> impl Iterator<Item = ClusterId> + use<> {
        (0..self.clusters.len() as u32).map(ClusterId)
    }

    /// The cluster called `name`. Takes time with the number of clusters; not for the request path.
    pub fn cluster_named(&self, name: &str) -> Option<ClusterId> {
        self.cluster_ids().find(|id| &*self.cluster(*id).name == name)
    }

    /// Number of routes; [`RouteId`]s are below it.
    pub fn route_count(&self) -> usize {
        self.routes.len() - 1
    }

    /// Ids of all routes.
    pub fn route_ids(&self) -> impl Iterator<Item = RouteId> + use<> {
        (0..self.route_count() as u32).map(RouteId)
    }

    /// Name of a route.
    ///
    /// # Panics
    /// `id` is of another table that has more routes.
    pub fn route_name(&self, id: RouteId) -> &str {
        let start = self.routes[id.index()].name as usize;
        let end = self.routes[id.index() + 1].name as usize;
        &self.names[start..end]
    }

    /// Number of rules of all routes.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// A rule.
    ///
    /// # Panics
    /// `id` is of another table that has more rules.
    #[inline]
    pub fn rule(&self, id: RuleId) -> &Rule {
        &self.rules[id.index()]
    }

    /// Which rule of its route a rule is, from 0.
    pub fn rule_in_route(&self, id: RuleId) -> usize {
        let route = self.rule(id).route();
        id.index() - self.routes[route.index()].first_rule as usize
    }

    /// The rule that answers a request; `None` if no rule matches (404).
    #[inline]
    pub fn route(&self, request: &RequestKey<'_>) -> Option<RuleId> {
        let mut buffer = [0; 256];
        let host = fold(request.host, &mut buffer);
        self.index.find(host, request.path, |bucket| self.first_match(bucket, request))
    }

    #[inline]
    fn first_match(&self, bucket: &Bucket<'_>, request: &RequestKey<'_>) -> Option<RuleId> {
        if let PathClass::Regex(regex) = bucket.path
            && !self.conditions.regex(regex).is_match(request.path.as_bytes())
        {
            return None;
        }
        let serves = |candidate: &&Candidate| {
            self.index.listens(candidate.listeners, request.listener)
                && self.conditions.hold(candidate.condition, request)
        };
        bucket.candidates.iter().find(serves).map(|candidate| candidate.rule)
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// Memory of the table in bytes, counted, without what regular expressions take.
    pub fn bytes(&self) -> usize {
        let of_listener = |l: &Listener| l.name.len() + tls::listener_bytes(l.tls.as_ref(), &l.sni);
        let listeners: usize = self.listeners.iter().map(of_listener).sum();
        let of_cluster = |cluster: &Cluster| {
            let names: usize = cluster.endpoints.iter().map(|e| e.address.len()).sum();
            let tls = cluster.tls.as_ref().map_or(0, ClusterTls::bytes);
            cluster.name.len() + names + tls + size_of_val::<[_]>(&cluster.endpoints)
        };
        size_of::<Table>()
            + self.identity.as_ref().map_or(0, IdentityFiles::bytes)
            + size_of_val::<[_]>(&self.listeners)
            + listeners
            + size_of_val::<[_]>(&self.clusters)
            + self.clusters.iter().map(of_cluster).sum::<usize>()
            + size_of_val::<[_]>(&self.routes)
            + self.names.len()
            + size_of_val::<[_]>(&self.rules)
            + self.shared_bytes
            + self.index.bytes()
            + self.conditions.bytes()
    }

    /// Bytes of the names and host names among [`Table::bytes`].
    pub fn text_bytes(&self) -> usize {
        self.names.len() + self.index.text_bytes()
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("hash", &self.hash.short())
            .field("listeners", &self.listeners.len())
            .field("routes", &self.route_count())
            .field("clusters", &self.clusters.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
