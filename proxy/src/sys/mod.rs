//! The one folder that may use `unsafe`: memory that the kernel writes to, file descriptors that
//! outlive a Rust borrow, and the allocator.
//!
//! # Invariants
//! - A buffer handed to the kernel is owned by the operation until its completion; see [`block`].
//! - A descriptor is borrowed only from the value that owns it; see [`stream`].
//!
//! # Not here
//! Anything `rustix` offers as a safe call: those are made where they are needed.

pub mod alloc;
pub mod block;
pub mod mapped;
pub mod placed;
pub mod reused;
pub mod stream;
