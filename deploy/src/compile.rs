//! From a mesh to what the sidecars of one workload run.
//!
//! ```text
//! Mesh + Workload ──compose──▶ Config + where each part comes from
//!                     │  to_file, endpoints kept apart
//!                     ▼
//!                  Policy{text, hash, endpoints} ──load_table──▶ problems, mapped back
//! ```
//!
//! # Invariants
//! - Pure: equal meshes give equal texts, in whatever files and order they were written.
//! - Every policy has passed the sidecar's own compiler, with its endpoints in it.
//! - Only what a workload imports, and what the routes of its imports send requests to, is in it.
//!
//! # Not here
//! When a policy goes where (`rollout`), and whether it may (`guard`).

mod compose;
mod envoy;
mod memory;
mod problems;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use ringway_router::config::{ClusterProtocol, Config};
use ringway_router::{Balance, Format, Mtls, Protocol, Table, load_table, to_file};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::diagnostic::{Diagnostic, Key, Kind};
use crate::limits::TABLE_BYTES_MAX;
use crate::model::{Import, Mesh, Port, Service, Workload};

pub use compose::{backends, reachable};
pub(crate) use compose::{cluster_name, imported};
pub use envoy::envoy;

use compose::Composed;

/// Files of a sidecar's identity, as its policy names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// Certificate chain.
    pub certificate: String,
    /// Private key.
    pub key: String,
    /// Roots.
    pub trust_bundle: String,
    /// Revocation lists.
    pub revocation_lists: Vec<String>,
}

impl IdentityFiles {
    /// Those in the state folder of a sidecar.
    #[must_use]
    pub fn in_state_folder(revocation: bool) -> IdentityFiles {
        let mut files = IdentityFiles::in_folder("id", ["svid.pem", "svid.pem", "bundle.pem"]);
        if revocation {
            files.revocation_lists = vec!["id/revoked.pem".to_owned()];
        }
        files
    }

    /// Certificate, key and bundle in a folder, without revocation lists.
    #[must_use]
    pub fn in_folder(folder: &str, [certificate, key, bundle]: [&str; 3]) -> IdentityFiles {
        let file = |name: &str| format!("{}/{name}", folder.trim_end_matches('/'));
        IdentityFiles {
            certificate: file(certificate),
            key: file(key),
            trust_bundle: file(bundle),
            revocation_lists: Vec::new(),
        }
    }
}

/// What policies are compiled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Files of the sidecar's identity.
    pub identity: IdentityFiles,
    /// Worst-case memory of its tables. Default [`TABLE_BYTES_MAX`]. Raising it lets one import
    /// take more memory in every sidecar of a workload.
    pub table_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { identity: IdentityFiles::in_state_folder(true), table_bytes_max: TABLE_BYTES_MAX }
    }
}

/// A member of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    /// `ip:port` or `name:port`.
    pub address: String,
    /// Share in proportion to the others.
    pub weight: u32,
}

/// Endpoints by the name of their cluster, sorted by address.
pub type EndpointSets = BTreeMap<String, Vec<Endpoint>>;

/// What a sidecar must be able to do to run a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Clusters whose endpoints are pushed (`discovery: pushed`).
    DiscoveryPushed,
    /// HTTP/2 with clients or endpoints.
    Http2,
    /// Mutual TLS by SPIFFE identity.
    MutualTls,
    /// PROXY protocol towards endpoints.
    ProxyProtocol,
    /// Lists of revoked certificates.
    Revocation,
    /// Balancing in turn.
    RoundRobin,
    /// TLS with services outside the mesh.
    TlsOutside,
    /// Opaque TCP.
    Tcp,
}

impl Capability {
    /// As it is said on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Capability::DiscoveryPushed => "discovery-pushed",
            Capability::Http2 => "http2",
            Capability::MutualTls => "mutual-tls",
            Capability::ProxyProtocol => "proxy-protocol",
            Capability::Revocation => "revocation",
            Capability::RoundRobin => "round-robin",
            Capability::TlsOutside => "tls-outside",
            Capability::Tcp => "tcp",
        }
    }
}

/// What the sidecars of a workload run, without the endpoints of what they call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A sidecar's file in JSON on one line, keys sorted, defaults left out; clusters of services
    /// have `discovery: pushed` in place of endpoints.
    pub text: String,
    /// BLAKE3-256 of the text, in lower-case hexadecimal digits.
    pub hash: String,
    /// What its sidecars must be able to do, sorted.
    pub requires: Vec<Capability>,
    /// Where the services are now; not part of the hash.
    pub endpoints: EndpointSets,
    /// Worst-case memory of its tables in bytes.
    pub table_bytes: usize,
    /// What is worth a look.
    pub warnings: Vec<Diagnostic>,
}

/// The policies of a mesh: workloads with one text share a class.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// Policies by hash.
    pub classes: BTreeMap<String, Policy>,
    /// The hash of each workload's policy, by its name.
    pub of: BTreeMap<String, String>,
}

impl Policies {
    /// The policy of a workload.
    #[must_use]
    pub fn policy(&self, workload: &str) -> Option<&Policy> {
        self.classes.get(self.of.get(workload)?)
    }

    /// Puts the policy of a workload in.
    pub(crate) fn add(&mut self, workload: &str, policy: Policy) {
        self.of.insert(workload.to_owned(), policy.hash.clone());
        self.classes.entry(policy.hash.clone()).or_insert(policy);
    }
}

/// Compiles for one workload.
///
/// # Errors
/// What the sidecar's compiler refuses or is over a limit, each at the object that it comes from.
/// A mesh that was accepted has none of it.
pub fn compile(
    mesh: &Mesh,
    workload: &Workload,
    options: &Options,
) -> Result<Policy, Vec<Diagnostic>> {
    finish(Composed::of(mesh, workload, options, None)?, options)
}

