//! How many workers there are, and on which processors.
//!
//! # Invariants
//! - No more workers than the process may use processors: a quota of the cgroup counts, rounded
//!   up, and so does its affinity mask.
//! - Workers are pinned only when asked, or when the mask is narrower than the machine: with a
//!   quota and a full mask every sidecar of a node would otherwise sit on processor 0.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::shared::Shared;

/// Where the workers go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The processor of each worker; `None` lets the scheduler choose.
    processors: Vec<Option<usize>>,
}

/// Decides from what is asked for and what the system allows.
#[must_use]
pub fn decide(workers: Option<usize>, pin: bool) -> Placement {
    let allowed = allowed_processors();
    let online = std::thread::available_parallelism().map_or(1, usize::from).max(allowed.len());
    place(workers, pin, &allowed, online_total().unwrap_or(online), cgroup_quota())
}

fn place(
    workers: Option<usize>,
    pin: bool,
    allowed: &[usize],
    online: usize,
    quota: Option<f64>,
) -> Placement {
    let quota = quota.map_or(usize::MAX, |quota| quota.ceil().max(1.0) as usize);
    let count = workers.unwrap_or_else(|| allowed.len().min(quota)).max(1);
    let pin = !allowed.is_empty() && (pin || allowed.len() < online);
    let processor = |worker: usize| pin.then(|| allowed[worker % allowed.len()]);
    Placement { processors: (0..count).map(processor).collect() }
}

fn allowed_processors() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|&processor| set.is_set(processor)).collect()
}

/// Processors that the machine has running.
fn online_total() -> Option<usize> {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    count_list(list.trim())
}

/// Counts a list like `0-3,8`.
fn count_list(list: &str) -> Option<usize> {
    list.split(',')
        .map(|part| match part.split_once('-') {
            Some((from, to)) => {
                let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
                Some((to + 1).saturating_sub(from))
            }
            None => part.parse::<usize>().ok().map(|_| 1),
        })
        .sum()
}

/// Processors' worth of time that the cgroup (version 2, else 1) grants.
fn cgroup_quota() -> Option<f64> {
    if let Ok(text) = std::fs::read_to_string("/sys/fs/cgroup/cpu.max") {
        return parse_cpu_max(&text);
    }
    let number = |name: &str| -> Option<f64> {
        std::fs::read_to_string(format!("/sys/fs/cgroup/cpu/{name}")).ok()?.trim().parse().ok()
    };
    let (quota, period) = (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

fn parse_cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0).then_some(quota / period)
}

impl Placement {
    /// Number of workers.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.processors.len()
    }

    /// Starts the workers. A worker that fails ends the process: its share of the connections
    /// would hang otherwise.
    ///
    /// # Errors
    /// When a thread cannot be made.
    pub fn start(&self, shared: &Arc<Shared>) -> io::Result<()> {
        for (id, processor) in self.processors.iter().copied().enumerate() {
            let shared = Arc::clone(shared);
            let builder = std::thread::Builder::new().name(format!("ringway-{id}"));
            builder.spawn(move || {
                if let Some(processor) = processor {
                    pin(processor);
                }
                // A panic in a task of a connection ends that one; this is about the rest.
                let run = AssertUnwindSafe(|| super::run(id, shared));
                match catch_unwind(run) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::error!(worker = id, %error, "a worker failed");
                        eprintln!("ringway: worker {id} failed: {error}");
                    }
                    // The panic has been printed.
                    Err(_) => tracing::error!(worker = id, "a worker panicked"),
                }
                std::process::exit(1);
            })?;
        }
        Ok(())
    }
}

fn pin(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    if let Err(error) = sched_setaffinity(None, &set) {
        tracing::warn!(processor, %error, "cannot pin a worker");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_rounded_up_and_the_mask_is_a_limit() {
        let workers = |quota| place(None, false, &[0, 1, 2, 3], 4, quota).workers();
        assert_eq!(workers(None), 4);
        assert_eq!(workers(Some(0.1)), 1);
        assert_eq!(workers(Some(1.5)), 2);
        assert_eq!(workers(Some(64.0)), 4);
        assert_eq!(place(Some(7), false, &[0], 1, None).workers(), 7);
    }

    #[test]
    fn workers_are_pinned_only_when_asked_or_confined() {
        let pinned = |pin, allowed: &[usize]| place(None, pin, allowed, 2, None).processors;
        assert_eq!(pinned(false, &[0, 1]), [None, None]);
        assert_eq!(pinned(true, &[0, 1]), [Some(0), Some(1)]);
        assert_eq!(pinned(false, &[1]), [Some(1)]);
    }

    #[test]
    fn the_formats_of_the_kernel_are_read() {
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1.5));
        assert_eq!(count_list("0-3,8"), Some(5));
        assert_eq!(count_list("0"), Some(1));
        assert_eq!(count_list("x"), None);
    }
}
