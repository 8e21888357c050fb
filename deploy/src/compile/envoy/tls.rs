//! TLS with clients and with endpoints.
//!
//! # Invariants
//! - Mutual TLS is 1.3, and says nothing of names: who somebody is stands in the one URI of the
//!   certificate, compared as a whole.

use ringway_router::config::tls::{ClusterTlsConfig, IdentityConfig};
use ringway_router::config::{ClusterConfig, Config, ListenerConfig};
use ringway_router::{ClusterProtocol, Protocol, TlsVersion};
use serde_json::{Value, json};

use super::{Refusals, extension};

const SOCKET: &str = "envoy.transport_sockets.tls";

/// Mutual TLS with the clients of a listener.
pub(super) fn downstream(config: &Config, listener: &ListenerConfig) -> Value {
    let alpn: &[&str] = match listener.protocol {
        Protocol::Http1 => &["http/1.1"],
        Protocol::Http2 => &["h2"],
        Protocol::Tcp | Protocol::TlsPassthrough | Protocol::Auto => &[],
    };
    // Anybody in the mesh: whom its roots vouch for, and who is somebody in it.
    let anybody = json!([{"san_type": "URI", "matcher": {"prefix": "spiffe://"}}]);
    let context = json!({
        "require_client_certificate": true,
        "common_tls_context": mesh(config.identity.as_ref(), &anybody, alpn),
    });
    let kind = "transport_sockets.tls.v3.DownstreamTlsContext";
    extension(SOCKET, kind, context)
}

/// TLS with the endpoints of a cluster that has it.
pub(super) fn upstream(config: &Config, cluster: &ClusterConfig, http: bool) -> Option<Value> {
    let alpn: &[&str] = match cluster.protocol {
        _ if !http => &[],
        ClusterProtocol::Http1 => &["http/1.1"],
        ClusterProtocol::Http2 => &["h2"],
    };
    let tls = cluster.tls.as_deref();
    let mut context = match (&cluster.identity[..], tls) {
        ([], None) => return None,
        ([], Some(tls)) => json!({"common_tls_context": outside(cluster, tls, alpn)}),
        (expected, _) => {
            let is = |id: &String| json!({"san_type": "URI", "matcher": {"exact": id}});
            let expected = expected.iter().map(is).collect();
            json!({"common_tls_context": mesh(config.identity.as_ref(), &expected, alpn)})
        }
    };
    let name = match cluster.identity.is_empty() {
        true => tls.and_then(|tls| server_name(cluster, tls)),
        false => tls.and_then(|tls| tls.server_name.as_deref()),
    };
    if let Some(name) = name {
        context["sni"] = name.into();
    }
    if tls.is_some_and(|tls| !tls.resumption) {
        context["max_session_keys"] = 0.into();
    }
    Some(extension(SOCKET, "transport_sockets.tls.v3.UpstreamTlsContext", context))
}

/// Mutual TLS with those of the mesh for whom one of `sans` holds.
fn mesh(identity: Option<&IdentityConfig>, sans: &Value, alpn: &[&str]) -> Value {
    let nobody = IdentityConfig::default();
    let files = identity.unwrap_or(&nobody);
    let mut validation = json!({
        "trusted_ca": {"filename": files.trust_bundle},
        "match_typed_subject_alt_names": sans,
    });
    if let [list] = &files.revocation_lists[..] {
        validation["crl"] = json!({"filename": list});
        validation["only_verify_leaf_cert_crl"] = true.into();
    }
    common(TlsVersion::Tls13, Some((&files.certificate, &files.key)), &validation, alpn)
}

/// TLS with a service outside the mesh.
fn outside(cluster: &ClusterConfig, tls: &ClusterTlsConfig, alpn: &[&str]) -> Value {
    let name = server_name(cluster, tls);
    let validation = json!({
        "trusted_ca": {"filename": tls.trust_bundle},
        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": name}}],
    });
    let pair = tls.certificate.as_deref().zip(tls.key.as_deref());
    common(tls.min_version.unwrap_or(TlsVersion::Tls12), pair, &validation, alpn)
}

fn common(
    least: TlsVersion,
    pair: Option<(&str, &str)>,
    validation: &Value,
    alpn: &[&str],
) -> Value {
    let least = match least {
        TlsVersion::Tls12 => "TLSv1_2",
        TlsVersion::Tls13 => "TLSv1_3",
    };
    let mut context = json!({
        "tls_params": {
            "tls_minimum_protocol_version": least,
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "validation_context": validation,
    });
    if let Some((certificate, key)) = pair {
        context["tls_certificates"] = json!([{
            "certificate_chain": {"filename": certificate},
            "private_key": {"filename": key},
        }]);
    }
    if !alpn.is_empty() {
        context["alpn_protocols"] = json!(alpn);
    }
    context
}

/// The one name that all endpoints of a cluster are asked for by; `None` if they differ.
fn server_name<'c>(cluster: &'c ClusterConfig, tls: &'c ClusterTlsConfig) -> Option<&'c str> {
    if let Some(name) = &tls.server_name {
        return Some(name);
    }
    let mut names = cluster.endpoints.iter().map(|endpoint| {
        let name = endpoint.address.rsplit_once(':').map_or("", |(name, _)| name);
        name.strip_suffix('.').unwrap_or(name)
    });
    let first = names.next()?;
    names.all(|name| name == first).then_some(first)
}

/// Refuses what of the TLS of a cluster has no equal.
pub(super) fn refuse(at: &str, cluster: &ClusterConfig, refusals: &mut Refusals) {
    let Some(tls) = cluster.tls.as_deref().filter(|_| cluster.identity.is_empty()) else { return };
    let is_system = tls.trust_bundle.as_deref().is_none_or(|bundle| bundle == "system");
    let hint = "name the file of the roots";
    refusals.refuse_if(is_system, &format!("{at}.tls.trust_bundle"), "trust_bundle: system", hint);
    let names = !cluster.endpoints.is_empty() && server_name(cluster, tls).is_none();
    let hint = "set `tls.server_name`";
    refusals.refuse_if(names, &format!("{at}.tls"), "a name for each endpoint", hint);
}

/// Refuses what of the process's identity has no equal.
pub(super) fn refuse_identity(config: &Config, refusals: &mut Refusals) {
    let lists = config.identity.as_ref().map_or(0, |files| files.revocation_lists.len());
    refusals.refuse_if(lists > 1, "identity", "more than one of revocation_lists", "join them");
}
