//! What a file may say of TLS, identities and names: every refusal with its place, every maximum at
//! its edge, and that files without any of it mean what they meant.

use super::*;
use crate::config::names;

const IDENTITY: &str = "identity: {certificate: a.crt, key: a.key, trust_bundle: ca.crt}\n";

/// The problems as text, which must be as many as `expected` and begin like them.
fn refused(yaml: &str, expected: &[&str]) {
    let found: Vec<String> = problems(yaml).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{yaml}\n{}", found.join("\n"));
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nis not {expected}");
    }
}

#[test]
fn files_without_tls_keep_their_hash() {
    let hash = |text: &str| {
        let loaded = load(text, Format::Yaml).unwrap();
        Table::compile(&loaded.config).unwrap().hash().short()
    };
    // Taken from the version before TLS came into the model.
    assert_eq!(hash(include_str!("../../../../deploy/examples/quickstart.yaml")), "25764186f9d9");
    let corpus = include_str!("../../../../proxy/fuzz/corpus/config/everything.yaml");
    assert_eq!(hash(corpus), "675c5f0a7f99");
}

#[test]
fn every_field_of_tls_counts_for_the_hash() {
    let yaml = r#"
identity: {certificate: a, key: b, trust_bundle: c, revocation_lists: [d]}
listeners:
  - {name: a, address: "127.0.0.1:1", mtls: strict, max_connection_age: 1h}
  - {name: b, address: "127.0.0.1:3", tls: {certificates: [{certificate: e, key: f, ocsp_response: g}],
     min_version: "1.2", resumption: false, handshake_timeout: 1s}}
  - {name: p, address: "127.0.0.1:4", protocol: tls-passthrough, sni: [{hosts: [h], cluster: m}]}
routes: [{name: r, rules: [{matches: [{identity: "spiffe://d/p"}], respond: {}}]}]
clusters:
  - {name: m, identity: ["spiffe://d/q"]}
  - {name: o, tls: {server_name: n, trust_bundle: i, certificate: k, key: l, min_version: "1.3", resumption: false}}
"#;
    let hash = |text: &str| {
        let loaded = load(text, Format::Yaml).unwrap_or_else(|problems| panic!("{problems}"));
        *Table::compile(&loaded.config).unwrap().hash()
    };
    let one = hash(yaml);
    let changes = [
        ("certificate: a", "certificate: x"),
        ("key: b", "key: x"),
        ("trust_bundle: c", "trust_bundle: x"),
        ("[d]", "[x]"),
        ("mtls: strict", "mtls: permissive"),
        ("age: 1h", "age: 2h"),
        ("certificate: e", "certificate: x"),
        ("key: f", "key: x"),
        ("ocsp_response: g", "ocsp_response: x"),
        ("\"1.2\"", "1.3"),
        ("resumption: false, handshake", "resumption: true, handshake"),
        ("handshake_timeout: 1s", "handshake_timeout: 2s"),
        ("hosts: [h]", "hosts: [x]"),
        ("d/p", "d/*"),
        ("d/q", "d/x"),
        ("server_name: n", "server_name: x"),
        ("trust_bundle: i", "trust_bundle: system"),
        ("certificate: k", "certificate: x"),
        ("key: l", "key: x"),
        ("\"1.3\"", "\"1.2\""),
        ("resumption: false}}", "resumption: true}}"),
    ];
    for (from, to) in changes {
        assert!(yaml.contains(from), "{from}");
        assert_ne!(one, hash(&yaml.replacen(from, to, 1)), "{from} to {to}");
    }
    // What states a default, or the same in another way, does not.
    let list = "identity: [\"spiffe://d/q\"]";
    assert!(yaml.contains(list));
    assert_eq!(one, hash(&yaml.replace(list, "identity: \"spiffe://d/q\"")));
    let plain = file(LISTENER, "{name: c, tls: {trust_bundle: system}}", "");
    assert_eq!(hash(&plain), hash(&file(LISTENER, "{name: c, tls: {}}", "")));
}

