//! Ends what a vanished parent left behind.
//!
//! ```text
//! parent ── "watch PID START", "forget PID START", "remove DIR" ──▶ pipe ──▶ guard
//! parent is gone (Ctrl-C, kill -9, panic): end of input ──▶ guard ends the watched processes
//! ```
//!
//! The guard is a child in a process group of its own, so Ctrl-C does not reach it. It needs no
//! signal handler in the parent, and it works when the parent had no chance to clean up.
//!
//! # Invariants
//! - A process is signalled only if its start time is the one that was registered.
//! - Only folders that the parent made as scratch are removed.

use std::{
    fs,
    io::{self, BufRead, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{error::Error, limits::END_GRACE, procfs::Process};

/// The parent's end of the pipe.
#[derive(Debug)]
pub(crate) struct Guard {
    orders: Mutex<ChildStdin>,
}

impl Guard {
    /// Starts a guard for this process.
    pub(crate) fn start() -> Result<Self, Error> {
        let program = std::env::current_exe().map_err(Error::io("find the own program"))?;
        let mut child = Command::new(program)
            .arg("guard")
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(Error::io("start the guard"))?;
        let orders = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe.into());
        Ok(Self { orders: Mutex::new(orders.map_err(Error::io("talk to the guard"))?) })
    }

    /// Hands over `process`: it is ended when this process ends.
    pub(crate) fn watch(&self, process: Process) {
        self.order(&format!("watch {} {}\n", process.pid, process.started_ticks));
    }

    /// Takes back a process that has ended.
    pub(crate) fn forget(&self, process: Process) {
        self.order(&format!("forget {} {}\n", process.pid, process.started_ticks));
    }

    /// Hands over a scratch folder: it is removed when this process ends.
    pub(crate) fn remove_later(&self, folder: &Path) {
        self.order(&format!("remove {}\n", folder.display()));
    }

    fn order(&self, line: &str) {
        // Without a guard the owner still ends its children on every path but a sudden death.
        if let Ok(mut orders) = self.orders.lock() {
            let _ = orders.write_all(line.as_bytes());
        }
    }
}

/// The guard's own program: collects orders until the pipe closes, then cleans up.
pub(crate) fn serve() {
    let mut watched: Vec<Process> = Vec::new();
    let mut folders: Vec<PathBuf> = Vec::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        match line.split_once(' ') {
            Some(("watch", rest)) => watched.extend(parse(rest)),
            Some(("forget", rest)) => watched.retain(|process| Some(*process) != parse(rest)),
            Some(("remove", folder)) => folders.push(PathBuf::from(folder)),
            _ => {}
        }
    }
    end_all(&watched);
    for folder in folders {
        let _ = fs::remove_dir_all(folder);
    }
}

fn parse(text: &str) -> Option<Process> {
    let (pid, started) = text.split_once(' ')?;
    Some(Process { pid: pid.parse().ok()?, started_ticks: started.parse().ok()? })
}

/// Ends processes and their descendants: politely, then again (a draining proxy ends at the second
/// signal), then by force.
pub(crate) fn end_all(roots: &[Process]) {
    let everyone: Vec<Process> = roots.iter().flat_map(Process::tree).collect();
    for round in 0..2 {
        roots.iter().for_each(|root| root.signal(Signal::TERM));
        let patience = if round == 0 { Duration::from_millis(150) } else { END_GRACE };
        if wait_until_gone(&everyone, patience) {
            return;
        }
    }
    everyone.iter().for_each(|process| process.signal(Signal::KILL));
    wait_until_gone(&everyone, END_GRACE);
}

fn wait_until_gone(processes: &[Process], patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if !processes.iter().any(Process::is_alive) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
