//! A naive model of matching, written from the Gateway API's rules: all matches in a list, the best
//! of those that hold.

use std::cmp::Reverse;

use proptest::prelude::*;

use super::*;
use crate::config::{
    ConditionConfig, Config, ListenerConfig, MatchConfig, PathConfig, RespondConfig, RouteConfig,
    RuleConfig, ValueConfig,
};

/// How specific a host pattern is for `host`; `None` if it does not hold.
pub(super) fn host_rank(pattern: &str, host: &str) -> Option<(u8, usize)> {
    let host = host.split(':').next().unwrap().trim_end_matches('.').to_lowercase();
    let pattern = pattern.trim_end_matches('.').to_lowercase();
    if pattern == "*" {
        return Some((0, 0));
    }
    match pattern.strip_prefix('*') {
        Some(suffix) => {
            let front = host.strip_suffix(suffix)?;
            (!front.is_empty()).then_some((1, suffix.len()))
        }
        None => (pattern == host).then_some((2, 0)),
    }
}

fn path_rank(config: &Option<PathConfig>, path: &str) -> Option<(u8, usize)> {
    match config {
        None => Some((0, 0)),
        Some(PathConfig::Regex(pattern)) => {
            let regex = regex::Regex::new(&format!("^(?:{pattern})$")).unwrap();
            regex.is_match(path).then_some((1, pattern.len()))
        }
        Some(PathConfig::Prefix(prefix)) if prefix == "/" => Some((0, 0)),
        Some(PathConfig::Prefix(prefix)) => {
            let wanted: Vec<&str> = prefix.trim_end_matches('/').split('/').collect();
            let found: Vec<&str> = path.split('/').collect();
            found.starts_with(&wanted).then_some((2, wanted.len()))
        }
        Some(PathConfig::Exact(exact)) => (exact == path).then_some((3, 0)),
    }
}

fn value_holds(config: &ValueConfig, value: &str) -> bool {
    match config {
        ValueConfig::Exact(exact) => exact == value,
        ValueConfig::Regex(pattern) => {
            regex::Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(value)
        }
        ValueConfig::Present(_) => true,
    }
}

fn headers_hold(conditions: &[ConditionConfig], request: &Request) -> bool {
    conditions.iter().all(|condition| {
        let name = condition.name.to_lowercase();
        let of_name = request.fields.iter().filter(|(field, _)| field.to_lowercase() == name);
        let values: Vec<&str> = of_name.map(|(_, value)| value.as_str()).collect();
        !values.is_empty() && value_holds(&condition.value, &values.join(","))
    })
}

fn query_holds(conditions: &[ConditionConfig], request: &Request) -> bool {
    let query = request.query.clone().unwrap_or_default();
    let decode = |text: &str| text.replace("%61", "a").replace("%31", "1");
    let pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect();
    conditions.iter().all(|condition| {
        let first = pairs.iter().find(|(key, _)| *key == condition.name);
        first.is_some_and(|(_, value)| value_holds(&condition.value, value))
    })
}

/// Whether the client is `wanted`, segment by segment.
fn identity_holds(wanted: &Option<String>, request: &Request) -> bool {
    let Some(wanted) = wanted else { return true };
    let Some(identity) = &request.identity else { return false };
    let wanted: Vec<&str> = wanted.split('/').collect();
    let found: Vec<&str> = identity.split('/').collect();
    match wanted.split_last() {
        Some((&"*", above)) => found.len() > above.len() && found.starts_with(above),
        _ => found == wanted,
    }
}

