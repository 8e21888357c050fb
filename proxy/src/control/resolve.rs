//! Looks up the names of endpoints with the system's resolver.

use std::net::SocketAddr;
use std::time::Duration;

use ringway_router::{Addresses, Table};
use tokio::task::JoinSet;

/// How long all look-ups of one round may take together.
const ROUND_TIME: Duration = Duration::from_secs(2);

/// Looks up every name of `table`. Answers go into `known`; a name without one keeps what it had.
/// Returns whether anything changed, and the names that had no answer.
pub async fn round(table: &Table, known: &mut Addresses) -> (bool, Vec<String>) {
    let mut lookups = JoinSet::new();
    let mut waiting: Vec<String> = Addresses::names(table).into_iter().map(str::to_owned).collect();
    for name in waiting.clone() {
        lookups.spawn(async move {
            let found = tokio::net::lookup_host(&name).await;
            let addresses: Vec<SocketAddr> = found.map(Iterator::collect).unwrap_or_default();
            (name, addresses)
        });
    }
    let mut changed = false;
    let mut collect = async || {
        while let Some(Ok((name, addresses))) = lookups.join_next().await {
            if !addresses.is_empty() {
                waiting.retain(|other| *other != name);
                changed |= known.resolved(&name, addresses);
            }
        }
    };
    let _ = tokio::time::timeout(ROUND_TIME, collect()).await;
    (changed, waiting)
}
