//! The admin interface: readiness, metrics, the running configuration.
//!
//! A thread and a runtime of its own: it answers while workers are busy, and a scrape that takes
//! long is made on another thread so that `/ready` and `/live` are answered meanwhile.
//!
//! # Not here
//! Anything that changes the proxy: the interface is read-only.

pub mod certificates;
pub mod control;
pub mod metrics;
pub mod ready;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use crate::control::reload::{Registries, Reloader};
use crate::control::status::Status;
use crate::shared::Shared;

/// Connections that the admin interface serves at once.
const CONNECTIONS_MAX: usize = 64;
/// What can be asked for.
const PAGES: &str = "/ready /live /metrics /config /certs /control\n";
/// How long a request head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// What the interface tells about.
pub struct Admin {
    /// The process.
    pub shared: Arc<Shared>,
    /// The configuration's state.
    pub status: Arc<Status>,
    /// The names of the series.
    pub registries: Arc<Mutex<Registries>>,
    /// When the process started, on the clock of `now_ns`.
    pub started_ns: u64,
    /// Busy time of the workers at the last scrape.
    pub busy: Mutex<metrics::BusyReadings>,
}

/// Starts the thread.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn start(listener: TcpListener, shared: &Arc<Shared>, reloader: &Reloader) -> io::Result<()> {
    let admin = Arc::new(Admin {
        shared: Arc::clone(shared),
        status: reloader.status(),
        registries: reloader.registries(),
        started_ns: ringway_stats::clock::now_ns(),
        busy: Mutex::default(),
    });
    // Made here, so that a system that refuses it is noticed before the start is announced.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let builder = std::thread::Builder::new().name("ringway-admin".into());
    builder.spawn(move || runtime.block_on(serve(listener, admin)))?;
    Ok(())
}

async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin interface cannot start"),
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let admin = Arc::clone(&admin);
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(&admin, request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEAD_TIMEOUT)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(crate::limits::ACCEPT_PAUSE).await,
        }
    }
}

async fn answer<B>(
    admin: &Arc<Admin>,
    request: Request<B>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET or HEAD\n");
        refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return Ok(refused);
    }
    Ok(match request.uri().path() {
        "/live" => text(StatusCode::OK, "text/plain", "live\n"),
        "/ready" => {
            let (ready, body) = ready::report(admin);
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            text(status, "application/json", body)
        }
        "/metrics" => {
            let admin = Arc::clone(admin);
            match tokio::task::spawn_blocking(move || metrics::render(&admin)).await {
                Ok(body) => text(StatusCode::OK, metrics::CONTENT_TYPE, body),
                Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "failed\n"),
            }
        }
        "/config" => text(StatusCode::OK, "application/json", ready::config(admin)),
        "/certs" => {
            let report = certificates::report(&admin.status.get().credentials);
            text(StatusCode::OK, "application/json", format!("{report:#}\n"))
        }
        "/control" => {
            text(StatusCode::OK, "application/json", control::report(&admin.status.get()))
        }
        "/" => text(StatusCode::OK, "text/plain", PAGES),
        _ => text(StatusCode::NOT_FOUND, "text/plain", PAGES),
    })
}

fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
