//! Everything that one scenario's run has found: `benches/results/detail/<scenario>.json`.
//!
//! `latest.json` keeps one ratio per scenario, metric and peer; a report also needs the samples
//! that the ratios come from, and how the machine was meanwhile. A run that was cut short goes on
//! with the scenarios whose detail is missing or belongs to another commit.
//!
//! # Invariants
//! - One file per scenario, replaced whole, by rename.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{Row, Run, replace};
use crate::error::Error;

/// One scenario's run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Detail {
    pub(crate) scenario: String,
    /// What the scenario does, in one line.
    pub(crate) about: String,
    /// Day of the run, as year-month-day (UTC).
    pub(crate) date: String,
    pub(crate) run: Run,
    /// Rounds per contender, and seconds of load in each.
    pub(crate) rounds: u32,
    pub(crate) seconds: u64,
    pub(crate) machine: Machine,
    /// Requests per second of the latency rounds, the same for all.
    pub(crate) rate: Option<f64>,
    /// What a TLS connection agreed on, by contender: alike for all, or there is no detail.
    pub(crate) negotiated: BTreeMap<String, String>,
    /// The samples by metric and contender, Ringway first.
    pub(crate) series: Vec<Series>,
    /// Latency by percentile, all rounds together; `direct` is without a proxy.
    pub(crate) curves: Vec<Curve>,
    pub(crate) rows: Vec<Row>,
    pub(crate) goals: Vec<Goal>,
    /// What a reader has to know besides: failed requests of a peer, a peer that cannot do it.
    pub(crate) notes: Vec<String>,
}

/// What the project has promised for a metric: the worse end of the ratio's interval has to be
/// within `must`; `aim` is what it works towards.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Goal {
    pub(crate) metric: String,
    /// With a peer, `must` and `aim` are ratios to it; with `goal`, they are figures.
    pub(crate) peer: String,
    pub(crate) must: f64,
    #[serde(default)]
    pub(crate) aim: Option<f64>,
}

/// How the machine was during the run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Machine {
    /// Rounds that were repeated because the hypervisor took the machine away.
    pub(crate) void_rounds: u32,
    /// Core time that the hypervisor took, over all rounds, void ones included.
    pub(crate) stolen_ms: u64,
    /// Core time in soft interrupts that were charged to nobody.
    pub(crate) softirq_ms: u64,
}

/// One figure per round of one contender.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Series {
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) peer: String,
    pub(crate) samples: Vec<f64>,
    /// Share of user time in CPU time, median over the rounds, 0 to 1.
    pub(crate) user_share: Option<f64>,
}

/// Latency from the intended time, through one contender.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Curve {
    pub(crate) peer: String,
    /// Percentile (0 to 100) and microseconds, ascending.
    pub(crate) points: Vec<(f64, f64)>,
}

/// The detail of `scenario` in `folder`, if there is one.
///
/// # Errors
/// When a file is there but cannot be understood.
pub(crate) fn read(folder: &Path, scenario: &str) -> Result<Option<Detail>, Error> {
    let path = folder.join(format!("{scenario}.json"));
    match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| Error::Results { path, detail: error.to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read an earlier result")(error)),
    }
}

/// Writes `detail` into `folder`, in place of an earlier one of its scenario.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(folder: &Path, detail: &Detail) -> Result<(), Error> {
    replace(&folder.join(format!("{}.json", detail.scenario)), detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("detail");
        assert_eq!(read(&folder, "h1-small").unwrap(), None);
        let detail = Detail {
            scenario: "h1-small".to_owned(),
            rate: Some(1234.5),
            curves: vec![Curve { peer: "direct".to_owned(), points: vec![(50.0, 80.5)] }],
            ..Detail::default()
        };
        write(&folder, &detail).unwrap();
        assert_eq!(read(&folder, "h1-small").unwrap(), Some(detail));
        fs::write(folder.join("broken.json"), "{").unwrap();
        assert!(matches!(read(&folder, "broken"), Err(Error::Results { .. })));
    }
}
