//! From a checked configuration to a table.
//!
//! Each match of each rule becomes one *unit* for each host of its route. Units are sorted once, by
//! bucket and then by precedence; the index keeps the sorted candidates and where each bucket
//! starts.

use std::collections::HashMap;
use std::time::Duration;

use super::actions::Rules;
use super::conditions::{ALWAYS, ANYBODY, Wanted};
use super::index::{EXACT_HOSTS, Group, Host, Path, Range, SUFFIX_HOSTS, path_space};
use super::{
    Candidate, Cluster, ClusterId, Condition, Conditions, Drain, EndpointName, Index, Listener,
    Route, RouteId, RuleId, Table, Test, Value, slots, tls,
};
use crate::config::canonical::TableHash;
use crate::config::check::{self, regex};
use crate::config::{
    ClusterConfig, ConditionConfig, Config, ListenerConfig, MatchConfig, PathConfig, Protocol,
    RouteConfig, STREAM_IDLE, TUNNEL_IDLE, ValueConfig,
};
use crate::host::{Pattern, pattern};
use crate::problem::{Problems, Sink};

impl Table {
    /// Compiles a configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it, without lines: [`load`](fn@crate::load) knows those.
    pub fn compile(config: &Config) -> Result<Table, Problems> {
        let mut sink = Sink::default();
        check::config(config, &mut sink);
        sink.finish()?;
        Ok(build(config))
    }
}

/// Builds the table of a configuration that was checked.
pub(crate) fn build(config: &Config) -> Table {
    let clusters: HashMap<&str, ClusterId, foldhash::fast::FixedState> = config
        .clusters
        .iter()
        .zip(0..)
        .map(|(cluster, number)| (cluster.name.as_str(), ClusterId(number)))
        .collect();
    let listeners = config.listeners.iter().map(|config| listener(config, &clusters)).collect();
    let mut rules = Rules::new(clusters);
    let mut builder = Builder::new(config);
    let mut routes = Vec::with_capacity(config.routes.len() + 1);
    let mut names = String::new();
    let mut all_rules = Vec::with_capacity(config.routes.iter().map(|r| r.rules.len()).sum());
    for (route, id) in config.routes.iter().zip(0..) {
        routes.push(Route { name: names.len() as u32, first_rule: all_rules.len() as u32 });
        names.push_str(&route.name);
        builder.route(route, all_rules.len() as u32);
        all_rules.extend(route.rules.iter().map(|rule| rules.rule(RouteId(id), rule)));
    }
    routes.push(Route { name: names.len() as u32, first_rule: all_rules.len() as u32 });
    let (index, conditions) = builder.finish();
    Table {
        hash: TableHash::of(config),
        identity: config.identity.as_ref().map(tls::identity),
        admin: config.admin,
        control: config.control.clone().map(Box::new),
        drain: Drain { delay: config.drain.delay, timeout: config.drain.timeout },
        listeners,
        clusters: config.clusters.iter().map(cluster).collect(),
        routes: routes.into(),
        names: names.into(),
        shared_bytes: rules.heap_bytes(),
        rules: all_rules.into(),
        index,
        conditions,
    }
}

fn listener(
    config: &ListenerConfig,
    clusters: &HashMap<&str, ClusterId, foldhash::fast::FixedState>,
) -> Listener {
    let idle = match config.protocol {
        Protocol::Http1 | Protocol::Http2 | Protocol::Auto => STREAM_IDLE,
        Protocol::Tcp | Protocol::TlsPassthrough => TUNNEL_IDLE,
    };
    let unset = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    Listener {
        name: config.name.as_str().into(),
        address: config.address.unwrap_or(unset),
        protocol: config.protocol,
        cluster: config.cluster.as_deref().and_then(|name| clusters.get(name).copied()),
        sni: tls::sni(config, clusters),
        mtls: config.mtls,
        tls: tls::listener(config),
        accept_proxy_protocol: config.accept_proxy_protocol,
        trusted_proxies: config.trusted_proxies.clone(),
        head_timeout: config.head_timeout.unwrap_or(Duration::from_secs(10)),
        idle_timeout: config.idle_timeout.unwrap_or(idle),
        max_connections: config.max_connections,
        max_connection_age: config.max_connection_age,
        http2: config.http2,
    }
}

