//! Simulated sidecars against a real pusher: how fast a change is there, what it costs, and that
//! all come back.
//!
//! With `RINGWAY_FLEET_SIDECARS=500` it is what `make soak` runs; else the fleet is small.

// The helpers below are part of the tests, but the lint does not see that.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringway-bench");

/// The pusher: `RINGWAY_PUSH_BIN`, or the one that the same build made.
fn pusher() -> PathBuf {
    let beside = Path::new(PROGRAM).with_file_name("ringway-push");
    std::env::var_os("RINGWAY_PUSH_BIN").map_or(beside, PathBuf::from)
}

#[test]
fn a_change_reaches_the_fleet_in_two_seconds_and_all_come_back_after_a_crash() {
    let sidecars = std::env::var("RINGWAY_FLEET_SIDECARS").unwrap_or_else(|_| "100".to_owned());
    let output = Command::new(PROGRAM)
        .args(["fleet", "--json", "--idle", "15", "--changes", "3", "--sidecars", &sidecars])
        .arg("--push")
        .arg(pusher())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    let figures: Value = serde_json::from_str(&said).unwrap();
    let changes = figures["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 3);
    for change in changes {
        let p99_ms = change["spread"]["p99_ms"].as_f64().unwrap();
        assert!(p99_ms < 2000.0, "{change}");
        assert!(change["cost"]["cpu_ms"].as_u64().unwrap() < 1000, "{change}");
    }
    assert_eq!(figures["idle"]["counts"]["failures"], 0, "{figures}");
    assert_eq!(figures["idle"]["counts"]["connects"], 0, "{figures}");
    assert!(figures["restarted"]["spread"]["all_ms"].as_f64().unwrap() < 60_000.0, "{figures}");
}
