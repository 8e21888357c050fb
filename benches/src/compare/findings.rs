//! What a scenario's run has found, until it is complete: samples in, ratios out.
//!
//! # Invariants
//! - Sample `n` of every contender is from round `n`: ratios are drawn by rounds. A contender that
//!   fails is left out from then on, and its samples so far are dropped.

use std::collections::BTreeSet;

use hdrhistogram::Histogram;

use super::{
    Bench,
    peer::{DIRECT, OURS},
    scenario::Scenario,
};
use crate::{
    error::Error,
    results::{
        Row,
        detail::{Curve, Detail, Machine, Series},
    },
    sample, terminal,
};

/// What a figure is and what it is counted in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    pub(super) id: &'static str,
    pub(super) unit: &'static str,
}

pub(super) const CPU_PER_REQUEST: Metric = Metric { id: "cpu_us_per_request", unit: "us" };
pub(super) const CPU_PER_GB: Metric = Metric { id: "cpu_s_per_gb", unit: "s/GB" };
pub(super) const P50_ADDED: Metric = Metric { id: "p50_added_us", unit: "us" };
pub(super) const P99_ADDED: Metric = Metric { id: "p99_added_us", unit: "us" };
pub(super) const RSS: Metric = Metric { id: "rss_mib", unit: "MiB" };
pub(super) const PSS: Metric = Metric { id: "pss_mib", unit: "MiB" };
pub(super) const PER_CONNECTION: Metric = Metric { id: "bytes_per_idle_connection", unit: "B" };
pub(super) const PER_ROUTE: Metric = Metric { id: "bytes_per_route", unit: "B" };
pub(super) const RELOAD: Metric = Metric { id: "reload_ms", unit: "ms" };
pub(super) const EXEC_TO_ACCEPT: Metric = Metric { id: "exec_to_accept_ms", unit: "ms" };

/// The percentiles of a curve, from the median towards the maximum.
const CURVE: [f64; 14] =
    [0.0, 25.0, 50.0, 75.0, 80.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95, 99.99];

/// One scenario's findings.
#[derive(Debug)]
pub(super) struct Findings {
    detail: Detail,
    /// User shares by metric and contender, as the samples.
    user_shares: Vec<(&'static str, String, Vec<f64>)>,
    /// What `goal` is relative to, by metric.
    relative: Vec<(Metric, Vec<f64>)>,
    pub(super) failures: Vec<String>,
}

impl Findings {
    pub(super) fn new(bench: &Bench, scenario: &Scenario) -> Self {
        let detail = Detail {
            scenario: scenario.id.clone(),
            about: scenario.about.clone(),
            date: today(),
            run: bench.run.clone(),
            rounds: bench.rounds,
            seconds: bench.seconds,
            goals: scenario.goals.clone(),
            ..Detail::default()
        };
        Self { detail, user_shares: Vec::new(), relative: Vec::new(), failures: Vec::new() }
    }

    pub(super) fn id(&self) -> &str {
        &self.detail.scenario
    }

    pub(super) fn machine(&mut self) -> &mut Machine {
        &mut self.detail.machine
    }

    pub(super) fn rate(&mut self, per_second: f64) {
        self.detail.rate = Some(per_second);
    }

    /// Adds a figure to the contender's own.
    pub(super) fn push(&mut self, metric: Metric, peer: &str, value: f64) {
        let series = &mut self.detail.series;
        let found =
            series.iter_mut().find(|series| series.metric == metric.id && series.peer == peer);
        match found {
            Some(series) => series.samples.push(value),
            None => series.push(Series {
                metric: metric.id.to_owned(),
                unit: metric.unit.to_owned(),
                peer: peer.to_owned(),
                samples: vec![value],
                user_share: None,
            }),
        }
    }

    /// Adds CPU time, and the share of it that was user time.
    pub(super) fn push_cpu(&mut self, metric: Metric, peer: &str, (value, user): (f64, f64)) {
        self.push(metric, peer, value);
        let same =
            |(id, owner, _): &&mut (&str, String, Vec<f64>)| *id == metric.id && owner == peer;
        match self.user_shares.iter_mut().find(same) {
            Some((.., shares)) => shares.push(user),
            None => self.user_shares.push((metric.id, peer.to_owned(), vec![user])),
        }
    }

