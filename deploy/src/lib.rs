//! The config pusher: from a folder of services, workloads and routes to what each sidecar runs.
//!
//! ```text
//! folder ─▶ model ─▶ compile ─▶ release ─▶ rollout ─▶ server ═▶ sidecars
//!           (quarantine)  (per class)      (canary, steps)   ◀═ reports
//! ```
#![forbid(unsafe_code)]

pub mod ca;
pub mod cli;
pub mod compile;
pub mod conductor;
pub mod diagnostic;
pub mod diff;
pub mod fleet;
pub mod guard;
pub mod intention;
pub mod limits;
pub mod model;
pub mod release;
pub mod replay;
pub mod rollout;
pub mod server;
pub mod source;
pub mod store;
pub mod version;
