//! Prints what a load found: a table for people, JSON for programs, an interval log for plotters.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use hdrhistogram::{
    Histogram,
    serialization::{V2DeflateSerializer, interval_log::IntervalLogWriterBuilder},
};
use serde::Serialize;

use super::{
    Options,
    record::Record,
    tls::{Agreed, Count},
};
use crate::{error::Error, terminal};

const QUANTILES: [(&str, f64); 7] = [
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
    ("max", 1.0),
];

/// Percentiles in microseconds, by name.
type Percentiles = BTreeMap<&'static str, f64>;

/// Handshakes with one outcome.
#[derive(Debug, Serialize)]
struct Tls {
    #[serde(flatten)]
    agreed: Agreed,
    #[serde(flatten)]
    count: Count,
}

/// The findings of one rate.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    target: String,
    /// Requests per second that were asked for; `null` in a closed loop.
    rate: Option<f64>,
    /// Requests per second that were answered.
    achieved_rate: f64,
    connections: u32,
    seconds: f64,
    intended: u64,
    answered: u64,
    errors: BTreeMap<String, u64>,
    /// From the intended time.
    latency_us: Percentiles,
    /// From the send, as a closed loop sees it.
    uncorrected_us: Percentiles,
    /// The generator's own.
    lateness_us: Percentiles,
    /// Most requests that waited for a connection at once.
    waiting_max: u64,
    /// What handshakes of TLS agreed on, and how many did; empty without TLS.
    tls: Vec<Tls>,
    /// The generator was late: these figures are about itself.
    bottleneck: bool,
}

impl Report {
    pub(super) fn new(options: &Options, rate: Option<f64>, record: &Record) -> Self {
        let late_ns = u128::from(record.lateness.value_at_quantile(0.99));
        Self {
            target: options.target.to_string(),
            rate,
            achieved_rate: round(record.rate()),
            connections: options.connections,
            seconds: round(record.seconds()),
            intended: record.intended,
            answered: record.corrected.len(),
            errors: record.errors.clone(),
            latency_us: percentiles(&record.corrected),
            uncorrected_us: percentiles(&record.uncorrected),
            lateness_us: percentiles(&record.lateness),
            waiting_max: record.waiting_max,
            tls: record
                .handshakes
                .iter()
                .map(|(agreed, &count)| Tls { agreed: agreed.clone(), count })
                .collect(),
            bottleneck: late_ns > options.lateness_max.as_nanos(),
        }
    }

    pub(super) fn print(&self, json: bool) -> Result<(), Error> {
        if json {
            let text = serde_json::to_string(self)
                .map_err(|error| Error::io("encode the report")(error.into()))?;
            terminal::say(&text);
            return Ok(());
        }
        let asked = self.rate.map_or("closed loop".to_owned(), |rate| format!("{rate}/s"));
        terminal::say(&format!(
            "{}: {asked} over {} connections: {}/s answered, {} of {} in {} s",
            self.target,
            self.connections,
            self.achieved_rate,
            self.answered,
            self.intended,
            self.seconds,
        ));
        let names: Vec<String> = QUANTILES.iter().map(|(name, _)| format!("{name:>10}")).collect();
        terminal::say(&format!("{:<12}{}", "us", names.concat()));
        let rows = [
            ("latency", &self.latency_us),
            ("uncorrected", &self.uncorrected_us),
            ("lateness", &self.lateness_us),
        ];
        for (name, row) in rows {
            let cells: Vec<String> =
                QUANTILES.iter().map(|(name, _)| format!("{:>10}", row[name])).collect();
            terminal::say(&format!("{name:<12}{}", cells.concat()));
        }
        if self.waiting_max > 0 {
            terminal::say(&format!("{} requests waited at once", self.waiting_max));
        }
        for Tls { agreed: Agreed { version, cipher, group, alpn }, count } in &self.tls {
            terminal::say(&format!(
                "{version}, {cipher}, {group}, ALPN {alpn}: {} full and {} resumed handshakes",
                count.full, count.resumed
            ));
        }
        for (what, count) in &self.errors {
            terminal::say(&format!("{count} x {what}"));
        }
        Ok(())
    }

    /// Whether the figures stand.
    pub(super) fn verdict(&self, options: &Options) -> Result<(), Error> {
        let errors = self.errors.values().sum();
        if self.bottleneck {
            return Err(Error::Late {
                lateness: Duration::from_nanos((self.lateness_us["p99"] * 1e3) as u64),
                allowed: options.lateness_max,
            });
        }
        if errors > 0 || self.answered == 0 {
            return Err(Error::BadRound {
                scenario: "load".to_owned(),
                peer: self.target.clone(),
                requests: self.answered,
                errors,
            });
        }
        Ok(())
    }
}

fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    let at = |quantile| round(histogram.value_at_quantile(quantile) as f64 / 1e3);
    QUANTILES.iter().map(|&(name, quantile)| (name, at(quantile))).collect()
}

/// To a tenth: what the clock and the histogram can tell.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// An HdrHistogram interval log: one histogram per second, nanoseconds inside, milliseconds in its
/// maximum column, tagged with the rate.
#[derive(Debug)]
pub(super) struct Log(BufWriter<File>);

impl Log {
    pub(super) fn create(path: &PathBuf) -> Result<Self, Error> {
        let file = File::create(path)
            .map_err(Error::io(format!("make the interval log {}", path.display())))?;
        Ok(Self(BufWriter::new(file)))
    }

    pub(super) fn write(
        &mut self,
        began: SystemTime,
        warm_up: Duration,
        rate: Option<f64>,
        record: &Record,
    ) -> Result<(), Error> {
        let failed = |_| Error::io("write the interval log")(io::ErrorKind::Other.into());
        let mut serializer = V2DeflateSerializer::new();
        let tag = rate.map_or("closed".to_owned(), |rate| format!("rate-{rate}"));
        let tag = hdrhistogram::serialization::interval_log::Tag::new(&tag);
        let mut log = IntervalLogWriterBuilder::new()
            .add_comment("ringway-bench load: latency from the intended time")
            .with_start_time(began)
            .with_max_value_divisor(1e6)
            .begin_log_with(&mut self.0, &mut serializer)
            .map_err(Error::io("write the interval log"))?;
        for (second, histogram) in record.intervals.iter().enumerate() {
            let from = warm_up + Duration::from_secs(second as u64);
            log.write_histogram(histogram, from, Duration::from_secs(1), tag).map_err(failed)?;
        }
        self.0.flush().map_err(Error::io("write the interval log"))
    }
}