    /// What `must` and `aim` of `goal` are multiples of, for this metric; they become figures.
    pub(super) fn relative_to(&mut self, metric: Metric, samples: Vec<f64>) {
        self.relative.push((metric, samples));
    }

    /// What TLS connections of a contender agreed on; all that it ever did counts.
    pub(super) fn negotiated(&mut self, peer: &str, agreed: Vec<String>) {
        for one in agreed {
            let all = self.detail.negotiated.entry(peer.to_owned()).or_default();
            if !all.contains(&one) {
                *all = if all.is_empty() { one } else { format!("{all}; {one}") };
            }
        }
    }

    /// Latency of a contender by percentile.
    pub(super) fn curve(&mut self, peer: &str, latency_ns: &Histogram<u64>) {
        let point = |percentile: f64| {
            let us = latency_ns.value_at_percentile(percentile) as f64 / 1e3;
            (percentile, (us * 10.0).round() / 10.0)
        };
        let points = CURVE.iter().copied().map(point).collect();
        self.detail.curves.push(Curve { peer: peer.to_owned(), points });
    }

    pub(super) fn note(&mut self, text: String) {
        self.detail.notes.push(text);
    }

    /// A contender could not be measured: what it has is dropped.
    pub(super) fn failed(&mut self, peer: &str, error: &Error) {
        terminal::progress("");
        terminal::warn(&format!("{}: {peer}: {error}", self.id()));
        let first = error.to_string().lines().next().unwrap_or_default().to_owned();
        self.failures.push(format!("{}: {peer}: {first}", self.id()));
        self.note(format!("{peer}: {first}"));
        self.detail.series.retain(|series| series.peer != peer);
    }

    /// Computes the ratios.
    pub(super) fn finish(mut self, contenders: &[String]) -> (Detail, Vec<String>) {
        let place = |peer: &str| contenders.iter().position(|id| id == peer);
        self.detail.series.sort_by_key(|series| place(&series.peer));
        self.detail.curves.sort_by_key(|curve| place(&curve.peer));
        for series in &mut self.detail.series {
            let same = |(id, owner, _): &&(&str, String, Vec<f64>)| {
                *id == series.metric && *owner == series.peer
            };
            let shares = self.user_shares.iter().find(same);
            series.user_share = shares.map(|(.., shares)| four_digits(sample::median(shares)));
        }
        let agreed: BTreeSet<&String> = self.detail.negotiated.values().collect();
        if agreed.len() > 1 {
            let text = format!("TLS is not alike: {:?}", self.detail.negotiated);
            self.failures.push(format!("{}: {text}", self.id()));
        }
        self.detail.rows = self.rows();
        for (metric, samples) in &self.relative {
            let goals = self.detail.goals.iter_mut();
            for goal in goals.filter(|goal| goal.metric == metric.id && goal.peer == "goal") {
                let base = sample::median(samples);
                goal.must *= base;
                goal.aim = goal.aim.map(|aim| aim * base);
            }
        }
        (self.detail, self.failures)
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for ours in self.detail.series.iter().filter(|series| series.peer == OURS) {
            let same_metric = self.detail.series.iter().filter(|one| one.metric == ours.metric);
            for theirs in same_metric.filter(|one| one.peer != OURS) {
                rows.push(self.row(ours, &theirs.peer, &theirs.samples));
            }
            let goals = self.detail.goals.iter();
            for goal in goals.filter(|goal| goal.metric == ours.metric && goal.peer == "goal") {
                let relative = self.relative.iter().find(|(metric, _)| metric.id == ours.metric);
                let theirs = match relative {
                    Some((_, samples)) => samples.iter().map(|one| one * goal.must).collect(),
                    None => vec![goal.must; ours.samples.len()],
                };
                rows.push(self.row(ours, "goal", &theirs));
            }
        }
        rows
    }

