//! The same requests under 10 and under 100 000 routes: CPU per request, reload, table memory.
//!
//! Ringway only: the peers have no table of that kind to compare with. Two proxies run side by side
//! and are loaded in turn; the goal of the large one is the small one's figure with its surcharge.

use std::{
    fmt::Write as _,
    fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{
    Bench,
    peer::{self, Addresses, Peer, Proxy},
    probe,
    report::{Metric, Report, Samples},
    rounds::SMALL_CONNECTIONS,
};
use crate::{error::Error, limits::READY_MAX, procfs::CpuTime, terminal, wrk};

const FEW: u32 = 10;
const MANY: u32 = 100_000;
/// Routes that share a host name; their paths differ.
const PATHS_PER_HOST: u32 = 10;
/// Different requests of the load, spread evenly over the table.
const REQUESTS_MAX: u32 = 5000;
/// Reloads of each size.
const RELOADS: u32 = 5;
/// Host of the route whose direct answer tells which generation of the file is in force.
const MARKER: &str = "generation.example";

/// What the large table may cost on top of the small one, per request.
const GOAL_SURCHARGE: f64 = 1.10;
const GOAL_RELOAD_MS: f64 = 400.0;
const GOAL_ROUTE_BYTES: f64 = 160.0;

const CPU: Metric = Metric { id: "cpu_us_per_request", unit: "us" };
const RELOAD: Metric = Metric { id: "reload_ms", unit: "ms" };
const ROUTE_BYTES: Metric = Metric { id: "bytes_per_route", unit: "B" };

/// A proxy with so many routes.
struct Table {
    proxy: Proxy,
    config: PathBuf,
    script: PathBuf,
    routes: u32,
    generation: u32,
    cpu: Samples,
}

/// Measures both sizes.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    if bench.ringway.is_none() {
        return Ok(());
    }
    let mut tables = [Table::start(bench, FEW)?, Table::start(bench, MANY)?];
    for table in &mut tables {
        table.load(1)?;
    }
    for round in 0..bench.rounds {
        terminal::progress(&format!("routes: round {} of {}", round + 1, bench.rounds));
        let [few, many] = &mut tables;
        let order = if round % 2 == 0 { [few, many] } else { [many, few] };
        for table in order {
            table.one_round(bench.seconds)?;
        }
    }
    let [few, many] = &tables;
    let goals = Samples::scaled(&few.cpu, GOAL_SURCHARGE);
    report.compare_with_goals("routes-100k", CPU, (Peer::Ringway, &many.cpu), &goals);
    report.figure("routes-10", CPU, Peer::Ringway, &few.cpu);
    for table in &mut tables {
        table.report_memory(report)?;
        table.report_reload(report)?;
    }
    Ok(())
}

impl Table {
    fn start(bench: &Bench, routes: u32) -> Result<Self, Error> {
        terminal::progress(&format!("routes: starting with {routes}"));
        let addresses = Addresses::free(bench)?;
        let text = config(routes, &addresses, bench.origin_http, 0);
        let config = bench.scratch.folder().join(peer::config_name(Peer::Ringway, &addresses));
        let mut proxy = Proxy::spawn_with(bench, Peer::Ringway, &text, addresses)?;
        probe::wait_for_answer(&mut proxy.child, addresses.http, MARKER)?;
        let script = bench.scratch.write(&format!("routes-{routes}.lua"), &load_script(routes))?;
        Ok(Self { proxy, config, script, routes, generation: 0, cpu: Samples::default() })
    }

