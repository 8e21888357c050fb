//! A sample of the requests that a worker has routed, for asking a new policy about.
//!
//! ```text
//! plan ── Sampler::is_due: one counter ──▶ [take a key] ──▶ Reservoir (this worker's) ◀── control
//! ```
//!
//! The reservoir is filled by skips (algorithm L): how many requests are passed over before the
//! next one is taken is drawn once, so that those in between cost a decrement. The chance never
//! falls below 1 in `FADE`, so that old requests make room for new ones.
//!
//! # Invariants
//! - A sampler that is off counts down from where it never arrives; it keeps nothing.
//! - Nothing is allocated for a request that is not taken.
//! - A key holds no query, no value of a header and no body.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

use ringway_protocol::limits::{SAMPLE_HEADERS_MAX, SAMPLE_KEY_BYTES_MAX};
use ringway_protocol::{SampleKey, Sampled};
use ringway_router::{RequestKey, Table};

/// Requests, for each that is kept, after which a request is likely to have been replaced.
const FADE: f64 = 1000.0;

/// Counts the requests of a worker down to the next one that is taken.
#[derive(Debug)]
pub struct Sampler {
    left: Cell<u64>,
}

impl Sampler {
    /// A sampler that takes the first request, or none at all.
    #[must_use]
    pub fn new(enabled: bool) -> Sampler {
        Sampler { left: Cell::new(if enabled { 1 } else { u64::MAX }) }
    }

    /// Counts a request: whether it is to be taken.
    #[inline]
    pub fn is_due(&self) -> bool {
        let left = self.left.get().wrapping_sub(1);
        self.left.set(left);
        left == 0
    }

    /// Takes `key` into `reservoir`. `draw` gives random bits.
    #[cold]
    pub fn take(
        &self,
        reservoir: &Reservoir,
        table: &Table,
        key: &RequestKey<'_>,
        draw: impl FnMut() -> u64,
    ) {
        self.left.set(reservoir.take(key_of(table, key), draw));
    }
}

/// What of a request is kept; `None` if it is longer than allowed.
fn key_of(table: &Table, key: &RequestKey<'_>) -> Option<SampleKey> {
    let identity = key.identity.unwrap_or_default();
    let listener = &table.listener(key.listener).name;
    let texts = [&**listener, key.method, key.host, key.path, identity];
    let names = key.fields.iter().map(|field| field.name.len()).sum::<usize>();
    let bytes = texts.iter().map(|text| text.len()).sum::<usize>() + names;
    if bytes > SAMPLE_KEY_BYTES_MAX || key.fields.len() > SAMPLE_HEADERS_MAX {
        return None;
    }
    let mut header_names: Vec<String> =
        key.fields.iter().map(|field| field.name.to_ascii_lowercase()).collect();
    header_names.sort_unstable();
    header_names.dedup();
    Some(SampleKey {
        listener: listener.to_string(),
        method: key.method.to_owned(),
        host: key.host.to_owned(),
        path: key.path.to_owned(),
        header_names,
        identity: key.identity.map(str::to_owned),
    })
}

/// The keys that one worker keeps. Written by the worker when it takes one, read by the control
/// thread. At most `most` of [`SAMPLE_KEY_BYTES_MAX`] bytes.
#[derive(Debug)]
pub struct Reservoir {
    most: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// `None` stands for a request whose key is too long.
    keys: Vec<Option<SampleKey>>,
    /// Requests up to the last that was taken.
    seen: u64,
    /// The chance of the next request, once the reservoir is full.
    chance: f64,
}

/// A number above 0 and below 1.
fn fraction(bits: u64) -> f64 {
    ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

impl Reservoir {
    /// Room for `most` keys; 0 for a worker that keeps none.
    #[must_use]
    pub fn new(most: usize) -> Reservoir {
        let kept = Kept { keys: Vec::new(), seen: 0, chance: 1.0 };
        Reservoir { most, kept: Mutex::new(kept) }
    }

    /// Whether keys are kept.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.most > 0
    }

    /// Takes a key, and says which request after it is the next: 1 for the one that follows.
    fn take(&self, key: Option<SampleKey>, mut draw: impl FnMut() -> u64) -> u64 {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.seen += 1;
        if kept.keys.len() < self.most {
            kept.keys.push(key);
            if kept.keys.len() < self.most {
                return 1;
            }
        } else {
            let slot = (u128::from(draw()) * self.most as u128) >> 64;
            kept.keys[slot as usize] = key;
        }
        let shrunk = kept.chance * fraction(draw()).powf(1.0 / self.most as f64);
        kept.chance = shrunk.max(1.0 / FADE);
        let skipped = (fraction(draw()).ln() / (1.0 - kept.chance).ln()).floor();
        // Between 0 and some tens of thousands.
        let skipped = skipped as u64;
        kept.seen += skipped;
        skipped + 1
    }

    /// The keys that are kept, and how many requests they stand for.
    #[must_use]
    pub fn read(&self) -> (Vec<Option<SampleKey>>, u64) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.keys.clone(), kept.seen)
    }
}

