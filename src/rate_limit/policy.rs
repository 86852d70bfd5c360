//! The settings: small values, checked once.

use std::time::Duration;

use super::quota::{Quota, Rate};
use crate::error::ConfigError;

/// How much may pass, how that is counted, and how long a call may wait for its turn.
///
/// # Defaults
///
/// | setting | default |
/// |---|---|
/// | algorithm and [`Quota`] | none: they are the constructor |
/// | [`name`](Self::name) | `"rate_limit"` |
/// | [`and`](Self::and) | no further limits |
/// | [`max_wait`](Self::max_wait) | 5 s, as in resilience4j; only for layers that wait |
/// | [`max_waiters`](Self::max_waiters) | 100, as in Netflix's concurrency-limits; only for layers that wait |
/// | [`max_keys`](Self::max_keys) | 100,000; only for keyed limiters |
/// | [`near_limit`](Self::near_limit) | none |
/// | [`shadow`](Self::shadow) | no |
#[derive(Clone, Copy, Debug)]
pub struct RateLimitSettings {
    limits: [Option<LimitSettings>; MOST_LIMITS],
    too_many: bool,
    pub(super) max_wait: Duration,
    pub(super) max_waiters: usize,
    pub(super) max_keys: usize,
    pub(super) near_limit: Option<f64>,
    pub(super) shadow: bool,
}

/// One of the limits of some [`RateLimitSettings`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LimitSettings {
    /// Its name in errors, events and metrics.
    pub name: &'static str,
    /// How it is counted.
    pub algorithm: Algorithm,
    /// How much in what time.
    pub quota: Quota,
}

/// One limit that can work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) name: &'static str,
    pub(super) algorithm: Algorithm,
    pub(super) rate: Rate,
}

/// How a limit is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// [`token_bucket`](RateLimitSettings::token_bucket)
    TokenBucket,
    /// [`sliding_log`](RateLimitSettings::sliding_log)
    SlidingLog,
    /// [`sliding_counter`](RateLimitSettings::sliding_counter)
    SlidingCounter,
}

/// How many limits one limiter has at most.
pub(super) const MOST_LIMITS: usize = 4;
/// A new quota for a limit that there is not.
pub(super) const UNKNOWN: ConfigError = ConfigError::new("name", "is that of no limit of this limiter");

