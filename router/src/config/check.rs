//! What is wrong with a configuration as a whole: names that lead nowhere, values outside their
//! range.
//!
//! # Invariants
//! - Every problem is reported, with its path; nothing is changed.
//! - `Table::compile` relies on what is checked here and on nothing else.
//!
//! # Not here
//! Types and units (`decode`), rules (`rules_check`), TLS (`tls_check`), what is merely suspicious
//! (`warnings`).

use std::collections::{HashMap, HashSet};
use std::fmt;

use foldhash::fast::FixedState;

use super::control;
use super::http2;
use super::names;
use super::rules_check;
use super::tls_check;
use super::{
    ClusterConfig, ClusterProtocol, Config, Discovery, ListenerConfig, Protocol, RouteConfig,
};
use crate::host;
use crate::limits::{
    CANDIDATES_MAX, CLUSTERS_MAX, DURATION_MAX, ENDPOINTS_MAX, HOSTS_MAX, LISTENERS_MAX,
    REGEX_BYTES_MAX, REGEX_CACHE_BYTES_MAX, REGEX_COMPILED_BYTES_MAX, REGEXES_MAX, ROUTES_MAX,
    RULES_MAX, TRUSTED_PROXIES_MAX, WEIGHT_MAX,
};
use crate::problem::{Problem, Sink};

/// A path into the configuration, written only when a problem needs it.
#[derive(Clone, Copy)]
pub(super) struct At<'p> {
    outer: Option<&'p At<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Field(&'p str),
    Item(&'p str, usize),
}

impl<'p> At<'p> {
    pub(super) fn item(list: &'p str, index: usize) -> At<'p> {
        At { outer: None, step: Step::Item(list, index) }
    }

    pub(super) fn root(name: &'p str) -> At<'p> {
        At { outer: None, step: Step::Field(name) }
    }

    pub(super) fn field(&'p self, name: &'p str) -> At<'p> {
        At { outer: Some(self), step: Step::Field(name) }
    }

    pub(super) fn element(&'p self, list: &'p str, index: usize) -> At<'p> {
        At { outer: Some(self), step: Step::Item(list, index) }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(outer) = self.outer {
            write!(f, "{outer}.")?;
        }
        match self.step {
            Step::Field(name) => f.write_str(name),
            Step::Item(list, index) => write!(f, "{list}[{index}]"),
        }
    }
}

/// What the checks of all objects share.
pub(super) struct Checker<'c, 's> {
    pub(super) config: &'c Config,
    sink: &'s mut Sink,
    /// Names of clusters and listeners with their places.
    clusters: HashMap<&'c str, usize, FixedState>,
    listeners: HashMap<&'c str, usize, FixedState>,
    /// Regular expressions seen, and whether they compile.
    regexes: HashMap<&'c str, bool, FixedState>,
    pub(super) methods: HashSet<&'c str, FixedState>,
    candidates: usize,
}

/// Checks everything; problems go to `sink`.
pub(crate) fn config(config: &Config, sink: &mut Sink) {
    let clusters = config.clusters.iter().enumerate().map(|(n, c)| (c.name.as_str(), n));
    let listeners = config.listeners.iter().enumerate().map(|(n, l)| (l.name.as_str(), n));
    let mut checker = Checker {
        config,
        clusters: clusters.collect(),
        listeners: listeners.collect(),
        regexes: HashMap::default(),
        methods: HashSet::default(),
        candidates: 0,
        sink,
    };
    checker.counts();
    checker.drain();
    control::check(&mut checker);
    tls_check::identity(&mut checker);
    checker.listeners();
    checker.routes();
    checker.clusters();
}