/// What all workers have kept: equal keys once, the most frequent first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    /// The keys.
    pub keys: Vec<Sampled>,
    /// Requests that were seen.
    pub seen: u64,
    /// Sampled requests whose keys are too long.
    pub left_out: u64,
}

/// Reads the reservoirs of all workers.
#[must_use]
pub fn gather<'r>(reservoirs: impl Iterator<Item = &'r Reservoir>) -> Gathered {
    let mut gathered = Gathered::default();
    let mut counts = std::collections::BTreeMap::new();
    for (keys, seen) in reservoirs.map(Reservoir::read) {
        gathered.seen += seen;
        for key in keys {
            match key {
                Some(key) => *counts.entry(key).or_insert(0) += 1,
                None => gathered.left_out += 1,
            }
        }
    }
    gathered.keys = counts.into_iter().map(|(key, count)| Sampled { key, count }).collect();
    gathered.keys.sort_by_key(|sampled| std::cmp::Reverse(sampled.count));
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> SampleKey {
        SampleKey {
            listener: "l".into(),
            method: "GET".into(),
            host: "h".into(),
            path: format!("/{number}"),
            header_names: Vec::new(),
            identity: None,
        }
    }

    /// Numbers of the requests kept of `count`, and how often a key was taken.
    fn sample(most: usize, count: u64, seed: u64) -> (Vec<u64>, u64) {
        let reservoir = Reservoir::new(most);
        let sampler = Sampler::new(true);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut taken = 0;
        for number in 0..count {
            if sampler.is_due() {
                taken += 1;
                sampler.left.set(reservoir.take(Some(key(number)), || random.u64(..)));
            }
        }
        let numbers = reservoir.read().0.into_iter().flatten();
        (numbers.map(|key| key.path[1..].parse().unwrap()).collect(), taken)
    }

    #[test]
    fn every_request_has_the_same_chance_and_few_are_touched() {
        let (mut sum, mut takes) = (0.0, 0);
        for seed in 0..50 {
            let (kept, taken) = sample(100, 10_000, seed);
            assert_eq!(kept.len(), 100);
            sum += kept.iter().sum::<u64>() as f64 / 100.0;
            takes += taken;
        }
        let mean = sum / 50.0;
        assert!((4_600.0..5_400.0).contains(&mean), "{mean}");
        // 100 * (1 + ln(10 000 / 100)) in theory.
        assert!((450..700).contains(&(takes / 50)), "{takes}");
    }

    #[test]
    fn old_requests_make_room() {
        let count = 10 * FADE as u64 * 10;
        let (kept, _) = sample(10, count, 7);
        let old = kept.iter().filter(|number| **number < count / 2).count();
        assert!(old <= 3, "{kept:?}");
    }

    #[test]
    fn a_sampler_that_is_off_takes_nothing() {
        let sampler = Sampler::new(false);
        assert!((0..10_000).all(|_| !sampler.is_due()));
    }

    #[test]
    fn equal_keys_are_gathered_with_their_count() {
        let (one, two) = (Reservoir::new(3), Reservoir::new(3));
        for (reservoir, key) in
            [(&one, Some(key(1))), (&one, Some(key(2))), (&two, Some(key(2))), (&two, None)]
        {
            reservoir.take(key, || 0);
        }
        let gathered = gather([&one, &two].into_iter());
        let keys = vec![Sampled { key: key(2), count: 2 }, Sampled { key: key(1), count: 1 }];
        assert_eq!(gathered, Gathered { keys, seen: 4, left_out: 1 });
    }
}
