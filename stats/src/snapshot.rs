//! A histogram's counts at one moment, by value: to merge, subtract, query and convert.
//!
//! # Invariants
//! - `count` is the sum of all slots.
//! - Merging is exact: slot by slot addition, so shards and pods merge in any order.
//! - `max` is not below the lowest value of the highest occupied slot. It is exact after snapshots
//!   and merges; after [`Snapshot::minus`] within a slot's width (0.1 %) unless it rose meanwhile.
//! - Memory is 8 KiB per octave that holds a value.
//!
//! # Not here
//! Recording. Text: see [`Exposition`](crate::Exposition).

use crate::limits::{PAGE_SLOTS, PAGES, SIGNIFICANT_DIGITS, VALUE_MAX};
use crate::slot::Slot;

type Page = Box<[u64; PAGE_SLOTS]>;

/// Counts of values with three significant digits, at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pages: [Option<Page>; PAGES],
    count: u64,
    sum: u64,
    max: u64,
    saturated: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::new()
    }
}

impl Snapshot {
    /// No values: the neutral element of [`Snapshot::merge`].
    pub const fn new() -> Self {
        Self { pages: [const { None }; PAGES], count: 0, sum: 0, max: 0, saturated: 0 }
    }

    /// Values counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sum of the values, each cut to [`VALUE_MAX`]; saturates.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest value; 0 if there is none.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Values over [`VALUE_MAX`], counted as [`VALUE_MAX`].
    pub fn saturated(&self) -> u64 {
        self.saturated
    }

    /// The mean, from the exact sum; 0 if there is no value.
    pub fn mean(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        self.sum as f64 / self.count as f64
    }

