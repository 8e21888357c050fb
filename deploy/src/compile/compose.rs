//! The configuration of a workload's sidecars, part by part, and where each part comes from.
//!
//! ```text
//! serves  ─▶ listener in-S-P  ─▶ route in-S-P ─▶ cluster local:S:P (the application, plaintext)
//! imports ─▶ listener outbound ─▶ route S:P    ─▶ cluster S:P (mutual TLS with who serves it)
//!         └▶ listener out-S-P ─┘ (tcp: straight to the cluster)
//! ```
//!
//! # Invariants
//! - Listeners, routes and clusters are sorted by name; the sidecar goes by the order of routes
//!   where two are equally specific.
//! - A cluster without identity is a service that says itself that it is outside the mesh.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ringway_router::Protocol;
use ringway_router::config::http2::Http2Config;
use ringway_router::config::tls::IdentityConfig;
use ringway_router::config::{
    BackendConfig, ClusterConfig, ClusterProtocol, Config, EndpointConfig, ListenerConfig,
    RouteConfig, RuleConfig,
};

use super::{Endpoint, EndpointSets, Options};
use crate::diagnostic::{Diagnostic, Key, Kind};
use crate::model::{
    Import, Mesh, Port, PortProtocol, Serve, Service, Workload, any_port, http_port, split,
};

/// Where a part of a configuration comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// `serves[nth]` of the workload.
    Serve(usize),
    /// `outbound` of the workload.
    Outbound,
    /// `imports[nth]` of the workload.
    Import(usize),
    /// A route.
    Route(String),
    /// A service.
    Service(String),
    /// A service, and its endpoints as they are called.
    Cluster(String, Option<String>),
}

/// A configuration with its sources.
pub(super) struct Composed<'m> {
    pub(super) mesh: &'m Mesh,
    pub(super) workload: &'m Workload,
    pub(super) config: Config,
    pub(super) listeners: Vec<Source>,
    pub(super) routes: Vec<Source>,
    pub(super) clusters: Vec<Source>,
    /// What is kept out of the policy's text.
    pub(super) endpoints: EndpointSets,
}

/// What is gathered, by name.
struct Composer<'m> {
    mesh: &'m Mesh,
    presumed: Option<&'m str>,
    listeners: BTreeMap<String, (ListenerConfig, Source)>,
    routes: BTreeMap<String, (RouteConfig, Source)>,
    clusters: BTreeMap<String, (ClusterConfig, Source)>,
    endpoints: EndpointSets,
    nobody: Vec<Diagnostic>,
}

/// What a workload may call: its imports and what the routes of those name.
#[must_use]
pub fn reachable<'m>(mesh: &'m Mesh, workload: &Workload) -> Vec<(&'m Service, &'m Port)> {
    let mut found = BTreeMap::new();
    for import in &workload.imports {
        let Some((service, port)) = imported(mesh, import) else { continue };
        found.insert((&service.name, &port.name), (service, port));
        if port.protocol.is_http() {
            for (service, port) in backends(mesh, &service.name) {
                found.insert((&service.name, &port.name), (service, port));
            }
        }
    }
    found.into_values().collect()
}

/// Whom the routes of a service send requests to.
#[must_use]
pub fn backends<'m>(mesh: &'m Mesh, service: &str) -> Vec<(&'m Service, &'m Port)> {
    let rules = mesh.routes_of(service).flat_map(|object| &object.value.rules);
    rules.flat_map(|rule| &rule.backends).filter_map(|b| backend(mesh, b)).collect()
}

fn backend<'m>(mesh: &'m Mesh, config: &BackendConfig) -> Option<(&'m Service, &'m Port)> {
    let (service, port) = split(&config.cluster);
    let service = mesh.service(service)?;
    Some((service, service.port(port, http_port)?))
}

/// The port that an import means.
pub(crate) fn imported<'m>(mesh: &'m Mesh, import: &Import) -> Option<(&'m Service, &'m Port)> {
    let service = mesh.service(&import.service)?;
    Some((service, service.port(import.port.as_deref(), http_port)?))
}

/// Name of the cluster of a port.
pub(crate) fn cluster_name(service: &Service, port: &Port) -> String {
    format!("{}:{}", service.name, port.name)
}

