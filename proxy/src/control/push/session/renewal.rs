//! Certificate and roots: asked for when they are due, taken when they come.
//!
//! # Invariants
//! - One request at a time; one that fails is made again later, by chance.
//! - Without a valid certificate the token is used, with one it is not even read.

use std::path::PathBuf;
use std::time::Duration;

use ringway_protocol::{Join, Joined, Renew};
use ringway_tls::UnixTime;
use tokio::time::Instant;

use super::super::connection::{PushError, Target};
use super::super::identity::{Identity, IdentityError, Request};
use super::super::state::StateDir;
use super::super::{PUSHER_PATH, Settings};
use super::{Backoff, JOIN_BACKOFF, RENEW_BACKOFF, Session};
use crate::control::credentials;

/// A certificate that was asked for.
pub(super) type Renewed = Result<Answered, RenewError>;

/// What the pusher answered.
pub(super) struct Answered {
    request: Request,
    answer: Joined,
    /// By the token: what was known before counts no more.
    is_join: bool,
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenewError {
    #[error("{0}")]
    Push(#[from] PushError),
    #[error("{0}")]
    Identity(#[from] IdentityError),
    #[error("the token cannot be read: {0}")]
    Token(String),
}

impl RenewError {
    /// How long the pusher wants not to be asked.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Push(error) => error.retry_after(),
            Self::Identity(_) | Self::Token(_) => None,
        }
    }
}

/// How long one that is due when it comes is kept, at most: it may end by a clock that jumps.
const RENEW_PAUSE_S_MAX: u64 = 600;

/// How long to wait after `chosen` was drawn for one whose certificate ends in `left`: nobody waits
/// past that end, when everything changes, for longer than one who begins without a certificate.
fn until_next(chosen: Duration, left: Duration) -> Duration {
    chosen.min(left + Backoff::new(JOIN_BACKOFF).next(None))
}

impl Session {
    pub(super) fn is_renewal_due(&self, now: Instant) -> bool {
        if self.renewing.is_some() || self.renew_at.is_some_and(|at| now < at) {
            return false;
        }
        let now_s = UnixTime::now().as_secs();
        self.identity.as_ref().is_none_or(|identity| now_s >= identity.renew_at_s())
    }

    /// Asks for a certificate: by the one in use, or by the token while there is none.
    pub(super) fn renew(&mut self) {
        let target = self.target();
        let settings = self.settings.clone();
        self.renewing = Some(tokio::spawn(async move {
            match target {
                Some(target) => renew(target).await,
                None => join(settings).await,
            }
        }));
    }

    pub(super) async fn renewed(&mut self, renewed: Renewed) {
        let retry_after = renewed.as_ref().err().and_then(RenewError::retry_after);
        let taken = renewed.map_err(|error| error.to_string()).and_then(|answered| {
            let Answered { request, answer, is_join } = answered;
            let held = self.identity.as_ref().filter(|_| !is_join);
            let now = UnixTime::now();
            let take = |state: &mut StateDir| Identity::take(state, held, &request, &answer, now);
            self.state.with(take).map_err(|error| error.to_string())
        });
        match taken {
            Ok(identity) => {
                let id = identity.id().map(ToString::to_string).unwrap_or_default();
                tracing::info!(identity = id, until = identity.not_after_s(), "certificate taken");
                // Due already: this clock is ahead of the pusher's, and each next one would be too.
                let now_s = UnixTime::now().as_secs();
                let left = identity.not_after_s().saturating_sub(now_s);
                let pause = Duration::from_secs((left / 4).clamp(1, RENEW_PAUSE_S_MAX));
                let is_due = now_s >= identity.renew_at_s();
                self.renew_at = is_due.then(|| Instant::now() + pause);
                self.identity = Some(identity);
                self.renew_backoff = Backoff::new(RENEW_BACKOFF);
                self.join_backoff = Backoff::new(JOIN_BACKOFF);
                self.begin_era();
                self.report_at = Instant::now();
                if self.stream.is_none() {
                    // The pusher is in reach.
                    self.connect_at = Instant::now();
                }
                self.status.update_push(|push| {
                    push.renewals += 1;
                    push.renewal_problem = None;
                });
                self.show_identity();
                self.orders.credentials().await;
            }
            Err(error) => {
                let now = UnixTime::now();
                let left = self.identity.as_ref().filter(|held| held.is_valid(now));
                let left = left.map(|held| held.not_after_s().saturating_sub(now.as_secs()));
                let valid = left.is_some();
                let delay = match left.map(Duration::from_secs) {
                    Some(left) => until_next(self.renew_backoff.next(retry_after), left),
                    // Without a certificate nothing works.
                    None => self.join_backoff.next(retry_after),
                };
                self.renew_at = Some(Instant::now() + delay);
                tracing::error!(again_in = ?delay, "no new certificate: {error}");
                self.status.update_push(|push| {
                    push.renewal_failures += 1;
                    push.renewal_problem = Some(error.clone());
                    if !valid {
                        push.problem = Some(error);
                    }
                });
            }
        }
    }

