//! `ringway-bench compare`: Ringway beside its peers on this machine, scenario by scenario.
//!
//! ```text
//!      core 1                  core 0                     core 1
//! load (in process) ──▶ the one proxy under load ──▶ ringway-bench origin
//!
//! scenarios/*.yaml + peers/*/ ──▶ rounds ──▶ findings ──▶ results/detail/<id>.json, latest.json
//! ```
//!
//! # Method
//! - One worker or thread per proxy, equal work, configurations in `benches/peers/`.
//! - Rounds are interleaved ABBA: A B C, then C B A; disturbed ones are void (`rounds`).
//! - CPU is what the kernel accounted to the proxy's threads (`procfs`), loopback included, in a
//!   closed loop: it does not depend on whether load and origin fill their core.
//! - Latency is from an open loop at one rate for all, less what the origin alone takes in the same
//!   round (`requests`).
//! - Ratio of medians with a bootstrap 95 % interval (`sample`), merged by `results`.
//!
//! # Not here
//! Capacity: a rate from two shared cores says nothing about one.

mod certificates;
mod findings;
mod idle;
mod peer;
mod print;
mod probe;
mod reload;
mod requests;
mod rounds;
mod routes;
mod scenario;
pub(crate) mod serve;
mod start;
mod system;
mod table;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    child::{self, Child},
    error::Error,
    guard::Guard,
    results::{self, Run, detail},
    scratch::Scratch,
    terminal,
};
use certificates::Certificates;
use findings::Findings;
use peer::{DIRECT, OURS, Peer, Setup};
use scenario::{Load, Scenario};
use table::Table;

/// Options of `ringway-bench compare`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
  ringway-bench compare --list
  ringway-bench compare --only h1-small,tcp-16m --peers haproxy,nginx --rounds 12
  ringway-bench compare --resume          # goes on where an earlier run of this commit ended")]
pub(crate) struct Options {
    /// Scenarios to measure, by id (default: all)
    #[arg(long, value_name = "ID,...", value_delimiter = ',')]
    only: Vec<String>,
    /// List the scenarios and what each still waits for, and measure nothing
    #[arg(long)]
    list: bool,
    /// Proxies to compare with; `direct` is none, the base of added latency
    #[arg(
        long,
        value_name = "PEER,...",
        value_delimiter = ',',
        default_value = "haproxy,nginx,envoy,ringway-epoll"
    )]
    peers: Vec<String>,
    /// Rounds per scenario; each proxy is under load once per round
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of load per proxy and round
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Lateness of the generator at its 99th percentile above which a round is void
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = humantime::parse_duration)]
    lateness_max: Duration,
    /// Leave out scenarios whose result is from this very commit
    #[arg(long)]
    resume: bool,
    /// The proxy to measure (default: the one built beside this program)
    #[arg(long, value_name = "PROGRAM")]
    ringway: Option<PathBuf>,
    /// Measure the peers only; nothing is recorded
    #[arg(long)]
    without_ringway: bool,
    /// Folder of results: latest.json is merged into, detail/ID.json replaced
    #[arg(long, value_name = "DIR", default_value = "benches/results")]
    results: PathBuf,
    /// Print only, leave the results as they are
    #[arg(long)]
    no_record: bool,
    /// Folder with a file for each scenario
    #[arg(long, value_name = "DIR", default_value = "benches/scenarios")]
    scenarios: PathBuf,
    /// Folder with a folder for each peer
    #[arg(long, value_name = "DIR", default_value = "benches/peers")]
    peers_from: PathBuf,
}

/// What every measurement needs: where to run, what to start, how often.
#[derive(Debug)]
struct Bench {
    guard: Arc<Guard>,
    scratch: Scratch,
    certificates: Certificates,
    proxy_core: usize,
    ringway: Option<PathBuf>,
    origin_http: SocketAddr,
    origin_tcp: SocketAddr,
    /// Ringway first (if it takes part), then the peers.
    contenders: Vec<Rc<Peer>>,
    run: Run,
    rounds: u32,
    seconds: u64,
    lateness_max: Duration,
}

/// Runs the chosen scenarios, prints what was found and records it.
///
/// # Errors
/// When nothing could be set up, or when a scenario could not be measured; what could be is
/// printed and recorded all the same.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let began = Instant::now();
    let scenarios = scenario::read(&options.scenarios, &options.only)?;
    let (bench, _origin) = set_up(options)?;
    if options.list {
        return list(&bench, &scenarios);
    }
    print::run(&bench.run);
    let mut failures = Vec::new();
    for scenario in &scenarios {
        if options.resume && is_done(&bench, options, scenario)? {
            terminal::say(&format!("\n{}: kept from an earlier run of this commit", scenario.id));
            continue;
        }
        if let Some(why) = waits_for(&bench, scenario)? {
            terminal::say(&format!("\n{}: not yet: {why}", scenario.id));
            continue;
        }
        failures.extend(one(&bench, options, scenario)?);
    }
    terminal::say(&format!("\ntook {} s", began.elapsed().as_secs()));
    if failures.is_empty() { Ok(()) } else { Err(Error::Incomplete(failures)) }
}

