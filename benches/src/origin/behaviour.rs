//! How long an origin takes and how often it fails: drawn anew for each answer.
//!
//! # Invariants
//! - The draws are seeded: an origin that is started again behaves alike.
//! - No delay is longer than [`DELAY_MAX`].

use std::{str::FromStr, time::Duration};

use crate::limits::DELAY_MAX;

/// A distribution of delays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Delay {
    /// Always the same.
    Fixed(Duration),
    /// Every delay from the first to the second alike.
    Uniform(Duration, Duration),
    /// Exponential with this mean: most are short, some are many times as long.
    Exponential(Duration),
}

/// What an answer is like apart from its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    pub(crate) delay: Delay,
    /// Share of answers that are 503 instead, 0 to 1.
    pub(crate) error_rate: f64,
}

impl Behaviour {
    /// Whether the next answer is an error.
    pub(super) fn fails(&self, random: &mut fastrand::Rng) -> bool {
        self.error_rate > 0.0 && random.f64() < self.error_rate
    }
}

impl Delay {
    /// The delay of the next answer.
    pub(super) fn draw(&self, random: &mut fastrand::Rng) -> Duration {
        match *self {
            Self::Fixed(delay) => delay,
            Self::Uniform(low, high) => low + (high - low).mul_f64(random.f64()),
            Self::Exponential(mean) => mean.mul_f64(-(1.0 - random.f64()).ln()).min(DELAY_MAX),
        }
    }
}

impl FromStr for Delay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let delay = if let Some(range) = text.strip_prefix("uniform:") {
            let (low, high) = range.split_once("..").ok_or("expected uniform:TIME..TIME")?;
            let (low, high) = (parse(low)?, parse(high)?);
            if low > high {
                return Err("the range runs backwards".to_owned());
            }
            Self::Uniform(low, high)
        } else if let Some(mean) = text.strip_prefix("exponential:") {
            Self::Exponential(parse(mean)?)
        } else {
            Self::Fixed(parse(text)?)
        };
        Ok(delay)
    }
}

fn parse(text: &str) -> Result<Duration, String> {
    let delay = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if delay > DELAY_MAX {
        return Err(format!("at most {}", humantime::format_duration(DELAY_MAX)));
    }
    Ok(delay)
}

/// Reads a share from 0 to 1.
pub(super) fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        Ok(_) | Err(_) => Err("expected a number from 0 to 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_ms(delay: &str) -> f64 {
        let delay: Delay = delay.parse().unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        let total: f64 = (0..20_000).map(|_| delay.draw(&mut random).as_secs_f64()).sum();
        total / 20.0
    }

    #[test]
    fn delays_have_the_mean_that_was_asked_for() {
        assert!((mean_ms("5ms") - 5.0).abs() < 0.001);
        assert!((mean_ms("uniform:2ms..4ms") - 3.0).abs() < 0.03);
        assert!((mean_ms("exponential:10ms") - 10.0).abs() < 0.2);
    }

    #[test]
    fn errors_are_as_frequent_as_asked_for() {
        let mut random = fastrand::Rng::with_seed(1);
        let behaviour = |error_rate| Behaviour { delay: Delay::Fixed(Duration::ZERO), error_rate };
        let mut count = |rate| (0..10_000).filter(|_| behaviour(rate).fails(&mut random)).count();
        assert_eq!((count(0.0), count(1.0)), (0, 10_000));
        assert!((900..1100).contains(&count(0.1)));
    }

    #[test]
    fn what_is_no_distribution_or_too_long_is_refused() {
        for text in
            ["", "5", "uniform:5ms", "uniform:5ms..1ms", "normal:1ms", "2h", "exponential:2h"]
        {
            assert!(text.parse::<Delay>().is_err(), "{text}");
        }
        assert_eq!(parse_share("0.01"), Ok(0.01));
        assert!(["-0.1", "1.1", "NaN", "x"].iter().all(|text| parse_share(text).is_err()));
    }
}
