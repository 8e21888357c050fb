//! Bootstraps: what is refused, in which order routes stand. What Envoy makes of them is seen in
//! `deploy/tests/envoy.rs`.

use std::net::{IpAddr, Ipv4Addr};

use ringway_router::{Format, load};

use super::*;

const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

/// Files of an identity that nobody opens.
const IDENTITY: &str = "identity: {certificate: a, key: b, trust_bundle: c}\n";

fn written(text: &str) -> Result<Value, Vec<Problem>> {
    let loaded = load(text, Format::Yaml);
    let config = loaded.unwrap_or_else(|found| panic!("{found:#?}")).config;
    bootstrap(&config, "web", ADMIN)
}

/// A configuration with one listener, one rule and one cluster, each with further fields.
fn config(listener: &str, rule: &str, cluster: &str) -> String {
    format!(
        "{IDENTITY}listeners:\n- {{name: l, address: '127.0.0.1:80'{listener}}}\n\
         routes:\n- {{name: r, rules: [{{backends: [{{cluster: c}}]{rule}}}]}}\n\
         clusters:\n- {{name: c, endpoints: [{{address: '127.0.0.1:1'}}]{cluster}}}\n"
    )
}

#[test]
fn what_has_no_equal_is_refused_by_name_at_its_place() {
    let of_listener = |fields: &str| config(&format!(", {fields}"), "", "");
    let of_rule = |fields: &str| config("", &format!(", {fields}"), "");
    let of_cluster = |fields: &str| config("", "", &format!(", {fields}"));
    let cases = [
        (of_listener("protocol: auto"), "listeners[0].protocol", "protocol: auto"),
        (of_listener("max_connections: 9"), "listeners[0].max_connections", "max_connections"),
        (
            of_listener("accept_proxy_protocol: true"),
            "listeners[0].accept_proxy_protocol",
            "accept_proxy_protocol",
        ),
        (
            of_listener("trusted_proxies: [10.0.0.0/8]"),
            "listeners[0].trusted_proxies",
            "trusted_proxies",
        ),
        (
            of_listener("protocol: http2, http2: {stream_window: 32KiB}"),
            "listeners[0].http2.stream_window",
            "stream_window",
        ),
        (
            of_rule("max_request_body: 1MiB"),
            "routes[0].rules[0].max_request_body",
            "max_request_body",
        ),
        (
            of_rule("matches: [{identity: 'spiffe://a/b'}]"),
            "routes[0].rules[0].matches[0].identity",
            "identity",
        ),
        (
            of_rule("matches: [{path: {regex: '/[a-z&&b]'}}]"),
            "routes[0].rules[0].matches[0].path.regex",
            "&& in a class",
        ),
        (
            of_rule("matches: [{headers: [{name: TE, present: true}]}]"),
            "routes[0].rules[0].matches[0].headers[0]",
            "a condition on te",
        ),
        (
            of_rule("matches: [{query: [{name: 'a b', present: true}]}]"),
            "routes[0].rules[0].matches[0].query[0].name",
            "a b",
        ),
        (of_cluster("pool: {idle_max: 7}"), "clusters[0].pool.idle_max", "pool.idle_max"),
        (
            of_cluster("send_proxy_protocol: v2"),
            "clusters[0].send_proxy_protocol",
            "send_proxy_protocol of requests",
        ),
        (
            of_cluster("tls: {server_name: x.example}"),
            "clusters[0].tls.trust_bundle",
            "trust_bundle: system",
        ),
    ];
    for (text, path, what) in cases {
        let found = written(&text).expect_err(what);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].path, path);
        assert_eq!(found[0].message, format!("`{what}` has no equal in Envoy"));
    }
}

#[test]
fn hosts_have_the_routes_of_less_specific_ones_behind_their_own() {
    let rule = |paths: &str| format!("rules: [{{matches: [{paths}], backends: [{{cluster: c}}]}}]");
    let text = format!(
        "listeners: [{{name: l, address: '127.0.0.1:80'}}]\nroutes:\n\
         - {{name: any, {}}}\n- {{name: suffix, hosts: ['*.example'], {}}}\n\
         - {{name: exact, hosts: [A.example.], {}}}\n\
         clusters: [{{name: c, endpoints: [{{address: '127.0.0.1:1'}}]}}]\n",
        rule("{path: {prefix: /}}"),
        rule("{path: {regex: /a+}}, {path: {prefix: /a}}, {path: {exact: /a}}"),
        rule(
            "{path: {prefix: /a/b/}, method: GET}, {path: {prefix: /a/b}, headers: [{name: x, present: true}]}"
        ),
    );
    let bootstrap = written(&text).expect("Envoy has all of it");
    let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    let hosts = bootstrap.pointer(&format!("{manager}/route_config/virtual_hosts"));
    let hosts = hosts.and_then(Value::as_array).expect("there are hosts");
    let shown: Vec<String> = hosts
        .iter()
        .map(|host| {
            let routes = host["routes"].as_array().expect("there are routes").iter();
            let matches: Vec<String> = routes
                .map(|route| {
                    let names = route["match"].as_object().into_iter().flatten();
                    let names: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
                    names.join("+")
                })
                .collect();
            format!("{}: {}", host["domains"], matches.join(" "))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "[\"a.example\",\"a.example.\"]: headers+path_separated_prefix \
             headers+path_separated_prefix path path_separated_prefix safe_regex prefix",
            "[\"*.example\",\"*.example.\"]: path path_separated_prefix safe_regex prefix",
            "[\"*\"]: prefix",
        ]
    );
}

#[test]
fn no_timeout_of_envoys_own_is_left() {
    let bootstrap = written(&config("", "", "")).expect("Envoy has all of it").to_string();
    assert!(bootstrap.contains(r#""timeout":"0s""#), "{bootstrap}");
    assert!(bootstrap.contains(r#""idle_timeout":"300s""#), "{bootstrap}");
}
