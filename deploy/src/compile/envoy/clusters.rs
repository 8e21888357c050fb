//! Clusters with their endpoints.
//!
//! # Invariants
//! - Limits that a sidecar does not have are out of reach: Envoy's own would refuse what a sidecar
//!   serves.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use ringway_router::config::{
    ClusterConfig, Config, EndpointConfig, PoolConfig, ProxyProtocolVersion,
};
use ringway_router::{Balance, ClusterProtocol, Http2Config};
use serde_json::{Value, json};

use super::{Refusals, duration, extension, socket, tls, typed};

/// Smallest window that Envoy can be told.
const WINDOW_MIN: u32 = 65_535;
/// How often a sidecar looks names up.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);

/// What goes to clusters.
pub(super) struct Uses<'c> {
    /// Those that routes name.
    routed: BTreeSet<&'c str>,
    /// Those that listeners of opaque bytes name.
    tunnelled: BTreeSet<&'c str>,
}

impl<'c> Uses<'c> {
    pub(super) fn of(config: &'c Config) -> Uses<'c> {
        let rules = config.routes.iter().flat_map(|route| &route.rules);
        let backends = rules.flat_map(|rule| &rule.backends);
        Uses {
            routed: backends.map(|backend| backend.cluster.as_str()).collect(),
            tunnelled: config.listeners.iter().filter_map(|l| l.cluster.as_deref()).collect(),
        }
    }
}

/// A cluster of `config`, the `nth`.
pub(super) fn cluster(
    config: &Config,
    nth: usize,
    cluster: &ClusterConfig,
    uses: &Uses<'_>,
    refusals: &mut Refusals,
) -> Value {
    let at = format!("clusters[{nth}]");
    let is_routed = uses.routed.contains(cluster.name.as_str());
    refuse(&at, cluster, is_routed, refusals);
    let is_literal = |e: &EndpointConfig| e.address.parse::<SocketAddr>().is_ok();
    let is_static = cluster.endpoints.iter().all(is_literal);
    let most = u32::MAX;
    let mut written = json!({
        "name": cluster.name,
        "type": if is_static { "STATIC" } else { "STRICT_DNS" },
        "connect_timeout": duration(cluster.connect_timeout),
        "lb_policy": match cluster.balance {
            Balance::LeastRequest => "LEAST_REQUEST",
            Balance::RoundRobin => "ROUND_ROBIN",
        },
        "circuit_breakers": {"thresholds": [{
            "max_connections": most,
            "max_pending_requests": most,
            "max_requests": most,
            "max_retries": most,
        }]},
        "load_assignment": {
            "cluster_name": cluster.name,
            "endpoints": [{"lb_endpoints": endpoints(&cluster.endpoints)}],
        },
    });
    if !is_static {
        written["dns_refresh_rate"] = duration(RESOLVE_INTERVAL);
    }
    if is_routed {
        let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        written["typed_extension_protocol_options"] = json!({name: http(cluster)});
    }
    // Who takes opaque bytes, too, negotiates nothing.
    let negotiates = is_routed && !uses.tunnelled.contains(cluster.name.as_str());
    let tls = tls::upstream(config, cluster, negotiates);
    let tls = match cluster.send_proxy_protocol {
        Some(version) => Some(proxied(version, tls)),
        None => tls,
    };
    if let Some(tls) = tls {
        written["transport_socket"] = tls;
    }
    written
}

fn refuse(at: &str, config: &ClusterConfig, is_routed: bool, refusals: &mut Refusals) {
    let ClusterConfig {
        name: _,
        endpoints: _,
        discovery: _,
        balance: _,
        connect_timeout: _,
        idle_timeout: _,
        pool,
        protocol,
        http2,
        send_proxy_protocol,
        identity: _,
        tls: _,
    } = config;
    let other = pool.idle_max != 0 && pool.idle_max != PoolConfig::default().idle_max;
    refusals.refuse_if(other, &format!("{at}.pool.idle_max"), "pool.idle_max", "");
    if *protocol == ClusterProtocol::Http2 {
        refuse_http2(at, http2, refusals);
    }
    let hint = "Envoy shares the connections of requests among clients";
    let shares = send_proxy_protocol.is_some() && is_routed;
    let field = format!("{at}.send_proxy_protocol");
    refusals.refuse_if(shares, &field, "send_proxy_protocol of requests", hint);
    tls::refuse(at, config, refusals);
}

/// Refuses limits of HTTP/2 that Envoy cannot be told.
pub(super) fn refuse_http2(at: &str, config: &Http2Config, refusals: &mut Refusals) {
    let Http2Config {
        max_concurrent_streams: _,
        stream_window,
        connection_window: _,
        max_frame_size,
        max_header_list_size,
        ping_interval: _,
        ping_timeout: _,
    } = config;
    let mut refuse_if = |is: bool, field: &str, hint: &str| {
        refusals.refuse_if(is, &format!("{at}.http2.{field}"), field, hint);
    };
    refuse_if(*stream_window < WINDOW_MIN, "stream_window", "Envoy's windows begin at 65535 bytes");
    let standard = Http2Config::DEFAULT.max_frame_size;
    refuse_if(*max_frame_size != standard, "max_frame_size", "");
    let is_whole = max_header_list_size.is_multiple_of(1024);
    refuse_if(!is_whole, "max_header_list_size", "write a multiple of 1KiB");
}

/// Limits of HTTP/2 connections.
pub(super) fn http2(config: &Http2Config) -> Value {
    json!({
        "max_concurrent_streams": config.max_concurrent_streams,
        "initial_stream_window_size": config.stream_window,
        "initial_connection_window_size": config.connection_bytes(),
        "connection_keepalive": {
            "interval": duration(config.ping_interval),
            "timeout": duration(config.ping_timeout),
        },
    })
}

fn http(cluster: &ClusterConfig) -> Value {
    let mut common = json!({"idle_timeout": duration(cluster.pool.idle_timeout)});
    if cluster.pool.idle_max == 0 {
        common["max_requests_per_connection"] = 1.into();
    }
    let explicit = match cluster.protocol {
        ClusterProtocol::Http1 => json!({"http_protocol_options": {"enable_trailers": true}}),
        ClusterProtocol::Http2 => json!({"http2_protocol_options": http2(&cluster.http2)}),
    };
    typed(
        "upstreams.http.v3.HttpProtocolOptions",
        json!({"common_http_protocol_options": common, "explicit_http_config": explicit}),
    )
}

/// Those that get anything: Envoy knows no weight of 0.
fn endpoints(endpoints: &[EndpointConfig]) -> Vec<Value> {
    let chosen = endpoints.iter().filter(|endpoint| endpoint.weight > 0);
    let written = chosen.map(|endpoint| {
        json!({
            "endpoint": {"address": address(&endpoint.address)},
            "load_balancing_weight": endpoint.weight,
        })
    });
    written.collect()
}

fn address(text: &str) -> Value {
    if let Ok(literal) = text.parse() {
        return socket(literal);
    }
    let (name, port) = text.rsplit_once(':').unwrap_or((text, "0"));
    let port: u16 = port.parse().unwrap_or_default();
    json!({"socket_address": {"address": name, "port_value": port}})
}

/// A transport that opens with a PROXY protocol header.
fn proxied(version: ProxyProtocolVersion, inner: Option<Value>) -> Value {
    let plaintext = || {
        let kind = "transport_sockets.raw_buffer.v3.RawBuffer";
        extension("envoy.transport_sockets.raw_buffer", kind, json!({}))
    };
    let version = match version {
        ProxyProtocolVersion::V1 => "V1",
        ProxyProtocolVersion::V2 => "V2",
    };
    extension(
        "envoy.transport_sockets.upstream_proxy_protocol",
        "transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        json!({
            "config": {"version": version},
            "transport_socket": inner.unwrap_or_else(plaintext),
        }),
    )
}
