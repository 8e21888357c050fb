//! What is wrong with TLS, identities and routes by name.
//!
//! # Invariants
//! - What passes here never means plaintext where the file speaks of TLS, and never a certificate
//!   that nobody has named.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use foldhash::fast::FixedState;

use super::check::{At, Checker};
use super::names;
use super::tls::{ClusterTlsConfig, ListenerTlsConfig, Mtls, PairConfig, SniConfig, TlsVersion};
use super::{ClusterConfig, ListenerConfig, Protocol};
use crate::host::{self, Pattern};
use crate::limits::{
    CERTIFICATES_MAX, HOSTS_MAX, IDENTITIES_MAX, REVOCATION_LISTS_MAX, SNI_ROUTES_MAX,
};

/// The shortest age: at less, clients would do nothing but connect.
const AGE_MIN: Duration = Duration::from_secs(1);

const ADD_IDENTITY: &str = "add `identity` with certificate, key and trust_bundle";

/// Checks the top-level identity.
pub(super) fn identity(c: &mut Checker<'_, '_>) {
    let Some(config) = &c.config.identity else { return };
    let at = At::root("identity");
    required_file(c, &at, "certificate", &config.certificate);
    required_file(c, &at, "key", &config.key);
    required_file(c, &at, "trust_bundle", &config.trust_bundle);
    let lists = &config.revocation_lists;
    c.at_most(&at.field("revocation_lists"), lists.len(), REVOCATION_LISTS_MAX);
    for (nth, file) in lists.iter().enumerate() {
        c.check(&at.element("revocation_lists", nth), names::file_name(file));
    }
}

/// Checks a file that the object at `at` must name.
fn required_file(c: &mut Checker<'_, '_>, at: &At<'_>, name: &str, file: &str) {
    // What is missing in an object that could not be read says nothing new.
    if !file.is_empty() || !c.is_refused_at(at) {
        c.check(&at.field(name), names::file_name(file));
    }
}

fn optional_file(c: &mut Checker<'_, '_>, at: &At<'_>, name: &str, file: Option<&str>) {
    if let Some(file) = file {
        c.check(&at.field(name), names::file_name(file));
    }
}

/// Checks what a listener says about TLS, names and the age of connections.
pub(super) fn listener(c: &mut Checker<'_, '_>, at: &At<'_>, listener: &ListenerConfig) {
    if listener.mtls != Mtls::Disabled && c.config.identity.is_none() {
        let message = "asks for certificates of a mesh that the file does not know".to_owned();
        c.refuse_with(&at.field("mtls"), message, ADD_IDENTITY.to_owned());
    }
    if let Some(tls) = &listener.tls {
        listener_tls(c, &at.field("tls"), listener.mtls, tls);
    }
    sni(c, at, &listener.sni);
    if let Some(age) = listener.max_connection_age {
        let at = at.field("max_connection_age");
        c.duration(&at, age);
        if age < AGE_MIN {
            c.refuse(&at, "must be at least 1 s");
        }
    }
    // What goes with a protocol that could not be read is not known.
    if !c.is_refused(&at.field("protocol")) {
        by_protocol(c, at, listener);
    }
}

fn by_protocol(c: &mut Checker<'_, '_>, at: &At<'_>, listener: &ListenerConfig) {
    let name = listener.protocol.as_str();
    if listener.max_connection_age.is_some() && !listener.protocol.has_routes() {
        let message = format!("a {name} connection cannot be told to close");
        c.refuse(&at.field("max_connection_age"), message);
    }
    if !listener.protocol.has_server_names() && !listener.sni.is_empty() {
        let message = "only a tls-passthrough or auto listener routes by server name".to_owned();
        let hint = "set `protocol: tls-passthrough`, or leave `sni` out".to_owned();
        c.refuse_with(&at.field("sni"), message, hint);
    }
    if listener.protocol == Protocol::Auto && listener.tls.is_some() && !listener.sni.is_empty() {
        let message = "TLS is ended here: there is none to pass on".to_owned();
        c.refuse_with(&at.field("sni"), message, "leave `sni` or `tls` out".to_owned());
    }
    if listener.protocol != Protocol::TlsPassthrough {
        return;
    }
    let stated = [("tls", listener.tls.is_some()), ("mtls", listener.mtls != Mtls::Disabled)];
    for (field, _) in stated.into_iter().filter(|(_, stated)| *stated) {
        let message = "a tls-passthrough listener hands TLS on as it is".to_owned();
        let hint = "set `protocol: http1` or `protocol: tcp` to end it here".to_owned();
        c.refuse_with(&at.field(field), message, hint);
    }
    let sni = at.field("sni");
    if listener.sni.is_empty() && listener.cluster.is_none() && !c.is_refused(&sni) {
        c.refuse(&sni, "a tls-passthrough listener needs `sni` or `cluster`");
    }
}

fn listener_tls(c: &mut Checker<'_, '_>, at: &At<'_>, mtls: Mtls, tls: &ListenerTlsConfig) {
    let certificates = at.field("certificates");
    c.at_most(&certificates, tls.certificates.len(), CERTIFICATES_MAX);
    for (nth, config) in tls.certificates.iter().enumerate() {
        pair(c, &at.element("certificates", nth), config);
    }
    let shown = !tls.certificates.is_empty() || c.config.identity.is_some();
    if !shown && mtls == Mtls::Disabled && !c.is_refused(&certificates) {
        let hint = "add `certificates`, or a top-level `identity`".to_owned();
        c.refuse_with(at, "there is no certificate to show".to_owned(), hint);
    }
    c.duration(&at.field("handshake_timeout"), tls.handshake_timeout);
    if mtls != Mtls::Disabled && tls.min_version < TlsVersion::Tls13 {
        let message = "mutual TLS is always 1.3".to_owned();
        let hint = "leave it out, or give older clients a listener with `mtls: disabled`";
        c.refuse_with(&at.field("min_version"), message, hint.to_owned());
    }
}

