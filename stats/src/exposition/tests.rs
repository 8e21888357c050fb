//! The text format, character by character, against the format's specification (exposition formats,
//! text format 0.0.4), and by a parser of its own on arbitrary labels.

use proptest::prelude::*;

use super::*;
use crate::histogram::Histogram;
use crate::limits::LATENCY_BOUNDS_NS;

fn one_gauge(labels: &[(&str, &str)], value: impl Into<Value>) -> String {
    let mut exposition = Exposition::new();
    exposition.family("g", Kind::Gauge, "h");
    exposition.sample(labels, value);
    exposition.finish()
}

fn value_text(value: impl Into<Value>) -> String {
    let text = one_gauge(&[], value);
    text.lines().last().unwrap().strip_prefix("g ").unwrap().to_owned()
}

#[test]
fn family_is_announced_once_even_when_opened_again() {
    let mut exposition = Exposition::new();
    for (status, count) in [("2xx", 5u64), ("5xx", 1)] {
        exposition.family("requests_total", Kind::Counter, "Requests.");
        exposition.sample(&[("status", status)], count);
    }
    let expected = "# HELP requests_total Requests.\n\
                    # TYPE requests_total counter\n\
                    requests_total{status=\"2xx\"} 5\n\
                    requests_total{status=\"5xx\"} 1\n";
    assert_eq!(exposition.finish(), expected);
}

#[test]
fn sample_without_labels_has_no_braces() {
    assert!(one_gauge(&[], 1u64).ends_with("\ng 1\n"));
}

#[test]
fn label_value_escapes_backslash_quote_and_newline() {
    let text = one_gauge(&[("path", "a\\b\"c\nd"), ("other", "é")], 1u64);
    assert!(text.ends_with("g{path=\"a\\\\b\\\"c\\nd\",other=\"é\"} 1\n"), "{text}");
}

#[test]
fn help_escapes_backslash_and_newline_but_not_quotes() {
    let mut exposition = Exposition::new();
    exposition.family("g", Kind::Gauge, "a\\b \"c\"\nd");
    assert!(exposition.finish().starts_with("# HELP g a\\\\b \"c\"\\nd\n# TYPE g gauge\n"));
}

#[test]
fn special_floats_are_spelled_as_the_format_wants() {
    assert_eq!(value_text(f64::INFINITY), "+Inf");
    assert_eq!(value_text(f64::NEG_INFINITY), "-Inf");
    assert_eq!(value_text(f64::NAN), "NaN");
    assert_eq!(value_text(0.25), "0.25");
    assert_eq!(value_text(-7i64), "-7");
    assert_eq!(value_text(u64::MAX), "18446744073709551615");
}

#[test]
fn nanoseconds_are_printed_as_exact_decimal_seconds() {
    assert_eq!(value_text(Value::Nanoseconds(0)), "0");
    assert_eq!(value_text(Value::Nanoseconds(1)), "0.000000001");
    assert_eq!(value_text(Value::Nanoseconds(2_500_000)), "0.0025");
    assert_eq!(value_text(Value::Nanoseconds(10_000_000_000)), "10");
    assert_eq!(value_text(Value::Nanoseconds(1_100_000_000)), "1.1");
}

#[test]
fn histogram_has_cumulative_buckets_in_seconds_then_sum_then_count() {
    let latency = Histogram::new();
    for ns in [1_000_000, 3_000_000, 90_000_000_000] {
        latency.record(ns);
    }
    let mut exposition = Exposition::new();
    exposition.family("latency_seconds", Kind::Histogram, "Latency.");
    let bounds = [1_000_000, 5_000_000, 60_000_000_000];
    exposition.histogram(&[("route", "r")], &latency.snapshot(), &bounds);
    let expected = "# HELP latency_seconds Latency.\n\
                    # TYPE latency_seconds histogram\n\
                    latency_seconds_bucket{route=\"r\",le=\"0.001\"} 1\n\
                    latency_seconds_bucket{route=\"r\",le=\"0.005\"} 2\n\
                    latency_seconds_bucket{route=\"r\",le=\"60\"} 2\n\
                    latency_seconds_bucket{route=\"r\",le=\"+Inf\"} 3\n\
                    latency_seconds_sum{route=\"r\"} 90.004\n\
                    latency_seconds_count{route=\"r\"} 3\n";
    assert_eq!(exposition.finish(), expected);
}

#[test]
fn empty_histogram_has_every_bucket_at_zero() {
    let mut exposition = Exposition::new();
    exposition.family("latency_seconds", Kind::Histogram, "Latency.");
    exposition.histogram(&[], &Snapshot::new(), &LATENCY_BOUNDS_NS);
    let text = exposition.finish();
    assert_eq!(text.lines().filter(|line| line.ends_with(" 0")).count(), 18 + 3);
}

#[test]
fn summary_has_quantiles_in_seconds_and_nan_when_empty() {
    let latency = Histogram::new();
    latency.record(1_500);
    let mut exposition = Exposition::new();
    exposition.family("s_seconds", Kind::Summary, "S.");
    exposition.summary(&[("route", "r")], &latency.snapshot(), &["0.5", "0.99"]);
    exposition.summary(&[("route", "empty")], &Snapshot::new(), &["0.5"]);
    let expected = "# HELP s_seconds S.\n\
                    # TYPE s_seconds summary\n\
                    s_seconds{route=\"r\",quantile=\"0.5\"} 0.0000015\n\
                    s_seconds{route=\"r\",quantile=\"0.99\"} 0.0000015\n\
                    s_seconds_sum{route=\"r\"} 0.0000015\n\
                    s_seconds_count{route=\"r\"} 1\n\
                    s_seconds{route=\"empty\",quantile=\"0.5\"} NaN\n\
                    s_seconds_sum{route=\"empty\"} 0\n\
                    s_seconds_count{route=\"empty\"} 0\n";
    assert_eq!(exposition.finish(), expected);
}

#[test]
fn names_outside_the_grammar_are_told_apart() {
    assert!(is_metric_name("ringway:requests_total") && is_metric_name("_a1"));
    assert!(!is_metric_name("") && !is_metric_name("1a") && !is_metric_name("a-b"));
    assert!(is_label_name("route") && is_label_name("_r"));
    assert!(!is_label_name("__name__") && !is_label_name("a:b") && !is_label_name("9"));
}

/// Reads the labels of one sample line back, as a scraper would.
fn parse_label_value(line: &str) -> Option<String> {
    let quoted = line.strip_prefix("g{l=\"")?.strip_suffix("\"} 1")?;
    let mut value = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => value.push(match characters.next()? {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            }),
            '"' | '\n' => return None,
            plain => value.push(plain),
        }
    }
    Some(value)
}

proptest! {
    #[test]
    fn any_label_value_reads_back_as_written(value in any::<String>()) {
        let text = one_gauge(&[("l", &value)], 1u64);
        let sample = text.strip_prefix("# HELP g h\n# TYPE g gauge\n").unwrap();
        let line = sample.strip_suffix('\n').unwrap();
        prop_assert_eq!(parse_label_value(line), Some(value));
    }
}
