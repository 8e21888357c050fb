//! `fleet`: simulated sidecars of one process, with real TLS, and what they cost their pusher.
//!
//! ```text
//! mesh.d ──▶ ringway-push ◀═══ mutual TLS ═══▶ 500 sidecars: stream, reports, endpoints
//!    ▲            │ CPU, memory                   │ when each has what
//!    └─ change ── measure ◀───────────────────────┘
//! ```
//!
//! It starts a pusher of its own with a mesh that it writes. Then the sidecars join and confirm the
//! release, are idle, hear of changes of one endpoint, and lose the pusher to SIGKILL. With
//! `--pusher` they join one that runs already, and are idle there.
//!
//! # Invariants
//! - Sidecars run on one thread, so that they take one core at most from the pusher.
//! - CPU is that of the whole process, of threads that have ended too, in ticks of 10 ms.

mod pusher;
mod sidecar;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_protocol::PolicyHash;
use serde::Serialize;
use tokio::task::JoinSet;

use self::pusher::{Pusher, identity, target};
use self::sidecar::{Setup, Sidecar};
use self::watch::{Counts, Spread, Watch};
use crate::error::Error;
use crate::procfs::Process;
use crate::{child, compare, terminal};

/// How long a fleet may take for anything.
const PATIENCE: Duration = Duration::from_secs(300);
/// Joins that begin in a second: a fleet is not started at one moment.
const JOINS_PER_SECOND: u32 = 100;
/// What a change costs is counted for so long at least.
const CHANGE_WINDOW: Duration = Duration::from_secs(2);

/// Options of `ringway-bench fleet`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Sidecars
    #[arg(long, value_name = "N", default_value_t = 500)]
    sidecars: usize,
    /// Workloads that they belong to; each has a policy of its own
    #[arg(long, value_name = "N", default_value_t = 10)]
    classes: usize,
    /// Services that each of them calls, with ten endpoints each
    #[arg(long, value_name = "N", default_value_t = 20)]
    services: usize,
    /// Changes of one endpoint
    #[arg(long, value_name = "N", default_value_t = 5)]
    changes: usize,
    /// How long the fleet is idle while it is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    idle: u64,
    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
    /// The pusher to start (default: the one built beside this program)
    #[arg(long, value_name = "PROGRAM", conflicts_with = "pusher")]
    push: Option<PathBuf>,
    /// A pusher that runs already, HOST:PORT; it is joined and left idle
    #[arg(long, value_name = "ADDRESS", requires_all = ["bundle_hash", "token", "identity"])]
    pusher: Option<String>,
    /// SHA-256 of its root, as `ringway-push ca show` prints it
    #[arg(long, value_name = "HASH")]
    bundle_hash: Option<String>,
    /// A token with a use for each sidecar
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// The identity that the sidecars ask for
    #[arg(long, value_name = "SPIFFE-ID")]
    identity: Option<String>,
    /// The process of that pusher, for CPU and memory
    #[arg(long, value_name = "PID", requires = "pusher")]
    pid: Option<u32>,
}

/// What one part of a run cost the pusher.
#[derive(Debug, Default, Serialize)]
struct Cost {
    seconds: f64,
    cpu_ms: u64,
    resident_kib: u64,
    counts: Counts,
}

/// A part of a run in which the fleet got something.
#[derive(Debug, Serialize)]
struct Step {
    spread: Spread,
    cost: Cost,
}

/// All figures of a run.
#[derive(Debug, Default, Serialize)]
struct Figures {
    sidecars: usize,
    /// Memory of the pusher before the first sidecar.
    empty_kib: u64,
    joined: Option<Step>,
    confirmed: Option<Step>,
    idle: Cost,
    changes: Vec<Step>,
    /// From SIGKILL until all have a stream again.
    restarted: Option<Step>,
    /// Memory that the pusher has for one idle sidecar more, its stream and its connection for
    /// reports.
    kib_per_sidecar: f64,
}

