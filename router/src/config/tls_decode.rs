//! TLS and identity, read from a tree.

use super::decode::{Reader, set};
use super::schema;
use super::tls::{
    ClusterTlsConfig, IdentityConfig, ListenerTlsConfig, Mtls, PairConfig, SniConfig, TlsVersion,
};
use crate::limits::{CERTIFICATES_MAX, HOSTS_MAX, IDENTITIES_MAX, REVOCATION_LISTS_MAX};
use crate::source::{Kind, Node};

pub(crate) const MTLS: &[(&str, Mtls)] =
    &[("disabled", Mtls::Disabled), ("permissive", Mtls::Permissive), ("strict", Mtls::Strict)];
const VERSIONS: &[(&str, TlsVersion)] = &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
const VERSIONS_NEVER: &[&str] = &["1.0", "1.1"];

pub(super) fn identity<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> IdentityConfig {
    let mut identity = IdentityConfig::default();
    r.object(node, &schema::IDENTITY, |r, name, node| match name {
        "certificate" => set(&mut identity.certificate, r.text(node)),
        "key" => set(&mut identity.key, r.text(node)),
        "trust_bundle" => set(&mut identity.trust_bundle, r.text(node)),
        _ => identity.revocation_lists = r.list(node, REVOCATION_LISTS_MAX, Reader::text),
    });
    identity
}

pub(super) fn listener_tls<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> ListenerTlsConfig {
    let mut tls = ListenerTlsConfig::default();
    r.object(node, &schema::LISTENER_TLS, |r, name, node| match name {
        "certificates" => tls.certificates = r.list(node, CERTIFICATES_MAX, pair),
        "min_version" => set(&mut tls.min_version, r.choice(node, VERSIONS, VERSIONS_NEVER)),
        "resumption" => set(&mut tls.resumption, r.truth(node)),
        _ => set(&mut tls.handshake_timeout, r.timeout(node)),
    });
    tls
}

fn pair<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<PairConfig> {
    let mut pair = PairConfig::default();
    r.object(node, &schema::PAIR, |r, name, node| match name {
        "certificate" => set(&mut pair.certificate, r.text(node)),
        "key" => set(&mut pair.key, r.text(node)),
        _ => pair.ocsp_response = r.text(node),
    });
    Some(pair)
}

pub(super) fn sni<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Option<SniConfig> {
    let mut sni = SniConfig::default();
    r.object(node, &schema::SNI, |r, name, node| match name {
        "hosts" => sni.hosts = r.list(node, HOSTS_MAX, Reader::text),
        _ => set(&mut sni.cluster, r.text(node)),
    });
    Some(sni)
}

/// One identity or a list of them. No identity at all would mean no TLS, so an empty list is a
/// problem.
pub(super) fn identities<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> Vec<String> {
    if node.kind() != Kind::Sequence {
        return r.text(node).into_iter().collect();
    }
    if node.children().next().is_none() {
        r.problem(node, "at least one identity is required".to_owned(), None);
    }
    r.list(node, IDENTITIES_MAX, Reader::text)
}

pub(super) fn cluster_tls<'a>(r: &mut Reader<'a, '_>, node: Node<'a>) -> ClusterTlsConfig {
    let mut tls = ClusterTlsConfig::default();
    r.object(node, &schema::CLUSTER_TLS, |r, name, node| match name {
        "server_name" => tls.server_name = r.text(node),
        "trust_bundle" => tls.trust_bundle = r.text(node).filter(|file| file != "system"),
        "certificate" => tls.certificate = r.text(node),
        "key" => tls.key = r.text(node),
        "min_version" => tls.min_version = r.choice(node, VERSIONS, VERSIONS_NEVER),
        _ => set(&mut tls.resumption, r.truth(node)),
    });
    tls
}
