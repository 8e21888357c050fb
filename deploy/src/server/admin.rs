//! Metrics and the fleet page, in plaintext and read-only, for this machine and its Prometheus.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use ringway_tls::UnixTime;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{Pusher, operate};

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// The page: it asks `/status` and draws what it gets.
const PAGE: &str = include_str!("page.html");

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, pusher: Arc<Pusher>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let pusher = Arc::clone(&pusher);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&pusher), request));
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5))
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

async fn answer<B>(
    pusher: Arc<Pusher>,
    request: Request<B>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, kind, body) = match request.uri().path() {
        "/" => (StatusCode::OK, "text/html; charset=utf-8", PAGE.to_owned()),
        "/live" => (StatusCode::OK, "text/plain", "live\n".to_owned()),
        "/ready" => (StatusCode::OK, "text/plain", "ready\n".to_owned()),
        "/status" => {
            let status = operate::status(&pusher).await;
            (StatusCode::OK, "application/json", format!("{status}\n"))
        }
        "/metrics" => {
            (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics(&pusher).await)
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", "/ /live /ready /status /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Everything that is counted, in the text format of Prometheus.
async fn metrics(pusher: &Arc<Pusher>) -> String {
    let mut out = pusher.core_work(|core| core_metrics(core)).await;
    let counters = &pusher.counters;
    family(&mut out, "ringway_push_connections_total", "counter", "Connections accepted.");
    let connections = counters.connections.load(Ordering::Relaxed);
    let _ = writeln!(out, "ringway_push_connections_total {connections}");
    family(&mut out, "ringway_push_handshakes_failed_total", "counter", "Handshakes that failed.");
    let failed = counters.handshakes_failed.load(Ordering::Relaxed);
    let _ = writeln!(out, "ringway_push_handshakes_failed_total {failed}");
    let name = "ringway_push_connections_shed_total";
    family(&mut out, name, "counter", "Connections closed because too many waited.");
    let _ = writeln!(out, "{name} {}", counters.connections_shed.load(Ordering::Relaxed));
    let name = "ringway_push_requests_shed_total";
    family(&mut out, name, "counter", "Requests that were told to come back later, by status.");
    for (status, count) in [429, 503].into_iter().zip(&counters.requests_shed) {
        let _ = writeln!(out, "{name}{{status=\"{status}\"}} {}", count.load(Ordering::Relaxed));
    }
    let name = "ringway_push_certificates_total";
    family(&mut out, name, "counter", "Certificates asked for by how and what came of it.");
    for (nth, how) in ["join", "renew"].into_iter().enumerate() {
        for (result, counts) in [("issued", &counters.issued), ("refused", &counters.refused)] {
            let count = counts[nth].load(Ordering::Relaxed);
            let _ = writeln!(out, "{name}{{how=\"{how}\",result=\"{result}\"}} {count}");
        }
    }
    let view = pusher.authority_work(|authority| authority.view(UnixTime::now())).await;
    if let Ok(view) = view {
        family(&mut out, "ringway_push_bundle_epoch", "gauge", "Epoch of the roots.");
        let _ = writeln!(out, "ringway_push_bundle_epoch {}", view.epoch);
        let name = "ringway_push_authority_until_seconds";
        family(&mut out, name, "gauge", "End of roots and issuers, seconds since 1970.");
        for authority in &view.authorities {
            let kind = if authority.root.is_some() { "issuer" } else { "root" };
            let id = authority.id.as_str();
            let _ = writeln!(out, "{name}{{kind=\"{kind}\",id=\"{id}\"}} {}", authority.until_s);
        }
    }
    out
}

fn core_metrics(core: &super::core::Core) -> String {
    let mut out = String::new();
    let conductor = core.conductor();
    let fleet = conductor.fleet().summary();
    family(&mut out, "ringway_push_streams", "gauge", "Streams that are open.");
    let _ = writeln!(out, "ringway_push_streams {}", core.streams().len());
    family(&mut out, "ringway_push_sidecars", "gauge", "Sidecars by where they stand.");
    for (standing, count) in &fleet.standing {
        let standing = serde_json::to_value(standing).unwrap_or_default();
        let standing = standing.as_str().unwrap_or_default();
        let _ = writeln!(out, "ringway_push_sidecars{{standing=\"{standing}\"}} {count}");
    }
    family(
        &mut out,
        "ringway_push_sidecars_running",
        "gauge",
        "Connected sidecars by the generation of what they run.",
    );
    for (generation, count) in &fleet.generations {
        let label = format!("{{generation=\"{generation}\"}}");
        let _ = writeln!(out, "ringway_push_sidecars_running{label} {count}");
    }
    let newest = conductor.history().entries().last();
    family(&mut out, "ringway_push_release", "gauge", "Number of the newest release.");
    let number = newest.map_or(0, |entry| entry.release.number);
    let _ = writeln!(out, "ringway_push_release {number}");
    let good = conductor.history().last_good().map_or(0, |release| release.number);
    family(&mut out, "ringway_push_release_good", "gauge", "Number of the last good release.");
    let _ = writeln!(out, "ringway_push_release_good {good}");
    family(&mut out, "ringway_push_held", "gauge", "1 while a release is held by a guard.");
    let held = u64::from(core.waiting().flatten().is_some());
    let _ = writeln!(out, "ringway_push_held {held}");
    family(&mut out, "ringway_push_quarantined", "gauge", "Objects not in use as the folder says.");
    let _ = writeln!(out, "ringway_push_quarantined {}", core.quarantined().len());
    let name = "ringway_push_state_unwritable";
    family(&mut out, name, "gauge", "1 while something of the state cannot be written.");
    let _ = writeln!(out, "{name} {}", u64::from(core.disk_problem().is_some()));
    let name = "ringway_push_stale_clusters";
    family(&mut out, name, "gauge", "Clusters whose endpoints are kept although they vanished.");
    let stale: usize = core.stale().values().map(Vec::len).sum();
    let _ = writeln!(out, "{name} {stale}");
    family(
        &mut out,
        "ringway_push_slow_readers_total",
        "counter",
        "Streams ended because the sidecar did not read.",
    );
    let _ = writeln!(out, "ringway_push_slow_readers_total {}", core.streams().slow_readers);
    out
}
