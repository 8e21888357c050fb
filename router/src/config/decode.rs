//! A tree of nodes as a configuration.
//!
//! Everything is read once; what cannot be read is reported with its place and left at its default,
//! so that one pass finds every problem. Unknown fields, known but unsupported ones and repeated
//! keys are problems, too.
//!
//! # Not here
//! What values mean together: `check`.

use super::control;
use super::http2;
use super::rules::rule;
use super::scalars::{self, Fault};
use super::schema::{self, Schema};
use super::tls_decode::{self, MTLS};
use super::{
    Balance, ClusterConfig, ClusterProtocol, Config, Discovery, DrainConfig, EndpointConfig,
    ListenerConfig, PoolConfig, Protocol, ProxyProtocolVersion, RouteConfig,
};
use crate::limits::{
    CLUSTERS_MAX, ENDPOINTS_MAX, HOSTS_MAX, LISTENERS_MAX, ROUTES_MAX, RULES_MAX, SNI_ROUTES_MAX,
    TRUSTED_PROXIES_MAX, WEIGHT_MAX,
};
use crate::problem::{Problem, Sink};
use crate::source::{Kind, Node, Tree};

/// Reads a configuration from a tree; problems go to `sink`.
pub(crate) fn config(tree: &Tree<'_>, sink: &mut Sink) -> Config {
    let mut config = Config::default();
    let mut reader = Reader { sink, path: Vec::new() };
    let Some(root) = tree.root().filter(|root| !root.is_null()) else {
        return config;
    };
    reader.object(root, &schema::CONFIG, |r, name, node| match name {
        "identity" => config.identity = Some(tls_decode::identity(r, node)),
        "admin" => config.admin = r.scalar(node, scalars::socket_address),
        "drain" => config.drain = drain(r, node),
        "control" => config.control = Some(control::decode(r, node)),
        "listeners" => config.listeners = r.list(node, LISTENERS_MAX, listener),
        "routes" => config.routes = r.list(node, ROUTES_MAX, route),
        _ => config.clusters = r.list(node, CLUSTERS_MAX, cluster),
    });
    config
}

/// A step on the way to a node.
#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
}

/// Reads nodes, knowing where it is. What cannot be read is a problem and gives nothing.
#[derive(Debug)]
pub struct Reader<'a, 's> {
    sink: &'s mut Sink,
    path: Vec<Step<'a>>,
}

impl<'a, 's> Reader<'a, 's> {
    /// A reader of one element of a list of the file.
    pub(crate) fn of_element(sink: &'s mut Sink, list: &'a str, index: usize) -> Self {
        Reader { sink, path: vec![Step::Field(list), Step::Index(index)] }
    }
}

