//! Whatever a file contains, reading it ends with a table or with problems.

use proptest::prelude::*;
use ringway_router::config::ListenerConfig;
use ringway_router::{
    Addresses, EndpointTable, Format, Listener, Mtls, RequestKey, Severity, Table, explain, load,
};

const YAML: &str = r#"identity: {certificate: a, key: b, trust_bundle: c, revocation_lists: [d]}
admin: 127.0.0.1:1
drain: {delay: 1s, timeout: 2s}
listeners:
  - {name: a, address: "127.0.0.1:1", accept_proxy_protocol: true, trusted_proxies: [10.0.0.1],
     head_timeout: 1s, idle_timeout: 1s, max_connections: 1}
  - {name: b, address: "127.0.0.1:2", protocol: tcp, cluster: c, mtls: strict}
  - {name: t, address: "127.0.0.1:3", max_connection_age: 1h, tls: {min_version: "1.2", resumption: false,
     handshake_timeout: 1s, certificates: [{certificate: a, key: b, ocsp_response: c}]}}
  - {name: p, address: "127.0.0.1:4", protocol: tls-passthrough, cluster: c, sni: [{hosts: [h, "*.y"], cluster: d}]}
routes:
  - name: r
    listeners: [a]
    hosts: [h, "*.x.y", &any "*"]
    rules:
      - matches: [{path: {prefix: /x}, method: GET, headers: [{name: h, exact: x}], query: [{name: q, regex: "y.*"}], identity: "spiffe://d/p/*"}]
        backends: [{cluster: c, weight: 2}, {cluster: d, weight: 0}]
        rewrite: {host: z, path: {prefix: /y}}
        request_headers: {remove: [a], set: {b: c}, add: {d: e}}
        timeout: 1s
        max_request_body: 1KiB
      - {matches: [{path: {exact: /}}, {path: {regex: "/(a|b)+"}}], redirect: {scheme: https, port: 1, path: {full: /}, status: 301}}
  - name: s
    hosts: [*any]
    rules:
      - respond:
          status: 201
          body: |
            some text
            on lines
          headers: {x: y}
clusters:
  - {name: c, endpoints: [{address: "n:1", weight: 2}], balance: round_robin, connect_timeout: 2s}
  - {name: d, endpoints: [{address: "10.0.0.1:1"}], pool: {idle_timeout: 1s, idle_max: 1}, send_proxy_protocol: v2}
  - {name: e, identity: ["spiffe://d/p", "spiffe://d/q"], tls: {server_name: n, resumption: false}}
  - {name: f, tls: {server_name: n, trust_bundle: a, certificate: b, key: c, min_version: "1.3"}}
"#;

const JSON: &str = r#"{"listeners": [{"name": "a", "address": "127.0.0.1:1", "idle_timeout": "5m", "tls": {"certificates": [{"certificate": "a", "key": "b"}]}}],
"routes": [{"name": "r", "hosts": ["h", "*.x"], "rules": [
  {"matches": [{"path": {"prefix": "/x"}, "headers": [{"name": "h", "present": true}], "identity": "spiffe://d/p"}],
   "backends": [{"cluster": "c", "weight": 3}]},
  {"respond": {"status": 404, "body": "A\n"}}]}],
"clusters": [{"name": "c", "endpoints": [{"address": "[::1]:80"}], "connect_timeout": "1s", "tls": {"server_name": "n"}}]}"#;

const PIECES: &[&str] = &[
    "",
    "\n",
    " ",
    ":",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\"",
    "'",
    "*",
    "&a ",
    "*a",
    "!",
    "|",
    "#",
    " #",
    "~",
    "null",
    "true",
    "-1",
    "0",
    "99999999999999999999",
    "1e9",
    ".",
    "..",
    "/",
    "%",
    "\\",
    "(",
    ")",
    "[^",
    "{9999}",
    "\u{e9}",
    "\0",
    "\t",
    "\r",
    "\u{feff}",
    "*.",
    "::",
    "[::1]:0",
    "ms",
    "1s",
    "999999999999d",
    "KiB",
    "\\u0000",
    "\\ud800",
    "---\n",
    "<<: ",
    "? ",
    "name: ",
    "é",
    "spiffe://",
    "/*",
    "1.2",
    "strict",
    "tls: ",
    "identity: ",
    "tls-passthrough",
];

