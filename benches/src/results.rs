//! The machine-readable results: `benches/results/latest.json`.
//!
//! # Invariants
//! - One row per scenario, metric and peer: a new run replaces its own rows and keeps the others.
//! - The file is replaced whole, by rename: a reader never sees half of it.
//! - `run` describes the newest run, not every row.

pub(crate) mod detail;

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{error::Error, sample::Ratio};

/// The whole file.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Results {
    pub(crate) run: Run,
    pub(crate) results: Vec<Row>,
}

/// Where and how the newest rows came about.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Run {
    pub(crate) commit: String,
    pub(crate) kernel: String,
    /// The system's TCP congestion control.
    #[serde(default)]
    pub(crate) congestion_control: String,
    pub(crate) backend: String,
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) command: String,
}

/// One figure of ours beside one of theirs; `ratio` is ours / theirs, lower is better.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) peer: String,
    pub(crate) ours: f64,
    pub(crate) theirs: f64,
    pub(crate) ratio: f64,
    /// Lower end of the 95 % interval of the ratio.
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// The interval of `theirs` contains 0, so that the ratio says nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unresolved: bool,
}

impl Row {
    fn key(&self) -> (&str, &str, &str) {
        (&self.scenario, &self.metric, &self.peer)
    }

    /// A row with its figures rounded to four significant digits.
    pub(crate) fn new(
        (scenario, metric, unit): (&str, &str, &str),
        peer: &str,
        (ours, theirs): (f64, f64),
        ratio: Ratio,
    ) -> Self {
        Self {
            scenario: scenario.to_owned(),
            metric: metric.to_owned(),
            unit: unit.to_owned(),
            peer: peer.to_owned(),
            ours: four_digits(ours),
            theirs: four_digits(theirs),
            ratio: four_digits(ratio.ratio),
            low: four_digits(ratio.low),
            high: four_digits(ratio.high),
            unresolved: false,
        }
    }
}

/// Three to four digits, as a person reads a figure.
pub(crate) fn short(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn four_digits(value: f64) -> f64 {
    // Formatting rounds in decimal; arithmetic would leave digits such as 0.30000000000000004.
    format!("{value:.3e}").parse().unwrap_or(value)
}

impl Results {
    /// Replaces the rows that `rows` measured anew.
    pub(crate) fn merge(&mut self, run: Run, rows: Vec<Row>) {
        self.run = run;
        for row in rows {
            match self.results.iter_mut().find(|earlier| earlier.key() == row.key()) {
                Some(earlier) => *earlier = row,
                None => self.results.push(row),
            }
        }
        self.results.sort_by(|left, right| left.key().cmp(&right.key()));
    }
}

/// Merges `rows` into the file at `path`.
///
/// # Errors
/// When the file is there but cannot be understood, or cannot be replaced.
pub(crate) fn merge_into(path: &Path, run: Run, rows: Vec<Row>) -> Result<(), Error> {
    let mut results = match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .map_err(|error| Error::Results { path: path.to_owned(), detail: error.to_string() })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Results::default(),
        Err(error) => return Err(Error::io("read the earlier results")(error)),
    };
    results.merge(run, rows);
    replace(path, &results)
}

/// Writes `value` as the whole of the file at `path`.
fn replace(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::io("encode the results")(error.into()))?;
    text.push('\n');
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::io("make the folder for results"))?;
    }
    let next = path.with_extension("json.next");
    fs::write(&next, text)
        .and_then(|()| fs::rename(&next, path))
        .map_err(Error::io("write the results"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(scenario: &str, peer: &str, ours: f64) -> Row {
        let ratio = Ratio { ratio: ours / 2.0, low: 0.1, high: 0.9 };
        Row::new((scenario, "cpu_us_per_request", "us"), peer, (ours, 2.0), ratio)
    }

    #[test]
    fn a_new_run_replaces_its_rows_and_keeps_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results/latest.json");
        let first = vec![row("h1-small", "nginx", 1.0), row("h1-small", "haproxy", 1.0)];
        merge_into(&path, Run::default(), first).unwrap();
        let run = Run { commit: "abc".to_owned(), ..Run::default() };
        merge_into(&path, run, vec![row("h1-small", "nginx", 1.5)]).unwrap();
        let read: Results = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(read.run.commit, "abc");
        assert_eq!(read.results, [row("h1-small", "haproxy", 1.0), row("h1-small", "nginx", 1.5)]);
    }

    #[test]
    fn a_foreign_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latest.json");
        fs::write(&path, "{\"mine\": 1}").unwrap();
        assert!(merge_into(&path, Run::default(), Vec::new()).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"mine\": 1}");
    }

    #[test]
    fn figures_keep_four_digits() {
        assert_eq!(four_digits(23.456_789), 23.46);
        assert_eq!(four_digits(0.3 * 0.1), 0.03);
        assert_eq!(four_digits(123_456.0), 123_500.0);
    }
}
