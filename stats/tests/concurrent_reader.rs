//! One thread records while another reads: what a scrape sees is whole and never goes back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ringway_stats::limits::VALUE_MAX;
use ringway_stats::{Counter, Histogram, Slots, Snapshot};

const RECORDS: u64 = 1_000_000;

/// Spreads consecutive numbers over every magnitude, some over the range.
fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (number % 64)
}

/// Runs `write` on a thread of its own and `read` on this one until the writer is done, then once
/// more.
fn while_writing(write: impl FnOnce() + Send, mut read: impl FnMut()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            write();
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            read();
        }
    });
    read();
}

#[test]
fn successive_snapshots_never_lose_a_count() {
    let histogram = Histogram::new();
    let mut last = Snapshot::new();
    let write = || {
        for number in 0..RECORDS {
            histogram.record(scattered(number));
        }
    };
    while_writing(write, || {
        let next = histogram.snapshot();
        let interval = next.minus(&last);
        // `minus` cuts a slot that shrank to 0, so the counts add up only if none did.
        assert_eq!(last.count() + interval.count(), next.count());
        assert!(next.max() >= last.max());
        assert!(next.percentile(50.0) <= next.percentile(99.9));
        assert!(next.percentile(100.0) <= next.max());
        assert!(next.cumulative_le(&[1_000, 1_000_000, VALUE_MAX]).is_sorted());
        assert_eq!(next.cumulative_le(&[VALUE_MAX]), [next.count()]);
        last = next;
    });
    assert_eq!(last.count(), RECORDS);
    assert_eq!(histogram.count(), RECORDS);
}

#[test]
fn counter_is_never_seen_to_fall() {
    let counter = Counter::new();
    let mut last = 0;
    let write = || (0..10 * RECORDS).for_each(|_| counter.increment());
    while_writing(write, || {
        let next = counter.value();
        assert!(next >= last);
        last = next;
    });
    assert_eq!(last, 10 * RECORDS);
}

#[test]
fn slot_that_was_seen_touched_stays_and_its_neighbours_stay_absent() {
    const CAPACITY: usize = 100_000;
    let slots: Slots<Counter> = Slots::new(CAPACITY);
    let mut last = 0;
    let write = || {
        for index in (0..CAPACITY).step_by(3) {
            slots.touch(index).unwrap().increment();
        }
    };
    while_writing(write, || {
        let seen: Vec<usize> = slots.iter().map(|(index, _)| index).collect();
        assert!(seen.len() >= last);
        assert!(seen.iter().all(|index| index % 3 == 0));
        last = seen.len();
    });
    assert_eq!(last, CAPACITY.div_ceil(3));
    assert!(slots.iter().all(|(_, counter)| counter.value() == 1));
}