fn mutated(text: &'static str) -> impl Strategy<Value = String> {
    let edit = (0..text.len(), 0..40_usize, prop::sample::select(PIECES), 0..text.len());
    prop::collection::vec(edit, 0..6).prop_map(move |edits| {
        let mut bytes = text.as_bytes().to_vec();
        for (at, cut, piece, from) in edits {
            let at = at.min(bytes.len());
            let end = (at + cut).min(bytes.len());
            // Every third edit moves a part of the text instead of inserting a piece.
            let copied = bytes[from.min(bytes.len())..(from + cut).min(bytes.len())].to_vec();
            let new = if cut % 3 == 0 { copied } else { piece.as_bytes().to_vec() };
            bytes.splice(at..end, new);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Reads `text`; what is accepted must compile, answer, explain and have endpoints.
fn read(text: &str, format: Format) {
    let loaded = match load(text, format) {
        Ok(loaded) => loaded,
        Err(problems) => {
            assert!(!problems.0.is_empty() && !problems.to_string().is_empty());
            assert!(problems.0.iter().all(|problem| problem.severity == Severity::Error));
            return;
        }
    };
    let table = Table::compile(&loaded.config).expect("what was accepted compiles");
    let endpoints = EndpointTable::build(&table, &Addresses::new(), None);
    for cluster in table.cluster_ids() {
        let balance = table.cluster(cluster).balance;
        let _ = endpoints.pick(cluster, balance, &mut 0, 1 << 40, None);
    }
    for listener in table.listener_ids() {
        let names = [None, Some("h"), Some("a.y"), Some(""), Some("..")];
        let _ = names.map(|name| table.listener(listener).sni.cluster_for(name));
        speaks_what_it_says(&loaded.config.listeners[listener.index()], table.listener(listener));
        for (host, path) in [("h", "/x/y"), ("a.x.y", "/"), ("", "*"), ("..", "/a//")] {
            let (query, identity) = (Some("q=y&%"), Some("spiffe://d/p/x"));
            let key =
                RequestKey { listener, host, path, query, method: "GET", fields: &[], identity };
            if let Some(rule) = table.route(&key) {
                let _ = table.route_name(table.rule(rule).route());
            }
            let _ = explain(&table, Some(listener), "GET", path, &[], identity).to_string();
        }
    }
}

/// A listener that the file gives TLS has it in the table, and no other.
fn speaks_what_it_says(said: &ListenerConfig, listener: &Listener) {
    let tls = said.tls.is_some() || said.mtls != Mtls::Disabled;
    assert_eq!((listener.speaks_tls(), listener.mtls), (tls, said.mtls));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2000)))]

    #[test]
    fn mutated_yaml_never_panics(text in mutated(YAML)) {
        read(&text, Format::Yaml);
    }

    #[test]
    fn mutated_json_never_panics(text in mutated(JSON)) {
        read(&text, Format::Json);
        // JSON is YAML, too.
        read(&text, Format::Yaml);
    }

    #[test]
    fn any_text_never_panics(text in any::<String>()) {
        read(&text, Format::Yaml);
        read(&text, Format::Json);
    }
}

#[test]
fn both_samples_are_accepted() {
    assert!(load(YAML, Format::Yaml).is_ok(), "{}", load(YAML, Format::Yaml).unwrap_err());
    assert!(load(JSON, Format::Json).is_ok(), "{}", load(JSON, Format::Json).unwrap_err());
    assert!(load(JSON, Format::Yaml).is_ok(), "{}", load(JSON, Format::Yaml).unwrap_err());
}

#[test]
fn json_gives_one_hash_through_either_reader() {
    let hash = |format| *Table::compile(&load(JSON, format).unwrap().config).unwrap().hash();
    assert_eq!(hash(Format::Json), hash(Format::Yaml));
}
