//! Frames: what the pusher says on a stream.
//!
//! ```text
//! ┌────────────┬──────┬──────────────────────────────────────────────┐
//! │ length u32 │ type │ payload: `length` bytes, one line of JSON;   │
//! │ big endian │  u8  │ for STAGE a line feed and the policy follow  │
//! └────────────┴──────┴──────────────────────────────────────────────┘
//!  1 STAGE  2 COMMIT  3 ENDPOINTS  4 BUNDLE  5 PING  6 MOVE  7 HOLD  8 SAMPLE
//! ```
//!
//! # Invariants
//! - A frame of an unknown type is skipped, so that a later pusher may say more; one that is too
//!   long or whose payload does not parse is an error, upon which the connection ends.
//! - [`Decoder`] gives the same frames however its input is cut.

use serde::{Deserialize, Serialize};

use crate::endpoints::{EndpointsHash, Member};
use crate::hash::PolicyHash;
use crate::limits::FRAME_BYTES_MAX;

/// Bytes before the payload.
const HEADER: usize = 5;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A policy to compile and keep ready.
    Stage(Stage),
    /// The staged policy is to be applied.
    Commit(Commit),
    /// Endpoints of a cluster.
    Endpoints(Endpoints),
    /// Roots and revocations.
    Bundle(Bundle),
    /// The pusher lives.
    Ping(Ping),
    /// The sidecar is to connect anew.
    Move(Move),
    /// There is nothing to apply, and why.
    Hold(Hold),
    /// Samples of requests are wanted.
    Sample(Sample),
}

/// A policy to compile and keep ready; answered by a report of `staged` or `rejected`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Its place in the order of all policies.
    pub generation: u64,
    /// Of [`Stage::policy`].
    pub hash: PolicyHash,
    /// The number of the release, for people.
    pub release: u64,
    /// Capabilities without which it cannot be applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// A file of the sidecar in JSON, relative to its state folder. After the line, not in it.
    #[serde(skip)]
    pub policy: String,
}

/// The staged policy is to be applied; answered by `applied`, then `confirmed` or `rolled_back`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Of the policy that was staged.
    pub generation: u64,
    /// Of the same.
    pub hash: PolicyHash,
    /// How long the sidecar watches itself before it calls the policy good, ms; 0 for not at all.
    pub probation_ms: u64,
}

/// Endpoints of a cluster. They are applied at once and never staged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Name of the cluster in the policy. It may name one of a policy that comes next.
    pub cluster: String,
    /// Counts the frames of this kind on a stream, from 1.
    pub sequence: u64,
    /// What has changed.
    #[serde(flatten)]
    pub change: EndpointsChange,
    /// The source of the endpoints is not to be had; these are the last that were known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

/// What has changed of the endpoints of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointsChange {
    /// All of them, in place of what was known.
    Full(Vec<Member>),
    /// Some.
    Change {
        /// New ones, and known ones with another weight.
        #[serde(default)]
        set: Vec<Member>,
        /// Addresses that are gone.
        #[serde(default)]
        gone: Vec<std::net::SocketAddr>,
    },
    /// The cluster itself is gone.
    Gone {},
}

impl EndpointsChange {
    /// Whether the endpoints stay as they are: the frame says only whether they are stale.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, EndpointsChange::Change { set, gone } if set.is_empty() && gone.is_empty())
    }
}

/// Roots and revocations of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// Rises with every change.
    pub epoch: u64,
    /// Root certificates, PEM.
    pub roots: String,
    /// Revocation lists, PEM; empty if there is none.
    #[serde(default)]
    pub revocations: String,
}

/// The pusher lives. It comes every 15 s, and on a new stream once the endpoints are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Time of the pusher, ms since 1970.
    pub now_ms: u64,
    /// Number of this stream, which reports name: what is said on an older one does not count.
    pub stream: u64,
    /// Hash of the endpoints that the pusher has told of; a sidecar that has others connects anew
    /// and says what it has. Absent if there are none to tell of: then what it has stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<EndpointsHash>,
}

/// The sidecar is to connect anew: the pusher is about to end, or has too many streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// How long to wait before, ms.
    pub retry_ms: u64,
    /// `host:port` to connect to; the same as before if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// There is nothing to apply: the sidecar keeps what it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Why, for people: no workload has this identity, the release is held, ...
    pub reason: String,
}

/// Samples of requests are wanted; answered by [`Samples`](crate::Samples).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Keys that are taken; a sidecar with more sends the most frequent.
    pub max: u32,
}

/// Why bytes are not a stream of frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than the limit.
    #[error("a frame of {length} bytes; at most {FRAME_BYTES_MAX} are taken")]
    TooLong {
        /// As it says.
        length: usize,
    },
    /// The payload is not what its type says.
    #[error("a {kind} frame cannot be read: {error}")]
    Payload {
        /// The type's name.
        kind: &'static str,
        /// Why.
        error: serde_json::Error,
    },
    /// The policy is not text.
    #[error("the policy of a STAGE frame is missing or not UTF-8")]
    Policy,
    /// The policy is not the one that was announced.
    #[error("the policy of a STAGE frame has the hash {found}, announced was {announced}")]
    Hash {
        /// Of the bytes that came.
        found: PolicyHash,
        /// As the frame says.
        announced: PolicyHash,
    },
}

