//! What is accepted, what is said of the rest, and what stays.

use super::*;
use crate::compile::Options;
use crate::diagnostic::Diagnostic;
use crate::source::Folder;

fn folder(files: &[(&str, &str)]) -> Folder {
    let file = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).into());
    Folder::of(files.iter().map(file).collect())
}

fn load(files: &[(&str, &str)], previous: Option<&Accepted>) -> Loaded {
    accept(&folder(files), previous, Mode::Quarantine, &Options::default())
        .expect("quarantine refuses nothing")
}

fn errors(loaded: &Loaded) -> Vec<String> {
    let errors = loaded.diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
    errors.map(Diagnostic::to_string).collect()
}

fn assert_said(loaded: &Loaded, wanted: &[&str]) {
    let said = errors(loaded);
    for text in wanted {
        assert!(said.iter().any(|line| line.contains(text)), "{text:?} is not among {said:#?}");
    }
}

const GOOD: &str = "\
services:
  - {name: shop, ports: [{name: http, port: 80, protocol: http1}]}
endpoints:
  - {service: shop, addresses: [{address: '10.0.0.1:8443'}]}
routes:
  - {name: all, service: shop, rules: [{backends: [{service: shop}]}]}
workloads:
  - name: shop
    serves: [{service: shop, listen: '0.0.0.0:8443', application: ['127.0.0.1:8080']}]
  - {name: web, outbound: '127.0.0.1:4140', imports: [shop]}
";

#[test]
fn the_example_folder_has_nothing_wrong() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/mesh.d");
    let loaded = Mesh::load(&path, None, Mode::Strict).expect("it is accepted");
    assert_eq!(errors(&loaded), Vec::<String>::new());
    assert_eq!(loaded.mesh.workloads.len(), 4);
}

#[test]
fn every_problem_has_its_object_file_line_column_and_hint() {
    let text = "services:\n  - name: shop\n    hostz: [a]\n    ports:\n      - {name: http, port: \
                80, protocol: http9}\nworkload: []\npolicies: []\n";
    let loaded = load(&[("a.yaml", text)], None);
    assert_said(
        &loaded,
        &[
            "a.yaml:3:5: service shop: hostz: unknown field `hostz` (hint: did you mean `hosts`?)",
            "a.yaml:5:42: service shop: ports[0].protocol: `http9` is not known here",
            "a.yaml:6:1: workload: unknown field `workload` (hint: did you mean `workloads`?)",
            "a.yaml:7:1: policies: `policies` are refused: authorization is not enforced yet",
        ],
    );
}

#[test]
fn one_object_in_two_files_is_an_error_that_names_both_places() {
    let twice = "services:\n  - {name: shop, ports: [{name: http, port: 80, protocol: http1}]}\n";
    let loaded = load(&[("a.yaml", GOOD), ("b.yaml", twice)], None);
    assert_said(&loaded, &["b.yaml:2:5: service shop: is here and in a.yaml:2:5"]);
    assert!(loaded.mesh.services.is_empty(), "neither is taken");
    let first = load(&[("a.yaml", GOOD)], None);
    let second = load(&[("a.yaml", GOOD), ("b.yaml", twice)], Some(&first.accepted));
    assert_eq!(second.accepted, first.accepted, "what was accepted before stays");
    assert_eq!(second.quarantined.len(), 1);
}

