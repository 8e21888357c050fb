//! Instructions of each step of a request, counted by callgrind and held by a ratchet.
//!
//! ```text
//! instructions ─▶ callgrind ─▶ instructions --work:  for each workload  counted(cycle)
//!      ▲                           │                                    counted(cycle)
//!      └─── one dump for each call ┘                                    counted(2 cycles)
//! ```
//! The third count less the second, by the operations of a cycle, is the figure: what building the
//! tables and entering the loop cost is in neither or in both.
//!
//! # Invariants
//! - The same program with the same C library gives the same figures, whatever else the machine
//!   does: no clock, no random seed, no environment, and the one processor that valgrind shows to
//!   programs on every machine with AVX2.
//!
//! # Not here
//! Time. A miss of a cache or a branch costs nothing here: criterion sees it (`make bench-micro`).

mod callgrind;
mod ratchet;
mod workloads;

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use self::workloads::Workload;
use crate::error::Error;
use crate::terminal;

/// Options of `ringway-bench instructions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The figures that may not grow
    #[arg(long, value_name = "FILE", default_value = "benches/instructions.txt")]
    ratchet: PathBuf,
    /// Write the figures of now into that file
    #[arg(long)]
    update: bool,
    /// Keep callgrind's files in this folder, for callgrind_annotate
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Do the work and count nothing: what runs under callgrind
    #[arg(long, hide = true)]
    work: bool,
}

/// Does what the options say.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    if options.work {
        work();
        return Ok(());
    }
    let figures = callgrind::count(options.keep.as_deref())?;
    if options.update {
        let text = ratchet::text(&figures, &callgrind::versions());
        let failed = Error::io(format!("write {}", options.ratchet.display()));
        fs::write(&options.ratchet, text).map_err(failed)?;
    }
    let held = held(&options.ratchet)?;
    for line in ratchet::table(&figures, &held) {
        terminal::say(&line);
    }
    if !callgrind::comparable() {
        terminal::warn("not compared: the ratchet is for x86-64 with AVX2, where other code runs");
        return Ok(());
    }
    let (wrong, fallen) = (ratchet::wrong(&figures, &held), ratchet::fallen(&figures, &held));
    if !fallen.is_empty() {
        terminal::warn(&format!("lower the ratchet with UPDATE=1: {}", fallen.join(", ")));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::Instructions(wrong)) }
}

/// The figures of the ratchet.
fn held(path: &Path) -> Result<Vec<ratchet::Figure>, Error> {
    let text = fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))?;
    let what = path.display().to_string();
    ratchet::parse(&text).map_err(|detail| Error::Malformed { what, detail })
}

/// Says which workload comes next and runs it three times: the first dump also has what was done
/// since the one before.
fn work() {
    for mut workload in workloads::all() {
        terminal::say(&format!("{} {}", workload.name, workload.cycle));
        let cycle = workload.cycle;
        for times in [cycle, cycle, 2 * cycle] {
            black_box(counted_by_callgrind(&mut workload, times));
        }
    }
}

/// Callgrind writes a dump whenever this function is left, and begins to count anew.
#[inline(never)]
fn counted_by_callgrind(workload: &mut Workload, times: u64) -> u64 {
    workload.run(times);
    // With something to do behind it, the call does not become a jump.
    black_box(times)
}
