//! The socket side of TLS: handshakes, what is told apart on one port, and who is connected.
//!
//! ```text
//! accepted ─▶ admit ─▶ [plaintext] ──────────────────────────────▶ Socket, plain
//!               └─▶ handshake::accept ─▶ Session ─▶ Layer ─▶ Socket, protected
//! upstream ──────▶ handshake::connect ─▶ Session ─▶ Layer ─▶ Socket, protected
//!
//! control ─▶ Credentials ─ in Running ─▶ ServerTls by listener, ClientTls by cluster
//!                              └─▶ live: connections whose peer is trusted no more are cut
//! ```
//!
//! # Invariants
//! - Steps of handshakes take turns with everybody else, who does not wait for more than a few of
//!   them.
//! - A connection keeps the session that it was established with; only its peer's certificate can
//!   end it.
//!
//! # Not here
//! Certificates, verification, records: `ringway_tls`. Files: `control::credentials`.

pub mod admit;
pub mod credentials;
pub mod handshake;
pub mod layer;
pub mod live;
pub mod peer;
pub mod places;
pub mod sessions;
pub mod steps;
