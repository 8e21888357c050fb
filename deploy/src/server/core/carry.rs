//! What the conductor asks for, written down and carried out.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use ringway_protocol::{Commit, Frame, PolicyHash, Stage};

use super::kept::{KeptRef, Rest};
use super::streams::encoded;
use super::{AskFault, Core, Stages, running};
use crate::rollout::Command;
use crate::version::SidecarKey;

/// Streams that may be opened between two writes of the state.
const CONNECTIONS_AHEAD: u64 = 1 << 32;

impl Core {
    /// Writes the state down, then sends what the commands say.
    pub(super) fn carry_out(
        &mut self,
        commands: Vec<Command>,
        now_ms: u64,
    ) -> Result<(), AskFault> {
        // What could not be written down before is carried out once it is.
        self.pending.extend(commands);
        self.write()?;
        let mut ended = false;
        for command in std::mem::take(&mut self.pending) {
            match command {
                Command::Stage { sidecar, generation, hash } => {
                    self.send_stage(&sidecar, generation, hash);
                }
                Command::Commit { sidecar, generation, hash, probation_ms } => {
                    let commit = Commit { generation, hash, probation_ms };
                    self.send(&sidecar, &Frame::Commit(commit));
                }
                Command::Revert { sidecar, generation, hash } => {
                    self.send_stage(&sidecar, generation, hash);
                    let commit = Commit { generation, hash, probation_ms: 0 };
                    self.send(&sidecar, &Frame::Commit(commit));
                }
                Command::Finished { release } => {
                    tracing::info!(release, "release confirmed by all");
                    ended = true;
                }
                Command::Halted { release, why } => {
                    tracing::error!(release, "release halted: {why}");
                    ended = true;
                }
            }
        }
        if ended {
            self.consider(now_ms)?;
            self.forget_texts();
            self.spread_endpoints();
        }
        Ok(())
    }

    fn send_stage(&mut self, key: &SidecarKey, generation: u64, hash: PolicyHash) {
        if let Some(bytes) = self.stage(generation, hash) {
            self.streams.send(key, bytes);
        }
    }

    /// The STAGE frame of a policy, encoded for the first who gets it.
    fn stage(&mut self, generation: u64, hash: PolicyHash) -> Option<Bytes> {
        let release = self.conductor.history().entries().last();
        let release = release.map_or(0, |entry| entry.release.number);
        if self.stages.of != (release, generation) {
            self.stages = Stages { of: (release, generation), frames: HashMap::new() };
        }
        if let Some(bytes) = self.stages.frames.get(&hash) {
            return Some(bytes.clone());
        }
        let Some(text) = self.texts.get(&hash) else {
            tracing::error!(hash = %hash.short(), "the text of a policy is missing");
            return None;
        };
        let (requires, policy) = (text.requires.clone(), text.policy.clone());
        let frame = Frame::Stage(Stage { generation, hash, release, requires, policy });
        let bytes = encoded(&frame)?;
        self.stages.frames.insert(hash, bytes.clone());
        Some(bytes)
    }

    fn forget_texts(&mut self) {
        self.stages = Stages::default();
        let releases = self.conductor.history().entries().iter().map(|entry| &entry.release);
        let mut named: BTreeSet<PolicyHash> =
            releases.flat_map(|release| release.classes.values().copied()).collect();
        if let Some(candidate) = &self.candidate {
            named.extend(candidate.classes.values().copied());
        }
        // Somebody stayed on what the history does not know any more.
        named.extend(running(&self.conductor).into_values().flatten());
        self.texts.keep_only(&named);
    }

    /// Writes down what must outlive the pusher, if it has changed.
    pub(super) fn write(&mut self) -> Result<(), AskFault> {
        let revision = (self.conductor.revision(), self.revision);
        if revision == self.written {
            if !self.is_unkept {
                self.disk_problem = None;
            }
            return Ok(());
        }
        // Numbers that were given out since the last write never come again.
        let next_connection = self.next_connection + CONNECTIONS_AHEAD;
        let kept = KeptRef {
            conductor: self.conductor.stored(),
            accepted: &self.accepted,
            census: &self.census,
            endpoints: self.sets.kept(),
            resolved: self.sets.found(),
            rest: Rest { offered: self.offered, next_connection },
        };
        match kept.write(&mut self.record) {
            Ok(()) => {
                self.written = revision;
                if !self.is_unkept && self.disk_problem.take().is_some() {
                    tracing::info!("the state is written again");
                }
                Ok(())
            }
            Err(fault) => {
                self.complain_of_disk(fault.to_string());
                Err(fault.into())
            }
        }
    }

    /// Takes note that something cannot be written, and says so if that is new.
    pub(super) fn complain_of_disk(&mut self, problem: String) {
        if self.disk_problem.as_ref() != Some(&problem) {
            tracing::error!("{problem}");
            self.disk_problem = Some(problem);
        }
    }

    /// Sends a frame, if the sidecar is connected.
    pub(super) fn send(&mut self, key: &SidecarKey, frame: &Frame) {
        if let Some(bytes) = encoded(frame) {
            self.streams.send(key, bytes);
        }
    }
}
