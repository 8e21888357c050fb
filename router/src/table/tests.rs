//! Matching: precedence by example; `model` holds the table to a linear scan.

use super::*;
use crate::{Format, load};

/// Compiles YAML that must be valid.
fn table(yaml: &str) -> Table {
    let loaded = load(yaml, Format::Yaml).unwrap_or_else(|problems| panic!("{problems}"));
    Table::compile(&loaded.config).unwrap()
}

/// A table of routes that all respond.
fn routes(routes: &str) -> Table {
    table(&format!("listeners: [{{name: in, address: \"127.0.0.1:0\"}}]\nroutes:\n{routes}"))
}

const PLAIN: RequestKey<'_> = RequestKey {
    listener: ListenerId(0),
    host: "a",
    path: "/",
    query: None,
    method: "GET",
    fields: &[],
    identity: None,
};

fn rule(table: &Table, request: &RequestKey<'_>) -> Option<usize> {
    table.route(request).map(RuleId::index)
}

fn at(table: &Table, host: &str, path: &str) -> Option<usize> {
    rule(table, &RequestKey { host, path, ..PLAIN })
}

#[test]
fn exact_host_goes_before_longest_suffix_before_any() {
    let table = routes(
        "- {name: any, rules: [{respond: {}}]}\n\
         - {name: short, hosts: [\"*.com\"], rules: [{respond: {}}]}\n\
         - {name: long, hosts: [\"*.b.com\"], rules: [{respond: {}}]}\n\
         - {name: exact, hosts: [A.b.com], rules: [{respond: {}}]}\n",
    );
    assert_eq!(at(&table, "a.b.com", "/"), Some(3));
    assert_eq!(at(&table, "A.B.COM.:8080", "/"), Some(3));
    assert_eq!(at(&table, "x.a.b.com", "/"), Some(2));
    assert_eq!(at(&table, "b.com", "/"), Some(1));
    assert_eq!(at(&table, "com", "/"), Some(0));
    assert_eq!(at(&table, ".com", "/"), Some(0));
    assert_eq!(at(&table, "", "/"), Some(0));
    assert_eq!(at(&table, &"x.".repeat(200), "/"), Some(0));
    assert_eq!(at(&table, &format!("{}com", "x.".repeat(120)), "/"), Some(1));
}

#[test]
fn less_specific_hosts_answer_what_a_specific_one_has_no_rule_for() {
    let table = routes(
        "- {name: exact, hosts: [a.b], rules: [{matches: [{path: {prefix: /x}}], respond: {}}]}\n\
         - {name: suffix, hosts: [\"*.b\"], rules: [{matches: [{method: PUT}], respond: {}}]}\n\
         - {name: any, hosts: [\"*\"], rules: [{respond: {}}]}\n",
    );
    assert_eq!(at(&table, "a.b", "/x/y"), Some(0));
    assert_eq!(at(&table, "a.b", "/y"), Some(2));
    let put = RequestKey { host: "a.b", path: "/y", method: "PUT", ..PLAIN };
    assert_eq!(rule(&table, &put), Some(1));
}

#[test]
fn exact_path_goes_before_longest_prefix_before_regex_before_any_path() {
    let table = routes(
        "- name: r\n  rules:\n\
         \x20 - {matches: [{path: {prefix: /}}], respond: {}}\n\
         \x20 - {matches: [{path: {regex: \"/[a-z/]+\"}}], respond: {}}\n\
         \x20 - {matches: [{path: {regex: \"/[a-z]+/[a-z]+\"}}], respond: {}}\n\
         \x20 - {matches: [{path: {prefix: /foo}}], respond: {}}\n\
         \x20 - {matches: [{path: {prefix: /foo/bar/}}], respond: {}}\n\
         \x20 - {matches: [{path: {exact: /foo/bar}}], respond: {}}\n",
    );
    for (path, expected) in [
        ("/foo/bar", 5),
        ("/foo/bar/", 4),
        ("/foo/bar/x", 4),
        ("/foo/barx", 3),
        ("/foo", 3),
        ("/foo/", 3),
        ("/foobar", 1),
        ("/fo/x", 2),
        ("/fo/x/y", 1),
        ("/1", 0),
        ("/", 0),
        ("*", 0),
    ] {
        assert_eq!(at(&table, "a", path), Some(expected), "{path}");
    }
}

