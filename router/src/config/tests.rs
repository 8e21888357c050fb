//! What a file may say: defaults, every refusal with its place, and every maximum at its edge.

use crate::limits::*;
use crate::{Format, Problem, Problems, Severity, Table, load};

fn problems(yaml: &str) -> Vec<Problem> {
    match load(yaml, Format::Yaml) {
        Ok(loaded) => panic!("accepted: {:?}", loaded.config),
        Err(Problems(problems)) => problems,
    }
}

fn warnings(yaml: &str) -> Vec<String> {
    let loaded = load(yaml, Format::Yaml).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.warnings.iter().all(|problem| problem.severity == Severity::Warning));
    loaded.warnings.iter().map(ToString::to_string).collect()
}

/// A file around one rule.
fn with_rule(rule: &str) -> String {
    format!(
        "listeners: [{{name: in, address: \"127.0.0.1:0\"}}]\n\
         clusters: [{{name: a, endpoints: [{{address: \"10.0.0.1:80\"}}]}}]\n\
         routes:\n- name: r\n  rules:\n  - {rule}\n"
    )
}

/// The design's sketch of the whole model, verbatim.
const SKETCH: &str = r#"identity:
  certificate: certs/tls.crt
  key: certs/tls.key
  trust_bundle: certs/ca.crt
admin: 127.0.0.1:4191
listeners:
  - {name: inbound,  address: "0.0.0.0:4143",  direction: inbound,  mtls: permissive, transparent: true}
  - {name: outbound, address: "127.0.0.1:4140", direction: outbound, transparent: true}
routes:
  - name: reviews
    hosts: [reviews, reviews.default.svc.cluster.local]
    rules:
      - matches: [{headers: [{name: end-user, exact: jason}]}]
        backends: [{cluster: reviews-v2}]
      - backends: [{cluster: reviews-v1, weight: 90}, {cluster: reviews-v3, weight: 10}]
        timeout: 2s
        retry: {attempts: 2, per_try_timeout: 500ms}
clusters:
  - name: reviews-v1
    identity: spiffe://cluster.local/ns/default/sa/reviews
    endpoints: [{address: "10.0.0.7:4143"}]
policies:
  - {name: only-productpage, to: {listener: inbound}, allow: [{identity: "spiffe://cluster.local/ns/default/sa/productpage", methods: [GET]}]}
"#;

