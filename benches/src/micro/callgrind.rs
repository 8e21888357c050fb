//! Runs this program under callgrind and reads what was counted.
//!
//! # Invariants
//! - The counted process has no environment: its size would move the stack, and with it the
//!   alignment that copies depend on.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use super::ratchet::Figure;
use crate::error::Error;

/// Dumps of each workload; the last two count.
const DUMPS: usize = 3;
/// What callgrind calls the function of `super` that is counted.
const COUNTED: &str = "--dump-after=*counted_by_callgrind*";

/// Whether the figures of this machine are those of another: valgrind shows the same processor on
/// all that have AVX2.
pub(super) fn comparable() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// What else the figures depend on: compiler, C library, valgrind.
pub(super) fn versions() -> String {
    let first_line = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok()?;
        String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
    };
    ["rustc", "ldd", "valgrind"].into_iter().filter_map(first_line).collect::<Vec<_>>().join("; ")
}

/// Instructions of each workload by operation. Callgrind's files stay in `keep`, if that is given.
pub(super) fn count(keep: Option<&Path>) -> Result<Vec<Figure>, Error> {
    let name = format!("ringway-callgrind-{}", std::process::id());
    let folder = keep.map_or_else(|| env::temp_dir().join(name), Path::to_owned);
    fs::create_dir_all(&folder).map_err(Error::io(format!("make {}", folder.display())))?;
    let figures = run(&folder).and_then(|workloads| figures(&workloads, &folder));
    if keep.is_none() {
        // What stays of it is in the system's temporary folder.
        let _ = fs::remove_dir_all(&folder);
    }
    figures
}

/// The names and cycles of the workloads, in the order of their dumps.
fn run(folder: &Path) -> Result<String, Error> {
    let valgrind = which("valgrind")?;
    let program = env::current_exe().map_err(Error::io("find this program"))?;
    let mut out = std::ffi::OsString::from("--callgrind-out-file=");
    out.push(folder.join("out"));
    let output = Command::new(valgrind)
        .args(["--tool=callgrind", "--quiet", COUNTED])
        .arg(out)
        .arg(program)
        .args(["instructions", "--work"])
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(Error::io("start valgrind"))?;
    if !output.status.success() {
        return Err(Error::Ended {
            program: "valgrind".to_owned(),
            status: output.status,
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    String::from_utf8(output.stdout).map_err(|error| malformed("the workloads", error))
}

fn which(program: &str) -> Result<PathBuf, Error> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(program)).find(|at| at.is_file());
    let remedy = "install it with `make tools` or apt-get install valgrind";
    found.ok_or_else(|| Error::Missing { program: program.to_owned(), remedy })
}

fn figures(workloads: &str, folder: &Path) -> Result<Vec<Figure>, Error> {
    let mut figures = Vec::new();
    for (number, line) in workloads.lines().enumerate() {
        let words =
            line.split_once(' ').and_then(|(name, cycle)| Some((name, cycle.parse().ok()?)));
        let Some((name, cycle)) = words else { return Err(malformed("a workload", line)) };
        // Dumps are numbered from 1.
        let last = (number + 1) * DUMPS;
        let once = total(&folder.join(format!("out.{}", last - 1)))?;
        let twice = total(&folder.join(format!("out.{last}")))?;
        let cycle: u32 = cycle;
        let by_operation = (twice as f64 - once as f64) / f64::from(cycle);
        figures.push(Figure { name: name.to_owned(), instructions: by_operation });
    }
    if figures.is_empty() { Err(malformed("the workloads", "there are none")) } else { Ok(figures) }
}

/// The sum of one dump.
fn total(dump: &Path) -> Result<u64, Error> {
    let file = dump.display().to_string();
    let text = fs::read_to_string(dump).map_err(Error::io(format!("read {file}")))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = total.ok_or_else(|| malformed(&file, "it has no total"))?;
    total.trim().parse().map_err(|error| malformed(&file, error))
}

fn malformed(what: &str, detail: impl std::fmt::Display) -> Error {
    Error::Malformed { what: what.to_owned(), detail: detail.to_string() }
}
