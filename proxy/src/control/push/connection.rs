//! A connection to the pusher: HTTP/1.1 over TLS, with a deadline on each step.
//!
//! # Not here
//! What is asked and what follows from the answer; when to try again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use ringway_protocol::limits::BODY_BYTES_MAX;
use ringway_protocol::{Decoder, Frame, FrameError, Refused};
use ringway_tls::{Fault, ServerName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

/// How long the connection may take until it is established, the handshake after it, for which a
/// pusher that many come back to lets everybody wait for a turn, and an answer to come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream on which nothing comes for so long is dead: PING comes every 15 s.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(45);

/// The longest that the pusher may keep a sidecar from asking again.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// For how long to wait where the pusher wants it to be `wanted`.
pub(super) fn bounded(wanted: Duration) -> Duration {
    wanted.min(WAIT_MAX)
}

/// What the pusher wants in its `retry-after`, in seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let wanted = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(bounded(Duration::from_secs(wanted)))
}

/// Why the pusher could not be asked.
#[derive(Debug, Error)]
pub enum PushError {
    /// No connection.
    #[error("{address}: {error}")]
    Connect {
        /// The pusher.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// A step took too long.
    #[error("{address}: no {step} within {}", humantime(*.limit))]
    TimedOut {
        /// The pusher.
        address: String,
        /// Which.
        step: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The pusher did not prove who it is, by our rules.
    #[error("{address}: {fault}")]
    NotThePusher {
        /// The pusher.
        address: String,
        /// Why.
        fault: Fault,
    },
    /// HTTP went wrong.
    #[error("{address}: {}", with_causes(.error))]
    Http {
        /// The pusher.
        address: String,
        /// Why.
        error: hyper::Error,
    },
    /// The pusher refuses.
    #[error("the pusher refuses ({status}, {}): {}", refused.code, refused.message)]
    Refused {
        /// The status.
        status: StatusCode,
        /// Its words.
        refused: Refused,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer is not what was asked for.
    #[error("the answer of the pusher cannot be read: {0}")]
    Answer(String),
    /// The stream cannot be read.
    #[error("the stream cannot be read: {0}")]
    Frame(#[from] FrameError),
    /// The stream has ended.
    #[error("the pusher closed the stream")]
    Closed,
}

/// An error with what caused it, which hyper keeps apart.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn humantime(limit: Duration) -> String {
    format!("{} s", limit.as_secs())
}

impl PushError {
    /// How long the pusher wants not to be asked.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether it is what the pusher said: it is in reach, and has proved who it is.
    #[must_use]
    pub fn is_from_the_pusher(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Answer(_))
    }
}

/// Where the pusher is, and what proves both sides.
#[derive(Clone)]
pub struct Target {
    /// `ip:port` or `name:port`.
    pub address: String,
    /// Our certificate and whom we expect.
    pub tls: Arc<ClientConfig>,
}

/// An established connection.
pub struct Connection {
    address: String,
    sender: SendRequest<Full<Bytes>>,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Target {
    /// Connects.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn connect(&self) -> Result<Connection, PushError> {
        let late = |step, limit| PushError::TimedOut { address: self.address.clone(), step, limit };
        let failed = |error| PushError::Connect { address: self.address.clone(), error };
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.address)).await;
        let connected = connected.map_err(|_| late("connection", CONNECT_TIMEOUT))?;
        let opened = timeout(HANDSHAKE_TIMEOUT, self.open(connected.map_err(failed)?)).await;
        opened.unwrap_or_else(|_| Err(late("handshake", HANDSHAKE_TIMEOUT)))
    }

    async fn open(&self, stream: TcpStream) -> Result<Connection, PushError> {
        let address = || self.address.clone();
        let failed = |error| PushError::Connect { address: address(), error };
        stream.set_nodelay(true).map_err(failed)?;
        let host = self.address.rsplit_once(':').map_or(&*self.address, |(host, _)| host);
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let connected = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
        let stream = connected.map_err(|error| match ringway_tls::control::refusal() {
            Some(fault) => PushError::NotThePusher { address: address(), fault },
            None => failed(error),
        })?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| PushError::Http { address: address(), error })?;
        let driver = tokio::spawn(async move {
            // What ends the connection is seen by whoever waits for an answer.
            let _ = connection.await;
        });
        Ok(Connection { address: address(), sender, driver })
    }
}

