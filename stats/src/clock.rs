//! The only place that reads time.
//!
//! ```text
//! process start ──── clock_gettime(CLOCK_MONOTONIC) ────┬──── time stamp counter (quanta) ────▶
//!                                              calibrate() returns
//! ```
//!
//! # Invariants
//! - [`now_ns`] is monotone within a thread, across the switch of source too, and never 0, so that
//!   0 can mean "did not happen".
//! - The counter is anchored `SEAM_NS` ahead of CLOCK_MONOTONIC at the switch: a thread that tested
//!   for the anchor, was preempted and then read CLOCK_MONOTONIC still sees time go forward.
//! - Threads may disagree by the skew between their cores' counters: a caller that subtracts a
//!   reading of another thread saturates.
//!
//! # Not here
//! Correction of the rate after calibration. The counter's rate is known to some parts per million
//! and CLOCK_MONOTONIC is itself slewed by NTP, so the two drift apart ([`drift_ns`] tells by how
//! much). Compare readings of `now_ns` with each other, not with another clock.

use std::sync::OnceLock;

use rustix::time::{ClockId, clock_gettime};

/// How far the counter is set ahead of CLOCK_MONOTONIC when it takes over.
///
/// Covers the time between two adjacent clock reads and the counter's rate error over the longest
/// plausible preemption (20 parts per million of 1 s).
const SEAM_NS: u64 = 20_000;

/// Attempts at an anchor read without an interruption; the tightest one is kept.
const ANCHOR_ATTEMPTS: usize = 32;

static ANCHOR: OnceLock<Anchor> = OnceLock::new();

/// A calibrated clock and the pair of simultaneous readings that places it on the time line.
struct Anchor {
    clock: quanta::Clock,
    raw: u64,
    ns: u64,
}

impl Anchor {
    fn place(clock: quanta::Clock) -> Self {
        let mut raw = 0;
        let mut ns = 0;
        let mut tightest = u64::MAX;
        for _ in 0..ANCHOR_ATTEMPTS {
            let before = monotonic_ns();
            let reading = clock.raw();
            let after = monotonic_ns();
            let gap = after.saturating_sub(before);
            if gap < tightest {
                (raw, ns, tightest) = (reading, after, gap);
            }
        }
        Self { clock, raw, ns: ns + SEAM_NS }
    }

    #[inline]
    fn now_ns(&self) -> u64 {
        self.ns + self.clock.delta_as_nanos(self.raw, self.clock.raw())
    }
}

/// Nanoseconds on the CLOCK_MONOTONIC time line; never 0, monotone within a thread.
///
/// Reads the time stamp counter after [`calibrate`], CLOCK_MONOTONIC before. No system call where
/// the kernel's vDSO serves that clock.
#[inline]
pub fn now_ns() -> u64 {
    match ANCHOR.get() {
        Some(anchor) => anchor.now_ns(),
        None => monotonic_ns(),
    }
}

/// Calibrates the time stamp counter and switches [`now_ns`] to it.
///
/// Spins for up to 200 ms, so it belongs on a background thread after the listeners accept. Without
/// a trustworthy counter quanta stays on CLOCK_MONOTONIC. A second call does nothing.
pub fn calibrate() {
    ANCHOR.get_or_init(|| Anchor::place(quanta::Clock::new()));
}

/// Whether [`calibrate`] has returned somewhere, so that [`now_ns`] reads the counter.
pub fn is_calibrated() -> bool {
    ANCHOR.get().is_some()
}

/// How far [`now_ns`] is ahead of CLOCK_MONOTONIC (negative: behind), for a metric.
pub fn drift_ns() -> i64 {
    let before = monotonic_ns();
    let now = now_ns();
    let after = monotonic_ns();
    let middle = before + after.saturating_sub(before) / 2;
    now.cast_signed().wrapping_sub(middle.cast_signed())
}

/// Seconds since 1970 from CLOCK_REALTIME_COARSE (resolution: one kernel tick), for `Date`.
pub fn unix_seconds() -> u64 {
    u64::try_from(clock_gettime(ClockId::RealtimeCoarse).tv_sec).unwrap_or(0)
}

/// Nanoseconds of CPU that the calling thread has used, user and system. A system call.
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(ClockId::ThreadCPUTime)
}

fn monotonic_ns() -> u64 {
    // In a new time namespace the clock can start at zero.
    nanoseconds(ClockId::Monotonic).max(1)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // These clocks are never negative, and overflow u64 after 584 years.
    time.tv_sec.cast_unsigned() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_clock_agrees_with_the_standard_library_within_two_seconds() {
        let ours = unix_seconds();
        let theirs =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(theirs.abs_diff(ours) <= 2, "{ours} against {theirs}");
    }

    #[test]
    fn anchored_counter_leads_monotonic_time_by_the_seam_and_less_than_a_millisecond() {
        let clock = quanta::Clock::new();
        for _ in 0..1_000 {
            let anchor = Anchor::place(clock.clone());
            let before = monotonic_ns();
            let now = anchor.now_ns();
            let after = monotonic_ns();
            assert!(now >= before + SEAM_NS / 2, "{now} just after {before}");
            assert!(now < after + 1_000_000, "{} ns ahead", now - after);
        }
    }

    #[test]
    fn thread_cpu_time_grows_while_the_thread_spins() {
        let start = thread_cpu_ns();
        let deadline = now_ns() + 2_000_000;
        while now_ns() < deadline {}
        assert!(thread_cpu_ns() > start);
    }
}