impl<'a> Reader<'a, '_> {
    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) if path.is_empty() => path.push_str(name),
                Step::Field(name) => {
                    path.push('.');
                    path.push_str(name);
                }
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }

    /// Reports a problem with the node that is being read.
    pub fn problem(&mut self, node: Node<'a>, message: String, hint: Option<String>) {
        let mut problem = Problem::error(self.path(), message).at(node.position());
        problem.hint = hint;
        self.sink.push(problem);
    }

    fn expected(&mut self, node: Node<'a>, wanted: &str) {
        let found = match node.kind() {
            _ if node.is_null() => "nothing",
            Kind::Sequence => "a list",
            Kind::Mapping => "an object",
            Kind::Plain | Kind::Quoted => "a single value",
        };
        self.problem(node, format!("expected {wanted}, found {found}"), None);
    }

    /// Reads an object: calls `field` for every known field that is there and not null, once.
    pub fn object(
        &mut self,
        node: Node<'a>,
        schema: &Schema,
        mut field: impl FnMut(&mut Self, &str, Node<'a>),
    ) {
        if node.kind() != Kind::Mapping {
            self.expected(node, &format!("{} with fields", schema.what));
            return;
        }
        let mut seen = 0_u64;
        for (key, value) in node.pairs() {
            let name = key.text();
            self.path.push(Step::Field(name));
            match schema.fields.iter().position(|known| *known == name) {
                None => self.unknown(key, schema),
                Some(nth) if seen & (1 << nth) != 0 => {
                    self.problem(key, format!("`{name}` is here twice"), None);
                }
                Some(nth) => {
                    seen |= 1 << nth;
                    if !value.is_null() {
                        field(self, name, value);
                    } else if schema::NEVER_EMPTY.contains(&name) {
                        let hint = "give it a value (`{}` for all defaults), or leave it out";
                        let message = format!("`{name}` is here with nothing behind it");
                        self.problem(key, message, Some(hint.to_owned()));
                    }
                }
            }
            self.path.pop();
        }
    }

    fn unknown(&mut self, key: Node<'a>, schema: &Schema) {
        let name = key.text();
        if schema.unsupported.contains(&name) {
            self.problem(key, format!("`{name}` is not supported by this version"), None);
            return;
        }
        let shown: String = name.chars().take(64).collect();
        let hint = match schema.nearest(name) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("{} has {}", schema.what, schema.fields.join(", ")),
        };
        self.problem(key, format!("unknown field `{shown}`"), Some(hint));
    }

    /// Reads a list, each element with `element`.
    pub fn list<T>(
        &mut self,
        node: Node<'a>,
        max: usize,
        mut element: impl FnMut(&mut Self, Node<'a>) -> Option<T>,
    ) -> Vec<T> {
        if node.kind() != Kind::Sequence {
            self.expected(node, "a list");
            return Vec::new();
        }
        // As long as it will be: most lists have one element, and growing makes room for four.
        let mut list = Vec::with_capacity(node.children().count().min(max));
        for (index, child) in node.children().enumerate() {
            if index == max {
                self.problem(child, format!("more than the {max} allowed"), None);
                break;
            }
            self.path.push(Step::Index(index));
            if let Some(value) = element(self, child) {
                list.push(value);
            }
            self.path.pop();
        }
        list
    }

    /// Reads names and texts; a repeated name is a problem.
    pub fn map(
        &mut self,
        node: Node<'a>,
        max: usize,
    ) -> std::collections::BTreeMap<String, String> {
        let mut map = std::collections::BTreeMap::new();
        if node.kind() != Kind::Mapping {
            self.expected(node, "names with values");
            return map;
        }
        for (key, value) in node.pairs() {
            self.path.push(Step::Field(key.text()));
            if map.len() == max {
                self.problem(key, format!("more than the {max} allowed"), None);
                self.path.pop();
                break;
            }
            if let Some(text) = self.text(value)
                && map.insert(key.text().to_owned(), text).is_some()
            {
                self.problem(key, format!("`{}` is here twice", key.text()), None);
            }
            self.path.pop();
        }
        map
    }

    /// Reads a text.
    pub fn text(&mut self, node: Node<'a>) -> Option<String> {
        if node.is_null() || !matches!(node.kind(), Kind::Plain | Kind::Quoted) {
            self.expected(node, "a text");
            return None;
        }
        Some(node.text().to_owned())
    }

    /// Reads a scalar by its text; `read` says what is wrong with it, and perhaps a hint.
    pub fn scalar<T>(
        &mut self,
        node: Node<'a>,
        read: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        if node.is_null() || !matches!(node.kind(), Kind::Plain | Kind::Quoted) {
            self.expected(node, "a single value");
            return None;
        }
        match read(node.text()) {
            Ok(value) => Some(value),
            Err((message, hint)) => {
                self.problem(node, message, hint);
                None
            }
        }
    }

    /// Reads a number from 0 to `max`.
    pub fn number(&mut self, node: Node<'a>, max: u32) -> Option<u32> {
        if node.kind() == Kind::Quoted {
            let hint = Some("leave out the quotes".to_owned());
            self.problem(node, "expected a number, found a text".to_owned(), hint);
            return None;
        }
        let value = self.scalar(node, |text| scalars::number(text, u64::from(max)))?;
        u32::try_from(value).ok()
    }

    /// Reads a truth value.
    pub fn truth(&mut self, node: Node<'a>) -> Option<bool> {
        match (node.kind(), node.text()) {
            (Kind::Plain, "true" | "True" | "TRUE") => Some(true),
            (Kind::Plain, "false" | "False" | "FALSE") => Some(false),
            _ => {
                self.expected(node, "true or false");
                None
            }
        }
    }

    /// Reads a duration that is not zero.
    pub fn timeout(&mut self, node: Node<'a>) -> Option<std::time::Duration> {
        let value = self.scalar(node, scalars::duration)?;
        if value.is_zero() {
            self.problem(node, "must be longer than 0".to_owned(), None);
            return None;
        }
        Some(value)
    }

    /// Reads one of `choices`; those in `unsupported` are refused by name.
    pub fn choice<T: Copy>(
        &mut self,
        node: Node<'a>,
        choices: &[(&'static str, T)],
        unsupported: &[&str],
    ) -> Option<T> {
        let text = self.text(node)?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*value);
        }
        if unsupported.contains(&text.as_str()) {
            self.problem(node, format!("`{text}` is not supported by this version"), None);
            return None;
        }
        let names: Vec<&'static str> = choices.iter().map(|(name, _)| *name).collect();
        let hint = match schema::nearest(&text, &names) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("one of {}", names.join(", ")),
        };
        self.problem(node, format!("`{text}` is not known here"), Some(hint));
        None
    }
}

/// Sets a field if its value could be read.
pub(crate) fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn drain<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> DrainConfig {
    let mut drain = DrainConfig::default();
    r.object(node, &schema::DRAIN, |r, name, node| match name {
        "delay" => set(&mut drain.delay, r.scalar(node, scalars::duration)),
        _ => set(&mut drain.timeout, r.scalar(node, scalars::duration)),
    });
    drain
}

const PROTOCOLS: &[(&str, Protocol)] = &[
    ("http1", Protocol::Http1),
    ("http2", Protocol::Http2),
    ("tcp", Protocol::Tcp),
    ("tls-passthrough", Protocol::TlsPassthrough),
    ("auto", Protocol::Auto),
];
const CLUSTER_PROTOCOLS: &[(&str, ClusterProtocol)] =
    &[("http1", ClusterProtocol::Http1), ("http2", ClusterProtocol::Http2)];
