//! What the sidecars of a fleet have, and since when.
//!
//! # Invariants
//! - A time is taken by the sidecar when it happens; whoever waits for the fleet reads it later.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::Error;

/// How often somebody who waits for the fleet looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// One sidecar, as it was last.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Since when it has a stream.
    connected: Option<Instant>,
    /// The endpoint of the service that changes, and since when.
    target: Option<(SocketAddr, Instant)>,
    /// Since when it has no policy but confirmed ones.
    confirmed: Option<Instant>,
}

/// The fleet, as its sidecars tell it.
#[derive(Debug)]
pub(super) struct Watch {
    seen: Mutex<Vec<Seen>>,
    counts: [AtomicU64; 4],
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    Frames,
    Reports,
    Connects,
    Failures,
}

/// What has been counted between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// Frames that came.
    pub(super) frames: u64,
    /// Reports that were taken.
    pub(super) reports: u64,
    /// Streams that were opened.
    pub(super) connects: u64,
    /// Attempts to connect and reports that failed, and streams that broke.
    pub(super) failures: u64,
}

/// How long it took until a share of the fleet had something, ms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) all_ms: f64,
}

impl Watch {
    /// Of a fleet of `sidecars`, of which nothing was heard.
    pub(super) fn new(sidecars: usize) -> Self {
        let seen = Mutex::new(vec![Seen::default(); sidecars]);
        Self { seen, counts: Default::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, what: Count) {
        self.counts[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Everything since the start.
    pub(super) fn counts(&self) -> Counts {
        let of = |what: Count| self.counts[what as usize].load(Ordering::Relaxed);
        Counts {
            frames: of(Count::Frames),
            reports: of(Count::Reports),
            connects: of(Count::Connects),
            failures: of(Count::Failures),
        }
    }

    pub(super) fn connected(&self, nth: usize, is_connected: bool) {
        self.seen()[nth].connected = is_connected.then(Instant::now);
    }

    pub(super) fn confirmed(&self, nth: usize) {
        self.seen()[nth].confirmed = Some(Instant::now());
    }

    pub(super) fn target(&self, nth: usize, address: SocketAddr) {
        let target = &mut self.seen()[nth].target;
        if target.is_none_or(|(known, _)| known != address) {
            *target = Some((address, Instant::now()));
        }
    }

    /// Waits until the first `sidecars` are connected since `start`.
    pub(super) async fn all_connected(
        &self,
        sidecars: usize,
        start: Instant,
        patience: Duration,
    ) -> Result<Spread, Error> {
        let since = |seen: &Seen| seen.connected.filter(|at| *at >= start);
        self.wait("connected", sidecars, start, patience, since).await
    }

    /// Waits until all of them have a confirmed policy.
    pub(super) async fn all_confirmed(
        &self,
        sidecars: usize,
        start: Instant,
        patience: Duration,
    ) -> Result<Spread, Error> {
        self.wait("confirmed", sidecars, start, patience, |seen| seen.confirmed).await
    }

    /// Waits until all of them have `address` as endpoint of the service that changes.
    pub(super) async fn all_at(
        &self,
        address: SocketAddr,
        sidecars: usize,
        start: Instant,
        patience: Duration,
    ) -> Result<Spread, Error> {
        let since = |seen: &Seen| seen.target.filter(|it| it.0 == address).map(|it| it.1);
        self.wait("told", sidecars, start, patience, since).await
    }

    async fn wait(
        &self,
        what: &str,
        sidecars: usize,
        start: Instant,
        patience: Duration,
        since: impl Fn(&Seen) -> Option<Instant>,
    ) -> Result<Spread, Error> {
        loop {
            let times: Option<Vec<Instant>> = self.seen()[..sidecars].iter().map(&since).collect();
            if let Some(times) = times {
                return Ok(spread(times, start));
            }
            if start.elapsed() > patience {
                let done = self.seen()[..sidecars].iter().filter(|it| since(it).is_some()).count();
                return Err(Error::Fleet(format!(
                    "after {patience:?} {done} of {sidecars} sidecars are {what}"
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Counts {
    /// What came after `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            frames: self.frames - earlier.frames,
            reports: self.reports - earlier.reports,
            connects: self.connects - earlier.connects,
            failures: self.failures - earlier.failures,
        }
    }
}

/// The shares of `times`, of which there is one at least, after `start`.
fn spread(mut times: Vec<Instant>, start: Instant) -> Spread {
    times.sort_unstable();
    let at = |share: usize| {
        let nth = (times.len() * share).div_ceil(100).max(1) - 1;
        times[nth].saturating_duration_since(start).as_secs_f64() * 1e3
    };
    Spread { p50_ms: at(50), p99_ms: at(99), all_ms: at(100) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_all_and_the_last_counts() {
        let start = Instant::now();
        let times = |count: u64| (1..=count).map(|ms| start + Duration::from_millis(ms)).collect();
        let hundred = Spread { p50_ms: 50.0, p99_ms: 99.0, all_ms: 100.0 };
        assert_eq!(spread(times(100), start), hundred);
        assert_eq!(spread(times(1), start), Spread { p50_ms: 1.0, p99_ms: 1.0, all_ms: 1.0 });
    }
}
