//! What a report is made of: the details of all scenarios, in the order in which they are shown.
//!
//! # Invariants
//! - At least one detail; each is named after its scenario, and both names and dates are safe as
//!   names of files.
//! - The order of scenarios and contenders is the same in every table and plot.

use std::{fs, io, path::Path};

use crate::{
    error::Error,
    limits::{DETAIL_BYTES_MAX, DETAILS_MAX},
    results::{
        Results,
        detail::{Detail, Series},
    },
};

/// The proxy that all others are compared with.
pub(super) const OURS: &str = "ringway";
/// In the place of a peer: a fixed figure.
pub(super) const GOAL: &str = "goal";
/// In the place of a peer: no proxy at all.
pub(super) const DIRECT: &str = "direct";

/// Groups of scenarios, by how their ids begin; ids that begin otherwise come last.
const SCENARIOS: [&str; 13] = [
    "start", "h1-small", "h1-1k", "h1-64k", "h1-1m", "h1-16m", "h1-", "tcp-", "tls-", "h2-",
    "routes-", "idle-", "reload-",
];
/// Contenders that are always shown in this order; others follow by name.
const CONTENDERS: [&str; 6] = [OURS, "ringway-epoll", "haproxy", "haproxy-tuned", "nginx", "envoy"];

/// The details, and what stands in `latest.json` without one.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) details: Vec<Detail>,
    /// Scenarios with a ratio but without samples.
    pub(super) without_detail: Vec<String>,
    /// Everyone with a sample or a curve, Ringway first and `direct` last.
    pub(super) contenders: Vec<String>,
}

impl Input {
    /// Reads `folder`.
    ///
    /// # Errors
    /// When there is no detail, or a file cannot be understood; the error names it.
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let mut details = details(&folder.join("detail"))?;
        details.sort_by_key(|detail| scenario_order(&detail.scenario));
        let mut without_detail = Vec::new();
        for row in latest(&folder.join("latest.json"))?.results {
            let known = details.iter().any(|detail| detail.scenario == row.scenario);
            if !known && !without_detail.contains(&row.scenario) {
                without_detail.push(row.scenario);
            }
        }
        let mut contenders: Vec<String> = Vec::new();
        for detail in &details {
            let sampled = detail.series.iter().map(|series| &series.peer);
            for peer in sampled.chain(detail.curves.iter().map(|curve| &curve.peer)) {
                if !contenders.contains(peer) && peer != GOAL {
                    contenders.push(peer.clone());
                }
            }
        }
        contenders.sort_by_key(|contender| contender_order(contender));
        Ok(Self { details, without_detail, contenders })
    }

    pub(super) fn newest_date(&self) -> &str {
        self.details.iter().map(|detail| detail.date.as_str()).max().unwrap_or_default()
    }

    /// The commits that were measured.
    pub(super) fn commits(&self) -> Vec<&str> {
        let commits = self.distinct(|detail| &detail.run.commit);
        commits.into_iter().map(|(commit, _)| commit).collect()
    }

    /// What `of` gives for the details, each with the scenarios that it holds for.
    pub(super) fn distinct(&self, of: impl Fn(&Detail) -> &str) -> Vec<(&str, Vec<&str>)> {
        let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
        for detail in &self.details {
            let value = of(detail);
            match found.iter_mut().find(|(earlier, _)| *earlier == value) {
                Some((_, scenarios)) => scenarios.push(&detail.scenario),
                None => found.push((value, vec![&detail.scenario])),
            }
        }
        found
    }
}

/// The samples of one contender.
pub(super) fn series<'a>(detail: &'a Detail, metric: &str, peer: &str) -> Option<&'a Series> {
    detail.series.iter().find(|series| series.metric == metric && series.peer == peer)
}

/// Sorts scenarios by group, and within a group by the sizes in their names.
fn scenario_order(id: &str) -> (usize, u64, String) {
    let group = SCENARIOS.iter().position(|prefix| id.starts_with(prefix));
    let (_, last) = id.rsplit_once('-').unwrap_or_default();
    let digits = last.trim_end_matches(|end: char| !end.is_ascii_digit());
    let unit = match &last[digits.len()..] {
        "k" => 1 << 10,
        "m" => 1 << 20,
        _ => 1,
    };
    let size = digits.parse::<u64>().map_or(0, |count| count.saturating_mul(unit));
    (group.unwrap_or(SCENARIOS.len()), size, id.to_owned())
}

/// Sorts contenders as tables and plots show them.
pub(super) fn contender_order(id: &str) -> (usize, String) {
    let known = CONTENDERS.iter().position(|known| *known == id);
    let last = match id {
        GOAL => 2,
        DIRECT => 1,
        _ => 0,
    };
    (known.unwrap_or(CONTENDERS.len() + last), id.to_owned())
}

/// A contender's name as people write it.
pub(super) fn name(id: &str) -> &str {
    match id {
        OURS => "Ringway",
        "ringway-epoll" => "Ringway (epoll)",
        "haproxy" => "HAProxy",
        "haproxy-tuned" => "HAProxy (tuned)",
        "envoy" => "Envoy",
        other => other,
    }
}

/// Reads a day written as year-month-day.
pub(super) fn day(text: &str) -> Result<String, String> {
    let shape = text.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    let within = |part: Option<&str>, most: u32| {
        part.and_then(|part| part.parse().ok()).is_some_and(|part| (1..=most).contains(&part))
    };
    if text.len() == 10 && shape && within(text.get(5..7), 12) && within(text.get(8..), 31) {
        return Ok(text.to_owned());
    }
    Err("expected a day such as 2026-11-22".to_owned())
}

fn latest(path: &Path) -> Result<Results, Error> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| broken(path, error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Results::default()),
        Err(error) => Err(Error::io(format!("read {}", path.display()))(error)),
    }
}

fn details(folder: &Path) -> Result<Vec<Detail>, Error> {
    let reading = || format!("read {}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(reading()))? {
        let path = entry.map_err(Error::io(reading()))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        if found.len() == DETAILS_MAX {
            let problem = format!("more than {DETAILS_MAX} details");
            return Err(Error::Malformed { what: folder.display().to_string(), detail: problem });
        }
        found.push(detail(&path)?);
    }
    if found.is_empty() {
        let problem = "there is no detail; run the comparison first".to_owned();
        return Err(Error::Malformed { what: folder.display().to_string(), detail: problem });
    }
    Ok(found)
}

fn detail(path: &Path) -> Result<Detail, Error> {
    let doing = || format!("read {}", path.display());
    if fs::metadata(path).map_err(Error::io(doing()))?.len() > DETAIL_BYTES_MAX {
        return Err(broken(path, format!("more than {DETAIL_BYTES_MAX} bytes")));
    }
    let text = fs::read_to_string(path).map_err(Error::io(doing()))?;
    let detail: Detail =
        serde_json::from_str(&text).map_err(|error| broken(path, error.to_string()))?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let stem = path.file_stem().unwrap_or_default();
    if *stem != *detail.scenario || !detail.scenario.bytes().all(plain) {
        return Err(broken(path, format!("it is of the scenario {:?}", detail.scenario)));
    }
    day(&detail.date).map_err(|problem| broken(path, format!("date: {problem}")))?;
    Ok(detail)
}

fn broken(path: &Path, detail: String) -> Error {
    Error::Results { path: path.to_owned(), detail }
}