/// Measures, prints and records one scenario, and says what of it failed.
fn one(bench: &Bench, options: &Options, scenario: &Scenario) -> Result<Vec<String>, Error> {
    let mut findings = Findings::new(bench, scenario);
    if let Err(error) = measure(bench, scenario, &mut findings) {
        findings.failed(OURS, &error);
    }
    terminal::progress("");
    let contenders: Vec<String> = std::iter::once(DIRECT.to_owned())
        .chain(bench.contenders.iter().map(|peer| peer.id.clone()))
        .collect();
    let (detail, failures) = findings.finish(&contenders);
    print::detail(&detail);
    // A result without Ringway, or with a gap, does not replace a whole one.
    if bench.ringway.is_some() && !options.no_record && failures.is_empty() {
        detail::write(&options.results.join("detail"), &detail)?;
        let latest = options.results.join("latest.json");
        results::merge_into(&latest, detail.run.clone(), detail.rows.clone())?;
    }
    Ok(failures)
}

fn measure(bench: &Bench, scenario: &Scenario, findings: &mut Findings) -> Result<(), Error> {
    match &scenario.load {
        Load::Requests(_) | Load::Bodies(_) => requests::measure(bench, scenario, findings),
        Load::Routes(routes) => routes::measure(bench, scenario, routes, findings),
        Load::Reload(reload) => reload::measure(bench, scenario, reload, findings),
        Load::Idle(idle) => {
            idle::measure(bench, scenario, idle, findings);
            Ok(())
        }
        Load::Start => {
            start::measure(bench, scenario, findings);
            Ok(())
        }
    }
}

fn list(bench: &Bench, scenarios: &[Scenario]) -> Result<(), Error> {
    for scenario in scenarios {
        let why = waits_for(bench, scenario)?.map(|why| format!(" (not yet: {why})"));
        let (id, about) = (&scenario.id, &scenario.about);
        terminal::say(&format!("{id:14} {about}{}", why.unwrap_or_default()));
    }
    Ok(())
}

/// Why Ringway cannot be measured in this scenario, if it cannot.
fn waits_for(bench: &Bench, scenario: &Scenario) -> Result<Option<String>, Error> {
    let Some(ours) = bench.contenders.iter().find(|peer| peer.id == OURS) else { return Ok(None) };
    let setup = scenario.setup();
    if !ours.has(setup.name) {
        return Ok(Some(format!("Ringway has no configuration for {}", setup.name)));
    }
    ours.waits_for(bench, Setup { table: Some(Table::new(10)), ..setup })
}

/// Whether there is a result of this commit, with these contenders and at least as much load.
fn is_done(bench: &Bench, options: &Options, scenario: &Scenario) -> Result<bool, Error> {
    let found = detail::read(&options.results.join("detail"), &scenario.id)?;
    Ok(found.is_some_and(|detail| {
        detail.run.commit == bench.run.commit
            && !bench.run.commit.ends_with(system::DIRTY)
            && detail.rounds >= bench.rounds
            && detail.seconds >= bench.seconds
            && bench.run.versions.keys().all(|peer| detail.run.versions.contains_key(peer))
    }))
}

impl Bench {
    /// The contenders that have a configuration for `setup`; those that have none are named.
    fn peers_with(&self, setup: &str, findings: &mut Findings) -> Vec<Rc<Peer>> {
        let (with, without): (Vec<_>, Vec<_>) =
            self.contenders.iter().partition(|peer| peer.has(setup));
        for peer in without {
            findings.note(format!("{} has no configuration for {setup}", peer.id));
        }
        with.into_iter().map(Rc::clone).collect()
    }
}

fn set_up(options: &Options) -> Result<(Bench, Child), Error> {
    let ringway = match options.without_ringway {
        true => None,
        false => Some(find_ringway(options.ringway.as_deref())?),
    };
    let (proxy_core, load_core) = cores()?;
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
    let mut contenders = Vec::new();
    let ours = ringway.is_some().then_some(OURS);
    let theirs = options.peers.iter().map(String::as_str);
    for id in ours.into_iter().chain(theirs.filter(|id| ![OURS, DIRECT].contains(id))) {
        let peer = Peer::read(&options.peers_from, id)?;
        // Without the program there is neither of its backends.
        if ringway.is_some() || !peer.is_ringway() {
            contenders.push(peer);
        }
    }
    let mut bench = Bench {
        guard,
        certificates: Certificates::make(scratch.make_folder("certs")?)?,
        scratch,
        proxy_core,
        ringway,
        origin_http,
        origin_tcp,
        contenders,
        run: Run::default(),
        rounds: options.rounds,
        seconds: options.seconds,
        lateness_max: options.lateness_max,
    };
    bench.run = system::describe(&bench)?;
    Ok((bench, origin))
}

/// The core of the proxy under load, and the one of everything else.
fn cores() -> Result<(usize, usize), Error> {
    match child::allowed_cores()?.as_slice() {
        &[proxy_core, load_core, ..] => Ok((proxy_core, load_core)),
        _ => Err(Error::Usage("needs two cores: one for the proxy alone".to_owned())),
    }
}

fn find_ringway(given: Option<&Path>) -> Result<PathBuf, Error> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => beside("ringway")?,
    };
    if !path.is_file() {
        return Err(Error::Missing {
            program: "ringway".to_owned(),
            remedy: "build it (cargo build --release -p ringway), or give --without-ringway",
        });
    }
    Ok(path)
}

/// The program called `name` in the folder of this one.
pub(crate) fn beside(name: &str) -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(Error::io("find the own program"))?;
    Ok(own.parent().unwrap_or(Path::new(".")).join(name))
}
