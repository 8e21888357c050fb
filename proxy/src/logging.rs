//! Logs: for people on a terminal, JSON lines elsewhere, never in the way of a worker.
//!
//! # Invariants
//! - Writing happens on a thread of its own. When it cannot keep up lines are dropped and counted,
//!   and nobody waits.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

/// Lines that may wait to be written.
const LINES_WAITING_MAX: usize = 8192;

/// Keeps the log thread alive; dropped, it writes what is left.
pub struct Logging {
    _guard: WorkerGuard,
}

/// The log is the process's, and so is the count of what it lost.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines that were dropped since the start.
#[must_use]
pub fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

/// Starts logging to standard error.
#[must_use]
pub fn start(level: LevelFilter) -> Logging {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_WAITING_MAX)
        .lossy(true)
        .thread_name("ringway-log")
        .finish(std::io::stderr());
    DROPPED.get_or_init(|| writer.error_counter());
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(writer)
        .with_ansi(terminal && std::env::var_os("NO_COLOR").is_none())
        .with_target(false);
    // The h2 crate speaks of each frame at `debug`, which costs more than the frame.
    let of_h2 = level.min(LevelFilter::WARN);
    let filter = Targets::new().with_default(level).with_target("h2", of_h2);
    let set = if terminal {
        tracing::subscriber::set_global_default(builder.compact().finish().with(filter))
    } else {
        let builder = builder.json().flatten_event(true);
        tracing::subscriber::set_global_default(builder.finish().with(filter))
    };
    if set.is_err() {
        eprintln!("ringway: logging was started twice");
    }
    Logging { _guard: guard }
}
