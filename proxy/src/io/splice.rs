//! A run of bytes from one socket to another by `splice(2)`, waiting where it must.
//!
//! # Invariants
//! - Backpressure is the kernel's: nothing is read while the pipe has bytes that the sink does
//!   not take.
//! - After [`SPLICE_TURN_BYTES`] the other tasks of the worker have a turn.

use std::io;

use super::pipe::{Moved, Pipe};
use super::socket::Socket;
use crate::limits::SPLICE_TURN_BYTES;

/// How a run ended.
#[derive(Debug)]
pub enum Run {
    /// All bytes of the run went over.
    Complete,
    /// The source ended first.
    End,
    /// Reading failed.
    SourceBroken(io::Error),
    /// Writing failed.
    SinkBroken(io::Error),
    /// Nothing moved until the deadline.
    Stalled,
    /// The caller asked to stop.
    Stopped,
}

/// What the caller of a run knows and counts.
pub trait Pace {
    /// The time until which to wait for a socket, asked before each wait.
    fn due_ns(&self) -> u64;
    /// Whether a deadline that passed counts: `false` asks for a new one.
    fn stalled(&self) -> bool {
        true
    }
    /// `count` bytes went out.
    fn moved(&self, count: u64);
    /// Whether to give up.
    fn stop(&self) -> bool {
        false
    }
}

/// Moves up to `most` bytes through `pipe`.
pub async fn run(
    source: &Socket,
    sink: &Socket,
    most: u64,
    pipe: &mut Pipe,
    pace: &impl Pace,
) -> Run {
    let mut left = most;
    let mut turn = 0;
    while left > 0 {
        if pace.stop() {
            return Run::Stopped;
        }
        match pipe.fill(source, left) {
            Ok(Moved::Bytes(count)) => {
                left = left.saturating_sub(count as u64);
                turn += count;
            }
            Ok(Moved::End) => return Run::End,
            Ok(Moved::Blocked) => match wait(pace, |due| source.readable_until(due)).await {
                Ok(true) => continue,
                Ok(false) => return Run::Stalled,
                Err(error) => return Run::SourceBroken(error),
            },
            Err(error) => return Run::SourceBroken(error),
        }
        if let Some(ended) = empty(pipe, sink, pace).await {
            return ended;
        }
        if turn >= SPLICE_TURN_BYTES {
            turn = 0;
            // Through the ring and back: whoever else is ready runs first.
            if let Err(error) = sink.writable_until(pace.due_ns()).await {
                return Run::SinkBroken(error);
            }
        }
    }
    Run::Complete
}

async fn empty(pipe: &mut Pipe, sink: &Socket, pace: &impl Pace) -> Option<Run> {
    while !pipe.is_empty() {
        match pipe.drain(sink) {
            Ok(Moved::Bytes(count)) => pace.moved(count as u64),
            Ok(Moved::Blocked | Moved::End) => {
                match wait(pace, |due| sink.writable_until(due)).await {
                    Ok(true) => {}
                    Ok(false) => return Some(Run::Stalled),
                    Err(error) => return Some(Run::SinkBroken(error)),
                }
            }
            Err(error) => return Some(Run::SinkBroken(error)),
        }
    }
    None
}

/// Waits until ready (`true`) or until a deadline passes that counts (`false`).
async fn wait<F: Future<Output = io::Result<bool>>>(
    pace: &impl Pace,
    ready: impl Fn(u64) -> F,
) -> io::Result<bool> {
    loop {
        if ready(pace.due_ns()).await? {
            return Ok(true);
        }
        if pace.stalled() {
            return Ok(false);
        }
    }
}
