//! Whether one workload reaches a service, and who would serve it.
//!
//! Answered from imports and routes, by the policy that the workload's sidecars run. Authorization
//! is not enforced yet: whoever imports a service may call it.

use std::fmt::Write;

use ringway_router::{
    Action, Format, Protocol, RequestKey, RouteId, Table, load_table, normalise_path,
};
use serde::Serialize;

use crate::compile::{self, Options, Policy, with_endpoints};
use crate::diagnostic::{Key, Kind};
use crate::model::{Import, Mesh, Port, Service, Workload};

/// What is asked of a request; without it, whether there is a way at all.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, perhaps with a query.
    pub path: &'a str,
}

/// Who would serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    /// The cluster, `service:port`.
    pub cluster: String,
    /// Its share of the requests.
    pub weight: u32,
    /// Who it must prove to be; empty for a service outside the mesh.
    pub identities: Vec<String>,
    /// Where it is.
    pub endpoints: Vec<String>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Whether a request would arrive.
    pub reachable: bool,
    /// Why, in a sentence.
    pub because: String,
    /// The rule that decides, with its place, if one does.
    pub rule: Option<String>,
    /// Who would serve.
    pub servers: Vec<Server>,
    /// Always false: see the module.
    pub authorization_enforced: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No workload of the name or identity.
    #[error("there is no workload `{0}`")]
    Workload(String),
    /// No service of the name or host.
    #[error("there is no service `{0}`")]
    Service(String),
    /// The workload's policy does not compile; an accepted mesh has none such.
    #[error("the policy of workload `{0}` does not compile")]
    Policy(String),
}

/// Whether `from` (a workload by name or identity) reaches `to` (a service by name or host).
///
/// # Errors
/// One of the two does not exist.
pub fn ask(
    mesh: &Mesh,
    from: &str,
    to: &str,
    request: Option<Request<'_>>,
) -> Result<Answer, Unknown> {
    let workload = mesh.workload(from).ok_or_else(|| Unknown::Workload(from.to_owned()))?;
    let service = service(mesh, to).ok_or_else(|| Unknown::Service(to.to_owned()))?;
    let imports = workload.imports.iter().filter(|import| import.service == service.name);
    let mut imports: Vec<(&Import, &Port)> =
        imports.filter_map(|import| Some((import, compile::imported(mesh, import)?.1))).collect();
    // What a request is asked of speaks HTTP, if anything does.
    imports.sort_by_key(|(_, port)| !port.protocol.is_http());
    let Some((import, port)) = imports.first() else {
        return Ok(not_imported(mesh, workload, service));
    };
    let failed = |_| Unknown::Policy(workload.name.clone());
    let policy = compile::compile(mesh, workload, &Options::default()).map_err(failed)?;
    let (table, _) = load_table(&with_endpoints(&policy), Format::Json)
        .map_err(|_| Unknown::Policy(workload.name.clone()))?;
    let asked = Asked { mesh, service, port, policy: &policy, table: &table };
    if port.protocol.is_http() {
        return Ok(asked.http(import, request));
    }
    let servers = vec![asked.server(&compile::cluster_name(service, port), 1)];
    let listen = import.listen.map_or_else(String::new, |address| address.to_string());
    let because = format!("connections to {listen} become tunnels to port `{}`", port.name);
    Ok(answer(because, None, servers))
}

/// A service by name, or by a host of it.
fn service<'m>(mesh: &'m Mesh, name: &str) -> Option<&'m Service> {
    let by_host = || {
        let mut services = mesh.services.values().map(|object| &object.value);
        services.find(|service| service.hosts.iter().any(|host| host == name))
    };
    mesh.service(name).or_else(by_host)
}

fn not_imported(mesh: &Mesh, workload: &Workload, service: &Service) -> Answer {
    let reachable = compile::reachable(mesh, workload);
    let is_backend = reachable.iter().any(|(other, _)| other.name == service.name);
    let because = match is_backend {
        true => format!(
            "workload `{}` does not import `{}`; only routes of its imports send requests there",
            workload.name, service.name
        ),
        false => format!("workload `{}` does not import `{}`", workload.name, service.name),
    };
    refused(because, None)
}

fn refused(because: String, rule: Option<String>) -> Answer {
    let (reachable, servers) = (false, Vec::new());
    Answer { reachable, because, rule, servers, authorization_enforced: false }
}