impl Connection {
    /// Posts `message` and reads the answer.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn post<A: DeserializeOwned>(
        &mut self,
        path: &str,
        message: &impl Serialize,
    ) -> Result<A, PushError> {
        let response = self.send(Method::POST, path, Some(message)).await?;
        let body = self.body(response).await?;
        // An answer without content is JSON's null.
        let body: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(body).map_err(|error| PushError::Answer(error.to_string()))
    }

    /// Opens the stream of frames.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn stream(mut self, query: &str) -> Result<FrameStream, PushError> {
        let path = format!("/v1/stream?{query}");
        let response = self.send::<()>(Method::GET, &path, None).await?;
        let body = response.into_body();
        let heard = Instant::now();
        Ok(FrameStream { connection: self, body, decoder: Decoder::default(), heard })
    }

    async fn send<M: Serialize>(
        &mut self,
        method: Method,
        path: &str,
        message: Option<&M>,
    ) -> Result<Response<Incoming>, PushError> {
        let body = match message {
            Some(message) => {
                serde_json::to_vec(message).map_err(|error| PushError::Answer(error.to_string()))?
            }
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, &self.address)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| PushError::Answer(error.to_string()))?;
        let answered = timeout(ANSWER_TIMEOUT, self.sender.send_request(request));
        let response = match answered.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.http(error)),
            Err(_) => return Err(self.timed_out("answer", ANSWER_TIMEOUT)),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = retry_after(response.headers());
        let body = self.body(response).await.unwrap_or_default();
        let refused = serde_json::from_slice(&body).unwrap_or_else(|_| Refused {
            code: "unknown".into(),
            message: String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
        });
        Err(PushError::Refused { status, refused, retry_after })
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Bytes, PushError> {
        let whole = Limited::new(response.into_body(), BODY_BYTES_MAX).collect();
        match timeout(ANSWER_TIMEOUT, whole).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(PushError::Answer(error.to_string())),
            Err(_) => Err(self.timed_out("whole answer", ANSWER_TIMEOUT)),
        }
    }

    fn http(&self, error: hyper::Error) -> PushError {
        PushError::Http { address: self.address.clone(), error }
    }

    fn timed_out(&self, step: &'static str, limit: Duration) -> PushError {
        PushError::TimedOut { address: self.address.clone(), step, limit }
    }
}

/// What the pusher says, for as long as it does.
pub struct FrameStream {
    connection: Connection,
    body: Incoming,
    decoder: Decoder,
    /// When something came last. Kept here: whoever waits may stop and wait anew.
    heard: Instant,
}

impl FrameStream {
    /// The next frame. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// [`PushError`]; the stream is over then.
    pub async fn next(&mut self) -> Result<Frame, PushError> {
        loop {
            if let Some(frame) = self.decoder.frame()? {
                return Ok(frame);
            }
            let received = timeout_at(self.heard + SILENCE_MAX, self.body.frame()).await;
            self.heard = Instant::now();
            match received {
                Ok(Some(Ok(frame))) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.decoder.push(bytes);
                    }
                }
                Ok(Some(Err(error))) => return Err(self.connection.http(error)),
                Ok(None) => return Err(PushError::Closed),
                Err(_) => return Err(self.connection.timed_out("sign of life", SILENCE_MAX)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pusher_may_ask_for_five_minutes_at_most() {
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        for long in ["301", "4000000000", "18446744073709551615"] {
            let wait = asked(long);
            assert_eq!(wait, Some(WAIT_MAX), "{long}");
            assert!(Instant::now().checked_add(bounded(Duration::MAX)).is_some());
        }
        assert_eq!(asked("18446744073709551616"), None);
        assert_eq!(asked("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
