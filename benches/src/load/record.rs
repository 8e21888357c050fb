//! What a load found: latencies from the intended time and from the real one, and how late the
//! generator itself was.
//!
//! # Invariants
//! - Only requests whose intended time lies within the window count, however late they ended.
//! - `corrected` counts from the intended time: while the target stalls, requests that could not be
//!   sent grow old (Tene, "How NOT to measure latency"). `uncorrected` counts from the send, as a
//!   closed loop would.

use std::{collections::BTreeMap, ops::Range};

use hdrhistogram::Histogram;

use super::{connection::Answer, tls::Handshakes};
use crate::error::Error;

/// Longest latency that is told apart from longer ones.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Length of one interval of the log.
const INTERVAL_NS: u64 = 1_000_000_000;

/// Everything that was found in one run.
#[derive(Debug)]
pub(crate) struct Record {
    /// Intended times that count, in nanoseconds from the start.
    window_ns: Range<u64>,
    pub(crate) corrected: Histogram<u64>,
    pub(crate) uncorrected: Histogram<u64>,
    /// How long after the intended time of a request the generator came to it.
    pub(crate) lateness: Histogram<u64>,
    /// `corrected` by second of the intended time, for the log.
    pub(crate) intervals: Vec<Histogram<u64>>,
    /// Requests whose answer said that they failed, by its status; the others by what went wrong.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Most requests that waited for a connection at once.
    pub(crate) waiting_max: u64,
    /// When the last answer came.
    pub(super) ended_ns: u64,
    pub(crate) intended: u64,
    /// Of TLS; those of the warm-up count too.
    pub(crate) handshakes: Handshakes,
}

fn histogram() -> Result<Histogram<u64>, Error> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
        .map_err(|error| Error::Usage(format!("no histogram: {error}")))
}

impl Record {
    pub(crate) fn new(window_ns: Range<u64>) -> Result<Self, Error> {
        let seconds = (window_ns.end - window_ns.start).div_ceil(INTERVAL_NS);
        Ok(Self {
            corrected: histogram()?,
            uncorrected: histogram()?,
            lateness: histogram()?,
            intervals: (0..seconds).map(|_| histogram()).collect::<Result<_, _>>()?,
            errors: BTreeMap::new(),
            waiting_max: 0,
            ended_ns: 0,
            intended: 0,
            handshakes: Handshakes::new(),
            window_ns,
        })
    }

    fn counts(&self, intended_ns: u64) -> bool {
        self.window_ns.contains(&intended_ns)
    }

    /// A request is due.
    pub(super) fn due(&mut self, intended_ns: u64) {
        self.intended += u64::from(self.counts(intended_ns));
    }

    /// The loop came to a request at `now_ns`. Whether a connection is free then is the target's
    /// doing; that the loop comes late is the generator's.
    pub(super) fn late(&mut self, intended_ns: u64, now_ns: u64) {
        if self.counts(intended_ns) {
            self.lateness.saturating_record(now_ns.saturating_sub(intended_ns).max(1));
        }
    }

    /// So many requests wait for a connection.
    pub(super) fn waiting(&mut self, count: usize) {
        self.waiting_max = self.waiting_max.max(count as u64);
    }

    /// A request was answered. One that failed by its status is an error, with its latency all the
    /// same.
    pub(super) fn answered(&mut self, intended_ns: u64, sent_ns: u64, now_ns: u64, answer: Answer) {
        if !self.counts(intended_ns) {
            return;
        }
        let corrected = now_ns.saturating_sub(intended_ns).max(1);
        self.corrected.saturating_record(corrected);
        self.uncorrected.saturating_record(now_ns.saturating_sub(sent_ns).max(1));
        let interval = ((intended_ns - self.window_ns.start) / INTERVAL_NS) as usize;
        if let Some(interval) = self.intervals.get_mut(interval) {
            interval.saturating_record(corrected);
        }
        self.ended_ns = self.ended_ns.max(now_ns);
        if !answer.is_good() {
            *self.errors.entry(answer.to_string()).or_default() += 1;
        }
    }

    /// A request was not answered.
    pub(super) fn failed(&mut self, intended_ns: u64, why: &str) {
        if self.counts(intended_ns) {
            *self.errors.entry(why.to_owned()).or_default() += 1;
        }
    }

    pub(crate) fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Requests answered in a second of the window.
    pub(crate) fn rate(&self) -> f64 {
        self.corrected.len() as f64 / self.seconds()
    }

    /// Seconds from the beginning of the window to the last answer, at least the window's own.
    pub(crate) fn seconds(&self) -> f64 {
        let end_ns = self.ended_ns.max(self.window_ns.end);
        (end_ns - self.window_ns.start) as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_seen_from_the_intended_times() {
        let mut record = Record::new(0..1_000_000_000).unwrap();
        // 1000 requests a second; the target stands still for 200 ms and then answers at once.
        for at in (0..1000u64).map(|number| number * 1_000_000) {
            let sent = if at < 200_000_000 { 200_000_000 } else { at };
            record.answered(at, sent, sent + 1000, Answer::Status(200));
        }
        let p90 = record.corrected.value_at_quantile(0.9);
        assert!((95_000_000..105_000_000).contains(&p90), "{p90}");
        assert!(record.uncorrected.value_at_quantile(0.99) < 1100);
    }

    #[test]
    fn a_loop_that_comes_late_is_late_whether_or_not_a_connection_is_free() {
        let mut record = Record::new(0..1_000_000).unwrap();
        for intended in [0, 10, 20] {
            record.due(intended);
            record.late(intended, intended + 5_000);
        }
        assert_eq!((record.lateness.len(), record.lateness.min()), (3, 5_000));
    }

    #[test]
    fn the_warm_up_and_what_comes_after_the_window_do_not_count() {
        let mut record = Record::new(1_000..2_000).unwrap();
        for intended in [999, 1_000, 1_999, 2_000] {
            record.due(intended);
            record.answered(intended, intended, 5_000, Answer::Status(503));
            record.failed(intended, "reset");
        }
        assert_eq!((record.intended, record.corrected.len(), record.error_count()), (2, 2, 4));
        assert_eq!(record.errors["status 503"], 2);
    }
}
