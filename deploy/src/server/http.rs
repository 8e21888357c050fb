//! What sidecars and operators may ask for, and who may ask it.
//!
//! | call | who |
//! |---|---|
//! | `POST /v1/join` | whoever has a token |
//! | `POST /v1/renew`, `/v1/report`, `/v1/samples`, `GET /v1/stream` | a sidecar's certificate |
//! | `GET /v1/status`, `/v1/history`, `/v1/ca` | operators: viewers and above |
//! | `POST /v1/replay` | editors and above: it shows paths and callers |
//! | `POST /v1/release`, `/v1/rollback`, `/v1/rollout` | releasers and above |
//! | `POST /v1/ca/...` | ca-admins |
//!
//! # Invariants
//! - Who asks is known by the certificate that TLS has verified, and whether it is denied is asked
//!   anew each time.
//! - Every refusal is JSON with a code for programs and a sentence for people.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use ringway_protocol::limits::BODY_BYTES_MAX;
use ringway_protocol::{Hello, Join, Joined, Refused, Renew, Report, Samples};
use ringway_tls::{CertificateDer, SpiffeId, UnixTime};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::core::{AskFault, SamplesFault};
use super::operate;
use super::stream::StreamBody;
use super::{Pusher, TURN_WAIT_MAX, now_ms};
use crate::ca::{CaFault, Issued, Peer, Role};
use crate::fleet::{self, ConnectionId, FleetFault};
use crate::version::{PolicyHash, SidecarKey, Version};

/// Bytes of a request for a certificate, which may come from anybody.
const JOIN_BYTES_MAX: usize = 32 << 10;

/// After how many seconds to come back.
const RETRY_AFTER_S: std::ops::RangeInclusive<u64> = 1..=10;

/// An answer's body.
pub type Payload = BoxBody<Bytes, Infallible>;

/// Why a request is not answered as it wants.
#[derive(Debug)]
pub struct Fault {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after_s: Option<u64>,
}