#[test]
fn what_objects_mean_together_is_checked_for_each() {
    let text = GOOD
        .replace(
            "[{backends: [{service: shop}]}]",
            "[{backends: [{service: shpo}]}, \
                  {backends: [{service: shop, weight: 0}]}, {matches: [{path: {regex: '('}}], \
                  respond: {status: 204}}]",
        )
        .replace("imports: [shop]}", "imports: [shop, {service: shop, port: nope}, gone]}");
    let more = "endpoints:\n  - {service: nobody, addresses: []}\nworkloads:\n  - {name: twin, \
                identity: spiffe://cluster.local/ns/default/sa/web, outbound: '127.0.0.1:1'}\n  - \
                {name: far, identity: spiffe://other/x, outbound: '127.0.0.1:1'}\n  - name: clash\n\
                \x20   outbound: 0.0.0.0:8443\n    serves: [{service: shop, listen: \
                '127.0.0.1:8443', application: ['127.0.0.1:1']}]\n";
    let loaded = load(&[("a.yaml", &text), ("b.yaml", more)], None);
    assert_said(
        &loaded,
        &[
            "a.yaml:6:62: route all: rules[0].backends[0].service: there is no service `shpo` \
             (hint: did you mean `shop`?)",
            "rules[1].backends: the weights add up to 0",
            "workload web: imports[1].port: service `shop` has no port `nope` (hint: it has http)",
            "workload web: imports[2].service: there is no service `gone`",
            "b.yaml:2:15: endpoints nobody: service: there is no service `nobody`",
            "workload twin: identity: workload web has the identity",
            "workload far: identity: `spiffe://other/x` is outside the trust domain",
            "workload clash: outbound: 0.0.0.0:8443 is taken by `serves[0].listen`",
        ],
    );
}

#[test]
fn a_regular_expression_that_does_not_compile_is_the_fault_of_its_route() {
    let text = GOOD.replace("rules: [{", "rules: [{matches: [{path: {regex: '('}}], ");
    let loaded = load(&[("a.yaml", &text)], None);
    assert_said(
        &loaded,
        &["a.yaml:6:", "route all: rules[0].matches[0].path.regex: not a regular"],
    );
    assert!(loaded.mesh.routes.is_empty());
    assert_eq!(loaded.mesh.workloads.len(), 2, "the rest goes on");
}

#[test]
fn a_host_of_two_imported_services_is_the_fault_of_whoever_is_new() {
    let more = "services:\n  - {name: blog, hosts: [blog, HOST], identities: [], ports: [{name: \
                http, port: 80, protocol: http1}]}\n";
    let imports = GOOD.replace("imports: [shop]", "imports: [shop, blog]");
    let before = more.replace("HOST", "news");
    let first = load(&[("a.yaml", &imports), ("b.yaml", &before)], None);
    assert_eq!(errors(&first), Vec::<String>::new());
    let after = more.replace("HOST", "shop");
    let second = load(&[("a.yaml", &imports), ("b.yaml", &after)], Some(&first.accepted));
    assert_said(&second, &["imports[1]: the host `shop` is that of service `shop` too"]);
    let kept = Quarantined { object: Key::new(Kind::Service, "blog"), fate: Fate::Kept };
    assert_eq!(second.quarantined, [kept]);
    assert_eq!(second.mesh.services["blog"].value.hosts, ["blog", "news"]);
}

#[test]
fn a_bad_object_keeps_its_last_version_and_the_rest_moves_on() {
    let first = load(&[("a.yaml", GOOD)], None);
    assert_eq!(errors(&first), Vec::<String>::new());
    let text = GOOD
        .replace("rules: [{backends: [{service: shop}]}]", "rules: [{respnd: {}}]")
        .replace("10.0.0.1:8443", "10.0.0.2:8443");
    let second = load(&[("a.yaml", &text)], Some(&first.accepted));
    assert_said(&second, &["route all: rules[0].respnd: unknown field `respnd`"]);
    let kept = Quarantined { object: Key::new(Kind::Route, "all"), fate: Fate::Kept };
    assert_eq!(second.quarantined, [kept]);
    assert_eq!(second.mesh.routes["all"].value.rules.len(), 1);
    let addresses = &second.mesh.endpoints["shop"].value.addresses;
    assert_eq!(addresses[0].address, "10.0.0.2:8443", "the rest moves on");
    let strict = accept(&folder(&[("a.yaml", &text)]), None, Mode::Strict, &Options::default());
    assert!(strict.is_err());
}

