//! How long certificates are valid.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fault::CaFault;
use super::limits::DAY_S;

/// Lives of certificates in whole seconds.
///
/// `skew < leaf <= issuer / 2`, `operator <= issuer / 2`, `issuer <= root / 2`: an issuer is
/// replaced at half its life, so that it outlives whatever it signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lives {
    root_s: u64,
    issuer_s: u64,
    leaf_s: u64,
    operator_s: u64,
    skew_s: u64,
}

impl Default for Lives {
    /// Root 10 years, issuer 1 year, leaf 24 hours, operators 30 days; clocks may differ by 10
    /// minutes.
    fn default() -> Lives {
        Lives {
            root_s: 3650 * DAY_S,
            issuer_s: 365 * DAY_S,
            leaf_s: DAY_S,
            operator_s: 30 * DAY_S,
            skew_s: 600,
        }
    }
}

impl Lives {
    /// Lives of one's own, for tests and for those who want shorter roots.
    ///
    /// # Errors
    /// [`CaFault::Lives`] if they do not fit each other.
    pub fn new(
        root: Duration,
        issuer: Duration,
        leaf: Duration,
        operator: Duration,
        skew: Duration,
    ) -> Result<Lives, CaFault> {
        let lives = Lives {
            root_s: root.as_secs(),
            issuer_s: issuer.as_secs(),
            leaf_s: leaf.as_secs(),
            operator_s: operator.as_secs(),
            skew_s: skew.as_secs(),
        };
        lives.check()?;
        Ok(lives)
    }

    /// The same with leaves of 2.5 times `budget`: an outage of the pusher may last for so long
    /// before the first certificate expires, that of a sidecar that was just about to renew at 60 %
    /// of the life. A longer one means that a stolen key is of use for longer.
    ///
    /// # Errors
    /// [`CaFault::Lives`] if leaves would outlive half an issuer.
    pub fn with_outage_budget(self, budget: Duration) -> Result<Lives, CaFault> {
        let lives = Lives { leaf_s: budget.as_secs().saturating_mul(5).div_ceil(2), ..self };
        lives.check()?;
        Ok(lives)
    }

    /// What has been read from a record obeys the rules too.
    pub(crate) fn check(&self) -> Result<(), CaFault> {
        let fault = |text| Err(CaFault::Lives(text));
        if self.skew_s >= self.leaf_s || self.leaf_s < 2 {
            return fault("a leaf lives longer than clocks may differ, and 2 s at least");
        }
        if self.leaf_s.max(self.operator_s) > self.issuer_s / 2 {
            return fault("leaves and operators live half as long as an issuer at most");
        }
        if self.operator_s == 0 {
            return fault("operators' certificates live 1 s at least");
        }
        if self.issuer_s > self.root_s / 2 {
            return fault("an issuer lives half as long as a root at most");
        }
        if self.root_s > 100 * 366 * DAY_S {
            return fault("a root lives 100 years at most");
        }
        Ok(())
    }

    /// Seconds that a root is valid.
    #[must_use]
    pub fn root_s(&self) -> u64 {
        self.root_s
    }

    /// Seconds that an issuer is valid.
    #[must_use]
    pub fn issuer_s(&self) -> u64 {
        self.issuer_s
    }

    /// Seconds that a workload's certificate and the pusher's own are valid.
    #[must_use]
    pub fn leaf_s(&self) -> u64 {
        self.leaf_s
    }

    /// Seconds that an operator's certificate is valid, if nothing else is asked for.
    #[must_use]
    pub fn operator_s(&self) -> u64 {
        self.operator_s
    }

    /// Seconds that clocks may differ: certificates begin that much in the past.
    #[must_use]
    pub fn skew_s(&self) -> u64 {
        self.skew_s
    }
}

/// When a certificate that is valid from `now_s` until `until_s` is to be renewed: at half of its
/// life, 10 % of the life earlier or later by `draw`, so that a fleet that started at once does not
/// renew at once.
#[must_use]
pub fn renew_at_s(now_s: u64, until_s: u64, draw: u32) -> u64 {
    let life = u128::from(until_s.saturating_sub(now_s));
    let tenths = life * 4 / 10;
    let spread = (life * 2 * u128::from(draw) / 10) >> 32;
    now_s.saturating_add(u64::try_from(tenths + spread).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_at_half_life_give_or_take_a_tenth() {
        assert_eq!(renew_at_s(1000, 2000, 0), 1400);
        assert_eq!(renew_at_s(1000, 2000, 1 << 31), 1500);
        assert_eq!(renew_at_s(1000, 2000, u32::MAX), 1599);
        assert_eq!(renew_at_s(1000, 1000, 7), 1000);
        assert_eq!(renew_at_s(1000, 900, 7), 1000);
        assert!(renew_at_s(0, u64::MAX, u32::MAX) < u64::MAX);
    }

    #[test]
    fn an_outage_budget_is_what_is_left_of_a_leaf_at_its_latest_renewal() {
        let budget = Duration::from_secs(72 * 3600);
        let leaf_s = Lives::default().with_outage_budget(budget).unwrap().leaf_s();
        assert_eq!(leaf_s, 180 * 3600);
        assert!(leaf_s - renew_at_s(0, leaf_s, u32::MAX) >= budget.as_secs());
        assert!(Lives::default().with_outage_budget(Duration::from_secs(100 * DAY_S)).is_err());
        assert!(Lives::default().with_outage_budget(Duration::from_secs(200)).is_err());
        assert!(Lives::default().with_outage_budget(Duration::MAX).is_err());
    }

    #[test]
    fn lives_that_do_not_fit_each_other_are_refused() {
        let lives = |root, issuer, leaf, operator, skew| {
            Lives::new(
                Duration::from_secs(root),
                Duration::from_secs(issuer),
                Duration::from_secs(leaf),
                Duration::from_secs(operator),
                Duration::from_secs(skew),
            )
        };
        assert!(lives(160, 80, 40, 40, 39).is_ok());
        assert!(lives(159, 80, 40, 40, 39).is_err());
        assert!(lives(160, 80, 41, 40, 39).is_err());
        assert!(lives(160, 80, 40, 41, 39).is_err());
        assert!(lives(160, 80, 40, 40, 40).is_err());
        assert!(lives(160, 80, 40, 0, 39).is_err());
    }
}
