//! What one reading of the clock and one record cost: `cargo run --release --example record_cost`.
//!
//! Each figure is the least of several rounds, in nanoseconds per operation; each round's result is
//! asserted, so that the work cannot be optimised away.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use ringway_stats::limits::LATENCY_BOUNDS_NS;
use ringway_stats::{Counter, Histogram, Snapshot, clock};

const ROUNDS: usize = 15;
const OPERATIONS: u64 = 4_000_000;

fn main() {
    println!("now_ns before calibration   {:6.2} ns", now_cost());
    let start = Instant::now();
    clock::calibrate();
    println!("calibrate                   {:6.2} ms", start.elapsed().as_secs_f64() * 1e3);
    println!("drift right after           {:6} ns", clock::drift_ns());
    println!("now_ns after calibration    {:6.2} ns", now_cost());
    println!("counter increment           {:6.2} ns", counter_cost());
    println!("histogram record, 1 octave  {:6.2} ns", record_cost(20, 1));
    println!("histogram record, 4 octaves {:6.2} ns", record_cost(18, 4));
    println!("histogram record, 16        {:6.2} ns", record_cost(12, 16));
    let (add, buckets) = scrape_cost();
    println!("add_to, 4 octaves           {:6.2} us", add / 1e3);
    println!("cumulative_le, 18 bounds    {:6.2} us", buckets / 1e3);
    let start = clock::drift_ns();
    std::thread::sleep(Duration::from_secs(2));
    let ns_per_s = (clock::drift_ns() - start) as f64 / 2.0;
    println!("rate against the kernel's   {:6.2} ppm", ns_per_s / 1e3);
}

/// Least time per operation over the rounds.
fn least(operations: u64, mut round: impl FnMut()) -> f64 {
    let times = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        round();
        start.elapsed()
    });
    times.min().unwrap_or_default().as_nanos() as f64 / operations as f64
}

fn now_cost() -> f64 {
    least(OPERATIONS, || {
        let first = clock::now_ns();
        let mut last = first;
        for _ in 0..OPERATIONS {
            let next = clock::now_ns();
            assert!(next >= last);
            last = next;
        }
        assert!(last > first);
    })
}

fn counter_cost() -> f64 {
    let counter = Counter::new();
    let cost = least(OPERATIONS, || {
        for _ in 0..OPERATIONS {
            black_box(&counter).increment();
        }
    });
    assert_eq!(counter.value(), OPERATIONS * ROUNDS as u64);
    cost
}

/// Latencies from `1 << bits` on, spread evenly over so many octaves.
fn latencies(bits: u32, octaves: u64) -> Vec<u64> {
    let scatter = |number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let within = |number: u64| (1 << bits) + (scatter(number) >> (64 - bits));
    (0..4096).map(|number| within(number) << (scatter(number) % octaves)).collect()
}

fn filled(histogram: &Histogram, values: &[u64]) {
    let passes = OPERATIONS / values.len() as u64;
    for _ in 0..passes {
        for &value in values {
            histogram.record(value);
        }
    }
}

fn record_cost(bits: u32, octaves: u64) -> f64 {
    let values = latencies(bits, octaves);
    let recorded = OPERATIONS / values.len() as u64 * values.len() as u64;
    let histogram = Histogram::new();
    let cost = least(recorded, || filled(black_box(&histogram), black_box(&values)));
    assert_eq!(histogram.snapshot().count(), recorded * ROUNDS as u64);
    cost
}

fn scrape_cost() -> (f64, f64) {
    let histogram = Histogram::new();
    filled(&histogram, &latencies(18, 4));
    let mut total = Snapshot::new();
    let add = least(1, || black_box(&histogram).add_to(&mut total));
    assert_eq!(total.count(), histogram.count() * ROUNDS as u64);
    let mut counts = Vec::new();
    let buckets = least(1, || counts = black_box(&total).cumulative_le(&LATENCY_BOUNDS_NS));
    assert_eq!(counts.last(), Some(&total.count()));
    (add, buckets)
}