#[test]
fn a_file_that_cannot_be_read_changes_nothing() {
    let first = load(&[("a.yaml", GOOD)], None);
    for broken in ["services: [", "services: 5\n", "servces: []\n"] {
        let second = load(&[("a.yaml", broken)], Some(&first.accepted));
        assert!(!errors(&second).is_empty());
        assert_eq!(second.accepted, first.accepted, "{broken}");
        assert_eq!(second.quarantined.len(), 5);
    }
}

#[test]
fn a_service_that_is_taken_out_stays_while_others_name_it() {
    let first = load(&[("a.yaml", GOOD)], None);
    let start = GOOD.find("endpoints:").expect("it is there");
    let second = load(&[("a.yaml", &GOOD[start..])], Some(&first.accepted));
    assert_said(&second, &["workload web: imports[0].service: there is no service `shop`"]);
    assert!(second.mesh.services.contains_key("shop"));
    assert_eq!(second.mesh.workloads.len(), 2);
    let gone = load(&[("a.yaml", "")], Some(&first.accepted));
    assert_eq!(gone.mesh, Mesh::default(), "nothing names it any more");
}

#[test]
fn accepted_objects_survive_a_store() {
    let first = load(&[("a.yaml", GOOD)], None);
    let text = serde_json::to_string(&first.accepted).expect("it is data");
    let again: Accepted = serde_json::from_str(&text).expect("it is data");
    assert_eq!(again, first.accepted);
    let second = load(&[("a.yaml", "services: [")], Some(&again));
    assert_eq!(second.mesh.services["shop"].value, first.mesh.services["shop"].value);
    assert_eq!(second.mesh.workloads["web"].value, first.mesh.workloads["web"].value);
}

#[test]
fn a_service_that_nobody_serves_is_not_called_in_plaintext() {
    let text = GOOD.replace("serves: [{", "serves: [{mtls: disabled, ");
    let loaded = load(&[("a.yaml", &text)], None);
    assert_said(&loaded, &["served only in plaintext, so its callers cannot know who it is"]);
    let start = GOOD.find("  - name: shop\n").expect("it is there");
    let end = GOOD.find("  - {name: web").expect("it is there");
    let text = format!("{}{}", &GOOD[..start], &GOOD[end..]);
    let loaded = load(&[("a.yaml", &text)], None);
    assert_said(&loaded, &["is served by nobody", "`identities: []` says that it is outside"]);
}

#[test]
fn an_import_without_endpoints_is_worth_a_look() {
    let text = GOOD.replace("[{address: '10.0.0.1:8443'}]", "[]");
    let loaded = load(&[("a.yaml", &text)], None);
    assert_eq!(errors(&loaded), Vec::<String>::new());
    let said = loaded
        .diagnostics
        .iter()
        .any(|diagnostic| diagnostic.message.contains("no endpoints") && !diagnostic.is_error());
    assert!(said, "{:?}", loaded.diagnostics);
}

proptest::proptest! {
    #[test]
    fn of_any_text_what_is_accepted_compiles(
        text in "[-\\[\\]{}:,'\"#&*a-z0-9 \n]{0,40}|\\PC{0,100}",
        from in 0_usize..600,
        to in 0_usize..600,
    ) {
        let first = load(&[("a.yaml", GOOD)], None);
        let (from, to) = (from.min(GOOD.len()), to.min(GOOD.len()));
        let (from, to) = (from.min(to), from.max(to));
        let cut = format!("{}{text}{}", &GOOD[..from], &GOOD[to..]);
        for text in [&text, &cut] {
            for previous in [None, Some(&first.accepted)] {
                let loaded = load(&[("a.yaml", text)], previous);
                let compiled = loaded.policies.of.keys();
                proptest::prop_assert!(compiled.eq(loaded.mesh.workloads.keys()));
            }
        }
    }
}
