//! The pusher as a process: the folder, the state, the certificates, and those who are connected.
//!
//! ```text
//!            ┌──────────── core: mesh, releases, fleet, streams ─────────────┐
//!  folder ──▶│ folder()                                        frames ───────┼──▶ sidecars
//!  clock  ──▶│ tick(), names                         hello(), report() ◀─────┼─── by mutual TLS
//!            │ release(), control() ◀────────────────────────────────────────┼─── operators
//!            └───────────────────────────────────────────────────────────────┘
//!  authority ──▶ roots, the pusher's certificate ──▶ TLS       admin: /metrics, /, in plaintext
//! ```
//!
//! # Invariants
//! - The core and the authority may wait for the disk: they are called on threads that may block,
//!   the core on one of its own.
//! - Where too many connect at once they wait or are sent away; nobody who is connected does.

mod accept;
pub mod admin;
pub mod core;
pub mod http;
pub mod identity;
pub mod names;
pub mod operate;
pub mod record;
pub mod stream;
pub mod texts;
pub mod work;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ringway_tls::UnixTime;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, Semaphore};

use self::accept::CONNECTIONS_MAX;
use self::core::{Core, Roots, Settings};
use self::identity::Identity;
use self::names::Lookups;
use self::record::RecordFault;
use self::texts::Texts;
use self::work::WorkThread;
use crate::ca::{Authority, CaFault, Gate, Issued, Keys, Lives, Phase, Role};
use crate::cli::files;
use crate::model::Mesh;
use crate::source::Folder;
use crate::source::directory::{Directory, read_still};
use crate::store::{Local, Store, StoreFault};
use crate::version::PolicyHash;

/// Messages of joining sidecars that are read at once.
const JOINS_MAX: usize = 1024;
/// Certificates that are issued at once: each takes a turn at the disk, and a thread that others
/// need.
const ISSUES_MAX: usize = 4;
/// How long a request waits for its turn at most; a sidecar waits 10 s for the answer.
const TURN_WAIT_MAX: Duration = Duration::from_secs(3);
/// How long the body of a request may take.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(200);
/// How often names of endpoints are looked up.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// How often certificates, roots and a rotation are looked at, and the state is swept.
const REFRESH_EVERY: Duration = Duration::from_secs(2);
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// Sidecars of a pusher that ends come back within this time.
const MOVE_SPREAD: Duration = Duration::from_secs(30);

/// How the pusher is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of the mesh.
    pub dir: PathBuf,
    /// The folder of the state; made if it is missing.
    pub state: PathBuf,
    /// Where sidecars and operators connect.
    pub listen: SocketAddr,
    /// Where metrics and the fleet page are, in plaintext.
    pub admin: SocketAddr,
    /// What the pusher is called, for those who check names, such as curl.
    pub names: Vec<String>,
    /// Lives of certificates.
    pub lives: Lives,
    /// Releases.
    pub settings: Settings,
}