    fn row(&self, ours: &Series, peer: &str, theirs: &[f64]) -> Row {
        let ratio = sample::ratio(&ours.samples, theirs);
        let medians = (sample::median(&ours.samples), sample::median(theirs));
        let names = (self.detail.scenario.as_str(), ours.metric.as_str(), ours.unit.as_str());
        let mut row = Row::new(names, peer, medians, ratio);
        // What a proxy adds may be lost in the noise, and then a ratio to it is noise too.
        let is_added = [P50_ADDED.id, P99_ADDED.id].contains(&ours.metric.as_str());
        let (low, high) = sample::interval(theirs);
        row.unresolved = is_added && peer != DIRECT && low <= 0.0 && high >= 0.0;
        row
    }
}

fn four_digits(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Year, month and day, UTC.
fn today() -> String {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    now.split('T').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::results::detail::Goal;

    fn findings() -> Findings {
        Findings {
            detail: Detail { scenario: "x".to_owned(), ..Detail::default() },
            user_shares: Vec::new(),
            relative: Vec::new(),
            failures: Vec::new(),
        }
    }

    fn goal(metric: Metric, must: f64) -> Goal {
        Goal { metric: metric.id.to_owned(), peer: "goal".to_owned(), must, aim: None }
    }

    #[test]
    fn ratios_are_ours_to_theirs_and_to_the_goal() {
        let mut findings = findings();
        findings.detail.goals = vec![goal(RSS, 10.0), goal(CPU_PER_REQUEST, 1.1)];
        for _ in 0..6 {
            findings.push(RSS, "nginx", 8.0);
            findings.push(RSS, OURS, 6.0);
            findings.push_cpu(CPU_PER_REQUEST, OURS, (12.0, 0.25));
        }
        findings.relative_to(CPU_PER_REQUEST, vec![11.0; 6]);
        let (detail, failures) = findings.finish(&[OURS.to_owned(), "nginx".to_owned()]);
        assert!(failures.is_empty());
        assert_eq!(detail.series[0].peer, OURS);
        assert_eq!(detail.series[1].user_share, Some(0.25));
        let ratio = |peer: &str, metric: Metric| {
            let found = |row: &&Row| row.peer == peer && row.metric == metric.id;
            detail.rows.iter().find(found).unwrap().ratio
        };
        assert_eq!(detail.rows.len(), 3);
        assert_eq!(ratio("nginx", RSS), 0.75);
        assert_eq!(ratio("goal", RSS), 0.6);
        assert!((ratio("goal", CPU_PER_REQUEST) - 12.0 / 12.1).abs() < 1e-3);
        assert!((detail.goals[1].must - 12.1).abs() < 1e-9, "{:?}", detail.goals);
    }

    #[test]
    fn what_is_added_within_the_noise_is_unresolved() {
        let mut findings = findings();
        for round in 0..8 {
            let noise = f64::from(round) - 3.5;
            findings.push(P99_ADDED, OURS, 20.0 + noise);
            findings.push(P99_ADDED, "haproxy", 0.4 + noise);
            findings.push(P99_ADDED, "envoy", 90.0 + noise);
            findings.push(P99_ADDED, DIRECT, 70.0);
        }
        let (detail, _) = findings.finish(&[]);
        let unresolved =
            |peer: &str| detail.rows.iter().find(|row| row.peer == peer).unwrap().unresolved;
        assert!(unresolved("haproxy") && !unresolved("envoy") && !unresolved(DIRECT));
    }

    #[test]
    fn what_tls_agreed_on_has_to_be_alike() {
        let mut same = findings();
        for peer in [OURS, "nginx"] {
            for _ in 0..2 {
                same.negotiated(peer, vec!["TLSv1_3 X25519 full".to_owned()]);
            }
        }
        let mut different = findings();
        different.negotiated(OURS, vec!["TLSv1_3 X25519 full".to_owned()]);
        different.negotiated("nginx", vec!["TLSv1_3 P256 full".to_owned()]);
        assert!(same.finish(&[]).1.is_empty());
        assert!(different.finish(&[]).1[0].contains("TLS is not alike"));
    }

    #[test]
    fn a_contender_that_fails_leaves_a_note_and_no_samples() {
        let mut findings = findings();
        findings.push(RSS, OURS, 6.0);
        findings.push(RSS, "nginx", 8.0);
        findings.failed("nginx", &Error::Usage("gone".to_owned()));
        let (detail, failures) = findings.finish(&[]);
        assert_eq!(failures, ["x: nginx: gone"]);
        assert_eq!((detail.series.len(), detail.rows.len()), (1, 0));
        assert_eq!(detail.notes, ["nginx: gone"]);
    }
}
