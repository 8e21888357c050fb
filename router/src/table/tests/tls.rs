//! TLS and identity in the table: what is compiled of a file, names against a linear scan,
//! identities by example.

use proptest::prelude::*;

use super::*;
use crate::config::tls::TlsVersion;
use crate::{Addresses, EndpointTable};

const IDENTITY: &str = "identity: {certificate: a.crt, key: a.key, trust_bundle: ca.crt}\n";

fn pair(certificate: &str, key: &str, ocsp_response: Option<&str>) -> PairFiles {
    PairFiles {
        certificate: certificate.into(),
        key: key.into(),
        ocsp_response: ocsp_response.map(Into::into),
    }
}

#[test]
fn without_tls_in_the_file_there_is_none_in_the_table() {
    let table = table(
        "listeners: [{name: h, address: \"127.0.0.1:1\"}]\n\
         clusters: [{name: c, endpoints: [{address: \"n:1\"}]}]\n",
    );
    let listener = &table.listeners()[0];
    assert!(table.identity().is_none() && !listener.speaks_tls());
    assert_eq!((listener.mtls, &listener.tls), (Mtls::Disabled, &None));
    assert_eq!((listener.max_connection_age, listener.sni.cluster_for(None)), (None, None));
    assert_eq!(table.clusters()[0].tls, None);
}

#[test]
fn mutual_tls_takes_the_identity_and_documented_defaults() {
    let table = table(&format!(
        "{IDENTITY}listeners:\n\
         - {{name: s, address: \"127.0.0.1:1\", mtls: strict, max_connection_age: 1h}}\n\
         - {{name: p, address: \"127.0.0.1:2\", mtls: permissive, tls: {{resumption: false}}}}\n\
         clusters:\n\
         - {{name: one, identity: \"spiffe://d/p\"}}\n\
         - {{name: two, identity: [\"spiffe://d/p\", \"spiffe://d/q\"], tls: {{server_name: n., resumption: false}}}}\n",
    ));
    let identity = table.identity().unwrap();
    assert_eq!((&*identity.certificate, &*identity.key), ("a.crt", "a.key"));
    assert_eq!((&*identity.trust_bundle, identity.revocation_lists.len()), ("ca.crt", 0));
    let [strict, permissive] = table.listeners() else { panic!() };
    let defaults = ListenerTls {
        certificates: Box::default(),
        min_version: TlsVersion::Tls13,
        resumption: true,
        handshake_timeout: Duration::from_secs(10),
    };
    assert_eq!((strict.mtls, &strict.tls), (Mtls::Strict, &Some(defaults.clone())));
    assert_eq!(strict.max_connection_age, Some(Duration::from_secs(3600)));
    let unresumed = ListenerTls { resumption: false, ..defaults };
    assert_eq!((permissive.mtls, &permissive.tls), (Mtls::Permissive, &Some(unresumed)));
    assert!(strict.speaks_tls() && permissive.speaks_tls());
    let expected = ["spiffe://d/p".into()];
    let one = ClusterTls::Mesh { expected: expected.into(), server_name: None, resumption: true };
    assert_eq!(table.clusters()[0].tls, Some(one));
    let two = ClusterTls::Mesh {
        expected: ["spiffe://d/p".into(), "spiffe://d/q".into()].into(),
        server_name: Some("n".into()),
        resumption: false,
    };
    assert_eq!(table.clusters()[1].tls, Some(two));
}

#[test]
fn one_sided_tls_keeps_its_certificates_in_their_order() {
    let table = table(
        "listeners:\n\
         - {name: e, address: \"127.0.0.1:1\", tls: {certificates: [{certificate: b, key: c}, \
         {certificate: a, key: d, ocsp_response: e}], min_version: 1.2, handshake_timeout: 3s}}\n\
         clusters:\n\
         - {name: o, tls: {}, endpoints: [{address: \"n:1\"}]}\n\
         - {name: p, tls: {server_name: m, trust_bundle: ./system, certificate: a, key: b, min_version: \"1.3\", resumption: false}}\n",
    );
    let listener = &table.listeners()[0];
    let expected = ListenerTls {
        certificates: [pair("b", "c", None), pair("a", "d", Some("e"))].into(),
        min_version: TlsVersion::Tls12,
        resumption: true,
        handshake_timeout: Duration::from_secs(3),
    };
    assert_eq!((listener.mtls, &listener.tls), (Mtls::Disabled, &Some(expected)));
    let expected = ClusterTls::Outside {
        server_name: None,
        roots: RootsFile::System,
        pair: None,
        min_version: TlsVersion::Tls12,
        resumption: true,
    };
    assert_eq!(table.clusters()[0].tls, Some(expected));
    let expected = ClusterTls::Outside {
        server_name: Some("m".into()),
        roots: RootsFile::File("./system".into()),
        pair: Some(pair("a", "b", None)),
        min_version: TlsVersion::Tls13,
        resumption: false,
    };
    assert_eq!(table.clusters()[1].tls, Some(expected));
}

