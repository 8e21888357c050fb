//! The control thread: the file, names, signals. Everything that may block or take long.
//!
//! ```text
//! file event ─┐
//! SIGHUP ─────┼─▶ reload ─▶ load, compile, resolve, bind ─▶ publish ─▶ workers
//! pusher ─────┤                                               │
//! 10 s, 30 s ─┘   rotate ─▶ certificate files ────────────────┘
//!                                      │ problem
//! SIGTERM ─▶ drain ─▶ end              └─▶ the old table stays; status says why
//! ```
//!
//! # Invariants
//! - A file takes effect whole or not at all.
//! - The control thread never touches a connection.

pub mod credentials;
pub mod drain;
pub mod port_owner;
pub mod push;
pub mod reload;
pub mod resolve;
pub mod status;
pub mod watch;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::push::session::Session;
use self::push::state::{Boot, StateDir};
use self::push::{Order, Orders, Settings, SharedState};
use self::reload::Reloader;
use self::status::Status;
use crate::shared::Shared;

/// How often names are looked up again.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);

/// Runs until the process is to end. Returns once it has drained, or at once when told twice.
///
/// # Errors
/// When signals or the runtime cannot be set up.
pub fn run(reloader: Reloader, shared: &Arc<Shared>, pusher: Option<Pusher>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(serve(reloader, shared, pusher));
    // A name that is being looked up must not hold the end up.
    runtime.shutdown_background();
    served
}

/// The pusher of a sidecar that has one.
pub struct Pusher {
    /// What its file says.
    pub settings: Settings,
    /// What outlives the process.
    pub state: SharedState,
    /// What the start found there.
    pub boot: Boot,
    /// Whether the policy that was found is in use.
    pub applied: bool,
}

impl Pusher {
    /// Starts the conversation: where its orders come out.
    fn start(self, reloader: &Reloader, shared: &Arc<Shared>) -> mpsc::Receiver<Order> {
        let (orders, given) = Orders::new();
        let (status, shared) = (reloader.status(), Arc::clone(shared));
        let found = (self.boot, self.applied);
        let session = Session::new(self.settings, self.state, orders, status, shared, found);
        tokio::spawn(session.run());
        given
    }
}

/// The next order; waits for ever where there is no pusher.
async fn next_order(given: &mut Option<mpsc::Receiver<Order>>) -> Option<Order> {
    match given {
        Some(given) => given.recv().await,
        None => std::future::pending().await,
    }
}

async fn serve(
    mut reloader: Reloader,
    shared: &Arc<Shared>,
    pusher: Option<Pusher>,
) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (changed, mut changes) = mpsc::channel(watch::EVENTS_MAX);
    let mut watcher = watch::start(reloader.path(), changed);
    // The file may have changed between the first reading and the watch.
    look(&mut reloader, shared, &mut watcher, false).await;
    let state = pusher.as_ref().map(|pusher| pusher.state.clone());
    let mut given = pusher.map(|pusher| pusher.start(&reloader, shared));
    let mut resolve = tokio::time::interval(RESOLVE_INTERVAL);
    resolve.reset();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => look(&mut reloader, shared, &mut watcher, true).await,
            Some(change) = changes.recv() => {
                watch::settle(change, &mut changes).await;
                look(&mut reloader, shared, &mut watcher, false).await;
            }
            _ = resolve.tick() => reloader.resolve(shared).await,
            order = next_order(&mut given) => match order {
                Some(order) => {
                    reloader.obey(order, shared).await;
                    watcher.follow(&reloader.credential_folders());
                }
                None => {
                    given = None;
                    lost_session(&reloader.status());
                }
            }
        }
    }
    if let Some(error) = state.and_then(|state| state.with(StateDir::end).err()) {
        tracing::error!("the next start will take this end for a crash: {error}");
    }
    tokio::select! {
        () = drain::run(&reloader, shared) => {}
        _ = terminate.recv() => tracing::warn!("told twice, ending at once"),
        _ = interrupt.recv() => tracing::warn!("told twice, ending at once"),
    }
    Ok(())
}

/// Says that nobody talks to the pusher any more, which only a defect does.
fn lost_session(status: &Status) {
    let problem = "the session has ended, until the process is started anew";
    tracing::error!("pusher: {problem}");
    status.update_push(|push| {
        push.connected = false;
        push.problem = Some(problem.to_owned());
    });
}

/// Looks at the file and at the certificate files. The folders are followed before the files in
/// them are looked at: what changes in between is seen by one or the other.
async fn look(reloader: &mut Reloader, shared: &Shared, watcher: &mut watch::Watch, force: bool) {
    reloader.reload(shared, force).await;
    watcher.follow(&reloader.credential_folders());
    reloader.rotate(shared).await;
}
