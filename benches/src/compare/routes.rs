//! Requests under a table of routes: CPU per request, how long a reload takes, bytes per route.
//!
//! The goal of a large table's CPU is relative to the same proxy with a small one: a second Ringway
//! runs beside it and is loaded in turn.

use std::{
    net::TcpStream,
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    Bench,
    findings::{CPU_PER_REQUEST, Findings, PER_ROUTE, RELOAD},
    peer::{OURS, Peer, Proxy, Setup},
    probe, rounds,
    scenario::{Routes, Scenario},
    table::{MARKER, Table},
};
use crate::{
    error::Error,
    limits::READY_MAX,
    load::{self, Exchange, Pace, Wanted},
    terminal,
};

/// Reloads of each proxy.
const RELOADS: u32 = 5;
/// Between two reloads: the next change must not fall into the quiet time after this one.
const RELOAD_PAUSE: Duration = Duration::from_millis(300);

/// A proxy with a table.
struct Contender {
    proxy: Proxy,
    table: Table,
    connections: u32,
    /// The small table beside the large one.
    is_base: bool,
}

/// Measures every contender.
pub(super) fn measure(
    bench: &Bench,
    scenario: &Scenario,
    routes: &Routes,
    findings: &mut Findings,
) -> Result<(), Error> {
    let mut contenders = start_all(bench, scenario, routes, findings);
    let duration = Duration::from_secs(bench.seconds);
    let mut base = Vec::new();
    rounds::run(
        bench,
        "CPU",
        findings,
        &mut contenders,
        |contender| contender.proxy.peer.id.clone(),
        |contender| contender.cpu(duration),
        |findings, contender, (value, user_share)| {
            if contender.is_base {
                base.push(value);
            } else {
                let peer = &contender.proxy.peer.id;
                findings.push_cpu(CPU_PER_REQUEST, peer, (value, user_share));
            }
        },
    );
    if !base.is_empty() {
        findings.relative_to(CPU_PER_REQUEST, base);
    }
    for contender in contenders.iter_mut().filter(|contender| !contender.is_base) {
        let peer = contender.proxy.peer.id.clone();
        if peer == OURS {
            let bytes = contender.table_bytes()?;
            findings.push(PER_ROUTE, &peer, bytes / f64::from(routes.count));
        }
        for reload in 0..RELOADS {
            terminal::progress(&format!("{}: {peer}, reload {}", scenario.id, reload + 1));
            match contender.reload(bench, scenario.setup()) {
                Ok(milliseconds) => findings.push(RELOAD, &peer, milliseconds),
                Err(error) => {
                    findings.failed(&peer, &error);
                    break;
                }
            }
            std::thread::sleep(RELOAD_PAUSE);
        }
    }
    Ok(())
}

fn start_all(
    bench: &Bench,
    scenario: &Scenario,
    routes: &Routes,
    findings: &mut Findings,
) -> Vec<Contender> {
    let peers = bench.peers_with(scenario.setup().name, findings);
    let base = routes.beside.and_then(|count| {
        let ours = peers.iter().find(|peer| peer.id == OURS)?;
        Some((Rc::clone(ours), count, true))
    });
    let all = peers.iter().map(|peer| (Rc::clone(peer), routes.count, false));
    let mut contenders = Vec::new();
    for (peer, count, is_base) in all.chain(base) {
        terminal::progress(&format!("{}: starting {} with {count}", scenario.id, peer.id));
        match Contender::start(bench, &peer, scenario, count, routes.connections) {
            Ok(contender) => contenders.push(Contender { is_base, ..contender }),
            Err(error) => findings.failed(&peer.id, &error),
        }
    }
    contenders
}

