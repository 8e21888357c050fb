//! What the kernel says about a process and its children: CPU time, memory, identity.
//!
//! CPU comes from `/proc/PID/task/*/schedstat` in nanoseconds. The split into user and system comes
//! from the 10 ms ticks of `/proc/PID/stat`, so it is only a share of that sum.
//!
//! # Invariants
//! - A process is a pid *and* its start time: a pid alone may have been given to another by now.
//! - Threads and processes that end between two readings take their time with them; proxies under
//!   test keep theirs.

use std::{fs, io, path::Path};

use rustix::process::{Pid, Signal};

/// A process that can be told from a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Clock ticks after boot at which it started.
    pub(crate) started_ticks: u64,
}

/// CPU time of a process tree so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTime {
    pub(crate) total_ns: u64,
    user_ticks: u64,
    system_ticks: u64,
}

/// Memory of a process tree.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Resident set of one process; of several, the proportional set, so that pages that a master
    /// and its worker share count once.
    pub(crate) resident_kib: u64,
    pub(crate) proportional_kib: u64,
}

impl Process {
    /// The process that has `pid` now.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let fields = stat_fields(&format!("/proc/{pid}/stat"))?;
        Ok(Self { pid, started_ticks: number(&fields, 19)? })
    }

    /// Whether it still runs; a zombie does not.
    pub(crate) fn is_alive(&self) -> bool {
        let Ok(fields) = stat_fields(&format!("/proc/{}/stat", self.pid)) else {
            return false;
        };
        let same = number(&fields, 19).is_ok_and(|ticks| ticks == self.started_ticks);
        same && fields.first().is_some_and(|state| state != "Z")
    }

    /// Sends `signal` unless the process is gone.
    pub(crate) fn signal(&self, signal: Signal) {
        if !self.is_alive() {
            return;
        }
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // It may end between the two calls: then there is nothing left to signal.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// The process and its descendants, itself first.
    pub(crate) fn tree(&self) -> Vec<Self> {
        let mut found = vec![*self];
        let mut next = 0;
        while next < found.len() {
            for pid in children(found[next].pid) {
                found.extend(Self::of(pid).ok());
            }
            next += 1;
        }
        found
    }

    /// CPU time of the whole tree.
    pub(crate) fn cpu_time(&self) -> io::Result<CpuTime> {
        let mut sum = CpuTime::default();
        for process in self.tree() {
            for task in task_paths(process.pid)? {
                // A thread that ended since the listing is no error.
                let Ok(text) = fs::read_to_string(task.join("schedstat")) else { continue };
                let first = text.split_whitespace().next().unwrap_or_default();
                sum.total_ns += first.parse::<u64>().map_err(invalid)?;
            }
            let fields = stat_fields(&format!("/proc/{}/stat", process.pid))?;
            sum.user_ticks += number(&fields, 11)?;
            sum.system_ticks += number(&fields, 12)?;
        }
        Ok(sum)
    }

    /// CPU time of the process alone, of threads that have ended too; ms, in ticks of 10.
    pub(crate) fn cpu_ms(&self) -> io::Result<u64> {
        let fields = stat_fields(&format!("/proc/{}/stat", self.pid))?;
        let ticks = number(&fields, 11)? + number(&fields, 12)?;
        Ok(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    /// Memory of the whole tree.
    pub(crate) fn memory(&self) -> io::Result<Memory> {
        let tree = self.tree();
        let mut sum = Memory::default();
        for process in &tree {
            let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid))?;
            sum.resident_kib += kib(&text, "Rss:")?;
            sum.proportional_kib += kib(&text, "Pss:")?;
        }
        if tree.len() > 1 {
            sum.resident_kib = sum.proportional_kib;
        }
        Ok(sum)
    }
}

impl CpuTime {
    /// Nanoseconds since `earlier`, and the share of them that was user time (0 to 1).
    pub(crate) fn since(&self, earlier: &Self) -> (u64, f64) {
        let total_ns = self.total_ns.saturating_sub(earlier.total_ns);
        let user = self.user_ticks.saturating_sub(earlier.user_ticks) as f64;
        let system = self.system_ticks.saturating_sub(earlier.system_ticks) as f64;
        (total_ns, if user + system > 0.0 { user / (user + system) } else { 0.0 })
    }
}

/// Time of the whole machine that belongs to no process, over all cores, in clock ticks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MachineTicks {
    /// Given to others by the hypervisor.
    pub(crate) stolen: u64,
    /// In soft interrupts.
    pub(crate) softirq: u64,
}

/// What `/proc/stat` says now.
pub(crate) fn machine_ticks() -> io::Result<MachineTicks> {
    let text = fs::read_to_string("/proc/stat")?;
    let first = text.lines().next().unwrap_or_default();
    let ticks = |index| first.split_whitespace().nth(index).unwrap_or("0").parse().map_err(invalid);
    Ok(MachineTicks { softirq: ticks(7)?, stolen: ticks(8)? })
}

fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in task_paths(pid).unwrap_or_default() {
        let text = fs::read_to_string(task.join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    found
}

fn task_paths(pid: u32) -> io::Result<Vec<std::path::PathBuf>> {
    let folder = format!("/proc/{pid}/task");
    fs::read_dir(Path::new(&folder))?.map(|entry| entry.map(|entry| entry.path())).collect()
}

/// The fields of a `stat` file behind the name; the name may itself contain spaces and brackets.
fn stat_fields(path: &str) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(path)?;
    let (_, rest) = text.rsplit_once(") ").ok_or(io::ErrorKind::InvalidData)?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

fn number(fields: &[String], index: usize) -> io::Result<u64> {
    fields.get(index).ok_or(io::ErrorKind::InvalidData)?.parse().map_err(invalid)
}

fn kib(text: &str, name: &str) -> io::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.ok_or(io::ErrorKind::InvalidData)?.parse().map_err(invalid)
}

fn invalid(error: std::num::ParseIntError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_alive_and_has_used_time_and_memory() {
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(own.cpu_time().unwrap().total_ns > 0);
        assert!(own.memory().unwrap().resident_kib > 100);
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let own = Process::of(std::process::id()).unwrap();
        let earlier = Process { started_ticks: own.started_ticks - 1, ..own };
        assert!(!earlier.is_alive());
    }
}
