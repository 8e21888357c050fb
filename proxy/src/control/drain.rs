//! The orderly end of the process.
//!
//! ```text
//! SIGTERM ─▶ /ready 503, Connection: close ─▶ delay ─▶ listeners close, idle connections close
//!         ─▶ until no connection is left, or the timeout
//! ```

use std::time::Duration;

use super::reload::Reloader;
use crate::shared::Shared;
use crate::worker::mailbox::Message;

/// How often the number of connections is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Drains. Returns when the process may end.
pub async fn run(reloader: &Reloader, shared: &Shared) {
    let drain = shared.current().table.drain();
    tracing::info!(delay = ?drain.delay, timeout = ?drain.timeout, "draining");
    shared.start_draining();
    let end = tokio::time::Instant::now() + drain.timeout;
    tokio::time::sleep(drain.delay.min(drain.timeout)).await;
    for instance in reloader.instances() {
        post(shared, || Message::StopListening(instance)).await;
    }
    post(shared, || Message::CloseIdle).await;
    while shared.open_connections() > 0 && tokio::time::Instant::now() < end {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let left = shared.open_connections();
    if left > 0 {
        tracing::warn!(connections = left, "drain timeout, closing what is left");
    } else {
        tracing::info!("drained");
    }
}

/// Leaves a message with every worker, waiting for room if a mailbox is full.
pub async fn post(shared: &Shared, message: impl Fn() -> Message) {
    for seat in &shared.seats {
        let mut waiting = message();
        while let Err(back) = seat.mailbox.post(waiting) {
            waiting = back;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
