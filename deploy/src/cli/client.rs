//! Asks a pusher that runs, as an operator.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use ringway_protocol::Refused;
use ringway_tls::{Bundle, KeyPair, ServerName, SpiffeId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest answer that is read: the state of a large fleet.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// How a pusher is reached.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Access {
    /// The state folder of a pusher on this machine.
    #[arg(
        long,
        value_name = "FOLDER",
        global = true,
        conflicts_with = "operator",
        default_value = "ringway-push-state"
    )]
    state: PathBuf,
    /// Folder with `svid.pem` and `bundle.pem`, as `ca operator` makes it, in place of the state.
    #[arg(long, value_name = "FOLDER", global = true, requires = "pusher")]
    operator: Option<PathBuf>,
    /// Address of the pusher [default: that of the state folder].
    #[arg(long, value_name = "HOST:PORT", global = true)]
    pusher: Option<String>,
}

/// Why the pusher did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientFault {
    /// What proves who asks.
    #[error("{}: {text}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        text: String,
    },
    /// No pusher.
    #[error("no pusher answers at {address}: {error}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// The pusher refuses.
    #[error("{}", .0.message)]
    Refused(Refused),
    /// What it answers cannot be read.
    #[error("the answer of the pusher cannot be read: {0}")]
    Answer(String),
}

impl Access {
    /// The state folder, unless an operator's folder is used.
    pub(crate) fn state(&self) -> Option<&Path> {
        self.operator.is_none().then_some(self.state.as_path())
    }

    /// What asks with it.
    ///
    /// # Errors
    /// [`ClientFault::File`].
    pub(crate) fn client(&self) -> Result<Client, ClientFault> {
        let folder = self.operator.clone().unwrap_or_else(|| self.state.join("operator"));
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path)
                .map_err(|error| ClientFault::File { path, text: error.to_string() })
        };
        let unusable =
            |name: &str, text: String| ClientFault::File { path: folder.join(name), text };
        let address = match &self.pusher {
            Some(address) => address.clone(),
            None => read("address")?.trim().to_owned(),
        };
        let (pair, roots) = (read("svid.pem")?, read("bundle.pem")?);
        let pair = KeyPair::parse(pair.as_bytes(), pair.as_bytes(), None)
            .map_err(|fault| unusable("svid.pem", fault.to_string()))?;
        let bundle = Bundle::parse(roots.as_bytes(), &[])
            .map_err(|fault| unusable("bundle.pem", fault.to_string()))?;
        let domain = pair.spiffe().map(|id| id.trust_domain().to_owned()).unwrap_or_default();
        let pusher = SpiffeId::parse(&format!("spiffe://{domain}/ringway/pusher"))
            .map_err(|fault| unusable("svid.pem", fault.to_string()))?;
        let tls = ringway_tls::control::client(Some(&Arc::new(pair)), &Arc::new(bundle), pusher)
            .map_err(|fault| unusable("svid.pem", fault.to_string()))?;
        Ok(Client { address, tls: TlsConnector::from(tls) })
    }
}

/// Asks a pusher.
pub(crate) struct Client {
    address: String,
    tls: TlsConnector,
}

impl Client {
    /// Gets what is at `path`.
    ///
    /// # Errors
    /// [`ClientFault`].
    pub(crate) fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientFault> {
        self.ask(Method::GET, path, Vec::new())
    }

    /// Posts `message` to `path`.
    ///
    /// # Errors
    /// [`ClientFault`].
    pub(crate) fn post<A: DeserializeOwned>(
        &self,
        path: &str,
        message: &impl Serialize,
    ) -> Result<A, ClientFault> {
        let body = serde_json::to_vec(message);
        let body = body.map_err(|error| ClientFault::Answer(error.to_string()))?;
        self.ask(Method::POST, path, body)
    }

    fn ask<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<A, ClientFault> {
        let failed = |error| ClientFault::Unreachable { address: self.address.clone(), error };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let asked = async {
            let asked = tokio::time::timeout(PATIENCE, self.exchange(method, path, body)).await;
            asked.unwrap_or_else(|_| Err(failed(io::ErrorKind::TimedOut.into())))
        };
        let (status, bytes) = runtime.map_err(failed)?.block_on(asked)?;
        if !status.is_success() {
            let refused = serde_json::from_slice(&bytes).unwrap_or_else(|_| Refused {
                code: status.as_str().to_owned(),
                message: format!("the pusher answers {status}"),
            });
            return Err(ClientFault::Refused(refused));
        }
        let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(bytes).map_err(|error| ClientFault::Answer(error.to_string()))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), ClientFault> {
        let failed = |error| ClientFault::Unreachable { address: self.address.clone(), error };
        let other = |error: hyper::Error| failed(io::Error::other(error));
        let stream = TcpStream::connect(&self.address).await.map_err(failed)?;
        let host = self.address.rsplit_once(':').map_or(&*self.address, |(host, _)| host);
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|error| failed(io::Error::other(error)))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| {
            failed(match ringway_tls::control::refusal() {
                Some(fault) => io::Error::other(fault.to_string()),
                None => error,
            })
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(other)?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.address)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| ClientFault::Answer(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(other)?;
        let status = response.status();
        let whole = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        driver.abort();
        let whole = whole.map_err(|error| ClientFault::Answer(error.to_string()))?;
        Ok((status, whole.to_bytes()))
    }
}
