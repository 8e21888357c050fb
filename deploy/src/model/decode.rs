//! The objects of a file, read from its tree.
//!
//! An object that cannot be read is [`Found::Bad`], with its name if that much could be made out;
//! a file of which some part could not be read as objects at all says so, because what is missing
//! from it was then perhaps not taken out.
//!
//! # Not here
//! What objects mean together (`check`), YAML itself and the fields that a sidecar's file has too
//! (`ringway_router::read`).

use std::sync::Arc;

use ringway_router::config::{BackendConfig, ClusterConfig};
use ringway_router::limits::{ENDPOINTS_MAX, HOSTS_MAX, IDENTITIES_MAX, RULES_MAX, WEIGHT_MAX};
use ringway_router::read::{self, Kind as NodeKind, Node, Reader, Schema};
use ringway_router::{Format, Mtls, Problem};

use super::{
    AnyObject, Endpoints, Import, Object, Port, PortProtocol, Route, Serve, Service, Settings,
    TRUST_DOMAIN, Workload,
};
use crate::diagnostic::{Diagnostic, Key, Kind, Origin};
use crate::limits::{IMPORTS_MAX, LABEL_BYTES_MAX, OBJECTS_MAX, PORTS_MAX, SERVES_MAX};
use crate::source::File;

const KINDS: [Kind; 5] = [Kind::Mesh, Kind::Service, Kind::Endpoints, Kind::Route, Kind::Workload];
const LISTS: [&str; 5] = ["mesh", "services", "endpoints", "routes", "workloads"];

/// An object of a file.
pub(super) enum Found {
    /// It could be read.
    Good(AnyObject),
    /// It could not.
    Bad,
}

/// What a file holds.
#[derive(Default)]
pub(super) struct Decoded {
    /// Its objects in their order; those without a name that can be read are left out.
    pub(super) objects: Vec<(Key, Origin, Found)>,
    /// What is wrong with it.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Whether there may be more objects in it than could be made out.
    pub(super) incomplete: bool,
}

/// Reads the objects of a file.
pub(super) fn file(file: &File) -> Decoded {
    let mut decoded = Decoded::default();
    let Some(text) = &file.text else {
        decoded.refuse(&file.name, Problem::error("", "the file is not UTF-8"));
        return decoded;
    };
    let format = Format::from_path(std::path::Path::new(&file.name));
    match read::parse(text, format) {
        Ok(tree) => {
            if let Some(root) = tree.root().filter(|root| !root.is_null()) {
                decoded.root(&file.name, root);
            }
        }
        Err(problem) => decoded.refuse(&file.name, problem),
    }
    decoded
}

/// Reads an object from the line that it was kept as.
pub(super) fn kept(key: &Key, origin: Origin, line: &str) -> Option<AnyObject> {
    let tree = read::parse(line, Format::Yaml).ok()?;
    let (object, problems) = object(key.kind, 0, tree.root()?, origin);
    let named = object.as_ref().is_some_and(|object| self::key(object) == *key);
    if named && problems.is_empty() { object } else { None }
}

impl Decoded {
    /// Reports something that leaves objects unread.
    fn refuse(&mut self, file: &str, problem: Problem) {
        self.incomplete = true;
        self.diagnostics.push(Diagnostic::of_file(file, None, "", problem));
    }

    fn root(&mut self, file: &str, root: Node<'_>) {
        if root.kind() != NodeKind::Mapping {
            let message = format!("expected lists of objects: {}", LISTS.join(", "));
            self.refuse(file, Problem::error("", message).at(root.position()));
            return;
        }
        let mut seen = [false; LISTS.len()];
        for (name, node) in root.pairs() {
            let at = name.position();
            let Some(nth) = LISTS.iter().position(|list| *list == name.text()) else {
                self.refuse(file, unknown(name.text()).at(at));
                continue;
            };
            if std::mem::replace(&mut seen[nth], true) {
                let message = format!("`{}` is here twice", name.text());
                self.refuse(file, Problem::error(name.text(), message).at(at));
            } else if !node.is_null() {
                self.list(file, KINDS[nth], node);
            }
        }
    }