/// A table whose listener passes TLS on.
fn passing(sni: &str) -> Table {
    table(&format!(
        "listeners: [{{name: p, address: \"127.0.0.1:1\", protocol: tls-passthrough, {sni}}}]\n\
         clusters: [{{name: c0}}, {{name: c1}}, {{name: c2}}, {{name: c3}}]\n"
    ))
}

#[test]
fn exact_name_goes_before_longest_suffix_before_the_cluster() {
    let table = passing(
        "cluster: c3, sni: [{hosts: [\"*.b\"], cluster: c0}, {hosts: [\"*.a.b\", x.B.], cluster: c1}, \
         {hosts: [y.a.b], cluster: c2}]",
    );
    let sni = &table.listeners()[0].sni;
    let cluster = |name| sni.cluster_for(name).map(ClusterId::index);
    for (name, expected) in [
        ("Y.a.b", 2),
        ("y.a.b.", 2),
        ("z.a.b", 1),
        ("z.y.a.b", 1),
        ("x.b", 1),
        ("a.b", 0),
        ("z.x.b", 0),
        ("b", 3),
        (".b", 3),
        ("", 3),
        ("*", 3),
    ] {
        assert_eq!(cluster(Some(name)), Some(expected), "{name}");
    }
    assert_eq!(cluster(None), Some(3));
    assert_eq!(cluster(Some(&"x.".repeat(200))), Some(3));
    let strict = passing("sni: [{hosts: [a], cluster: c0}]");
    let sni = &strict.listeners()[0].sni;
    assert_eq!(sni.cluster_for(Some("a")), Some(ClusterId(0)));
    assert_eq!((sni.cluster_for(Some("b")), sni.cluster_for(None)), (None, None));
    assert_eq!(strict.listeners()[0].idle_timeout, Duration::from_secs(3600));
}

#[test]
fn identity_counts_after_query_conditions_and_before_order() {
    let table = routes(
        "- name: r\n  rules:\n\
         \x20 - {respond: {}}\n\
         \x20 - {matches: [{identity: \"spiffe://d/ns/a\"}], respond: {}}\n\
         \x20 - {matches: [{identity: \"spiffe://d/ns/*\"}], respond: {}}\n\
         \x20 - {matches: [{query: [{name: q, present: true}]}], respond: {}}\n\
         \x20 - {matches: [{query: [{name: q, present: true}], identity: \"spiffe://d/*\"}], respond: {}}\n\
         \x20 - {matches: [{headers: [{name: h, present: true}], identity: \"spiffe://e/x\"}], respond: {}}\n",
    );
    let ask = |identity, query| rule(&table, &RequestKey { identity, query, ..PLAIN });
    assert_eq!(ask(None, None), Some(0));
    assert_eq!(ask(Some("spiffe://d/ns/a"), None), Some(1));
    for (identity, expected) in [
        ("spiffe://d/ns/b", 2),
        ("spiffe://d/ns/a/c", 2),
        ("spiffe://d/ns", 0),
        ("spiffe://d/ns/", 0),
        ("spiffe://d/nsx/a", 0),
        ("spiffe://d2/ns/a", 0),
        ("spiffe://e/x", 0),
    ] {
        assert_eq!(ask(Some(identity), None), Some(expected), "{identity}");
    }
    assert_eq!(ask(None, Some("q")), Some(3));
    assert_eq!(ask(Some("spiffe://d/ns/a"), Some("q")), Some(4));
    assert_eq!(ask(Some("spiffe://e/ns/a"), Some("q")), Some(3));
    let fields = [Field { name: "h", value: b"" }];
    let key = RequestKey { fields: &fields, identity: Some("spiffe://e/x"), ..PLAIN };
    assert_eq!(rule(&table, &key), Some(5));
    assert_eq!(rule(&table, &RequestKey { identity: Some("spiffe://e/x/y"), ..key }), Some(0));
}

#[test]
fn explanation_says_who_the_client_is_and_whom_a_rule_is_for() {
    let table = routes(
        "- name: r\n  rules:\n\
         \x20 - {matches: [{identity: \"spiffe://d/ns/*\"}], respond: {}}\n",
    );
    let explain = |identity| crate::explain(&table, None, "GET", "/", &[], identity);
    let found = explain(Some("spiffe://d/ns/a"));
    assert_eq!(found.rule, Some(RuleId(0)));
    let expected = "\
GET host (none) path / at listener in from spiffe://d/ns/a
  route r, rule 0 (line 5): host any, any path: matches
answer: route r, rule 0 (line 5)
  respond 200 with 0 bytes
";
    assert_eq!(found.to_string(), expected);
    let text = explain(Some("spiffe://d/x")).to_string();
    assert!(text.contains(": no, the client is spiffe://d/x, not spiffe://d/ns/*\n"), "{text}");
    let text = explain(None).to_string();
    assert!(text.contains(": no, the client has not proved to be spiffe://d/ns/*\n"), "{text}");
}

