//! Measurement for a thread-per-core proxy: clock, counters, HDR histograms, series tables, text.
//!
//! ```text
//! worker 0 ── record ──▶ shard 0 ─┐
//! worker 1 ── record ──▶ shard 1 ─┼─ snapshot ─▶ merge ─▶ Exposition ─▶ /metrics
//! worker n ── record ──▶ shard n ─┘        (admin thread)
//! ```
//!
//! A shard is whatever struct of [`Counter`], [`Gauge`], [`Histogram`] and [`Slots`] a worker owns.
//!
//! # Invariants
//! - One thread writes a shard; any thread reads it at any time. A write is a plain load and store,
//!   without a lock prefix; a second writer would lose counts, never memory safety.
//! - Nothing allocates in steady state: pages and chunks are allocated at first touch and kept.
//! - Everything that can grow has its maximum in [`limits`].
//!
//! # Not here
//! Which series exist and what they are called (the proxy decides), sockets, threads, forecasts.

#![forbid(unsafe_code)]

pub mod busy;
pub mod clock;
pub mod counter;
pub mod exposition;
pub mod histogram;
pub mod limits;
pub mod registry;
pub mod series;
mod slot;
pub mod snapshot;

pub use counter::{Counter, Gauge};
pub use exposition::{Exposition, Kind, Value};
pub use histogram::Histogram;
pub use registry::Registry;
pub use series::Slots;
pub use snapshot::Snapshot;
