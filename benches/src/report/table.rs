//! The section of one scenario: its table, how the machine was meanwhile, and its notes.

use std::fmt::Write;

use super::{
    input::{GOAL, contender_order, name, series},
    text::{counted, one_line, ratio, short, table_line},
    verdict::Judged,
};
use crate::{results::detail::Detail, sample};

const HEADS: [&str; 8] = [
    "metric",
    "contender",
    "median",
    "unit",
    "min .. max",
    "user + system",
    "ratio to it (95 % interval)",
    "verdict",
];

/// The section, with its heading.
pub(super) fn section(detail: &Detail, judged: &[Judged<'_>]) -> String {
    let mut text = format!("### {}\n\n", detail.scenario);
    if !detail.about.is_empty() {
        let _ = writeln!(text, "{}.\n", one_line(&detail.about));
    }
    text += &table(detail, judged);
    let _ = write!(text, "\n{}\n", circumstances(detail));
    if !detail.notes.is_empty() {
        text.push('\n');
    }
    for note in &detail.notes {
        let _ = writeln!(text, "- {}", one_line(note));
    }
    text + "\n"
}

/// A metric of the table, with everyone of whom it tells something.
struct Metric<'a> {
    id: &'a str,
    unit: &'a str,
    contenders: Vec<&'a str>,
}

fn metrics(detail: &Detail) -> Vec<Metric<'_>> {
    let sampled = detail.series.iter().map(|one| (&one.metric, &one.unit, &one.peer));
    let compared = detail.rows.iter().map(|row| (&row.metric, &row.unit, &row.peer));
    let mut metrics: Vec<Metric<'_>> = Vec::new();
    for (id, unit, peer) in sampled.chain(compared) {
        let at = metrics.iter().position(|metric| metric.id == id).unwrap_or_else(|| {
            metrics.push(Metric { id, unit, contenders: Vec::new() });
            metrics.len() - 1
        });
        let contenders = &mut metrics[at].contenders;
        if !contenders.contains(&peer.as_str()) {
            contenders.push(peer);
        }
    }
    for metric in &mut metrics {
        metric.contenders.sort_by_key(|contender| contender_order(contender));
    }
    metrics
}

fn table(detail: &Detail, judged: &[Judged<'_>]) -> String {
    let mut text = table_line(&HEADS.map(str::to_owned));
    text += &table_line(&HEADS.map(|_| "---".to_owned()));
    for metric in metrics(detail) {
        for contender in &metric.contenders {
            let found = judged.iter().find(|one| {
                one.detail.scenario == detail.scenario
                    && one.row.metric == metric.id
                    && one.row.peer == *contender
            });
            text += &table_line(&line(detail, &metric, contender, found));
        }
    }
    text
}

fn line(
    detail: &Detail,
    metric: &Metric<'_>,
    contender: &str,
    judged: Option<&Judged<'_>>,
) -> [String; HEADS.len()] {
    let samples = series(detail, metric.id, contender);
    let median = match (samples, judged) {
        (Some(series), _) => short(sample::median(&series.samples)),
        (None, Some(one)) => short(one.row.theirs),
        (None, None) => String::new(),
    };
    let spread = samples.map_or(String::new(), |series| {
        let least = series.samples.iter().copied().fold(f64::INFINITY, f64::min);
        let most = series.samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("{} .. {}", short(least), short(most))
    });
    let split = samples.and_then(|series| {
        let median = sample::median(&series.samples);
        let user = series.user_share? * median;
        Some(format!("{} + {}", short(user), short(median - user)))
    });
    let compared = judged.map(|one| match one.row.unresolved {
        true => "-".to_owned(),
        false => ratio(one.ratio()),
    });
    let shown = if contender == GOAL { "(goal)" } else { name(contender) };
    [
        format!("`{}`", metric.id),
        shown.to_owned(),
        median,
        metric.unit.to_owned(),
        spread,
        split.unwrap_or_default(),
        compared.unwrap_or_default(),
        judged.map(Judged::words).unwrap_or_default(),
    ]
}

/// Rounds, rate, and what the machine did besides.
fn circumstances(detail: &Detail) -> String {
    let machine = &detail.machine;
    let mut text = format!(
        "{} of {} s per contender, {} void; the hypervisor took {:.2} s, soft interrupts charged to \
         nobody {:.2} s.",
        counted(detail.rounds as usize, "round"),
        detail.seconds,
        machine.void_rounds,
        machine.stolen_ms as f64 / 1000.0,
        machine.softirq_ms as f64 / 1000.0,
    );
    if let Some(rate) = detail.rate {
        let _ = write!(text, " Latency at {} requests/s for all.", short(rate));
    }
    let mut agreed: Vec<&str> = detail.negotiated.values().map(String::as_str).collect();
    agreed.sort_unstable();
    agreed.dedup();
    if !agreed.is_empty() {
        let _ = write!(text, " TLS: {}.", agreed.join("; "));
    }
    text
}
