//! What objects mean together: names that lead nowhere, two that want the same, and what the
//! sidecar's own compiler says about the policies that come of them.
//!
//! A [`Fault`] says which objects could be to blame; whoever accepts a mesh takes the one that is
//! new.
//!
//! # Invariants
//! - A mesh without faults compiles for every workload: the last check is to do it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ringway_router::config::RuleConfig;
use ringway_router::read::nearest;
use ringway_router::{Mtls, Severity};

use super::{
    Endpoints, Mesh, Object, Objects, Port, Route, Service, Workload, any_port, http_port,
};
use crate::compile::{self, Options, Policies};
use crate::diagnostic::{Diagnostic, Key, Kind};

/// A problem, and whose fault it may be.
pub(super) struct Fault {
    /// Who may be to blame, the likeliest first; never empty.
    pub(super) blame: Vec<Key>,
    /// What is missing: with it there would be no fault.
    pub(super) needs: Option<Key>,
    /// What is wrong.
    pub(super) diagnostic: Diagnostic,
}

/// What a mesh was found to be.
#[derive(Default)]
pub(super) struct Checked {
    /// What is wrong; nothing else is known then.
    pub(super) faults: Vec<Fault>,
    /// What is worth a look.
    pub(super) warnings: Vec<Diagnostic>,
    /// What it compiles to.
    pub(super) policies: Policies,
}

/// Looks for faults.
struct Checker<'m> {
    mesh: &'m Mesh,
    faults: Vec<Fault>,
}

/// Every fault of a mesh, and what one compiles to that has none.
pub(super) fn mesh(mesh: &Mesh, options: &Options) -> Checked {
    let mut checker = Checker { mesh, faults: Vec::new() };
    for object in mesh.services.values() {
        checker.service(object);
    }
    checker.endpoints();
    for object in mesh.routes.values() {
        checker.route(object);
    }
    checker.workloads();
    if checker.faults.is_empty() {
        return compile_all(mesh, options);
    }
    Checked { faults: checker.faults, ..Checked::default() }
}

/// Compiles for every workload. What is wrong then has passed the checks before: a value that
/// tables refuse, or a limit of theirs.
fn compile_all(mesh: &Mesh, options: &Options) -> Checked {
    let Checked { mut faults, mut warnings, mut policies } = Checked::default();
    for (name, object) in &mesh.workloads {
        match compile::compile(mesh, &object.value, options) {
            Ok(policy) => {
                warnings.extend_from_slice(&policy.warnings);
                policies.add(name, policy);
            }
            Err(diagnostics) => {
                for diagnostic in diagnostics {
                    let workload = Key::new(Kind::Workload, name);
                    let named = diagnostic.object.clone().into_iter();
                    let blame = named.chain([workload]).collect();
                    faults.push(Fault { blame, needs: None, diagnostic });
                }
            }
        }
    }
    let called: BTreeSet<&str> = mesh
        .workloads
        .values()
        .flat_map(|object| compile::reachable(mesh, &object.value))
        .map(|(service, _)| service.name.as_str())
        .collect();
    let uncalled = mesh.services.iter().filter(|(name, _)| !called.contains(name.as_str()));
    for (name, object) in uncalled {
        // What nobody calls is in no policy, and so was seen by no table.
        alone(mesh, object, options, &mut faults);
        let served = mesh.workloads.values().flat_map(|object| &object.value.serves);
        if !served.into_iter().any(|serve| serve.service == *name) {
            let key = Key::new(Kind::Service, name);
            let message = "nobody imports or serves it";
            warnings.push(Diagnostic::warning(key, &object.origin, "", message));
        }
    }
    Checked { faults, warnings, policies }
}

/// Compiles a service that nobody calls for a workload that would.
fn alone(mesh: &Mesh, object: &Object<Service>, options: &Options, faults: &mut Vec<Fault>) {
    for diagnostic in compile::service_alone(mesh, &object.value, options) {
        if diagnostic.severity == Severity::Error {
            let service = Key::new(Kind::Service, &object.value.name);
            let named = diagnostic.object.clone().into_iter();
            let blame = named.chain([service]).collect();
            faults.push(Fault { blame, needs: None, diagnostic });
        }
    }
}

impl<'m> Checker<'m> {
    fn fault(&mut self, blame: Vec<Key>, diagnostic: Diagnostic) {
        self.faults.push(Fault { blame, needs: None, diagnostic });
    }

