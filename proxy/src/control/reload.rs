//! From the bytes of the file to a published table.
//!
//! # Invariants
//! - Everything that can fail happens before anything changes: reading, compiling, binding.
//! - An address that stays keeps its socket, its instance and its connections.
//! - The series of a name keep their ids for the life of the process.

mod pushed;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_router::{Addresses, EndpointTable, Format, Listener, Loaded, Table, load_table};
use ringway_stats::Registry;
use ringway_tls::UnixTime;
use thiserror::Error;

use super::credentials::{CredentialFault, Looked, Store};
use super::drain::post;
use super::port_owner::{self, Owner};
use super::resolve;
use super::status::Status;
use crate::io::listen::{self, Group};
use crate::limits::SERIES_MAX;
use crate::shared::{Instance, Running, Shared};
use crate::tls::credentials::Credentials;
use crate::worker::mailbox::Message;

pub use self::pushed::Start;

/// How long a port that nobody else has is waited for, and how often it is tried.
const BIND_PATIENCE: Duration = Duration::from_secs(1);
const BIND_INTERVAL: Duration = Duration::from_millis(10);

/// Why a file was not taken.
#[derive(Debug, Error)]
pub enum Rejection {
    /// It cannot be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// It is not a valid configuration.
    #[error("{path} is not valid:\n{problems}")]
    Invalid {
        /// The file.
        path: String,
        /// What is wrong with it.
        problems: ringway_router::Problems,
    },
    /// The certificate files that it names cannot be used.
    #[error("{path}: certificate files:\n{}", lines(.faults))]
    Credentials {
        /// The file.
        path: String,
        /// What is wrong with them.
        faults: Vec<CredentialFault>,
    },
    /// An address cannot be listened on.
    #[error("listener `{name}` cannot listen on {address}: {error}{}", hint(.error, .owner))]
    Bind {
        /// The listener.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
        /// Who has the port, if that is why and it can be told.
        owner: Option<Owner>,
    },
}

fn lines(faults: &[CredentialFault]) -> String {
    let lines: Vec<String> = faults.iter().map(|fault| format!("  {fault}")).collect();
    lines.join("\n")
}

fn hint(error: &io::Error, owner: &Option<Owner>) -> String {
    match (error.kind(), owner) {
        (_, Some(Owner { pid, name })) => format!(" (`{name}`, process {pid}, has the port)"),
        (io::ErrorKind::AddrInUse, None) => " (another socket has the port)".into(),
        (io::ErrorKind::PermissionDenied, None) => {
            " (ports below 1024 need CAP_NET_BIND_SERVICE)".into()
        }
        (io::ErrorKind::AddrNotAvailable, None) => " (no interface has this address)".into(),
        (_, None) => String::new(),
    }
}

/// Reads and compiles a file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn compile(path: &Path, bytes: &[u8]) -> Result<(Table, Loaded), Rejection> {
    let shown = || path.display().to_string();
    let text = std::str::from_utf8(bytes).map_err(|error| Rejection::Unreadable {
        path: shown(),
        error: io::Error::new(io::ErrorKind::InvalidData, error),
    })?;
    let invalid = |problems| Rejection::Invalid { path: shown(), problems };
    load_table(text, Format::from_path(path)).map_err(invalid)
}

/// Reads the bytes of a file.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, Rejection> {
    std::fs::read(path)
        .map_err(|error| Rejection::Unreadable { path: path.display().to_string(), error })
}

/// What a listening address is known by: itself, or the listener's name when any port will do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Address(SocketAddr),
    AnyPort(SocketAddr, Box<str>),
}

