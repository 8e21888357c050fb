//! Starting the proxy, in the one order that leaves nothing half done.
//!
//! ```text
//! backend ─▶ read, compile, resolve ─▶ bind admin and listeners ─▶ workers ─▶ accept ─▶ control
//! ```
//!
//! # Invariants
//! - Nothing is accepted before everything that can fail has succeeded.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use ringway_protocol::limits::SAMPLE_KEYS_MAX;
use thiserror::Error;

use crate::admin;
use crate::control;
use crate::control::Pusher;
use crate::control::push::state::{StateDir, StateError};
use crate::control::push::{Settings, SharedState};
use crate::control::reload::{Delivery, Rejection, Reloader, Start};
use crate::io::backend::{self, Backend};
use crate::sample::Reservoir;
use crate::shared::{PlaintextPeers, Seat, Shared};
use crate::worker;
use crate::worker::mailbox::Mailbox;

/// Where the admin interface is when the file does not say.
pub const ADMIN_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4191);

/// What the command line asks for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file.
    pub config: PathBuf,
    /// The backend.
    pub backend: backend::Request,
    /// Number of workers; by itself if not given.
    pub workers: Option<usize>,
    /// Whether each worker stays on one processor.
    pub pin: bool,
}

/// Why the proxy cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The file.
    #[error("{0}")]
    Config(#[from] Rejection),
    /// The backend that was asked for.
    #[error("io_uring was asked for and is refused: {0} (is it blocked by a seccomp profile?)")]
    Backend(io::Error),
    /// The admin address.
    #[error("the admin interface cannot listen on {address}: {error}")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// What the file says of the pusher.
    #[error("control: {0}")]
    Pusher(String),
    /// The state folder.
    #[error("{0}")]
    State(StateError),
    /// Threads, descriptors, memory.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

/// Runs the proxy until it is told to end.
///
/// # Errors
/// When it cannot start.
pub fn run(options: Options) -> Result<(), StartError> {
    raise_descriptor_limit();
    let (backend, refusal) = backend::choose(options.backend).map_err(StartError::Backend)?;
    if let Some(error) = refusal {
        tracing::warn!(%error, "io_uring is refused, using epoll");
    }
    let placement = worker::placement::decide(options.workers, options.pin);
    let mut reloader = Reloader::new(options.config, placement.workers());
    let (start, pusher) = first(&mut reloader)?;
    let (running, deliveries) = start;
    let (admin_listener, admin_address) = bind_admin(running.table.admin())?;
    let is_sampled = pusher.as_ref().is_some_and(|pusher| pusher.settings.samples);
    let seats = seats(placement.workers(), is_sampled)?;
    let shared = Arc::new(Shared::new(backend, seats, running));
    for delivery in deliveries {
        // A fresh mailbox has room for far more listeners than a file may have.
        let _ = shared.seats[delivery.worker].mailbox.post(delivery.message);
    }
    admin::start(admin_listener, &shared, &reloader)?;
    placement.start(&shared)?;
    announce(&shared, &reloader, admin_address);
    calibrate_clock()?;
    control::run(reloader, &shared, pusher)?;
    Ok(())
}

type First = (crate::shared::Running, Vec<Delivery>);

/// The first table: of the file, or, where it names a pusher, of what that has sent last.
fn first(reloader: &mut Reloader) -> Result<(First, Option<Pusher>), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let first = first_in(&runtime, reloader);
    // A name that is being looked up must not hold the start up.
    runtime.shutdown_background();
    first
}

fn first_in(
    runtime: &tokio::runtime::Runtime,
    reloader: &mut Reloader,
) -> Result<(First, Option<Pusher>), StartError> {
    let (table, loaded) = reloader.read_own()?;
    let Some(control) = table.control() else {
        return Ok((runtime.block_on(reloader.first((table, loaded)))?, None));
    };
    let settings = Settings::of(control, reloader.path()).map_err(StartError::Pusher)?;
    let mut state = StateDir::open(&settings.state_dir).map_err(StartError::State)?;
    let boot = state.boot();
    let (policy, endpoints) = (boot.policy.as_ref(), state.endpoints());
    let start = reloader.first_pushed(table, &settings.state_dir, policy, &endpoints);
    let Start { running, deliveries, applied } = runtime.block_on(start)?;
    let state = SharedState::new(state);
    Ok(((running, deliveries), Some(Pusher { settings, state, boot, applied })))
}

/// One for each worker; together they keep as many samples as fit into a message, or none.
fn seats(workers: usize, is_sampled: bool) -> io::Result<Vec<Seat>> {
    let samples = if is_sampled { SAMPLE_KEYS_MAX.div_ceil(workers.max(1)) } else { 0 };
    let seat = |_| {
        Ok(Seat {
            mailbox: Mailbox::new()?,
            shard: Arc::default(),
            load: Default::default(),
            plaintext: PlaintextPeers::default(),
            samples: Reservoir::new(samples),
        })
    };
    (0..workers).map(seat).collect()
}

fn bind_admin(wanted: Option<SocketAddr>) -> Result<(TcpListener, SocketAddr), StartError> {
    let address = wanted.unwrap_or(ADMIN_DEFAULT);
    let refused = |error| StartError::Admin { address, error };
    let listener = TcpListener::bind(address).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

/// The one line that says what has started.
fn announce(shared: &Shared, reloader: &Reloader, admin: SocketAddr) {
    let running = shared.current();
    let listeners: Vec<String> = reloader
        .listening(&running.table)
        .into_iter()
        .map(|(name, address)| format!("{name}={address}"))
        .collect();
    tracing::info!(
        version = crate::cli::VERSION,
        backend = %shared.backend,
        workers = shared.seats.len(),
        listeners = listeners.join(" "),
        admin = %admin,
        routes = running.table.route_count(),
        table = %running.table.hash().short(),
        "ringway is up"
    );
    if shared.backend == Backend::Epoll {
        tracing::debug!("epoll: one system call per read and write");
    }
}

/// As many descriptors as the system allows us: a proxy needs two for each connection.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "cannot raise the limit of descriptors");
        }
    }
}

/// Measuring the processor's clock takes a while; until then the kernel's is read.
fn calibrate_clock() -> io::Result<()> {
    let builder = std::thread::Builder::new().name("ringway-clock".into());
    builder.spawn(ringway_stats::clock::calibrate)?;
    Ok(())
}
