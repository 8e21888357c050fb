//! Looks up the names of endpoints with the system's resolver.
//!
//! A look-up that nobody answers keeps a thread for as long as the system's resolver waits, and
//! cannot be ended: there are at most 64 at once, also of earlier rounds.

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use ringway_router::{Addresses, Table};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};

/// Look-ups at once.
const LOOKUPS_MAX: usize = 64;
static TURNS: Semaphore = Semaphore::const_new(LOOKUPS_MAX);

/// How long all look-ups of one round may take together.
const ROUND_TIME: Duration = Duration::from_secs(2);

/// Looks up every name of `table`. Answers go into `known`; a name without one keeps what it had.
/// Returns whether anything changed, and the names that had no answer.
pub async fn round(table: &Table, known: &mut Addresses) -> (bool, Vec<String>) {
    let mut lookups = JoinSet::new();
    let mut waiting: BTreeSet<String> =
        Addresses::names(table).into_iter().map(str::to_owned).collect();
    // In another order each time: names without an answer take no turn from others for ever.
    let mut names: Vec<String> = waiting.iter().cloned().collect();
    fastrand::shuffle(&mut names);
    for name in names {
        lookups.spawn(async move {
            let turn = TURNS.acquire().await.ok()?;
            let looked = spawn_blocking(move || {
                let found = name.to_socket_addrs().ok().map(|found| (name, found.collect()));
                drop(turn);
                found
            });
            looked.await.ok().flatten()
        });
    }
    let mut changed = false;
    let mut collect = async || {
        while let Some(looked) = lookups.join_next().await {
            let Some((name, addresses)): Option<(String, Vec<SocketAddr>)> = looked.ok().flatten()
            else {
                continue;
            };
            if !addresses.is_empty() {
                waiting.remove(&name);
                changed |= known.resolved(&name, addresses);
            }
        }
    };
    let _ = tokio::time::timeout(ROUND_TIME, collect()).await;
    (changed, waiting.into_iter().collect())
}