/// The rule that answers, by looking at every match of every rule.
fn answer(config: &Config, request: &Request) -> Option<usize> {
    let mut best = None;
    let mut rule_number = 0;
    let listener = format!("l{}", request.listener);
    for route in &config.routes {
        let served = route.listeners.is_empty() || route.listeners.contains(&listener);
        let hosts = if route.hosts.is_empty() { vec!["*".to_owned()] } else { route.hosts.clone() };
        let host = hosts.iter().filter_map(|pattern| host_rank(pattern, &request.host)).max();
        for rule in &route.rules {
            let every = vec![MatchConfig::default()];
            let matches = if rule.matches.is_empty() { &every } else { &rule.matches };
            for config in matches {
                let (Some(host), Some(path)) = (host, path_rank(&config.path, &request.path))
                else {
                    continue;
                };
                let method = config.method.as_ref().is_none_or(|method| *method == request.method);
                let conditions = headers_hold(&config.headers, request)
                    && query_holds(&config.query, request)
                    && identity_holds(&config.identity, request);
                if !(served && method && conditions) {
                    continue;
                }
                let proved = config.identity.is_some();
                let counts = (config.headers.len(), config.query.len(), proved);
                let rank = (host, path, config.method.is_some(), counts, Reverse(rule_number));
                best = best.max(Some(rank));
            }
            rule_number += 1;
        }
    }
    best.map(|(.., Reverse(rule))| rule)
}

/// A request that owns what it refers to.
#[derive(Clone, Debug)]
struct Request {
    listener: u32,
    host: String,
    path: String,
    query: Option<String>,
    method: String,
    fields: Vec<(String, String)>,
    identity: Option<String>,
}

fn one_of(choices: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(choices).prop_map(str::to_owned)
}

const HOSTS: &[&str] = &["a", "a.b", "*.b", "*.a.b", "c.a.b", "*", "A.B", "b."];
const PATHS: &[&str] = &["/", "/a", "/a/", "/a/b", "/a/b/c", "/b", "/a//b", "/ab", "/a/b/c/d"];
const PREFIXES: &[&str] = &["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/b"];
const WANTED: &[&str] =
    &["spiffe://d/a", "spiffe://d/a/b", "spiffe://d/*", "spiffe://d/a/*", "spiffe://e/a"];
const IDENTITIES: &[&str] =
    &["spiffe://d/a", "spiffe://d/a/b", "spiffe://d/a/b/c", "spiffe://d/ab", "spiffe://e/a"];
const REGEXES: &[&str] = &["/a.*", "/a|/b", "/[ab]+", "/a/b", ".*"];

fn path() -> impl Strategy<Value = Option<PathConfig>> {
    prop_oneof![
        Just(None),
        one_of(PATHS).prop_map(|path| Some(PathConfig::Exact(path))),
        one_of(PREFIXES).prop_map(|path| Some(PathConfig::Prefix(path))),
        one_of(REGEXES).prop_map(|path| Some(PathConfig::Regex(path))),
    ]
}

fn conditions(names: &'static [&'static str]) -> impl Strategy<Value = Vec<ConditionConfig>> {
    let value = prop_oneof![
        one_of(&["1", "a", "1,a", ""]).prop_map(ValueConfig::Exact),
        one_of(&["[0-9]", "a.*", "1,.*"]).prop_map(ValueConfig::Regex),
        Just(ValueConfig::Present(true)),
    ];
    prop::sample::subsequence(names, 0..=2).prop_flat_map(move |names| {
        let values = prop::collection::vec(value.clone(), names.len());
        values.prop_map(move |values| {
            let pairs = names.iter().zip(values);
            pairs.map(|(name, value)| ConditionConfig { name: (*name).to_owned(), value }).collect()
        })
    })
}

fn match_() -> impl Strategy<Value = MatchConfig> {
    let method = prop::option::weighted(0.3, one_of(&["GET", "PUT"]));
    let identity = prop::option::weighted(0.3, one_of(WANTED));
    (path(), method, conditions(&["x-a", "X-B"]), conditions(&["q", "a"]), identity).prop_map(
        |(path, method, headers, query, identity)| MatchConfig {
            path,
            method,
            headers,
            query,
            identity,
        },
    )
}

