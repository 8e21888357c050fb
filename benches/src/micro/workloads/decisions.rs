//! Decisions: the normal form of a path, the rule of a request, the endpoint of a cluster.

use std::fmt::Write;
use std::hint::black_box;

use ringway_router::{
    Addresses, Balance, EndpointTable, Format, ListenerId, Normalised, RequestKey, RuleId, Table,
    load_table, normalise_path,
};

use super::{INPUTS, Workload, kept, scattered, turn};

/// Every tenth route has a wildcard host, the others an exact one.
const WILDCARD_EVERY: usize = 10;
/// Endpoints of each cluster.
const ENDPOINTS: usize = 8;

pub(super) fn all() -> Vec<Workload> {
    let mut workloads = vec![
        path("path_plain", "/catalogue/shoes/running", Normalised::Unchanged),
        path("path_escaped", "/catalogue/%73hoes/./r%c3%bcckblick", Normalised::Rewritten),
    ];
    let few = kept(table(10));
    let many = kept(table(100_000));
    workloads.extend([
        route("route_exact_10", few, exact_host),
        route("route_exact_100k", many, exact_host),
        route("route_wildcard_10", few, wildcard_host),
        route("route_wildcard_100k", many, wildcard_host),
        route("route_miss_10", few, unknown_host),
        route("route_miss_100k", many, unknown_host),
    ]);
    let cluster_of = |balance, weighted| Pick::new(balance, weighted);
    workloads.extend([
        cluster_of(Balance::LeastRequest, false).workload("pick_least_request"),
        cluster_of(Balance::LeastRequest, true).workload("pick_least_request_weighted"),
        cluster_of(Balance::RoundRobin, false).workload("pick_round_robin"),
        cluster_of(Balance::RoundRobin, true).workload("pick_round_robin_weighted"),
    ]);
    workloads
}

fn path(name: &'static str, path: &'static str, expected: Normalised) -> Workload {
    let mut normal = Vec::with_capacity(path.len());
    Workload::pure(name, move || {
        normal.clear();
        let result = normalise_path(black_box(path.as_bytes()), &mut normal);
        black_box(&normal);
        result == Ok(expected)
    })
}

/// So many routes, each with a rule for a prefix and one for all other paths.
fn table(routes: usize) -> Table {
    let listener = r#"{"name": "in", "address": "127.0.0.1:0"}"#;
    let mut text = format!(r#"{{"listeners": [{listener}], "routes": ["#);
    for n in 0..routes {
        let comma = if n > 0 { "," } else { "" };
        let host = match n % WILDCARD_EVERY == WILDCARD_EVERY - 1 {
            true => format!("*.w{n}.example.com"),
            false => format!("h{n}.example.com"),
        };
        let backends = r#""backends": [{"cluster": "c"}]"#;
        let matches = r#""matches": [{"path": {"prefix": "/api"}}]"#;
        let rules = format!(r#"[{{{matches}, {backends}}}, {{{backends}}}]"#);
        let route = format!(r#"{{"name": "r{n}", "hosts": ["{host}"], "rules": {rules}}}"#);
        write!(text, "{comma}{route}").expect("a string takes text");
    }
    text.push_str(r#"], "clusters": [{"name": "c", "endpoints": [{"address": "10.0.0.1:80"}]}]}"#);
    let loaded = load_table(&text, Format::Json);
    let (table, _) = loaded.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(table.route_count(), routes);
    table
}

/// A host of the route numbered `n` or of one near it, and the route's name.
type HostOf = fn(usize) -> (String, Option<String>);

fn exact_host(n: usize) -> (String, Option<String>) {
    let n = if n % WILDCARD_EVERY == WILDCARD_EVERY - 1 { n - 1 } else { n };
    (format!("h{n}.example.com"), Some(format!("r{n}")))
}

fn wildcard_host(n: usize) -> (String, Option<String>) {
    let n = n - n % WILDCARD_EVERY + WILDCARD_EVERY - 1;
    (format!("eu.shop.w{n}.example.com"), Some(format!("r{n}")))
}

fn unknown_host(n: usize) -> (String, Option<String>) {
    (format!("m{n}.example.com"), None)
}

fn key<'a>(listener: ListenerId, host: &'a str) -> RequestKey<'a> {
    let (path, method) = ("/api/v1/users/42", "GET");
    RequestKey { listener, host, path, query: None, method, fields: &[], identity: None }
}

fn route(name: &'static str, table: &'static Table, host_of: HostOf) -> Workload {
    let listener = table.listener_named("in").expect("the listener is there");
    let mut inputs: Vec<(String, Option<RuleId>)> = Vec::new();
    for number in 0..INPUTS {
        let n = scattered(number) % table.route_count() as u64;
        let (host, route) = host_of(usize::try_from(n).expect("it is below the count"));
        let rule = table.route(&key(listener, &host));
        let named = rule.map(|rule| table.route_name(table.rule(rule).route()).to_owned());
        assert_eq!(named, route, "{host}");
        assert!(rule.is_none_or(|rule| table.rule_in_route(rule) == 0), "{host}: not the prefix");
        inputs.push((host, rule));
    }
    let mut at = 0;
    let operation = move || {
        let (host, rule) = &inputs[turn(&mut at)];
        black_box(table).route(black_box(&key(listener, host))) == *rule
    };
    Workload::new(name, INPUTS, operation, |_| true)
}

/// A cluster whose endpoints are under different load.
struct Pick {
    balance: Balance,
    table: Table,
    endpoints: EndpointTable,
}

impl Pick {
    fn new(balance: Balance, weighted: bool) -> Self {
        let mut members = Vec::new();
        for n in 0..ENDPOINTS {
            let weight = if weighted { n + 1 } else { 1 };
            members.push(format!(r#"{{"address": "10.0.0.{n}:80", "weight": {weight}}}"#));
        }
        let members = members.join(",");
        let listener = r#"{"name": "in", "address": "127.0.0.1:0"}"#;
        let text = format!(
            r#"{{"listeners": [{listener}], "clusters": [{{"name": "c", "endpoints": [{members}]}}]}}"#
        );
        let loaded = load_table(&text, Format::Json);
        let (table, _) = loaded.unwrap_or_else(|problems| panic!("{problems}"));
        let endpoints = EndpointTable::build(&table, &Addresses::new(), None);
        Self { balance, table, endpoints }
    }

    fn workload(self, name: &'static str) -> Workload {
        let Self { balance, table, endpoints } = self;
        let cluster = table.cluster_named("c").expect("the cluster is there");
        for (load, endpoint) in endpoints.cluster(cluster).iter().enumerate() {
            assert!(endpoint.slot.index() < ENDPOINTS);
            for _ in 0..load * 5 % 7 {
                endpoint.load.begin();
            }
        }
        let (mut cursor, mut draw) = (0, 0_u64);
        let operation = move || {
            // A generator of few instructions: a list of draws would be a third of the figure.
            draw = draw.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(1);
            let endpoints = black_box(&endpoints);
            let picked = endpoints.pick(cluster, black_box(balance), &mut cursor, draw, None);
            black_box(picked).is_some_and(|endpoint| endpoint.slot.index() < ENDPOINTS)
        };
        Workload::new(name, INPUTS, operation, |_| true)
    }
}