#[test]
fn mutual_tls_without_an_identity_says_how_to_get_one() {
    let hint = "(hint: add `identity` with certificate, key and trust_bundle)";
    for mode in ["strict", "permissive"] {
        let listener = format!("{{name: a, address: \"127.0.0.1:1\", mtls: {mode}}}");
        let found = problems(&file(&listener, "", ""));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "listeners[0].mtls");
        assert!(found[0].to_string().ends_with(hint), "{}", found[0]);
    }
    let found = problems(&file(LISTENER, "{name: c, identity: \"spiffe://d/p\"}", ""));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path, "clusters[0].identity");
    assert!(found[0].to_string().ends_with(hint), "{}", found[0]);
}

#[test]
fn every_problem_of_an_identity_has_its_place() {
    let yaml = "identity: {certificate: \"\", trust_bundle: [a], revocation_list: x}\n".to_owned()
        + &file(LISTENER, "", "");
    refused(
        &yaml,
        &[
            "1:11: identity.key: a file is required",
            "1:25: identity.certificate: a file is required",
            "1:43: identity.trust_bundle: expected a text, found a list",
            "1:48: identity.revocation_list: unknown field `revocation_list` (hint: did you mean \
             `revocation_lists`?)",
        ],
    );
    let yaml = format!("identity: a.crt\n{}", file(LISTENER, "", ""));
    refused(&yaml, &["1:11: identity: expected an identity with fields, found a single value"]);
}

#[test]
fn a_listener_that_finds_out_may_have_routes_names_and_a_cluster() {
    let yaml = r#"clusters: [{name: c}]
listeners:
  - {name: a, address: "127.0.0.1:1", protocol: auto}
  - {name: b, address: "127.0.0.1:2", protocol: auto, cluster: c, max_connection_age: 1h}
  - {name: d, address: "127.0.0.1:3", protocol: auto, sni: [{hosts: [x.a], cluster: c}]}
routes: [{name: r, listeners: [a, b, d], rules: [{backends: [{cluster: c}]}]}]
"#;
    let config = load(yaml, Format::Yaml).unwrap().config;
    assert!(config.listeners.iter().all(|listener| listener.protocol == crate::Protocol::Auto));
    let yaml = IDENTITY.to_owned()
        + r#"clusters: [{name: c}]
listeners:
  - {name: a, address: "127.0.0.1:1", protocol: auto, tls: {}, sni: [{hosts: [x.a], cluster: c}]}
"#;
    refused(
        &yaml,
        &["4:69: listeners[0].sni: TLS is ended here: there is none to pass on (hint: leave `sni`"],
    );
}

#[test]
fn every_problem_of_a_listener_has_its_place() {
    let yaml = IDENTITY.to_owned()
        + r#"clusters: [{name: c}]
listeners:
  - {name: a, address: "127.0.0.1:1", mtls: yes, tls: {min_version: "1.1"}}
  - {name: b, address: "127.0.0.1:2", mtls: strict, tls: {min_version: "1.2", handshake_timeout: 0s}}
  - {name: c, address: "127.0.0.1:3", tls: {certificates: [{certificate: x}, {key: "a\tb"}]}}
  - {name: d, address: "127.0.0.1:4", sni: [{hosts: [x], cluster: c}], max_connection_age: 999ms}
  - {name: e, address: "127.0.0.1:5", protocol: tcp, cluster: c, max_connection_age: 1h}
  - {name: f, address: "127.0.0.1:6", protocol: tls-passthrough, tls: {}, mtls: strict}
  - name: g
    address: "127.0.0.1:7"
    protocol: tls-passthrough
    sni:
      - {hosts: [x.a, "*.b", X.a., "*"], cluster: c}
      - {hosts: ["*.B", 10.0.0.1, "[::1]", "a:1"], cluster: d}
      - {cluster: c}
"#;
    refused(
        &yaml,
        &[
            "4:45: listeners[0].mtls: `yes` is not known here (hint: one of disabled, permissive,",
            "4:69: listeners[0].tls.min_version: `1.1` is not supported",
            "5:72: listeners[1].tls.min_version: mutual TLS is always 1.3 (hint: leave it out",
            "5:98: listeners[1].tls.handshake_timeout: must be longer than 0",
            "6:60: listeners[2].tls.certificates[0].key: a file is required",
            "6:78: listeners[2].tls.certificates[1].certificate: a file is required",
            "6:84: listeners[2].tls.certificates[1].key: the name of a file has no control",
            "7:44: listeners[3].sni: only a tls-passthrough or auto listener routes by server name",
            "7:92: listeners[3].max_connection_age: must be at least 1 s",
            "8:86: listeners[4].max_connection_age: a tcp connection cannot be told to close",
            "9:5: listeners[5].sni: a tls-passthrough listener needs `sni` or `cluster`",
            "9:71: listeners[5].tls: a tls-passthrough listener hands TLS on as it is (hint: set",
            "9:81: listeners[5].mtls: a tls-passthrough listener hands TLS on as it is (hint: set",
            "14:30: listeners[6].sni[0].hosts[2]: sni[0] has `X.a.` already",
            "14:36: listeners[6].sni[0].hosts[3]: `*`: connections for all other names go to",
            "15:18: listeners[6].sni[1].hosts[0]: sni[0] has `*.B` already",
            "15:25: listeners[6].sni[1].hosts[1]: `10.0.0.1`: clients ask for names",
            "15:35: listeners[6].sni[1].hosts[2]: `[::1]`: clients ask for names",
            "15:44: listeners[6].sni[1].hosts[3]: `a:1`: a host has no port",
            "15:61: listeners[6].sni[1].cluster: there is no cluster `d` (hint: did you mean `c`?)",
            "16:9: listeners[6].sni[2].hosts: at least one host is required",
        ],
    );
}