#[test]
fn explanation_of_a_listener_that_passes_tls_on_names_the_cluster() {
    let table = passing("sni: [{hosts: [\"*.b\"], cluster: c1}]");
    let listener = table.listener_named("p");
    let explain = |url| crate::explain(&table, listener, "GET", url, &[], None).to_string();
    assert_eq!(
        explain("https://a.b:443/x"),
        "listener p is tls-passthrough: a connection for a.b goes to cluster c1\n"
    );
    assert_eq!(
        explain("https://b/"),
        "listener p is tls-passthrough: a connection for b is refused\n"
    );
    assert_eq!(
        explain("/"),
        "listener p is tls-passthrough: a connection without a name is refused\n"
    );
}

#[test]
fn endpoint_knows_its_name_and_another_name_is_another_endpoint() {
    let named = |endpoints: &str| {
        table(&format!(
            "listeners: [{{name: in, address: \"127.0.0.1:0\"}}]\n\
             clusters: [{{name: c, endpoints: [{endpoints}]}}]\n"
        ))
    };
    let id = ClusterId(0);
    let address = |n: u8| SocketAddr::from(([10, 0, 0, n], 1));
    let mut addresses = Addresses::new();
    addresses.resolved("Api.x.:1", vec![address(1), address(2)]);
    addresses.resolved("other:1", vec![address(1)]);
    let before = named("{address: \"Api.x.:1\"}, {address: \"10.0.0.3:1\"}");
    let first = EndpointTable::build(&before, &addresses, None);
    let names: Vec<Option<&str>> = first.cluster(id).iter().map(|e| e.name()).collect();
    assert_eq!(names, [Some("Api.x"), Some("Api.x"), None]);
    let again = EndpointTable::build(&before, &addresses, Some(&first));
    let slots =
        |table: &EndpointTable| table.cluster(id).iter().map(|e| e.slot).collect::<Vec<_>>();
    assert_eq!(slots(&again), slots(&first));
    // A connection with the SNI of one name must not serve another.
    let after =
        named("{address: \"other:1\"}, {address: \"10.0.0.2:1\"}, {address: \"10.0.0.3:1\"}");
    let second = EndpointTable::build(&after, &addresses, Some(&again));
    let (old, new) = (slots(&first), slots(&second));
    assert!(!old.contains(&new[0]) && !old.contains(&new[1]));
    assert_eq!(new[2], old[2]);
    assert_eq!(second.cluster(id)[0].name(), Some("other"));
    assert_eq!(size_of::<crate::Endpoint>(), 48, "read for every exchange");
}

/// The cluster for a name, by looking at every host of every entry.
fn scan(entries: &[(Vec<&str>, usize)], otherwise: Option<usize>, name: &str) -> Option<usize> {
    let ranked = entries.iter().flat_map(|(hosts, cluster)| {
        hosts.iter().filter_map(|host| Some((model::host_rank(host, name)?, *cluster)))
    });
    ranked.max().map(|(_, cluster)| cluster).or(otherwise)
}

const HOSTS: &[&str] = &["a", "a.b", "*.b", "*.a.b", "c.a.b", "D.b", "b", "*.c.a.b", "x-y.b"];
const NAMES: &[&str] =
    &["a", "A", "a.b", "A.B.", "c.a.b", "x.c.a.b", "b", "d.b", "z", "", "x.y.b", ".b", "x-Y.b"];

proptest! {
    #[test]
    fn names_are_routed_like_a_naive_scan(
        hosts in prop::sample::subsequence(HOSTS, 1..=HOSTS.len()).prop_shuffle(),
        cuts in prop::collection::vec(0..4_usize, HOSTS.len()),
        otherwise in prop::option::of(0..4_usize),
    ) {
        let mut entries: Vec<(Vec<&str>, usize)> = Vec::new();
        for (host, cut) in hosts.iter().zip(&cuts) {
            match entries.last_mut() {
                Some((hosts, _)) if *cut == 0 => hosts.push(host),
                _ => entries.push((vec![host], *cut)),
            }
        }
        let shown = entries.iter().map(|(hosts, cluster)| {
            format!("{{hosts: [\"{}\"], cluster: c{cluster}}}", hosts.join("\", \""))
        });
        let shown = shown.collect::<Vec<_>>().join(", ");
        let cluster = otherwise.map_or(String::new(), |cluster| format!("cluster: c{cluster}, "));
        let table = passing(&format!("{cluster}sni: [{shown}]"));
        let sni = &table.listeners()[0].sni;
        for name in NAMES {
            let found = sni.cluster_for(Some(name)).map(ClusterId::index);
            prop_assert_eq!(found, scan(&entries, otherwise, name), "{} in {}", name, shown);
        }
        prop_assert_eq!(sni.cluster_for(None).map(ClusterId::index), otherwise);
    }
}