    pub(super) async fn take_bundle(&mut self, bundle: &ringway_protocol::Bundle) {
        let Some(identity) = &self.identity else { return };
        let taken = self.state.with(|state| identity.with_bundle(state, bundle, UnixTime::now()));
        match taken {
            Ok(None) => tracing::warn!(
                epoch = bundle.epoch,
                in_use = identity.epoch(),
                "roots and revocations are older than those in use: not taken"
            ),
            Ok(Some(identity)) => {
                tracing::info!(epoch = bundle.epoch, "roots and revocations taken");
                self.identity = Some(identity);
                self.begin_era();
                self.report_at = Instant::now();
                self.show_identity();
                self.orders.credentials().await;
            }
            Err(error) => {
                tracing::error!(epoch = bundle.epoch, "roots refused, the old ones stay: {error}");
                self.status.update_push(|push| push.renewal_problem = Some(error.to_string()));
            }
        }
    }

    pub(super) fn show_identity(&self) {
        let identity = self.identity.as_ref();
        self.status.update_push(|push| {
            push.address.clone_from(&self.settings.address);
            push.node = self.settings.node.to_string();
            push.identity = identity
                .and_then(|identity| identity.id())
                .map(ToString::to_string)
                .unwrap_or_default();
            push.epoch = identity.map_or(0, Identity::epoch);
        });
    }
}

async fn renew(target: Target) -> Renewed {
    let request = Request::new()?;
    let message = Renew { csr: request.csr.clone() };
    let answer = target.connect().await?.post("/v1/renew", &message).await?;
    Ok(Answered { request, answer, is_join: false })
}

async fn join(settings: Settings) -> Renewed {
    let Some(file) = &settings.token_file else {
        let missing =
            "there is no valid certificate in state_dir, and the file names no token_file";
        return Err(RenewError::Token(missing.to_owned()));
    };
    let token = token(file.clone()).await.map_err(RenewError::Token)?;
    let request = Request::new()?;
    let message =
        Join { token, csr: request.csr.clone(), identity: None, node: settings.node.clone() };
    let tls = ringway_tls::control::pinned_client(settings.root_sha256, PUSHER_PATH)
        .map_err(|error| PushError::Answer(error.to_string()))?;
    let target = Target { address: settings.address, tls };
    let answer = target.connect().await?.post("/v1/join", &message).await?;
    Ok(Answered { request, answer, is_join: true })
}

/// The token in `file`, which may be on a disk that does not answer.
async fn token(file: PathBuf) -> Result<String, String> {
    let read = tokio::task::spawn_blocking(move || {
        let bytes = credentials::read(&file).map_err(|fault| fault.to_string())?;
        let text = String::from_utf8(bytes);
        text.map_err(|error| format!("{}: {error}", file.display()))
    });
    let text = read.await.map_err(|error| error.to_string())??;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_long_past_the_end_of_its_certificate() {
        let (long, left) = (Duration::from_secs(300), Duration::from_secs(7));
        assert!(until_next(long, left) <= left + JOIN_BACKOFF.0);
        assert!(until_next(long, Duration::ZERO) >= JOIN_BACKOFF.0 / 5);
        assert_eq!(until_next(Duration::from_secs(3), left), Duration::from_secs(3));
    }

    #[tokio::test]
    async fn a_token_is_what_a_file_says_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, " secret\n").unwrap();
        assert_eq!(token(path.clone()).await.unwrap(), "secret");
        std::fs::write(&path, [0xff]).unwrap();
        assert!(token(path).await.is_err());
        assert!(token(folder.path().to_owned()).await.unwrap_err().contains("it is no file"));
    }
}