    fn id(&self) -> &'static str {
        if self.routes == FEW { "routes-10" } else { "routes-100k" }
    }

    fn load(&self, seconds: u64) -> Result<u64, Error> {
        let load = wrk::Load {
            target: self.proxy.addresses.http,
            connections: SMALL_CONNECTIONS,
            seconds,
            script: Some(self.script.clone()),
        };
        let done = wrk::run(&load)?;
        if done.errors > 0 || done.requests == 0 {
            return Err(Error::BadRound {
                scenario: self.id().to_owned(),
                peer: Peer::Ringway.id().to_owned(),
                requests: done.requests,
                errors: done.errors,
            });
        }
        Ok(done.requests)
    }

    fn one_round(&mut self, seconds: u64) -> Result<(), Error> {
        let before = self.cpu_time()?;
        let requests = self.load(seconds)?;
        let (total_ns, user_share) = self.cpu_time()?.since(&before);
        self.cpu.push(total_ns as f64 / 1e3 / requests as f64, Some(user_share));
        Ok(())
    }

    fn cpu_time(&self) -> Result<CpuTime, Error> {
        self.proxy.child.process().cpu_time().map_err(Error::io("read the CPU time"))
    }

    /// Bytes of the table by the proxy's own account, which leaves out what the parser needed.
    fn report_memory(&self, report: &mut Report) -> Result<(), Error> {
        if self.routes != MANY {
            return Ok(());
        }
        let text = probe::fetch(self.proxy.addresses.admin, "/metrics")
            .map_err(Error::io("read the metrics"))?;
        let bytes =
            metric(&text, "ringway_config_table_bytes").ok_or_else(|| Error::Malformed {
                what: "the metrics of the proxy".to_owned(),
                detail: "no ringway_config_table_bytes".to_owned(),
            })?;
        let samples = Samples::of(&[bytes / f64::from(self.routes)]);
        let found = [(Peer::Ringway, samples)];
        report.compare_with_goal(self.id(), ROUTE_BYTES, &found, GOAL_ROUTE_BYTES);
        Ok(())
    }

    /// From the rename of the file to the first answer of the new table, asked every millisecond.
    fn report_reload(&mut self, report: &mut Report) -> Result<(), Error> {
        let mut samples = Samples::default();
        for reload in 0..RELOADS {
            terminal::progress(&format!("{}: reload {} of {RELOADS}", self.id(), reload + 1));
            let milliseconds = self.reload()?;
            samples.push(milliseconds, None);
            // The next change must not fall into the quiet time after this one.
            std::thread::sleep(Duration::from_millis(300));
        }
        report.compare_with_goal(self.id(), RELOAD, &[(Peer::Ringway, samples)], GOAL_RELOAD_MS);
        Ok(())
    }

    fn reload(&mut self) -> Result<f64, Error> {
        let text = fs::read_to_string(&self.config).map_err(Error::io("read the configuration"))?;
        let (old, new) = (marker_body(self.generation), marker_body(self.generation + 1));
        let next = self.config.with_extension("next");
        fs::write(&next, text.replace(&old, &new)).map_err(Error::io("write a configuration"))?;
        self.generation += 1;
        let wanted = format!("generation-{}", self.generation);
        let asked = || Error::io("ask the proxy during a reload");
        let mut stream = probe::connect(self.proxy.addresses.http).map_err(asked())?;
        let began = Instant::now();
        fs::rename(&next, &self.config).map_err(Error::io("replace the configuration"))?;
        while !self.answers(&mut stream, &wanted).map_err(asked())? {
            if began.elapsed() > READY_MAX {
                return Err(self.proxy.child.not_ready(self.proxy.addresses.http));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(began.elapsed().as_secs_f64() * 1e3)
    }

    fn answers(&self, stream: &mut TcpStream, wanted: &str) -> std::io::Result<bool> {
        let answer = probe::get(stream, MARKER, "/")?;
        Ok(answer.body == wanted.as_bytes())
    }
}

/// `routes` routes of one host and one path prefix each, and the marker.
fn config(routes: u32, addresses: &Addresses, origin: SocketAddr, generation: u32) -> String {
    let mut text = format!(
        "admin: {}\nlisteners:\n  - {{name: http, address: \"{}\", protocol: http1}}\n",
        addresses.admin, addresses.http
    );
    let _ = writeln!(
        text,
        "clusters:\n  - name: origin\n    endpoints: [{{address: \"{origin}\"}}]\nroutes:\n  \
         - name: generation\n    hosts: [{MARKER}]\n    rules:\n      - {}",
        marker_body(generation)
    );
    for route in 0..routes {
        let (host, path) = (route / PATHS_PER_HOST, route % PATHS_PER_HOST);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  - {{name: r{route}, hosts: [h{host}.example], rules: [{{matches: [{{path: \
             {{prefix: /p{path}}}}}], backends: [{{cluster: origin}}]}}]}}"
        );
    }
    text
}

fn marker_body(generation: u32) -> String {
    format!("respond: {{status: 200, body: generation-{generation}}}")
}

/// A wrk script whose requests are made once and then sent in turn.
fn load_script(routes: u32) -> String {
    let requests = routes.min(REQUESTS_MAX);
    let step = routes / requests;
    format!(
        "local requests, at = {{}}, 0\n\
         function init(args)\n\
         \x20 for i = 0, {requests} - 1 do\n\
         \x20   local route = i * {step} + i % {step}\n\
         \x20   local host = \"h\" .. math.floor(route / {PATHS_PER_HOST}) .. \".example\"\n\
         \x20   local path = \"/p\" .. route % {PATHS_PER_HOST} .. \"/item\"\n\
         \x20   requests[i + 1] = wrk.format(\"GET\", path, {{[\"Host\"] = host}})\n\
         \x20 end\n\
         end\n\
         function request()\n\
         \x20 at = at % #requests + 1\n\
         \x20 return requests[at]\n\
         end\n"
    )
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

    #[test]
    fn the_router_takes_the_generated_file_and_its_next_generation() {
        let addresses = Addresses {
            http: "127.0.0.1:1".parse().unwrap(),
            tcp: "127.0.0.1:2".parse().unwrap(),
            admin: "127.0.0.1:3".parse().unwrap(),
        };
        let text = config(25, &addresses, "127.0.0.1:4".parse().unwrap(), 0);
        for text in [text.replace(&marker_body(0), &marker_body(1)), text] {
            let loaded = ringway_router::load(&text, ringway_router::Format::Yaml).unwrap();
            assert_eq!(loaded.config.routes.len(), 26);
            assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        }
    }

    #[test]
    fn every_request_of_the_load_meets_a_route() {
        let script = load_script(MANY);
        assert!(script.contains("for i = 0, 5000 - 1 do"));
        assert!(script.contains("i * 20 + i % 20"));
        assert!((0..5000).all(|i| i * 20 + i % 20 < MANY));
    }
}