impl Fault {
    /// A refusal.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Fault {
        Fault { status, code, message: message.into(), retry_after_s: None }
    }

    /// One who is to come back after a time by chance, so that not all come at once.
    fn later(self) -> Fault {
        Fault { retry_after_s: Some(fastrand::u64(RETRY_AFTER_S)), ..self }
    }

    /// Too many wait already.
    fn busy() -> Fault {
        let message = "too many wait for the same: come back later";
        Fault::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message).later()
    }

    fn bad(code: &'static str, message: &impl ToString) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, code, message.to_string())
    }

    fn into_response(self) -> Response<Payload> {
        let body = Refused { code: self.code.to_owned(), message: self.message };
        let mut response = json(self.status, &body);
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<CaFault> for Fault {
    fn from(fault: CaFault) -> Fault {
        match fault {
            CaFault::Refused(refusal) => {
                Fault::new(StatusCode::FORBIDDEN, refusal.word(), refusal.to_string())
            }
            CaFault::Input(text) => Fault::bad("input", &text),
            CaFault::Full { .. } => Fault::bad("full", &fault),
            CaFault::TooLate => Fault::new(StatusCode::CONFLICT, "too_late", fault.to_string()),
            fault => {
                tracing::error!("{fault}");
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Fault::new(status, "authority", fault.to_string()).later()
            }
        }
    }
}

impl From<FleetFault> for Fault {
    fn from(fault: FleetFault) -> Fault {
        let (status, is_for_now) = match fault {
            FleetFault::Full | FleetFault::Nodes(_) => (StatusCode::SERVICE_UNAVAILABLE, true),
            FleetFault::TooOften(_) => (StatusCode::TOO_MANY_REQUESTS, true),
            FleetFault::TooMuch { .. } | FleetFault::Generation(_) => {
                (StatusCode::BAD_REQUEST, false)
            }
            FleetFault::Unknown(_) | FleetFault::Late(_) => (StatusCode::CONFLICT, false),
        };
        let fault = Fault::new(status, "fleet", fault.to_string());
        if is_for_now { fault.later() } else { fault }
    }
}

impl From<AskFault> for Fault {
    fn from(fault: AskFault) -> Fault {
        let (status, code) = match fault {
            AskFault::Nothing => (StatusCode::CONFLICT, "nothing"),
            AskFault::Held(_) => (StatusCode::CONFLICT, "held"),
            AskFault::Release(_) => (StatusCode::CONFLICT, "release"),
            AskFault::Control(_) => (StatusCode::CONFLICT, "rollout"),
            AskFault::Record(_) => (StatusCode::SERVICE_UNAVAILABLE, "state"),
        };
        Fault::new(status, code, fault.to_string())
    }
}

impl From<SamplesFault> for Fault {
    fn from(fault: SamplesFault) -> Fault {
        let (status, code) = match fault {
            SamplesFault::NotAsked => (StatusCode::CONFLICT, "not_asked"),
            SamplesFault::TooMuch(_) => (StatusCode::BAD_REQUEST, "too_much"),
        };
        Fault::new(status, code, fault.to_string())
    }
}

/// Answers a request of the peer with the certificates `chain`, leaf first; none if it showed none.
pub async fn answer(
    pusher: Arc<Pusher>,
    chain: Arc<[CertificateDer<'static>]>,
    request: Request<Incoming>,
) -> Result<Response<Payload>, Infallible> {
    let counted = Arc::clone(&pusher);
    Ok(route(pusher, &chain, request).await.unwrap_or_else(|fault| {
        let [too_often, busy] = &counted.counters.requests_shed;
        match fault.status {
            StatusCode::TOO_MANY_REQUESTS => _ = too_often.fetch_add(1, Ordering::Relaxed),
            StatusCode::SERVICE_UNAVAILABLE if fault.code == "busy" => {
                busy.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        fault.into_response()
    }))
}

async fn route(
    pusher: Arc<Pusher>,
    chain: &[CertificateDer<'static>],
    request: Request<Incoming>,
) -> Result<Response<Payload>, Fault> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::POST, "/v1/join") => {
            let reads = turn(&pusher.joins).await?;
            let message = body_of(request, JOIN_BYTES_MAX).await?;
            drop(reads);
            join(&pusher, message).await
        }
        (&Method::POST, "/v1/renew") => {
            let peer = peer(chain)?;
            renew(&pusher, peer, body_of(request, JOIN_BYTES_MAX).await?).await
        }
        (&Method::GET, "/v1/stream") => {
            let peer = workload(&pusher, chain).await?;
            let query = request.uri().query().unwrap_or_default().to_owned();
            stream(pusher, peer, &query).await
        }
        (&Method::POST, "/v1/report") => {
            let peer = workload(&pusher, chain).await?;
            report(pusher, peer, body(request).await?).await
        }
        (&Method::POST, "/v1/samples") => {
            let peer = workload(&pusher, chain).await?;
            samples(pusher, peer, body(request).await?).await
        }
        _ => {
            let peer = admitted(&pusher, chain).await?;
            let (role, name) = operator(&pusher, &peer)?;
            operate::route(pusher, role, name, request).await
        }
    }
}

/// Waits for a turn, for as long as whoever asks would.
async fn turn(turns: &Semaphore) -> Result<SemaphorePermit<'_>, Fault> {
    match tokio::time::timeout(TURN_WAIT_MAX, turns.acquire()).await {
        Ok(Ok(turn)) => Ok(turn),
        Ok(Err(_)) | Err(_) => Err(Fault::busy()),
    }
}

/// Who asks.
fn peer(chain: &[CertificateDer<'_>]) -> Result<Peer, Fault> {
    let leaf = chain.first().ok_or_else(|| {
        let message = "a certificate of the mesh is needed: join first";
        Fault::new(StatusCode::UNAUTHORIZED, "no_certificate", message)
    })?;
    Peer::read(leaf).map_err(|refusal| CaFault::Refused(refusal).into())
}

/// Who asks, if it is not denied. The bundle refuses denied certificates in the handshake; this
/// covers connections that were open before, and identities.
async fn admitted(pusher: &Arc<Pusher>, chain: &[CertificateDer<'_>]) -> Result<Peer, Fault> {
    let peer = peer(chain)?;
    let (asked, found) = (peer.id.clone(), peer.serial.clone());
    let checked = pusher
        .authority_work(move |authority| {
            authority.check_denied(&asked, Some(&found), UnixTime::now())
        })
        .await;
    checked?;
    let now_s = UnixTime::now().as_secs();
    if now_s > peer.until_s.saturating_add(pusher.skew_s()) {
        // The connection is older than that.
        let message = "the certificate of this connection has expired: connect anew";
        return Err(Fault::new(StatusCode::UNAUTHORIZED, "expired", message));
    }
    Ok(peer)
}

/// Who asks, if it is a workload: operators have no sidecars.
async fn workload(pusher: &Arc<Pusher>, chain: &[CertificateDer<'_>]) -> Result<Peer, Fault> {
    let peer = admitted(pusher, chain).await?;
    let checked = crate::ca::check_workload(&peer.id, pusher.trust_domain());
    checked.map_err(|refusal| Fault::from(CaFault::Refused(refusal)))?;
    Ok(peer)
}

fn operator(pusher: &Pusher, peer: &Peer) -> Result<(Role, String), Fault> {
    let found = Role::of(&peer.id, pusher.trust_domain());
    let (role, name) = found.ok_or_else(|| {
        let message = format!("{} is no operator", peer.id);
        Fault::new(StatusCode::FORBIDDEN, "not_an_operator", message)
    })?;
    Ok((role, name.to_owned()))
}

/// Reads a message.
///
/// # Errors
/// One that is too long, does not arrive, or cannot be read.
pub async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Fault> {
    body_of(request, BODY_BYTES_MAX).await
}

/// [`body`], of at most `most` bytes.
async fn body_of<T: DeserializeOwned>(request: Request<Incoming>, most: usize) -> Result<T, Fault> {
    let whole = Limited::new(request.into_body(), most).collect();
    let whole = tokio::time::timeout(super::BODY_TIMEOUT, whole).await;
    let whole = whole.map_err(|_| {
        Fault::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the message did not arrive in time")
    })?;
    let bytes = whole.map_err(|error| Fault::bad("body", &error))?.to_bytes();
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(bytes).map_err(|error| Fault::bad("body", &error))
}

/// An answer of JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response<Payload> {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    let mut response = Response::new(Full::new(Bytes::from(bytes)).boxed());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// An answer without content.
pub fn no_content() -> Response<Payload> {
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

async fn join(pusher: &Pusher, join: Join) -> Result<Response<Payload>, Fault> {
    let asked = join.identity.as_deref().map(SpiffeId::parse).transpose();
    let asked = asked.map_err(|fault| Fault::bad("identity", &fault))?;
    let node = join.node.clone();
    let issuing = turn(&pusher.issues).await?;
    let issued = pusher
        .authority_work(move |authority| {
            let (csr, draw) = (join.csr.as_bytes(), fastrand::u32(..));
            authority.join(&join.token, asked.as_ref(), csr, UnixTime::now(), draw)
        })
        .await;
    drop(issuing);
    pusher.count_issued("join", &issued);
    let issued = issued.inspect_err(|fault| tracing::warn!(%node, "join: {fault}"))?;
    tracing::info!(identity = %issued.id, %node, "joined");
    Ok(json(StatusCode::OK, &joined(pusher, issued)))
}

async fn renew(pusher: &Pusher, peer: Peer, message: Renew) -> Result<Response<Payload>, Fault> {
    let id = peer.id.clone();
    let issuing = turn(&pusher.issues).await?;
    let issued = pusher
        .authority_work(move |authority| {
            let (csr, draw) = (message.csr.as_bytes(), fastrand::u32(..));
            authority.renew(&peer, csr, UnixTime::now(), draw)
        })
        .await;
    drop(issuing);
    pusher.count_issued("renew", &issued);
    let issued = issued.inspect_err(|fault| tracing::warn!(identity = %id, "renew: {fault}"))?;
    Ok(json(StatusCode::OK, &joined(pusher, issued)))
}

fn joined(pusher: &Pusher, issued: Issued) -> Joined {
    let roots = pusher.roots();
    Joined {
        chain: issued.chain_pem,
        identity: issued.id.to_string(),
        roots: roots.roots,
        revocations: roots.revocations,
        epoch: roots.epoch,
        renew_at_s: issued.renew_at_s,
    }
}

fn sidecar(peer: &Peer, node: &str) -> Result<SidecarKey, Fault> {
    SidecarKey::new(peer.id.as_str(), node).map_err(|error| Fault::bad("node", &error))
}

async fn stream(pusher: Arc<Pusher>, peer: Peer, query: &str) -> Result<Response<Payload>, Fault> {
    let hello = Hello::from_query(query).map_err(|error| Fault::bad("query", &error))?;
    let key = sidecar(&peer, hello.node.as_str())?;
    let endpoints = hello.endpoints;
    let told = hello_of(&hello, &peer);
    let opened = pusher
        .core_work({
            let pusher = Arc::clone(&pusher);
            // Made with the connection: one that nobody waits for any more says goodbye too.
            move |core| {
                let opened = core.hello(&key, peer, told, endpoints, now_ms());
                opened.map(|(connection, frames)| StreamBody::new(frames, pusher, key, connection))
            }
        })
        .await;
    let body = opened?;
    let mut response = Response::new(body.boxed());
    let kind = HeaderValue::from_static("application/vnd.ringway.frames");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

fn hello_of(hello: &Hello, peer: &Peer) -> fleet::Hello {
    let running = hello.running.map(|running| fleet::Running {
        version: Version { generation: running.generation, hash: running.hash },
        confirmed: !hello.on_probation,
    });
    let label = |name: &ringway_protocol::Name| {
        let (name, value) = name.as_str().split_once('=').unwrap_or((name.as_str(), ""));
        (name.to_owned(), value.to_owned())
    };
    fleet::Hello {
        running,
        endpoints: hello.endpoints.and_then(|hash| hash.to_string().parse().ok()),
        certificate: Some(certificate(peer.until_s, None)),
        bundle_epoch: hello.epoch,
        software: hello.version.to_string(),
        capabilities: hello.capabilities.iter().map(ToString::to_string).collect(),
        labels: hello.labels.iter().map(label).collect(),
    }
}

fn certificate(until_s: u64, root: Option<PolicyHash>) -> fleet::Certificate {
    fleet::Certificate {
        not_after_ms: until_s.saturating_mul(1000),
        root: root.unwrap_or(PolicyHash::new([0; 32])),
    }
}

async fn report(
    pusher: Arc<Pusher>,
    peer: Peer,
    report: Report,
) -> Result<Response<Payload>, Fault> {
    let key = sidecar(&peer, report.node.as_str())?;
    let connection = ConnectionId(report.stream);
    let told = report_of(report);
    let taken = pusher.core_work(move |core| core.report(&key, told, connection, now_ms())).await;
    taken?;
    Ok(no_content())
}

async fn samples(
    pusher: Arc<Pusher>,
    peer: Peer,
    samples: Samples,
) -> Result<Response<Payload>, Fault> {
    let key = sidecar(&peer, samples.node.as_str())?;
    pusher.core_work(move |core| core.take_samples(&key, samples)).await?;
    Ok(no_content())
}

fn report_of(report: Report) -> fleet::Report {
    let mut entries: Vec<fleet::Entry> = report
        .states
        .into_iter()
        .map(|state| fleet::Entry {
            version: Version { generation: state.generation, hash: state.hash },
            state: match state.state {
                ringway_protocol::State::Staged => fleet::State::Staged,
                ringway_protocol::State::Rejected => fleet::State::Rejected(state.reason),
                ringway_protocol::State::Applied => fleet::State::Applied,
                ringway_protocol::State::Confirmed => fleet::State::Confirmed,
                ringway_protocol::State::RolledBack => fleet::State::RolledBack(state.reason),
            },
        })
        .collect();
    if let Some(running) = report.running {
        let version = Version { generation: running.generation, hash: running.hash };
        let state = match report.on_probation {
            true => fleet::State::Applied,
            false => fleet::State::Confirmed,
        };
        entries.push(fleet::Entry { version, state });
    }
    let root = report.certificate.root.parse().ok();
    fleet::Report {
        entries,
        endpoints: report.endpoints.and_then(|hash| hash.to_string().parse().ok()),
        certificate: Some(certificate(report.certificate.not_after_s, root)),
        renewal_problem: Some(report.certificate.problem).filter(|problem| !problem.is_empty()),
        bundle_epoch: Some(report.epoch),
    }
}