const PROTOCOLS_LATER: &[&str] = &["h2", "h2c", "tls", "https", "grpc"];

fn listener<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<ListenerConfig> {
    let mut listener = ListenerConfig::default();
    r.object(node, &schema::LISTENER, |r, name, node| match name {
        "name" => set(&mut listener.name, r.text(node)),
        "address" => listener.address = r.scalar(node, scalars::socket_address),
        "protocol" => {
            set(&mut listener.protocol, r.choice(node, PROTOCOLS, PROTOCOLS_LATER));
        }
        "cluster" => listener.cluster = r.text(node),
        "sni" => listener.sni = r.list(node, SNI_ROUTES_MAX, tls_decode::sni),
        "mtls" => set(&mut listener.mtls, r.choice(node, MTLS, &[])),
        "tls" => listener.tls = Some(Box::new(tls_decode::listener_tls(r, node))),
        "accept_proxy_protocol" => set(&mut listener.accept_proxy_protocol, r.truth(node)),
        "trusted_proxies" => {
            listener.trusted_proxies =
                r.list(node, TRUSTED_PROXIES_MAX, |r, node| r.scalar(node, scalars::network));
        }
        "head_timeout" => listener.head_timeout = r.timeout(node),
        "idle_timeout" => listener.idle_timeout = r.timeout(node),
        "max_connections" => listener.max_connections = r.number(node, u32::MAX),
        "max_connection_age" => listener.max_connection_age = r.timeout(node),
        _ => listener.http2 = http2::decode(r, node),
    });
    Some(listener)
}

fn route<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<RouteConfig> {
    let mut route = RouteConfig::default();
    r.object(node, &schema::ROUTE, |r, name, node| match name {
        "name" => set(&mut route.name, r.text(node)),
        "listeners" => route.listeners = r.list(node, LISTENERS_MAX, Reader::text),
        "hosts" => route.hosts = r.list(node, HOSTS_MAX, Reader::text),
        _ => route.rules = r.list(node, RULES_MAX, rule),
    });
    Some(route)
}

const DISCOVERIES: &[(&str, Discovery)] =
    &[("file", Discovery::File), ("pushed", Discovery::Pushed)];
const BALANCES: &[(&str, Balance)] =
    &[("least_request", Balance::LeastRequest), ("round_robin", Balance::RoundRobin)];
const BALANCES_LATER: &[&str] =
    &["ewma", "peak_ewma", "p2c", "maglev", "ring_hash", "random", "weighted", "consistent_hash"];
const PROXY_PROTOCOLS: &[(&str, ProxyProtocolVersion)] =
    &[("v1", ProxyProtocolVersion::V1), ("v2", ProxyProtocolVersion::V2)];

fn cluster<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<ClusterConfig> {
    let mut cluster = ClusterConfig::default();
    r.object(node, &schema::CLUSTER, |r, name, node| cluster_field(r, name, node, &mut cluster));
    Some(cluster)
}

/// Reads the field `name` of a cluster, which is one of its schema.
pub(crate) fn cluster_field<'a>(
    r: &mut Reader<'a, '_>,
    name: &str,
    node: Node<'a>,
    cluster: &mut ClusterConfig,
) {
    match name {
        "name" => set(&mut cluster.name, r.text(node)),
        "endpoints" => cluster.endpoints = r.list(node, ENDPOINTS_MAX, endpoint),
        "discovery" => set(&mut cluster.discovery, r.choice(node, DISCOVERIES, &[])),
        "balance" => set(&mut cluster.balance, r.choice(node, BALANCES, BALANCES_LATER)),
        "connect_timeout" => set(&mut cluster.connect_timeout, r.timeout(node)),
        "idle_timeout" => set(&mut cluster.idle_timeout, r.timeout(node)),
        "pool" => cluster.pool = pool(r, node),
        "protocol" => {
            set(&mut cluster.protocol, r.choice(node, CLUSTER_PROTOCOLS, &["grpc", "h2"]));
        }
        "http2" => cluster.http2 = http2::decode(r, node),
        "send_proxy_protocol" => {
            cluster.send_proxy_protocol = r.choice(node, PROXY_PROTOCOLS, &[]);
        }
        "identity" => cluster.identity = tls_decode::identities(r, node),
        _ => cluster.tls = Some(Box::new(tls_decode::cluster_tls(r, node))),
    }
}

fn pool<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> PoolConfig {
    let mut pool = PoolConfig::default();
    r.object(node, &schema::POOL, |r, name, node| match name {
        "idle_timeout" => set(&mut pool.idle_timeout, r.timeout(node)),
        _ => set(&mut pool.idle_max, r.number(node, u32::MAX)),
    });
    pool
}

pub(crate) fn endpoint<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<EndpointConfig> {
    let mut endpoint = EndpointConfig { address: String::new(), weight: 1 };
    r.object(node, &schema::ENDPOINT, |r, name, node| match name {
        "address" => set(&mut endpoint.address, r.text(node)),
        _ => set(&mut endpoint.weight, r.number(node, WEIGHT_MAX)),
    });
    Some(endpoint)
}