    /// The value that `percent` per cent of the values do not exceed; 0 if there is none.
    ///
    /// The answer is the largest value of the slot where the rank falls, so at most 0.1 % above the
    /// exact one, and never above [`Snapshot::max`]. `percent` is cut to `0..=100`. The rank is
    /// `hdrhistogram`'s: `ceil(percent / 100 * count)`, at least 1.
    pub fn percentile(&self, percent: f64) -> u64 {
        let quantile = (percent / 100.0).clamp(0.0, 1.0);
        let rank = ((quantile * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (slot, count) in self.occupied() {
            seen += count;
            if seen >= rank {
                return slot.highest().min(self.max);
            }
        }
        // Only when empty, or when the rank was rounded up past a count over 2^53.
        self.max
    }

    /// How many values are at most each of `bounds`, which must ascend; the same unit as the
    /// values.
    ///
    /// Boundary: a slot counts from the bound on that falls into it, so a value equal to a bound is
    /// always included, and so may be values up to 0.1 % above it. Exact where slots have width 1
    /// (bounds under 2048) and where a bound is the largest value of its slot. Saturated values
    /// count as [`VALUE_MAX`]. A bound below its predecessor repeats the predecessor's count.
    pub fn cumulative_le(&self, bounds: &[u64]) -> Vec<u64> {
        debug_assert!(bounds.is_sorted(), "bounds ascend");
        let mut counts = Vec::with_capacity(bounds.len());
        let mut occupied = self.occupied().peekable();
        let mut seen = 0;
        for &bound in bounds {
            while let Some((_, count)) = occupied.next_if(|(slot, _)| slot.lowest() <= bound) {
                seen += count;
            }
            counts.push(seen);
        }
        counts
    }

    /// Adds the counts of `other`, without loss.
    pub fn merge(&mut self, other: &Snapshot) {
        for (number, page) in other.pages.iter().enumerate() {
            if let Some(page) = page {
                self.add_page(number, page.iter().copied());
            }
        }
        self.add_totals(other.sum, other.max, other.saturated);
    }

    /// What was recorded between `earlier` and this snapshot of the same histogram.
    ///
    /// Where `earlier` is ahead (another histogram, or a restart) the difference is 0.
    pub fn minus(&self, earlier: &Snapshot) -> Snapshot {
        let mut interval = Snapshot::new();
        for (number, page) in self.pages.iter().enumerate() {
            let Some(page) = page else { continue };
            match &earlier.pages[number] {
                Some(before) => {
                    let rise = page.iter().zip(before.iter());
                    interval.add_page(number, rise.map(|(now, then)| now.saturating_sub(*then)));
                }
                None => interval.add_page(number, page.iter().copied()),
            }
        }
        let max = if self.max > earlier.max {
            self.max
        } else {
            interval.highest_slot().map_or(0, |slot| slot.highest().min(self.max))
        };
        interval.add_totals(
            self.sum.saturating_sub(earlier.sum),
            max,
            self.saturated.saturating_sub(earlier.saturated),
        );
        interval
    }

    /// The same counts as an `hdrhistogram`, to serialise or to plot.
    ///
    /// Sum and maximum become those of the slots, as that type keeps no exact ones.
    pub fn to_hdr(&self) -> hdrhistogram::Histogram<u64> {
        let mut hdr = hdrhistogram::Histogram::new_with_bounds(1, VALUE_MAX, SIGNIFICANT_DIGITS)
            .unwrap_or_else(|error| unreachable!("constant bounds: {error}"));
        for (slot, count) in self.occupied() {
            hdr.saturating_record_n(slot.lowest(), count);
        }
        hdr
    }

    /// Occupied slots in ascending order, as the smallest value, the largest value and the count.
    pub fn slots(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.occupied().map(|(slot, count)| (slot.lowest(), slot.highest(), count))
    }

    /// Adds one page of counts, and repairs a maximum that a concurrent writer has outrun.
    pub(crate) fn add_page(&mut self, number: usize, counts: impl Iterator<Item = u64>) {
        let page = self.pages[number].get_or_insert_with(empty_page);
        let mut highest = None;
        for (index, (mine, theirs)) in page.iter_mut().zip(counts).enumerate() {
            if theirs > 0 {
                *mine = mine.saturating_add(theirs);
                self.count = self.count.saturating_add(theirs);
                highest = Some(index);
            }
        }
        if let Some(index) = highest {
            self.max = self.max.max(Slot { page: number, index }.lowest());
        }
    }

    pub(crate) fn add_totals(&mut self, sum: u64, max: u64, saturated: u64) {
        self.sum = self.sum.saturating_add(sum);
        self.max = self.max.max(max);
        self.saturated = self.saturated.saturating_add(saturated);
    }

    fn occupied(&self) -> impl Iterator<Item = (Slot, u64)> {
        let pages = self.pages.iter().enumerate();
        let touched = pages.filter_map(|(number, page)| Some((number, page.as_deref()?)));
        touched.flat_map(|(page, counts)| {
            let slots = counts.iter().enumerate();
            slots.filter(|(_, count)| **count > 0).map(move |(index, c)| (Slot { page, index }, *c))
        })
    }

    fn highest_slot(&self) -> Option<Slot> {
        self.occupied().last().map(|(slot, _)| slot)
    }
}

fn empty_page() -> Page {
    vec![0; PAGE_SLOTS]
        .into_boxed_slice()
        .try_into()
        .unwrap_or_else(|_| unreachable!("a vector of PAGE_SLOTS counts"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer stores the slot before the maximum, so a reader may meet the one without the other.
    #[test]
    fn maximum_that_lags_behind_its_slot_is_raised_to_the_slot() {
        let slot = Slot::of(1_000_000);
        let mut counts = [0; PAGE_SLOTS];
        counts[slot.index] = 1;
        let mut snapshot = Snapshot::new();
        snapshot.add_page(slot.page, counts.into_iter());
        snapshot.add_totals(0, 0, 0);
        assert_eq!(snapshot.max(), slot.lowest());
        assert_eq!(snapshot.percentile(100.0), slot.lowest());
    }
}