/// What would be wrong if somebody imported all of `service`.
#[must_use]
pub fn service_alone(mesh: &Mesh, service: &Service, options: &Options) -> Vec<Diagnostic> {
    let import = |(nth, port): (usize, &Port)| Import {
        service: service.name.clone(),
        port: Some(port.name.clone()),
        listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, nth as u16 + 1))),
    };
    let workload = Workload {
        name: String::new(),
        identity: None,
        serves: Vec::new(),
        outbound: None,
        imports: service.ports.iter().enumerate().map(import).collect(),
    };
    let somebody = format!("spiffe://{}/somebody", mesh.trust_domain());
    let composed = Composed::of(mesh, &workload, options, Some(&somebody));
    let mut diagnostics = match composed.and_then(|composed| finish(composed, options)) {
        Ok(policy) => policy.warnings,
        Err(diagnostics) => diagnostics,
    };
    let nobody = Key::new(Kind::Workload, "");
    for diagnostic in &mut diagnostics {
        if diagnostic.object.as_ref() == Some(&nobody) {
            diagnostic.object = Some(Key::new(Kind::Service, &service.name));
        }
    }
    diagnostics
}

/// Writes a policy as a file that needs no pusher: endpoints in their place.
#[must_use]
pub fn with_endpoints(policy: &Policy) -> String {
    let Ok(mut file) = serde_json::from_str::<Value>(&policy.text) else {
        return policy.text.clone();
    };
    if let Some(clusters) = file.get_mut("clusters").and_then(Value::as_array_mut) {
        for cluster in clusters.iter_mut().filter_map(Value::as_object_mut) {
            if cluster.remove("discovery").is_some() {
                let name = cluster.get("name").and_then(Value::as_str).unwrap_or_default();
                let endpoints = policy.endpoints.get(name).map_or(&[][..], Vec::as_slice);
                let endpoints = endpoints.iter().map(endpoint).collect();
                cluster.insert("endpoints".to_owned(), Value::Array(endpoints));
            }
        }
    }
    file.to_string()
}

fn endpoint(endpoint: &Endpoint) -> Value {
    match endpoint.weight {
        1 => serde_json::json!({"address": endpoint.address}),
        weight => serde_json::json!({"address": endpoint.address, "weight": weight}),
    }
}

/// Writes what was composed, and has it compiled.
fn finish(composed: Composed<'_>, options: &Options) -> Result<Policy, Vec<Diagnostic>> {
    let file = to_file(&composed.config);
    let (table, loaded) = load_table(&file.to_string(), Format::Json)
        .map_err(|found| problems::mapped(&composed, found.0))?;
    let table_bytes = memory::worst_case(&table, &composed.config);
    let (workload, most) = (composed.workload, options.table_bytes_max);
    if table_bytes > most {
        let key = Key::new(Kind::Workload, &workload.name);
        let message = format!(
            "its tables may take {} MiB, more than the {} MiB allowed",
            table_bytes >> 20,
            most >> 20
        );
        let origin = composed.mesh.origin(&key);
        let hint = "regular expressions take the most; import less, or match by prefix";
        return Err(vec![Diagnostic::error(key, &origin, "", message).hint(hint)]);
    }
    let warnings = problems::mapped(&composed, loaded.warnings);
    let text = pushed(file, &composed.endpoints);
    // What is pushed is what sidecars compile.
    load_table(&text, Format::Json).map_err(|found| problems::mapped(&composed, found.0))?;
    let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
    let requires = requires(&composed.config, &table, &composed.endpoints);
    Ok(Policy { text, hash, requires, endpoints: composed.endpoints, table_bytes, warnings })
}

/// The text of a file without the endpoints that are pushed.
fn pushed(mut file: Value, endpoints: &EndpointSets) -> String {
    if let Some(clusters) = file.get_mut("clusters").and_then(Value::as_array_mut) {
        for cluster in clusters.iter_mut().filter_map(Value::as_object_mut) {
            let name = cluster.get("name").and_then(Value::as_str);
            if name.is_some_and(|name| endpoints.contains_key(name)) {
                cluster.remove("endpoints");
                cluster.insert("discovery".to_owned(), "pushed".into());
            }
        }
    }
    file.to_string()
}

fn requires(config: &Config, table: &Table, endpoints: &EndpointSets) -> Vec<Capability> {
    let mut found = BTreeSet::new();
    let mut needs = |is_needed: bool, capability: Capability| {
        if is_needed {
            found.insert(capability);
        }
    };
    needs(!endpoints.is_empty(), Capability::DiscoveryPushed);
    needs(
        table.identity().is_some_and(|identity| !identity.revocation_lists.is_empty()),
        Capability::Revocation,
    );
    for listener in &config.listeners {
        needs(listener.protocol == Protocol::Http2, Capability::Http2);
        needs(listener.protocol == Protocol::Tcp, Capability::Tcp);
        needs(listener.mtls != Mtls::Disabled, Capability::MutualTls);
    }
    for cluster in &config.clusters {
        let is_outside = cluster.tls.is_some() && cluster.identity.is_empty();
        needs(cluster.protocol == ClusterProtocol::Http2, Capability::Http2);
        needs(cluster.balance == Balance::RoundRobin, Capability::RoundRobin);
        needs(!cluster.identity.is_empty(), Capability::MutualTls);
        needs(is_outside, Capability::TlsOutside);
        needs(cluster.send_proxy_protocol.is_some(), Capability::ProxyProtocol);
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests;
