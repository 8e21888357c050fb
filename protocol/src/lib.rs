//! What the pusher and its sidecars say to each other: `meshpush/1`, sans-IO.
//!
//! ```text
//! sidecar ── POST /v1/join    Join ───▶ Joined       once, with a token
//!         ── POST /v1/renew   Renew ──▶ Joined       at half of the life of the certificate
//!         ── GET  /v1/stream  Hello ──▶ Frame ...    for as long as both live
//!         ── POST /v1/report  Report ─▶ 204          on every change, else every 10 s
//!         ── POST /v1/samples Samples ▶ 204          when a SAMPLE frame asks for them
//! ```
//!
//! All of it is HTTP/1.1 over mutual TLS, but for joining, where only the pusher proves who it is.
//! Every payload is JSON, so that `curl` and `jq` show what goes over the wire.
//!
//! # Invariants
//! - A policy is known by its bytes: [`PolicyHash`] is taken of them and checked where they arrive.
//! - A sidecar takes only a higher generation; undoing is a higher generation with an old hash.
//! - Whatever comes in has a maximum in [`limits`]; nothing that a peer can send panics.
//!
//! # Not here
//! Sockets, TLS, clocks; what is decided upon a report (`deploy`) or a frame (`proxy`).

#![forbid(unsafe_code)]

mod endpoints;
mod frame;
mod hash;
pub mod limits;
mod message;
mod name;
mod sample;

pub use endpoints::{EndpointsHash, EndpointsState, Member, OutOfStep};
pub use frame::{
    Bundle, Commit, Decoder, Endpoints, EndpointsChange, Frame, FrameError, Hold, Move, Ping,
    Sample, Stage,
};
pub use hash::{HashError, PolicyHash};
pub use message::{
    CertificateState, Hello, HelloError, Join, Joined, Refused, Renew, Report, Running, State,
    StateReport, Traffic,
};
pub use name::{Name, NameError};
pub use sample::{SampleKey, Sampled, Samples, TooMuch};

/// Version of the protocol, as both sides name it; part of every path (`/v1/`).
pub const VERSION: u32 = 1;

/// What this version of a sidecar can do beyond the first. A policy that needs more is refused when
/// it is staged, before anybody applies it.
pub const CAPABILITIES: &[&str] = &[
    "discovery-pushed",
    "http2",
    "mutual-tls",
    "proxy-protocol",
    "revocation",
    "round-robin",
    "tcp",
    "tls-outside",
];