fn cluster(config: &ClusterConfig) -> Cluster {
    let endpoints = config.endpoints.iter().map(|endpoint| EndpointName {
        address: endpoint.address.as_str().into(),
        literal: endpoint.address.parse().ok(),
        weight: endpoint.weight,
    });
    Cluster {
        name: config.name.as_str().into(),
        balance: config.balance,
        connect_timeout: config.connect_timeout,
        idle_timeout: config.idle_timeout,
        pool_idle_timeout: config.pool.idle_timeout,
        pool_idle_max: config.pool.idle_max,
        send_proxy_protocol: config.send_proxy_protocol,
        protocol: config.protocol,
        http2: config.http2,
        tls: tls::cluster(config),
        discovery: config.discovery,
        endpoints: endpoints.collect(),
    }
}

/// The match of a rule that states none.
static EVERY: [MatchConfig; 1] = [MatchConfig {
    path: None,
    method: None,
    headers: Vec::new(),
    query: Vec::new(),
    identity: None,
}];

/// The bucket of a unit; the order is that of the candidates array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// A path by its number.
    Path(u32),
    /// The regular expressions of a host.
    Regex(u32),
    /// Any path of a host.
    Any(u32),
}

/// What precedence says beyond the bucket; smaller is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Length of the regular expression, inverted.
    regex: u16,
    no_method: bool,
    /// Number of conditions, inverted.
    headers: u8,
    queries: u8,
    no_identity: bool,
    order: u32,
}

#[derive(Clone, Copy, Debug)]
struct Unit {
    place: Place,
    rank: Rank,
    regex: u32,
    candidate: Candidate,
}

struct Builder<'c> {
    config: &'c Config,
    index: Index,
    conditions: Conditions,
    units: Vec<Unit>,
    regexes: HashMap<&'c str, u32, foldhash::fast::FixedState>,
    methods: HashMap<&'c str, u16, foldhash::fast::FixedState>,
    identities: HashMap<&'c str, u32, foldhash::fast::FixedState>,
    /// Where in the text a path stands: hosts with the same path share it.
    path_texts: HashMap<&'c str, u32, foldhash::fast::FixedState>,
    listeners: HashMap<&'c str, usize, foldhash::fast::FixedState>,
}