#[test]
fn full_sketch_is_refused_for_exactly_what_this_version_lacks() {
    let found: Vec<String> = problems(SKETCH).iter().map(ToString::to_string).collect();
    let lacking = |place: &str, path: &str| {
        let name = path.rsplit('.').next().unwrap();
        format!("{place}: {path}: `{name}` is not supported by this version")
    };
    let expected = [
        lacking("7:48", "listeners[0].direction"),
        lacking("7:87", "listeners[0].transparent"),
        lacking("8:49", "listeners[1].direction"),
        lacking("8:70", "listeners[1].transparent"),
        // The sketch leaves the clusters of the other versions out.
        "14:30: routes[0].rules[0].backends[0].cluster: there is no cluster `reviews-v2` \
         (hint: did you mean `reviews-v1`?)"
            .to_owned(),
        "15:65: routes[0].rules[1].backends[1].cluster: there is no cluster `reviews-v3` \
         (hint: did you mean `reviews-v1`?)"
            .to_owned(),
        lacking("17:9", "routes[0].rules[1].retry"),
        lacking("22:1", "policies"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn sketch_without_what_this_version_lacks_is_accepted() {
    let lacking = ["policies:", "  - {name: only", "        retry:"];
    let lines = SKETCH.lines().filter(|line| !lacking.iter().any(|lacks| line.starts_with(lacks)));
    let kept = lines.fold(String::new(), |kept, line| kept + line + "\n");
    let kept = kept
        .replace("direction: inbound,  mtls: permissive, transparent: true", "mtls: strict")
        .replace(", direction: outbound, transparent: true", "")
        .replace("reviews-v2", "reviews-v1")
        .replace("reviews-v3", "reviews-v1");
    let loaded = load(&kept, Format::Yaml).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.warnings, []);
    assert_eq!(Table::compile(&loaded.config).unwrap().route_name(crate::RouteId(0)), "reviews");
}

#[test]
fn every_problem_is_reported_at_once_with_its_place() {
    let yaml = r#"listenrs: []
drain: {delay: 30s}
listeners:
  - {name: a, address: "127.0.0.1:80", protocol: h2c}
  - {name: a, address: "127.0.0.1:80", protocol: tcp}
  - {name: c, address: localhost, trusted_proxies: [10.0.0.0/33], head_timeout: 5}
routes:
  - name: r
    listeners: [a, d]
    hosts: ["a:80", "*.*.b", ""]
    rules:
      - matches: [{path: {exact: a, prefix: /}}, {path: {regex: "("}}, {headers: [{name: "a b", exact: x}]}]
        backends: [{cluster: x, weight: 1000001}]
        respond: {status: 99}
        timeout: 0s
      - {}
clusters:
  - {name: y, endpoints: [{address: "10.0.0.1"}], balance: maglev, connect_timeot: 1s}
"#;
    let expected = [
        "1:1: listenrs: unknown field `listenrs` (hint: did you mean `listeners`?)",
        "2:16: drain.delay: must not be longer than `timeout`, which includes it",
        "4:50: listeners[0].protocol: `h2c` is not supported by this version",
        "5:12: listeners[1].name: listeners[0] is called `a` already",
        "5:24: listeners[1].address: listeners[0] has the address 127.0.0.1:80 already",
        "5:5: listeners[1].cluster: a tcp listener needs a cluster",
        "6:24: listeners[2].address: `localhost` is not an ip:port",
        "6:53: listeners[2].trusted_proxies[0]: `10.0.0.0/33` is neither",
        "6:81: listeners[2].head_timeout: `5` has no unit",
        "9:17: routes[0].listeners[0]: the listener `a` is tcp",
        "9:20: routes[0].listeners[1]: there is no listener `d`",
        "10:13: routes[0].hosts[0]: `a:80`: a host has no port",
        "10:21: routes[0].hosts[1]: `*.*.b`: `*` stands only",
        "10:30: routes[0].hosts[2]: ``: a host must not be empty",
        "12:26: routes[0].rules[0].matches[0].path: needs exactly one of",
        "12:65: routes[0].rules[0].matches[1].path.regex: not a regular expression",
        "12:90: routes[0].rules[0].matches[2].headers[0].name: the name of a header field has",
        "13:30: routes[0].rules[0].backends[0].cluster: there is no cluster `x`",
        "13:41: routes[0].rules[0].backends[0].weight: `1000001` is not a whole number",
        "14:27: routes[0].rules[0].respond.status: must be from 200 to 599",
        "15:18: routes[0].rules[0].timeout: must be longer than 0",
        "16:9: routes[0].rules[1]: needs exactly one of `backends`",
        "18:37: clusters[0].endpoints[0].address: `10.0.0.1` has no port",
        "18:60: clusters[0].balance: `maglev` is not supported by this version",
        "18:68: clusters[0].connect_timeot: unknown field `connect_timeot` (hint: did you mean `connect_timeout`?)",
    ];
    let found: Vec<String> = problems(yaml).iter().map(ToString::to_string).collect();
    for expected in expected {
        assert!(
            found.iter().any(|f| f.starts_with(expected)),
            "no {expected}\n{}",
            found.join("\n")
        );
    }
    // One more: a rule with two actions.
    assert_eq!(found.len(), expected.len() + 1, "{}", found.join("\n"));
}

#[test]
fn repeated_keys_are_problems_in_both_formats() {
    let yaml = with_rule("{backends: [{cluster: a}], timeout: 1s, timeout: 2s}");
    let found = problems(&yaml);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].message, "`timeout` is here twice");
    let json = r#"{"listeners": [{"name": "in", "address": "127.0.0.1:0", "name": "b"}]}"#;
    let Problems(found) = load(json, Format::Json).unwrap_err();
    assert_eq!((found[0].line, found[0].column), (1, 57));
}