/// Why the pusher cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunFault {
    /// The folder of the mesh.
    #[error("{0}")]
    Folder(String),
    /// The state.
    #[error("{}: {error}", path.display())]
    State {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// What the store holds.
    #[error(transparent)]
    Record(#[from] RecordFault),
    /// The certificate authority.
    #[error(transparent)]
    Ca(#[from] CaFault),
    /// The pusher's own certificate.
    #[error(transparent)]
    Serving(#[from] identity::ServingFault),
    /// An address.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// Threads, signals.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

/// What has been counted since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Handshakes that failed.
    pub handshakes_failed: AtomicU64,
    /// Connections closed before the handshake because too many waited.
    pub connections_shed: AtomicU64,
    /// Requests answered with 429, and with 503 because too many waited.
    pub requests_shed: [AtomicU64; 2],
    /// Certificates issued for tokens and for certificates.
    pub issued: [AtomicU64; 2],
    /// The same refused.
    pub refused: [AtomicU64; 2],
}

/// The pusher.
pub struct Pusher {
    core: Mutex<Core>,
    core_thread: WorkThread,
    lookups: Lookups,
    /// The folder was read anew: there may be names that nobody has looked up yet.
    is_read: Notify,
    authority: Arc<Authority>,
    identity: Identity,
    roots: Mutex<Roots>,
    /// Places for the messages of those who join: anybody may send one.
    joins: Semaphore,
    /// Turns of those who get a certificate.
    issues: Semaphore,
    /// When the next handshake may begin.
    pace: accept::Pace,
    /// What has been counted.
    pub counters: Counters,
}

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Pusher {
    /// The core. What is done with it may wait for the disk.
    pub fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the core, on its thread.
    pub async fn core_work<R: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Core) -> R + Send + 'static,
    ) -> R {
        let pusher = Arc::clone(self);
        self.core_thread.run(move || work(&mut pusher.core())).await
    }

    /// Does something with the authority, on a thread that may block.
    pub async fn authority_work<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Authority) -> R + Send + 'static,
    ) -> R {
        let authority = Arc::clone(&self.authority);
        let done = tokio::task::spawn_blocking(move || work(&authority)).await;
        done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// Of the mesh.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.authority.trust_domain()
    }

    /// The roots of now.
    #[must_use]
    pub fn roots(&self) -> Roots {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a request for a certificate: `join` or `renew`.
    pub fn count_issued(&self, how: &str, issued: &Result<Issued, CaFault>) {
        let counters = if issued.is_ok() { &self.counters.issued } else { &self.counters.refused };
        counters[usize::from(how != "join")].fetch_add(1, Ordering::Relaxed);
    }

    /// Looks at certificates and roots, moves a rotation on, and tells everybody what is new.
    pub async fn refresh(self: &Arc<Self>) {
        let pusher = Arc::clone(self);
        let refreshed = tokio::task::spawn_blocking(move || {
            let now = UnixTime::now();
            pusher.advance_rotation(now);
            let roots = pusher.identity.refresh(now)?;
            *pusher.roots.lock().unwrap_or_else(PoisonError::into_inner) = roots.clone();
            pusher.core().set_roots(roots);
            pusher.cut_denied(now)?;
            Ok::<(), identity::ServingFault>(())
        });
        match refreshed.await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => tracing::error!("certificates: {fault}"),
            Err(error) => tracing::error!("certificates: {error}"),
        }
    }

    /// Ends the streams of those who are denied.
    fn cut_denied(&self, now: UnixTime) -> Result<(), CaFault> {
        if self.authority.denials(now)?.is_empty() {
            return Ok(());
        }
        let peers = self.core().peers();
        for (key, peer) in peers {
            if let Err(fault) = self.authority.check_denied(&peer.id, Some(&peer.serial), now) {
                tracing::warn!(sidecar = %key, "its stream is ended: {fault}");
                self.core().cut(&key);
            }
        }
        Ok(())
    }

    /// By how much clocks may differ, in seconds.
    #[must_use]
    pub fn skew_s(&self) -> u64 {
        self.authority.lives().skew_s()
    }

    /// One step of a rotation of the root, if one is under way and may be taken.
    fn advance_rotation(&self, now: UnixTime) {
        let moved = (|| {
            if matches!(self.authority.phase()?, Phase::Steady { .. }) {
                return Ok(());
            }
            let old = self.authority.retiring()?;
            let old_root = old.as_ref().map(|old| self.authority.root_sha256(old)).transpose()?;
            let nobody = PolicyHash::new([0; 32]);
            let root = old_root.unwrap_or(nobody);
            let gate = self.core().conductor().fleet().gate(self.roots().epoch, &root);
            // The pusher's own certificate follows at the next look.
            let own = old.is_some() && self.identity.root() == old;
            let chained = if old.is_some() { gate.chained as u64 } else { 0 };
            let gate = Gate {
                connected: gate.connected as u64,
                at_epoch: gate.at_epoch as u64,
                chained_to_old: chained + u64::from(own),
            };
            if let Ok(phase) = self.authority.advance(gate, now)? {
                tracing::info!(?phase, "rotation of the root");
            }
            Ok::<(), CaFault>(())
        })();
        if let Err(fault) = moved {
            tracing::error!("rotation of the root: {fault}");
        }
    }

    async fn resolve(self: &Arc<Self>) {
        let names = self.core_work(|core| core.names().clone()).await;
        if !names.is_empty() {
            let found = self.lookups.round(names).await;
            self.core_work(move |core| core.resolved(found)).await;
        }
    }
}

