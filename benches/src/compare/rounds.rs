//! CPU per request and per byte: every proxy under load once per round, interleaved.

use std::time::{Duration, Instant};

use super::{
    Bench,
    peer::{Peer, Proxy},
    report::{Metric, Report, Samples},
    scenario::{Kind, Scenario},
};
use crate::{
    bodies::{self, Protocol},
    error::Error,
    procfs, terminal, wrk,
};

/// Connections of the small-request load.
pub(super) const SMALL_CONNECTIONS: u32 = 64;
/// Connections of the body load.
const BODY_CONNECTIONS: u32 = 4;
/// Load before the first round: pools filled, buffers grown.
const WARM_UP: Duration = Duration::from_secs(1);
/// A round in which more of one core's time was stolen is void.
const STOLEN_SHARE_MAX: f64 = 0.01;

const CPU_PER_REQUEST: Metric = Metric { id: "cpu_us_per_request", unit: "us" };
const CPU_PER_GB: Metric = Metric { id: "cpu_s_per_gb", unit: "s/GB" };

/// What a load delivered.
struct Done {
    /// Requests, or gigabytes (10^9).
    units: f64,
    requests: u64,
    errors: u64,
}

/// Measures one scenario for all contenders.
pub(super) fn measure(bench: &Bench, scenario: Scenario, report: &mut Report) -> Result<(), Error> {
    let mut proxies = Vec::new();
    for &peer in &bench.contenders {
        let warm = Proxy::start(bench, peer).and_then(|proxy| {
            load(&proxy, scenario, WARM_UP)?;
            Ok(proxy)
        });
        match warm {
            Ok(proxy) => proxies.push((proxy, Samples::default())),
            Err(error) => report.failed(scenario.id(), &error),
        }
    }
    let voided = go_rounds(bench, scenario, &mut proxies, report);
    report.voided(scenario.id(), voided);
    let mut found: Vec<(Peer, Samples)> =
        proxies.into_iter().map(|(proxy, samples)| (proxy.peer, samples)).collect();
    found.sort_by_key(|(peer, _)| bench.contenders.iter().position(|other| other == peer));
    report.compare(scenario.id(), metric(scenario), &found);
    Ok(())
}

/// Runs as many undisturbed rounds as are asked for, and returns how many were void. When more are
/// void than good, the last ones count as they are: the machine is like that.
fn go_rounds(
    bench: &Bench,
    scenario: Scenario,
    proxies: &mut Vec<(Proxy, Samples)>,
    report: &mut Report,
) -> u32 {
    let (mut good, mut voided) = (0, 0);
    while good < bench.rounds {
        terminal::progress(&format!(
            "{}: round {} of {}, {voided} void",
            scenario.id(),
            good + 1,
            bench.rounds
        ));
        let clock = Disturbance::begin();
        let mut values = Vec::with_capacity(proxies.len());
        proxies.retain_mut(|(proxy, _)| match one_round(bench, proxy, scenario) {
            Ok(value) => {
                values.push(value);
                true
            }
            Err(error) => {
                report.failed(scenario.id(), &error);
                false
            }
        });
        let stolen = clock.stolen();
        report.stolen(scenario.id(), stolen);
        if clock.is_too_much(stolen) && voided < bench.rounds {
            voided += 1;
        } else {
            good += 1;
            for ((_, samples), (value, user_share)) in proxies.iter_mut().zip(values) {
                samples.push(value, Some(user_share));
            }
        }
        // ABBA: every second round runs backwards.
        proxies.reverse();
    }
    voided
}

/// Whether the hypervisor took the machine away while something was measured.
struct Disturbance {
    began: Instant,
    stolen_before: u64,
}

impl Disturbance {
    fn begin() -> Self {
        Self { began: Instant::now(), stolen_before: procfs::stolen_ticks().unwrap_or(0) }
    }

    /// Clock ticks of 10 ms taken since.
    fn stolen(&self) -> u64 {
        procfs::stolen_ticks().unwrap_or(0).saturating_sub(self.stolen_before)
    }

    fn is_too_much(&self, stolen: u64) -> bool {
        stolen as f64 / 100.0 > STOLEN_SHARE_MAX * self.began.elapsed().as_secs_f64()
    }
}

fn metric(scenario: Scenario) -> Metric {
    match scenario.kind() {
        Kind::Bodies { .. } => CPU_PER_GB,
        Kind::Requests | Kind::Start | Kind::Idle { .. } | Kind::Routes => CPU_PER_REQUEST,
    }
}

/// CPU per unit, and the share of it that was user time.
fn one_round(bench: &Bench, proxy: &mut Proxy, scenario: Scenario) -> Result<(f64, f64), Error> {
    proxy.child.check()?;
    let read = || proxy.child.process().cpu_time().map_err(Error::io("read the CPU time"));
    let before = read()?;
    let done = load(proxy, scenario, Duration::from_secs(bench.seconds))?;
    let (total_ns, user_share) = read()?.since(&before);
    let scale = match scenario.kind() {
        Kind::Bodies { .. } => 1e9,
        Kind::Requests | Kind::Start | Kind::Idle { .. } | Kind::Routes => 1e3,
    };
    Ok((total_ns as f64 / scale / done.units, user_share))
}

/// Puts `proxy` under the scenario's load. A load with errors is an error: its CPU figure would
/// count work that was not done, or not count work that was.
fn load(proxy: &Proxy, scenario: Scenario, duration: Duration) -> Result<Done, Error> {
    let done = match scenario.kind() {
        Kind::Bodies { protocol, bytes } => {
            let target = match protocol {
                Protocol::Tcp => proxy.addresses.tcp,
                Protocol::Http => proxy.addresses.http,
            };
            let connections = BODY_CONNECTIONS;
            let load = bodies::Load { protocol, target, bytes, connections, duration };
            let sum = bodies::run(&load)?;
            Done { units: sum.bytes as f64 / 1e9, requests: sum.bodies, errors: sum.errors }
        }
        Kind::Requests | Kind::Start | Kind::Idle { .. } | Kind::Routes => {
            let load = wrk::Load {
                target: proxy.addresses.http,
                connections: SMALL_CONNECTIONS,
                seconds: duration.as_secs(),
                script: None,
            };
            let sum = wrk::run(&load)?;
            Done { units: sum.requests as f64, requests: sum.requests, errors: sum.errors }
        }
    };
    if done.errors > 0 || done.requests == 0 {
        return Err(Error::BadRound {
            scenario: scenario.id().to_owned(),
            peer: proxy.peer.id().to_owned(),
            requests: done.requests,
            errors: done.errors,
        });
    }
    Ok(done)
}