/// Reachable if somebody is there.
fn answer(because: String, rule: Option<String>, servers: Vec<Server>) -> Answer {
    let reachable = servers.iter().any(|server| server.weight > 0 && !server.endpoints.is_empty());
    let because = match reachable {
        true => because,
        false => format!("{because}, but it has no endpoints: answered 503"),
    };
    Answer { reachable, because, rule, servers, authorization_enforced: false }
}

struct Asked<'a> {
    mesh: &'a Mesh,
    service: &'a Service,
    port: &'a Port,
    policy: &'a Policy,
    table: &'a Table,
}

impl Asked<'_> {
    fn http(&self, import: &Import, request: Option<Request<'_>>) -> Answer {
        let (service, port) = (self.service, self.port);
        let name = match import.listen {
            Some(_) => format!("out-{}-{}", service.name, port.name),
            None => "outbound".to_owned(),
        };
        let Some(listener) = self.table.listener_named(&name) else {
            return refused("the workload has no listener to call it by".to_owned(), None);
        };
        let host = service.hosts.first().map_or("", String::as_str);
        let host = host.strip_prefix('*').map_or(host.to_owned(), |rest| format!("any{rest}"));
        let asked = request.unwrap_or(Request { method: "GET", path: "/" });
        let (path, query) = match asked.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (asked.path, None),
        };
        let mut normal = Vec::new();
        let path = match normalise_path(path.as_bytes(), &mut normal) {
            Ok(ringway_router::Normalised::Unchanged) => path,
            Ok(ringway_router::Normalised::Rewritten) => {
                std::str::from_utf8(&normal).unwrap_or(path)
            }
            Err(error) => return refused(format!("answered 400: {error}"), None),
        };
        let method = asked.method;
        let key =
            RequestKey { listener, host: &host, path, query, method, fields: &[], identity: None };
        let Some(rule) = self.table.route(&key) else {
            return refused(format!("no rule takes {method} {path}: answered 404"), None);
        };
        let route = self.table.rule(rule).route();
        let place = self.place(route, self.table.rule_in_route(rule));
        let way = match self.table.listener(listener).protocol {
            Protocol::Http2 => "calls of HTTP/2",
            _ => "requests",
        };
        let address = self.table.listener(listener).address;
        match self.table.rule(rule).action() {
            Action::Forward { backends, .. } => {
                let servers = backends.weights().map(|(cluster, weight)| {
                    self.server(&self.table.cluster(cluster).name, weight)
                });
                let servers = servers.collect();
                let because = match request {
                    Some(_) => {
                        format!("{method} {path} of host `{host}` at {address} is forwarded")
                    }
                    None => format!("{way} for host `{host}` at {address} are forwarded"),
                };
                answer(because, Some(place), servers)
            }
            Action::Redirect(_) => {
                refused("the sidecar redirects it by itself".to_owned(), Some(place))
            }
            Action::Respond(_) => {
                refused("the sidecar answers it by itself".to_owned(), Some(place))
            }
        }
    }

    /// Which rule it is, and where it stands.
    fn place(&self, route: RouteId, nth: usize) -> String {
        let name = self.table.route_name(route);
        let Some((_, route)) = name.split_once('/') else {
            return format!("service {} has no routes: everything goes to it", self.service.name);
        };
        let origin = self.mesh.origin(&Key::new(Kind::Route, route));
        let mut text = format!("route {route}, rule {nth}");
        // Writing to a string cannot fail.
        let _ = write!(text, " ({}:{})", origin.file, origin.line);
        text
    }

    fn server(&self, cluster: &str, weight: u32) -> Server {
        let (service, port) = crate::model::split(cluster);
        let found = self.mesh.service(service);
        let port = found.and_then(|service| service.port(port, crate::model::http_port));
        let identities = match (found, port) {
            (Some(service), Some(port)) => self.mesh.identities_of(service, port),
            _ => Vec::new(),
        };
        let endpoints = self.policy.endpoints.get(cluster).map_or(&[][..], Vec::as_slice);
        let endpoints = endpoints.iter().map(|endpoint| endpoint.address.clone()).collect();
        Server { cluster: cluster.to_owned(), weight, identities, endpoints }
    }
}