impl<'m> Composed<'m> {
    /// Composes for `workload`. Services of which nobody knows who they are count as `presumed`.
    ///
    /// # Errors
    /// There are such services and nothing is presumed.
    pub(super) fn of(
        mesh: &'m Mesh,
        workload: &'m Workload,
        options: &Options,
        presumed: Option<&'m str>,
    ) -> Result<Composed<'m>, Vec<Diagnostic>> {
        let mut composer = Composer {
            mesh,
            presumed,
            listeners: BTreeMap::new(),
            routes: BTreeMap::new(),
            clusters: BTreeMap::new(),
            endpoints: EndpointSets::new(),
            nobody: Vec::new(),
        };
        for (nth, serve) in workload.serves.iter().enumerate() {
            composer.serve(nth, serve);
        }
        if let Some(address) = workload.outbound {
            let listener = listener("outbound", address, Protocol::Http1);
            composer.listeners.insert("outbound".to_owned(), (listener, Source::Outbound));
        }
        for (nth, import) in workload.imports.iter().enumerate() {
            composer.import(nth, import);
        }
        if !composer.nobody.is_empty() {
            return Err(composer.nobody);
        }
        let (listeners, of_listeners) = composer.listeners.into_values().unzip();
        let (routes, of_routes) = composer.routes.into_values().unzip();
        let (clusters, of_clusters) = composer.clusters.into_values().unzip();
        let files = &options.identity;
        let identity = IdentityConfig {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            trust_bundle: files.trust_bundle.clone(),
            revocation_lists: files.revocation_lists.clone(),
        };
        let identity = Some(identity);
        let config = Config { identity, listeners, routes, clusters, ..Config::default() };
        Ok(Composed {
            mesh,
            workload,
            config,
            listeners: of_listeners,
            routes: of_routes,
            clusters: of_clusters,
            endpoints: composer.endpoints,
        })
    }
}

fn listener(name: &str, address: SocketAddr, protocol: Protocol) -> ListenerConfig {
    let name = name.to_owned();
    ListenerConfig { name, address: Some(address), protocol, ..ListenerConfig::default() }
}

fn listener_protocol(port: &Port) -> Protocol {
    match port.protocol {
        PortProtocol::Http1 => Protocol::Http1,
        PortProtocol::Http2 => Protocol::Http2,
        PortProtocol::Tcp => Protocol::Tcp,
    }
}

fn cluster_protocol(port: &Port) -> ClusterProtocol {
    match port.protocol {
        PortProtocol::Http2 => ClusterProtocol::Http2,
        PortProtocol::Http1 | PortProtocol::Tcp => ClusterProtocol::Http1,
    }
}

/// A rule that sends everything to one cluster.
fn everything_to(cluster: &str) -> RuleConfig {
    let backend = BackendConfig { cluster: cluster.to_owned(), weight: 1 };
    RuleConfig { backends: vec![backend], ..RuleConfig::default() }
}

impl<'m> Composer<'m> {
    fn serve(&mut self, nth: usize, serve: &Serve) {
        let Some(service) = self.mesh.service(&serve.service) else { return };
        let Some(port) = service.port(serve.port.as_deref(), any_port) else { return };
        let name = format!("in-{}-{}", service.name, port.name);
        let local = format!("local:{}", cluster_name(service, port));
        let mut listener = listener(&name, serve.listen, listener_protocol(port));
        listener.mtls = serve.mtls;
        if port.protocol == PortProtocol::Http2 {
            listener.http2 = service.settings.http2;
        }
        if port.protocol.is_http() {
            let route = RouteConfig {
                name: name.clone(),
                listeners: vec![name.clone()],
                hosts: Vec::new(),
                rules: vec![everything_to(&local)],
            };
            self.routes.insert(name.clone(), (route, Source::Serve(nth)));
        } else {
            listener.cluster = Some(local.clone());
        }
        self.listeners.insert(name, (listener, Source::Serve(nth)));
        let endpoint = |address: &String| EndpointConfig { address: address.clone(), weight: 1 };
        let cluster = ClusterConfig {
            name: local.clone(),
            endpoints: serve.application.iter().map(endpoint).collect(),
            protocol: cluster_protocol(port),
            http2: self.http2(service, port),
            ..ClusterConfig::default()
        };
        self.clusters.insert(local, (cluster, Source::Serve(nth)));
    }