#[test]
fn method_goes_before_headers_before_query_before_order() {
    let table = routes(
        "- name: r\n  rules:\n\
         \x20 - {respond: {}}\n\
         \x20 - {matches: [{query: [{name: q, present: true}]}], respond: {}}\n\
         \x20 - {matches: [{headers: [{name: h, present: true}]}], respond: {}}\n\
         \x20 - {matches: [{headers: [{name: h, present: true}, {name: i, exact: x}]}], respond: {}}\n\
         \x20 - {matches: [{method: GET}], respond: {}}\n\
         \x20 - {matches: [{method: GET}], respond: {}}\n",
    );
    let fields = [Field { name: "H", value: b"" }, Field { name: "I", value: b"x" }];
    let post = RequestKey { method: "POST", ..PLAIN };
    assert_eq!(rule(&table, &RequestKey { fields: &fields, ..PLAIN }), Some(4));
    assert_eq!(rule(&table, &RequestKey { fields: &fields, ..post }), Some(3));
    assert_eq!(
        rule(&table, &RequestKey { fields: &fields[..1], query: Some("q"), ..post }),
        Some(2)
    );
    assert_eq!(rule(&table, &RequestKey { query: Some("q=1"), ..post }), Some(1));
    assert_eq!(rule(&table, &post), Some(0));
    assert_eq!(rule(&table, &RequestKey { method: "get", ..PLAIN }), Some(0));
}

#[test]
fn several_fields_of_one_name_are_joined_by_commas() {
    let table = routes(
        "- name: r\n  rules:\n\
         \x20 - {matches: [{headers: [{name: x-a, exact: \"one,two\"}]}], respond: {}}\n\
         \x20 - {matches: [{headers: [{name: x-a, regex: \"one,th.*,4\"}]}], respond: {}}\n",
    );
    let ask = |values: &[&str]| {
        let fields: Vec<Field<'_>> =
            values.iter().map(|value| Field { name: "X-A", value: value.as_bytes() }).collect();
        rule(&table, &RequestKey { fields: &fields, ..PLAIN })
    };
    assert_eq!(ask(&["one,two"]), Some(0));
    assert_eq!(ask(&["one", "two"]), Some(0));
    assert_eq!(ask(&["one", "two", ""]), None);
    assert_eq!(ask(&["one", "three", "4"]), Some(1));
    assert_eq!(ask(&["one"]), None);
    assert_eq!(ask(&[]), None);
}

#[test]
fn first_parameter_of_a_name_counts_and_is_decoded() {
    let table = routes(
        "- name: r\n  rules:\n\
         \x20 - {matches: [{query: [{name: \"a b\", exact: \"x/y\"}]}], respond: {}}\n\
         \x20 - {matches: [{query: [{name: q, regex: \"[0-9]+ \"}]}], respond: {}}\n",
    );
    let ask = |query| rule(&table, &RequestKey { query: Some(query), ..PLAIN });
    assert_eq!(ask("a%20b=x%2fy"), Some(0));
    assert_eq!(ask("&z&a%20b=x/y&a%20b=no"), Some(0));
    assert_eq!(ask("a%20b=no&a%20b=x/y"), None);
    assert_eq!(ask("a+b=x/y"), None);
    assert_eq!(ask("a%20b=x/y%"), None);
    assert_eq!(ask("q=12%20"), Some(1));
    assert_eq!(ask("q=12"), None);
    assert_eq!(ask("q"), None);
    assert_eq!(ask(""), None);
}

#[test]
fn route_serves_only_its_listeners() {
    let table = table(
        "listeners: [{name: a, address: \"127.0.0.1:0\"}, {name: b, address: \"127.0.0.1:0\"}]\n\
         routes:\n\
         - {name: only-b, listeners: [b], rules: [{matches: [{method: GET}], respond: {}}]}\n\
         - {name: all, rules: [{respond: {}}]}\n",
    );
    assert_eq!(rule(&table, &PLAIN), Some(1));
    assert_eq!(rule(&table, &RequestKey { listener: ListenerId(1), ..PLAIN }), Some(0));
    assert_eq!(table.listener_named("b"), Some(ListenerId(1)));
    assert_eq!(table.listener_named("c"), None);
}