    fn list(&mut self, file: &str, kind: Kind, node: Node<'_>) {
        if kind == Kind::Mesh {
            self.element(file, kind, 0, node);
            return;
        }
        if node.kind() != NodeKind::Sequence {
            let problem = Problem::error(kind.list(), "expected a list").at(node.position());
            self.refuse(file, problem);
            return;
        }
        for (index, element) in node.children().enumerate() {
            if self.objects.len() == OBJECTS_MAX {
                let message = format!("more than the {OBJECTS_MAX} objects allowed");
                self.refuse(file, Problem::error(kind.list(), message).at(element.position()));
                return;
            }
            self.element(file, kind, index, element);
        }
    }

    fn element(&mut self, file: &str, kind: Kind, index: usize, node: Node<'_>) {
        let (line, column) = node.position();
        let path = match kind {
            Kind::Mesh => kind.list().to_owned(),
            _ => format!("{}[{index}]", kind.list()),
        };
        let origin = Origin { file: file.to_owned(), line, column, path: Some(path) };
        let (object, problems) = object(kind, index, node, origin.clone());
        let key = object.as_ref().map(key).or_else(|| name(kind, node));
        let prefix = format!("{}[{index}]", kind.list());
        let clean = problems.is_empty();
        for problem in problems {
            self.diagnostics.push(Diagnostic::of_file(file, key.clone(), &prefix, problem));
        }
        match (key, object) {
            (Some(key), Some(object)) if clean => {
                self.objects.push((key, origin, Found::Good(object)));
            }
            (Some(key), _) => self.objects.push((key, origin, Found::Bad)),
            (None, _) => self.incomplete = true,
        }
    }
}

fn unknown(name: &str) -> Problem {
    if name == "policies" {
        let message = "`policies` are refused: authorization is not enforced yet";
        let hint = "until it is, whoever imports a service may call it";
        return Problem::error(name, message).hint(hint);
    }
    let shown: String = name.chars().take(64).collect();
    let hint = match read::nearest(name, &LISTS) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("a file has {}", LISTS.join(", ")),
    };
    Problem::error(shown.clone(), format!("unknown field `{shown}`")).hint(hint)
}

/// Which object it is.
pub(super) fn key(object: &AnyObject) -> Key {
    match object {
        AnyObject::Settings(_) => Key::new(Kind::Mesh, ""),
        AnyObject::Service(object) => Key::new(Kind::Service, &object.value.name),
        AnyObject::Endpoints(object) => {
            let Endpoints { service, port, .. } = &object.value;
            Key::new(Kind::Endpoints, joined(service, port.as_deref()))
        }
        AnyObject::Route(object) => Key::new(Kind::Route, &object.value.name),
        AnyObject::Workload(object) => Key::new(Kind::Workload, &object.value.name),
    }
}

/// `service`, or `service:port`.
pub(crate) fn joined(service: &str, port: Option<&str>) -> String {
    match port {
        Some(port) => format!("{service}:{port}"),
        None => service.to_owned(),
    }
}

/// Which object it was meant to be, if its name can be read.
fn name(kind: Kind, node: Node<'_>) -> Option<Key> {
    let field = |name: &str| {
        let (_, value) = node.pairs().find(|(key, _)| key.text() == name)?;
        Some(value.text()).filter(|text| label(text).is_ok())
    };
    match kind {
        Kind::Mesh => Some(Key::new(kind, "")),
        _ if node.kind() != NodeKind::Mapping => None,
        Kind::Endpoints => Some(Key::new(kind, joined(field("service")?, field("port")))),
        Kind::Service | Kind::Route | Kind::Workload => Some(Key::new(kind, field("name")?)),
    }
}

/// Reads the object `node`, element `index` of the list of its kind.
fn object(
    kind: Kind,
    index: usize,
    node: Node<'_>,
    origin: Origin,
) -> (Option<AnyObject>, Vec<Problem>) {
    let text = node.to_line();
    let list = kind.list();
    match kind {
        Kind::Mesh => {
            let (value, problems) = read::element(list, index, node, settings);
            (Some(AnyObject::Settings(Arc::new(Object { value, origin, text }))), problems)
        }
        Kind::Service => {
            let (value, problems) = read::element(list, index, node, service);
            let of = |value| AnyObject::Service(Arc::new(Object { value, origin, text }));
            (value.map(of), problems)
        }
        Kind::Endpoints => {
            let (value, problems) = read::element(list, index, node, endpoints);
            let of = |value| AnyObject::Endpoints(Arc::new(Object { value, origin, text }));
            (value.map(of), problems)
        }
        Kind::Route => {
            let (value, problems) = read::element(list, index, node, route);
            let of = |value| AnyObject::Route(Arc::new(Object { value, origin, text }));
            (value.map(of), problems)
        }
        Kind::Workload => {
            let (value, problems) = read::element(list, index, node, workload);
            let of = |value| AnyObject::Workload(Arc::new(Object { value, origin, text }));
            (value.map(of), problems)
        }
    }
}

