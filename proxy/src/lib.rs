//! The Ringway sidecar: a thread-per-core proxy that reads a static file.
//!
//! ```text
//! cli ─▶ run ─▶ control thread   file, names, signals ─▶ shared ─▶ worker threads
//!           └─▶ admin thread     metrics, readiness        ▲            │
//!                                                          └── shards ──┘
//! worker: accept ─▶ connection ─▶ http1 | tunnel ─▶ upstream
//! ```
//! The crate is a library only so that its tests and fuzz targets can reach its parts; nothing
//! here is a stable interface.

#![deny(unsafe_code)]

pub mod admin;
pub mod cli;
pub mod connection;
pub mod control;
pub mod detect;
pub mod health;
pub mod http1;
pub mod http2;
pub mod io;
pub mod limits;
pub mod logging;
pub mod outcome;
pub mod passthrough;
pub mod proxy_protocol;
pub mod recorder;
pub mod run;
pub mod sample;
pub mod shared;
#[allow(unsafe_code)]
pub mod sys;
pub mod tls;
pub mod tunnel;
pub mod upstream;
pub mod worker;
