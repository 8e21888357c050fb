//! `ringway status`: what the pusher has said to a running proxy, and what became of it.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use ringway_tls::duration_words;
use serde_json::Value;

use super::{EXIT_RUNTIME, ask, complain, say, table_of};
use crate::run::ADMIN_DEFAULT;

/// Shows it, as JSON or in words.
pub(super) fn show(file: &Path, as_json: bool) -> ExitCode {
    let table = match table_of(file) {
        Ok(table) => table,
        Err(code) => return code,
    };
    let address = table.admin().unwrap_or(ADMIN_DEFAULT);
    let report = match ask::admin(address, "/control") {
        Ok(report) => report,
        Err(error) => {
            complain(&format!("no proxy answers at {address}: {error}"));
            return ExitCode::from(EXIT_RUNTIME);
        }
    };
    if as_json {
        say(&format!("{report:#}"));
    } else if report.is_null() {
        say("no pusher: the proxy runs its file");
    } else {
        print(&report);
    }
    if is_well(&report) { ExitCode::SUCCESS } else { ExitCode::from(EXIT_RUNTIME) }
}

/// Whether the proxy is connected and runs the last that it was sent.
fn is_well(report: &Value) -> bool {
    report.is_null() || (report["connected"] == true && report["running"].is_object())
}

fn print(report: &Value) {
    let text = |field: &str| report[field].as_str().unwrap_or_default().to_owned();
    let identity = text("identity");
    let identity = if identity.is_empty() { "not joined yet".to_owned() } else { identity };
    say(&format!("sidecar      {identity} on {}", text("node")));
    let connected = if report["connected"] == true { "connected" } else { "NOT CONNECTED" };
    say(&format!("pusher       {}, {connected}", text("pusher")));
    if let Some(problem) = report["problem"].as_str() {
        complain(&format!("             {problem}"));
    }
    let policy = |value: &Value| {
        let hash = value["hash"].as_str().and_then(|hash| hash.get(..12)).unwrap_or_default();
        format!("generation {}, {hash}", value["generation"])
    };
    match &report["running"] {
        Value::Null => say("policy       none yet"),
        running => {
            let state = if report["on_probation"] == true { "on probation" } else { "confirmed" };
            say(&format!("policy       {}, {state}", policy(running)));
        }
    }
    if !report["staged"].is_null() {
        say(&format!("staged       {}", policy(&report["staged"])));
    }
    let refused = &report["last_refused"];
    if let Some(reason) = refused["reason"].as_str() {
        let state = refused["state"].as_str().unwrap_or_default().replace('_', " ");
        say(&format!("last {state}: {}: {reason}", policy(refused)));
    }
    if let Some(hold) = report["hold"].as_str() {
        say(&format!("on hold      {hold}"));
    }
    let stale = report["stale_clusters"].as_array().into_iter().flatten();
    let stale: Vec<&str> = stale.filter_map(Value::as_str).collect();
    if !stale.is_empty() {
        say(&format!("stale        endpoints of {}", stale.join(", ")));
    }
    let certificate = &report["certificate"];
    if let Some(until) = certificate["not_after"].as_i64() {
        say(&format!("certificate  {}, roots of epoch {}", left(until), certificate["epoch"]));
    }
    if let Some(problem) = certificate["problem"].as_str() {
        complain(&format!("             {problem}"));
    }
}

/// How long until a second since 1970.
pub(super) fn left(until: i64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let left = until - Duration::as_secs(&now).cast_signed();
    let words = duration_words(left.unsigned_abs());
    if left > 0 { format!("{words} left") } else { format!("expired {words} ago") }
}
