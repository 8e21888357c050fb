//! Whether a policy that was just applied does harm, judged by the sidecar alone.
//!
//! ```text
//!             ┌── failures of its own rise ──┐
//! watching ───┤                              ├──▶ harmful
//!             └── pusher out of reach at end ┘
//!     └── time over ──▶ good
//! ```
//!
//! Counted are failures that the sidecar itself produces: no route, no endpoint, connecting, TLS,
//! identity. What applications answer is not: a configuration seldom causes it, and undoing for it
//! would flap.
//!
//! # Not here
//! A crash: `state` sees it at the next start.

use std::fmt;
use std::time::Duration;

use ringway_protocol::Traffic;

/// Failures of its own from which on they count, their least share of the exchanges, and how many
/// times the share of before they must be.
pub const FAILURES_MIN: u64 = 20;
const SHARE_MIN: f64 = 0.01;
const RISE_MIN: f64 = 5.0;
/// The pusher is not out of reach before it was tried for so long, however short the probation.
const UNREACHABLE_MIN: Duration = Duration::from_secs(10);
/// How far back the share of before is taken from.
const BASELINE: Duration = Duration::from_secs(60);

/// What a look comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is too early to say.
    Watching,
    /// Nothing was wrong until the end.
    Good,
    /// It is to be undone.
    Harmful(Harm),
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Harm {
    /// More failures of the sidecar's own than before.
    Failures {
        /// Since the policy was applied.
        own_failures: u64,
        /// Since the same.
        exchanges: u64,
        /// Their share before.
        before: f64,
    },
    /// The pusher was in reach before and is not now.
    Unreachable,
}

impl fmt::Display for Harm {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures { own_failures, exchanges, before } => write!(
                out,
                "{own_failures} of {exchanges} exchanges failed in the sidecar itself, {:.1} % \
                 where it was {:.1} % before",
                100.0 * share(*own_failures, *exchanges),
                100.0 * before
            ),
            Self::Unreachable => {
                out.write_str("the pusher could not be reached any more under this policy")
            }
        }
    }
}

/// What was forwarded lately, so that a rise can be seen.
#[derive(Debug, Default)]
pub struct Lately {
    /// Times on any clock, ms, with what was counted then; the oldest is about [`BASELINE`] old.
    counted: Vec<(u64, Traffic)>,
}

impl Lately {
    /// Takes note of what has been counted at `now_ms`. Called about once a second.
    pub fn count(&mut self, now_ms: u64, traffic: Traffic) {
        let oldest = now_ms.saturating_sub(BASELINE.as_millis() as u64);
        let stale = self.counted.iter().take_while(|(at, _)| *at < oldest).count();
        // The newest of those that are too old is kept: the window is never empty.
        self.counted.drain(..stale.saturating_sub(1));
        self.counted.push((now_ms, traffic));
    }

    /// Forgets everything: it was counted under a policy that was undone.
    pub fn clear(&mut self) {
        self.counted.clear();
    }

    /// What was counted last.
    #[must_use]
    pub fn last(&self) -> Traffic {
        self.counted.last().map(|(_, traffic)| *traffic).unwrap_or_default()
    }

    /// The share of own failures in that time.
    #[must_use]
    pub fn share(&self) -> f64 {
        let (Some((_, first)), Some((_, last))) = (self.counted.first(), self.counted.last())
        else {
            return 0.0;
        };
        let since = since(*first, *last);
        share(since.own_failures, since.exchanges)
    }
}

/// A policy on probation.
#[derive(Debug)]
pub struct Probation {
    /// On the clock of [`Probation::look`], ms.
    ends_ms: u64,
    /// When the pusher is out of reach, likewise.
    gives_up_ms: u64,
    /// What was counted when the policy was applied.
    start: Traffic,
    /// The share of own failures before.
    before: f64,
    /// The pusher was in reach when the policy was applied.
    was_reachable: bool,
}

impl Probation {
    /// A policy that is applied at `now_ms`, to be watched for `duration_ms`. `before`: the share
    /// of own failures under what was good.
    #[must_use]
    pub fn new(
        now_ms: u64,
        duration_ms: u64,
        start: Traffic,
        before: f64,
        was_reachable: bool,
    ) -> Self {
        let ends_ms = now_ms.saturating_add(duration_ms);
        let least = now_ms.saturating_add(UNREACHABLE_MIN.as_millis() as u64);
        Self { ends_ms, gives_up_ms: ends_ms.max(least), start, before, was_reachable }
    }

    /// The share of own failures before it.
    #[must_use]
    pub fn before(&self) -> f64 {
        self.before
    }

    /// Judges by what has been counted until `now_ms`. `reachable`: a connection to the pusher was
    /// made since the policy was applied.
    #[must_use]
    pub fn look(&self, now_ms: u64, traffic: Traffic, reachable: bool) -> Verdict {
        let Traffic { exchanges, own_failures } = since(self.start, traffic);
        let now = share(own_failures, exchanges);
        if own_failures >= FAILURES_MIN && now > SHARE_MIN && now > limit(self.before) {
            let before = self.before;
            return Verdict::Harmful(Harm::Failures { own_failures, exchanges, before });
        }
        if now_ms < self.ends_ms {
            return Verdict::Watching;
        }
        if !self.was_reachable || reachable {
            return Verdict::Good;
        }
        let is_over = now_ms >= self.gives_up_ms;
        if is_over { Verdict::Harmful(Harm::Unreachable) } else { Verdict::Watching }
    }

