//! What operators ask: how things stand, releases, certificates.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use ringway_tls::UnixTime;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::core::{Ask, Core};
use super::http::{Fault, Payload, body, json as answer, no_content};
use super::{Pusher, now_ms};
use crate::ca::{self, Role};
use crate::replay::Material;

/// How long sidecars have to send their samples, and how often it is looked.
const SAMPLES_TIME: Duration = Duration::from_secs(5);
const SAMPLES_LOOK: Duration = Duration::from_millis(50);

/// `POST /v1/rollback`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rollback {
    /// The release to go back to; the good one before the last good one if absent.
    pub to: Option<u64>,
    /// How.
    pub ask: Ask,
}

/// `POST /v1/rollout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase", deny_unknown_fields)]
pub enum Rollout {
    /// Lets nobody else apply the release.
    Pause,
    /// Goes on.
    Resume,
    /// Stops, and brings those who applied it back.
    Abort,
    /// Skips the waits.
    Now,
}

/// Answers an operator.
pub(super) async fn route(
    pusher: Arc<Pusher>,
    role: Role,
    name: String,
    request: Request<Incoming>,
) -> Result<Response<Payload>, Fault> {
    let path = request.uri().path().to_owned();
    let may = |needed: Role| match role.allows(needed) {
        true => Ok(()),
        false => Err(Fault::new(
            StatusCode::FORBIDDEN,
            "role",
            format!("{name} is {}, this needs {}", role.as_str(), needed.as_str()),
        )),
    };
    match (request.method(), path.as_str()) {
        (&Method::GET, "/v1/status") => {
            may(Role::Viewer)?;
            Ok(answer(StatusCode::OK, &status(&pusher).await))
        }
        (&Method::GET, "/v1/history") => {
            may(Role::Viewer)?;
            let history =
                pusher.core_work(|core| json!(core.conductor().history().entries())).await;
            Ok(answer(StatusCode::OK, &history))
        }
        (&Method::GET, "/v1/ca") => {
            may(Role::Viewer)?;
            let view = pusher.authority_work(|authority| authority.view(UnixTime::now())).await?;
            Ok(answer(StatusCode::OK, &view))
        }
        (&Method::POST, "/v1/ca") => {
            may(Role::CaAdmin)?;
            let command: ca::Command = body(request).await?;
            tracing::info!(operator = name, "{command:?}");
            let work =
                move |authority: &ca::Authority| ca::answer(authority, &command, UnixTime::now());
            let answered = pusher.authority_work(work).await?;
            pusher.refresh().await;
            Ok(answer(StatusCode::OK, &answered))
        }
        (&Method::POST, "/v1/replay") => {
            may(Role::Editor)?;
            Ok(answer(StatusCode::OK, &material(&pusher).await))
        }
        (&Method::POST, "/v1/release") => {
            may(Role::Releaser)?;
            let ask: Ask = body(request).await?;
            pusher.core_work(move |core| core.release(&ask, &name, now_ms())).await?;
            Ok(no_content())
        }
        (&Method::POST, "/v1/rollback") => {
            may(Role::Releaser)?;
            let back: Rollback = body(request).await?;
            let work = move |core: &mut Core| core.rollback(back.to, &back.ask, &name, now_ms());
            pusher.core_work(work).await?;
            Ok(no_content())
        }
        (&Method::POST, "/v1/rollout") => {
            may(Role::Releaser)?;
            rollout(&pusher, name, body(request).await?).await
        }
        _ => Err(Fault::new(StatusCode::NOT_FOUND, "unknown", format!("there is no {path}"))),
    }
}

/// Asks the sidecars for samples, and waits for those that answer.
async fn material(pusher: &Arc<Pusher>) -> Material {
    pusher.core_work(Core::ask_samples).await;
    let answered = async {
        while pusher.core_work(|core| core.awaits_samples()).await {
            tokio::time::sleep(SAMPLES_LOOK).await;
        }
    };
    let _ = tokio::time::timeout(SAMPLES_TIME, answered).await;
    pusher.core_work(|core| core.material()).await
}

async fn rollout(
    pusher: &Arc<Pusher>,
    name: String,
    action: Rollout,
) -> Result<Response<Payload>, Fault> {
    let work = move |core: &mut Core| {
        let now = now_ms();
        core.control(now, |conductor| match action {
            Rollout::Pause => conductor.pause(&name).map(|()| Vec::new()),
            Rollout::Resume => conductor.resume(now),
            Rollout::Abort => conductor.abort(&name, now),
            Rollout::Now => conductor.hurry(now),
        })
    };
    pusher.core_work(work).await?;
    Ok(no_content())
}

/// How everything stands.
pub(super) async fn status(pusher: &Arc<Pusher>) -> Value {
    pusher
        .core_work(|core| {
            let now = now_ms();
            let conductor = core.conductor();
            let sidecars: Vec<Value> = conductor
                .fleet()
                .sidecars()
                .map(|(key, sidecar)| {
                    json!({
                        "identity": key.identity(),
                        "node": key.node(),
                        "workload": core.workload_of(key.identity()),
                        "sidecar": sidecar.view(now),
                    })
                })
                .collect();
            json!({
                "fleet": conductor.fleet().summary(),
                "rollout": conductor.summary(now),
                "rollout_text": conductor.summary(now).map(|summary| summary.to_string()),
                "release": conductor.history().entries().last(),
                "last_good": conductor.history().last_good().map(|release| release.number),
                "waiting": core.waiting().is_some(),
                "held": core.waiting().flatten(),
                "quarantined": core.quarantined(),
                "stale": core.stale(),
                "disk_problem": core.disk_problem(),
                "diagnostics": core.diagnostics().iter().map(ToString::to_string).collect::<Vec<_>>(),
                "sidecars": sidecars,
            })
        })
        .await
}