/// Runs the pusher until SIGTERM.
///
/// # Errors
/// [`RunFault`].
pub fn run(options: Options) -> Result<(), RunFault> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(options))
}

/// Raises the soft limit of open descriptors to the hard one: each connection takes one.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open descriptors stays as it is");
    }
    if let Some(maximum) = maximum.filter(|maximum| *maximum < CONNECTIONS_MAX as u64) {
        tracing::info!(maximum, "fewer connections than {CONNECTIONS_MAX} can be open at once");
    }
}

fn open(options: &Options) -> Result<Pusher, RunFault> {
    raise_descriptors();
    let state = |error| RunFault::State { path: options.state.clone(), error };
    files::make_private_folder(&options.state).map_err(state)?;
    let now = UnixTime::now();
    let store: Arc<dyn Store> = Arc::new(Local::open(&options.state.join("state.redb"))?);
    let keys = Keys::folder(&options.state.join("keys"))?;
    let mesh = Mesh::load(&options.dir, None, crate::model::Mode::Quarantine);
    let mesh = mesh.map_err(|error| RunFault::Folder(error.to_string()))?.mesh;
    let domain = mesh.trust_domain();
    let authority = Authority::open(Arc::clone(&store), keys, domain, options.lives, now)?;
    let authority = Arc::new(authority);
    let identity = Identity::new(Arc::clone(&authority), options.names.clone());
    let roots = identity.refresh(now)?;
    let texts = Texts::open(&options.state.join("policies")).map_err(state)?;
    let mut core = Core::open(store, texts, options.settings.clone(), now_ms())?;
    core.set_roots(roots.clone());
    let core = Mutex::new(core);
    Ok(Pusher {
        core,
        core_thread: WorkThread::start("core")?,
        lookups: Lookups::default(),
        is_read: Notify::new(),
        authority,
        identity,
        roots: Mutex::new(roots),
        joins: Semaphore::new(JOINS_MAX),
        issues: Semaphore::new(ISSUES_MAX),
        pace: accept::Pace::new(),
        counters: Counters::default(),
    })
}

async fn serve(options: Options) -> Result<(), RunFault> {
    let bind = |address: SocketAddr| async move {
        TcpListener::bind(address).await.map_err(|error| RunFault::Listen { address, error })
    };
    let (listener, admin) = (bind(options.listen).await?, bind(options.admin).await?);
    let opened = {
        let options = options.clone();
        tokio::task::spawn_blocking(move || open(&options)).await
    };
    let pusher =
        Arc::new(opened.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?);
    let folder = Directory::watch(&options.dir);
    let first = read_still(&options.dir).await;
    let first = first.map_err(|error| RunFault::Folder(error.to_string()))?;
    read_folder(&pusher, first).await;
    pusher.resolve().await;
    let mut operator = OperatorFiles::new(&options, listener.local_addr()?);
    if let Err(fault) = operator.renew(&pusher).await {
        tracing::error!("the operator's certificate: {fault}");
    }
    announce(&pusher, &options, listener.local_addr()?, admin.local_addr()?);
    tokio::spawn(admin::serve(admin, Arc::clone(&pusher)));
    tokio::spawn(accept::accept(listener, Arc::clone(&pusher)));
    tokio::spawn(follow(folder, Arc::clone(&pusher)));
    tokio::spawn(resolve(Arc::clone(&pusher)));
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut tick = tokio::time::interval(TICK);
    let mut refresh = tokio::time::interval(REFRESH_EVERY);
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = tick.tick() => pusher.core_work(|core| core.tick(now_ms())).await,
            _ = refresh.tick() => {
                pusher.refresh().await;
                if let Err(fault) = operator.renew(&pusher).await {
                    tracing::error!("the operator's certificate: {fault}");
                }
            }
            _ = sweep.tick() => {
                let swept = pusher.authority_work(|it| it.sweep(UnixTime::now())).await;
                if let Err(fault) = swept {
                    tracing::error!("sweep: {fault}");
                }
            }
        }
    }
    tracing::info!("ending: sidecars are asked to come back within {} s", MOVE_SPREAD.as_secs());
    pusher.core_work(|core| core.move_all(MOVE_SPREAD)).await;
    // For the frames to leave.
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(())
}

