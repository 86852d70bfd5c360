//! How much in what time.

use std::time::Duration;

use crate::{error::ConfigError, time::nanos};

/// Units per period, and how many of them may come at once.
///
/// A unit is a call, or what a [cost](super::RateLimitLayer::cost) makes of it.
///
/// ```
/// # use std::time::Duration;
/// # use buttress::rate_limit::Quota;
/// const SEARCH: Quota = Quota::per_second(5).burst(20);
/// const REPORTS: Quota = Quota::new(3, Duration::from_secs(7 * 86_400));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    units: u64,
    /// In nanoseconds.
    period: u64,
    burst: Option<u64>,
}

/// A quota that can work, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) units: u64,
    pub(super) period: u64,
    pub(super) burst: u64,
    /// How long one unit takes, rounded up: an error of less than a nanosecond a unit, and against the caller.
    pub(super) each: u64,
    /// How long a whole burst takes.
    pub(super) whole: u64,
}

/// 146 years: half of what is ahead of the clock.
pub(super) const LONGEST: u64 = 1 << 62;

/// A clock that is further behind than this was put back; what is nearer are readings of threads that overtook one another.
pub(super) const STEP: u64 = 1_000_000_000;

// ===== impl Quota =====

impl Quota {
    /// So many units in each period. The burst is as many, unless [`burst`](Self::burst) says otherwise.
    #[must_use]
    pub const fn new(units: u64, period: Duration) -> Self {
        Self { units, period: nanos(period), burst: None }
    }

    /// So many units a second.
    #[must_use]
    pub const fn per_second(units: u64) -> Self {
        Self::new(units, Duration::from_secs(1))
    }

    /// So many units a minute.
    #[must_use]
    pub const fn per_minute(units: u64) -> Self {
        Self::new(units, Duration::from_secs(60))
    }

    /// So many units an hour.
    #[must_use]
    pub const fn per_hour(units: u64) -> Self {
        Self::new(units, Duration::from_secs(3600))
    }

    /// So many units a day.
    #[must_use]
    pub const fn per_day(units: u64) -> Self {
        Self::new(units, Duration::from_secs(86_400))
    }

    /// How many units may come at once after a rest. For a token bucket; a window of time has none. Defaults to the units of one period.
    #[must_use]
    pub const fn burst(mut self, units: u64) -> Self {
        self.burst = Some(units);
        self
    }

    /// The units of one period.
    #[must_use]
    pub const fn units(&self) -> u64 {
        self.units
    }

    /// The period.
    #[must_use]
    pub const fn period(&self) -> Duration {
        Duration::from_nanos(self.period)
    }

    /// How many units may come at once after a rest.
    #[must_use]
    pub const fn at_once(&self) -> u64 {
        match self.burst {
            Some(burst) => burst,
            None => self.units,
        }
    }

    /// So large a part of it, above 0 and at most 1: at least one unit, in a longer period if need be.
    #[allow(dead_code, reason = "only backends ask for one")]
    pub(crate) fn share(self, share: f64) -> Self {
        let of = |units: u64| units as f64 * share;
        let units = (of(self.units) as u64).max(1);
        let burst = self.burst.filter(|burst| *burst != self.units).map(|burst| (of(burst) as u64).max(1));
        let longer = (of(self.units) / units as f64).min(1.0);
        // Beyond that a burst would take too long to come together. What needs no longer period keeps its own.
        let longest = LONGEST / burst.unwrap_or(units);
        let period = if longer < 1.0 { ((self.period as f64 / longer) as u64).min(longest) } else { self.period };
        Self { units, period, burst }
    }

    pub(super) fn check(&self) -> Result<Rate, ConfigError> {
        let err = |field, problem| Err(ConfigError::new(field, problem));
        if self.units == 0 {
            return err("units", "must be at least 1");
        }
        if self.period == 0 {
            return err("period", "must be longer than zero");
        }
        if self.period > LONGEST {
            return err("period", "must be at most 146 years");
        }
        let burst = self.burst.unwrap_or(self.units);
        if burst == 0 {
            return err("burst", "must be at least 1");
        }
        let each = self.period.div_ceil(self.units);
        let Some(whole) = each.checked_mul(burst).filter(|whole| *whole <= LONGEST) else {
            return err("burst", "must not take longer than 146 years to come together");
        };
        Ok(Rate { units: self.units, period: self.period, burst, each, whole })
    }

    /// A window of time admits its units in any order, so there is no burst to choose.
    pub(super) fn check_window(&self) -> Result<Rate, ConfigError> {
        let rate = self.check()?;
        if self.burst.is_some_and(|burst| burst != self.units) {
            return Err(ConfigError::new("burst", "is for a token bucket: a window admits its units in any order"));
        }
        Ok(rate)
    }
}

// ===== impl Rate =====

impl Rate {
    /// How long so many units take, together or one after the other: were they cheaper together, there would be more than a burst of them.
    #[inline]
    pub(super) const fn time_of(&self, units: u64) -> u64 {
        self.each.saturating_mul(units)
    }

    /// How long so many units take, also when that is more than there ever are at once. At most [`LONGEST`].
    pub(super) fn time_of_any(&self, units: u64) -> u64 {
        self.time_of(units).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    /// governor_203_more_than_a_unit_per_nanosecond, tower_rate_limit_of_duration_max_panics
    #[test]
    fn any_rate_works_or_says_why_not() {
        let rows = [
            (Quota::new(1, YEAR), Ok(365 * 86_400 * 1_000_000_000)),
            (Quota::per_second(3), Ok(333_333_334)),
            (Quota::per_second(1_000_000_000), Ok(1)),
            (Quota::per_second(1_000_000_000_000), Ok(1)),
            (Quota::new(u64::MAX, Duration::from_nanos(1)).burst(1), Ok(1)),
            (Quota::per_second(0), Err("units")),
            (Quota::new(1, Duration::ZERO), Err("period")),
            (Quota::new(1, Duration::MAX), Err("period")),
            (Quota::per_second(1).burst(0), Err("burst")),
            (Quota::per_second(1).burst(u64::MAX), Err("burst")),
            (Quota::new(1, 100 * YEAR).burst(2), Err("burst")),
            (Quota::new(1, 70 * YEAR).burst(2), Ok(70 * 365 * 86_400 * 1_000_000_000)),
        ];
        for (quota, expected) in rows {
            assert_eq!(quota.check().map(|rate| rate.each).map_err(|error| error.field()), expected, "{quota:?}");
        }
        assert_eq!(Quota::per_minute(6).burst(7).check_window().unwrap_err().field(), "burst");
        assert!(Quota::per_minute(6).burst(6).check_window().is_ok());
    }

    #[test]
    fn many_units_take_as_long_as_one_after_the_other() {
        for quota in [Quota::per_second(3).burst(1000), Quota::per_second(7), Quota::per_second(10_u64.pow(12))] {
            let rate = quota.check().unwrap();
            assert_eq!(
                (rate.time_of(1), rate.time_of(5), rate.time_of(rate.burst)),
                (rate.each, 5 * rate.each, rate.whole)
            );
            assert_eq!(rate.time_of_any(u64::MAX), LONGEST);
        }
    }
}