/// What is measured of the pusher, and when it began.
struct Meter<'a> {
    process: Option<Process>,
    watch: &'a Watch,
    began: Instant,
    cpu_ms: u64,
    counts: Counts,
}

impl<'a> Meter<'a> {
    fn start(process: Option<Process>, watch: &'a Watch) -> Self {
        let (began, counts) = (Instant::now(), watch.counts());
        Self { process, watch, began, cpu_ms: cpu_ms(process), counts }
    }

    fn cost(&self) -> Cost {
        Cost {
            seconds: self.began.elapsed().as_secs_f64(),
            cpu_ms: cpu_ms(self.process).saturating_sub(self.cpu_ms),
            resident_kib: resident_kib(self.process),
            counts: self.watch.counts().since(self.counts),
        }
    }

    fn step(&self, spread: Spread) -> Step {
        Step { spread, cost: self.cost() }
    }
}

fn cpu_ms(process: Option<Process>) -> u64 {
    process.and_then(|process| process.cpu_ms().ok()).unwrap_or(0)
}

fn resident_kib(process: Option<Process>) -> u64 {
    process.and_then(|process| process.memory().ok()).map_or(0, |memory| memory.resident_kib)
}

/// Measures, and prints the figures.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    if options.sidecars == 0 || options.classes == 0 || options.services == 0 {
        return Err(Error::Usage("a fleet has a sidecar, a class and a service at least".into()));
    }
    child::raise_descriptor_limit()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::io("start a runtime"))?;
    let figures = match &options.pusher {
        Some(address) => runtime.block_on(visit(options, address))?,
        None => {
            let program = match &options.push {
                Some(path) => path.clone(),
                None => compare::beside("ringway-push")?,
            };
            let mut pusher = Pusher::new(program, options.classes, options.services)?;
            pusher.start()?;
            pusher.wait()?;
            runtime.block_on(measure(options, &mut pusher))?
        }
    };
    match options.json {
        true => terminal::say(&serde_json::to_string(&figures).unwrap_or_default()),
        false => say(&figures),
    }
    Ok(())
}

/// Starts the sidecars, not all at one moment.
fn start(
    fleet: &mut JoinSet<()>,
    setup: &Arc<Setup>,
    sidecars: usize,
    of: impl Fn(usize) -> String,
) {
    for nth in 0..sidecars {
        let Some(sidecar) = Sidecar::new(Arc::clone(setup), nth, of(nth)) else { continue };
        let wait = Duration::from_secs(1) * nth as u32 / JOINS_PER_SECOND;
        fleet.spawn(async move {
            tokio::time::sleep(wait).await;
            sidecar.live().await;
        });
    }
}

async fn idle(seconds: u64, process: Option<Process>, watch: &Watch) -> Cost {
    let meter = Meter::start(process, watch);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    meter.cost()
}

/// The figures of a pusher that was running.
async fn visit(options: &Options, address: &str) -> Result<Figures, Error> {
    let word = |text: &Option<String>| text.clone().unwrap_or_default();
    let hash = word(&options.bundle_hash);
    let hash: PolicyHash = hash
        .trim_start_matches("sha256:")
        .parse()
        .map_err(|_| Error::Usage("--bundle-hash wants sha256: and 64 digits".into()))?;
    let process = options.pid.map(Process::of).transpose();
    let process = process.map_err(Error::io("find the pusher's process"))?;
    let setup = Arc::new(Setup {
        pusher: address.to_owned(),
        root_sha256: *hash.as_bytes(),
        token: word(&options.token),
        watch: Watch::new(options.sidecars),
    });
    let (sidecars, watch) = (options.sidecars, &setup.watch);
    let empty_kib = resident_kib(process);
    let mut figures = Figures { sidecars, empty_kib, ..Figures::default() };
    let mut fleet = JoinSet::new();
    let meter = Meter::start(process, watch);
    start(&mut fleet, &setup, sidecars, |_| word(&options.identity));
    let spread = watch.all_connected(sidecars, meter.began, PATIENCE).await?;
    figures.joined = Some(meter.step(spread));
    figures.idle = idle(options.idle, process, watch).await;
    figures.settle();
    Ok(figures)
}