/// Takes every change of the folder. A task of its own: whoever waits for a change and stops
/// waiting loses it.
async fn follow(mut folder: Directory, pusher: Arc<Pusher>) {
    loop {
        match folder.changed().await {
            Ok(folder) => {
                read_folder(&pusher, folder).await;
                pusher.is_read.notify_one();
            }
            Err(error) => tracing::error!("{error}; what was read last stays"),
        }
    }
}

/// Looks names up from time to time and when there may be new ones. A task of its own: an answer
/// may take long.
async fn resolve(pusher: Arc<Pusher>) {
    let mut every = tokio::time::interval(RESOLVE_EVERY);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = pusher.is_read.notified() => {}
        }
        pusher.resolve().await;
    }
}

async fn read_folder(pusher: &Arc<Pusher>, folder: Folder) {
    pusher.core_work(move |core| core.take_folder(&folder, now_ms())).await;
}

/// What an operator on this machine needs, so that the command line works at once.
struct OperatorFiles {
    folder: PathBuf,
    address: SocketAddr,
    /// Second from which on the certificate is renewed, and the roots beside it.
    written: Option<(u64, Roots)>,
}

impl OperatorFiles {
    fn new(options: &Options, address: SocketAddr) -> OperatorFiles {
        let address = loopback_if_any(address);
        OperatorFiles { folder: options.state.join("operator"), address, written: None }
    }

    /// Writes them if they are not there, half of the certificate's life is over or the roots are
    /// others.
    async fn renew(&mut self, pusher: &Pusher) -> Result<(), RunFault> {
        let (now, roots) = (UnixTime::now(), pusher.roots());
        let is_fresh = |(renew_at_s, with): &(u64, Roots)| {
            now.as_secs() < *renew_at_s && with.epoch == roots.epoch
        };
        if self.written.as_ref().is_some_and(is_fresh) {
            return Ok(());
        }
        let made =
            pusher.authority_work(move |it| it.operator(Role::CaAdmin, "local", None, now)).await?;
        let pem = format!("{}{}", made.issued.chain_pem, made.key_pem.expose());
        let address = self.address.to_string();
        let written = (|| {
            files::make_private_folder(&self.folder)?;
            for (name, text) in
                [("svid.pem", &pem), ("bundle.pem", &roots.roots), ("address", &address)]
            {
                files::write_private(&self.folder.join(name), text.as_bytes())?;
            }
            Ok(())
        })();
        written.map_err(|error| RunFault::State { path: self.folder.clone(), error })?;
        self.written = Some((u64::midpoint(now.as_secs(), made.issued.until_s), roots));
        Ok(())
    }
}

/// An address that can be connected to: the loopback one in place of all of them.
fn loopback_if_any(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback = match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    address
}

fn announce(pusher: &Pusher, options: &Options, listen: SocketAddr, admin: SocketAddr) {
    let hashes = pusher.root_hashes();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %listen,
        admin = %admin,
        trust_domain = pusher.trust_domain(),
        bundle_hash = hashes.join(" "),
        dir = %options.dir.display(),
        state = %options.state.display(),
        "ringway-push is up"
    );
}

impl Pusher {
    /// SHA-256 of each root in use, as the file of a sidecar names one.
    #[must_use]
    pub fn root_hashes(&self) -> Vec<String> {
        let bundle = ringway_tls::Bundle::parse(self.roots().roots.as_bytes(), &[]);
        let roots = bundle.as_ref().map(ringway_tls::Bundle::roots).unwrap_or_default();
        roots.iter().map(|root| format!("sha256:{}", crate::ca::hex(&root.sha256))).collect()
    }
}
