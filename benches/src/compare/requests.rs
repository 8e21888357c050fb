//! Requests and bodies: CPU at full load, then latency at one rate for all.
//!
//! CPU is taken in a closed loop; it does not depend on whether load and origin fill their core.
//! Half of what the slowest of Ringway, HAProxy and nginx reaches there is the open loop's rate.

use std::{net::SocketAddr, time::Duration};

use hdrhistogram::Histogram;

use super::{
    Bench,
    certificates::NAME,
    findings::{CPU_PER_GB, CPU_PER_REQUEST, Findings, P50_ADDED, P99_ADDED},
    peer::{DIRECT, OURS, Proxy},
    rounds,
    scenario::{Bodies, Load, Protocol, Requests, Scenario, Tls},
};
use crate::{
    bodies,
    error::Error,
    load::{self, Agreed, Arrivals, Exchange, Pace, Pattern, Record, Request, Wanted},
};

/// Load before the first round: pools filled, buffers grown.
const WARM_UP: Duration = Duration::from_secs(1);
/// The same before every latency round, on the connections of that round.
const LATENCY_WARM_UP: Duration = Duration::from_millis(500);
/// The rate of the latency rounds, as a share of what the slowest of [`RATED`] reaches.
const RATE_SHARE: f64 = 0.5;
/// Contenders whose throughput sets the rate; the others would let it depend on who takes part.
const RATED: [&str; 3] = [OURS, "haproxy", "nginx"];

/// Length of a message of gRPC.
const MESSAGE_BYTES: u64 = 64;

/// What a load delivered.
struct Done {
    /// Requests, or gigabytes (10^9).
    units: f64,
    requests: u64,
    errors: u64,
    /// What its TLS connections agreed on, if they were any.
    negotiated: Vec<String>,
}

/// A proxy under load, and what it has shown.
struct Contender {
    proxy: Proxy,
    rates: Vec<f64>,
}

/// Where the latency load goes: a proxy, or the origin itself.
pub(super) struct Lane {
    pub(super) peer: String,
    pub(super) target: SocketAddr,
    pub(super) all: Histogram<u64>,
    /// Percentiles of the round, kept until the direct lane's are known.
    pub(super) rounds: Vec<(f64, f64)>,
}

/// Measures one scenario for all contenders.
pub(super) fn measure(
    bench: &Bench,
    scenario: &Scenario,
    findings: &mut Findings,
) -> Result<(), Error> {
    let mut contenders = Vec::new();
    let setup = scenario.setup();
    for peer in bench.peers_with(setup.name, findings) {
        let warm = Proxy::start(bench, &peer, setup).and_then(|proxy| {
            load(bench, &proxy, scenario, WARM_UP)?;
            Ok(proxy)
        });
        match warm {
            Ok(proxy) => contenders.push(Contender { proxy, rates: Vec::new() }),
            Err(error) => findings.failed(&peer.id, &error),
        }
    }
    cpu(bench, scenario, findings, &mut contenders);
    if let (true, Load::Requests(requests)) = (scenario.latency, &scenario.load) {
        let rate = common_rate(contenders.iter().map(|one| (&one.proxy.peer.id, &one.rates[..])))?;
        let targets = contenders
            .iter()
            .map(|Contender { proxy, .. }| (proxy.peer.id.clone(), proxy.addresses.http));
        let mut lanes = lanes(bench, targets)?;
        latency(bench, findings, &mut lanes, rate, |lane| {
            // The origin itself is asked in plain text: TLS is part of what a proxy adds.
            let tls = requests.tls.filter(|_| lane.peer != DIRECT);
            let duration = Duration::from_secs(bench.seconds);
            strict(bench, lane, wanted(bench, lane.target, requests, tls, duration)?, rate)
        });
    }
    Ok(())
}

