//! A high-dynamic-range histogram that one thread writes while others read.
//!
//! ```text
//! Histogram ──▶ directory ──▶ page 19 [1024 counts]    allocated when a value of that octave
//! (48 bytes)    (528 bytes)   page 20 [1024 counts]    first arrives, then kept
//! ```
//!
//! Unit: anything; latencies are fed in nanoseconds. The lowest value told apart is 1, the highest
//! [`VALUE_MAX`]. With pages of one octave a finer unit costs memory only where values fall, so
//! there is nothing to save by rounding to microseconds. Memory: 48 bytes until the first record,
//! then 528 bytes and 8 KiB per octave touched; a route whose latencies spread over a factor of 16
//! touches 4 or 5 octaves.
//!
//! # Invariants
//! - One thread calls [`Histogram::record`]: no atomic read-modify-write, no lock.
//! - No count is ever taken back, so two snapshots by one thread never decrease.
//! - A snapshot's count is the sum of its slots. Its sum may be ahead or behind by the records made
//!   while it was read.
//!
//! # Not here
//! Decay and reset: an interval is the difference of two snapshots ([`Snapshot::minus`]).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::counter::Counter;
use crate::limits::{PAGE_SLOTS, PAGES, VALUE_MAX};
use crate::slot::Slot;
use crate::snapshot::Snapshot;

type Page = Box<[Counter; PAGE_SLOTS]>;

/// Pages by octave; empty until a value of the octave arrives.
struct Directory {
    pages: [OnceLock<Page>; PAGES],
}

/// Counts of values with three significant digits; one writer, many readers.
#[derive(Default)]
pub struct Histogram {
    directory: OnceLock<Box<Directory>>,
    count: Counter,
    sum: Counter,
    saturated: Counter,
    max: AtomicU64,
}

impl Histogram {
    /// An empty histogram. Allocates nothing.
    pub const fn new() -> Self {
        Self {
            directory: OnceLock::new(),
            count: Counter::new(),
            sum: Counter::new(),
            saturated: Counter::new(),
            max: AtomicU64::new(0),
        }
    }

    /// Counts `value`. Only the shard's own thread may call this.
    ///
    /// Allocates when `value` is the first of its octave. A value over [`VALUE_MAX`] goes to the
    /// top slot, adds [`VALUE_MAX`] to the sum and one to [`Histogram::saturated`].
    #[inline]
    pub fn record(&self, value: u64) {
        let slot = Slot::of(value);
        self.page(slot.page)[slot.index].increment();
        self.count.increment();
        self.sum.add(value.min(VALUE_MAX));
        if value > self.max.load(Relaxed) {
            self.max.store(value, Relaxed);
        }
        if value > VALUE_MAX {
            self.saturated.increment();
        }
    }

    /// Values recorded so far.
    pub fn count(&self) -> u64 {
        self.count.value()
    }

    /// Sum of the values recorded so far. Wraps: for nanoseconds after 584 years of latency.
    pub fn sum(&self) -> u64 {
        self.sum.value()
    }

    /// The largest value recorded so far, exact, also when over [`VALUE_MAX`]; 0 if there is none.
    pub fn max(&self) -> u64 {
        self.max.load(Relaxed)
    }

    /// Values recorded so far that were over [`VALUE_MAX`].
    pub fn saturated(&self) -> u64 {
        self.saturated.value()
    }

    /// Bytes allocated on the heap.
    pub fn heap_bytes(&self) -> usize {
        let Some(directory) = self.directory.get() else {
            return 0;
        };
        let touched = directory.pages.iter().filter(|page| page.get().is_some()).count();
        size_of::<Directory>() + touched * PAGE_SLOTS * size_of::<Counter>()
    }

    /// A copy of the counts, for one histogram by itself.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new();
        self.add_to(&mut snapshot);
        snapshot
    }

    /// Adds the counts to `total`: merges the shards of one series without a copy of each.
    pub fn add_to(&self, total: &mut Snapshot) {
        if let Some(directory) = self.directory.get() {
            for (number, page) in directory.pages.iter().enumerate() {
                if let Some(page) = page.get() {
                    total.add_page(number, page.iter().map(Counter::value));
                }
            }
        }
        total.add_totals(self.sum(), self.max(), self.saturated());
    }

    #[inline]
    fn page(&self, number: usize) -> &[Counter; PAGE_SLOTS] {
        let page = self.directory.get().and_then(|directory| directory.pages[number].get());
        match page {
            Some(page) => page,
            None => self.first_touch(number),
        }
    }

    #[cold]
    #[inline(never)]
    fn first_touch(&self, number: usize) -> &[Counter; PAGE_SLOTS] {
        let directory = self
            .directory
            .get_or_init(|| Box::new(Directory { pages: [const { OnceLock::new() }; PAGES] }));
        directory.pages[number].get_or_init(empty_page)
    }
}

fn empty_page() -> Page {
    // Collected on the heap: an array by value would pass 8 KiB through the worker's stack.
    let counts: Box<[Counter]> = (0..PAGE_SLOTS).map(|_| Counter::new()).collect();
    counts.try_into().unwrap_or_else(|_| unreachable!("collected PAGE_SLOTS counters"))
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("sum", &self.sum())
            .field("max", &self.max())
            .field("saturated", &self.saturated())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untouched_histogram_is_48_bytes_and_allocates_nothing() {
        assert_eq!(size_of::<Histogram>(), 48);
        assert_eq!(Histogram::new().heap_bytes(), 0);
    }

    #[test]
    fn memory_grows_by_one_page_per_octave_and_not_per_value() {
        let histogram = Histogram::new();
        for value in 1 << 20..(1 << 20) + 5_000 {
            histogram.record(value);
        }
        assert_eq!(histogram.heap_bytes(), 528 + 8192);
        histogram.record(1 << 24);
        assert_eq!(histogram.heap_bytes(), 528 + 2 * 8192);
    }

    #[test]
    fn value_at_the_limit_is_exact_and_one_past_it_is_counted_as_saturated() {
        let histogram = Histogram::new();
        histogram.record(VALUE_MAX);
        assert_eq!(histogram.saturated(), 0);
        histogram.record(VALUE_MAX + 1);
        assert_eq!(histogram.saturated(), 1);
        assert_eq!(histogram.sum(), 2 * VALUE_MAX);
        assert_eq!(histogram.max(), VALUE_MAX + 1);
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.count(), snapshot.saturated()), (2, 1));
        assert_eq!(snapshot.percentile(100.0), VALUE_MAX);
    }
}
