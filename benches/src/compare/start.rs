//! From exec to the first answer, and the memory that a started proxy takes.
//!
//! The clock runs from just before the process is made to the first 200 that came through the proxy
//! from the origin, on a client that asks without pause: accepted, parsed, forwarded and answered.

use std::time::{Duration, Instant};

use super::{
    Bench,
    peer::{Peer, Proxy},
    report::{Metric, Report, Samples},
};
use crate::{error::Error, terminal};

/// Starts of each proxy; they are short and vary more than loads do.
const STARTS: u32 = 10;
/// Time for a started proxy to finish what it does in the background.
const SETTLE: Duration = Duration::from_millis(200);
/// Ratios to these stand in the rows of peer `goal`.
const GOAL_MS: f64 = 10.0;
const GOAL_MIB: f64 = 10.0;

const EXEC_TO_ACCEPT: Metric = Metric { id: "exec_to_accept_ms", unit: "ms" };
pub(super) const RSS: Metric = Metric { id: "rss_mib", unit: "MiB" };

/// Starts every contender again and again.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    let mut order: Vec<Peer> = bench.contenders.clone();
    let mut times: Vec<(Peer, Samples)> = fresh(&order);
    let mut sizes: Vec<(Peer, Samples)> = fresh(&order);
    for start in 0..STARTS {
        terminal::progress(&format!("start: {} of {STARTS}", start + 1));
        for &peer in &order {
            let (milliseconds, mebibytes) = one_start(bench, peer)?;
            push(&mut times, peer, milliseconds);
            push(&mut sizes, peer, mebibytes);
        }
        order.reverse();
    }
    report.compare("start", EXEC_TO_ACCEPT, &times);
    report.compare_with_goal("start", EXEC_TO_ACCEPT, &times, GOAL_MS);
    report.compare("start", RSS, &sizes);
    report.compare_with_goal("start", RSS, &sizes, GOAL_MIB);
    Ok(())
}

fn one_start(bench: &Bench, peer: Peer) -> Result<(f64, f64), Error> {
    let began = Instant::now();
    let mut proxy = Proxy::spawn(bench, peer)?;
    proxy.wait_for_answer()?;
    let elapsed = began.elapsed();
    std::thread::sleep(SETTLE);
    let memory = proxy.child.process().memory().map_err(Error::io("read the memory in use"))?;
    Ok((elapsed.as_secs_f64() * 1e3, memory.resident_kib as f64 / 1024.0))
}

/// No samples yet, for every peer.
pub(super) fn fresh(peers: &[Peer]) -> Vec<(Peer, Samples)> {
    peers.iter().map(|&peer| (peer, Samples::default())).collect()
}

/// Adds a sample to the peer's own.
pub(super) fn push(all: &mut [(Peer, Samples)], peer: Peer, value: f64) {
    if let Some((_, samples)) = all.iter_mut().find(|(owner, _)| *owner == peer) {
        samples.push(value, None);
    }
}
