//! What a configuration may say but probably does not mean.
//!
//! A rule is unreachable if each of its matches, for each host, comes after a match that holds
//! whenever it does: same host, same path condition, listeners that include its own, and conditions
//! that its own imply. Anything subtler (regular expressions that include one another) is not
//! looked for: a remark is never wrong, but not every unreachable rule is found.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;

use super::tls::{ListenerTlsConfig, Mtls, TlsVersion};
use super::{
    ConditionConfig, Config, Discovery, ListenerConfig, MatchConfig, PathConfig, RouteConfig,
    RuleConfig, ValueConfig,
};
use crate::problem::{Problem, Sink};

/// Matches of one host and path that a later one is compared with: the last ones before it.
const COMPARED_MAX: usize = 64;

/// Remarks on a configuration without errors.
pub(crate) fn config(config: &Config, sink: &mut Sink) {
    unused(config, sink);
    tls(config, sink);
    weights(config, sink);
    unreachable(config, sink);
}

fn unused(config: &Config, sink: &mut Sink) {
    let http = config.listeners.iter().filter(|l| l.protocol.has_routes()).count();
    if http > 0 && config.routes.is_empty() {
        let message = "there are no routes: every request is answered 404";
        sink.push(Problem::warning("routes", message));
    }
    if http == 0 && !config.routes.is_empty() {
        let message = "there is no http1 or auto listener: no route is ever used";
        sink.push(Problem::warning("routes", message));
    }
    let of_listeners = config.listeners.iter().filter_map(|listener| listener.cluster.as_deref());
    let names = config.listeners.iter().flat_map(|listener| &listener.sni);
    let of_names = names.map(|route| route.cluster.as_str());
    let rules = config.routes.iter().flat_map(|route| &route.rules);
    let of_rules = rules.flat_map(|rule| &rule.backends).map(|backend| backend.cluster.as_str());
    let used: HashSet<&str, FixedState> = of_listeners.chain(of_names).chain(of_rules).collect();
    for (nth, cluster) in config.clusters.iter().enumerate() {
        if !used.contains(cluster.name.as_str()) {
            let message = format!("no rule or listener uses cluster `{}`", cluster.name);
            sink.push(Problem::warning(format!("clusters[{nth}]"), message));
        }
    }
}

fn tls(config: &Config, sink: &mut Sink) {
    let shows_identity = |listener: &ListenerConfig| {
        let only_one = listener.tls.as_ref().is_some_and(|tls| tls.certificates.is_empty());
        listener.mtls != Mtls::Disabled || only_one
    };
    let used = config.listeners.iter().any(shows_identity)
        || config.clusters.iter().any(|cluster| !cluster.identity.is_empty());
    if config.identity.is_some() && !used {
        let message = "no listener or cluster uses it: nothing is mutual TLS";
        sink.push(Problem::warning("identity", message));
    }
    for (nth, listener) in config.listeners.iter().enumerate() {
        if listener.mtls == Mtls::Permissive {
            let message = "plaintext is still accepted";
            sink.push(Problem::warning(format!("listeners[{nth}].mtls"), message));
        }
        let old = |tls: &ListenerTlsConfig| tls.min_version < TlsVersion::Tls13;
        if listener.tls.as_deref().is_some_and(old) {
            let message = "clients may speak TLS 1.2, which hides less and falls to more attacks";
            sink.push(Problem::warning(format!("listeners[{nth}].tls.min_version"), message));
        }
    }
    unproved(config, sink);
}

/// Matches on an identity that no client can have proved.
fn unproved(config: &Config, sink: &mut Sink) {
    let proves = |listener: &&ListenerConfig| {
        listener.protocol.has_routes() && listener.mtls != Mtls::Disabled
    };
    let proving = config.listeners.iter().filter(proves).map(|listener| listener.name.as_str());
    let proving: HashSet<&str, FixedState> = proving.collect();
    for (route_nth, route) in config.routes.iter().enumerate() {
        let served = match route.listeners.is_empty() {
            true => !proving.is_empty(),
            false => route.listeners.iter().any(|name| proving.contains(name.as_str())),
        };
        if served {
            continue;
        }
        for (rule_nth, rule) in route.rules.iter().enumerate() {
            let on_identity = |config: &MatchConfig| config.identity.is_some();
            if let Some(nth) = rule.matches.iter().position(on_identity) {
                let path = format!("routes[{route_nth}].rules[{rule_nth}].matches[{nth}].identity");
                let message = "never holds: no listener of the route asks clients who they are";
                sink.push(Problem::warning(path, message));
            }
        }
    }
}

fn weights(config: &Config, sink: &mut Sink) {
    for (nth, cluster) in config.clusters.iter().enumerate() {
        let path = format!("clusters[{nth}].endpoints");
        if cluster.discovery == Discovery::Pushed {
            continue;
        }
        if cluster.endpoints.is_empty() {
            let message = "no endpoints: every request is answered 503";
            sink.push(Problem::warning(path, message));
        } else if cluster.endpoints.iter().all(|endpoint| endpoint.weight == 0) {
            let message = "all weights are 0: every request is answered 503";
            sink.push(Problem::warning(path, message));
        }
    }
    for (nth, route) in config.routes.iter().enumerate() {
        for (rule_nth, rule) in route.rules.iter().enumerate() {
            let weightless = rule.backends.iter().all(|backend| backend.weight == 0);
            if !rule.backends.is_empty() && weightless {
                let path = format!("routes[{nth}].rules[{rule_nth}].backends");
                let message = "all weights are 0: every request is answered 500";
                sink.push(Problem::warning(path, message));
            }
        }
    }
}