#[test]
fn routes_cannot_serve_a_listener_that_passes_tls_on() {
    let listener =
        "{name: p, address: \"127.0.0.1:1\", protocol: tls-passthrough, cluster: c}".to_owned();
    let route = "{name: r, listeners: [p], rules: [{respond: {}}]}";
    let found = problems(&file(&listener, "{name: c}", route));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].message, "the listener `p` is tls-passthrough and has no routes");
}

#[test]
fn one_sided_tls_needs_a_certificate_from_somewhere() {
    let listener = |tls: &str| format!("{{name: a, address: \"127.0.0.1:1\", tls: {tls}}}");
    let found = problems(&file(&listener("{}"), "", ""));
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].to_string(),
        "1:52: listeners[0].tls: there is no certificate to show (hint: add `certificates`, or a \
         top-level `identity`)"
    );
    let own = listener("{certificates: [{certificate: a, key: b}]}");
    assert_eq!(warnings(&file(&own, "", "")).len(), 1, "only that there are no routes");
    let tunnel = "{name: a, address: \"127.0.0.1:1\", protocol: tcp, cluster: c, tls: {}}";
    let yaml =
        format!("{IDENTITY}{}", file(tunnel, "{name: c, endpoints: [{address: \"n:1\"}]}", ""));
    assert_eq!(warnings(&yaml), [""; 0]);
}

#[test]
fn every_problem_of_a_cluster_has_its_place() {
    let yaml = IDENTITY.to_owned()
        + r#"listeners: [{name: in, address: "127.0.0.1:0"}]
clusters:
  - {name: a, identity: "spiffe://d", tls: {trust_bundle: x, certificate: y, key: z, min_version: "1.3", server_name: 10.0.0.1}}
  - {name: b, identity: ["spiffe://d/p", "spiffe://d/*", "spiffe://d/p"]}
  - {name: c, identity: []}
  - {name: d, tls: {certificate: x}, endpoints: [{address: "n:1"}]}
  - {name: e, tls: {key: x}, endpoints: [{address: "n:1"}, {address: "10.0.0.1:1"}, {address: "[::1]:1"}]}
  - {name: f, tls: {server_name: a-.b}}
  - {name: g, tls: {}, endpoints: [{address: "x.1:1"}]}
  - {name: h, tls: {server_name: "::1"}, endpoints: [{address: "[::1]:1"}]}
  - {name: i, tls: {}, endpoints: [{address: "x.y.:1"}]}
"#;
    refused(
        &yaml,
        &[
            "4:25: clusters[0].identity: is a trust domain and not somebody in it",
            "4:59: clusters[0].tls.trust_bundle: with `identity`, the trust_bundle is that of the",
            "4:75: clusters[0].tls.certificate: with `identity`, the certificate is that of",
            "4:83: clusters[0].tls.key: with `identity`, the key is that of the top-level",
            "4:99: clusters[0].tls.min_version: with `identity`, the version is always 1.3 (hint:",
            "4:119: clusters[0].tls.server_name: a name does not end in a number",
            "5:42: clusters[1].identity[1]: `/*` stands only at the end of a match",
            "5:58: clusters[1].identity[2]: is here twice",
            "6:25: clusters[2].identity: at least one identity is required",
            "7:20: clusters[3].tls.key: `certificate` needs its `key`",
            "8:20: clusters[4].tls.certificate: `key` needs its `certificate`",
            "8:20: clusters[4].tls.server_name: is required: endpoints[1], `10.0.0.1:1`, has no",
            "9:34: clusters[5].tls.server_name: a label neither starts nor ends with `-`",
            "10:20: clusters[6].tls.server_name: is required: endpoints[0], `x.1:1`, has no",
        ],
    );
}