const SETTINGS: Schema =
    Schema { what: "the mesh", fields: &["trust_domain"], unsupported: &["name", "limits"] };
const SERVICE: Schema = Schema {
    what: "a service",
    fields: &[
        "name",
        "hosts",
        "identities",
        "ports",
        "balance",
        "connect_timeout",
        "idle_timeout",
        "pool",
        "http2",
        "send_proxy_protocol",
        "tls",
    ],
    unsupported: &["breaker", "probes", "slow_start", "retry_budget", "limits"],
};
const PORT: Schema =
    Schema { what: "a port", fields: &["name", "port", "protocol"], unsupported: &[] };
const ENDPOINTS: Schema = Schema {
    what: "a set of endpoints",
    fields: &["service", "port", "addresses"],
    unsupported: &["zone"],
};
const ROUTE: Schema =
    Schema { what: "a route", fields: &["name", "service", "rules"], unsupported: &["policies"] };
const BACKEND: Schema =
    Schema { what: "a backend", fields: &["service", "port", "weight"], unsupported: &[] };
const WORKLOAD: Schema = Schema {
    what: "a workload",
    fields: &["name", "identity", "serves", "outbound", "imports"],
    unsupported: &["policies", "labels", "limits"],
};
const SERVE: Schema = Schema {
    what: "what a workload serves",
    fields: &["service", "port", "listen", "application", "mtls"],
    unsupported: &[],
};
const IMPORT: Schema =
    Schema { what: "an import", fields: &["service", "port", "listen"], unsupported: &[] };

const PROTOCOLS: &[(&str, PortProtocol)] =
    &[("http1", PortProtocol::Http1), ("http2", PortProtocol::Http2), ("tcp", PortProtocol::Tcp)];
const PROTOCOLS_LATER: &[&str] = &["grpc", "tls", "tls-passthrough", "auto", "udp"];

/// A label (RFC 1123 section 2.1), in lower case.
fn label(text: &str) -> Result<String, (String, Option<String>)> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let message = match text {
        "" => "a name is required".to_owned(),
        _ if text.len() > LABEL_BYTES_MAX => {
            format!("a name has at most {LABEL_BYTES_MAX} bytes")
        }
        _ if text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-') => {
            return Ok(text.to_owned());
        }
        _ => "a name has lower-case letters, digits and `-`, and a letter or digit at its ends"
            .to_owned(),
    };
    Err((message, None))
}

fn named<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<String> {
    r.scalar(node, label)
}

/// Reports the fields that an object must have and does not. One with nothing behind it has been
/// reported or is none.
fn require<'a>(r: &mut Reader<'a, '_>, node: Node<'a>, fields: &[&str]) {
    if node.kind() != NodeKind::Mapping {
        return;
    }
    for field in fields {
        let is_there =
            |(key, value): (Node<'_>, Node<'_>)| key.text() == *field && !value.is_null();
        if !node.pairs().any(is_there) {
            r.problem(node, format!("`{field}` is required"), None);
        }
    }
}

fn settings<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Settings {
    let mut settings = Settings { trust_domain: TRUST_DOMAIN.to_owned() };
    r.object(node, &SETTINGS, |r, _, node| {
        let domain = |text: &str| match read::identity(&format!("spiffe://{text}/x")) {
            Ok(()) if !text.contains('/') => Ok(text.to_owned()),
            Ok(()) => Err(("a trust domain has no slash".to_owned(), None)),
            Err(message) => Err((message, None)),
        };
        if let Some(domain) = r.scalar(node, domain) {
            settings.trust_domain = domain;
        }
    });
    settings
}

fn service<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<Service> {
    let (mut name, mut hosts, mut identities, mut ports) = (None, None, None, Vec::new());
    let mut settings = ClusterConfig::default();
    require(r, node, &["name", "ports"]);
    r.object(node, &SERVICE, |r, field, node| match field {
        "name" => name = named(r, node),
        "hosts" => hosts = Some(r.list(node, HOSTS_MAX, host)),
        "identities" => identities = Some(r.list(node, IDENTITIES_MAX, identity)),
        "ports" => ports = r.list(node, PORTS_MAX, port),
        _ => read::cluster_setting(r, field, node, &mut settings),
    });
    let name = name?;
    let hosts = hosts.unwrap_or_else(|| vec![name.clone()]);
    Some(Service { hosts, name, identities, ports, settings })
}

