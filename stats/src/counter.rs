//! Counters and gauges with one writer and any number of readers.
//!
//! # Invariants
//! - One thread writes. An update is a relaxed load and a relaxed store: a plain `mov`, `add`,
//!   `mov` without a lock prefix. Two writers lose counts; debug builds assert where they notice.
//! - A reader sees some value that was current, never a torn one, and a counter never decreases
//!   between two reads of one thread (coherence of a single location).
//!
//! # Not here
//! Cache-line padding: the owner of a shard allocates it per worker, so that padding each counter
//! would only waste memory.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// A count that only grows. It wraps after `u64::MAX`, which Prometheus reads as a restart.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `n`. Only the shard's own thread may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        let next = self.0.load(Relaxed).wrapping_add(n);
        self.0.store(next, Relaxed);
        debug_assert_eq!(self.0.load(Relaxed), next, "a second thread writes this counter");
    }

    /// Adds one. Only the shard's own thread may call this.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// The count so far. Any thread may call this.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A level that rises and falls.
///
/// Signed, because a connection accepted on one worker may be handed to and closed by another: one
/// shard's gauge may then be negative while the sum over the shards is right.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// A gauge at zero.
    pub const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// Replaces the level. Only the shard's own thread may call this, as for `add` and `sub`.
    #[inline]
    pub fn set(&self, level: i64) {
        self.0.store(level, Relaxed);
    }

    /// Raises the level by `n`, saturating.
    #[inline]
    pub fn add(&self, n: i64) {
        self.set(self.value().saturating_add(n));
    }

    /// Lowers the level by `n`, saturating.
    #[inline]
    pub fn sub(&self, n: i64) {
        self.set(self.value().saturating_sub(n));
    }

    /// The level now. Any thread may call this.
    #[inline]
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_adds_up_and_wraps_instead_of_panicking() {
        let counter = Counter::new();
        counter.increment();
        counter.add(41);
        assert_eq!(counter.value(), 42);
        counter.add(u64::MAX);
        assert_eq!(counter.value(), 41);
    }

    #[test]
    fn gauge_may_go_below_zero_and_saturates_at_the_ends() {
        let gauge = Gauge::new();
        gauge.sub(3);
        assert_eq!(gauge.value(), -3);
        gauge.set(i64::MAX);
        gauge.add(1);
        assert_eq!(gauge.value(), i64::MAX);
        gauge.set(i64::MIN);
        gauge.sub(1);
        assert_eq!(gauge.value(), i64::MIN);
    }

    #[test]
    fn shards_of_a_handed_over_connection_sum_to_the_true_level() {
        let (accepting, closing) = (Gauge::new(), Gauge::new());
        accepting.add(2);
        closing.sub(1);
        assert_eq!(accepting.value() + closing.value(), 1);
    }
}