#[test]
fn fields_that_frame_a_message_cannot_be_edited() {
    let names =
        ["Connection", "content-length", "Transfer-Encoding", "Host", "TE", "upgrade", "a b", ""];
    for name in names {
        for edit in [format!("remove: [\"{name}\"]"), format!("set: {{\"{name}\": x}}")] {
            for which in ["request_headers", "response_headers"] {
                let rule = format!("{{backends: [{{cluster: a}}], {which}: {{{edit}}}}}");
                assert_eq!(problems(&with_rule(&rule)).len(), 1, "{rule}");
            }
        }
    }
    let split =
        with_rule(r#"{backends: [{cluster: a}], response_headers: {add: {x: "a\r\nb: c"}}}"#);
    assert!(problems(&split)[0].message.contains("control characters"));
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let refused = [
        ("{backends: [{cluster: a}], respond: {status: 200}}", "exactly one"),
        ("{respond: {status: 204, body: x}}", "no body"),
        ("{respond: {status: 200}, rewrite: {host: b}}", "only requests to `backends`"),
        ("{redirect: {status: 305, host: a}}", "301"),
        ("{redirect: {}}", "leads back"),
        ("{redirect: {scheme: ftp}}", "`http` or `https`"),
        (
            "{matches: [{path: {prefix: /a}}, {path: {prefix: /b}}], backends: [{cluster: a}], rewrite: {path: {prefix: /c}}}",
            "same `path.prefix`",
        ),
        (
            "{matches: [{path: {exact: /a}}], backends: [{cluster: a}], rewrite: {path: {prefix: /c}}}",
            "same `path.prefix`",
        ),
        ("{matches: [{path: {exact: /a/../b}}], backends: [{cluster: a}]}", "write `/b`"),
        ("{matches: [{path: {prefix: a}}], backends: [{cluster: a}]}", "slash"),
        ("{matches: [{path: {prefix: /a//b}}], backends: [{cluster: a}]}", "empty segments"),
        (
            "{matches: [{headers: [{name: a, present: false}]}], backends: [{cluster: a}]}",
            "not supported",
        ),
        (
            "{matches: [{headers: [{name: a, exact: x}, {name: A, exact: y}]}], backends: [{cluster: a}]}",
            "already",
        ),
        ("{matches: [{method: \"G T\"}], backends: [{cluster: a}]}", "method"),
        ("{backends: [{cluster: a}], max_request_body: 5XB}", "bytes"),
        ("{backends: [{cluster: a}], timeout: 8d}", "7 days"),
        ("{backends: [{cluster: a}], timeout: 1us}", "milliseconds"),
        ("{backends: [{cluster: a, weight: -1}]}", "whole number"),
        ("{backends: [{cluster: a, weight: \"1\"}]}", "expected a number"),
        ("{backends: {cluster: a}}", "expected a list"),
        ("[]", "expected a rule"),
    ];
    for (rule, word) in refused {
        let found = problems(&with_rule(rule));
        let text = Problems(found.clone()).to_string();
        assert_eq!(found.len(), 1, "{rule}: {text}");
        assert!(text.contains(word), "{rule}: {text}");
    }
}

#[test]
fn regexes_are_anchored_whatever_they_contain() {
    for pattern in ["a|b", "(?x) a | b # comment", "(?i)A|B"] {
        let regex = super::check::regex(pattern).unwrap();
        assert!(regex.is_match(b"a") && regex.is_match(b"b"), "{pattern}");
        assert!(!regex.is_match(b"ab") && !regex.is_match(b"xa") && !regex.is_match(b"a\n"));
    }
    assert!(super::check::regex("a)(b").is_err());
    assert!(super::check::regex("\\w{1000}{100}").unwrap_err().contains("needs more"));
}

#[test]
fn suspicious_configurations_are_remarked() {
    let yaml = r#"
listeners: [{name: in, address: "127.0.0.1:0"}]
routes:
  - name: first
    hosts: [a, b]
    rules:
      - {matches: [{headers: [{name: X, present: true}]}], backends: [{cluster: c}]}
      - {backends: [{cluster: c, weight: 0}]}
  - name: second
    hosts: [a]
    rules:
      - {matches: [{headers: [{name: x, exact: y}]}], backends: [{cluster: c}]}
      - {matches: [{method: GET}], backends: [{cluster: c}]}
      - {matches: [{path: {prefix: /}}], backends: [{cluster: c}]}
  - {name: third, hosts: [a, c], rules: [{backends: [{cluster: c}]}]}
clusters:
  - {name: c, endpoints: []}
  - {name: unused, endpoints: [{address: "10.0.0.1:1", weight: 0}]}
"#;
    let expected = [
        "8:20: warning: routes[0].rules[1].backends: all weights are 0: every request is answered 500",
        "12:9: warning: routes[1].rules[0]: is never reached: routes[0].rules[0] answers before",
        "14:9: warning: routes[1].rules[2]: is never reached: routes[0].rules[1] answers before",
        "17:26: warning: clusters[0].endpoints: no endpoints: every request is answered 503",
        "18:5: warning: clusters[1]: no rule or listener uses cluster `unused`",
        "18:31: warning: clusters[1].endpoints: all weights are 0: every request is answered 503",
    ];
    assert_eq!(warnings(yaml), expected);
}

#[test]
fn hash_depends_on_what_is_said_and_not_on_how() {
    let yaml = r#"
# a comment
listeners:
  - name: in
    address: 127.0.0.1:80
    trusted_proxies: [10.0.0.0/8]
routes:
  - {name: r, rules: [{timeout: 1m, backends: [{weight: 1, cluster: a}]}]}
clusters: [{name: a, endpoints: [{address: "10.0.0.1:80"}], balance: least_request}]
drain: {delay: 5s}
"#;
    let json = r#"{"clusters": [{"endpoints": [{"address": "10.0.0.1:80"}], "name": "a"}],
        "routes": [{"rules": [{"backends": [{"cluster": "a"}], "timeout": "60s"}], "name": "r"}],
        "listeners": [{"address": "127.0.0.1:80", "trusted_proxies": ["10.1.2.3/8"], "name": "in"}]}"#;
    let hash =
        |text: &str, format| *Table::compile(&load(text, format).unwrap().config).unwrap().hash();
    let one = hash(yaml, Format::Yaml);
    assert_eq!(one, hash(json, Format::Json));
    assert_eq!(one.to_string().len(), 64);
    assert!(one.to_string().starts_with(&one.short()) && one.short().len() == 12);
    let changes = [
        ("1m", "61s"),
        ("name: r", "name: s"),
        ("weight: 1", "weight: 2"),
        (":80\"", ":81\""),
        ("least_request", "round_robin"),
        ("delay: 5s", "delay: 6s"),
        ("10.0.0.0/8", "10.0.0.0/9"),
        ("name: in", "name: out"),
    ];
    for (from, to) in changes {
        assert_ne!(one, hash(&yaml.replacen(from, to, 1), Format::Yaml), "{from} to {to}");
    }
}

