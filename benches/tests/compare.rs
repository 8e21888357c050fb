//! The comparison with real peers, short: every kind of scenario, what it records, what it refuses.

// The helpers below are part of the tests, but the lint does not see that.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringway-bench");

/// The proxy under test: `RINGWAY_BIN`, or the one that the same build made.
fn ringway() -> PathBuf {
    let beside = Path::new(PROGRAM).with_file_name("ringway");
    std::env::var_os("RINGWAY_BIN").map_or(beside, PathBuf::from)
}

fn compare(results: &Path, arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        // Figures are not the question here, so the generator may be as late as it will.
        .args(["compare", "--rounds", "2", "--seconds", "1", "--lateness-max", "10s"])
        .arg("--ringway")
        .arg(ringway())
        .arg("--results")
        .arg(results)
        .args(arguments)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The rows of `latest.json` as (scenario, metric, peer), all figures being sound.
fn rows(results: &Path) -> Vec<(String, String, String)> {
    let latest = json(&results.join("latest.json"));
    let rows = latest["results"].as_array().unwrap();
    rows.iter()
        .map(|row| {
            let number = |name: &str| row[name].as_f64().unwrap();
            assert!(number("low") <= number("ratio") && number("ratio") <= number("high"), "{row}");
            assert!(number("ours").is_finite() && number("theirs").is_finite(), "{row}");
            let name = |name: &str| row[name].as_str().unwrap().to_owned();
            (name("scenario"), name("metric"), name("peer"))
        })
        .collect()
}

#[test]
fn every_kind_of_scenario_leaves_its_rows_and_samples() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results");
    let only = "h1-small,tcp-1m,idle-0,routes-10,reload-load,start";
    let output = compare(&results, &["--only", only, "--peers", "nginx,haproxy"]);
    assert!(output.status.success(), "{}", text(&output));
    let rows = rows(&results);
    let expected = [
        ("h1-small", "cpu_us_per_request"),
        ("h1-small", "p50_added_us"),
        ("h1-small", "p99_added_us"),
        ("tcp-1m", "cpu_s_per_gb"),
        ("idle-0", "rss_mib"),
        ("routes-10", "cpu_us_per_request"),
        ("routes-10", "reload_ms"),
        ("reload-load", "p99_added_us"),
        ("start", "exec_to_accept_ms"),
    ];
    for (scenario, metric) in expected {
        for peer in ["nginx", "haproxy"] {
            let row = (scenario.to_owned(), metric.to_owned(), peer.to_owned());
            assert!(rows.contains(&row), "{row:?} in {rows:#?}");
        }
    }
    let detail = json(&results.join("detail/h1-small.json"));
    assert!(detail["rate"].as_f64().unwrap() > 0.0);
    let curves = detail["curves"].as_array().unwrap();
    let peers: Vec<&str> = curves.iter().map(|curve| curve["peer"].as_str().unwrap()).collect();
    assert_eq!(peers, ["direct", "ringway", "nginx", "haproxy"]);
    let cpu = detail["series"]
        .as_array()
        .unwrap()
        .iter()
        .find(|series| series["peer"] == "ringway" && series["metric"] == "cpu_us_per_request");
    let cpu = cpu.unwrap();
    assert_eq!(cpu["samples"].as_array().unwrap().len(), 2);
    let user = cpu["user_share"].as_f64().unwrap();
    assert!(user > 0.0 && user < 1.0, "{cpu}");
    let reload = json(&results.join("detail/reload-load.json"));
    let notes = reload["notes"].to_string();
    assert!(notes.contains("ringway: 0 of "), "no request of ours fails: {notes}");
}

#[test]
fn a_peer_that_does_not_start_is_named_and_the_others_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let peers = folder.path().join("peers");
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    for (peer, file) in [("ringway", "main.yaml"), ("nginx", "main.conf")] {
        fs::create_dir_all(peers.join(peer).join("plain")).unwrap();
        for name in ["peer.yaml".to_owned(), format!("plain/{file}")] {
            fs::copy(own.join(peer).join(&name), peers.join(peer).join(&name)).unwrap();
        }
    }
    fs::write(peers.join("nginx/plain/main.conf"), "no such directive;\n").unwrap();
    let results = folder.path().join("results");
    let from = peers.display().to_string();
    let output =
        compare(&results, &["--only", "idle-0", "--peers", "nginx", "--peers-from", &from]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(said.contains("nginx ended early") && said.contains("unknown directive"), "{said}");
    assert!(said.contains("rss_mib                    ringway"), "{said}");
    assert!(!results.exists(), "a result with a gap does not replace a whole one");
}

#[test]
fn what_ringway_cannot_do_yet_is_listed_and_not_measured() {
    // A Ringway without templates for HTTP/2.
    let folder = tempfile::tempdir().unwrap();
    let peers = folder.path().join("peers");
    let given = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    let copied = std::process::Command::new("cp").arg("-r").arg(given).arg(&peers).status();
    assert!(copied.unwrap().success());
    std::fs::remove_dir_all(peers.join("ringway/h2c")).unwrap();
    let from = peers.display().to_string();
    let arguments = ["--list", "--peers", "nginx", "--peers-from", &from];
    let output = compare(folder.path(), &arguments);
    assert!(output.status.success(), "{}", text(&output));
    let said = text(&output);
    let line = |id: &str| said.lines().find(|line| line.starts_with(id)).unwrap().to_owned();
    assert!(line("h2c-1x1 ").contains("not yet: "), "{said}");
    assert!(!line("tls-new ").contains("not yet"), "{said}");
}

#[test]
fn an_unknown_peer_or_scenario_is_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let output = compare(folder.path(), &["--only", "h1-smal"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output).contains("no scenario h1-smal; there are"), "{}", text(&output));
    let output = compare(folder.path(), &["--peers", "caddy"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("peers/caddy/peer.yaml"), "{}", text(&output));
}
