//! `/ready` and `/config`: what state the proxy is in, for people and for probes.

use serde_json::{Value, json};

use super::Admin;
use crate::io::backend::{Backend, RingFlags};

/// Whether the proxy takes new connections, and the particulars as JSON.
#[must_use]
pub fn report(admin: &Admin) -> (bool, String) {
    let running = admin.shared.current();
    let status = admin.status.get();
    let draining = admin.shared.draining();
    let report = json!({
        "status": if draining { "draining" } else { "ready" },
        "backend": admin.shared.backend.name(),
        "workers": admin.shared.seats.len(),
        "connections": admin.shared.open_connections(),
        "config": {
            "generation": running.generation,
            "table": running.table.hash().to_string(),
            "applied": status.applied,
            "rejected": status.rejected,
            "problem": status.problem,
            "unresolved": status.unresolved,
        },
        "certificates": {
            "generation": status.credentials.generation,
            "problems": status.credentials.problems,
        },
        "version": crate::cli::VERSION,
    });
    (!draining, format!("{report:#}\n"))
}

/// The running table, as JSON.
#[must_use]
pub fn config(admin: &Admin) -> String {
    let running = admin.shared.current();
    let table = &running.table;
    let listeners: Vec<Value> = table
        .listeners()
        .iter()
        .map(|listener| {
            let cluster = listener.cluster.map(|cluster| &*table.cluster(cluster).name);
            json!({
                "name": &*listener.name,
                "address": listener.address,
                "protocol": listener.protocol.as_str(),
                "mtls": format!("{:?}", listener.mtls).to_lowercase(),
                "tls": listener.speaks_tls(),
                "cluster": cluster,
            })
        })
        .collect();
    let clusters: Vec<Value> = table
        .cluster_ids()
        .map(|id| {
            let endpoints = running.endpoints.cluster(id).iter().map(|endpoint| {
                json!({
                    "address": endpoint.address,
                    "weight": endpoint.weight,
                    "in_flight": endpoint.load.in_flight(),
                })
            });
            let cluster = table.cluster(id);
            json!({
                "name": &*cluster.name,
                "tls": cluster.tls.is_some(),
                "endpoints": endpoints.collect::<Value>(),
            })
        })
        .collect();
    let flags = match admin.shared.backend {
        Backend::IoUring(RingFlags::DeferTaskrun) => "defer_taskrun",
        Backend::IoUring(RingFlags::CoopTaskrun) => "coop_taskrun",
        Backend::IoUring(RingFlags::Plain) | Backend::Epoll => "none",
    };
    let config = json!({
        "table": table.hash().to_string(),
        "generation": running.generation,
        "routes": table.route_count(),
        "rules": table.rule_count(),
        "bytes": table.bytes(),
        "backend": admin.shared.backend.name(),
        "ring_flags": flags,
        "listeners": listeners,
        "clusters": clusters,
    });
    format!("{config:#}\n")
}
