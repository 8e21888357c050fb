//! A run of bytes from one socket to another by `splice(2)`, waiting where it must.
//!
//! ```text
//!          ┌── nothing ── wait for input, without a pipe ◀─┐
//!          ▼                                               │
//! take a pipe ─▶ fill from the source ─▶ drain to the sink ┘
//! ```
//!
//! # Invariants
//! - Backpressure is the kernel's: nothing is read while the pipe has bytes that the sink does
//!   not take.
//! - A run that waits for input holds no pipe: thousands of silent runs need none.
//! - A pipe is filled beyond [`PIPE_CAUTIOUS_BYTES`] only if the sink has room for all of it.
//! - After [`SPLICE_TURN_BYTES`] the other tasks of the worker have a turn.

use std::io;

use super::gather::Gather;
use super::pipe::{Moved, Pipe};
use super::socket::Socket;
use super::turn;
use crate::limits::{PIPE_BYTES, PIPE_CAUTIOUS_BYTES, SPLICE_TURN_BYTES};

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
    /// No input came until the deadline.
    SourceStalled,
    /// The sink took nothing until the deadline.
    SinkStalled,
    /// The caller asked to stop.
    Stopped,
    /// There was no pipe to be had. So many bytes went over before, and none is under way.
    Refused(u64),
    /// The caller did not want to wait for more. None is under way.
    Dry,
}

/// What the caller of a run knows and counts.
pub trait Pace {
    /// The time until which to wait for input, asked before each wait.
    fn due_ns(&self) -> u64;
    /// The time until which to wait for room in the sink, asked before each wait.
    fn sink_due_ns(&self) -> u64 {
        self.due_ns()
    }
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
    /// The source has nothing after `burst` bytes since the last time: whether to end the run
    /// rather than wait.
    fn dry(&self, _burst: u64) -> bool {
        false
    }
}

/// Without a length: the source decides where the run ends.
pub const ENDLESS: u64 = u64::MAX;

/// Moves up to `most` bytes, [`ENDLESS`] or what is sure to come.
pub async fn run(source: &Socket, sink: &Socket, most: u64, pace: &impl Pace) -> Run {
    let mut pipe = None;
    let mut gather = (most != ENDLESS).then(|| Gather::new(source));
    let ended = run_with((&mut pipe, &mut gather), source, sink, most, pace).await;
    if let Some(pipe) = pipe {
        pipe.give();
    }
    ended
}

async fn run_with(
    (held, gather): (&mut Option<Pipe>, &mut Option<Gather<'_>>),
    source: &Socket,
    sink: &Socket,
    most: u64,
    pace: &impl Pace,
) -> Run {
    let mut left = most;
    let mut burst = 0;
    let mut turn_bytes = 0;
    while left > 0 {
        if pace.stop() {
            return Run::Stopped;
        }
        let pipe = match held {
            Some(pipe) => pipe,
            None => match Pipe::take() {
                Some(pipe) => held.insert(pipe),
                None => return Run::Refused(most - left),
            },
        };
        let most_now = if gather.is_some() { depth(sink, left) } else { PIPE_CAUTIOUS_BYTES };
        match pipe.fill(source, left.min(most_now)) {
            Ok(Moved::Bytes(count)) => {
                left = left.saturating_sub(count as u64);
                burst += count as u64;
                turn_bytes += count;
                if let Some(gather) = gather {
                    gather.came(count as u64);
                }
            }
            Ok(Moved::End) => return Run::End,
            Ok(Moved::Blocked) => {
                if let Some(empty) = held.take() {
                    empty.give();
                }
                if pace.dry(burst) {
                    return Run::Dry;
                }
                burst = 0;
                match await_input(source, gather, left.min(PIPE_BYTES as u64), pace).await {
                    Ok(true) => continue,
                    Ok(false) => return Run::SourceStalled,
                    Err(error) => return Run::SourceBroken(error),
                }
            }
            Err(error) => return Run::SourceBroken(source.cause_of(error)),
        }
        if let Some(ended) = empty(pipe, sink, pace).await {
            return ended;
        }
        if turn_bytes >= SPLICE_TURN_BYTES {
            turn_bytes = 0;
            // Through the ring and back: whoever else is ready runs first.
            if let Err(error) = turn::fairly(sink.writable_until(pace.sink_due_ns())).await {
                return Run::SinkBroken(error);
            }
        }
    }
    Run::Complete
}

/// Waits for any input, or for `much` where that pays.
async fn await_input(
    source: &Socket,
    gather: &mut Option<Gather<'_>>,
    much: u64,
    pace: &impl Pace,
) -> io::Result<bool> {
    if let Some(gather) = gather
        && gather.wait(much, pace.due_ns()).await?
    {
        return Ok(true);
    }
    wait(pace, || pace.due_ns(), |due| source.readable_until(due)).await
}

/// How far to fill a pipe of whose bytes `left` are still to come.
fn depth(sink: &Socket, left: u64) -> u64 {
    let most = PIPE_BYTES as u64;
    // Twice as much as it takes: the kernel counts its own bookkeeping too.
    if left > PIPE_CAUTIOUS_BYTES && sink.room() >= 2 * most { most } else { PIPE_CAUTIOUS_BYTES }
}

async fn empty(pipe: &mut Pipe, sink: &Socket, pace: &impl Pace) -> Option<Run> {
    while !pipe.is_empty() {
        match pipe.drain(sink) {
            Ok(Moved::Bytes(count)) => pace.moved(count as u64),
            Ok(Moved::Blocked | Moved::End) => {
                match wait(pace, || pace.sink_due_ns(), |due| sink.writable_until(due)).await {
                    Ok(true) => {}
                    Ok(false) => return Some(Run::SinkStalled),
                    Err(error) => return Some(Run::SinkBroken(error)),
                }
            }
            Err(error) => return Some(Run::SinkBroken(sink.cause_of(error))),
        }
    }
    None
}

/// Waits until ready (`true`) or until a deadline passes that counts (`false`).
///
/// # Errors
/// Those of the wait.
pub async fn wait<F: Future<Output = io::Result<bool>>>(
    pace: &impl Pace,
    due_ns: impl Fn() -> u64,
    ready: impl Fn(u64) -> F,
) -> io::Result<bool> {
    loop {
        if ready(due_ns()).await? {
            return Ok(true);
        }
        if pace.stalled() {
            return Ok(false);
        }
    }
}
