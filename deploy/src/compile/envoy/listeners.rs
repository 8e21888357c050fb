//! Listeners: filter chains by transport, and what handles the connections of each.
//!
//! ```text
//! mtls: disabled    one chain, plaintext
//! mtls: strict      one chain, mutual TLS
//! mtls: permissive  TLS inspector ──▶ chain for TLS, mutual
//!                                └──▶ chain for the rest, plaintext
//! ```

use std::time::Duration;

use ringway_router::config::tls::ListenerTlsConfig;
use ringway_router::config::{Config, ListenerConfig, STREAM_IDLE, TUNNEL_IDLE};
use ringway_router::{Http2Config, Mtls, Protocol};
use serde_json::{Value, json};

use super::actions::Hop;
use super::routes::{self, Unit};
use super::{Refusals, clusters, duration, extension, socket, tls};

/// Fields of a head that a sidecar takes.
const HEAD_FIELDS_MAX: u32 = 128;
/// Kibibytes of a head that a sidecar takes.
const HEAD_KIB_MAX: u32 = 64;

/// A listener of `config`, the `nth`.
pub(super) fn listener(
    config: &Config,
    nth: usize,
    listener: &ListenerConfig,
    units: &[Unit<'_>],
    refusals: &mut Refusals,
) -> Value {
    refuse(&format!("listeners[{nth}]"), listener, refusals);
    let chain = |is_secure: bool| {
        let mut chain = json!({"filters": [network_filter(config, listener, units, is_secure)]});
        if is_secure {
            chain["transport_socket"] = tls::downstream(config, listener);
        }
        chain
    };
    let address = listener.address.map(socket);
    let mut written = json!({"name": listener.name, "address": address});
    match listener.mtls {
        Mtls::Disabled => written["filter_chains"] = json!([chain(false)]),
        Mtls::Strict => written["filter_chains"] = json!([chain(true)]),
        Mtls::Permissive => {
            let mut secure = chain(true);
            secure["filter_chain_match"] = json!({"transport_protocol": "tls"});
            written["filter_chains"] = json!([secure, chain(false)]);
            let inspector = "envoy.filters.listener.tls_inspector";
            let kind = "filters.listener.tls_inspector.v3.TlsInspector";
            written["listener_filters"] = json!([extension(inspector, kind, json!({}))]);
            // Who is silent for so long waits for the server, in plaintext.
            written["listener_filters_timeout"] = "1s".into();
            written["continue_on_listener_filters_timeout"] = true.into();
        }
    }
    written
}

fn refuse(at: &str, config: &ListenerConfig, refusals: &mut Refusals) {
    let ListenerConfig {
        name: _,
        address: _,
        protocol,
        cluster: _,
        sni,
        mtls: _,
        tls,
        accept_proxy_protocol,
        trusted_proxies,
        head_timeout: _,
        idle_timeout: _,
        max_connections,
        max_connection_age: _,
        http2,
    } = config;
    let mut refuse_if = |is: bool, what: &str| {
        let field = what.split(':').next().unwrap_or(what);
        refusals.refuse_if(is, &format!("{at}.{field}"), what, "");
    };
    refuse_if(*protocol == Protocol::Auto, "protocol: auto");
    refuse_if(*protocol == Protocol::TlsPassthrough, "protocol: tls-passthrough");
    refuse_if(!sni.is_empty(), "sni");
    let is_plain = tls.as_deref().is_none_or(|tls| *tls == ListenerTlsConfig::default());
    refuse_if(!is_plain, "tls");
    refuse_if(*accept_proxy_protocol, "accept_proxy_protocol");
    refuse_if(!trusted_proxies.is_empty(), "trusted_proxies");
    refuse_if(max_connections.is_some(), "max_connections");
    if protocol.may_speak_http2() {
        clusters::refuse_http2(at, http2, refusals);
    }
}

fn network_filter(
    config: &Config,
    listener: &ListenerConfig,
    units: &[Unit<'_>],
    is_secure: bool,
) -> Value {
    if listener.protocol.has_routes() {
        return connection_manager(listener, units, is_secure);
    }
    let called = listener.cluster.as_deref().unwrap_or_default();
    let cluster = config.clusters.iter().find(|cluster| cluster.name == called);
    let of_cluster = cluster.map_or(TUNNEL_IDLE, |cluster| cluster.idle_timeout);
    let idle = listener.idle_timeout.unwrap_or(TUNNEL_IDLE).min(of_cluster);
    extension(
        "envoy.filters.network.tcp_proxy",
        "filters.network.tcp_proxy.v3.TcpProxy",
        json!({"stat_prefix": listener.name, "cluster": called, "idle_timeout": duration(idle)}),
    )
}

fn connection_manager(listener: &ListenerConfig, units: &[Unit<'_>], is_secure: bool) -> Value {
    let hop = Hop { port: listener.address.map_or(0, |address| address.port()), is_secure };
    let idle = listener.idle_timeout.unwrap_or(STREAM_IDLE);
    let head = listener.head_timeout.unwrap_or(Duration::from_secs(10));
    let mut common = json!({
        "idle_timeout": duration(idle),
        "max_headers_count": HEAD_FIELDS_MAX,
    });
    if let Some(age) = listener.max_connection_age {
        common["max_connection_duration"] = duration(age);
    }
    let mut manager = json!({
        "stat_prefix": listener.name,
        "route_config": routes::configuration(&listener.name, units, hop),
        "common_http_protocol_options": common,
        "request_headers_timeout": duration(head),
        "stream_idle_timeout": duration(STREAM_IDLE),
        "max_request_headers_kb": head_kib(listener),
        // Routed and passed on in one normal form.
        "normalize_path": true,
        "merge_slashes": false,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        // What clients say of where they come from is replaced.
        "use_remote_address": true,
        "skip_xff_append": true,
        "generate_request_id": true,
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"uri": true},
        "server_header_transformation": "PASS_THROUGH",
        "proxy_100_continue": true,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [extension(
            "envoy.filters.http.router",
            "filters.http.router.v3.Router",
            json!({"suppress_envoy_headers": true, "dynamic_stats": false}),
        )],
    });
    if listener.protocol == Protocol::Http2 {
        manager["codec_type"] = "HTTP2".into();
        manager["http2_protocol_options"] = clusters::http2(&listener.http2);
    } else {
        manager["codec_type"] = "HTTP1".into();
        manager["http_protocol_options"] = json!({
            "accept_http_10": true,
            "allow_custom_methods": true,
            "enable_trailers": true,
        });
    }
    let kind = "filters.network.http_connection_manager.v3.HttpConnectionManager";
    extension("envoy.filters.network.http_connection_manager", kind, manager)
}

fn head_kib(listener: &ListenerConfig) -> u32 {
    match listener.protocol {
        Protocol::Http2 => listener.http2.max_header_list_size / 1024,
        _ => Http2Config::DEFAULT.max_header_list_size.div_ceil(1024).min(HEAD_KIB_MAX),
    }
}
