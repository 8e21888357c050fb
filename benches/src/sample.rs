//! Medians, and intervals of their ratios by bootstrap.
//!
//! # Invariants
//! - The two samples of a round were taken one after the other, so rounds are drawn as pairs: what
//!   slows the whole machine slows both and cancels out.
//! - The draw is seeded: the same samples give the same interval.

/// Resamplings per interval.
const DRAWS: usize = 4000;
const SEED: u64 = 0x5eed;

/// A ratio of medians with its 95 % interval, `low <= ratio <= high` up to rounding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) ratio: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The median; NaN for no samples.
pub(crate) fn median(samples: &[f64]) -> f64 {
    if samples.is_empty() {
        return f64::NAN;
    }
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        return sorted[middle];
    }
    f64::midpoint(sorted[middle - 1], sorted[middle])
}

/// Lower and upper end of the median's 95 % interval; NaN for no samples.
pub(crate) fn interval(samples: &[f64]) -> (f64, f64) {
    drawn(samples.len(), |picks| of_picks(samples, picks))
}

/// The ratio of the medians of two samples of the same rounds.
pub(crate) fn ratio(ours: &[f64], theirs: &[f64]) -> Ratio {
    let rounds = ours.len().min(theirs.len());
    let (low, high) = drawn(rounds, |picks| of_picks(ours, picks) / of_picks(theirs, picks));
    Ratio { ratio: median(ours) / median(theirs), low, high }
}

fn of_picks(samples: &[f64], picks: &[usize]) -> f64 {
    median(&picks.iter().map(|&pick| samples[pick]).collect::<Vec<_>>())
}

/// The ends of the middle 95 % of `figure`, over rounds that are drawn with replacement.
fn drawn(rounds: usize, figure: impl Fn(&[usize]) -> f64) -> (f64, f64) {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut drawn: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let picks: Vec<usize> = (0..rounds).map(|_| random.usize(..rounds)).collect();
            figure(&picks)
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    let at = |share: f64| drawn[((DRAWS - 1) as f64 * share).round() as usize];
    (at(0.025), at(0.975))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even_counts() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_interval_holds_the_median_and_stays_within_the_samples() {
        let samples = [9.0, 10.0, 11.0, 10.5, 9.5, 30.0];
        let (low, high) = interval(&samples);
        assert!((9.0..10.25).contains(&low) && (10.25..=30.0).contains(&high), "{low} {high}");
        assert_eq!(interval(&samples), (low, high), "the draw is seeded");
        assert_eq!(interval(&[7.0]), (7.0, 7.0));
        assert!(interval(&[]).0.is_nan());
    }

    #[test]
    fn a_drift_that_both_share_does_not_widen_the_interval() {
        let theirs: Vec<f64> = (0..9).map(|round| 10.0 + f64::from(round)).collect();
        let ours: Vec<f64> = theirs.iter().map(|value| value * 0.5).collect();
        let found = ratio(&ours, &theirs);
        assert!((found.ratio - 0.5).abs() < 1e-9);
        assert!((found.low - 0.5).abs() < 1e-9 && (found.high - 0.5).abs() < 1e-9);
    }

    #[test]
    fn noise_widens_the_interval_around_the_ratio() {
        let ours = [9.0, 10.0, 11.0, 10.5, 9.5, 10.0];
        let theirs = [20.0, 19.0, 21.0, 20.5, 18.0, 22.0];
        let found = ratio(&ours, &theirs);
        assert!(found.low < found.ratio && found.ratio < found.high, "{found:?}");
        assert!(found.low > 0.4 && found.high < 0.62, "{found:?}");
    }
}
