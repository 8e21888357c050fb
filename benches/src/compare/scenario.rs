//! The scenarios: one file each in `benches/scenarios/`, its name the id.
//!
//! # Invariants
//! - A field that is not known is an error: a misspelt one would measure something else.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Deserializer};

use super::peer::Setup;
use crate::{bodies, error::Error, results::detail::Goal};

/// One thing to measure.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    /// The name of the file without its extension.
    #[serde(skip)]
    pub(super) id: String,
    pub(super) about: String,
    /// The folder of each peer that has its configuration; by default what the load needs.
    #[serde(default)]
    setup: Option<String>,
    pub(super) load: Load,
    /// Whether latency is measured too, at one rate for all.
    #[serde(default)]
    pub(super) latency: bool,
    #[serde(default)]
    pub(super) goals: Vec<Goal>,
}

/// What is done to a proxy.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Load {
    /// Requests as fast as they are answered: CPU per request.
    Requests(Requests),
    /// Large bodies as fast as they arrive: CPU per byte.
    Bodies(Bodies),
    /// Idle connections: memory.
    Idle(Idle),
    /// Requests under a table of routes, and reloads of it.
    Routes(Routes),
    /// Requests at a rate while the table is replaced again and again.
    Reload(Reload),
    /// From exec to the first answer.
    Start,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Requests {
    #[serde(default)]
    pub(super) protocol: Protocol,
    pub(super) path: String,
    pub(super) connections: u32,
    /// Requests at once on each connection; more than one needs HTTP/2.
    #[serde(default = "one_stream")]
    pub(super) streams: u32,
    #[serde(default)]
    pub(super) requests_per_connection: Option<u32>,
    #[serde(default)]
    pub(super) tls: Option<Tls>,
    /// Length of the answers; with it CPU is counted per byte and not per request.
    #[serde(default)]
    pub(super) bytes: Option<u64>,
}

/// What a request is spoken in.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Protocol {
    #[default]
    Http1,
    Http2,
    Grpc,
}

/// TLS towards the client: version 1.3, AES-128-GCM and the same key exchange for all.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    /// The client has a certificate too.
    #[serde(default)]
    pub(super) mutual: bool,
    /// Connections resume earlier sessions.
    #[serde(default)]
    pub(super) resumes: bool,
    /// The key exchange is X25519MLKEM768 instead of X25519.
    #[serde(default)]
    pub(super) hybrid: bool,
}

fn one_stream() -> u32 {
    1
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bodies {
    pub(super) protocol: bodies::Protocol,
    pub(super) bytes: u64,
    pub(super) connections: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Idle {
    pub(super) connections: u32,
    #[serde(default)]
    pub(super) tls: Option<Tls>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Routes {
    pub(super) count: u32,
    /// Routes of a second Ringway beside the first, whose CPU the goal is relative to.
    #[serde(default)]
    pub(super) beside: Option<u32>,
    pub(super) connections: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reload {
    pub(super) count: u32,
    pub(super) connections: u32,
    #[serde(deserialize_with = "duration")]
    pub(super) every: Duration,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}

impl Scenario {
    /// What the proxies are started for; a table comes from the load itself.
    pub(super) fn setup(&self) -> Setup<'_> {
        let tls = match &self.load {
            Load::Requests(requests) => requests.tls,
            Load::Idle(idle) => idle.tls,
            Load::Bodies(_) | Load::Routes(_) | Load::Reload(_) | Load::Start => None,
        };
        let reloads = matches!(self.load, Load::Routes(_) | Load::Reload(_));
        Setup { name: self.setup_name(), table: None, reloads, tls }
    }

    fn setup_name(&self) -> &str {
        let needed = match self.load {
            Load::Routes(_) | Load::Reload(_) => "routes",
            Load::Requests(_) | Load::Bodies(_) | Load::Idle(_) | Load::Start => "plain",
        };
        self.setup.as_deref().unwrap_or(needed)
    }
}

/// The scenarios of `folder` with the ids of `only` (all if there are none), by id.
///
/// # Errors
/// When a file cannot be understood, or an id has no file.
pub(super) fn read(folder: &Path, only: &[String]) -> Result<Vec<Scenario>, Error> {
    let entries = fs::read_dir(folder)
        .map_err(Error::io(format!("read the scenarios in {}", folder.display())))?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    paths.sort();
    let all = paths.iter().map(|path| one(path)).collect::<Result<Vec<_>, _>>()?;
    if let Some(unknown) = only.iter().find(|id| all.iter().all(|one| one.id != **id)) {
        let ids: Vec<&str> = all.iter().map(|one| one.id.as_str()).collect();
        return Err(Error::Usage(format!("no scenario {unknown}; there are {}", ids.join(", "))));
    }
    Ok(all.into_iter().filter(|one| only.is_empty() || only.contains(&one.id)).collect())
}

fn one(path: &Path) -> Result<Scenario, Error> {
    let malformed = |detail: String| Error::Malformed { what: path.display().to_string(), detail };
    let text = fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))?;
    let mut scenario: Scenario =
        serde_saphyr::from_str(&text).map_err(|error| malformed(error.to_string()))?;
    scenario.id = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .ok_or_else(|| malformed("its name is no id".to_owned()))?
        .to_owned();
    Ok(scenario)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
    }

    #[test]
    fn every_file_of_the_project_is_understood() {
        let all = read(&folder(), &[]).unwrap();
        let ids = [
            "h1-small",
            "h1-1k",
            "h1-64k",
            "h1-1m",
            "h1-16m",
            "h1-close",
            "tcp-1m",
            "tcp-16m",
            "tls-keepalive",
            "tls-new",
            "tls-mutual",
            "tls-resumed",
            "tls-16m",
            "tls-hybrid",
            "h2c-1x1",
            "h2c-4x32",
            "h2c-8x100",
            "grpc-unary",
            "routes-10",
            "routes-1k",
            "routes-100k",
            "idle-0",
            "idle-5000",
            "idle-9000",
            "idle-tls",
            "reload-load",
            "start",
        ];
        for id in ids {
            assert!(all.iter().any(|one| one.id == id), "{id}");
        }
        assert_eq!(all.len(), ids.len());
    }

    #[test]
    fn an_unknown_id_or_field_is_refused() {
        let unknown = read(&folder(), &["h1-smal".to_owned()]).unwrap_err().to_string();
        assert!(unknown.contains("no scenario h1-smal; there are") && unknown.contains("h1-small"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.yaml");
        fs::write(&path, "about: x\nload: {idle: {conections: 3}}\n").unwrap();
        let error = read(folder.path(), &[]).unwrap_err().to_string();
        assert!(error.contains("mine.yaml") && error.contains("conections"), "{error}");
    }
}
