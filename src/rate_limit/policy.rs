//! The settings: small values, checked once.

use super::quota::{Quota, Rate};
use crate::error::ConfigError;

/// How much may pass, and how that is counted.
///
/// # Defaults
///
/// | setting | default |
/// |---|---|
/// | algorithm and [`Quota`] | none: they are the constructor |
/// | [`name`](Self::name) | `"rate_limit"` |
#[derive(Clone, Copy, Debug)]
pub struct RateLimitSettings {
    pub(super) name: &'static str,
    pub(super) algorithm: Algorithm,
    quota: Quota,
}

/// How it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    TokenBucket,
    SlidingLog,
    SlidingCounter,
}

/// A log keeps 16 bytes for each call of its window.
const LONGEST_LOG: u64 = 1 << 20;

impl RateLimitSettings {
    /// A bucket that fills at the rate of the quota and holds a burst: a caller who has rested may have its burst at once. One integer, no lock.
    ///
    /// In a stretch of one period up to a burst and the units of that period pass.
    #[must_use]
    pub const fn token_bucket(quota: Quota) -> Self {
        Self::new(Algorithm::TokenBucket, quota)
    }

    /// Never more than the quota's units in any stretch of its period, whatever the arrivals. 16 bytes for each call in the window, at most
    /// 1,048,576 units, and a short lock for each call.
    #[must_use]
    pub const fn sliding_log(quota: Quota) -> Self {
        Self::new(Algorithm::SlidingLog, quota)
    }

    /// As a log, in two integers: exact to a unit where calls come evenly, and at worst less than twice the units in a stretch of the period. A
    /// short lock for each call.
    #[must_use]
    pub const fn sliding_counter(quota: Quota) -> Self {
        Self::new(Algorithm::SlidingCounter, quota)
    }

    const fn new(algorithm: Algorithm, quota: Quota) -> Self {
        Self { name: "rate_limit", algorithm, quota }
    }

    /// The name in errors, events and metrics. Defaults to `"rate_limit"`.
    #[must_use]
    pub const fn name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// The quota.
    #[must_use]
    pub const fn quota(&self) -> Quota {
        self.quota
    }

    pub(super) fn check(&self) -> Result<Rate, ConfigError> {
        match self.algorithm {
            Algorithm::TokenBucket => self.quota.check(),
            Algorithm::SlidingCounter => self.quota.check_window(),
            Algorithm::SlidingLog if self.quota.units() > LONGEST_LOG => {
                Err(ConfigError::new("units", "must be at most 1,048,576 for a log: take a counter"))
            }
            Algorithm::SlidingLog => self.quota.check_window(),
        }
    }
}