impl Key {
    fn of(listener: &Listener) -> Self {
        match listener.address.port() {
            0 => Self::AnyPort(listener.address, listener.name.clone()),
            _ => Self::Address(listener.address),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bound {
    instance: Instance,
    address: SocketAddr,
}

/// The names that have series.
#[derive(Debug)]
pub struct Registries {
    /// Routes.
    pub routes: Registry,
    /// Clusters.
    pub clusters: Registry,
    /// Listeners.
    pub listeners: Registry,
}

impl Default for Registries {
    fn default() -> Self {
        Self {
            routes: Registry::new(SERIES_MAX),
            clusters: Registry::new(SERIES_MAX),
            listeners: Registry::new(SERIES_MAX),
        }
    }
}

/// A listening socket on its way to its worker.
pub struct Delivery {
    /// The worker.
    pub worker: usize,
    /// The message for it.
    pub message: Message,
}

/// Applies files.
pub struct Reloader {
    path: PathBuf,
    workers: usize,
    /// A fingerprint of the bytes tried last, good or bad.
    seen: u64,
    bound: HashMap<Key, Bound>,
    next_instance: u32,
    addresses: Addresses,
    credentials: Store,
    /// The file's own table where a pusher says what is done: it has no listeners.
    own: Option<Table>,
    /// Fingerprint of the bundle that was in use last.
    trusted: Option<[u8; 32]>,
    registries: Arc<std::sync::Mutex<Registries>>,
    status: Arc<Status>,
}

/// What a file changes beside the table.
struct Sockets {
    fresh: Vec<(Key, Group, Instance, Box<str>)>,
    gone: Vec<(Key, Instance)>,
}

impl Reloader {
    /// A reloader for `path` that has applied nothing yet.
    #[must_use]
    pub fn new(path: PathBuf, workers: usize) -> Self {
        Self {
            credentials: Store::new(&path),
            own: None,
            trusted: None,
            path,
            workers,
            seen: 0,
            bound: HashMap::new(),
            next_instance: 0,
            addresses: Addresses::new(),
            registries: Arc::default(),
            status: Arc::default(),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folders of the certificate files in use.
    #[must_use]
    pub fn credential_folders(&self) -> Vec<PathBuf> {
        self.credentials.folders()
    }

    /// What the admin thread may know.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// The names of the series.
    #[must_use]
    pub fn registries(&self) -> Arc<std::sync::Mutex<Registries>> {
        Arc::clone(&self.registries)
    }

    /// Every instance that is listened on.
    pub fn instances(&self) -> impl Iterator<Item = Instance> {
        self.bound.values().map(|bound| bound.instance)
    }

    /// The address that each listener of `table` is bound to, with its name.
    #[must_use]
    pub fn listening(&self, table: &Table) -> Vec<(String, SocketAddr)> {
        let bound = |listener: &Listener| {
            let bound = self.bound.get(&Key::of(listener))?;
            Some((listener.name.to_string(), bound.address))
        };
        table.listeners().iter().filter_map(bound).collect()
    }

    /// The first table of the process, of its file, and the sockets for its workers.
    ///
    /// # Errors
    /// Everything that is wrong with the file or its addresses.
    pub async fn first(
        &mut self,
        (table, loaded): (Table, Loaded),
    ) -> Result<(Running, Vec<Delivery>), Rejection> {
        for warning in &loaded.warnings {
            tracing::warn!("{}: {warning}", self.path.display());
        }
        self.begin(table).await
    }

    /// Reads and compiles the file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read_own(&mut self) -> Result<(Table, Loaded), Rejection> {
        let bytes = read(&self.path)?;
        self.seen = fingerprint(&bytes);
        compile(&self.path, &bytes)
    }

    /// The first table of the process.
    async fn begin(&mut self, table: Table) -> Result<(Running, Vec<Delivery>), Rejection> {
        let started = Instant::now();
        let credentials = self.load_credentials(&table)?;
        let sockets = self.bind(&table).await?;
        let (_, unresolved) = resolve::round(&table, &mut self.addresses).await;
        let deliveries = self.settle(sockets).0;
        self.credentials.keep_only(&table);
        self.show_credentials(Looked::default());
        self.trust_changed(&credentials);
        self.credentials.publish();
        let running = self.running(table, credentials, None);
        self.applied(started, unresolved);
        Ok((running, deliveries))
    }

    /// Looks at the file and applies it. Without `force` only if its bytes have changed.
    pub async fn reload(&mut self, shared: &Shared, force: bool) {
        let started = Instant::now();
        match self.attempt(shared, force).await {
            Ok(Some(unresolved)) => self.announce(shared, started, unresolved),
            Ok(None) => {}
            Err(rejection) => {
                self.credentials.keep_only(&shared.current().table);
                self.show_credentials(Looked::default());
                let table = shared.current().table.hash().short().to_string();
                tracing::error!(table, "configuration rejected, the old one stays: {rejection}");
                self.status.update(|status| {
                    status.rejected += 1;
                    status.problem = Some(rejection.to_string());
                });
            }
        }
    }

    async fn attempt(
        &mut self,
        shared: &Shared,
        force: bool,
    ) -> Result<Option<Vec<String>>, Rejection> {
        let bytes = read(&self.path)?;
        let seen = fingerprint(&bytes);
        if seen == self.seen && !force {
            return Ok(None);
        }
        self.seen = seen;
        let (table, loaded) = compile(&self.path, &bytes)?;
        for warning in &loaded.warnings {
            tracing::warn!("{}: {warning}", self.path.display());
        }
        if table.admin() != shared.current().table.admin() {
            tracing::warn!("a new admin address takes effect at the next start");
        }
        if let Some(own) = &self.own {
            if table.hash() != own.hash() {
                tracing::warn!("changes of this file take effect at the next start");
            }
            return Ok(None);
        }
        if table.control().is_some() {
            tracing::warn!("`control` takes effect at the next start");
            return Ok(None);
        }
        self.put(shared, table).await.map(Some)
    }

    /// Puts a table in use. Returns the names that could not be resolved.
    async fn put(&mut self, shared: &Shared, table: Table) -> Result<Vec<String>, Rejection> {
        let credentials = self.load_credentials(&table)?;
        let sockets = self.bind(&table).await?;
        let (_, unresolved) = resolve::round(&table, &mut self.addresses).await;
        self.addresses.retain(&table);
        let (deliveries, gone) = self.settle(sockets);
        let current = shared.current();
        self.credentials.keep_only(&table);
        self.show_credentials(Looked::default());
        let distrust = self.trust_changed(&credentials);
        let next = self.running(table, credentials, Some(&current));
        shared.publish(next);
        self.credentials.publish();
        for Delivery { worker, message } in deliveries {
            deliver(shared, worker, message).await;
        }
        for instance in gone {
            post(shared, || Message::StopListening(instance)).await;
        }
        post(shared, || Message::Refresh).await;
        if distrust {
            post(shared, || Message::Distrust).await;
        }
        Ok(unresolved)
    }

    /// What the workers of `table` make TLS connections with.
    fn load_credentials(&mut self, table: &Table) -> Result<Credentials, Rejection> {
        let loaded = self.credentials.load(table);
        let path = || self.path.display().to_string();
        loaded.map_err(|faults| Rejection::Credentials { path: path(), faults })
    }

    /// Looks whether certificate files have changed, and publishes what is new.
    pub async fn rotate(&mut self, shared: &Shared) {
        let looked = self.credentials.refresh();
        let now_s = UnixTime::now().as_secs().cast_signed();
        self.credentials.warn_of_expiry(now_s);
        if self.credentials.is_ahead() {
            let current = shared.current();
            match self.credentials.make(&current.table) {
                Ok(credentials) => {
                    let distrust = self.trust_changed(&credentials);
                    let generation = credentials.generation;
                    let credentials = Arc::new(credentials);
                    let endpoints = self.endpoints(&current.table, Some(&current));
                    shared.publish(Running { credentials, ..current.successor(endpoints) });
                    self.credentials.publish();
                    post(shared, || Message::Refresh).await;
                    if distrust {
                        post(shared, || Message::Distrust).await;
                    }
                    tracing::info!(generation, "certificates taken");
                }
                Err(faults) => {
                    tracing::error!("certificates cannot be used:\n{}", lines(&faults));
                }
            }
        }
        self.show_credentials(looked);
    }

    /// Whether peers that were trusted may be trusted no more: the bundle is not the one that was
    /// in use last, however long ago.
    fn trust_changed(&mut self, credentials: &Credentials) -> bool {
        let Some(bundle) = &credentials.bundle else { return false };
        let trusted = bundle.fingerprint();
        self.trusted.replace(trusted).is_some_and(|before| before != trusted)
    }

    fn show_credentials(&self, looked: Looked) {
        let store = &self.credentials;
        self.status.update(|status| {
            let shown = &mut status.credentials;
            shown.generation = store.generation();
            shown.taken += u64::from(looked.taken);
            shown.refused += u64::from(looked.refused);
            shown.problems = store.problems();
            shown.shown = store.shown();
        });
    }

    /// Looks the names up again and publishes what has changed.
    pub async fn resolve(&mut self, shared: &Shared) {
        let current = shared.current();
        let (changed, unresolved) = resolve::round(&current.table, &mut self.addresses).await;
        self.status.update(|status| status.unresolved = unresolved);
        if changed {
            let endpoints = self.endpoints(&current.table, Some(&current));
            shared.publish(current.successor(endpoints));
            post(shared, || Message::Refresh).await;
            tracing::info!("endpoint addresses changed");
        }
    }

    fn announce(&self, shared: &Shared, started: Instant, unresolved: Vec<String>) {
        self.applied(started, unresolved);
        let running = shared.current();
        tracing::info!(
            table = %running.table.hash().short(),
            generation = running.generation,
            routes = running.table.route_count(),
            took = ?started.elapsed(),
            "configuration applied"
        );
    }

    fn applied(&self, started: Instant, unresolved: Vec<String>) {
        for name in &unresolved {
            tracing::warn!(name, "cannot be resolved");
        }
        self.status.update(|status| {
            status.applied += 1;
            status.problem = None;
            status.last_reload = started.elapsed();
            status.unresolved = unresolved;
        });
    }

    /// Binds one address. A port that nobody else has is tried again for a moment: the kernel
    /// closes the sockets of a ring after the process that had them is gone, and a worker closes
    /// those of a removed listener in its own time.
    async fn bind_one(&self, listener: &Listener) -> Result<Group, Rejection> {
        let address = listener.address;
        let end = Instant::now() + BIND_PATIENCE;
        loop {
            let error = match listen::bind(address, self.workers) {
                Ok(group) => return Ok(group),
                Err(error) => error,
            };
            let taken = error.kind() == io::ErrorKind::AddrInUse;
            let owner = taken.then(|| port_owner::find(address)).flatten();
            let ours = owner.as_ref().is_none_or(|owner| owner.pid == std::process::id());
            if !(taken && ours && Instant::now() < end) {
                let name = listener.name.to_string();
                return Err(Rejection::Bind { name, address, error, owner });
            }
            tokio::time::sleep(BIND_INTERVAL).await;
        }
    }

    /// Binds what the table listens on and the process does not yet.
    async fn bind(&self, table: &Table) -> Result<Sockets, Rejection> {
        let mut fresh = Vec::new();
        let mut next = self.next_instance;
        for listener in table.listeners() {
            let key = Key::of(listener);
            if self.bound.contains_key(&key) {
                continue;
            }
            let group = self.bind_one(listener).await?;
            fresh.push((key, group, Instance(next), listener.name.clone()));
            next += 1;
        }
        let wanted: Vec<Key> = table.listeners().iter().map(Key::of).collect();
        let unwanted = self.bound.iter().filter(|(key, _)| !wanted.contains(key));
        let gone = unwanted.map(|(key, bound)| (key.clone(), bound.instance)).collect();
        Ok(Sockets { fresh, gone })
    }

    /// Takes note of what was bound, and makes the messages that bring it to the workers.
    fn settle(&mut self, sockets: Sockets) -> (Vec<Delivery>, Vec<Instance>) {
        let mut deliveries = Vec::new();
        for (key, group, instance, name) in sockets.fresh {
            self.next_instance = instance.0 + 1;
            let series = self.with_registries(|registries| registries.listeners.id(&name));
            tracing::info!(listener = &*name, address = %group.address, "listening");
            self.bound.insert(key, Bound { instance, address: group.address });
            let listen = |(worker, fd): (usize, OwnedFd)| Delivery {
                worker,
                message: Message::Listen { instance, series, fd },
            };
            deliveries.extend(group.sockets.into_iter().enumerate().map(listen));
        }
        let mut gone = Vec::new();
        for (key, instance) in sockets.gone {
            self.bound.remove(&key);
            gone.push(instance);
        }
        (deliveries, gone)
    }

    /// Where the clusters of `table` are, with the load cells that are known already.
    fn endpoints(&self, table: &Table, previous: Option<&Running>) -> EndpointTable {
        EndpointTable::build(table, &self.addresses, previous.map(|running| &running.endpoints))
    }

    fn running(
        &self,
        table: Table,
        credentials: Credentials,
        previous: Option<&Running>,
    ) -> Running {
        let endpoints = self.endpoints(&table, previous);
        let mut listener_of = vec![None; self.next_instance as usize];
        for (listener, id) in table.listeners().iter().zip(table.listener_ids()) {
            if let Some(bound) = self.bound.get(&Key::of(listener)) {
                listener_of[bound.instance.0 as usize] = Some(id);
            }
        }
        let (route_series, cluster_series) = self.with_registries(|registries| {
            let routes = table.route_ids().map(|id| registries.routes.id(table.route_name(id)));
            let routes = routes.collect();
            let clusters = table.clusters().iter();
            (routes, clusters.map(|cluster| registries.clusters.id(&cluster.name)).collect())
        });
        Running {
            generation: previous.map_or(1, |running| running.generation + 1),
            table: Arc::new(table),
            endpoints,
            route_series,
            cluster_series,
            credentials: Arc::new(credentials),
            listener_of: listener_of.into(),
        }
    }

    fn with_registries<R>(&self, change: impl FnOnce(&mut Registries) -> R) -> R {
        change(&mut self.registries.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hasher::write(&mut hasher, bytes);
    std::hash::Hasher::finish(&hasher)
}

async fn deliver(shared: &Shared, worker: usize, message: Message) {
    let mut waiting = message;
    while let Err(back) = shared.seats[worker].mailbox.post(waiting) {
        waiting = back;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