    /// When it is over, on the clock of [`Probation::look`], ms.
    #[must_use]
    pub fn ends_ms(&self) -> u64 {
        self.ends_ms
    }
}

/// The share from which on they have risen. Where many failed before, five times as many cannot:
/// then half of what was well.
fn limit(before: f64) -> f64 {
    (RISE_MIN * before).min(before + (1.0 - before) / 2.0)
}

fn since(earlier: Traffic, later: Traffic) -> Traffic {
    Traffic {
        exchanges: later.exchanges.saturating_sub(earlier.exchanges),
        own_failures: later.own_failures.saturating_sub(earlier.own_failures),
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 && part == 0 {
        return 0.0;
    }
    // What failed before it was an exchange (a handshake) counts as one.
    part as f64 / whole.max(part) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(exchanges: u64, own_failures: u64) -> Traffic {
        Traffic { exchanges, own_failures }
    }

    /// A policy of a minute, after a minute in which `failures` of 10 000 exchanges failed.
    fn probation(failures: u64) -> Probation {
        let mut lately = Lately::default();
        lately.count(0, traffic(0, 0));
        lately.count(60_000, traffic(10_000, failures));
        Probation::new(60_000, 60_000, traffic(10_000, failures), lately.share(), true)
    }

    #[test]
    fn a_quiet_minute_makes_a_policy_good() {
        let probation = probation(0);
        assert_eq!(probation.look(119_999, traffic(20_000, 0), true), Verdict::Watching);
        assert_eq!(probation.look(120_000, traffic(20_000, 0), true), Verdict::Good);
    }

    #[test]
    fn failures_count_from_twenty_on_and_at_once() {
        let probation = probation(0);
        assert_eq!(probation.look(61_000, traffic(10_100, 19), true), Verdict::Watching);
        let harmful = probation.look(61_000, traffic(10_100, 20), true);
        let Verdict::Harmful(harm) = harmful else { panic!("{harmful:?}") };
        assert_eq!(
            harm.to_string(),
            "20 of 100 exchanges failed in the sidecar itself, 20.0 % where it was 0.0 % before"
        );
    }

    #[test]
    fn a_small_share_is_no_harm_however_many_they_are() {
        let probation = probation(0);
        assert_eq!(probation.look(61_000, traffic(20_000, 100), true), Verdict::Watching);
        let harmful = probation.look(61_000, traffic(20_000, 101), true);
        assert!(matches!(harmful, Verdict::Harmful(_)), "{harmful:?}");
    }

    #[test]
    fn what_failed_before_is_not_the_new_policys_fault() {
        let probation = probation(1000);
        assert_eq!(probation.look(61_000, traffic(11_000, 1499), true), Verdict::Watching);
        let harmful = probation.look(61_000, traffic(11_000, 1501), true);
        assert!(matches!(harmful, Verdict::Harmful(_)), "{harmful:?}");
    }

    #[test]
    fn where_many_failed_before_half_of_the_rest_is_harm() {
        let probation = probation(4000);
        assert_eq!(probation.look(61_000, traffic(11_000, 4700), true), Verdict::Watching);
        let harmful = probation.look(61_000, traffic(11_000, 4701), true);
        assert!(matches!(harmful, Verdict::Harmful(_)), "{harmful:?}");
    }

    #[test]
    fn handshakes_that_fail_count_though_they_are_no_exchanges() {
        let harmful = probation(0).look(61_000, traffic(10_000, 25), true);
        assert!(matches!(harmful, Verdict::Harmful(_)), "{harmful:?}");
    }

    #[test]
    fn a_policy_that_cuts_off_the_pusher_is_undone_in_the_end() {
        let quiet = traffic(10_000, 0);
        assert_eq!(probation(0).look(119_999, quiet, false), Verdict::Watching);
        assert_eq!(probation(0).look(120_000, quiet, false), Verdict::Harmful(Harm::Unreachable));
        let unknown = Probation { was_reachable: false, ..probation(0) };
        let short = Probation::new(60_000, 1000, quiet, 0.0, true);
        assert_eq!(short.look(69_999, quiet, false), Verdict::Watching, "it is tried for longer");
        assert_eq!(short.look(69_999, quiet, true), Verdict::Good);
        assert_eq!(short.look(70_000, quiet, false), Verdict::Harmful(Harm::Unreachable));
        assert_eq!(unknown.look(120_000, quiet, false), Verdict::Good);
    }

    #[test]
    fn only_the_last_minute_says_how_it_was_before() {
        let mut lately = Lately::default();
        for second in 0..600 {
            // All fail in the first five minutes, none after.
            let failed = second.min(300) * 100;
            lately.count(second * 1000, traffic(second * 100, failed));
        }
        assert!(lately.counted.len() < 64);
        assert_eq!(lately.share(), 0.0);
    }
}
