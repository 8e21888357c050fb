//! Waiting for much input at once, where it is known how much is to come.
//!
//! Each wake-up of a spliced run costs two calls of `splice(2)`, an acknowledgement to the source
//! and another send, whatever it moves. So a source that sends in bulk is waited for with a
//! low-water mark (`SO_RCVLOWAT`, socket(7)) until a pipe can be filled, or all that is left has
//! come.
//!
//! ```text
//! burst ──▶ wait for much, briefly ── come, or not in time ──▶ take it ──▶ burst, or not
//! no burst ──▶ wait for any byte
//! ```
//!
//! # Invariants
//! - The mark is never above what is left: the end of a run wakes at once.
//! - A source that turns slow is held back for [`GATHER_TIME`] at most, once.
//! - The mark is 1 again when the run is over: the next to wait on the socket waits for any byte.
//!
//! # Not here
//! Runs without a length, tunnels for one: their last bytes would wait for the time to pass.

use std::io;

use ringway_stats::clock::now_ns;

use super::deadlines::after;
use super::socket::Socket;
use crate::limits::{GATHER_BURST_BYTES_MIN, GATHER_TIME};

/// How the source of a run is waited for.
pub struct Gather<'a> {
    source: &'a Socket,
    mark: u64,
    /// Bytes since the last wait. A run begins as if with a burst.
    burst: u64,
}

impl<'a> Gather<'a> {
    /// For a run from `source`.
    #[must_use]
    pub fn new(source: &'a Socket) -> Self {
        Self { source, mark: 1, burst: GATHER_BURST_BYTES_MIN }
    }

    /// `count` bytes have come.
    pub fn came(&mut self, count: u64) {
        self.burst += count;
    }

    /// Waits for `much` after a burst: whether it did, and so whether to look what has come. `much`
    /// is not above what is left of the run. Otherwise the next wait is for any byte.
    ///
    /// # Errors
    /// When the driver cannot wait.
    pub async fn wait(&mut self, much: u64, due_ns: u64) -> io::Result<bool> {
        if std::mem::take(&mut self.burst) < GATHER_BURST_BYTES_MIN {
            self.set_mark(1);
            return Ok(false);
        }
        self.set_mark(much);
        self.source.readable_briefly(due_ns.min(after(now_ns(), GATHER_TIME))).await?;
        Ok(true)
    }

    /// A refusal leaves the mark as it is, which costs time and no bytes.
    fn set_mark(&mut self, bytes: u64) {
        if bytes == self.mark {
            return;
        }
        let mark = i32::try_from(bytes).unwrap_or(i32::MAX);
        if self.source.set_low_water(mark).is_ok() {
            self.mark = bytes;
        }
    }
}

impl Drop for Gather<'_> {
    fn drop(&mut self) {
        self.set_mark(1);
    }
}