impl Contender {
    fn start(
        bench: &Bench,
        peer: &Rc<Peer>,
        scenario: &Scenario,
        count: u32,
        connections: u32,
    ) -> Result<Self, Error> {
        let table = Table::new(count);
        let setup = Setup { table: Some(table), ..scenario.setup() };
        let proxy = Proxy::start(bench, peer, setup)?;
        let mut contender = Self { proxy, table, connections, is_base: false };
        contender.cpu(Duration::from_secs(1))?;
        Ok(contender)
    }

    /// CPU per request in microseconds, and the share of user time.
    fn cpu(&mut self, duration: Duration) -> Result<(f64, f64), Error> {
        self.proxy.child.check()?;
        let wanted = wanted(&self.proxy, self.table, self.connections, duration);
        let process = self.proxy.child.process();
        let read = || process.cpu_time().map_err(Error::io("read the CPU time"));
        let before = read()?;
        let record = load::measure(&wanted, Pace::Closed)?;
        let (total_ns, user_share) = read()?.since(&before);
        let requests = record.corrected.len();
        if record.error_count() > 0 || requests == 0 {
            return Err(Error::BadRound {
                scenario: format!("{} routes", self.table.routes),
                peer: self.proxy.peer.id.clone(),
                requests,
                errors: record.error_count(),
            });
        }
        Ok((total_ns as f64 / 1e3 / requests as f64, user_share))
    }

    /// Bytes of the table by Ringway's own account, which leaves out what the parser needed.
    fn table_bytes(&self) -> Result<f64, Error> {
        let text = probe::fetch(self.proxy.addresses.admin, "/metrics")
            .map_err(Error::io("read the metrics"))?;
        metric(&text, "ringway_config_table_bytes").ok_or_else(|| Error::Malformed {
            what: "the metrics of the proxy".to_owned(),
            detail: "no ringway_config_table_bytes".to_owned(),
        })
    }

    /// Milliseconds from the new file or signal to the first answer of the new table, asked every
    /// millisecond, each time on a new connection: some peers serve the old table on kept ones.
    fn reload(&mut self, bench: &Bench, setup: Setup<'_>) -> Result<f64, Error> {
        let next = self.table.next();
        let prepared = self.proxy.prepare(bench, Setup { table: Some(next), ..setup })?;
        let began = Instant::now();
        self.proxy.reload(&prepared)?;
        while !answers(&self.proxy, next) {
            if began.elapsed() > READY_MAX {
                return Err(self.proxy.child.not_ready(self.proxy.addresses.http));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.table = next;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    }
}

/// Whether the table is in force. A connection that fails meanwhile is not the question here.
fn answers(proxy: &Proxy, table: Table) -> bool {
    let ask = |mut stream: TcpStream| probe::get(&mut stream, MARKER, "/");
    let answer = probe::connect(proxy.addresses.http).and_then(ask);
    answer.is_ok_and(|answer| answer.body == table.answer().as_bytes())
}

/// The load that meets routes all over the table.
pub(super) fn wanted(proxy: &Proxy, table: Table, connections: u32, duration: Duration) -> Wanted {
    let exchange = Exchange::http1(&table.requests());
    Wanted { connections, duration, ..Wanted::new(proxy.addresses.http, exchange) }
}

/// The value of a metric without labels, or the sum over its labels.
fn metric(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let rest = if rest.starts_with('{') { rest.split_once('}')?.1 } else { rest };
        rest.strip_prefix(' ')?.split_whitespace().next()?.parse::<f64>().ok()
    });
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_with_and_without_labels() {
        let text = "# TYPE ringway_config_table_bytes gauge\nringway_config_table_bytes_max 9\n\
                    ringway_config_table_bytes{part=\"a\"} 1\nringway_config_table_bytes{part=\"b\"} 2\n";
        assert_eq!(metric(text, "ringway_config_table_bytes"), Some(3.0));
        assert_eq!(
            metric("ringway_config_table_bytes 1.5e3\n", "ringway_config_table_bytes"),
            Some(1500.0)
        );
        assert_eq!(metric(text, "ringway_config_table"), None);
    }
}