/// A log keeps 16 bytes for each call of its window.
const LONGEST_LOG: u64 = 1 << 20;
/// What a counter of all calls has room for.
pub(super) const LARGEST_COUNT: u64 = (1 << 24) - 1;

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

    /// As a log, in two integers: exact to a unit where calls come evenly, and at worst less than twice the units in a stretch of the period. At most
    /// 16,777,215 units. No lock.
    #[must_use]
    pub const fn sliding_counter(quota: Quota) -> Self {
        Self::new(Algorithm::SlidingCounter, quota)
    }

    const fn new(algorithm: Algorithm, quota: Quota) -> Self {
        Self {
            limits: [Some(LimitSettings { name: "rate_limit", algorithm, quota }), None, None, None],
            too_many: false,
            max_wait: Duration::from_secs(5),
            max_waiters: 100,
            max_keys: 100_000,
            near_limit: None,
            shadow: false,
        }
    }

    /// The name in errors, events and metrics. Defaults to `"rate_limit"`.
    #[must_use]
    pub const fn name(mut self, name: &'static str) -> Self {
        if let Some(first) = &mut self.limits[0] {
            first.name = name;
        }
        self
    }

    /// The limits of `other` too: a call passes all of them or takes nothing of any. At most four in all. Of `other` only limits and their names count.
    /// Defaults to none.
    #[must_use]
    pub const fn and(mut self, other: Self) -> Self {
        let mut index = 0;
        while index < MOST_LIMITS {
            if let Some(limit) = other.limits[index] {
                self = self.push(limit);
            }
            index += 1;
        }
        self.too_many |= other.too_many;
        self
    }

    const fn push(mut self, limit: LimitSettings) -> Self {
        let mut index = 0;
        while index < MOST_LIMITS {
            if self.limits[index].is_none() {
                self.limits[index] = Some(limit);
                return self;
            }
            index += 1;
        }
        self.too_many = true;
        self
    }

    /// How long a call may wait for its turn, in a layer that [waits](super::RateLimitLayer::waiting). Who would have to wait longer is refused at once.
    /// Defaults to 5 s.
    #[must_use]
    pub const fn max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = max_wait;
        self
    }

    /// How many calls may wait at a time. Who comes when that many do is refused at once. Defaults to 100.
    #[must_use]
    pub const fn max_waiters(mut self, max_waiters: usize) -> Self {
        self.max_waiters = max_waiters;
        self
    }

    /// How many keys a [keyed](super::KeyedRateLimitLayer) limiter remembers at most. Defaults to 100,000.
    #[must_use]
    pub const fn max_keys(mut self, max_keys: usize) -> Self {
        self.max_keys = max_keys;
        self
    }

    /// Reports [`NearLimit`](crate::EventKind::NearLimit) when a call takes what is used past this part of the limit, between 0 and 1. Defaults to
    /// none.
    #[must_use]
    pub const fn near_limit(mut self, ratio: f64) -> Self {
        self.near_limit = Some(ratio);
        self
    }

    /// Counts and reports what would be refused, and lets it pass. The handle can [change](super::RateLimitHandle::shadow) that. Defaults to no.
    #[must_use]
    pub const fn shadow(mut self) -> Self {
        self.shadow = true;
        self
    }

    /// The quota: of several limits that of the first.
    #[must_use]
    pub const fn quota(&self) -> Quota {
        match &self.limits[0] {
            Some(limit) => limit.quota,
            None => unreachable!(),
        }
    }

    /// All limits, for a [store](super::LimitStore) that keeps them elsewhere.
    pub fn limits(&self) -> impl Iterator<Item = LimitSettings> {
        self.limits.into_iter().flatten()
    }

    /// The same with other quotas, such as a share of each.
    #[must_use]
    pub fn map_quotas(mut self, map: impl Fn(Quota) -> Quota) -> Self {
        for limit in self.limits.iter_mut().flatten() {
            limit.quota = map(limit.quota);
        }
        self
    }

    /// Whether what would be refused is only reported.
    #[must_use]
    pub const fn is_shadow(&self) -> bool {
        self.shadow
    }

    pub(super) const fn own_name(&self) -> &'static str {
        match &self.limits[0] {
            Some(limit) => limit.name,
            None => unreachable!(),
        }
    }

    pub(super) fn check(&self) -> Result<Vec<Limit>, ConfigError> {
        if self.too_many {
            return Err(ConfigError::new("limits", "must be at most 4"));
        }
        if self.max_waiters == 0 {
            return Err(ConfigError::new("max_waiters", "must be at least 1"));
        }
        if self.max_keys == 0 {
            return Err(ConfigError::new("max_keys", "must be at least 1"));
        }
        if self.near_limit.is_some_and(|ratio| !(ratio > 0.0 && ratio <= 1.0)) {
            return Err(ConfigError::new("near_limit", "must be above 0 and at most 1"));
        }
        self.limits.iter().flatten().map(LimitSettings::check).collect()
    }
}

impl LimitSettings {
    fn check(&self) -> Result<Limit, ConfigError> {
        let Self { name, algorithm, quota } = *self;
        algorithm.check(quota).map(|rate| Limit { name, algorithm, rate })
    }
}

impl Algorithm {
    pub(super) fn check(self, quota: Quota) -> Result<Rate, ConfigError> {
        match self {
            Self::TokenBucket => quota.check(),
            Self::SlidingLog if quota.units() > LONGEST_LOG => {
                Err(ConfigError::new("units", "must be at most 1,048,576 for a log: take a counter"))
            }
            Self::SlidingCounter if quota.units() > LARGEST_COUNT => {
                Err(ConfigError::new("units", "must be at most 16,777,215 for a counter: take a bucket"))
            }
            Self::SlidingLog | Self::SlidingCounter => quota.check_window(),
        }
    }
}
