//! Policies: what is in them, that sidecars take them, that only the mesh decides.

use proptest::prelude::*;
use ringway_router::load;

use super::*;
use crate::model::{Loaded, Mode, accept};
use crate::source::Folder;

fn loaded(files: &[(String, String)]) -> Loaded {
    let files = files.iter().map(|(name, text)| (name.clone(), text.clone().into_bytes()));
    let folder = Folder::of(files.collect());
    let loaded = accept(&folder, None, Mode::Strict, &Options::default());
    loaded.unwrap_or_else(|found| panic!("{found:#?}"))
}

fn mesh(files: &[(String, String)]) -> Mesh {
    loaded(files).mesh
}

fn example() -> Mesh {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/mesh.d");
    Mesh::load(&path, None, Mode::Strict).expect("it is accepted").mesh
}

fn policy(mesh: &Mesh, workload: &str) -> Policy {
    let workload = mesh.workload(workload).expect("it is there");
    compile(mesh, workload, &Options::default()).expect("an accepted mesh compiles")
}

#[test]
fn a_policy_names_only_what_the_workload_may_call() {
    let mesh = example();
    let web = policy(&mesh, "web");
    let called: Vec<&str> = web.endpoints.keys().map(String::as_str).collect();
    assert_eq!(called, ["ledger:grpc", "shop-v2:http", "shop:http"], "shop-v2 by a route");
    assert!(!web.text.contains("database") && !web.text.contains("9001"));
}

#[test]
fn a_policy_is_canonical_and_keeps_endpoints_apart() {
    let mesh = example();
    let shop = policy(&mesh, "shop");
    let expected = "{\"clusters\":[{\"discovery\":\"pushed\",\"name\":\"database:postgres\"},\
        {\"endpoints\":[{\"address\":\"127.0.0.1:9001\"}],\"name\":\"local:shop:http\"}],\
        \"identity\":{\"certificate\":\"id/svid.pem\",\"key\":\"id/svid.pem\",\
        \"revocation_lists\":[\"id/revoked.pem\"],\"trust_bundle\":\"id/bundle.pem\"},\
        \"listeners\":[{\"address\":\"127.0.0.1:8443\",\"mtls\":\"strict\",\
        \"name\":\"in-shop-http\"},{\"address\":\"127.0.0.1:5432\",\
        \"cluster\":\"database:postgres\",\"name\":\"out-database-postgres\",\
        \"protocol\":\"tcp\"}],\"routes\":[{\"listeners\":[\"in-shop-http\"],\
        \"name\":\"in-shop-http\",\"rules\":[{\"backends\":[{\"cluster\":\"local:shop:http\"}]}]}]}";
    assert_eq!(shop.text, expected);
    assert_eq!(shop.hash, blake3::hash(shop.text.as_bytes()).to_hex().to_string());
    use Capability::{DiscoveryPushed, MutualTls, Revocation, Tcp};
    assert_eq!(shop.requires, [DiscoveryPushed, MutualTls, Revocation, Tcp]);
}

#[test]
fn callers_expect_whoever_serves() {
    let web = policy(&example(), "web");
    let loaded = load(&with_endpoints(&web), Format::Json).expect("sidecars take it");
    let cluster = loaded.config.clusters.iter().find(|cluster| cluster.name == "shop:http");
    let cluster = cluster.expect("it is there");
    assert_eq!(cluster.identity, ["spiffe://cluster.local/ns/default/sa/shop"]);
    assert_eq!(cluster.connect_timeout, std::time::Duration::from_millis(500));
}

#[test]
fn endpoints_change_no_hash_and_weights_change_it() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/mesh.d");
    let read = |name: &str| std::fs::read_to_string(path.join(name)).expect("it can be read");
    let [services, routes, workloads] =
        ["services.yaml", "routes.yaml", "workloads.yaml"].map(read);
    let with = |services: &str, routes: &str| {
        let files = [("a.yaml", services), ("b.yaml", routes), ("c.yaml", &workloads)];
        let mesh = mesh(&files.map(|(name, text)| (name.to_owned(), text.to_owned())));
        policy(&mesh, "web")
    };
    let before = with(&services, &routes);
    let moved = with(&services.replace("127.0.0.1:8444", "127.0.0.1:9999"), &routes);
    assert_eq!(moved.hash, before.hash);
    assert_ne!(moved.endpoints, before.endpoints);
    assert_ne!(with(&services, &routes.replace("weight: 90", "weight: 50")).hash, before.hash);
}

