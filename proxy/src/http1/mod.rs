//! HTTP/1.1 (RFC 9110, RFC 9112), both sides.
//!
//! ```text
//!  bytes ─▶ scan ─▶ request ─▶ plan (route, compose) ─▶ exchange ─▶ upstream
//!  bytes ◀─ compose ◀─ response ◀─ scan ◀──────────────────────────────┘
//!              body, chunked: how many of the next bytes belong to the message
//! ```
//! `scan`, `fields`, `request`, `response`, `chunked`, `body` and `compose` are sans-IO: bytes in,
//! facts and bytes out. `connection`, `exchange` and `relay` move them.

pub mod answer;
pub mod body;
pub mod chunked;
pub mod compose;
pub mod connection;
pub mod exchange;
pub mod fields;
pub mod plan;
pub mod relay;
pub mod reply;
pub mod request;
pub mod response;
pub mod scan;
