//! Memory with idle connections, each of which has carried one request before.
//!
//! What counts is the growth of the proxy's resident memory per connection; the kernel's socket
//! buffers are not in it. For a master with a worker it is the proportional set of both.

use std::{io, net::TcpStream, thread, time::Duration};

use super::{
    Bench,
    peer::{Peer, Proxy},
    probe,
    report::{Metric, Report},
    scenario::Scenario,
    start::{RSS, fresh, push},
};
use crate::{error::Error, terminal};

/// Fresh proxies per peer.
const REPEATS: u32 = 2;
/// Body of the one request that each connection sends.
const REQUEST_BYTES: usize = 16 * 1024;
/// A connection gives its buffer back after about a second of silence; three are plenty.
const SILENCE: Duration = Duration::from_secs(3);
/// Idle connections that are asked once more at the end: were they really kept?
const STILL_ALIVE: usize = 50;
const GOAL_MIB: f64 = 10.0;
const GOAL_BYTES: f64 = 1024.0;

const PER_CONNECTION: Metric = Metric { id: "bytes_per_idle_connection", unit: "B" };

/// Measures every contender.
pub(super) fn measure(
    bench: &Bench,
    scenario: Scenario,
    connections: u32,
    report: &mut Report,
) -> Result<(), Error> {
    let mut order: Vec<Peer> = bench.contenders.clone();
    let (mut sizes, mut shares) = (fresh(&order), fresh(&order));
    for repeat in 0..REPEATS {
        for &peer in &order {
            terminal::progress(&format!("{}: {} ({})", scenario.id(), peer.id(), repeat + 1));
            let (before_kib, after_kib) = one_proxy(bench, peer, scenario, connections)?;
            push(&mut sizes, peer, after_kib / 1024.0);
            let growth = (after_kib - before_kib) * 1024.0;
            push(&mut shares, peer, growth / f64::from(connections.max(1)));
        }
        order.reverse();
    }
    report.compare(scenario.id(), RSS, &sizes);
    if connections == 0 {
        report.compare_with_goal(scenario.id(), RSS, &sizes, GOAL_MIB);
    } else {
        report.compare(scenario.id(), PER_CONNECTION, &shares);
        report.compare_with_goal(scenario.id(), PER_CONNECTION, &shares, GOAL_BYTES);
    }
    Ok(())
}

/// Resident KiB before the connections, and with them idle.
fn one_proxy(
    bench: &Bench,
    peer: Peer,
    scenario: Scenario,
    connections: u32,
) -> Result<(f64, f64), Error> {
    let proxy = Proxy::start(bench, peer)?;
    thread::sleep(Duration::from_secs(1));
    let resident = || -> Result<f64, Error> {
        let memory = proxy.child.process().memory();
        Ok(memory.map_err(Error::io("read the memory in use"))?.resident_kib as f64)
    };
    let before = resident()?;
    if connections == 0 {
        return Ok((before, before));
    }
    let bad = |done: usize, error: &io::Error| {
        terminal::warn(&format!("connection {done} through {}: {error}", peer.id()));
        Error::BadRound {
            scenario: scenario.id().to_owned(),
            peer: peer.id().to_owned(),
            requests: done as u64,
            errors: 1,
        }
    };
    let mut held: Vec<TcpStream> = Vec::with_capacity(connections as usize);
    for _ in 0..connections {
        held.push(used_connection(&proxy).map_err(|error| bad(held.len(), &error))?);
    }
    thread::sleep(SILENCE);
    let after = resident()?;
    let step = (held.len() / STILL_ALIVE).max(1);
    for stream in held.iter_mut().step_by(step) {
        let answer = probe::get(stream, "bench", "/").map_err(|error| bad(0, &error))?;
        if answer.status != 200 {
            return Err(bad(0, &io::Error::other(format!("status {}", answer.status))));
        }
    }
    Ok((before, after))
}

fn used_connection(proxy: &Proxy) -> io::Result<TcpStream> {
    let mut stream = probe::connect(proxy.addresses.http)?;
    let answer = probe::post(&mut stream, "/upload", &[b'x'; REQUEST_BYTES])?;
    if answer.status == 200 {
        return Ok(stream);
    }
    Err(io::Error::other(format!("status {}", answer.status)))
}
