//! Writer of the Prometheus text format, version 0.0.4.
//!
//! # Invariants
//! - HELP and TYPE stand once per family, before its samples; samples of a family stand together.
//! - Label values escape `\`, `"` and newline; help escapes `\` and newline.
//! - Times are in seconds, printed from integer nanoseconds as exact decimals.
//! - In a histogram, buckets do not decrease and the `+Inf` bucket equals `_count`.
//!
//! Names are literals of the caller, so a wrong one is a mistake in the code and caught by debug
//! assertions: bad characters, a counter without `_total`, a family in two places, a sample whose
//! shape is not that of its family.
//!
//! # Not here
//! HTTP, compression, OpenMetrics, native histograms; uniqueness of label sets.

use std::fmt::Write;

use crate::snapshot::Snapshot;

/// The `Content-Type` of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// A level.
    Gauge,
    /// Cumulative buckets, sum and count.
    Histogram,
    /// Quantiles, sum and count.
    Summary,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        }
    }
}

/// Value of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A count.
    Unsigned(u64),
    /// A level.
    Signed(i64),
    /// A ratio, or anything else with a fraction.
    Float(f64),
    /// A time in nanoseconds, printed in seconds.
    Nanoseconds(u64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Value::Unsigned(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Signed(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Float(value)
    }
}

/// A text under construction.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    /// Families so far; the last one is open.
    families: Vec<(String, Kind)>,
}

impl Exposition {
    /// An empty text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the family `name`. Opening the family that is open already does nothing.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        if self.families.last().is_some_and(|(open, _)| open == name) {
            return;
        }
        debug_assert!(is_metric_name(name), "metric name {name:?}");
        debug_assert!(kind != Kind::Counter || name.ends_with("_total"), "counter {name:?}");
        debug_assert!(!self.families.iter().any(|(seen, _)| seen == name), "{name} stands twice");
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        push_escaped(&mut self.text, help, false);
        self.text.push_str("\n# TYPE ");
        self.text.push_str(name);
        self.text.push(' ');
        self.text.push_str(kind.name());
        self.text.push('\n');
        self.families.push((name.to_owned(), kind));
    }

    /// One sample of the open family, which is a counter or a gauge.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Into<Value>) {
        debug_assert!(matches!(self.kind(), Some(Kind::Counter | Kind::Gauge)));
        self.line("", labels, None, value.into());
    }

    /// The buckets, sum and count of one series of the open family, which is a histogram.
    ///
    /// Values and `bounds_ns` are nanoseconds, the bounds ascending; the text has seconds. How
    /// bounds cut slots: [`Snapshot::cumulative_le`].
    pub fn histogram(&mut self, labels: &[(&str, &str)], values: &Snapshot, bounds_ns: &[u64]) {
        debug_assert_eq!(self.kind(), Some(Kind::Histogram));
        let mut bound_text = String::new();
        for (bound, count) in bounds_ns.iter().zip(values.cumulative_le(bounds_ns)) {
            bound_text.clear();
            push_seconds(&mut bound_text, *bound);
            self.line("_bucket", labels, Some(("le", &bound_text)), count.into());
        }
        self.line("_bucket", labels, Some(("le", "+Inf")), values.count().into());
        self.sum_and_count(labels, values);
    }

    /// The quantiles, sum and count of one series of the open family, which is a summary.
    ///
    /// Values are nanoseconds, the text has seconds; `quantiles` are texts such as `"0.99"`, which
    /// stand as labels as they are. One that is no number is left out.
    pub fn summary(&mut self, labels: &[(&str, &str)], values: &Snapshot, quantiles: &[&str]) {
        debug_assert_eq!(self.kind(), Some(Kind::Summary));
        for quantile in quantiles {
            let Ok(share) = quantile.parse::<f64>() else { continue };
            let value = match values.count() {
                0 => Value::Float(f64::NAN),
                _ => Value::Nanoseconds(values.percentile(share * 100.0)),
            };
            self.line("", labels, Some(("quantile", quantile)), value);
        }
        self.sum_and_count(labels, values);
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }

    fn kind(&self) -> Option<Kind> {
        self.families.last().map(|(_, kind)| *kind)
    }

    fn sum_and_count(&mut self, labels: &[(&str, &str)], values: &Snapshot) {
        self.line("_sum", labels, None, Value::Nanoseconds(values.sum()));
        self.line("_count", labels, None, values.count().into());
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        last_label: Option<(&str, &str)>,
        value: Value,
    ) {
        if let Some((name, _)) = self.families.last() {
            self.text.push_str(name);
        }
        self.text.push_str(suffix);
        let mut separator = '{';
        for (name, value) in labels.iter().chain(&last_label) {
            debug_assert!(is_label_name(name), "label name {name:?}");
            self.text.push(separator);
            self.text.push_str(name);
            self.text.push_str("=\"");
            push_escaped(&mut self.text, value, true);
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        self.text.push(' ');
        push_value(&mut self.text, value);
        self.text.push('\n');
    }
}

fn push_value(text: &mut String, value: Value) {
    // Writing to a String cannot fail.
    let _ = match value {
        Value::Unsigned(value) => write!(text, "{value}"),
        Value::Signed(value) => write!(text, "{value}"),
        Value::Float(f64::INFINITY) => write!(text, "+Inf"),
        Value::Float(f64::NEG_INFINITY) => write!(text, "-Inf"),
        Value::Float(value) => write!(text, "{value}"),
        Value::Nanoseconds(value) => {
            push_seconds(text, value);
            Ok(())
        }
    };
}

fn push_seconds(text: &mut String, ns: u64) {
    let (seconds, fraction) = (ns / 1_000_000_000, ns % 1_000_000_000);
    let _ = write!(text, "{seconds}");
    if fraction > 0 {
        let _ = write!(text, ".{fraction:09}");
        text.truncate(text.trim_end_matches('0').len());
    }
}

fn push_escaped(text: &mut String, raw: &str, quotes: bool) {
    for character in raw.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

fn is_metric_name(name: &str) -> bool {
    is_name(name, |byte| byte == b':')
}

fn is_label_name(name: &str) -> bool {
    is_name(name, |_| false) && !name.starts_with("__")
}

fn is_name(name: &str, extra: impl Fn(u8) -> bool) -> bool {
    let starts_with_digit = name.starts_with(|first: char| first.is_ascii_digit());
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || extra(byte);
    !name.is_empty() && !starts_with_digit && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests;
