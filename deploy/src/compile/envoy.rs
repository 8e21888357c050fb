//! A workload's policy as the bootstrap of an Envoy that does the same job, for what both can do.
//!
//! ```text
//! Config ─┬▶ listeners ─▶ filter chains ─▶ connection manager ─▶ virtual hosts ─┐
//!         │                              └▶ TCP proxy                          │ routes, the most
//!         └▶ clusters (endpoints in their place) ◀──────────────────────────────┘ specific first
//! ```
//!
//! # Invariants
//! - Pure. Everything is in the bootstrap: Envoy asks nobody.
//! - Every field of a configuration is translated or refused by its name; one that is new does not
//!   build until somebody has said which.
//! - Envoy takes the first route that matches, in the one virtual host that the request names. So
//!   routes are in the order of our precedence, and a host has those of less specific hosts, too.
//!
//! # Not here
//! What differs and cannot be refused, because requests decide it: `deploy/MESH.md`.

mod actions;
mod clusters;
mod listeners;
mod matches;
mod pattern;
mod routes;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ringway_router::config::Config;
use ringway_router::{Discovery, Problem};
use serde_json::{Value, json};

use super::compose::Composed;
use super::{Options, compile, problems};
use crate::diagnostic::Diagnostic;
use crate::model::{Mesh, Workload};

/// Where the types of Envoy's extensions are.
const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";

/// Writes the policy of a workload as an Envoy bootstrap, its admin server at `admin`.
///
/// # Errors
/// Those of [`super::compile`], and what has no equal in Envoy, each at its object.
pub fn envoy(
    mesh: &Mesh,
    workload: &Workload,
    options: &Options,
    admin: SocketAddr,
) -> Result<Value, Vec<Diagnostic>> {
    compile(mesh, workload, options)?;
    let composed = Composed::of(mesh, workload, options, None)?;
    let written = bootstrap(&composed.config, &workload.name, admin);
    written.map_err(|found| problems::mapped(&composed, found))
}

/// Writes a configuration that a sidecar's compiler has accepted.
///
/// # Errors
/// What has no equal in Envoy, with its path into the configuration.
fn bootstrap(config: &Config, node: &str, admin: SocketAddr) -> Result<Value, Vec<Problem>> {
    // How a process ends and who its pusher is are Envoy's own affair.
    let Config { identity: _, admin: _, drain: _, control: _, listeners, routes: _, clusters } =
        config;
    let mut refusals = Refusals::default();
    tls::refuse_identity(config, &mut refusals);
    let routes = routes::units(config, &mut refusals);
    let of_listener = listeners.iter().enumerate();
    let listeners: Vec<Value> = of_listener
        .map(|(nth, listener)| listeners::listener(config, nth, listener, &routes, &mut refusals))
        .collect();
    let uses = clusters::Uses::of(config);
    let of_cluster = clusters.iter().enumerate();
    let clusters: Vec<Value> = of_cluster
        .map(|(nth, cluster)| {
            if cluster.discovery == Discovery::Pushed {
                refusals.refuse(&format!("clusters[{nth}]"), "discovery: pushed", "");
            }
            clusters::cluster(config, nth, cluster, &uses, &mut refusals)
        })
        .collect();
    if !refusals.0.is_empty() {
        return Err(refusals.0);
    }
    Ok(json!({
        "node": {"id": node, "cluster": node},
        "admin": {"address": socket(admin)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
        "layered_runtime": {"layers": [{"name": "static", "static_layer": {
            // Several fields of one name are one value (RFC 9110 section 5.3).
            "envoy.reloadable_features.match_headers_individually": false,
        }}]},
    }))
}

/// What has no equal in Envoy.
#[derive(Default)]
struct Refusals(Vec<Problem>);

impl Refusals {
    /// Refuses the field `what` at `path`; `hint` says what to do about it, or nothing.
    fn refuse(&mut self, path: &str, what: &str, hint: &str) {
        let message = format!("`{what}` has no equal in Envoy");
        let mut problem = Problem::error(path, message);
        problem.hint = (!hint.is_empty()).then(|| hint.to_owned());
        self.0.push(problem);
    }

    /// Refuses the field `what` at `path` if it `is` there.
    fn refuse_if(&mut self, is: bool, path: &str, what: &str, hint: &str) {
        if is {
            self.refuse(path, what, hint);
        }
    }
}

/// An object of one of Envoy's extensions: its own fields, and what it is.
fn typed(kind: &str, mut fields: Value) -> Value {
    if let Some(object) = fields.as_object_mut() {
        object.insert("@type".to_owned(), format!("{EXTENSIONS}.{kind}").into());
    }
    fields
}

/// An extension under the name that Envoy knows it by.
fn extension(name: &str, kind: &str, fields: Value) -> Value {
    json!({"name": name, "typed_config": typed(kind, fields)})
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// A duration as the JSON form of protocol buffers has it.
fn duration(duration: Duration) -> Value {
    let seconds = duration.as_secs();
    match duration.subsec_millis() {
        0 => format!("{seconds}s").into(),
        millis => format!("{seconds}.{millis:03}s").into(),
    }
}

/// Text in a field of Envoy that takes formats.
fn plain(text: &str) -> String {
    text.replace('%', "%%")
}

/// Fields to write, in the order of Envoy: what replaces, then what is added.
#[derive(Default)]
struct Fields(Vec<Value>);

impl Fields {
    fn set(&mut self, name: &str, format: &str) {
        self.push(name, format, "OVERWRITE_IF_EXISTS_OR_ADD");
    }

    fn add(&mut self, name: &str, format: &str) {
        self.push(name, format, "APPEND_IF_EXISTS_OR_ADD");
    }

    fn set_all(&mut self, fields: &BTreeMap<String, String>) {
        for (name, value) in fields {
            self.set(name, &plain(value));
        }
    }

    fn add_all(&mut self, fields: &BTreeMap<String, String>) {
        for (name, value) in fields {
            self.add(name, &plain(value));
        }
    }

    fn push(&mut self, name: &str, format: &str, how: &str) {
        // Without this a field without a value would be left out.
        let keep = format.is_empty();
        self.0.push(json!({
            "header": {"key": name, "value": format},
            "append_action": how,
            "keep_empty_value": keep,
        }));
    }
}

#[cfg(test)]
mod tests;