/// Accepted at the maximum, refused one past it.
fn at_and_past(max: usize, make: impl Fn(usize) -> String) {
    if let Err(problems) = load(&make(max), Format::Yaml) {
        panic!("at {max}: {}", &problems.to_string()[..200]);
    }
    let Problems(problems) = load(&make(max + 1), Format::Yaml).unwrap_err();
    assert!(problems.len() <= 2, "past {max}: {}", problems.len());
}

fn list(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(", ")
}

#[test]
fn limits_of_a_rule_hold_at_and_one_past() {
    at_and_past(MATCHES_MAX, |n| {
        with_rule(&format!(
            "{{matches: [{}], backends: [{{cluster: a}}]}}",
            list(n, |n| format!("{{path: {{exact: /{n}}}}}"))
        ))
    });
    at_and_past(BACKENDS_MAX, |n| {
        with_rule(&format!(
            "{{backends: [{}]}}",
            list(n, |_| format!("{{cluster: a, weight: {WEIGHT_MAX}}}"))
        ))
    });
    at_and_past(WEIGHT_MAX as usize, |n| {
        with_rule(&format!("{{backends: [{{cluster: a, weight: {n}}}]}}"))
    });
    for which in ["headers", "query"] {
        at_and_past(CONDITIONS_MAX, |n| {
            let conditions = list(n, |n| format!("{{name: h{n}, present: true}}"));
            with_rule(&format!(
                "{{matches: [{{{which}: [{conditions}]}}], backends: [{{cluster: a}}]}}"
            ))
        });
    }
    at_and_past(EDITS_MAX, |n| {
        with_rule(&format!(
            "{{backends: [{{cluster: a}}], request_headers: {{set: {{{}}}}}}}",
            list(n, |n| format!("h{n}: x"))
        ))
    });
    at_and_past(EDITS_MAX, |n| {
        with_rule(&format!(
            "{{backends: [{{cluster: a}}], request_headers: {{remove: [{}]}}}}",
            list(n, |n| format!("h{n}"))
        ))
    });
    at_and_past(RESPOND_BYTES_MAX, |n| {
        with_rule(&format!("{{respond: {{body: {}}}}}", "x".repeat(n)))
    });
    at_and_past(PATH_BYTES_MAX, |n| {
        with_rule(&format!(
            "{{matches: [{{path: {{exact: /{}}}}}], backends: [{{cluster: a}}]}}",
            "x".repeat(n - 1)
        ))
    });
    at_and_past(PREFIX_SEGMENTS_MAX, |n| {
        with_rule(&format!(
            "{{matches: [{{path: {{prefix: {}}}}}], backends: [{{cluster: a}}]}}",
            "/x".repeat(n)
        ))
    });
    at_and_past(REGEX_BYTES_MAX, |n| {
        with_rule(&format!(
            "{{matches: [{{path: {{regex: {}}}}}], backends: [{{cluster: a}}]}}",
            "x".repeat(n)
        ))
    });
    at_and_past(VALUE_BYTES_MAX, |n| {
        with_rule(&format!(
            "{{backends: [{{cluster: a}}], request_headers: {{set: {{h: {}}}}}}}",
            "x".repeat(n)
        ))
    });
    at_and_past(TOKEN_BYTES_MAX, |n| {
        with_rule(&format!(
            "{{matches: [{{method: {}}}], backends: [{{cluster: a}}]}}",
            "X".repeat(n)
        ))
    });
}

