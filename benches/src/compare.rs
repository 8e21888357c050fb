//! Ringway beside nginx and HAProxy on this machine: CPU, memory, start, reload.
//!
//! ```text
//!        core 1                     core 0                  core 1
//! load (wrk or bodies) ──▶ the one proxy under load ──▶ ringway-bench origin
//! ```
//!
//! # Method
//! - One worker or thread per proxy, equal work, configurations in `benches/peers/`.
//! - Rounds are interleaved ABBA: A B C, then C B A; what drifts hits all alike.
//! - CPU is what the kernel accounted to the proxy's threads (`procfs`), loopback included. It does
//!   not depend on whether load and origin fill their core.
//! - Ratio of medians with a bootstrap 95 % interval (`sample`), merged by `results`.
//!
//! # Not here
//! Latency and rates: two shared cores and a closed loop say nothing about either.

mod idle;
mod peer;
mod probe;
mod report;
mod rounds;
mod routes;
mod scenario;
mod start;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Instant,
};

use crate::{
    child::{self, Child},
    error::Error,
    guard::Guard,
    results,
    scratch::Scratch,
    terminal,
};
use peer::Peer;
use report::Report;
use scenario::{Kind, Scenario};

/// Options of `ringway-bench smoke`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Scenarios to measure, by id (default: all)
    #[arg(long, value_name = "ID,...", value_delimiter = ',')]
    only: Vec<Scenario>,
    /// Proxies to compare with
    #[arg(
        long,
        value_name = "PEER,...",
        value_delimiter = ',',
        default_value = "haproxy,nginx,ringway-epoll"
    )]
    peers: Vec<Peer>,
    /// Rounds per scenario; each proxy is under load once per round
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of load per proxy and round
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// The proxy to measure (default: the one built beside this program)
    #[arg(long, value_name = "PROGRAM")]
    ringway: Option<PathBuf>,
    /// Measure the peers only; nothing is recorded
    #[arg(long)]
    without_ringway: bool,
    /// Results file to merge into
    #[arg(long, value_name = "FILE", default_value = "benches/results/latest.json")]
    results: PathBuf,
    /// Print only, leave the results file as it is
    #[arg(long)]
    no_record: bool,
}

/// What every measurement needs: where to run, what to start, how often.
pub(crate) struct Bench {
    guard: Arc<Guard>,
    scratch: Scratch,
    proxy_core: usize,
    ringway: Option<PathBuf>,
    origin_http: SocketAddr,
    origin_tcp: SocketAddr,
    /// Ringway first (if it takes part), then the peers.
    contenders: Vec<Peer>,
    rounds: u32,
    seconds: u64,
}

/// Runs the chosen scenarios, prints what was found and merges it into the results file.
///
/// # Errors
/// When nothing could be set up, or when a scenario could not be measured; what could be is
/// printed and recorded all the same.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let began = Instant::now();
    let (mut bench, _origin) = set_up(options)?;
    let mut report = Report::new(&bench)?;
    for scenario in chosen(&options.only) {
        terminal::warn(&format!("{}: {}", scenario.id(), scenario.about()));
        if let Err(error) = measure(&mut bench, scenario, &mut report) {
            report.failed(scenario.id(), &error);
        }
    }
    terminal::progress("");
    report.print();
    terminal::say(&format!("took {} s", began.elapsed().as_secs()));
    if bench.ringway.is_some() && !options.no_record && !report.rows().is_empty() {
        results::merge_into(&options.results, report.run().clone(), report.rows().to_vec())?;
        terminal::say(&format!("merged into {}", options.results.display()));
    }
    report.verdict()
}

/// The chosen scenarios in their own order, `routes-*` once: its two sizes are one measurement.
fn chosen(only: &[Scenario]) -> Vec<Scenario> {
    let mut routes = false;
    let wanted = Scenario::ALL.iter().filter(|&one| only.is_empty() || only.contains(one));
    wanted
        .filter(|one| one.kind() != Kind::Routes || !std::mem::replace(&mut routes, true))
        .copied()
        .collect()
}

fn measure(bench: &mut Bench, scenario: Scenario, report: &mut Report) -> Result<(), Error> {
    match scenario.kind() {
        Kind::Requests | Kind::Bodies { .. } => rounds::measure(bench, scenario, report),
        Kind::Start => start::measure(bench, report),
        Kind::Idle { connections } => idle::measure(bench, scenario, connections, report),
        Kind::Routes => routes::measure(bench, report),
    }
}

fn set_up(options: &Options) -> Result<(Bench, Child), Error> {
    let ringway = find_ringway(options)?;
    let &[proxy_core, load_core, ..] = child::allowed_cores()?.as_slice() else {
        return Err(Error::Usage("needs two cores: one for the proxy alone".to_owned()));
    };
    child::raise_descriptor_limit()?;
    // From here on, whatever is started without a core of its own is on the load's core.
    child::pin_to(load_core)?;
    let guard = Arc::new(Guard::start()?);
    let scratch = Scratch::new(&guard)?;
    let (origin_http, origin_tcp) = (scratch.free_address()?, scratch.free_address()?);
    let program = std::env::current_exe().map_err(Error::io("find the own program"))?;
    let mut command = Command::new(program);
    command.args(["origin", "--listen", &origin_http.to_string()]);
    command.args(["--tcp-bytes", &origin_tcp.to_string()]);
    let log = scratch.folder().join("origin.log");
    let mut origin = Child::start("origin", command, Some(load_core), Some(log), &guard)?;
    origin.wait_for(origin_http)?;
    let built = ringway.is_some();
    let theirs = options.peers.iter().copied().filter(|peer| {
        // Without the program there is neither of its backends.
        *peer != Peer::Ringway && (built || !peer.is_ringway())
    });
    let bench = Bench {
        guard,
        scratch,
        proxy_core,
        ringway,
        origin_http,
        origin_tcp,
        contenders: built.then_some(Peer::Ringway).into_iter().chain(theirs).collect(),
        rounds: options.rounds,
        seconds: options.seconds,
    };
    Ok((bench, origin))
}

fn find_ringway(options: &Options) -> Result<Option<PathBuf>, Error> {
    if options.without_ringway {
        return Ok(None);
    }
    let path = match &options.ringway {
        Some(path) => path.clone(),
        None => beside("ringway")?,
    };
    if !path.is_file() {
        return Err(Error::Missing {
            program: "ringway".to_owned(),
            remedy: "build it (cargo build --release -p ringway), or give --without-ringway",
        });
    }
    Ok(Some(path))
}

/// The program called `name` in the folder of this one.
pub(crate) fn beside(name: &str) -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(Error::io("find the own program"))?;
    Ok(own.parent().unwrap_or(Path::new(".")).join(name))
}
