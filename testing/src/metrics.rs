//! Metrics, as Prometheus takes them.

use std::io::Write;
use std::process::{Command, Stdio};

/// What promtool has against a page of metrics; nothing if it takes it.
///
/// # Panics
/// When there is no promtool.
#[must_use]
pub fn complaints(metrics: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut page = promtool.stdin.take().expect("it is piped");
    page.write_all(metrics.as_bytes()).expect("promtool reads");
    drop(page);
    let verdict = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&verdict.stdout) + String::from_utf8_lossy(&verdict.stderr);
    let silent = verdict.status.success();
    if silent { said.into_owned() } else { format!("{}: {said}", verdict.status) }
}
