//! HTTP/2 (RFC 9113), by the h2 crate over our own sockets and blocks.
//!
//! ```text
//! Socket ◀─▶ bridge ◀─▶ h2 ◀─▶ server ─▶ stream ─┬─▶ upstream (HTTP/1.1)
//!              │                    │            └─▶ forward, client (HTTP/2) ◀─▶ h2 ◀─▶ bridge
//!              └─ flood             ├─ head, translate, grpc: heads
//!                                   └─ body, upload: both directions, as windows open
//! ```
//!
//! # Not here
//! Decisions: `http1::plan` makes them for both versions.

pub mod body;
pub mod bridge;
pub mod client;
pub mod flood;
pub mod forward;
pub mod grpc;
pub mod head;
pub mod pulse;
pub mod server;
pub mod stream;
pub mod translate;
pub mod upload;
