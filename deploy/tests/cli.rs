//! The commands as people call them: what they print, what they write, how they exit.

mod command;

use std::fs;
use std::path::{Path, PathBuf};

use command::{push, stderr, stdout, text};
use ringway_router::{Format, load_table};

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/mesh.d")
}

/// A copy of the example, changed.
fn changed(file: &str, from: &str, to: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(example()).expect("it can be read").flatten() {
        fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copied");
    }
    let path = folder.path().join(file);
    let before = fs::read_to_string(&path).expect("it can be read");
    assert!(before.contains(from), "{from:?} is in {file}");
    fs::write(&path, before.replace(from, to)).expect("written");
    folder
}

#[test]
fn compile_writes_files_that_a_sidecar_takes_and_leaves_those_of_others() {
    let out = tempfile::tempdir().expect("a folder");
    fs::write(out.path().join("old.json"), "{}").expect("written");
    let ended = push(&["compile", "--dir", text(&example()), "-o", text(out.path())]);
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    for workload in ["web", "shop", "shop-v2", "ledger"] {
        let file = out.path().join(format!("{workload}.json"));
        let written = fs::read_to_string(file).expect("it is there");
        let (table, _) = load_table(&written, Format::Json).expect("a sidecar takes it");
        assert!(table.cluster_ids().all(|id| !table.cluster(id).endpoints.is_empty()));
        assert!(stdout(&ended).contains(&format!("{workload}.json: policy ")));
    }
    assert!(stderr(&ended).contains("old.json: no such workload any more; the file is left"));
    assert_eq!(fs::read_dir(out.path()).expect("it can be read").count(), 5, "nothing beside");
}

#[test]
fn compile_writes_bootstraps_of_envoy_beside_or_says_what_envoy_lacks() {
    let out = tempfile::tempdir().expect("a folder");
    let folder = text(out.path());
    let to = ["-o", folder, "--format", "envoy", "--admin", "127.0.0.1:9999"];
    let ended = push(&[&["compile", "--dir", text(&example())], &to[..]].concat());
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    let written = fs::read_to_string(out.path().join("web.envoy.json")).expect("it is there");
    let bootstrap: serde_json::Value = serde_json::from_str(&written).expect("it is JSON");
    assert_eq!(bootstrap["admin"]["address"]["socket_address"]["port_value"], 9999);
    let ended = push(&["compile", "--dir", text(&example()), "-o", folder]);
    assert_eq!(stderr(&ended), "", "those of Envoy are no workloads that are gone");
    let lacks = changed("routes.yaml", "timeout: 5s", "max_request_body: 1MiB");
    let ended = push(&[&["compile", "--dir", text(lacks.path())], &to[..]].concat());
    assert_eq!(ended.status.code(), Some(78));
    let wanted = "routes.yaml:13:27: route shop-canary: rules[1].max_request_body: \
                  `max_request_body` has no equal in Envoy";
    assert!(stderr(&ended).contains(wanted), "{}", stderr(&ended));
    let ended = push(&["compile", "--dir", folder, "-o", folder, "--admin", "127.0.0.1:1"]);
    assert_eq!(ended.status.code(), Some(64));
}

#[test]
fn check_exits_with_78_and_says_where() {
    let folder = changed("routes.yaml", "service: shop-v2}]", "service: shop-v3}]");
    let ended = push(&["check", "--dir", text(folder.path())]);
    assert_eq!(ended.status.code(), Some(78));
    let wanted = "there is no service `shop-v3` (hint: did you mean `shop-v2`?)";
    assert!(stderr(&ended).contains(wanted), "{}", stderr(&ended));
    let ended = push(&["check", "--json", "--dir", text(folder.path())]);
    let document: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("it is JSON");
    assert_eq!(document["problems"][0]["name"], "shop-canary");
    assert_eq!(document["problems"][0]["line"], 9);
    let good = push(&["check", "--strict", "--dir", text(&example())]);
    assert_eq!(good.status.code(), Some(0), "{}{}", stdout(&good), stderr(&good));
    assert_eq!(push(&["check", "--dir", "/nowhere"]).status.code(), Some(78));
    assert_eq!(push(&["chekc"]).status.code(), Some(64));
}

#[test]
fn compile_writes_nothing_if_something_is_wrong() {
    let folder = changed("routes.yaml", "weight: 90", "weight: ninety");
    let out = folder.path().join("out");
    let ended = push(&["compile", "--dir", text(folder.path()), "-o", text(&out)]);
    assert_eq!(ended.status.code(), Some(78));
    assert!(!out.exists());
}

#[test]
fn diff_says_what_changes_for_whom() {
    let folder = changed("routes.yaml", "weight: 90", "weight: 50");
    let ended = push(&["diff", text(&example()), text(folder.path())]);
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    let wanted = "workload web\n  ~ route shop:http/shop-canary rule 1: \
                  backends.shop:http.weight: 90 -> 50\n";
    assert_eq!(stdout(&ended), wanted);
    let folder =
        changed("services.yaml", "{address: \"127.0.0.1:8444\"}", "{address: \"[::1]:1\"}");
    let ended = push(&["diff", text(&example()), text(folder.path())]);
    assert_eq!(stdout(&ended), "workload web\n  ~ endpoints of shop-v2:http: +1 -1\n");
    let folder = changed("workloads.yaml", "      - shop\n", "");
    let ended = push(&["diff", text(&example()), text(folder.path())]);
    assert!(stdout(&ended).contains("  - may call shop-v2:http\n"), "{}", stdout(&ended));
    let same = push(&["diff", text(&example()), text(&example())]);
    assert_eq!(stdout(&same), "no sidecar would notice\n");
}

#[test]
fn intention_answers_by_imports_and_routes() {
    let ask =
        |arguments: &[&str]| push(&[&["intention", "--dir", text(&example())], arguments].concat());
    let ended = ask(&["web", "shop.example", "GET", "/orders"]);
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    let said = stdout(&ended);
    for wanted in [
        "by route shop-canary, rule 1 (routes.yaml:4)",
        "to shop:http (weight 90), spiffe://cluster.local/ns/default/sa/shop, 1 endpoint",
        "authorization is not enforced yet",
    ] {
        assert!(said.contains(wanted), "{wanted:?} is not in {said}");
    }
    assert_eq!(ask(&["shop", "database"]).status.code(), Some(0));
    assert_eq!(ask(&["web", "database"]).status.code(), Some(1));
    assert_eq!(ask(&["web", "shop-v2"]).status.code(), Some(1), "only a route goes there");
    assert_eq!(ask(&["nobody", "shop"]).status.code(), Some(64));
}
