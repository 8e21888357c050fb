//! How busy a worker was between two readings.
//!
//! A worker thread is either parked in the ring (or in epoll) or busy. Either side can be
//! accumulated: CPU time from [`clock::thread_cpu_ns`](crate::clock::thread_cpu_ns), or the time
//! parked. CPU time leaves out the time that the thread was runnable but not run; parked time
//! counts that as busy. Use one of the two throughout.
//!
//! # Invariants
//! A ratio lies in `0.0..=1.0`, whatever the readings.
//!
//! # Not here
//! Taking the readings: the worker's loop does.

/// What a worker had accumulated at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// When, on the time line of [`clock::now_ns`](crate::clock::now_ns).
    pub at_ns: u64,
    /// Busy time accumulated until then.
    pub busy_ns: u64,
}

impl Reading {
    /// A reading of a worker that started at `started_ns` and accumulates the time it is parked.
    pub fn from_parked(at_ns: u64, started_ns: u64, parked_ns: u64) -> Self {
        Self { at_ns, busy_ns: at_ns.saturating_sub(started_ns).saturating_sub(parked_ns) }
    }

    /// The share of the time since `earlier` that was busy; 0 if no time has passed.
    pub fn ratio_since(self, earlier: Reading) -> f64 {
        let elapsed_ns = self.at_ns.saturating_sub(earlier.at_ns);
        if elapsed_ns == 0 {
            return 0.0;
        }
        let busy_ns = self.busy_ns.saturating_sub(earlier.busy_ns).min(elapsed_ns);
        busy_ns as f64 / elapsed_ns as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_is_busy_time_over_elapsed_time() {
        let earlier = Reading { at_ns: 1_000, busy_ns: 100 };
        let later = Reading { at_ns: 2_000, busy_ns: 350 };
        assert_eq!(later.ratio_since(earlier), 0.25);
    }

    #[test]
    fn parked_time_is_the_complement_of_busy_time() {
        let earlier = Reading::from_parked(1_000, 0, 1_000);
        let later = Reading::from_parked(2_000, 0, 1_250);
        assert_eq!(later.ratio_since(earlier), 0.75);
    }

    #[test]
    fn ratio_stays_between_zero_and_one_for_readings_that_contradict_each_other() {
        let early = Reading { at_ns: 10, busy_ns: 0 };
        let late = Reading { at_ns: 20, busy_ns: 1_000 };
        assert_eq!(late.ratio_since(early), 1.0);
        assert_eq!(early.ratio_since(late), 0.0);
        assert_eq!(late.ratio_since(late), 0.0);
    }
}