#[test]
fn defaults_are_those_documented() {
    let table = table(
        "listeners:\n- {name: h, address: \"127.0.0.1:1\"}\n\
         - {name: t, address: \"127.0.0.1:2\", protocol: tcp, cluster: c}\n\
         routes: [{name: r, rules: [{backends: [{cluster: c}]}]}]\n\
         clusters: [{name: c, endpoints: [{address: \"10.0.0.1:1\"}]}]\n",
    );
    let [http, tcp] = table.listeners() else { panic!() };
    assert_eq!((http.head_timeout.as_secs(), http.idle_timeout.as_secs()), (10, 300));
    assert_eq!((tcp.idle_timeout.as_secs(), tcp.cluster), (3600, Some(ClusterId(0))));
    let cluster = table.cluster(ClusterId(0));
    assert_eq!((cluster.connect_timeout.as_secs(), cluster.pool_idle_timeout.as_secs()), (1, 3));
    assert_eq!((cluster.pool_idle_max, cluster.balance), (1024, Balance::LeastRequest));
    let rule = table.rule(RuleId(0));
    assert_eq!((rule.timeout(), rule.idle_timeout().as_secs()), (None, 300));
    assert_eq!((rule.max_request_body(), rule.line()), (None, Some(4)));
    assert!(rule.request_headers().is_empty() && rule.response_headers().is_empty());
    assert_eq!((table.drain().delay.as_secs(), table.drain().timeout.as_secs()), (5, 25));
    assert_eq!((table.route_count(), table.route_name(RouteId(0))), (1, "r"));
    assert_eq!(table.admin(), None);
}

#[test]
fn paths_shared_by_many_hosts_take_no_text_of_their_own() {
    let hosts: Vec<String> = (0..1000).map(|n| format!("h{n}")).collect();
    let path = "x".repeat(4000);
    let table = routes(&format!(
        "- {{name: r, hosts: [{}], rules: [{{matches: [{{path: {{prefix: /{path}}}}}], respond: {{}}}}]}}\n",
        hosts.join(", ")
    ));
    assert!(table.bytes() < 200_000, "{}", table.bytes());
}

#[test]
fn hundred_thousand_routes_take_at_most_160_bytes_each() {
    let mut text = String::new();
    for n in 0..100_000 {
        text.push_str(&format!("- {{name: r{n}, hosts: [h{n}.b], rules: [{{respond: {{}}}}]}}\n"));
    }
    let table = routes(&text);
    let each = (table.bytes() - table.text_bytes()) / table.route_count();
    println!("{each} bytes a route beyond its names");
    assert!(each <= 160, "{each}");
}

#[test]
fn explanation_names_the_rule_and_why_others_were_passed_over() {
    let table = table(
        "listeners: [{name: in, address: \"127.0.0.1:0\"}]\n\
         routes:\n- name: reviews\n  hosts: [\"*.local\"]\n  rules:\n\
         \x20 - {matches: [{headers: [{name: end-user, exact: jason}]}], backends: [{cluster: b}]}\n\
         \x20 - {matches: [{path: {prefix: /api}}], backends: [{cluster: a, weight: 90}, {cluster: b, weight: 10}], rewrite: {path: {prefix: /}}, timeout: 2s}\n\
         \x20 - {matches: [{method: PUT}], redirect: {scheme: https}}\n\
         clusters: [{name: a}, {name: b}]\n",
    );
    let text = crate::explain(&table, None, "GET", "http://x.local/api/../api/%61?q", &[], None);
    assert_eq!(text.rule, Some(RuleId(1)));
    let expected = "\
GET host x.local path /api/a at listener in
  route reviews, rule 1 (line 7): host *.local, path prefix /api: matches
answer: route reviews, rule 1 (line 7)
  forward to cluster a (weight 90 of 100)
  forward to cluster b (weight 10 of 100)
  rewrite path to /a
  timeout 2s
";
    assert_eq!(text.to_string(), expected);
    let expected = "\
GET host x.local path / at listener in
  route reviews, rule 2 (line 8): host *.local, any path: no, the method is not PUT
  route reviews, rule 0 (line 6): host *.local, any path: no, header end-user is not `jason`
answer: 404, no rule matches
";
    let text = crate::explain(&table, None, "GET", "http://x.local", &[], None);
    assert_eq!((text.rule, text.to_string().as_str()), (None, expected));
    let text = crate::explain(&table, None, "GET", "/../x", &[], None).to_string();
    assert_eq!(text, "answered 400: the path leads above the root\n");
}

mod model;
mod tls;