/// The figures of a pusher of our own.
async fn measure(options: &Options, pusher: &mut Pusher) -> Result<Figures, Error> {
    let sidecars = options.sidecars;
    // What it does after its start is not the fleet's.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let setup = Arc::new(Setup {
        pusher: pusher.address.to_string(),
        root_sha256: pusher.root_sha256()?,
        token: pusher.token(sidecars + 1)?,
        watch: Watch::new(sidecars),
    });
    let watch = &setup.watch;
    let process = pusher.process();
    let empty_kib = resident_kib(process);
    let mut figures = Figures { sidecars, empty_kib, ..Figures::default() };
    let mut fleet = JoinSet::new();
    let meter = Meter::start(process, watch);
    start(&mut fleet, &setup, sidecars, |nth| identity(nth % options.classes));
    let spread = watch.all_connected(sidecars, meter.began, PATIENCE).await?;
    figures.joined = Some(meter.step(spread));
    let spread = watch.all_confirmed(sidecars, meter.began, PATIENCE).await?;
    figures.confirmed = Some(meter.step(spread));
    watch.all_at(target(0), sidecars, meter.began, PATIENCE).await?;
    terminal::progress("the fleet is idle");
    figures.idle = idle(options.idle, process, watch).await;
    for nth in 1..=options.changes {
        terminal::progress(&format!("change {nth} of {}", options.changes));
        let meter = Meter::start(process, watch);
        pusher.change(nth)?;
        let spread = watch.all_at(target(nth), sidecars, meter.began, PATIENCE).await?;
        tokio::time::sleep(CHANGE_WINDOW.saturating_sub(meter.began.elapsed())).await;
        figures.changes.push(meter.step(spread));
    }
    terminal::progress("the pusher is killed and started again");
    pusher.kill();
    let killed = Instant::now();
    pusher.start()?;
    let mut meter = Meter::start(pusher.process(), watch);
    // All it has used is for coming back.
    (meter.began, meter.cpu_ms) = (killed, 0);
    let spread = watch.all_connected(sidecars, killed, PATIENCE).await?;
    figures.restarted = Some(meter.step(spread));
    terminal::progress("");
    figures.settle();
    Ok(figures)
}

impl Figures {
    fn settle(&mut self) {
        let grown = self.idle.resident_kib.saturating_sub(self.empty_kib);
        self.kib_per_sidecar = grown as f64 / self.sidecars as f64;
    }
}

fn say(figures: &Figures) {
    let Figures { sidecars, empty_kib, idle, .. } = figures;
    terminal::say(&format!("{sidecars} sidecars; the pusher alone has {empty_kib} KiB"));
    let line = |what: &str, step: &Step| {
        let Step { spread, cost } = step;
        terminal::say(&format!(
            "{what}: p50 {:.0} ms, p99 {:.0} ms, all {:.0} ms; {:.1} s, CPU {} ms, {} KiB, {:?}",
            spread.p50_ms,
            spread.p99_ms,
            spread.all_ms,
            cost.seconds,
            cost.cpu_ms,
            cost.resident_kib,
            cost.counts
        ));
    };
    figures.joined.iter().for_each(|step| line("joined and connected", step));
    figures.confirmed.iter().for_each(|step| line("release confirmed", step));
    terminal::say(&format!(
        "idle: {:.1} s, CPU {} ms ({:.2} % of a core), {} KiB, {:.1} for each sidecar, {:?}",
        idle.seconds,
        idle.cpu_ms,
        idle.cpu_ms as f64 / idle.seconds / 10.0,
        idle.resident_kib,
        figures.kib_per_sidecar,
        idle.counts
    ));
    figures.changes.iter().for_each(|step| line("one endpoint changed", step));
    figures.restarted.iter().for_each(|step| line("back after SIGKILL", step));
}
