//! When requests are meant to be sent, decided before the first of them is.
//!
//! An open loop: the times depend on the rate alone, never on how the target answers.

use clap::ValueEnum;

/// How the gaps between requests are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// All gaps alike.
    Constant,
    /// Exponential gaps: requests of many users that know nothing of each other.
    Poisson,
}

/// The intended times, in nanoseconds from the start, in order and without end.
#[derive(Debug)]
pub(crate) struct Arrivals {
    pattern: Pattern,
    gap_ns: f64,
    count: u64,
    at_ns: f64,
    random: fastrand::Rng,
}

impl Arrivals {
    /// `per_second > 0`. The same seed gives the same times.
    pub(crate) fn new(pattern: Pattern, per_second: f64, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { pattern, gap_ns: 1e9 / per_second, count: 0, at_ns: 0.0, random }
    }
}

impl Iterator for Arrivals {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        match self.pattern {
            // From the count, so that no rounding adds up.
            Pattern::Constant => self.at_ns = self.count as f64 * self.gap_ns,
            Pattern::Poisson => self.at_ns -= (1.0 - self.random.f64()).ln() * self.gap_ns,
        }
        self.count += 1;
        Some(self.at_ns as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(pattern: Pattern, per_second: f64) -> Vec<u64> {
        let arrivals = Arrivals::new(pattern, per_second, 7);
        arrivals.take_while(|&at| at < 100_000_000_000).collect()
    }

    #[test]
    fn constant_arrivals_do_not_drift() {
        let times = times(Pattern::Constant, 3000.0);
        assert_eq!(times.len(), 300_000);
        assert_eq!(times[3000 * 99], 99_000_000_000);
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_spread_as_much_as_they_are_long() {
        let times = times(Pattern::Poisson, 2000.0);
        assert!((times.len() as f64 / 200_000.0 - 1.0).abs() < 0.01, "{}", times.len());
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // The standard deviation of an exponential distribution is its mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "{} {mean}", variance.sqrt());
    }
}
