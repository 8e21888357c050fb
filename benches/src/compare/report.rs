//! Gathers samples into rows, prints them, and says plainly where Ringway loses.

use std::collections::BTreeMap;
use std::process::Command;

use super::{Bench, peer::Peer};
use crate::{
    error::Error,
    results::{Row, Run},
    sample::{self, Ratio},
    terminal,
};

/// What a figure is and what it is counted in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    pub(super) id: &'static str,
    pub(super) unit: &'static str,
}

/// One value per round, and the share of user time where the value is CPU time.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    values: Vec<f64>,
    user_shares: Vec<f64>,
}

/// Everything that a run has found.
pub(super) struct Report {
    run: Run,
    rows: Vec<Row>,
    figures: Vec<Figure>,
    failures: Vec<String>,
    notes: Vec<String>,
    stolen_ticks: BTreeMap<&'static str, u64>,
}

/// A proxy's own figure, for the printed table.
struct Figure {
    scenario: &'static str,
    metric: Metric,
    peer: Peer,
    samples: Samples,
}

/// Ratios to a peer that the project has promised; the worse end of the interval has to meet them.
const PROMISES: [(&str, &str, f64); 4] = [
    ("h1-small", "haproxy", 0.85),
    ("h1-small", "nginx", 0.90),
    ("tcp-16m", "haproxy", 0.27),
    ("h1-16m", "haproxy", 0.27),
];

impl Samples {
    pub(super) fn of(values: &[f64]) -> Self {
        Self { values: values.to_vec(), user_shares: Vec::new() }
    }

    /// The same samples, each times `factor`.
    pub(super) fn scaled(samples: &Self, factor: f64) -> Self {
        Self::of(&samples.values.iter().map(|value| value * factor).collect::<Vec<_>>())
    }

    pub(super) fn push(&mut self, value: f64, user_share: Option<f64>) {
        self.values.push(value);
        self.user_shares.extend(user_share);
    }

    fn ends(&self) -> (f64, f64) {
        let fold = |start: f64, pick: fn(f64, f64) -> f64| -> f64 {
            self.values.iter().copied().fold(start, pick)
        };
        (fold(f64::INFINITY, f64::min), fold(f64::NEG_INFINITY, f64::max))
    }
}

impl Report {
    /// An empty report that knows where and how it runs.
    pub(super) fn new(bench: &Bench) -> Result<Self, Error> {
        let mut versions = BTreeMap::new();
        for &peer in &bench.contenders {
            if let Some(version) = peer.version(bench) {
                versions.insert(peer.id().to_owned(), version);
            }
        }
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_err(Error::io("read the kernel's version"))?;
        let run = Run {
            commit: commit(),
            kernel: kernel.trim().to_owned(),
            backend: "io_uring".to_owned(),
            congestion_control: congestion_control(),
            versions,
            command: command_line(),
        };
        Ok(Self {
            run,
            rows: Vec::new(),
            figures: Vec::new(),
            failures: Vec::new(),
            notes: Vec::new(),
            stolen_ticks: BTreeMap::new(),
        })
    }