/// A file with the three lists.
fn file(listeners: &str, clusters: &str, routes: &str) -> String {
    format!("listeners: [{listeners}]\nclusters: [{clusters}]\nroutes: [{routes}]\n")
}

const LISTENER: &str = "{name: in, address: \"127.0.0.1:0\"}";
const RULES: &str = "rules: [{respond: {}}]";

#[test]
fn limits_of_a_file_hold_at_and_one_past() {
    at_and_past(LISTENERS_MAX, |n| {
        file(&list(n, |n| format!("{{name: l{n}, address: \"127.0.0.1:0\"}}")), "", "")
    });
    at_and_past(ROUTES_MAX, |n| {
        file(LISTENER, "", &list(n, |n| format!("{{name: r{n}, hosts: [h{n}], {RULES}}}")))
    });
    at_and_past(CLUSTERS_MAX, |n| file(LISTENER, &list(n, |n| format!("{{name: c{n}}}")), ""));
    at_and_past(HOSTS_MAX, |n| {
        file(
            LISTENER,
            "",
            &format!("{{name: r, hosts: [{}], {RULES}}}", list(n, |n| format!("h{n}"))),
        )
    });
    at_and_past(RULES_MAX, |n| {
        file(
            LISTENER,
            "",
            &format!("{{name: r, rules: [{}]}}", list(n, |_| "{respond: {}}".to_owned())),
        )
    });
    at_and_past(ENDPOINTS_MAX, |n| {
        file(
            LISTENER,
            &format!(
                "{{name: c, endpoints: [{}]}}",
                list(n, |n| format!("{{address: \"h{n}:1\"}}"))
            ),
            "",
        )
    });
    at_and_past(TRUSTED_PROXIES_MAX, |n| {
        file(
            &format!(
                "{{name: in, address: \"127.0.0.1:0\", trusted_proxies: [{}]}}",
                list(n, |_| "10.0.0.1".to_owned())
            ),
            "",
            "",
        )
    });
    at_and_past(NAME_BYTES_MAX, |n| file(LISTENER, &format!("{{name: {}}}", "x".repeat(n)), ""));
    at_and_past(HOST_LABELS_MAX, |n| {
        file(LISTENER, "", &format!("{{name: r, hosts: [{}], {RULES}}}", vec!["x"; n].join(".")))
    });
    at_and_past(METHODS_MAX, |n| {
        let rules = list(n, |n| format!("{{matches: [{{method: M{n}}}], respond: {{}}}}"));
        file(LISTENER, "", &format!("{{name: r, rules: [{rules}]}}"))
    });
    at_and_past(REGEXES_MAX, |n| {
        let route = |r: usize| {
            let count = (n - r * 2048).min(2049);
            let rules = list(count, |n| {
                format!("{{matches: [{{path: {{regex: /{r}/{n}}}}}], respond: {{}}}}")
            });
            format!("{{name: r{r}, rules: [{rules}]}}")
        };
        file(
            LISTENER,
            "",
            &format!(
                "{}, {}",
                route(0).replace(", {matches: [{path: {regex: /0/2048}}], respond: {}}", ""),
                route(1)
            ),
        )
    });
    at_and_past(CANDIDATES_MAX, |n| {
        let hosts = list(HOSTS_MAX, |n| format!("h{n}"));
        let rules = |count| list(count, |_| "{respond: {}}".to_owned());
        let whole = format!("{{name: r, hosts: [{hosts}], rules: [{}]}}", rules(n / HOSTS_MAX));
        let rest = match n % HOSTS_MAX {
            0 => String::new(),
            rest => format!(", {{name: s, rules: [{}]}}", rules(rest)),
        };
        file(LISTENER, "", &format!("{whole}{rest}"))
    });
}

