//! Virtual hosts: the routes of each host in the order of precedence.
//!
//! ```text
//! rules ──▶ units (host, match, action), sorted ──┬▶ a.example: its own, then *.example, then *
//!                                                 ├▶ *.example: its own, then *
//!                                                 └▶ *: its own
//! ```
//!
//! # Invariants
//! - The order is that of `ringway_router`'s table: exact path, longest prefix, regular expression
//!   (longest as written first), any path; then method, headers, query parameters; then the order
//!   of the file.
//! - A host stands there with and without a dot at its end; case and port do not count.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use ringway_router::config::{Config, MatchConfig, PathConfig, RouteConfig};
use serde_json::{Value, json};

use super::actions::{self, Hop};
use super::{Fields, Refusals, matches};

/// A host as routes name it, in lower case and without a dot at its end. The order is that in which
/// Envoy's choice among virtual hosts and ours go: exact, the longest suffix, any.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Exact(String),
    /// With its first dot, behind its length.
    Suffix(Reverse<usize>, String),
    Any,
}

impl Host {
    fn of(text: &str) -> Host {
        let folded = text.to_ascii_lowercase();
        let folded = folded.strip_suffix('.').unwrap_or(&folded);
        match folded.strip_prefix('*') {
            Some("") => Host::Any,
            Some(suffix) => Host::Suffix(Reverse(suffix.len()), suffix.to_owned()),
            None => Host::Exact(folded.to_owned()),
        }
    }

    /// Whether every request for `self` is one for `other`, too.
    fn is_within(&self, other: &Host) -> bool {
        let ends = |name: &str, suffix: &str| name.len() > suffix.len() && name.ends_with(suffix);
        match (self, other) {
            (_, Host::Any) => true,
            (Host::Any, _) | (Host::Suffix(..), Host::Exact(_)) => false,
            (Host::Exact(name), Host::Exact(other)) => name == other,
            (Host::Exact(name), Host::Suffix(_, suffix)) => ends(name, suffix),
            (Host::Suffix(_, name), Host::Suffix(_, suffix)) => {
                name == suffix || ends(name, suffix)
            }
        }
    }

    fn domains(&self) -> Vec<String> {
        match self {
            Host::Exact(name) => vec![name.clone(), format!("{name}.")],
            Host::Suffix(_, suffix) => vec![format!("*{suffix}"), format!("*{suffix}.")],
            Host::Any => vec!["*".to_owned()],
        }
    }
}

/// What precedence goes by within a host; smaller is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    class: Class,
    length: Reverse<usize>,
    has_no_method: bool,
    headers: Reverse<usize>,
    queries: Reverse<usize>,
    order: usize,
}

/// Kinds of conditions on a path, the most specific first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Exact,
    Prefix,
    Regex,
    Any,
}

impl Rank {
    fn of(config: &MatchConfig, order: usize) -> Rank {
        let (class, length) = match &config.path {
            Some(PathConfig::Exact(path)) => (Class::Exact, path.len()),
            Some(PathConfig::Prefix(path)) if path != "/" => {
                (Class::Prefix, path.strip_suffix('/').unwrap_or(path).len())
            }
            Some(PathConfig::Regex(pattern)) => (Class::Regex, pattern.len()),
            // The prefix `/` is no condition.
            Some(PathConfig::Prefix(_)) | None => (Class::Any, 0),
        };
        Rank {
            class,
            length: Reverse(length),
            has_no_method: config.method.is_none(),
            headers: Reverse(config.headers.len()),
            queries: Reverse(config.query.len()),
            order,
        }
    }
}

/// A match of a rule for a host.
pub(super) struct Unit<'c> {
    host: Host,
    rank: Rank,
    route: &'c RouteConfig,
    rule: usize,
    matched: Value,
}

/// Every match of every rule for every host of it, the hosts together and each in precedence.
pub(super) fn units<'c>(config: &'c Config, refusals: &mut Refusals) -> Vec<Unit<'c>> {
    let every = [MatchConfig::default()];
    let mut units = Vec::new();
    let mut order = 0;
    for (nth, route) in config.routes.iter().enumerate() {
        let mut hosts: BTreeSet<Host> = route.hosts.iter().map(|host| Host::of(host)).collect();
        if hosts.is_empty() {
            hosts.insert(Host::Any);
        }
        for (rule, of_rule) in route.rules.iter().enumerate() {
            let at = format!("routes[{nth}].rules[{rule}]");
            actions::refuse(&at, of_rule, refusals);
            let alternatives =
                if of_rule.matches.is_empty() { &every[..] } else { &of_rule.matches };
            for (alternative, wanted) in alternatives.iter().enumerate() {
                let at = format!("{at}.matches[{alternative}]");
                let matched = matches::route_match(&at, wanted, refusals);
                let rank = Rank::of(wanted, order);
                order += 1;
                units.extend(hosts.iter().map(|host| Unit {
                    host: host.clone(),
                    rank,
                    route,
                    rule,
                    matched: matched.clone(),
                }));
            }
        }
    }
    units.sort_by(|a, b| (&a.host, a.rank).cmp(&(&b.host, b.rank)));
    units
}

/// The route configuration of the listener called `listener`, for the connections of `hop`.
pub(super) fn configuration(listener: &str, units: &[Unit<'_>], hop: Hop) -> Value {
    let serves = |unit: &&Unit<'_>| {
        let listeners = &unit.route.listeners;
        listeners.is_empty() || listeners.iter().any(|name| name == listener)
    };
    let units: Vec<&Unit<'_>> = units.iter().filter(serves).collect();
    let hosts: BTreeSet<&Host> = units.iter().map(|unit| &unit.host).collect();
    let virtual_host = |host: &&Host| {
        let domains = host.domains();
        let routes = units.iter().filter(|unit| host.is_within(&unit.host));
        let routes: Vec<Value> = routes.map(|unit| route(unit, hop)).collect();
        json!({"name": domains[0], "domains": domains, "routes": routes})
    };
    json!({
        "name": listener,
        "virtual_hosts": hosts.iter().map(virtual_host).collect::<Vec<_>>(),
        "ignore_port_in_host_matching": true,
        // The edits of a route come after what is written here.
        "most_specific_header_mutations_wins": true,
        "request_headers_to_add": forwarding(),
        "request_headers_to_remove": ["forwarded"],
    })
}

/// What the origin is told of the client: in place of what the client says itself.
fn forwarding() -> Vec<Value> {
    let mut fields = Fields::default();
    fields.set("x-forwarded-for", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%");
    fields.set("x-forwarded-host", "%REQ(:AUTHORITY)%");
    fields.0
}

fn route(unit: &Unit<'_>, hop: Hop) -> Value {
    let rule = &unit.route.rules[unit.rule];
    let mut route = actions::action(rule, hop);
    if let Some(object) = route.as_object_mut() {
        let name = format!("{}, rule {}", unit.route.name, unit.rule + 1);
        object.insert("name".to_owned(), name.into());
        object.insert("match".to_owned(), unit.matched.clone());
    }
    route
}