    pub(super) fn run(&self) -> &Run {
        &self.run
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Notes that something could not be measured.
    pub(super) fn failed(&mut self, scenario: &str, error: &Error) {
        terminal::progress("");
        terminal::warn(&format!("{scenario}: {error}"));
        let first = error.to_string().lines().next().unwrap_or_default().to_owned();
        self.failures.push(format!("{scenario}: {first}"));
    }

    /// Adds to the time that the machine was taken away while `scenario` was measured.
    pub(super) fn stolen(&mut self, scenario: &'static str, ticks: u64) {
        *self.stolen_ticks.entry(scenario).or_default() += ticks;
    }

    /// Notes that rounds were thrown away because the machine was taken away in them.
    pub(super) fn voided(&mut self, scenario: &'static str, rounds: u32) {
        let ticks = self.stolen_ticks.get(scenario).copied().unwrap_or(0);
        if ticks > 0 {
            let seconds = ticks as f64 / 100.0;
            let note =
                format!("{scenario}: the hypervisor took {seconds:.2} s, {rounds} rounds void");
            self.notes.push(note);
        }
    }

    /// Keeps a figure for the printed table only.
    pub(super) fn figure(
        &mut self,
        scenario: &'static str,
        metric: Metric,
        peer: Peer,
        samples: &Samples,
    ) {
        self.figures.push(Figure { scenario, metric, peer, samples: samples.clone() });
    }

    /// Compares Ringway's samples with every other's.
    pub(super) fn compare(
        &mut self,
        scenario: &'static str,
        metric: Metric,
        found: &[(Peer, Samples)],
    ) {
        for (peer, samples) in found {
            self.figure(scenario, metric, *peer, samples);
        }
        let Some((_, ours)) = found.iter().find(|(peer, _)| *peer == Peer::Ringway) else {
            return;
        };
        for (peer, theirs) in found.iter().filter(|(peer, _)| *peer != Peer::Ringway) {
            let ratio = sample::ratio(&ours.values, &theirs.values);
            self.row((scenario, metric), peer.id(), (ours, theirs), ratio);
        }
    }

    /// Compares Ringway's samples with a fixed goal.
    pub(super) fn compare_with_goal(
        &mut self,
        scenario: &'static str,
        metric: Metric,
        found: &[(Peer, Samples)],
        goal: f64,
    ) {
        let Some((peer, ours)) = found.iter().find(|(peer, _)| *peer == Peer::Ringway) else {
            return;
        };
        let goals = Samples::of(&vec![goal; ours.values.len()]);
        if !self.has_figure(scenario, metric) {
            self.figure(scenario, metric, *peer, ours);
        }
        let ratio = sample::ratio(&ours.values, &goals.values);
        self.row((scenario, metric), "goal", (ours, &goals), ratio);
    }

    /// Compares Ringway's samples with a goal that was itself measured, round by round.
    pub(super) fn compare_with_goals(
        &mut self,
        scenario: &'static str,
        metric: Metric,
        (peer, ours): (Peer, &Samples),
        goals: &Samples,
    ) {
        self.figure(scenario, metric, peer, ours);
        let ratio = sample::ratio(&ours.values, &goals.values);
        self.row((scenario, metric), "goal", (ours, goals), ratio);
    }

    fn has_figure(&self, scenario: &str, metric: Metric) -> bool {
        self.figures
            .iter()
            .any(|figure| figure.scenario == scenario && figure.metric.id == metric.id)
    }

    fn row(
        &mut self,
        (scenario, metric): (&str, Metric),
        peer: &str,
        (ours, theirs): (&Samples, &Samples),
        ratio: Ratio,
    ) {
        let medians = (sample::median(&ours.values), sample::median(&theirs.values));
        self.rows.push(Row::new((scenario, metric.id, metric.unit), peer, medians, ratio));
    }

    /// Prints both tables and the summary.
    pub(super) fn print(&self) {
        let Run { commit, kernel, congestion_control, .. } = &self.run;
        terminal::say(&format!("commit {commit}, kernel {kernel}, TCP {congestion_control}"));
        for (program, version) in &self.run.versions {
            terminal::say(&format!("  {program}: {version}"));
        }
        self.print_figures();
        if !self.rows.is_empty() {
            self.print_ratios();
        }
        for note in &self.notes {
            terminal::say(note);
        }
    }

    fn print_figures(&self) {
        terminal::say(
            "\nscenario     proxy           median  unit  least .. most      user + system",
        );
        for figure in &self.figures {
            let median = sample::median(&figure.samples.values);
            let (least, most) = figure.samples.ends();
            let split = if figure.samples.user_shares.is_empty() {
                String::new()
            } else {
                let user = sample::median(&figure.samples.user_shares) * median;
                format!("{} + {}", short(user), short(median - user))
            };
            let line = format!(
                "{:12} {:14} {:>7}  {:5} {:>7} .. {:7}  {split}",
                figure.scenario,
                figure.peer.id(),
                short(median),
                figure.metric.unit,
                short(least),
                short(most),
            );
            terminal::say(line.trim_end());
        }
    }

    fn print_ratios(&self) {
        terminal::say(
            "\nours / theirs, lower is better\n\
             scenario     metric                     peer            ours  theirs  ratio  95 % \
             interval     result",
        );
        for row in &self.rows {
            terminal::say(&format!(
                "{:12} {:26} {:13} {:>6} {:>7}  {:>5.2}  {:>5.2} .. {:<5.2}    {}",
                row.scenario,
                row.metric,
                row.peer,
                short(row.ours),
                short(row.theirs),
                row.ratio,
                row.low,
                row.high,
                result(row),
            ));
        }
        let mut lost: Vec<String> = Vec::new();
        for row in self.rows.iter().filter(|row| loses(row)) {
            lost.push(format!("{} {} to {}", row.scenario, row.metric, row.peer));
        }
        let missed =
            self.rows.iter().filter(|row| promise(row).is_some_and(|goal| row.high > goal));
        for row in missed {
            let goal = promise(row).unwrap_or_default();
            lost.push(format!("{}: not within {goal} of {}", row.scenario, row.peer));
        }
        if lost.is_empty() {
            terminal::say("\nRingway loses nowhere in this run.");
        } else {
            terminal::say(&format!("\nRingway loses:\n  {}", lost.join("\n  ")));
        }
    }

    /// An error when something was not measured: a run that is silent about gaps is no run.
    pub(super) fn verdict(&self) -> Result<(), Error> {
        if self.failures.is_empty() {
            return Ok(());
        }
        Err(Error::Incomplete(self.failures.clone()))
    }
}

fn promise(row: &Row) -> Option<f64> {
    let same = |(scenario, peer, _): &&(&str, &str, f64)| {
        row.scenario == *scenario && row.peer == *peer && row.metric.starts_with("cpu")
    };
    PROMISES.iter().find(same).map(|(_, _, goal)| *goal)
}

/// A ratio closer to 1 than this is a tie, however narrow its interval.
const TIE: f64 = 0.01;

/// Against the other backend nobody wins or loses.
fn loses(row: &Row) -> bool {
    let limit_is_met = if row.peer == "goal" { row.high <= 1.0 } else { row.low <= 1.0 + TIE };
    row.peer != Peer::RingwayEpoll.id() && !limit_is_met
}

fn result(row: &Row) -> String {
    if let Some(goal) = promise(row) {
        let word = if row.high <= goal { "meets" } else { "misses" };
        return format!("{word} {goal}");
    }
    let word = match row.peer.as_str() {
        "goal" if row.high <= 1.0 => "meets",
        "goal" => "misses",
        _ if row.high < 1.0 - TIE => "less",
        _ if row.low > 1.0 + TIE => "more",
        _ => "alike",
    };
    word.to_owned()
}

/// What was typed, with the folders of this machine left out.
fn command_line() -> String {
    let words = std::env::args().skip(1).map(|word| match word.strip_prefix('/') {
        Some(path) => path.rsplit('/').next().unwrap_or(path).to_owned(),
        None => word,
    });
    std::iter::once("ringway-bench".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// Three to four digits, as a person reads them.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// The commit of the working tree, marked if the tree differs from it.
/// The system's: where it is BBR, what is not taken out of its pacing pays for it.
fn congestion_control() -> String {
    let name = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
    name.map_or("unknown".to_owned(), |name| name.trim().to_owned())
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    // Earlier results in the tree do not change what is measured.
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no", "--", ":!benches/results"]);
    if changed.is_some_and(|text| !text.is_empty()) { commit + "-dirty" } else { commit }
}
