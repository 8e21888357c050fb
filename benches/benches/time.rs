//! Times each workload with criterion: `make bench-micro`.
//!
//! # Not here
//! What can be repeated on a machine that others use: `ringway-bench instructions`.

// The same file as in the program: one set of workloads.
#[path = "../src/micro/workloads/mod.rs"]
#[allow(dead_code, reason = "only instructions are counted by cycles")]
mod workloads;

use std::time::{Duration, Instant};

use criterion::Criterion;

fn main() {
    let criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    let mut criterion = criterion.configure_from_args();
    for mut workload in workloads::all() {
        criterion.bench_function(workload.name, |bencher| {
            bencher.iter_custom(|times| {
                let start = Instant::now();
                workload.run(times);
                start.elapsed()
            });
        });
    }
    criterion.final_summary();
}