fn cpu(
    bench: &Bench,
    scenario: &Scenario,
    findings: &mut Findings,
    contenders: &mut Vec<Contender>,
) {
    let is_bulk = match &scenario.load {
        Load::Requests(requests) => requests.bytes.is_some(),
        _ => true,
    };
    let (metric, scale) = if is_bulk { (CPU_PER_GB, 1e9) } else { (CPU_PER_REQUEST, 1e3) };
    let duration = Duration::from_secs(bench.seconds);
    rounds::run(
        bench,
        "CPU",
        findings,
        contenders,
        |contender| contender.proxy.peer.id.clone(),
        |Contender { proxy, .. }| {
            proxy.child.check()?;
            let read = || proxy.child.process().cpu_time().map_err(Error::io("read the CPU time"));
            let before = read()?;
            let done = load(bench, proxy, scenario, duration)?;
            let (total_ns, user_share) = read()?.since(&before);
            Ok((total_ns as f64 / scale / done.units, user_share, done))
        },
        |findings, contender, (value, user_share, done)| {
            let peer = &contender.proxy.peer.id;
            findings.push_cpu(metric, peer, (value, user_share));
            findings.negotiated(peer, done.negotiated);
            contender.rates.push(done.requests as f64 / duration.as_secs_f64());
        },
    );
}

/// Half of what the slowest of the rated contenders reaches, to two digits.
pub(super) fn common_rate<'a>(
    found: impl Iterator<Item = (&'a String, &'a [f64])>,
) -> Result<f64, Error> {
    let medians = found
        .filter(|(peer, rates)| RATED.contains(&peer.as_str()) && !rates.is_empty())
        .map(|(_, rates)| crate::sample::median(rates));
    let slowest = medians.fold(f64::INFINITY, f64::min);
    if !slowest.is_finite() {
        return Err(Error::Usage("no contender whose rate could be taken".to_owned()));
    }
    Ok(format!("{:.1e}", slowest * RATE_SHARE).parse().unwrap_or(slowest))
}

/// A lane for every proxy and, first, the one without a proxy.
pub(super) fn lanes(
    bench: &Bench,
    proxies: impl Iterator<Item = (String, SocketAddr)>,
) -> Result<Vec<Lane>, Error> {
    let direct = std::iter::once((DIRECT.to_owned(), bench.origin_http));
    direct
        .chain(proxies)
        .map(|(peer, target)| {
            let all = Histogram::new(3)
                .map_err(|error| Error::Usage(format!("no histogram: {error}")))?;
            Ok(Lane { peer, target, all, rounds: Vec::new() })
        })
        .collect()
}

/// Open loop through every lane, round by round; what a proxy adds is its percentile less that of
/// the direct lane in the same round.
pub(super) fn latency(
    bench: &Bench,
    findings: &mut Findings,
    lanes: &mut Vec<Lane>,
    rate: f64,
    once: impl FnMut(&mut Lane) -> Result<Record, Error>,
) {
    findings.rate(rate);
    rounds::run(
        bench,
        &format!("latency at {rate}/s"),
        findings,
        lanes,
        |lane| lane.peer.clone(),
        once,
        |_, lane, record| {
            let at = |quantile| record.corrected.value_at_quantile(quantile) as f64 / 1e3;
            lane.rounds.push((at(0.5), at(0.99)));
            // Both have three digits, so that nothing is lost.
            let _ = lane.all.add(&record.corrected);
        },
    );
    let Some(direct) = lanes.iter().find(|lane| lane.peer == DIRECT) else {
        findings.note("without the direct lane nothing is known to be added".to_owned());
        return;
    };
    for lane in lanes.iter() {
        findings.curve(&lane.peer, &lane.all);
        for ((p50, p99), (base50, base99)) in lane.rounds.iter().zip(&direct.rounds) {
            let base = if lane.peer == DIRECT { (0.0, 0.0) } else { (*base50, *base99) };
            findings.push(P50_ADDED, &lane.peer, p50 - base.0);
            findings.push(P99_ADDED, &lane.peer, p99 - base.1);
        }
    }
}

/// One open-loop run in which nothing may fail and the generator may not be late.
fn strict(bench: &Bench, lane: &Lane, wanted: Wanted, rate: f64) -> Result<Record, Error> {
    let wanted = Wanted { warm_up: LATENCY_WARM_UP, ..wanted };
    let record = load::measure(&wanted, open(rate))?;
    not_late(bench, &record)?;
    if record.error_count() > 0 {
        return Err(Error::BadRound {
            scenario: "latency".to_owned(),
            peer: lane.peer.clone(),
            requests: record.corrected.len(),
            errors: record.error_count(),
        });
    }
    Ok(record)
}

pub(super) fn open(rate: f64) -> Pace {
    Pace::Open(Arrivals::new(Pattern::Constant, rate, 1))
}

