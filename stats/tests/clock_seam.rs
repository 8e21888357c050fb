//! The switch from CLOCK_MONOTONIC to the calibrated counter, which happens once in a process:
//! hence one test in a file of its own.

use std::sync::Barrier;
use std::thread;

use ringway_stats::clock::{calibrate, drift_ns, is_calibrated, now_ns};

const READERS: usize = 3;
const READINGS_AFTER: usize = 100_000;
const MILLISECOND: u64 = 1_000_000;

/// The distance from CLOCK_MONOTONIC, least disturbed of many readings.
fn distance_ns() -> u64 {
    (0..1_000).map(|_| drift_ns().unsigned_abs()).min().expect("a thousand readings")
}

fn read_across_the_switch(start: &Barrier) {
    let mut last = now_ns();
    assert!(last > 0);
    start.wait();
    let mut left = READINGS_AFTER;
    while left > 0 {
        let next = now_ns();
        assert!(next >= last, "{next} after {last}");
        last = next;
        if is_calibrated() {
            left -= 1;
        }
    }
}

#[test]
fn time_goes_forward_on_every_thread_across_the_switch_and_the_seam_is_under_a_millisecond() {
    assert!(!is_calibrated());
    assert!(distance_ns() < MILLISECOND);
    let start = Barrier::new(READERS + 1);
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| read_across_the_switch(&start));
        }
        start.wait();
        calibrate();
        assert!(is_calibrated());
        assert!(distance_ns() < MILLISECOND, "{} ns", distance_ns());
        calibrate();
    });
    assert!(distance_ns() < MILLISECOND, "{} ns", distance_ns());
}