#[test]
fn fields_about_trust_with_nothing_behind_them_are_refused() {
    let identity = "certificate: a, key: b, trust_bundle: c";
    let cases = [
        ("identity:\n".to_owned(), "identity"),
        (format!("identity: {{{identity}, revocation_lists: }}\n"), "identity.revocation_lists"),
    ];
    for (head, path) in cases {
        let found = problems(&(head + &file(LISTENER, "", "")));
        assert_eq!((found.len(), found[0].path.as_str()), (1, path), "{found:?}");
        assert!(found[0].message.contains("nothing behind it"));
    }
    let listener = |field: &str| format!("{{name: a, address: \"127.0.0.1:1\", {field}: }}");
    for field in ["mtls", "tls"] {
        let found = problems(&file(&listener(field), "", ""));
        assert_eq!((found.len(), found[0].path.clone()), (1, format!("listeners[0].{field}")));
    }
    for field in ["tls: ~", "identity: null", "tls: {server_name: n, trust_bundle: }"] {
        let found = problems(&file(LISTENER, &format!("{{name: a, {field}}}"), ""));
        assert_eq!(found.len(), 1, "{found:?}");
    }
    let everybody = with_rule("{matches: [{identity: }], backends: [{cluster: a}]}");
    assert_eq!(problems(&everybody).len(), 1);
    // Other fields take nothing as not being there, as before.
    assert!(load(&file(&listener("cluster"), "", ""), Format::Yaml).is_ok());
}

#[test]
fn identities_are_as_strict_as_the_specification() {
    let workload = "spiffe://cluster.local/ns/default/sa/web";
    for good in
        [workload, "spiffe://a/b", "spiffe://0_.-/A-z_0.9", "spiffe://d/...", "spiffe://d/.a"]
    {
        assert_eq!(names::identity(good), Ok(()), "{good}");
        assert_eq!(names::identity_pattern(good), Ok(()), "{good}");
        assert_eq!(names::identity_pattern(&format!("{good}/*")), Ok(()), "{good}");
        assert!(names::identity(&format!("{good}/*")).is_err(), "{good}");
    }
    assert_eq!(names::identity_pattern("spiffe://d/*"), Ok(()));
    for bad in [
        "",
        "web",
        "*",
        "spiffe:",
        "spiffe://",
        "spiffe:///a",
        "SPIFFE://d/a",
        "https://d/a",
        " spiffe://d/a",
        "spiffe://D/a",
        "spiffe://d:1/a",
        "spiffe://u@d/a",
        "spiffe://d%41/a",
        "spiffe://d",
        "spiffe://d/",
        "spiffe://d/a/",
        "spiffe://d//a",
        "spiffe://d/./a",
        "spiffe://d/a/..",
        "spiffe://d/a%20b",
        "spiffe://d/a?b",
        "spiffe://d/a#b",
        "spiffe://d/a b",
        "spiffe://d/\u{e9}",
        "spiffe://d/a*",
        "spiffe://d/*/a",
        "spiffe://*/a",
        "spiffe://d/**",
        "spiffe://d/a/*/*",
    ] {
        assert!(names::identity(bad).is_err(), "{bad}");
        assert!(names::identity_pattern(bad).is_err(), "{bad}");
    }
}

#[test]
fn server_names_are_those_that_a_client_can_ask_for() {
    for good in ["a", "api.example.com", "a.b.", "_x.y", "1.a", "a--b.c"] {
        assert_eq!(names::server_name(good), Ok(()), "{good}");
    }
    for bad in ["", ".", "a..b", "-a", "a-", "a.-b", "1", "10.0.0.1", "a.1", "a:1", "*.a", "a b"] {
        assert!(names::server_name(bad).is_err(), "{bad}");
    }
}

