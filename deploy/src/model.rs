//! The mesh as people write it: services, where they are, how requests for them are answered, and
//! the workloads whose sidecars call and serve them.
//!
//! ```text
//! Folder ──decode──▶ objects ──accept──▶ Mesh + Accepted + diagnostics
//!                      ▲  check: names that lead nowhere, what a table refuses
//!                      └── Accepted of the last time: a bad object's last good version
//! ```
//!
//! # Invariants
//! - A [`Mesh`] that was accepted holds only objects that passed every check together: it compiles
//!   for every workload.
//! - Objects are found by name; in which file they stood and in which order does not show.
//!
//! # Not here
//! What sidecars read (`compile`), when it is released (`guard`).

pub mod accept;
mod check;
mod decode;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ringway_router::Mtls;
use ringway_router::config::{ClusterConfig, EndpointConfig, RuleConfig};

use crate::diagnostic::{Key, Kind, Origin};

pub(crate) use accept::place;
pub(crate) use check::split;
pub(crate) use decode::joined as endpoints_name;

pub use accept::{Accepted, AcceptedObject, Fate, LoadError, Loaded, Mode, Quarantined, accept};

/// The trust domain where nothing else is said.
pub const TRUST_DOMAIN: &str = "cluster.local";

/// An object with where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<T> {
    /// What it says.
    pub value: T,
    /// Where it stands.
    pub origin: Origin,
    /// As one line of YAML, from which it can be read again.
    pub text: String,
}

/// What holds for the whole mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Who is in the mesh: identities start with `spiffe://` and this.
    pub trust_domain: String,
}

/// What a port of a service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, and so gRPC.
    Http2,
    /// Opaque bytes.
    Tcp,
}

impl PortProtocol {
    /// Whether its requests are routed.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, PortProtocol::Http1 | PortProtocol::Http2)
    }

    /// As a file writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            PortProtocol::Http1 => "http1",
            PortProtocol::Http2 => "http2",
            PortProtocol::Tcp => "tcp",
        }
    }
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name, unique in the service.
    pub name: String,
    /// The number that clients know, unique in the service.
    pub port: u16,
    /// What is spoken.
    pub protocol: PortProtocol,
}

/// Something that is called by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Name, unique among the services.
    pub name: String,
    /// Hosts that clients use.
    pub hosts: Vec<String>,
    /// Whom clients expect; `None` stands for the workloads that serve the port, an empty list for
    /// a service outside the mesh.
    pub identities: Option<Vec<String>>,
    /// Its ports, at least one.
    pub ports: Vec<Port>,
    /// Settings of its clusters; name, endpoints, protocol and identity are those of a default.
    pub settings: ClusterConfig,
}

impl Service {
    /// The port called `name`; without a name the only one, or else the only one for which
    /// `preferred` holds.
    #[must_use]
    pub fn port(&self, name: Option<&str>, preferred: fn(&Port) -> bool) -> Option<&Port> {
        if let Some(name) = name {
            return self.ports.iter().find(|port| port.name == name);
        }
        if let [only] = self.ports.as_slice() {
            return Some(only);
        }
        let mut fitting = self.ports.iter().filter(|port| preferred(port));
        let first = fitting.next();
        if fitting.next().is_some() { None } else { first }
    }
}

/// Where a port of a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The service.
    pub service: String,
    /// Its port; `None` for the only one.
    pub port: Option<String>,
    /// The addresses.
    pub addresses: Vec<EndpointConfig>,
}

/// How requests for a service are answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Name, unique among the routes.
    pub name: String,
    /// The service that is asked for.
    pub service: String,
    /// What is done. `cluster` of a backend is the name of a service, or `service:port`.
    pub rules: Vec<RuleConfig>,
}

/// A port of a service that a workload serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// The service.
    pub service: String,
    /// Its port; `None` for the only one.
    pub port: Option<String>,
    /// Where its sidecar listens for it.
    pub listen: SocketAddr,
    /// Where the application is.
    pub application: Vec<String>,
    /// Whether clients must show a certificate of the mesh.
    pub mtls: Mtls,
}

/// A port of a service that a workload may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The service.
    pub service: String,
    /// Its port; `None` for the only one, or the only one that speaks HTTP.
    pub port: Option<String>,
    /// A listener for this port alone.
    pub listen: Option<SocketAddr>,
}

/// A class of sidecars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Name, unique among the workloads.
    pub name: String,
    /// Who its sidecars are; `None` for the one that the name gives.
    pub identity: Option<String>,
    /// What it serves.
    pub serves: Vec<Serve>,
    /// Where its application sends requests to be routed by their host.
    pub outbound: Option<SocketAddr>,
    /// What it may call.
    pub imports: Vec<Import>,
}

/// Objects by name.
pub type Objects<T> = BTreeMap<String, Arc<Object<T>>>;