    fn http2(&self, service: &Service, port: &Port) -> Http2Config {
        match port.protocol {
            PortProtocol::Http2 => service.settings.http2,
            PortProtocol::Http1 | PortProtocol::Tcp => Http2Config::DEFAULT,
        }
    }

    fn import(&mut self, nth: usize, import: &Import) {
        let Some((service, port)) = imported(self.mesh, import) else { return };
        let cluster = cluster_name(service, port);
        let mut through = "outbound".to_owned();
        if let Some(address) = import.listen {
            through = format!("out-{}-{}", service.name, port.name);
            let mut listener = listener(&through, address, listener_protocol(port));
            if port.protocol == PortProtocol::Tcp {
                listener.cluster = Some(cluster.clone());
            }
            self.listeners.insert(through.clone(), (listener, Source::Import(nth)));
        }
        if !port.protocol.is_http() {
            self.cluster(service, port);
            return;
        }
        // Whoever uses a listener for this service alone has no need to name it.
        let hosts = if import.listen.is_some() { Vec::new() } else { service.hosts.clone() };
        let route = |name: String, rules: Vec<RuleConfig>| RouteConfig {
            name,
            listeners: vec![through.clone()],
            hosts: hosts.clone(),
            rules,
        };
        let mut is_routed = false;
        for object in self.mesh.routes_of(&service.name) {
            is_routed = true;
            let name = format!("{cluster}/{}", object.value.name);
            let rules = object.value.rules.iter().map(|rule| self.rule(rule)).collect();
            let source = Source::Route(object.value.name.clone());
            self.routes.insert(name.clone(), (route(name, rules), source));
        }
        if !is_routed {
            let rules = vec![everything_to(&cluster)];
            let source = Source::Service(service.name.clone());
            self.routes.insert(cluster.clone(), (route(cluster, rules), source));
            self.cluster(service, port);
        }
        for (service, port) in backends(self.mesh, &service.name) {
            self.cluster(service, port);
        }
    }

    /// A rule with its backends by the names of their clusters.
    fn rule(&self, rule: &RuleConfig) -> RuleConfig {
        let mut rule = rule.clone();
        rule.line = 0;
        for config in &mut rule.backends {
            if let Some((service, port)) = backend(self.mesh, config) {
                config.cluster = cluster_name(service, port);
            }
        }
        rule
    }

    fn cluster(&mut self, service: &Service, port: &Port) {
        let name = cluster_name(service, port);
        if self.clusters.contains_key(&name) {
            return;
        }
        let mut identity = self.mesh.identities_of(service, port);
        identity.sort_unstable();
        identity.dedup();
        if identity.is_empty() && service.identities.is_none() {
            identity.extend(self.presumed.map(str::to_owned));
            if self.presumed.is_none() {
                let key = Key::new(Kind::Service, &service.name);
                let message = format!("nobody serves its port `{}` in the mesh", port.name);
                let origin = self.mesh.origin(&key);
                self.nobody.push(Diagnostic::error(key, &origin, "", message));
            }
        }
        let endpoints = self.mesh.endpoints_of(service, port);
        let of_endpoints = endpoints.map(|object| {
            crate::model::endpoints_name(&object.value.service, object.value.port.as_deref())
        });
        let addresses = endpoints.map_or(&[][..], |object| &object.value.addresses);
        let cluster = ClusterConfig {
            name: name.clone(),
            endpoints: addresses.to_vec(),
            protocol: cluster_protocol(port),
            http2: self.http2(service, port),
            identity,
            ..service.settings.clone()
        };
        let to = |endpoint: &EndpointConfig| Endpoint {
            address: endpoint.address.clone(),
            weight: endpoint.weight,
        };
        let mut set: Vec<Endpoint> = addresses.iter().map(to).collect();
        set.sort_unstable();
        self.endpoints.insert(name.clone(), set);
        let source = Source::Cluster(service.name.clone(), of_endpoints);
        self.clusters.insert(name, (cluster, source));
    }
}