fn host<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<String> {
    r.scalar(node, |text| read::host_pattern(text).map_err(|message| (message, None)))
}

fn identity<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<String> {
    let check = |text: &str| match read::identity(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(message) => Err((message, None)),
    };
    r.scalar(node, check)
}

fn port<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<Port> {
    let (mut name, mut number, mut protocol) = (None, None, None);
    require(r, node, &["name", "port", "protocol"]);
    r.object(node, &PORT, |r, field, node| match field {
        "name" => name = named(r, node),
        "port" => {
            number = r.number(node, u32::from(u16::MAX));
            if number == Some(0) {
                r.problem(node, "must be from 1 to 65535".to_owned(), None);
            }
        }
        _ => protocol = r.choice(node, PROTOCOLS, PROTOCOLS_LATER),
    });
    Some(Port { name: name?, port: u16::try_from(number?).ok()?, protocol: protocol? })
}

fn endpoints<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<Endpoints> {
    let (mut service, mut port, mut addresses) = (None, None, Vec::new());
    require(r, node, &["service"]);
    r.object(node, &ENDPOINTS, |r, field, node| match field {
        "service" => service = named(r, node),
        "port" => port = named(r, node),
        _ => addresses = r.list(node, ENDPOINTS_MAX, read::endpoint),
    });
    Some(Endpoints { service: service?, port, addresses })
}

fn route<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<Route> {
    let (mut name, mut service, mut rules) = (None, None, Vec::new());
    require(r, node, &["name", "service", "rules"]);
    r.object(node, &ROUTE, |r, field, node| match field {
        "name" => name = named(r, node),
        "service" => service = named(r, node),
        _ => rules = r.list(node, RULES_MAX, |r, node| read::rule(r, node, backend)),
    });
    Some(Route { name: name?, service: service?, rules })
}

fn backend<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<BackendConfig> {
    let (mut service, mut port, mut weight) = (None, None, 1);
    require(r, node, &["service"]);
    r.object(node, &BACKEND, |r, field, node| match field {
        "service" => service = named(r, node),
        "port" => port = named(r, node),
        _ => weight = r.number(node, WEIGHT_MAX).unwrap_or(1),
    });
    Some(BackendConfig { cluster: joined(&service?, port.as_deref()), weight })
}

fn workload<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<Workload> {
    let (mut name, mut id, mut outbound) = (None, None, None);
    let (mut serves, mut imports) = (Vec::new(), Vec::new());
    require(r, node, &["name"]);
    r.object(node, &WORKLOAD, |r, field, node| match field {
        "name" => name = named(r, node),
        "identity" => id = identity(r, node),
        "serves" => serves = r.list(node, SERVES_MAX, serve),
        "outbound" => outbound = r.scalar(node, read::socket_address),
        _ => imports = r.list(node, IMPORTS_MAX, import),
    });
    Some(Workload { name: name?, identity: id, serves, outbound, imports })
}

fn serve<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<Serve> {
    let (mut service, mut port, mut listen, mut application) = (None, None, None, Vec::new());
    let mut mtls = Mtls::Strict;
    require(r, node, &["service", "listen", "application"]);
    r.object(node, &SERVE, |r, field, node| match field {
        "service" => service = named(r, node),
        "port" => port = named(r, node),
        "listen" => listen = r.scalar(node, read::socket_address),
        "application" => application = r.list(node, ENDPOINTS_MAX, address),
        _ => mtls = read::mtls(r, node).unwrap_or(mtls),
    });
    Some(Serve { service: service?, port, listen: listen?, application, mtls })
}

fn address<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<String> {
    let check = |text: &str| match read::endpoint_address(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(message) => Err((message, None)),
    };
    r.scalar(node, check)
}

/// `shop`, or an object.
fn import<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<Import> {
    if node.kind() != NodeKind::Mapping {
        return Some(Import { service: named(r, node)?, port: None, listen: None });
    }
    let (mut service, mut port, mut listen) = (None, None, None);
    require(r, node, &["service"]);
    r.object(node, &IMPORT, |r, field, node| match field {
        "service" => service = named(r, node),
        "port" => port = named(r, node),
        _ => listen = r.scalar(node, read::socket_address),
    });
    Some(Import { service: service?, port, listen })
}
