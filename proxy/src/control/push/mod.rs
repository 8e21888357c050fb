//! The sidecar's side of the pusher: it joins, listens, stages, applies, watches itself and undoes.
//!
//! ```text
//!              ┌─ identity: key, join, renew ─┐
//! pusher ◀═══▶ │ session: stream, reports     ├─ Order ─▶ control thread: check, apply, endpoints
//!              └─ policies: stage, commit,  ──┘             (the reloader)
//!                 probation; state on disk
//! ```
//!
//! It runs beside the loop of the control thread and never touches a table itself.
//!
//! # Invariants
//! - The pusher is never needed to start or to go on: what was good last is on disk.
//! - A policy is applied only after it was checked and kept here, and only if its generation is
//!   higher than any before.
//! - A certificate that is valid is never given up before the next one is on disk.

pub mod connection;
pub mod identity;
pub mod policies;
pub mod probation;
pub mod samples;
pub mod session;
pub mod state;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ringway_protocol::{EndpointsState, Name, Running, State, StateReport};
use ringway_router::ControlConfig;
use tokio::sync::{mpsc, oneshot};

use self::state::{Policy, StateDir};

/// The path of the pusher's identity, in whatever trust domain.
pub const PUSHER_PATH: &str = "/ringway/pusher";
/// Orders that may wait.
const ORDERS_MAX: usize = 8;

/// What the control thread is asked to do.
#[derive(Debug)]
pub enum Order {
    /// To say whether a policy could be applied.
    Check {
        /// The policy.
        policy: Policy,
        /// Where the answer goes: nothing, or what is wrong.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// To apply a policy; none of all to go back to listening nowhere.
    Apply {
        /// The policy.
        policy: Option<Policy>,
        /// Where the answer goes: nothing, or what is wrong. Then nothing has changed.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// To use these endpoints.
    Endpoints(EndpointsState),
    /// To look at the certificate files.
    Credentials,
}

/// Gives orders to the control thread.
#[derive(Debug, Clone)]
pub struct Orders(mpsc::Sender<Order>);

impl Orders {
    /// A way to give orders, and where they come out.
    #[must_use]
    pub fn new() -> (Orders, mpsc::Receiver<Order>) {
        let (sender, receiver) = mpsc::channel(ORDERS_MAX);
        (Orders(sender), receiver)
    }

    async fn ask(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<(), String>>) -> Order,
    ) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let ending = || "the sidecar is about to end".to_owned();
        self.0.send(order(answer)).await.map_err(|_| ending())?;
        answered.await.unwrap_or_else(|_| Err(ending()))
    }

    /// Whether `policy` could be applied.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn check(&self, policy: Policy) -> Result<(), String> {
        self.ask(|answer| Order::Check { policy, answer }).await
    }

    /// Applies `policy`.
    ///
    /// # Errors
    /// What is wrong with it; nothing has changed then.
    pub async fn apply(&self, policy: Option<Policy>) -> Result<(), String> {
        self.ask(|answer| Order::Apply { policy, answer }).await
    }

    /// Uses `endpoints`.
    pub async fn endpoints(&self, endpoints: EndpointsState) {
        let _ = self.0.send(Order::Endpoints(endpoints)).await;
    }

    /// Has the certificate files looked at.
    pub async fn credentials(&self) {
        let _ = self.0.send(Order::Credentials).await;
    }
}

/// The state folder, shared by the session and whoever ends the process.
#[derive(Debug, Clone)]
pub struct SharedState(Arc<Mutex<StateDir>>);

impl SharedState {
    /// Shares `state`.
    #[must_use]
    pub fn new(state: StateDir) -> SharedState {
        SharedState(Arc::new(Mutex::new(state)))
    }

    /// Does something with the folder, which blocks the thread for as long as the disk takes.
    pub fn with<R>(&self, act: impl FnOnce(&mut StateDir) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the sidecar's file says about the pusher, made ready for use.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `ip:port` or `name:port` of the pusher.
    pub address: String,
    /// SHA-256 of the root to join by.
    pub root_sha256: [u8; 32],
    /// File of the token.
    pub token_file: Option<PathBuf>,
    /// The state folder.
    pub state_dir: PathBuf,
    /// The node's name.
    pub node: Name,
    /// Labels.
    pub labels: Vec<Name>,
    /// Whether requests are sampled.
    pub samples: bool,
}

impl Settings {
    /// What `control` of the file at `path` says.
    ///
    /// # Errors
    /// When the node has no name that can be used.
    pub fn of(control: &ControlConfig, path: &Path) -> Result<Settings, String> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut root_sha256 = [0; 32];
        let digits = control.root_sha256();
        for (byte, pair) in root_sha256.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).unwrap_or_default();
            *byte = u8::from_str_radix(pair, 16).map_err(|error| error.to_string())?;
        }
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let node = control.node.clone().unwrap_or_else(host);
        let node = node.parse().map_err(|error| format!("{error}; set `control.node`"))?;
        let labels: Result<Vec<Name>, _> = control.labels.iter().map(|text| text.parse()).collect();
        Ok(Settings {
            address: control.address.clone(),
            root_sha256,
            token_file: control.token_file.as_deref().map(|file| folder.join(file)),
            state_dir: folder.join(&control.state_dir),
            node,
            labels: labels.map_err(|error| error.to_string())?,
            samples: control.samples,
        })
    }
}

/// What the admin thread may know of it.
#[derive(Debug, Clone, Default)]
pub struct PushStatus {
    /// The pusher's address.
    pub address: String,
    /// The node's name.
    pub node: String,
    /// Who the sidecar is; empty before it joined.
    pub identity: String,
    /// A stream is open.
    pub connected: bool,
    /// Streams opened since the start.
    pub connects: u64,
    /// Attempts that failed, and streams that broke off.
    pub failures: u64,
    /// Why there is no stream; `None` if there is one.
    pub problem: Option<String>,
    /// Why the pusher has nothing to apply; `None` if it has said nothing of the kind.
    pub hold: Option<String>,
    /// The policy in use.
    pub running: Option<Running>,
    /// It is not confirmed yet.
    pub on_probation: bool,
    /// The policy that waits for its commit.
    pub staged: Option<Running>,
    /// The last policy that was rejected or undone, and why.
    pub last_refused: Option<StateReport>,
    /// How often policies came into each state, in the order of [`STATES`].
    pub states: [u64; STATES.len()],
    /// Certificates taken since the start, the first included.
    pub renewals: u64,
    /// Attempts that failed.
    pub renewal_failures: u64,
    /// Why the last attempt failed; `None` if it did not.
    pub renewal_problem: Option<String>,
    /// Epoch of the roots.
    pub epoch: u64,
    /// Clusters whose endpoints are the last that the pusher's source named.
    pub stale_clusters: BTreeSet<String>,
}

/// The states of a policy, for [`PushStatus::states`].
pub const STATES: [State; 5] =
    [State::Staged, State::Rejected, State::Applied, State::Confirmed, State::RolledBack];
