//! What must hold of everything that a pusher and its sidecars tell each other, and of every mesh.
//!
//! ```text
//! fuzz_targets/*.rs ──▶ check(input) ◀── ../tests/corpus.rs (replays the corpora)
//! ```
//! `check` panics when a property does not hold.
//!
//! # Invariants
//! - `check` depends on its input alone: a file that failed once fails again.
//! - An input is what would come, readable and written by hand; see each module for how several
//!   files are one input.
//!
//! # Not here
//! What sidecars and clients send each other: `proxy/fuzz`. Limits over 4 KiB, which a fuzzer
//! reaches rarely: unit tests stand at each of them.

pub mod frames;
pub mod hello;
pub mod mesh;

/// A named property.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 3] =
    [("frames", frames::check), ("hello", hello::check), ("mesh", mesh::check)];