impl<'c> Builder<'c> {
    fn new(config: &'c Config) -> Builder<'c> {
        let listeners = config.listeners.iter().enumerate();
        let mut builder = Builder {
            config,
            index: Index::default(),
            conditions: Conditions::default(),
            units: Vec::with_capacity(config.routes.len()),
            regexes: HashMap::default(),
            methods: HashMap::default(),
            identities: HashMap::default(),
            path_texts: HashMap::default(),
            listeners: listeners.map(|(number, l)| (l.name.as_str(), number)).collect(),
        };
        let any = Host { text: 0, len: 0, suffix: true, group: Group::default() };
        builder.index.hosts.push(any);
        builder.index.listener_sets.push(Box::default());
        builder
    }

    fn route(&mut self, route: &'c RouteConfig, first_rule: u32) {
        let every: &'static [MatchConfig] = &EVERY;
        let listeners = self.listener_set(&route.listeners);
        let mut hosts: Vec<u32> = route.hosts.iter().map(|host| self.host(host)).collect();
        if hosts.is_empty() {
            hosts.push(0);
        }
        hosts.sort_unstable();
        hosts.dedup();
        for (rule, id) in route.rules.iter().zip(first_rule..) {
            let matches = if rule.matches.is_empty() { every } else { &rule.matches[..] };
            for config in matches {
                let condition = self.condition(config);
                let candidate = Candidate { rule: RuleId(id), condition, listeners };
                for host in &hosts {
                    self.unit(*host, config, candidate);
                }
            }
        }
    }

    fn unit(&mut self, host: u32, config: &'c MatchConfig, candidate: Candidate) {
        let mut regex = 0;
        let mut regex_len = 0;
        let place = match &config.path {
            None => Place::Any(host),
            Some(PathConfig::Prefix(prefix)) if prefix == "/" => Place::Any(host),
            Some(PathConfig::Prefix(prefix)) => {
                Place::Path(self.path(host, prefix.strip_suffix('/').unwrap_or(prefix), false))
            }
            Some(PathConfig::Exact(path)) => Place::Path(self.path(host, path, true)),
            Some(PathConfig::Regex(pattern)) => {
                regex = self.regexes.get(pattern.as_str()).copied().unwrap_or_default();
                regex_len = pattern.len() as u16;
                Place::Regex(host)
            }
        };
        let rank = Rank {
            regex: u16::MAX - regex_len,
            no_method: config.method.is_none(),
            headers: u8::MAX - config.headers.len() as u8,
            queries: u8::MAX - config.query.len() as u8,
            no_identity: config.identity.is_none(),
            order: self.units.len() as u32,
        };
        self.units.push(Unit { place, rank, regex, candidate });
    }

    /// The number of a set of listeners; 0 for all.
    fn listener_set(&mut self, names: &[String]) -> u32 {
        if names.is_empty() {
            return 0;
        }
        let mut set = vec![0; self.config.listeners.len().div_ceil(64)].into_boxed_slice();
        for name in names {
            if let Some(number) = self.listeners.get(name.as_str()) {
                set[number / 64] |= 1_u64 << (number % 64);
            }
        }
        let sets = &mut self.index.listener_sets;
        let known = sets.iter().skip(1).position(|other| *other == set);
        known.map_or_else(
            || {
                sets.push(set);
                sets.len() as u32 - 1
            },
            |known| known as u32 + 1,
        )
    }

    /// The number of a host pattern.
    fn host(&mut self, text: &str) -> u32 {
        let (name, suffix) = match pattern(text) {
            Ok(Pattern::Exact(name)) => (name, false),
            Ok(Pattern::Suffix(name)) => (name, true),
            Ok(Pattern::Any) | Err(_) => return 0,
        };
        let index = &mut self.index;
        let start = index.text.len();
        index.text.extend(name.chars().map(|letter| letter.to_ascii_lowercase()));
        let (before, name) = index.text.split_at(start);
        let hash = slots::hash(if suffix { SUFFIX_HOSTS } else { EXACT_HOSTS }, name.as_bytes());
        let known = index.host_slots.find(hash, |number| {
            let host = &index.hosts[number as usize];
            let end = host.text as usize + usize::from(host.len);
            host.suffix == suffix && before[host.text as usize..end] == *name
        });
        if let Some(known) = known {
            index.text.truncate(start);
            return known;
        }
        if suffix {
            index.suffix_labels |= 1 << name.bytes().filter(|byte| *byte == b'.').count();
        }
        let number = index.hosts.len() as u32;
        index.host_slots.insert(hash, number);
        let (text, len) = (start as u32, name.len() as u8);
        index.hosts.push(Host { text, len, suffix, group: Group::default() });
        number
    }

    /// The number of an exact path or prefix of a host.
    fn path(&mut self, host: u32, path: &'c str, exact: bool) -> u32 {
        let index = &mut self.index;
        let hash = slots::hash(path_space(host, exact), path.as_bytes());
        let known = index.path_slots.find(hash, |number| {
            let known = &index.paths[number as usize];
            let end = known.text as usize + usize::from(known.len);
            known.host == host
                && known.exact == exact
                && index.text[known.text as usize..end] == *path
        });
        if let Some(known) = known {
            return known;
        }
        let segments = if exact { 0 } else { path.bytes().filter(|byte| *byte == b'/').count() };
        index.hosts[host as usize].group.paths |= 1 << segments;
        let number = index.paths.len() as u32;
        index.path_slots.insert(hash, number);
        let text = *self.path_texts.entry(path).or_insert_with(|| {
            index.text.push_str(path);
            (index.text.len() - path.len()) as u32
        });
        let len = path.len() as u16;
        index.paths.push(Path { host, text, len, exact, candidates: Range::default() });
        number
    }

    /// The number of the conditions of a match beyond its path.
    fn condition(&mut self, config: &'c MatchConfig) -> u32 {
        if let Some(PathConfig::Regex(pattern)) = &config.path {
            self.regex(pattern);
        }
        let no_test = config.headers.is_empty() && config.query.is_empty();
        if config.method.is_none() && no_test && config.identity.is_none() {
            return ALWAYS;
        }
        let first = self.conditions.tests.len() as u32;
        for header in &config.headers {
            let test = self.test(header, header.name.to_ascii_lowercase());
            self.conditions.tests.push(test);
        }
        for query in &config.query {
            let test = self.test(query, query.name.clone());
            self.conditions.tests.push(test);
        }
        let method = config.method.as_deref().map(|method| self.method(method));
        let (headers, queries) = (config.headers.len() as u8, config.query.len() as u8);
        let identity = config.identity.as_deref().map_or(ANYBODY, |text| self.identity(text));
        self.conditions.conditions.push(Condition { method, headers, queries, first, identity });
        self.conditions.conditions.len() as u32 - 1
    }

    fn method(&mut self, method: &'c str) -> u16 {
        let methods = &mut self.conditions.methods;
        *self.methods.entry(method).or_insert_with(|| {
            methods.push(method.into());
            methods.len() as u16 - 1
        })
    }

    fn identity(&mut self, text: &'c str) -> u32 {
        let identities = &mut self.conditions.identities;
        *self.identities.entry(text).or_insert_with(|| {
            identities.push(Wanted::new(text));
            identities.len() as u32 - 1
        })
    }

    fn test(&mut self, config: &'c ConditionConfig, name: String) -> Test {
        let value = match &config.value {
            ValueConfig::Exact(text) => Value::Exact(text.as_str().into()),
            ValueConfig::Regex(pattern) => Value::Regex(self.regex(pattern)),
            ValueConfig::Present(_) => Value::Present,
        };
        Test { name: name.into(), value }
    }

    fn regex(&mut self, pattern: &'c str) -> u32 {
        if let Some(known) = self.regexes.get(pattern) {
            return *known;
        }
        // The configuration was checked, so it compiles; were it not, number 0 would stand for it.
        let Ok(compiled) = regex(pattern) else { return 0 };
        let number = self.conditions.regexes.len() as u32;
        self.conditions.regexes.push(compiled);
        self.regexes.insert(pattern, number);
        number
    }

    fn finish(mut self) -> (Index, Conditions) {
        self.units.sort_unstable_by_key(|unit| (unit.place, unit.rank));
        let index = &mut self.index;
        for unit in &self.units {
            let list = match unit.place {
                Place::Regex(_) => &mut index.regex_candidates,
                Place::Path(_) | Place::Any(_) => &mut index.candidates,
            };
            let range = match unit.place {
                Place::Path(path) => &mut index.paths[path as usize].candidates,
                Place::Regex(host) => &mut index.hosts[host as usize].group.regexes,
                Place::Any(host) => &mut index.hosts[host as usize].group.any,
            };
            if range.end == 0 {
                range.start = list.len() as u32;
            }
            list.push(unit.candidate);
            range.end = list.len() as u32;
            if matches!(unit.place, Place::Regex(_)) {
                index.regexes.push(unit.regex);
            }
        }
        index.shrink();
        self.conditions.shrink();
        (self.index, self.conditions)
    }
}