    fn service(&mut self, object: &Object<Service>) {
        let service = &object.value;
        let key = Key::new(Kind::Service, &service.name);
        let mut refuse = |path: &str, message: String| {
            let diagnostic = Diagnostic::error(key.clone(), &object.origin, path, message);
            self.faults.push(Fault { blame: vec![key.clone()], needs: None, diagnostic });
        };
        if service.ports.is_empty() {
            refuse("ports", "at least one port is required".to_owned());
        }
        for (nth, port) in service.ports.iter().enumerate() {
            for earlier in &service.ports[..nth] {
                if earlier.name == port.name {
                    refuse(&format!("ports[{nth}].name"), format!("`{}` is here twice", port.name));
                }
                if earlier.port == port.port {
                    refuse(&format!("ports[{nth}].port"), format!("{} is here twice", port.port));
                }
            }
        }
        for (nth, host) in service.hosts.iter().enumerate() {
            if service.hosts[..nth].contains(host) {
                refuse(&format!("hosts[{nth}]"), format!("`{host}` is here twice"));
            }
        }
        let domain = format!("spiffe://{}/", self.mesh.trust_domain());
        for (nth, identity) in service.identities.iter().flatten().enumerate() {
            if !identity.starts_with(&domain) {
                let message = format!("`{identity}` is outside the trust domain, {domain}");
                refuse(&format!("identities[{nth}]"), message);
            }
        }
        let speaks_http2 = |port: &Port| port.protocol == super::PortProtocol::Http2;
        let has_http2 = service.settings.http2 != Default::default();
        if has_http2 && !service.ports.iter().any(speaks_http2) {
            refuse("http2", "no port of it speaks HTTP/2".to_owned());
        }
    }

    fn endpoints(&mut self) {
        let mut seen: BTreeMap<(&str, &str), &str> = BTreeMap::new();
        for (name, object) in &self.mesh.endpoints {
            let key = Key::new(Kind::Endpoints, name);
            let Endpoints { service, port, .. } = &object.value;
            let Some((service, port)) =
                self.reference(&key, object, "", (service, port.as_deref()), any_port)
            else {
                continue;
            };
            if let Some(first) = seen.insert((&service.name, &port.name), name) {
                let first_key = Key::new(Kind::Endpoints, first);
                let place = self.mesh.origin(&first_key);
                let message =
                    format!("{}:{} has the endpoints of this port already", place.file, place.line);
                let diagnostic = Diagnostic::error(key.clone(), &object.origin, "port", message);
                self.fault(vec![key, first_key], diagnostic);
            }
        }
    }

    /// Finds the port of a service that `path` of an object names.
    fn reference<T>(
        &mut self,
        key: &Key,
        object: &Object<T>,
        path: &str,
        (service, port): (&str, Option<&str>),
        preferred: fn(&Port) -> bool,
    ) -> Option<(&'m Service, &'m Port)> {
        let inner = |field: &str| match path.is_empty() {
            true => field.to_owned(),
            false => format!("{path}.{field}"),
        };
        let Some(found) = self.mesh.services.get(service) else {
            let at = inner("service");
            let message = format!("there is no service `{service}`");
            let mut diagnostic = Diagnostic::error(key.clone(), &object.origin, &at, message);
            diagnostic.hint = similar(service, &self.mesh.services);
            let needs = Some(Key::new(Kind::Service, service));
            self.faults.push(Fault { blame: vec![key.clone()], needs, diagnostic });
            return None;
        };
        if let Some(port) = found.value.port(port, preferred) {
            return Some((&found.value, port));
        }
        let names: Vec<&str> = found.value.ports.iter().map(|port| port.name.as_str()).collect();
        let message = match port {
            Some(port) => format!("service `{service}` has no port `{port}`"),
            None => format!("service `{service}` has several ports: name one with `port`"),
        };
        let diagnostic = Diagnostic::error(key.clone(), &object.origin, &inner("port"), message)
            .hint(format!("it has {}", names.join(", ")));
        self.fault(vec![key.clone(), Key::new(Kind::Service, service)], diagnostic);
        None
    }

    fn route(&mut self, object: &Object<Route>) {
        let route = &object.value;
        let key = Key::new(Kind::Route, &route.name);
        if let Some(service) = self.mesh.services.get(&route.service) {
            if !service.value.ports.iter().any(http_port) {
                let message = format!("service `{}` has no port of HTTP to route", route.service);
                let diagnostic = Diagnostic::error(key.clone(), &object.origin, "service", message);
                self.fault(vec![key.clone(), Key::new(Kind::Service, &route.service)], diagnostic);
            }
        } else {
            self.reference(&key, object, "", (&route.service, None), http_port);
        }
        if route.rules.is_empty() {
            let message = "at least one rule is required";
            let diagnostic = Diagnostic::error(key.clone(), &object.origin, "rules", message);
            self.fault(vec![key.clone()], diagnostic);
        }
        for (nth, rule) in route.rules.iter().enumerate() {
            self.rule(&key, object, &format!("rules[{nth}]"), rule);
        }
    }

