//! What another reader of files of this kind needs: located trees, and the parts of a sidecar's
//! file that the pusher's model has too.
//!
//! ```text
//! text ──parse──▶ Tree ──element──▶ Reader ──▶ the caller's object + its problems
//! ```
//!
//! # Invariants
//! - A rule or a cluster's setting means the same in every file, because one function reads it.

use crate::config::{BackendConfig, ClusterConfig, EndpointConfig, RuleConfig, check, names};
use crate::config::{decode, rules, scalars, tls_decode};
use crate::problem::{Problem, Sink};
use crate::{Mtls, host};

pub use crate::config::decode::Reader;
pub use crate::config::schema::{Schema, nearest};
pub use crate::source::{Children, Kind, Node, Tree, parse};

/// Reads element `index` of the list called `list` of a file: `read` says how. Gives what it gave
/// and every problem, placed.
pub fn element<'a, T>(
    list: &'a str,
    index: usize,
    node: Node<'a>,
    read: impl FnOnce(&mut Reader<'a, '_>, Node<'a>) -> T,
) -> (T, Vec<Problem>) {
    let mut sink = Sink::default();
    let value = read(&mut Reader::of_element(&mut sink, list, index), node);
    let problems = match sink.finish() {
        Ok(warnings) => warnings,
        Err(problems) => problems.0,
    };
    (value, problems)
}

/// A rule of a route; `backend` reads whom it sends requests to.
pub fn rule<'a, 's>(
    r: &mut Reader<'a, 's>,
    node: Node<'a>,
    backend: fn(&mut Reader<'a, 's>, Node<'a>) -> Option<BackendConfig>,
) -> Option<RuleConfig> {
    rules::rule_with(r, node, backend)
}

/// The field `name` of a cluster: `balance`, `connect_timeout`, `idle_timeout`, `pool`, `http2`,
/// `send_proxy_protocol` or `tls`.
pub fn cluster_setting<'a>(
    r: &mut Reader<'a, '_>,
    name: &str,
    node: Node<'a>,
    cluster: &mut ClusterConfig,
) {
    decode::cluster_field(r, name, node, cluster);
}

/// An endpoint: address and weight.
pub fn endpoint<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<EndpointConfig> {
    decode::endpoint(r, node)
}

/// `mtls` of a listener.
pub fn mtls<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<Mtls> {
    r.choice(node, tls_decode::MTLS, &[])
}

/// `ip:port` to listen on.
///
/// # Errors
/// What is wrong with it, and a hint.
pub fn socket_address(text: &str) -> Result<std::net::SocketAddr, (String, Option<String>)> {
    scalars::socket_address(text)
}

/// Checks `ip:port` or `name:port` to connect to.
///
/// # Errors
/// What is wrong with it.
pub fn endpoint_address(text: &str) -> Result<(), String> {
    check::endpoint_address(text)
}

/// Checks an identity: a SPIFFE id with a path.
///
/// # Errors
/// What is wrong with it.
pub fn identity(text: &str) -> Result<(), String> {
    names::identity(text)
}

/// A host of a route (`name`, `*.suffix` or `*`) in the form in which two of them are compared.
///
/// # Errors
/// What is wrong with it.
pub fn host_pattern(text: &str) -> Result<String, String> {
    host::pattern(text).map_err(str::to_owned)?;
    let trimmed = text.strip_suffix('.').unwrap_or(text);
    Ok(trimmed.to_ascii_lowercase())
}
