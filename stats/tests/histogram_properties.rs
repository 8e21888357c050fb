//! The histogram against exact sorted values, against `hdrhistogram`, and against itself in shards.

use hdrhistogram::Histogram as Hdr;
use proptest::collection::vec;
use proptest::prelude::*;
use ringway_stats::limits::{LATENCY_BOUNDS_NS, VALUE_MAX};
use ringway_stats::{Histogram, Snapshot};

const PERCENTS: [f64; 9] = [0.1, 1.0, 10.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0];

/// Values of every magnitude, each about as likely; some over the range.
fn any_value() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0u32..64).prop_map(|(bits, shift)| bits >> shift)
}

/// As `any_value`, within the range.
fn value_in_range() -> impl Strategy<Value = u64> {
    any_value().prop_map(|value| value & VALUE_MAX)
}

fn recorded(values: &[u64]) -> Histogram {
    let histogram = Histogram::new();
    for &value in values {
        histogram.record(value);
    }
    histogram
}

fn recorded_by_hdr(values: &[u64]) -> Hdr<u64> {
    let mut hdr = Hdr::new_with_bounds(1, VALUE_MAX, 3).expect("valid bounds");
    for &value in values {
        hdr.saturating_record(value);
    }
    hdr
}

/// The smallest recorded value with at least `percent` per cent of the values at or below it.
fn exact_percentile(sorted: &[u64], percent: f64) -> u64 {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

proptest! {
    #[test]
    fn percentile_is_at_most_a_thousandth_above_the_exact_one(
        mut values in vec(value_in_range(), 1..400),
    ) {
        let snapshot = recorded(&values).snapshot();
        values.sort_unstable();
        for percent in PERCENTS {
            let exact = exact_percentile(&values, percent);
            let ours = snapshot.percentile(percent);
            prop_assert!(ours >= exact, "p{percent}: {ours} under {exact}");
            prop_assert!(ours - exact <= exact / 1000, "p{percent}: {ours} for {exact}");
        }
    }

    #[test]
    fn slots_and_percentiles_equal_those_of_hdrhistogram(values in vec(any_value(), 1..400)) {
        let snapshot = recorded(&values).snapshot();
        let hdr = recorded_by_hdr(&values);
        let theirs = hdr.iter_recorded().map(|step| {
            let value = step.value_iterated_to();
            (hdr.lowest_equivalent(value), hdr.highest_equivalent(value), step.count_at_value())
        });
        prop_assert!(snapshot.slots().eq(theirs));
        for percent in PERCENTS {
            let theirs = hdr.value_at_percentile(percent).min(snapshot.max());
            prop_assert_eq!(snapshot.percentile(percent), theirs, "p{}", percent);
        }
        prop_assert_eq!(snapshot.to_hdr(), hdr);
    }

    #[test]
    fn totals_are_exact(values in vec(any_value(), 0..400)) {
        let snapshot = recorded(&values).snapshot();
        let sum: u64 = values.iter().map(|value| (*value).min(VALUE_MAX)).sum();
        let over = values.iter().filter(|value| **value > VALUE_MAX).count();
        prop_assert_eq!(snapshot.count(), values.len() as u64);
        prop_assert_eq!(snapshot.sum(), sum);
        prop_assert_eq!(snapshot.max(), values.iter().copied().max().unwrap_or(0));
        prop_assert_eq!(snapshot.saturated(), over as u64);
        if !values.is_empty() {
            prop_assert_eq!(snapshot.mean(), sum as f64 / values.len() as f64);
        }
    }

    #[test]
    fn merge_of_shards_equals_one_histogram_of_all_in_any_order(
        shards in vec(vec(any_value(), 0..100), 0..5),
    ) {
        let whole = recorded(&shards.concat()).snapshot();
        let snapshots: Vec<Snapshot> = shards.iter().map(|s| recorded(s).snapshot()).collect();
        let mut forward = Snapshot::new();
        let mut backward = Snapshot::new();
        let mut direct = Snapshot::new();
        for (shard, snapshot) in shards.iter().zip(&snapshots) {
            forward.merge(snapshot);
            recorded(shard).add_to(&mut direct);
        }
        for snapshot in snapshots.iter().rev() {
            backward.merge(snapshot);
        }
        prop_assert_eq!(&forward, &whole);
        prop_assert_eq!(&backward, &whole);
        prop_assert_eq!(&direct, &whole);
    }

    #[test]
    fn difference_of_two_snapshots_holds_what_was_recorded_between_them(
        before in vec(any_value(), 0..200),
        between in vec(any_value(), 0..200),
    ) {
        let histogram = recorded(&before);
        let earlier = histogram.snapshot();
        for &value in &between {
            histogram.record(value);
        }
        let interval = histogram.snapshot().minus(&earlier);
        let alone = recorded(&between).snapshot();
        prop_assert!(interval.slots().eq(alone.slots()));
        prop_assert_eq!(interval.count(), alone.count());
        prop_assert_eq!(interval.sum(), alone.sum());
        prop_assert_eq!(interval.saturated(), alone.saturated());
        let (ours, exact) = (interval.max().min(VALUE_MAX), alone.max().min(VALUE_MAX));
        prop_assert!(ours >= exact && ours - exact <= exact / 1000, "{ours} for {exact}");
    }

    #[test]
    fn cumulative_counts_ascend_and_include_at_most_a_thousandth_above_the_bound(
        values in vec(value_in_range(), 0..400),
        mut bounds in vec(value_in_range(), 0..20),
    ) {
        bounds.sort_unstable();
        let counts = recorded(&values).snapshot().cumulative_le(&bounds);
        prop_assert_eq!(counts.len(), bounds.len());
        prop_assert!(counts.is_sorted());
        let at_most = |bound| values.iter().filter(|value| **value <= bound).count() as u64;
        for (&bound, &count) in bounds.iter().zip(&counts) {
            prop_assert!(count >= at_most(bound));
            prop_assert!(count <= at_most(bound + bound / 1000));
        }
    }
}

#[test]
fn value_equal_to_a_bound_counts_under_that_bound_and_not_under_the_one_before() {
    for (index, &bound) in LATENCY_BOUNDS_NS.iter().enumerate() {
        let counts = recorded(&[bound]).snapshot().cumulative_le(&LATENCY_BOUNDS_NS);
        assert_eq!(counts.iter().position(|count| *count == 1), Some(index), "{bound} ns");
    }
}

#[test]
fn bounds_under_2048_cut_exactly() {
    let values: Vec<u64> = (0..4096).collect();
    let bounds: Vec<u64> = (0..2048).collect();
    let counts = recorded(&values).snapshot().cumulative_le(&bounds);
    assert!(counts.iter().zip(&bounds).all(|(count, bound)| *count == bound + 1));
}

#[test]
fn empty_snapshot_answers_zero_everywhere() {
    let empty = Histogram::new().snapshot();
    assert_eq!(empty, Snapshot::new());
    assert_eq!((empty.count(), empty.sum(), empty.max(), empty.percentile(99.0)), (0, 0, 0, 0));
    assert_eq!(empty.mean(), 0.0);
    assert_eq!(empty.cumulative_le(&[1, 2]), [0, 0]);
    assert_eq!(empty.minus(&recorded(&[7]).snapshot()).count(), 0);
}

#[test]
fn percent_outside_its_range_is_cut_to_it() {
    let snapshot = recorded(&[1, 2, 3]).snapshot();
    assert_eq!(snapshot.percentile(-5.0), 1);
    assert_eq!(snapshot.percentile(f64::NAN), 1);
    assert_eq!(snapshot.percentile(250.0), 3);
}