    fn rule(&mut self, key: &Key, object: &Object<Route>, path: &str, rule: &RuleConfig) {
        for (nth, backend) in rule.backends.iter().enumerate() {
            let at = format!("{path}.backends[{nth}]");
            let named = split(&backend.cluster);
            let Some((service, port)) = self.reference(key, object, &at, named, http_port) else {
                continue;
            };
            if !port.protocol.is_http() {
                let message = format!(
                    "port `{}` of service `{}` is {}: requests go to ports of HTTP",
                    port.name,
                    service.name,
                    port.protocol.as_str()
                );
                let diagnostic = Diagnostic::error(key.clone(), &object.origin, &at, message);
                self.fault(vec![key.clone(), Key::new(Kind::Service, &service.name)], diagnostic);
            }
        }
        let weightless = rule.backends.iter().all(|backend| backend.weight == 0);
        if !rule.backends.is_empty() && weightless {
            let message = "the weights add up to 0: nobody would be asked";
            let at = format!("{path}.backends");
            let diagnostic = Diagnostic::error(key.clone(), &object.origin, &at, message)
                .hint("to answer without asking anybody, use `respond`");
            self.fault(vec![key.clone()], diagnostic);
        }
    }

    fn workloads(&mut self) {
        let mut identities: BTreeMap<String, Vec<&Object<Workload>>> = BTreeMap::new();
        for object in self.mesh.workloads.values() {
            self.workload(object);
            identities.entry(self.mesh.identity(&object.value)).or_default().push(object);
        }
        for (identity, objects) in identities.iter().filter(|(_, objects)| objects.len() > 1) {
            for object in objects {
                let key = |object: &Object<Workload>| Key::new(Kind::Workload, &object.value.name);
                let others = objects.iter().filter(|other| other.value.name != object.value.name);
                let others: Vec<Key> = others.map(|object| key(object)).collect();
                let names: Vec<String> = others.iter().map(ToString::to_string).collect();
                let message = format!("{} has the identity {identity}, too", names.join(" and "));
                let path = if object.value.identity.is_some() { "identity" } else { "" };
                let diagnostic = Diagnostic::error(key(object), &object.origin, path, message);
                self.fault([vec![key(object)], others].concat(), diagnostic);
            }
        }
    }

    fn workload(&mut self, object: &Object<Workload>) {
        let workload = &object.value;
        let key = Key::new(Kind::Workload, &workload.name);
        let refuse = |path: &str, message: String| {
            Diagnostic::error(key.clone(), &object.origin, path, message)
        };
        let (domain, identity) = (self.mesh.trust_domain(), self.mesh.identity(workload));
        if !identity.starts_with(&format!("spiffe://{domain}/")) {
            let message = format!("`{identity}` is outside the trust domain, spiffe://{domain}/");
            let diagnostic = refuse("identity", message);
            self.fault(vec![key.clone(), Key::new(Kind::Mesh, "")], diagnostic);
        }
        if workload.serves.is_empty() && workload.imports.is_empty() && workload.outbound.is_none()
        {
            let message = "it neither serves nor imports anything";
            let diagnostic = refuse("", message.to_owned());
            self.fault(vec![key.clone()], diagnostic);
        }
        self.serves(&key, object);
        self.imports(&key, object);
        for (path, message) in collisions(workload) {
            let diagnostic = refuse(&path, message);
            self.fault(vec![key.clone()], diagnostic);
        }
    }

    fn serves(&mut self, key: &Key, object: &Object<Workload>) {
        let mut seen = BTreeSet::new();
        for (nth, serve) in object.value.serves.iter().enumerate() {
            let path = format!("serves[{nth}]");
            let named = (serve.service.as_str(), serve.port.as_deref());
            let Some((service, port)) = self.reference(key, object, &path, named, any_port) else {
                continue;
            };
            // Listeners are called by both names joined, which two pairs of names may share.
            if !seen.insert(format!("{}-{}", service.name, port.name)) {
                let message = "it is served already, or under names that join to the same";
                let diagnostic = Diagnostic::error(key.clone(), &object.origin, &path, message);
                self.fault(vec![key.clone()], diagnostic);
            }
            if serve.application.is_empty() {
                let message = "the address of the application is required";
                let at = format!("{path}.application");
                let diagnostic = Diagnostic::error(key.clone(), &object.origin, &at, message);
                self.fault(vec![key.clone()], diagnostic);
            }
        }
    }