impl Frame {
    /// Its number on the wire.
    #[must_use]
    pub fn number(&self) -> u8 {
        match self {
            Frame::Stage(_) => 1,
            Frame::Commit(_) => 2,
            Frame::Endpoints(_) => 3,
            Frame::Bundle(_) => 4,
            Frame::Ping(_) => 5,
            Frame::Move(_) => 6,
            Frame::Hold(_) => 7,
            Frame::Sample(_) => 8,
        }
    }

    /// Its name, for people.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        kind(self.number())
    }

    /// The bytes of the frame, header included. `None` if they are more than [`FRAME_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; HEADER];
        // Writing plain structs into memory cannot fail.
        let written = match self {
            Frame::Stage(stage) => serde_json::to_writer(&mut bytes, stage),
            Frame::Commit(commit) => serde_json::to_writer(&mut bytes, commit),
            Frame::Endpoints(endpoints) => serde_json::to_writer(&mut bytes, endpoints),
            Frame::Bundle(bundle) => serde_json::to_writer(&mut bytes, bundle),
            Frame::Ping(ping) => serde_json::to_writer(&mut bytes, ping),
            Frame::Move(to) => serde_json::to_writer(&mut bytes, to),
            Frame::Hold(hold) => serde_json::to_writer(&mut bytes, hold),
            Frame::Sample(sample) => serde_json::to_writer(&mut bytes, sample),
        };
        if let Frame::Stage(stage) = self {
            bytes.push(b'\n');
            bytes.extend_from_slice(stage.policy.as_bytes());
        }
        let length = bytes.len() - HEADER;
        if written.is_err() || length > FRAME_BYTES_MAX {
            return None;
        }
        bytes[..4].copy_from_slice(&(length as u32).to_be_bytes());
        bytes[4] = self.number();
        Some(bytes)
    }

    /// Reads a payload. `None` for a type that this version does not know.
    fn decode(number: u8, payload: &[u8]) -> Result<Option<Frame>, FrameError> {
        let refused = |error| FrameError::Payload { kind: kind(number), error };
        Ok(Some(match number {
            1 => Frame::Stage(Stage::decode(payload)?),
            2 => Frame::Commit(serde_json::from_slice(payload).map_err(refused)?),
            3 => Frame::Endpoints(serde_json::from_slice(payload).map_err(refused)?),
            4 => Frame::Bundle(serde_json::from_slice(payload).map_err(refused)?),
            5 => Frame::Ping(serde_json::from_slice(payload).map_err(refused)?),
            6 => Frame::Move(serde_json::from_slice(payload).map_err(refused)?),
            7 => Frame::Hold(serde_json::from_slice(payload).map_err(refused)?),
            8 => Frame::Sample(serde_json::from_slice(payload).map_err(refused)?),
            _ => return Ok(None),
        }))
    }
}

impl Stage {
    fn decode(payload: &[u8]) -> Result<Stage, FrameError> {
        let at = payload.iter().position(|byte| *byte == b'\n').ok_or(FrameError::Policy)?;
        let (line, policy) = (&payload[..at], &payload[at + 1..]);
        let refused = |error| FrameError::Payload { kind: kind(1), error };
        let mut stage: Stage = serde_json::from_slice(line).map_err(refused)?;
        stage.policy = std::str::from_utf8(policy).map_err(|_| FrameError::Policy)?.to_owned();
        let found = PolicyHash::of(&stage.policy);
        if found != stage.hash {
            return Err(FrameError::Hash { found, announced: stage.hash });
        }
        Ok(stage)
    }
}

fn kind(number: u8) -> &'static str {
    match number {
        1 => "STAGE",
        2 => "COMMIT",
        3 => "ENDPOINTS",
        4 => "BUNDLE",
        5 => "PING",
        6 => "MOVE",
        7 => "HOLD",
        8 => "SAMPLE",
        _ => "unknown",
    }
}

/// Cuts bytes into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What has come and is not decoded; at most a frame and what came with its end.
    waiting: Vec<u8>,
    /// Bytes at the start of `waiting` that are done with.
    done: usize,
}

impl Decoder {
    /// Takes bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.done > 0 {
            self.waiting.drain(..self.done);
            self.done = 0;
        }
        self.waiting.extend_from_slice(bytes);
    }

    /// The next frame; `None` until more bytes come. It is called until then, so that what waits
    /// stays below a frame.
    ///
    /// # Errors
    /// [`FrameError`]; nothing can be read from this stream any more.
    pub fn frame(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            let waiting = &self.waiting[self.done..];
            let Some((header, rest)) = waiting.split_at_checked(HEADER) else { return Ok(None) };
            let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
            if length > FRAME_BYTES_MAX {
                return Err(FrameError::TooLong { length });
            }
            let Some(payload) = rest.get(..length) else { return Ok(None) };
            let frame = Frame::decode(header[4], payload)?;
            self.done += HEADER + length;
            if let Some(frame) = frame {
                return Ok(Some(frame));
            }
        }
    }
}

#[cfg(test)]
mod tests;