#[test]
fn too_much_memory_is_the_fault_of_the_workload() {
    let mesh = example();
    let workload = mesh.workload("web").expect("it is there");
    let most = policy(&mesh, "web").table_bytes;
    let with = |table_bytes_max| Options { table_bytes_max, ..Options::default() };
    assert!(compile(&mesh, workload, &with(most)).is_ok());
    let found = compile(&mesh, workload, &with(most - 1)).expect_err("one byte too much");
    assert_eq!(found[0].object, Some(Key::new(Kind::Workload, "web")));
}

/// A mesh of a few services in random relations, one object a line.
fn any_mesh() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let service = (0..3_usize, any::<bool>(), 0..3_usize, prop::collection::vec(0..4_usize, 0..4));
    prop::collection::vec(service, 1..6).prop_map(|services| {
        let count = services.len();
        let mut lines = Vec::new();
        for (nth, (protocol, is_routed, endpoints, imports)) in services.iter().enumerate() {
            let kind = ["http1", "http2", "tcp"][*protocol];
            let port = format!("ports: [{{name: p, port: 80, protocol: {kind}}}]");
            lines.push(("services", format!("  - {{name: s{nth}, {port}}}")));
            let address = |n| format!("{{address: '10.0.{nth}.{n}:80', weight: {n}}}");
            let addresses: Vec<String> = (0..*endpoints).map(address).collect();
            let addresses = addresses.join(", ");
            lines.push(("endpoints", format!("  - {{service: s{nth}, addresses: [{addresses}]}}")));
            if *is_routed && *protocol < 2 {
                let rule = format!(
                    "{{matches: [{{path: {{prefix: /{nth}}}}}], timeout: 1500ms, \
                                    backends: [{{service: s{nth}, weight: {}}}]}}",
                    nth + 1
                );
                lines.push((
                    "routes",
                    format!("  - {{name: r{nth}, service: s{nth}, rules: [{rule}]}}"),
                ));
            }
            let mut imports: Vec<usize> = imports.iter().map(|import| import % count).collect();
            imports.sort_unstable();
            imports.dedup();
            let import = |of: &usize| match services[*of].0 {
                2 => format!("{{service: s{of}, listen: '127.0.0.1:{}'}}", 5000 + of),
                _ => format!("s{of}"),
            };
            let imports: Vec<String> = imports.iter().map(import).collect();
            lines.push((
                "workloads",
                format!(
                    "  - {{name: w{nth}, outbound: '127.0.0.1:4140', imports: [{}], serves: \
                 [{{service: s{nth}, listen: '0.0.0.0:8443', application: ['127.0.0.1:1']}}]}}",
                    imports.join(", "),
                ),
            ));
        }
        lines
    })
}

/// The lines as files, `split` deciding where each goes.
fn files(lines: &[(&'static str, String)], split: &[usize]) -> Vec<(String, String)> {
    let place = |nth: usize| split.get(nth).copied().unwrap_or(0);
    let mut files = Vec::new();
    for file in 0..3 {
        let mut text = String::new();
        for list in ["services", "endpoints", "routes", "workloads"] {
            let of = |(nth, line): (usize, &(&'static str, String))| {
                (line.0 == list && place(nth) == file).then(|| line.1.clone())
            };
            let mut found: Vec<String> = lines.iter().enumerate().filter_map(of).collect();
            if file == 1 {
                found.reverse();
            }
            if !found.is_empty() {
                text.push_str(&format!("{list}:\n{}\n", found.join("\n")));
            }
        }
        files.push((format!("{file}.yaml"), text));
    }
    files
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_mesh_compiles_for_every_workload_whatever_file_its_objects_are_in(
        lines in any_mesh(),
        split in prop::collection::vec(0..3_usize, 0..24),
    ) {
        let one = loaded(&files(&lines, &[])).policies;
        let many = loaded(&files(&lines, &split)).policies;
        prop_assert_eq!(&one.of, &many.of);
        for (hash, policy) in &one.classes {
            prop_assert_eq!(&policy.endpoints, &many.classes[hash].endpoints);
            prop_assert_eq!(&policy.text, &many.classes[hash].text);
            let taken = load(&with_endpoints(policy), Format::Json);
            prop_assert!(taken.is_ok(), "{:?}", taken);
        }
    }
}
