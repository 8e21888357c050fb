//! `/control`: what the pusher has said and what has become of it, as JSON.

use ringway_protocol::Running;
use serde_json::{Value, json};

use crate::control::status::ConfigStatus;

/// The state of the conversation; `null` where the file names no pusher.
#[must_use]
pub fn report(status: &ConfigStatus) -> String {
    let Some(push) = &status.push else { return "null\n".to_owned() };
    let policy = |running: Option<Running>| -> Value {
        running.map_or(
            Value::Null,
            |Running { generation, hash }| json!({"generation": generation, "hash": hash}),
        )
    };
    let leaf = status.credentials.shown.iter().find(|shown| shown.name == "identity");
    let report = json!({
        "pusher": push.address,
        "node": push.node,
        "identity": push.identity,
        "connected": push.connected,
        "problem": push.problem,
        "hold": push.hold,
        "running": policy(push.running),
        "on_probation": push.on_probation,
        "staged": policy(push.staged),
        "last_refused": push.last_refused,
        "stale_clusters": push.stale_clusters,
        "certificate": {
            "not_after": leaf.map(|shown| shown.certificate.not_after),
            "problem": push.renewal_problem,
            "epoch": push.epoch,
        },
    });
    format!("{report:#}\n")
}
