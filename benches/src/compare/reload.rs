//! Requests at one rate for all while the table is replaced again and again.
//!
//! A request of Ringway's that fails fails the run. Those of a peer are counted and named: a client
//! of it would have had to try again.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::{
    Bench,
    findings::Findings,
    peer::{DIRECT, OURS, Proxy, Setup},
    requests::{self, Lane},
    routes,
    scenario::{Reload, Scenario},
    table::Table,
};
use crate::{
    error::Error,
    load::{self, Pace, Record, Wanted},
};

/// Load before the first round, and to find the rate.
const WARM_UP: Duration = Duration::from_secs(1);
/// A round sees at least so many reloads.
const RELOADS_PER_ROUND: u32 = 4;

/// A proxy and the table in force.
struct Contender {
    proxy: Proxy,
    table: Table,
    failed: u64,
    asked: u64,
    reloads: u32,
}

/// Measures every contender.
pub(super) fn measure(
    bench: &Bench,
    scenario: &Scenario,
    asked: &Reload,
    findings: &mut Findings,
) -> Result<(), Error> {
    let mut contenders = BTreeMap::new();
    let mut rates: Vec<(String, Vec<f64>)> = Vec::new();
    for peer in bench.peers_with(scenario.setup().name, findings) {
        let table = Table::new(asked.count);
        let setup = Setup { table: Some(table), ..scenario.setup() };
        let warm = Proxy::start(bench, &peer, setup).and_then(|proxy| {
            let wanted = routes::wanted(&proxy, table, asked.connections, WARM_UP);
            Ok((load::measure(&wanted, Pace::Closed)?.rate(), proxy))
        });
        match warm {
            Ok((rate, proxy)) => {
                rates.push((peer.id.clone(), vec![rate]));
                let new = Contender { proxy, table, failed: 0, asked: 0, reloads: 0 };
                contenders.insert(peer.id.clone(), new);
            }
            Err(error) => findings.failed(&peer.id, &error),
        }
    }
    let rate = requests::common_rate(rates.iter().map(|(peer, rates)| (peer, &rates[..])))?;
    let targets = contenders.iter().map(|(peer, one)| (peer.clone(), one.proxy.addresses.http));
    let mut lanes = requests::lanes(bench, targets)?;
    requests::latency(bench, findings, &mut lanes, rate, |lane| {
        one_round(bench, (asked, scenario.setup()), rate, lane, contenders.get_mut(&lane.peer))
    });
    for (peer, one) in &contenders {
        let text =
            format!("{} of {} requests failed in {} reloads", one.failed, one.asked, one.reloads);
        findings.note(format!("{peer}: {text}"));
        if peer == OURS && one.failed > 0 {
            findings.failures.push(format!("{}: {text}", scenario.id));
        }
    }
    Ok(())
}

fn one_round(
    bench: &Bench,
    (asked, setup): (&Reload, Setup<'_>),
    rate: f64,
    lane: &Lane,
    contender: Option<&mut Contender>,
) -> Result<Record, Error> {
    let duration = Duration::from_secs(bench.seconds).max(asked.every * RELOADS_PER_ROUND);
    let Some(contender) = contender else {
        debug_assert_eq!(lane.peer, DIRECT);
        let exchange = load::Exchange::http1(&Table::new(asked.count).requests());
        let direct = Wanted {
            connections: asked.connections,
            duration,
            ..Wanted::new(lane.target, exchange)
        };
        let record = load::measure(&direct, requests::open(rate))?;
        requests::not_late(bench, &record)?;
        return Ok(record);
    };
    let wanted = routes::wanted(&contender.proxy, contender.table, asked.connections, duration);
    let done = AtomicBool::new(false);
    let (record, reloaded) = std::thread::scope(|scope| {
        // The load's thread measures; this one, which owns the proxy, replaces its files.
        let load = scope.spawn(|| {
            let record = load::measure(&wanted, requests::open(rate));
            done.store(true, Ordering::Release);
            record
        });
        let reloaded = reload_until(bench, asked, setup, contender, &done);
        (load.join(), reloaded)
    });
    reloaded?;
    let record = record.map_err(|_| Error::Usage("the load's thread ended early".to_owned()))??;
    // A request that failed in a void round has failed all the same.
    contender.failed += record.error_count();
    contender.asked += record.intended;
    requests::not_late(bench, &record)?;
    Ok(record)
}

fn reload_until(
    bench: &Bench,
    asked: &Reload,
    setup: Setup<'_>,
    contender: &mut Contender,
    done: &AtomicBool,
) -> Result<(), Error> {
    let began = Instant::now();
    let mut next = asked.every / 2;
    while !done.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(10));
        if began.elapsed() < next {
            continue;
        }
        next += asked.every;
        contender.table = contender.table.next();
        let prepared =
            contender.proxy.prepare(bench, Setup { table: Some(contender.table), ..setup })?;
        contender.proxy.reload(&prepared)?;
        contender.reloads += 1;
    }
    Ok(())
}