fn pair(c: &mut Checker<'_, '_>, at: &At<'_>, pair: &PairConfig) {
    required_file(c, at, "certificate", &pair.certificate);
    required_file(c, at, "key", &pair.key);
    optional_file(c, at, "ocsp_response", pair.ocsp_response.as_deref());
}

fn sni(c: &mut Checker<'_, '_>, at: &At<'_>, routes: &[SniConfig]) {
    c.at_most(&at.field("sni"), routes.len(), SNI_ROUTES_MAX);
    let mut seen: HashMap<String, usize, FixedState> = HashMap::default();
    for (nth, route) in routes.iter().enumerate() {
        let at = at.element("sni", nth);
        c.cluster_exists(&at.field("cluster"), &route.cluster);
        let hosts = at.field("hosts");
        if route.hosts.is_empty() && !c.is_refused(&hosts) {
            c.refuse(&hosts, "at least one host is required");
        }
        c.at_most(&hosts, route.hosts.len(), HOSTS_MAX);
        for (place, text) in route.hosts.iter().enumerate() {
            let at = at.element("hosts", place);
            match server_pattern(text).map(|pattern| seen.insert(pattern, nth)) {
                Ok(None) => {}
                Ok(Some(first)) => c.refuse(&at, format!("sni[{first}] has `{text}` already")),
                Err(message) => c.refuse(&at, format!("`{text}`: {message}")),
            }
        }
    }
}

/// A host of a name route in the form in which two of them are compared.
fn server_pattern(text: &str) -> Result<String, &'static str> {
    match host::pattern(text)? {
        Pattern::Any => Err("connections for all other names go to the listener's `cluster`"),
        Pattern::Exact(name) if name.starts_with('[') || name.parse::<IpAddr>().is_ok() => {
            Err("clients ask for names, not for addresses (RFC 6066 section 3)")
        }
        Pattern::Exact(name) | Pattern::Suffix(name) => Ok(name.to_ascii_lowercase()),
    }
}

/// Checks what a cluster says about TLS and whom its endpoints must be.
pub(super) fn cluster(c: &mut Checker<'_, '_>, at: &At<'_>, cluster: &ClusterConfig) {
    let field = at.field("identity");
    c.at_most(&field, cluster.identity.len(), IDENTITIES_MAX);
    if !cluster.identity.is_empty() && c.config.identity.is_none() {
        let message = "mutual TLS needs an identity of our own".to_owned();
        c.refuse_with(&field, message, ADD_IDENTITY.to_owned());
    }
    for (nth, identity) in cluster.identity.iter().enumerate() {
        // A single one stands without a list.
        let element = at.element("identity", nth);
        let at = if cluster.identity.len() == 1 { &field } else { &element };
        c.check(at, names::identity(identity));
        if cluster.identity[..nth].contains(identity) {
            c.refuse(at, "is here twice");
        }
    }
    let Some(tls) = &cluster.tls else { return };
    let at = at.field("tls");
    match cluster.identity.is_empty() {
        false => mesh(c, &at, tls),
        // If it could not be read, it is not known which of the two was meant.
        true if c.is_refused(&field) => {}
        true => outside(c, &at, cluster, tls),
    }
}

fn mesh(c: &mut Checker<'_, '_>, at: &At<'_>, tls: &ClusterTlsConfig) {
    let stated = [
        ("trust_bundle", tls.trust_bundle.is_some()),
        ("certificate", tls.certificate.is_some()),
        ("key", tls.key.is_some()),
    ];
    for (field, _) in stated.into_iter().filter(|(_, stated)| *stated) {
        let message = format!("with `identity`, the {field} is that of the top-level `identity`");
        let hint = "leave it out; or leave out `identity` of a service outside the mesh".to_owned();
        c.refuse_with(&at.field(field), message, hint);
    }
    if tls.min_version.is_some() {
        let message = "with `identity`, the version is always 1.3".to_owned();
        c.refuse_with(&at.field("min_version"), message, "leave it out".to_owned());
    }
    if let Some(name) = &tls.server_name {
        c.check(&at.field("server_name"), names::server_name(name));
    }
}

fn outside(c: &mut Checker<'_, '_>, at: &At<'_>, cluster: &ClusterConfig, tls: &ClusterTlsConfig) {
    optional_file(c, at, "trust_bundle", tls.trust_bundle.as_deref());
    optional_file(c, at, "certificate", tls.certificate.as_deref());
    optional_file(c, at, "key", tls.key.as_deref());
    match (&tls.certificate, &tls.key) {
        (Some(_), None) => c.refuse(&at.field("key"), "`certificate` needs its `key`"),
        (None, Some(_)) => c.refuse(&at.field("certificate"), "`key` needs its `certificate`"),
        (Some(_), Some(_)) | (None, None) => {}
    }
    let field = at.field("server_name");
    if let Some(name) = &tls.server_name {
        if name.parse::<IpAddr>().is_err() {
            c.check(&field, names::server_name(name));
        }
        return;
    }
    let mut endpoints = cluster.endpoints.iter().enumerate();
    let nameless = |address: &str| {
        let name = address.rsplit_once(':').map_or("", |(name, _)| name);
        address.parse::<SocketAddr>().is_ok() || names::server_name(name).is_err()
    };
    if let Some((nth, endpoint)) = endpoints.find(|(_, endpoint)| nameless(&endpoint.address)) {
        let address = &endpoint.address;
        let message = format!("is required: endpoints[{nth}], `{address}`, has no name to check");
        let hint = "write the name that the certificate of the service is for".to_owned();
        c.refuse_with(&field, message, hint);
    }
}