#[test]
fn problems_past_their_maximum_are_counted() {
    let routes = list(PROBLEMS_MAX + 5, |n| format!("{{name: r{n}, rules: []}}"));
    let found = problems(&file(LISTENER, "", &routes));
    assert_eq!(found.len(), PROBLEMS_MAX + 1);
    assert_eq!(found[PROBLEMS_MAX].message, "5 more problems are not listed");
}

#[test]
fn schema_names_every_field_of_the_model() {
    let yaml = r#"
identity: {certificate: a, key: b, trust_bundle: c, revocation_lists: [d]}
admin: 127.0.0.1:1
drain: {delay: 1s, timeout: 2s}
listeners:
  - {name: a, address: "127.0.0.1:1", accept_proxy_protocol: true, trusted_proxies: [10.0.0.1],
     head_timeout: 1s, idle_timeout: 1s, max_connections: 1, max_connection_age: 1h}
  - {name: b, address: "127.0.0.1:2", protocol: tcp, cluster: c, mtls: strict}
  - {name: e, address: "127.0.0.1:3", tls: {certificates: [{certificate: a, key: b, ocsp_response: c}],
     min_version: "1.2", resumption: false, handshake_timeout: 1s}}
  - {name: w, address: "127.0.0.1:5", protocol: http2, http2: {max_concurrent_streams: 7, stream_window: 1KiB,
     connection_window: 1MiB, max_frame_size: 32KiB, max_header_list_size: 8KiB, ping_interval: 1s, ping_timeout: 1s}}
  - {name: p, address: "127.0.0.1:4", protocol: tls-passthrough, sni: [{hosts: [h], cluster: c}]}
routes:
  - name: r
    listeners: [a]
    hosts: [h]
    rules:
      - matches: [{path: {prefix: /x}, method: GET, headers: [{name: h, exact: x}], query: [{name: q, regex: y}], identity: "spiffe://d/p"}]
        backends: [{cluster: c, weight: 2}]
        rewrite: {host: z, path: {prefix: /y}}
        request_headers: {remove: [a], set: {b: c}, add: {d: e}}
        response_headers: {remove: [a], set: {b: c}, add: {d: e}}
        timeout: 1s
        idle_timeout: 1s
        max_request_body: 1KiB
      - {matches: [{path: {exact: /}}], redirect: {scheme: https, host: h, port: 1, path: {full: /}, status: 301}}
      - respond: {status: 201, body: b, content_type: text/html, headers: {x: y}}
clusters:
  - {name: c, endpoints: [{address: "n:1", weight: 2}], balance: round_robin, connect_timeout: 2s,
     idle_timeout: 2s, pool: {idle_timeout: 1s, idle_max: 1}, send_proxy_protocol: v2}
  - {name: m, identity: "spiffe://d/p", discovery: pushed}
  - {name: o, tls: {server_name: n, trust_bundle: a, certificate: b, key: c, min_version: "1.3", resumption: false}}
"#;
    let control = format!(
        "control: {{address: \"p:1\", bundle_hash: {}, token_file: t, state_dir: s, node: n, labels: [l], samples: true}}",
        "ab".repeat(32)
    );
    let files = [yaml, &control].map(|text| {
        let loaded = load(text, Format::Yaml).unwrap_or_else(|problems| panic!("{problems}"));
        serde_json::to_value(&loaded.config).unwrap()
    });
    // Written out, the canonical form names every field; read again, it is the same configuration
    // but for units.
    let mut names = std::collections::BTreeSet::new();
    files.iter().for_each(|canonical| collect(canonical, &mut names));
    for schema in SCHEMAS {
        for field in schema.fields {
            assert!(names.contains(*field), "{} has {field}", schema.what);
        }
    }
}

