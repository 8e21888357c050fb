//! Samples of requests: asked of everybody who is connected, kept until they are asked anew.
//!
//! # Invariants
//! - What was not asked for on the stream that is open is not taken.
//! - All sidecars together are asked for at most [`KEYS_MAX`] keys.

use std::collections::{BTreeMap, HashMap};

use ringway_protocol::limits::SAMPLE_KEYS_MAX;
use ringway_protocol::{Frame, Sample, Samples, TooMuch};

use super::Core;
use crate::fleet::{ConnectionId, Sidecar};
use crate::replay::{Material, SidecarSamples};
use crate::version::SidecarKey;

/// Keys of all sidecars at once: 400 MiB at worst (names of 64 headers each), 50 MiB as a rule.
const KEYS_MAX: usize = 100_000;

/// Why samples are not taken.
#[derive(Debug, thiserror::Error)]
pub enum SamplesFault {
    /// Nobody has asked.
    #[error("no samples were asked for on this stream")]
    NotAsked,
    /// More than was asked for, or than allowed.
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
}

/// A question that is not answered yet.
#[derive(Debug, Clone, Copy)]
struct Asked {
    connection: ConnectionId,
    max: usize,
}

/// What was asked and answered.
#[derive(Debug, Default)]
pub(super) struct SampleStore {
    asked: HashMap<SidecarKey, Asked>,
    taken: HashMap<SidecarKey, Samples>,
}

impl Core {
    /// Asks everybody who is connected for samples.
    pub fn ask_samples(&mut self) {
        let keys = self.streams.keys();
        let max = (KEYS_MAX / keys.len().max(1)).clamp(1, SAMPLE_KEYS_MAX);
        self.samples.asked.clear();
        self.samples.taken.retain(|key, _| self.streams.connection(key).is_some());
        for key in keys {
            self.send(&key, &Frame::Sample(Sample { max: max as u32 }));
            if let Some(connection) = self.streams.connection(&key) {
                self.samples.asked.insert(key, Asked { connection, max });
            }
        }
    }

    /// A sidecar answers.
    ///
    /// # Errors
    /// Why the answer is not taken.
    pub fn take_samples(&mut self, key: &SidecarKey, samples: Samples) -> Result<(), SamplesFault> {
        let asked = self.samples.asked.get(key).copied();
        let asked = asked.filter(|asked| asked.connection == ConnectionId(samples.stream));
        let Asked { max, .. } = asked.ok_or(SamplesFault::NotAsked)?;
        samples.check()?;
        if samples.keys.len() > max {
            return Err(TooMuch { what: "keys", max }.into());
        }
        self.samples.asked.remove(key);
        self.samples.taken.insert(key.clone(), samples);
        Ok(())
    }

    /// Whether somebody who is connected has not answered yet.
    #[must_use]
    pub fn awaits_samples(&self) -> bool {
        self.samples.asked.keys().any(|key| self.streams.connection(key).is_some())
    }

    /// What those who are connected have seen and run, and what the folder would have them run.
    #[must_use]
    pub fn material(&self) -> Material {
        let mut policies = BTreeMap::new();
        let mut sidecars = Vec::new();
        for key in self.streams.keys() {
            let known = self.conductor.fleet().sidecar(&key);
            let running = known.and_then(Sidecar::applied).map(|version| version.hash);
            if let Some((hash, text)) =
                running.and_then(|hash| Some((hash, self.texts.get(&hash)?)))
            {
                policies.insert(hash.to_string(), text.policy.clone());
            }
            sidecars.push(SidecarSamples {
                workload: self.workload_of(key.identity()).map(str::to_owned),
                identity: key.identity().to_owned(),
                node: key.node().to_owned(),
                running: running.map(|hash| hash.to_string()),
                samples: self.samples.taken.get(&key).cloned(),
            });
        }
        sidecars.sort_by(|one, two| (&one.identity, &one.node).cmp(&(&two.identity, &two.node)));
        let text = |(name, identity): (&String, &String)| {
            Some((identity.clone(), self.policies.policy(name)?.text.clone()))
        };
        let candidate = self.identities.iter().filter_map(text).collect();
        Material { sidecars, policies, candidate }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::{hello, peer};
    use super::*;
    use crate::model::Mode;
    use crate::release::Profile;
    use crate::rollout::Waits;
    use crate::server::core::Settings;
    use crate::server::texts::Texts;
    use crate::store::Memory;

    fn samples(stream: u64, enabled: bool) -> Samples {
        let node = "n".parse().expect("a name");
        Samples { node, stream, enabled, seen: 0, left_out: 0, keys: Vec::new() }
    }

    #[test]
    fn what_was_not_asked_for_is_not_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let texts = Texts::open(folder.path()).expect("an empty folder");
        let (waits, mode) = (Waits::default(), Mode::Strict);
        let settings = Settings { profile: Profile::Now, waits, manual: false, mode };
        let mut core = Core::open(Arc::new(Memory::new()), texts, settings, 0).expect("a store");
        let key = SidecarKey::new("spiffe://d/w", "n").expect("a key");
        let (connection, _frames) = core.hello(&key, peer(&key), hello(), None, 0).expect("room");
        let stream = connection.0;
        let unasked = core.take_samples(&key, samples(stream, true));
        assert!(matches!(unasked, Err(SamplesFault::NotAsked)), "{unasked:?}");
        core.ask_samples();
        let earlier = core.take_samples(&key, samples(stream + 1, true));
        assert!(matches!(earlier, Err(SamplesFault::NotAsked)), "{earlier:?}");
        assert!(core.awaits_samples());
        core.take_samples(&key, samples(stream, true)).expect("it was asked for");
        assert!(!core.awaits_samples());
        assert!(core.take_samples(&key, samples(stream, true)).is_err(), "only once");
        assert_eq!(core.material().sidecars[0].samples, Some(samples(stream, true)));
    }
}
