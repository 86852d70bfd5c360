//! The settings, and the one inequality that they come to.

use std::time::Duration;

use super::cost::Cost;
use crate::{error::ConfigError, time::nanos};

/// How much extra load retries may be.
///
/// # Defaults
///
/// | setting | default | from |
/// |---|---|---|
/// | [`ratio`](Self::ratio) | 0.2 | finagle, tower, Envoy |
/// | [`per_second`](Self::per_second) | 3 | Envoy and failsafe-go: 3 at a time |
/// | [`window`](Self::window) | 10 s | finagle, tower |
///
/// ```
/// # use buttress::BudgetSettings;
/// const TENTH: BudgetSettings = BudgetSettings::new().ratio(0.1).per_second(1);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BudgetSettings {
    ratio: f64,
    per_second: u32,
    window: Duration,
}

// ===== impl BudgetSettings =====

impl BudgetSettings {
    /// A fifth of the calls of the last 10 s, and 3 per second.
    #[must_use]
    pub const fn new() -> Self {
        Self { ratio: 0.2, per_second: 3, window: Duration::from_secs(10) }
    }

    /// How many retries each call pays for: 0, or a millionth to 1000, to a millionth. Defaults to 0.2.
    #[must_use]
    pub const fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// How many retries there are without any call, for those who make few. Defaults to 3.
    ///
    /// They belong to the window as a whole: all of them may be taken at once.
    #[must_use]
    pub const fn per_second(mut self, n: u32) -> Self {
        self.per_second = n;
        self
    }

    /// How long a call pays, and a retry counts: at least 10 ns. Defaults to 10 s.
    ///
    /// It has ten slots, each forgotten whole, so it reaches back between nine and ten tenths of its length.
    #[must_use]
    pub const fn window(mut self, length: Duration) -> Self {
        self.window = length;
        self
    }

    pub(super) fn check(self) -> Result<Limits, ConfigError> {
        let err = |field, problem| Err(ConfigError::new(field, problem));
        let is_zero = self.ratio == 0.0 && self.ratio.is_sign_positive();
        if !is_zero && !(0.000_001..=1000.0).contains(&self.ratio) {
            return err("ratio", "must be 0, or at least 0.000001 and at most 1000");
        }
        if is_zero && self.per_second == 0 {
            return err("ratio", "must be above 0 when `per_second` is 0");
        }
        if self.window < Duration::from_nanos(10) {
            return err("window", "must be at least 10 ns");
        }
        let window = nanos(self.window);
        Ok(Limits {
            ratio_ppm: (self.ratio * 1e6).round() as u32,
            floor: u128::from(self.per_second) * u128::from(window),
            window,
        })
    }
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self::new()
    }
}

/// Settings that have been checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// At most 10^9.
    ratio_ppm: u32,
    /// In billionths of a retry: a rate per second times nanoseconds.
    floor: u128,
    pub(super) window: u64,
}

/// Billionths of a retry in a hundredth.
const HUNDREDTH: u128 = 10_000_000;

// Billionths of a retry make every term a whole number, and none can overflow: the greatest is below 2^105.
impl Limits {
    /// Whether so many calls allow so much, in hundredths of a retry.
    pub(super) fn allow(&self, calls: u64, spent: u64) -> bool {
        u128::from(spent) * HUNDREDTH <= self.allowance(calls)
    }

    /// What so many calls still allow.
    pub(super) fn available(&self, calls: u64, spent: u64) -> Cost {
        let left = self.allowance(calls).saturating_sub(u128::from(spent) * HUNDREDTH) / HUNDREDTH;
        Cost::new(u64::try_from(left).unwrap_or(u64::MAX))
    }

    fn allowance(&self, calls: u64) -> u128 {
        u128::from(calls) * u128::from(self.ratio_ppm) * 1_000 + self.floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type S = BudgetSettings;

    #[test]
    fn settings_that_cannot_work_name_the_field() {
        let rows: [(&str, S); 10] = [
            ("ratio", S::new().ratio(-0.1)),
            ("ratio", S::new().ratio(-0.0)),
            ("ratio", S::new().ratio(f64::NAN)),
            ("ratio", S::new().ratio(f64::INFINITY)),
            ("ratio", S::new().ratio(1000.1)),
            ("ratio", S::new().ratio(0.000_000_4)),
            ("ratio", S::new().ratio(0.0).per_second(0)),
            ("ratio", S::new().ratio(f64::NEG_INFINITY).per_second(0)),
            ("window", S::new().window(Duration::ZERO)),
            ("window", S::new().window(Duration::from_nanos(9))),
        ];
        for (field, settings) in rows {
            assert_eq!(settings.check().unwrap_err().field(), field, "{settings:?}");
        }
    }

    #[test]
    fn settings_at_the_edge_are_accepted() {
        let rows = [
            S::new(),
            S::new().ratio(0.0),
            S::new().per_second(0),
            S::new().ratio(0.000_001).per_second(0),
            S::new().ratio(1000.0).per_second(u32::MAX).window(Duration::MAX),
            S::new().window(Duration::from_nanos(10)),
        ];
        for settings in rows {
            assert!(settings.check().is_ok(), "{settings:?}");
        }
    }

    #[test]
    fn no_number_of_calls_overflows() {
        let limits = S::new().ratio(1000.0).per_second(u32::MAX).window(Duration::MAX).check().unwrap();
        assert!(limits.allow(u64::MAX, u64::MAX));
        assert_eq!(limits.available(u64::MAX, u64::MAX).as_percent(), u64::MAX);
        let limits = S::new().ratio(0.0).check().unwrap();
        assert!(!limits.allow(u64::MAX, u64::MAX));
        assert_eq!(limits.available(u64::MAX, u64::MAX), Cost::ZERO);
    }
}