#[test]
fn limits_of_http_2_are_within_what_is_sensible() {
    let of = |protocol: &str, limits: &str| {
        let listener = format!(
            "{{name: a, address: \"127.0.0.1:1\", protocol: {protocol}, http2: {{{limits}}}}}"
        );
        let found = load(&file(&listener, "", ""), Format::Yaml).err();
        let found = found.map(|Problems(found)| found).unwrap_or_default();
        found.into_iter().map(|problem| problem.message).collect::<Vec<_>>()
    };
    assert_eq!(of("http2", "stream_window: 1MiB, ping_interval: 1s"), [""; 0]);
    assert_eq!(of("auto", "max_concurrent_streams: 1"), [""; 0]);
    assert_eq!(of("http1", "stream_window: 1MiB"), ["HTTP/2 is not spoken here"]);
    let refused = [
        ("max_concurrent_streams: 0", "must be from 1 to 10000"),
        ("stream_window: 1023", "must be from 1024 to 67108864 bytes"),
        (
            "stream_window: 5MiB, connection_window: 1MiB",
            "must be from 5242880 to 1073741824 bytes",
        ),
        ("connection_window: 65534", "must be from 65536 to 1073741824 bytes"),
        ("max_frame_size: 16383", "must be from 16384 to 1048576 bytes"),
        ("max_header_list_size: 1GiB", "must be from 1024 to 65536 bytes"),
        ("ping_interval: 999ms", "must be at least 1 s"),
        ("ping_timeout: 99ms", "must be at least 100 ms"),
    ];
    for (limits, message) in refused {
        assert_eq!(of("http2", limits), [message], "{limits}");
    }
    let default = super::http2::Http2Config::DEFAULT;
    assert_eq!(default.connection_bytes(), 250 * 65_536, "room for all streams");
    let large = super::http2::Http2Config { stream_window: 64 << 20, ..default };
    assert_eq!(large.connection_bytes(), (1 << 31) - 1);
    let cluster = "{name: c, http2: {stream_window: 1MiB}}";
    let found = problems(&format!("clusters:\n- {cluster}\n"));
    assert!(
        found.iter().any(|problem| problem.message == "HTTP/2 is not spoken here"),
        "{found:?}"
    );
}

const SCHEMAS: &[&super::schema::Schema] = &[
    &super::schema::CONFIG,
    &super::schema::IDENTITY,
    &super::schema::CONTROL,
    &super::schema::HTTP2,
    &super::schema::LISTENER_TLS,
    &super::schema::PAIR,
    &super::schema::SNI,
    &super::schema::CLUSTER_TLS,
    &super::schema::DRAIN,
    &super::schema::LISTENER,
    &super::schema::ROUTE,
    &super::schema::RULE,
    &super::schema::MATCH,
    &super::schema::BACKEND,
    &super::schema::REWRITE,
    &super::schema::REDIRECT,
    &super::schema::RESPOND,
    &super::schema::EDITS,
    &super::schema::CLUSTER,
    &super::schema::POOL,
    &super::schema::ENDPOINT,
    &super::schema::REPLACE,
];

/// By their names alone: a name that two objects have may be shown in either.
#[test]
fn reference_shows_every_field_of_the_model() {
    let mut text = String::new();
    // What a pusher says does not stand beside what the file says.
    for file in [
        include_str!("../../../deploy/examples/reference.yaml"),
        include_str!("../../../deploy/examples/sidecar.yaml"),
    ] {
        let loaded = load(file, Format::Yaml).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.warnings, []);
        text += file;
    }
    let shown: std::collections::HashSet<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| line.split(['{', ',', ' ']))
        .filter_map(|word| word.strip_suffix(':'))
        .collect();
    for schema in SCHEMAS {
        for field in schema.fields {
            assert!(shown.contains(field), "{} has {field}", schema.what);
        }
    }
}

fn collect(value: &serde_json::Value, names: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                names.insert(name.clone());
                collect(value, names);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, names)),
        _ => {}
    }
}

#[test]
fn a_large_file_on_one_line_does_not_take_minutes() {
    let routes =
        list(50_000, |n| format!("{{\"name\": \"r{n}\", \"rules\": [{{\"backends\": []}}]}}"));
    let json = format!("{{\"listeners\": [], \"routes\": [{routes}]}}");
    let start = std::time::Instant::now();
    assert_eq!(load(&json, Format::Json).unwrap_err().0.len(), PROBLEMS_MAX + 1);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

mod tls;
