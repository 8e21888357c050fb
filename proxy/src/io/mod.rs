//! Sockets, deadlines and pipes as the proxy uses them: safe, owned, and the same on both
//! backends.
//!
//! # Invariants
//! - No read is ever dropped in flight while its connection lives: a deadline shuts the socket
//!   down, or cancels the operation and waits for its result.
//! - Waits for readiness may be dropped; they hold no bytes.

pub mod backend;
pub mod deadlines;
pub mod gather;
pub mod listen;
pub mod notify;
pub mod options;
pub mod pacing;
pub mod pipe;
pub mod race;
pub mod resting;
pub mod silence;
pub mod socket;
pub mod splice;
pub mod turn;
