//! What a result says about where it came from: commit, kernel, versions, command.

use std::{collections::BTreeMap, process::Command};

use super::Bench;
use crate::{error::Error, results::Run};

/// What the commit of a changed tree ends with.
pub(super) const DIRTY: &str = "-dirty";

/// Describes this run.
///
/// # Errors
/// When a contender cannot be run at all: better now than in the middle.
pub(super) fn describe(bench: &Bench) -> Result<Run, Error> {
    let mut versions = BTreeMap::new();
    for peer in &bench.contenders {
        let version = peer.version(bench).ok_or_else(|| Error::Missing {
            program: peer.id.clone(),
            remedy: ".ci/install-tools installs the peers; --peers leaves one out",
        })?;
        versions.insert(peer.id.clone(), version);
    }
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_err(Error::io("read the kernel's version"))?;
    Ok(Run {
        commit: commit(),
        kernel: kernel.trim().to_owned(),
        backend: "io_uring".to_owned(),
        congestion_control: congestion_control(),
        versions,
        command: command_line(),
    })
}

/// The system's: where it is BBR, what is not taken out of its pacing pays for it.
fn congestion_control() -> String {
    let name = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
    name.map_or("unknown".to_owned(), |name| name.trim().to_owned())
}

/// What was typed, with the folders of this machine left out.
fn command_line() -> String {
    let words = std::env::args().skip(1).map(|word| match word.strip_prefix('/') {
        Some(path) => path.rsplit('/').next().unwrap_or(path).to_owned(),
        None => word,
    });
    std::iter::once("ringway-bench".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// What a run of the comparison itself changes: it does not change what is measured.
const OWN_OUTPUT: [&str; 3] = [".", ":!benches/results", ":!README.md"];

/// The last commit that changed what is measured, marked if the tree differs from it.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).arg("--").args(OWN_OUTPUT).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    };
    let Some(commit) = git(&["log", "-1", "--abbrev=12", "--format=%h"]) else {
        return "unknown".to_owned();
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    if changed.is_some_and(|text| !text.is_empty()) { commit + DIRTY } else { commit }
}