/// A whole mesh.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mesh {
    /// What holds for all of it; at most one, without a name.
    pub settings: Option<Arc<Object<Settings>>>,
    /// Services.
    pub services: Objects<Service>,
    /// Sets of endpoints, by `service` or `service:port` as they are written.
    pub endpoints: Objects<Endpoints>,
    /// Routes.
    pub routes: Objects<Route>,
    /// Workloads.
    pub workloads: Objects<Workload>,
}

impl Mesh {
    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.settings.as_ref().map_or(TRUST_DOMAIN, |object| &object.value.trust_domain)
    }

    /// Who the sidecars of a workload are.
    #[must_use]
    pub fn identity(&self, workload: &Workload) -> String {
        match &workload.identity {
            Some(identity) => identity.clone(),
            None => {
                let (domain, name) = (self.trust_domain(), &workload.name);
                format!("spiffe://{domain}/ns/default/sa/{name}")
            }
        }
    }

    /// A service.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.get(name).map(|object| &object.value)
    }

    /// A workload by its name or identity.
    #[must_use]
    pub fn workload(&self, name: &str) -> Option<&Workload> {
        if let Some(object) = self.workloads.get(name) {
            return Some(&object.value);
        }
        let mut workloads = self.workloads.values().map(|object| &object.value);
        workloads.find(|workload| self.identity(workload) == name)
    }

    /// The routes that answer for a service, by name.
    pub fn routes_of(&self, service: &str) -> impl Iterator<Item = &Arc<Object<Route>>> {
        self.routes.values().filter(move |object| object.value.service == service)
    }

    /// Where a port of a service is; a service may leave the port out if it has only one.
    #[must_use]
    pub fn endpoints_of(&self, service: &Service, port: &Port) -> Option<&Object<Endpoints>> {
        let named = self.endpoints.get(&format!("{}:{}", service.name, port.name));
        let short = || match service.ports.len() {
            1 => self.endpoints.get(&service.name),
            _ => None,
        };
        named.or_else(short).map(|object| &**object)
    }

    /// Whom clients of a port expect: what the service says, or else the workloads that serve the
    /// port over mutual TLS.
    #[must_use]
    pub fn identities_of(&self, service: &Service, port: &Port) -> Vec<String> {
        if let Some(identities) = &service.identities {
            return identities.clone();
        }
        let serves = |workload: &Workload| {
            workload.serves.iter().any(|serve| {
                serve.service == service.name
                    && serve.mtls != Mtls::Disabled
                    && service.port(serve.port.as_deref(), any_port) == Some(port)
            })
        };
        let workloads = self.workloads.values().map(|object| &object.value);
        workloads.filter(|workload| serves(workload)).map(|w| self.identity(w)).collect()
    }
}

/// No port is meant more than another.
pub(crate) fn any_port(_: &Port) -> bool {
    false
}

/// Ports whose requests are routed are meant where none is named.
pub(crate) fn http_port(port: &Port) -> bool {
    port.protocol.is_http()
}

/// An object of any kind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AnyObject {
    Settings(Arc<Object<Settings>>),
    Service(Arc<Object<Service>>),
    Endpoints(Arc<Object<Endpoints>>),
    Route(Arc<Object<Route>>),
    Workload(Arc<Object<Workload>>),
}

impl AnyObject {
    fn origin(&self) -> &Origin {
        match self {
            AnyObject::Settings(object) => &object.origin,
            AnyObject::Service(object) => &object.origin,
            AnyObject::Endpoints(object) => &object.origin,
            AnyObject::Route(object) => &object.origin,
            AnyObject::Workload(object) => &object.origin,
        }
    }

    fn text(&self) -> &str {
        match self {
            AnyObject::Settings(object) => &object.text,
            AnyObject::Service(object) => &object.text,
            AnyObject::Endpoints(object) => &object.text,
            AnyObject::Route(object) => &object.text,
            AnyObject::Workload(object) => &object.text,
        }
    }
}

impl Mesh {
    fn insert(&mut self, key: &Key, object: &AnyObject) {
        let name = key.name.clone();
        match object {
            AnyObject::Settings(object) => self.settings = Some(Arc::clone(object)),
            AnyObject::Service(object) => _ = self.services.insert(name, Arc::clone(object)),
            AnyObject::Endpoints(object) => _ = self.endpoints.insert(name, Arc::clone(object)),
            AnyObject::Route(object) => _ = self.routes.insert(name, Arc::clone(object)),
            AnyObject::Workload(object) => _ = self.workloads.insert(name, Arc::clone(object)),
        }
    }

    /// Where an object stands; nowhere if there is none.
    #[must_use]
    pub fn origin(&self, key: &Key) -> Origin {
        fn of<T>(objects: &Objects<T>, name: &str) -> Option<Origin> {
            objects.get(name).map(|object| object.origin.clone())
        }
        let origin = match key.kind {
            Kind::Mesh => self.settings.as_ref().map(|object| object.origin.clone()),
            Kind::Service => of(&self.services, &key.name),
            Kind::Endpoints => of(&self.endpoints, &key.name),
            Kind::Route => of(&self.routes, &key.name),
            Kind::Workload => of(&self.workloads, &key.name),
        };
        origin.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