/// # Errors
/// When the generator was the bottleneck.
pub(super) fn not_late(bench: &Bench, record: &Record) -> Result<(), Error> {
    let lateness = Duration::from_nanos(record.lateness.value_at_quantile(0.99));
    if lateness > bench.lateness_max {
        return Err(Error::Late { lateness, allowed: bench.lateness_max });
    }
    Ok(())
}

fn wanted(
    bench: &Bench,
    target: SocketAddr,
    asked: &Requests,
    tls: Option<Tls>,
    duration: Duration,
) -> Result<Wanted, Error> {
    let request = Request::get(NAME, asked.path.clone());
    let exchange = match asked.protocol {
        Protocol::Http1 => Exchange::http1(&[request]),
        Protocol::Http2 => Exchange::http2(&[request], asked.streams)?,
        Protocol::Grpc => {
            Exchange::grpc(&[Request { body_bytes: MESSAGE_BYTES, ..request }], asked.streams)?
        }
    };
    let wanted = Wanted {
        connections: asked.connections,
        requests_per_connection: asked.requests_per_connection,
        duration,
        ..Wanted::new(target, exchange)
    };
    match tls {
        Some(tls) => wanted.with_tls(&bench.certificates.terms(tls)),
        None => Ok(wanted),
    }
}

/// Puts `proxy` under the scenario's load. A load with errors is an error: its CPU figure would
/// count work that was not done, or not count work that was.
fn load(
    bench: &Bench,
    proxy: &Proxy,
    scenario: &Scenario,
    duration: Duration,
) -> Result<Done, Error> {
    let done = match &scenario.load {
        Load::Bodies(bodies) => load_bodies(proxy, bodies, duration)?,
        Load::Requests(asked) => {
            let wanted = wanted(bench, proxy.addresses.http, asked, asked.tls, duration)?;
            closed(&wanted, asked.bytes)?
        }
        _ => return Err(Error::Usage("a load of another kind".to_owned())),
    };
    if done.errors > 0 || done.requests == 0 {
        return Err(Error::BadRound {
            scenario: scenario.id.clone(),
            peer: proxy.peer.id.clone(),
            requests: done.requests,
            errors: done.errors,
        });
    }
    Ok(done)
}

fn closed(wanted: &Wanted, bytes: Option<u64>) -> Result<Done, Error> {
    let record = load::measure(wanted, Pace::Closed)?;
    let requests = record.corrected.len();
    let units = requests as f64 * bytes.map_or(1.0, |bytes| bytes as f64 / 1e9);
    let agreed = record.handshakes.iter().map(|(agreed, count)| {
        // The first handshakes have nothing to resume.
        let kind = match (count.full, count.resumed) {
            (_, 0) => "full",
            (full, resumed) if full * 9 <= resumed => "resumed",
            _ => "partly resumed",
        };
        let Agreed { version, cipher, group, alpn } = agreed;
        format!("{version} {cipher} {group} {alpn} {kind}")
    });
    let negotiated = agreed.collect();
    Ok(Done { units, requests, errors: record.error_count(), negotiated })
}

fn load_bodies(proxy: &Proxy, asked: &Bodies, duration: Duration) -> Result<Done, Error> {
    let &Bodies { protocol, bytes, connections } = asked;
    let target = match protocol {
        bodies::Protocol::Tcp => proxy.addresses.tcp,
        bodies::Protocol::Http => proxy.addresses.http,
    };
    let sum = bodies::run(&bodies::Load { protocol, target, bytes, connections, duration })?;
    let (units, requests) = (sum.bytes as f64 / 1e9, sum.bodies);
    Ok(Done { units, requests, errors: sum.errors, negotiated: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_half_of_the_slowest_rated_contender() {
        let found = [
            ("envoy".to_owned(), vec![6000.0]),
            ("haproxy".to_owned(), vec![29_000.0, 25_500.0, 26_300.0]),
            (OURS.to_owned(), vec![40_000.0]),
        ];
        let rate = common_rate(found.iter().map(|(peer, rates)| (peer, &rates[..])));
        assert_eq!(rate.unwrap(), 13_000.0);
        let without = [("envoy".to_owned(), vec![6000.0])];
        assert!(common_rate(without.iter().map(|(peer, rates)| (peer, &rates[..]))).is_err());
    }
}
