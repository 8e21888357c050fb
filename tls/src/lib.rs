//! TLS policy and identity: SPIFFE identities, certificate files, verification, sessions.
//!
//! ```text
//! PEM files ──▶ KeyPair, Bundle, Roots ──▶ ServerTls, ClientTls ──▶ Session ◀──▶ records
//!               (material)                 (server, client)         (session)
//!                                           │ verify, resume
//! first bytes of a connection ──▶ hello: server name and ALPN, without terminating
//! ```
//!
//! # Invariants
//! - Sans-IO: bytes and `now` in, bytes and a verdict out. No file, socket, runtime or clock.
//!   rustls asks for the time through `call`, which holds what the caller passed.
//! - A [`Session`] with mesh trust that is established has a verified [`SpiffeId`].
//! - Whatever fails says who is to blame: [`Fault`] for connections, [`MaterialFault`] for files.
//!
//! # Not here
//! Watching files, deadlines and buffers (`proxy`); which listener uses what (`router`); kernel
//! TLS.
#![forbid(unsafe_code)]

mod call;
pub mod certificate;
pub mod client;
pub mod control;
pub mod fault;
pub mod hello;
pub mod limits;
pub mod material;
pub mod provider;
pub mod resume;
pub mod server;
pub mod session;
pub mod spiffe;
#[cfg(test)]
mod testing;
mod verify;

pub use certificate::CertificateInfo;
pub use client::{ClientSettings, ClientTls, Trust};
pub use fault::{Blame, Fault, duration_words};
pub use hello::Hello;
pub use material::{Bundle, KeyPair, MaterialFault, Roots};
pub use provider::{Provider, provider};
pub use server::{BuildFault, Peers, ServerSettings, ServerTls};
pub use session::{Advance, Alpn, Negotiated, Opened, Session, Step};
pub use spiffe::{SpiffeFault, SpiffeId};

pub use rustls_pki_types as pki_types;
pub use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
