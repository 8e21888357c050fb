//! The decisions of Ringway: which rule answers a request, which endpoint takes it, and what is
//! wrong with a file.
//!
//! ```text
//! text ──load──▶ Config ──compile──▶ Table ──route──▶ Rule ──▶ Action
//!                                      └──▶ EndpointTable ──pick──▶ Endpoint
//! ```
//!
//! # Invariants
//! - A [`Table`] is immutable; its identity is the BLAKE3 hash of the configuration's canonical
//!   form.
//! - Everything that a file can make grow has a maximum in [`limits`]; nothing that a file
//!   contains panics.
//! - [`Table::route`] and [`EndpointTable::pick`] take no lock.
//!
//! # Not here
//! Sockets, name resolution, clocks, threads: addresses and random numbers come in as arguments.

#![forbid(unsafe_code)]

mod action;
pub mod config;
mod endpoint;
mod explain;
mod foresee;
mod host;
pub mod limits;
mod load;
mod path;
mod problem;
pub mod read;
mod source;
mod table;

pub use action::{Action, Backends, HeaderEdits, PathRewrite, Redirect, Respond, Rewrite, Target};
pub use config::canonical::TableHash;
pub use config::control::ControlConfig;
pub use config::file::to_file;
pub use config::http2::Http2Config;
pub use config::tls::{Mtls, TlsVersion};
pub use config::{Balance, ClusterProtocol, Config, Discovery, Protocol, ProxyProtocolVersion};
pub use endpoint::{Addresses, Endpoint, EndpointLoad, EndpointSlot, EndpointTable, InFlight};
pub use explain::{Explanation, explain};
pub use foresee::{Foreseen, PartialKey, foresee};
pub use host::without_port;
pub use load::{Loaded, load, load_table};
pub use path::{Normalised, PathError, normalise_path};
pub use problem::{Problem, Problems, Severity};
pub use source::Format;
pub use table::{
    Cluster, ClusterId, ClusterTls, Drain, EndpointName, Field, IdentityFiles, Listener,
    ListenerId, ListenerTls, PairFiles, RequestKey, RootsFile, RouteId, Rule, RuleId, SniRoutes,
    Table,
};
