//! Records: the outcome of one exchange into a worker's shard, and its histogram by itself.

use std::hint::black_box;
use std::rc::Rc;

use ringway::outcome::Cause;
use ringway::recorder::{Outcome, Shard};
use ringway_stats::Histogram;

use super::{INPUTS, Workload, scattered, turn};

/// Series of the route and of the cluster.
const ROUTE: u32 = 70;
const CLUSTER: u32 = 3;

pub(super) fn all() -> Vec<Workload> {
    vec![record_outcome("record_outcome"), record_latency("record_latency")]
}

/// Latencies of 0.26 to 2.1 ms: three octaves.
fn latency_ns(number: usize) -> u64 {
    let spread = scattered(number);
    ((1 << 18) + (spread >> 46)) << (spread % 3)
}

/// Every sixteenth exchange fails.
fn outcome(number: usize) -> Outcome {
    let failed = number % 16 == 15;
    Outcome {
        route: ROUTE,
        cluster: Some(CLUSTER),
        endpoint: None,
        status: if failed { 503 } else { 200 },
        cause: failed.then_some(Cause::ConnectFailed),
        total_ns: latency_ns(number),
        upstream_ns: latency_ns(number) / 2,
        attempts: 1,
        grpc: None,
    }
}

fn record_outcome(name: &'static str) -> Workload {
    let shard = Rc::new(Shard::default());
    let written = Rc::clone(&shard);
    let outcomes: Vec<Outcome> = (0..INPUTS).map(outcome).collect();
    let mut at = 0;
    let operation = move || {
        black_box(&*written).record(black_box(&outcomes[turn(&mut at)]));
        true
    };
    let holds = move |recorded: u64| {
        let series = shard.routes.get(ROUTE as usize).expect("it was touched");
        let cluster = shard.clusters.get(CLUSTER as usize).expect("it was touched");
        let by_class: u64 = series.by_class.iter().map(ringway_stats::Counter::value).sum();
        let failed = shard.causes[Cause::ConnectFailed as usize].value();
        [series.latency.count(), cluster.latency.count(), by_class] == [recorded; 3]
            && failed == recorded / 16
    };
    Workload::new(name, INPUTS, operation, holds)
}

fn record_latency(name: &'static str) -> Workload {
    let histogram = Rc::new(Histogram::new());
    let written = Rc::clone(&histogram);
    let latencies: Vec<u64> = (0..INPUTS).map(latency_ns).collect();
    let mut at = 0;
    let operation = move || {
        black_box(&*written).record(black_box(latencies[turn(&mut at)]));
        true
    };
    Workload::new(name, INPUTS, operation, move |recorded| histogram.count() == recorded)
}