fn route() -> impl Strategy<Value = RouteConfig> {
    let rule = prop::collection::vec(match_(), 0..3).prop_map(|matches| RuleConfig {
        matches,
        respond: Some(Box::new(RespondConfig {
            status: 200,
            body: String::new(),
            content_type: None,
            headers: std::collections::BTreeMap::new(),
        })),
        ..RuleConfig::default()
    });
    let listeners = prop::sample::subsequence(vec!["l0".to_owned(), "l1".to_owned()], 0..=2);
    let hosts = prop::collection::vec(one_of(HOSTS), 0..3);
    (listeners, hosts, prop::collection::vec(rule, 1..4)).prop_map(|(listeners, hosts, rules)| {
        RouteConfig { name: String::new(), listeners, hosts, rules }
    })
}

fn config() -> impl Strategy<Value = Config> {
    prop::collection::vec(route(), 0..8).prop_map(|mut routes| {
        for (route, number) in routes.iter_mut().zip(0..) {
            route.name = format!("r{number}");
        }
        let listener = |number| ListenerConfig {
            name: format!("l{number}"),
            address: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0))),
            ..ListenerConfig::default()
        };
        Config { listeners: vec![listener(0), listener(1)], routes, ..Config::default() }
    })
}

fn request() -> impl Strategy<Value = Request> {
    let field = (one_of(&["x-a", "X-A", "x-b", "y"]), one_of(&["1", "a", ""]));
    let query = one_of(&["q=1", "q=a&q=1", "%61=%31", "a", "", "q=&a=1,a", "x&&a=ab&q=1"]);
    (
        0..2_u32,
        one_of(&["a", "A:80", "a.b", "a.b.", "c.a.b", "x.c.a.b", "b", "z", "", ".b", "*.b"]),
        one_of(&["/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c/d/e", "/ab", "/b/a", "/a//b", "/c"]),
        prop::option::of(query),
        one_of(&["GET", "PUT", "get"]),
        prop::collection::vec(field, 0..4),
        prop::option::weighted(0.7, one_of(IDENTITIES)),
    )
        .prop_map(|(listener, host, path, query, method, fields, identity)| Request {
            listener,
            host,
            path,
            query,
            method,
            fields,
            identity,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(1000)))]

    #[test]
    fn table_answers_like_a_naive_scan(
        config in config(),
        requests in prop::collection::vec(request(), 1..20),
    ) {
        let table = Table::compile(&config).unwrap();
        for request in &requests {
            let fields: Vec<Field<'_>> = request
                .fields
                .iter()
                .map(|(name, value)| Field { name, value: value.as_bytes() })
                .collect();
            let key = RequestKey {
                listener: ListenerId(request.listener),
                host: &request.host,
                path: &request.path,
                query: request.query.as_deref(),
                method: &request.method,
                fields: &fields,
                identity: request.identity.as_deref(),
            };
            let found = table.route(&key).map(RuleId::index);
            prop_assert_eq!(found, answer(&config, request), "{:?} in {:?}", request, config);
        }
    }

    #[test]
    fn explanation_names_the_rule_that_answers(config in config(), request in request()) {
        let table = Table::compile(&config).unwrap();
        let mut fields: Vec<Field<'_>> = request
            .fields
            .iter()
            .map(|(name, value)| Field { name, value: value.as_bytes() })
            .collect();
        fields.push(Field { name: "host", value: request.host.as_bytes() });
        let query = request.query.as_deref();
        let key = RequestKey {
            listener: ListenerId(request.listener),
            host: &request.host,
            path: &request.path,
            query,
            method: &request.method,
            fields: &fields,
                identity: request.identity.as_deref(),
        };
        let url = match query {
            Some(query) => format!("{}?{query}", request.path),
            None => request.path.clone(),
        };
        let listener = Some(ListenerId(request.listener));
        let identity = request.identity.as_deref();
        let explained =
            crate::explain(&table, listener, &request.method, &url, &fields, identity);
        prop_assert_eq!(explained.rule, table.route(&key), "{}", explained);
    }
}