    fn imports(&mut self, key: &Key, object: &Object<Workload>) {
        let workload = &object.value;
        let mut seen = BTreeSet::new();
        let mut hosts: BTreeMap<&str, &Service> = BTreeMap::new();
        for (nth, import) in workload.imports.iter().enumerate() {
            let path = format!("imports[{nth}]");
            let named = (import.service.as_str(), import.port.as_deref());
            let Some((service, port)) = self.reference(key, object, &path, named, http_port) else {
                continue;
            };
            let blame = vec![key.clone(), Key::new(Kind::Service, &service.name)];
            let refuse =
                |message: String| Diagnostic::error(key.clone(), &object.origin, &path, message);
            if !seen.insert(format!("{}-{}", service.name, port.name)) {
                let message = "it is imported already, or under names that join to the same";
                self.fault(vec![key.clone()], refuse(message.to_owned()));
            }
            self.callable(key, object, &path, (service, port));
            let routed = port.protocol.is_http() && import.listen.is_none();
            if !port.protocol.is_http() && import.listen.is_none() {
                let diagnostic = refuse("a tcp port needs a listener of its own".to_owned())
                    .hint("add `listen: 127.0.0.1:PORT`");
                self.fault(blame, diagnostic);
            } else if routed && workload.outbound.is_none() {
                let diagnostic = refuse("the workload has no `outbound` to call it by".to_owned())
                    .hint("add `outbound: 127.0.0.1:4140` to the workload, or `listen` here");
                self.fault(blame, diagnostic);
            }
            for host in service.hosts.iter().filter(|_| routed) {
                let Some(first) = hosts.insert(host, service) else { continue };
                let message = format!("the host `{host}` is that of service `{}` too", first.name);
                let diagnostic = refuse(message)
                    .hint("import one of them only, or give one a listener of its own: `listen`");
                let services = [first, service].map(|one| Key::new(Kind::Service, &one.name));
                self.fault([vec![key.clone()], services.to_vec()].concat(), diagnostic);
            }
        }
    }

    /// Reports a service of which nobody knows who it is.
    fn callable(
        &mut self,
        key: &Key,
        object: &Object<Workload>,
        path: &str,
        (service, port): (&'m Service, &'m Port),
    ) {
        let mut called = vec![(service, port)];
        if port.protocol.is_http() {
            called.extend(compile::backends(self.mesh, &service.name));
        }
        for (service, port) in called {
            let nobody = self.mesh.identities_of(service, port).is_empty();
            if !nobody || service.identities.is_some() {
                continue;
            }
            let serves = |w: &&Object<Workload>| {
                w.value
                    .serves
                    .iter()
                    .any(|serve| serve.service == service.name && serve.mtls == Mtls::Disabled)
            };
            let in_plain = self.mesh.workloads.values().map(|object| &**object).any(|w| serves(&w));
            let why = if in_plain { "only in plaintext" } else { "by nobody" };
            let message = format!(
                "port `{}` of service `{}` is served {why}, so its callers cannot know who it is",
                port.name, service.name
            );
            let hint = "name its `identities`; `identities: []` says that it is outside the mesh";
            let diagnostic =
                Diagnostic::error(key.clone(), &object.origin, path, message).hint(hint);
            let blame = vec![key.clone(), Key::new(Kind::Service, &service.name)];
            self.fault(blame, diagnostic);
        }
    }
}

/// A name with the port behind it, as backends have it.
pub(crate) fn split(name: &str) -> (&str, Option<&str>) {
    match name.split_once(':') {
        Some((service, port)) => (service, Some(port)),
        None => (name, None),
    }
}

fn similar<T>(name: &str, objects: &Objects<T>) -> Option<String> {
    let known: Vec<&str> = objects.keys().take(1000).map(String::as_str).collect();
    nearest(name, &known).map(|nearest| format!("did you mean `{nearest}`?"))
}

/// Listeners of a workload that want the same address.
fn collisions(workload: &Workload) -> Vec<(String, String)> {
    let mut places: Vec<(String, SocketAddr)> = Vec::new();
    let serves = workload.serves.iter().enumerate();
    places.extend(serves.map(|(nth, serve)| (format!("serves[{nth}].listen"), serve.listen)));
    places.extend(workload.outbound.map(|address| ("outbound".to_owned(), address)));
    let imports = workload.imports.iter().enumerate();
    let listen = |(nth, import): (usize, &super::Import)| {
        Some((format!("imports[{nth}].listen"), import.listen?))
    };
    places.extend(imports.filter_map(listen));
    let mut found = Vec::new();
    for (nth, (path, address)) in places.iter().enumerate() {
        let earlier = places[..nth].iter().find(|(_, other)| collide(*other, *address));
        if let Some((first, other)) = earlier {
            found.push((path.clone(), format!("{address} is taken by `{first}`, {other}")));
        }
    }
    found
}

/// Whether two sockets cannot both listen: `0.0.0.0` takes the port of every address, and `[::]`
/// that of IPv4, too.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let takes =
        |a: SocketAddr, b: SocketAddr| a.ip().is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || takes(a, b) || takes(b, a))
}