/// A match of a rule, for one of its hosts.
#[derive(Clone, Copy)]
struct Unit<'c> {
    /// Number of the rule over all routes.
    rule: u32,
    route: &'c RouteConfig,
    config: Option<&'c MatchConfig>,
}

/// What puts matches side by side: host and path condition.
type Key<'c> = (&'c str, Option<&'c PathConfig>);

/// Matches seen so far, those of one key in a list.
struct Earlier<'c> {
    /// The last match of each key.
    last: HashMap<Key<'c>, u32, FixedState>,
    /// Each match with the one of its key before it, or with its own number.
    units: Vec<(Unit<'c>, u32)>,
}

impl<'c> Earlier<'c> {
    /// Adds a match; gives the rule that hides it.
    fn add(&mut self, key: Key<'c>, unit: Unit<'c>) -> Option<u32> {
        let number = self.units.len() as u32;
        let last = self.last.entry(key).or_insert(number);
        let before = std::mem::replace(last, number);
        self.units.push((unit, before));
        let (mut at, mut hidden_by) = (number, None);
        for _ in 0..COMPARED_MAX {
            let (_, before) = self.units[at as usize];
            if before == at {
                break;
            }
            at = before;
            let (before, _) = &self.units[at as usize];
            if before.rule != unit.rule && hides(before, &unit) {
                hidden_by = Some(before.rule);
            }
        }
        hidden_by
    }
}

fn unreachable(config: &Config, sink: &mut Sink) {
    let (mut places, mut reached) = (Vec::new(), Vec::new());
    let last = HashMap::with_capacity_and_hasher(config.routes.len(), FixedState::default());
    let mut earlier = Earlier { last, units: Vec::with_capacity(config.routes.len()) };
    for (route_nth, route) in config.routes.iter().enumerate() {
        for (rule_nth, rule) in route.rules.iter().enumerate() {
            let number = places.len() as u32;
            places.push((route_nth, rule_nth));
            reached.push(reach(&mut earlier, route, rule, number));
        }
    }
    for ((route, rule), first) in places.iter().zip(&reached) {
        let Err(first) = first else { continue };
        let (by_route, by_rule) = places[*first as usize];
        let message =
            format!("is never reached: routes[{by_route}].rules[{by_rule}] answers before");
        sink.push(Problem::warning(format!("routes[{route}].rules[{rule}]"), message));
    }
}

/// Adds the matches of a rule. `Err` names a rule that hides it, if all its matches are hidden.
fn reach<'c>(
    earlier: &mut Earlier<'c>,
    route: &'c RouteConfig,
    rule: &'c RuleConfig,
    number: u32,
) -> Result<(), u32> {
    let mut hidden_by = None;
    let mut reached = false;
    let any_host = route.hosts.is_empty().then_some("*");
    let hosts = route.hosts.iter().map(String::as_str).chain(any_host);
    for host in hosts {
        let every = rule.matches.is_empty().then_some(None);
        for config in rule.matches.iter().map(Some).chain(every) {
            let unit = Unit { rule: number, route, config };
            match earlier.add((host, path(config)), unit) {
                Some(rule) => hidden_by = Some(rule),
                None => reached = true,
            }
        }
    }
    match hidden_by {
        Some(by) if !reached => Err(by),
        _ => Ok(()),
    }
}

/// The path condition, with those that hold for every path as `None`.
fn path(config: Option<&MatchConfig>) -> Option<&PathConfig> {
    config?.path.as_ref().filter(|path| !matches!(path, PathConfig::Prefix(p) if p == "/"))
}

/// Whether `first`, earlier in the file, answers whatever `second` could.
fn hides<'c>(first: &Unit<'c>, second: &Unit<'c>) -> bool {
    let includes = first.route.listeners.is_empty()
        || (!second.route.listeners.is_empty()
            && second.route.listeners.iter().all(|name| first.route.listeners.contains(name)));
    if !includes {
        return false;
    }
    // Equal numbers of conditions: then the file's order decides, and it favours `first`.
    let (method, headers, queries) = conditions(first.config);
    let (other_method, other_headers, other_queries) = conditions(second.config);
    let identity = |unit: &Unit<'c>| unit.config.and_then(|config| config.identity.as_deref());
    method == other_method
        && identity_implied(identity(first), identity(second))
        && headers.len() == other_headers.len()
        && queries.len() == other_queries.len()
        && implied(headers, other_headers, true)
        && implied(queries, other_queries, false)
}

/// Whether `weak` holds whenever `strong` does, and both rank alike.
fn identity_implied(weak: Option<&str>, strong: Option<&str>) -> bool {
    match (weak, strong) {
        (None, None) => true,
        (Some(weak), Some(strong)) => {
            // `/a/*` holds for `/a/b` and for whatever `/a/b/*` holds for.
            let above = weak.strip_suffix('*');
            weak == strong || above.is_some_and(|above| strong.starts_with(above))
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

type Conditions<'c> = (Option<&'c str>, &'c [ConditionConfig], &'c [ConditionConfig]);

fn conditions(config: Option<&MatchConfig>) -> Conditions<'_> {
    match config {
        Some(config) => (config.method.as_deref(), &config.headers, &config.query),
        None => (None, &[], &[]),
    }
}

/// Whether every one of `weak` holds when all of `strong` do.
fn implied(weak: &[ConditionConfig], strong: &[ConditionConfig], any_case: bool) -> bool {
    weak.iter().all(|weak| {
        strong.iter().any(|strong| {
            let same_name = match any_case {
                true => weak.name.eq_ignore_ascii_case(&strong.name),
                false => weak.name == strong.name,
            };
            same_name && (weak.value == ValueConfig::Present(true) || weak.value == strong.value)
        })
    })
}
