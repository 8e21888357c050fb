//! TLS policy and identity: SPIFFE identities, certificate store, verification, sessions.
//!
//! Sans-IO by design: this crate takes bytes and `now` and gives bytes and a deadline; its socket
//! side lives in `proxy`. It names no runtime and reads no clock.
//!
//! # Not here yet
//! Everything. The crate holds its place in the drawing of ARCHITECTURE.md until mutual TLS lands.