/// Compiles a regular expression, anchored at both ends, within the limits.
pub(crate) fn regex(pattern: &str) -> Result<regex::bytes::Regex, String> {
    if pattern.len() > REGEX_BYTES_MAX {
        return Err(format!("a regular expression has at most {REGEX_BYTES_MAX} bytes"));
    }
    // Parsed alone first: `a)(b` must not become valid inside the group that anchors it.
    let build = |text: &str| {
        regex::bytes::RegexBuilder::new(text)
            .size_limit(REGEX_COMPILED_BYTES_MAX)
            .dfa_size_limit(REGEX_CACHE_BYTES_MAX)
            .nest_limit(64)
            .build()
    };
    let explain = |error: regex::Error| match error {
        regex::Error::CompiledTooBig(_) => {
            format!("needs more than the {REGEX_COMPILED_BYTES_MAX} bytes allowed")
        }
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!("not a regular expression: {}", last.trim_start_matches("error: "))
        }
    };
    build(pattern).map_err(explain)?;
    // A pattern in verbose mode may end in a comment, which the line feed ends.
    build(&format!("^(?:{pattern})$"))
        .or_else(|_| build(&format!("^(?:{pattern}\n)$")))
        .map_err(explain)
}

impl<'c> Checker<'c, '_> {
    /// Reports a problem at `at`, unless that place was refused already.
    pub(super) fn refuse(&mut self, at: &At<'_>, message: impl Into<String>) {
        self.push(at, message.into(), None);
    }

    /// Reports a problem with advice.
    pub(super) fn refuse_with(&mut self, at: &At<'_>, message: String, hint: String) {
        self.push(at, message, Some(hint));
    }

    fn push(&mut self, at: &At<'_>, message: String, hint: Option<String>) {
        let path = at.to_string();
        // What is wrong with a value that could not be read says nothing new.
        if !self.sink.refused_at(&path) {
            let mut problem = Problem::error(path, message);
            problem.hint = hint;
            self.sink.push(problem);
        }
    }

    /// Reports what `result` says is wrong.
    pub(super) fn check(&mut self, at: &At<'_>, result: Result<(), String>) {
        if let Err(message) = result {
            self.refuse(at, message);
        }
    }

    /// Whether something inside `at` was refused.
    pub(super) fn is_refused(&self, at: &At<'_>) -> bool {
        !self.sink.is_clean() && self.sink.refused(&at.to_string())
    }

    /// Whether exactly `at` was refused.
    pub(super) fn is_refused_at(&self, at: &At<'_>) -> bool {
        !self.sink.is_clean() && self.sink.refused_at(&at.to_string())
    }

    /// Reports a name that no cluster has.
    pub(super) fn cluster_exists(&mut self, at: &At<'_>, name: &str) {
        if name.is_empty() {
            self.refuse(at, "a cluster is required");
        } else if !self.clusters.contains_key(name) {
            let known = self.config.clusters.iter().map(|cluster| cluster.name.as_str());
            let hint = similar(name, known);
            self.push(at, format!("there is no cluster `{name}`"), hint);
        }
    }

    /// Reports a regular expression that does not compile.
    pub(super) fn regex(&mut self, at: &At<'_>, pattern: &'c str) {
        if self.regexes.get(pattern) == Some(&true) {
            return;
        }
        if self.regexes.len() == REGEXES_MAX {
            let message = format!("more than the {REGEXES_MAX} regular expressions allowed");
            self.refuse(at, message);
            return;
        }
        let compiled = regex(pattern);
        self.regexes.insert(pattern, compiled.is_ok());
        self.check(at, compiled.map(drop));
    }

    fn counts(&mut self) {
        let config = self.config;
        self.at_most(&At::root("listeners"), config.listeners.len(), LISTENERS_MAX);
        self.at_most(&At::root("routes"), config.routes.len(), ROUTES_MAX);
        self.at_most(&At::root("clusters"), config.clusters.len(), CLUSTERS_MAX);
        if config.listeners.is_empty() && config.control.is_none() {
            self.refuse(&At::root("listeners"), "at least one listener is required");
        }
    }

    /// Reports a list that is too long.
    pub(super) fn at_most(&mut self, at: &At<'_>, len: usize, max: usize) {
        if len > max {
            self.refuse(at, format!("{len} are more than the {max} allowed"));
        }
    }

    /// Reports a duration outside the range that tables keep.
    pub(super) fn duration(&mut self, at: &At<'_>, value: std::time::Duration) {
        if value.as_millis() == 0 {
            self.refuse(at, "must be longer than 0");
        } else if value > DURATION_MAX {
            self.refuse(at, "must be at most 7 days");
        }
    }

    fn drain(&mut self) {
        let drain = self.config.drain;
        let at = At::root("drain");
        if drain.timeout > DURATION_MAX {
            self.refuse(&at.field("timeout"), "must be at most 7 days");
        }
        if drain.delay > drain.timeout {
            self.refuse(&at.field("delay"), "must not be longer than `timeout`, which includes it");
        }
    }

    fn listeners(&mut self) {
        let (mut names, mut addresses) = (HashMap::default(), HashMap::new());
        for (index, listener) in self.config.listeners.iter().enumerate() {
            let at = At::item("listeners", index);
            self.name(&at, &listener.name, index, &mut names, "listeners");
            self.listener(&at, listener);
            let Some(address) = listener.address else { continue };
            if address.port() == 0 {
                continue;
            }
            match addresses.get(&address) {
                Some(first) => {
                    let message = format!("listeners[{first}] has the address {address} already");
                    self.refuse(&at.field("address"), message);
                }
                None => _ = addresses.insert(address, index),
            }
        }
    }

    /// Reports a name that is missing, malformed or taken.
    fn name(
        &mut self,
        at: &At<'_>,
        name: &'c str,
        index: usize,
        taken: &mut HashMap<&'c str, usize, FixedState>,
        list: &str,
    ) {
        let at = at.field("name");
        self.check(&at, names::name(name));
        if name.is_empty() {
            return;
        }
        let first = *taken.entry(name).or_insert(index);
        if first != index {
            self.refuse(&at, format!("{list}[{first}] is called `{name}` already"));
        }
    }

    fn listener(&mut self, at: &At<'_>, listener: &'c ListenerConfig) {
        let field = at.field("address");
        if listener.address.is_none() {
            self.refuse(&field, "an address is required");
        }
        let field = at.field("cluster");
        let protocol_known = !self.is_refused(&at.field("protocol"));
        match (&listener.cluster, listener.protocol) {
            (None, Protocol::Tcp) => self.refuse(&field, "a tcp listener needs a cluster"),
            (Some(_), Protocol::Http1 | Protocol::Http2) if protocol_known => self.refuse_with(
                &field,
                format!("an {} listener has no cluster", listener.protocol.as_str()),
                "requests are routed by `routes`; or set `protocol: tcp`".to_owned(),
            ),
            (Some(name), _) => self.cluster_exists(&field, name),
            (None, _) => {}
        }
        let trusted = listener.trusted_proxies.len();
        self.at_most(&at.field("trusted_proxies"), trusted, TRUSTED_PROXIES_MAX);
        if let Some(timeout) = listener.head_timeout {
            self.duration(&at.field("head_timeout"), timeout);
        }
        if let Some(timeout) = listener.idle_timeout {
            self.duration(&at.field("idle_timeout"), timeout);
        }
        if listener.max_connections == Some(0) {
            self.refuse(&at.field("max_connections"), "0 would accept nobody");
        }
        if protocol_known {
            http2::check(self, at, &listener.http2, listener.protocol.may_speak_http2());
        }
        tls_check::listener(self, at, listener);
    }

    fn routes(&mut self) {
        let mut names =
            HashMap::with_capacity_and_hasher(self.config.routes.len(), FixedState::default());
        for (index, route) in self.config.routes.iter().enumerate() {
            let at = At::item("routes", index);
            self.name(&at, &route.name, index, &mut names, "routes");
            self.route(&at, route);
            for (nth, rule) in route.rules.iter().enumerate() {
                rules_check::rule(self, &at.element("rules", nth), rule);
            }
        }
    }

    fn route(&mut self, at: &At<'_>, route: &'c RouteConfig) {
        for (nth, name) in route.listeners.iter().enumerate() {
            let at = at.element("listeners", nth);
            match self.listeners.get(name.as_str()) {
                None => {
                    let known = self.config.listeners.iter().map(|l| l.name.as_str());
                    let hint = similar(name, known);
                    self.push(&at, format!("there is no listener `{name}`"), hint);
                }
                Some(index) => match self.config.listeners[*index].protocol {
                    Protocol::Http1 | Protocol::Http2 | Protocol::Auto => {}
                    protocol @ (Protocol::Tcp | Protocol::TlsPassthrough) => {
                        let protocol = protocol.as_str();
                        let message =
                            format!("the listener `{name}` is {protocol} and has no routes");
                        self.refuse(&at, message);
                    }
                },
            }
        }
        self.at_most(&at.field("hosts"), route.hosts.len(), HOSTS_MAX);
        for (nth, name) in route.hosts.iter().enumerate() {
            if let Err(message) = host::pattern(name) {
                self.refuse(&at.element("hosts", nth), format!("`{name}`: {message}"));
            }
        }
        let rules = at.field("rules");
        if route.rules.is_empty() {
            self.refuse(&rules, "at least one rule is required");
        }
        self.at_most(&rules, route.rules.len(), RULES_MAX);
        let matches: usize = route.rules.iter().map(|rule| rule.matches.len().max(1)).sum();
        let before = self.candidates;
        self.candidates = before.saturating_add(matches * route.hosts.len().max(1));
        if before <= CANDIDATES_MAX && self.candidates > CANDIDATES_MAX {
            let message = "hosts times matches, over all routes, are more than the";
            self.refuse(at, format!("{message} {CANDIDATES_MAX} allowed"));
        }
    }

    fn clusters(&mut self) {
        let mut names =
            HashMap::with_capacity_and_hasher(self.config.clusters.len(), FixedState::default());
        for (index, cluster) in self.config.clusters.iter().enumerate() {
            let at = At::item("clusters", index);
            self.name(&at, &cluster.name, index, &mut names, "clusters");
            self.cluster(&at, cluster);
        }
    }

    fn cluster(&mut self, at: &At<'_>, cluster: &'c ClusterConfig) {
        self.duration(&at.field("connect_timeout"), cluster.connect_timeout);
        self.duration(&at.field("idle_timeout"), cluster.idle_timeout);
        self.duration(&at.field("pool").field("idle_timeout"), cluster.pool.idle_timeout);
        self.at_most(&at.field("endpoints"), cluster.endpoints.len(), ENDPOINTS_MAX);
        if cluster.discovery == Discovery::Pushed && !cluster.endpoints.is_empty() {
            let message =
                "the endpoints of a cluster with `discovery: pushed` come from the pusher";
            self.refuse(&at.field("endpoints"), message);
        }
        let mut seen: HashMap<&str, usize, FixedState> = HashMap::default();
        for (nth, endpoint) in cluster.endpoints.iter().enumerate() {
            let at = at.element("endpoints", nth);
            let field = at.field("address");
            self.check(&field, endpoint_address(&endpoint.address));
            if let Some(first) = seen.insert(&endpoint.address, nth) {
                let message = format!("endpoints[{first}] has the address already");
                self.refuse_with(&field, message, "give one of them more weight".to_owned());
            }
            if endpoint.weight > WEIGHT_MAX {
                self.refuse(&at.field("weight"), format!("must be at most {WEIGHT_MAX}"));
            }
        }
        if cluster.protocol == ClusterProtocol::Http2 && cluster.send_proxy_protocol.is_some() {
            let message = "a connection of HTTP/2 speaks for many clients";
            self.refuse(&at.field("send_proxy_protocol"), message);
        }
        if !self.is_refused(&at.field("protocol")) {
            http2::check(self, at, &cluster.http2, cluster.protocol == ClusterProtocol::Http2);
        }
        tls_check::cluster(self, at, cluster);
    }
}

/// `ip:port` or `name:port`, with a port that can be connected to.
pub(crate) fn endpoint_address(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("an address is required".to_owned());
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return match address.port() {
            0 => Err("port 0 cannot be connected to".to_owned()),
            _ => Ok(()),
        };
    }
    let Some((name, port)) = text.rsplit_once(':') else {
        return Err(format!("`{text}` has no port: write ip:port or name:port"));
    };
    match port.parse::<u16>() {
        Ok(1..) if !port.starts_with('+') => {}
        _ => return Err(format!("`{port}` is not a port")),
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    host::name_is_valid(name).map_err(|message| format!("`{text}` is no ip:port, and {message}"))
}

/// A hint towards the known name that is nearest to `name`.
fn similar<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<String> {
    let known: Vec<&str> = known.take(1000).collect();
    let nearest = super::schema::nearest(name, &known)?;
    Some(format!("did you mean `{nearest}`?"))
}