#[test]
fn limits_of_tls_hold_at_and_one_past() {
    let identity = |lists: &str| {
        format!(
            "identity: {{certificate: a, key: b, trust_bundle: c, revocation_lists: [{lists}]}}\n"
        )
    };
    at_and_past(REVOCATION_LISTS_MAX, |n| {
        identity(&list(n, |n| format!("f{n}"))) + &file(LISTENER, "", "")
    });
    at_and_past(FILE_NAME_BYTES_MAX, |n| identity(&"x".repeat(n)) + &file(LISTENER, "", ""));
    at_and_past(CERTIFICATES_MAX, |n| {
        let pairs = list(n, |n| format!("{{certificate: c{n}, key: k{n}}}"));
        let tls = format!("tls: {{certificates: [{pairs}]}}");
        file(&format!("{{name: a, address: \"127.0.0.1:1\", {tls}}}"), "", "")
    });
    let passing = |sni: &str| {
        let listener = format!(
            "{{name: a, address: \"127.0.0.1:1\", protocol: tls-passthrough, sni: [{sni}]}}"
        );
        file(&listener, "{name: c}", "")
    };
    at_and_past(SNI_ROUTES_MAX, |n| {
        passing(&list(n, |n| format!("{{hosts: [h{n}], cluster: c}}")))
    });
    at_and_past(HOSTS_MAX, |n| {
        passing(&format!("{{hosts: [{}], cluster: c}}", list(n, |n| format!("h{n}"))))
    });
    at_and_past(IDENTITIES_MAX, |n| {
        let identities = list(n, |n| format!("\"spiffe://d/{n}\""));
        IDENTITY.to_owned() + &file(LISTENER, &format!("{{name: c, identity: [{identities}]}}"), "")
    });
    let of = |identity: &str| {
        with_rule(&format!(
            "{{matches: [{{identity: \"{identity}\"}}], backends: [{{cluster: a}}]}}"
        ))
    };
    at_and_past(SPIFFE_BYTES_MAX, |n| of(&format!("spiffe://d/{}", "x".repeat(n - 11))));
    at_and_past(TRUST_DOMAIN_BYTES_MAX, |n| of(&format!("spiffe://{}/x", "d".repeat(n))));
}

#[test]
fn suspicious_tls_is_remarked() {
    let yaml = IDENTITY.to_owned()
        + r#"listeners:
  - {name: a, address: "127.0.0.1:1", mtls: permissive}
  - {name: b, address: "127.0.0.1:2", tls: {min_version: "1.2"}}
routes:
  - {name: r, listeners: [b], rules: [{matches: [{}, {identity: "spiffe://d/p"}], respond: {}}]}
  - name: s
    rules:
      - {matches: [{identity: "spiffe://d/a/*"}], respond: {}}
      - {matches: [{identity: "spiffe://d/a/b"}, {identity: "spiffe://d/a/c/*"}], respond: {}}
      - {matches: [{identity: "spiffe://d/ab"}], respond: {}}
      - {respond: {}}
clusters:
  - {name: o, tls: {server_name: n}, endpoints: [{address: "10.0.0.1:1"}]}
"#;
    let expected = [
        "3:45: warning: listeners[0].mtls: plaintext is still accepted",
        "4:58: warning: listeners[1].tls.min_version: clients may speak TLS 1.2, which hides less \
         and falls to more attacks",
        "6:65: warning: routes[0].rules[0].matches[1].identity: never holds: no listener of the \
         route asks clients who they are",
        "10:9: warning: routes[1].rules[1]: is never reached: routes[1].rules[0] answers before",
        "14:5: warning: clusters[0]: no rule or listener uses cluster `o`",
    ];
    assert_eq!(warnings(&yaml), expected);
    let unused = format!("{IDENTITY}{}", with_rule("{backends: [{cluster: a}]}"));
    let expected =
        ["1:11: warning: identity: no listener or cluster uses it: nothing is mutual TLS"];
    assert_eq!(warnings(&unused), expected);
    let by_name = file(
        "{name: p, address: \"127.0.0.1:1\", protocol: tls-passthrough, sni: [{hosts: [h], cluster: c}]}",
        "{name: c, endpoints: [{address: \"n:1\"}]}",
        "",
    );
    assert_eq!(warnings(&by_name), [""; 0]);
}
