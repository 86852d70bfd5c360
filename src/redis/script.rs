//! What is said to Redis of a limit, and what it answers: no connection, no clock.

use std::{fmt, time::Duration};

use super::key;
use crate::{
    error::ConfigError,
    rate_limit::{Algorithm, Decision, LimitSettings, Quota, RateLimitSettings},
};

pub(super) const CODE: &str = include_str!("limits.lua");

/// A limit as the script wants it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) name: &'static str,
    pub(super) at_once: u64,
    quota: Quota,
    counted: Counted,
    is_of_all: bool,
    /// What follows the key's own part of the name.
    suffix: String,
}

#[derive(Clone, Copy, Debug)]
enum Counted {
    Bucket { units: u64, period: u64 },
    Window { kind: &'static str, period: u64 },
}

/// What the script is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Take,
    Charge,
    Refund,
}

/// What the script has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) refused: Option<Refused>,
    pub(super) said: Said,
}

/// What it said of each limit: how much is used, of a bucket in microseconds, and in how many microseconds all of it is back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said(pub(super) [(u64, u64); MOST_LIMITS]);

/// Which limit refuses, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) limit: usize,
    pub(super) wait: Duration,
}

/// Four of a key, and four of all keys.
const MOST_LIMITS: usize = 8;

/// Lua counts in doubles, which are exact up to twice this.
const EXACT: u128 = 1 << 52;
/// A unit of a log is a member of a set, and takes a hundred bytes of Redis.
const LONGEST_LOG: u64 = 10_000;

// ===== impl Asked =====

impl Asked {
    pub(super) fn of_key(settings: &RateLimitSettings) -> Result<Vec<Self>, ConfigError> {
        settings.limits().enumerate().map(|(index, limit)| Self::new(index, limit, false)).collect()
    }

    pub(super) fn of_all(settings: &RateLimitSettings) -> Result<Vec<Self>, ConfigError> {
        settings.limits().enumerate().map(|(index, limit)| Self::new(index, limit, true)).collect()
    }

    fn new(index: usize, limit: LimitSettings, is_of_all: bool) -> Result<Self, ConfigError> {
        let LimitSettings { name, algorithm, quota, .. } = limit;
        let micros = u64::try_from(quota.period().as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
        let (counted, kind) = match algorithm {
            Algorithm::TokenBucket => {
                let period = u64::try_from(quota.period().as_nanos()).unwrap_or(u64::MAX);
                (Counted::Bucket { units: quota.units(), period }, "bucket")
            }
            Algorithm::SlidingLog if quota.units() > LONGEST_LOG => {
                return Err(ConfigError::new("units", "must be at most 10,000 for a log in Redis: take a counter"));
            }
            Algorithm::SlidingLog => (Counted::Window { kind: "log", period: micros }, "log"),
            Algorithm::SlidingCounter => (Counted::Window { kind: "counter", period: micros }, "counter"),
        };
        if u128::from(quota.at_once()) > EXACT || u128::from(micros) > EXACT {
            return Err(ConfigError::new("quota", "must be below 2^52 units and microseconds in Redis"));
        }
        let mut suffix = format!(":{index}:{kind}:");
        key::escape(&mut suffix, name);
        Ok(Self { name, at_once: quota.at_once(), quota, counted, is_of_all, suffix })
    }

    /// The key in Redis.
    pub(super) fn key(&self, prefix: &str, key: &impl fmt::Display) -> String {
        let mut text = String::with_capacity(prefix.len() + self.suffix.len() + 32);
        key::escape(&mut text, prefix);
        text.push(':');
        if self.is_of_all {
            key::write_tag_of_all(&mut text);
        } else {
            key::write_tag(&mut text, key);
        }
        text.push_str(&self.suffix);
        text
    }

    /// What is left by what was said so long ago, and of leases here.
    pub(super) fn decision(&self, (used, back_in): (u64, u64), ago: Duration, leased: u64) -> Decision {
        let since = |then: u64| Duration::from_micros(then).saturating_sub(ago);
        let (used, period) = match self.counted {
            Counted::Bucket { units, period } => {
                let time = |units_: u64| (u128::from(period) * u128::from(units_)).div_ceil(u128::from(units));
                let used = (since(used).as_nanos() * u128::from(units)).div_ceil(u128::from(period));
                let whole = Duration::from_nanos(u64::try_from(time(self.at_once)).unwrap_or(u64::MAX));
                (u64::try_from(used).unwrap_or(u64::MAX), whole)
            }
            Counted::Window { .. } if since(back_in).is_zero() => (0, self.quota.period()),
            Counted::Window { .. } => (used, self.quota.period()),
        };
        Decision {
            policy: self.name,
            limit: self.at_once,
            period,
            remaining: self.at_once.saturating_sub(used).saturating_add(leased).min(self.at_once),
            retry_after: None,
            reset_after: since(back_in),
            allowed: true,
        }
    }

    /// Its kind and five numbers.
    pub(super) fn arguments(&self, cost: u64) -> (&'static str, [u64; 5]) {
        match self.counted {
            Counted::Window { kind, period } => (kind, [self.at_once, period, 0, 0, 0]),
            Counted::Bucket { units, period } => {
                let (time, time_parts, whole_of) = micros(units, period, cost);
                let (whole, whole_parts, _) = micros(units, period, self.at_once);
                ("bucket", [time, time_parts, whole_of, whole, whole_parts])
            }
        }
    }
}

/// How many microseconds so many units take, how many parts of one more, and how many parts are one: exact, unless the units are more than 2^42.
fn micros(units: u64, period: u64, cost: u64) -> (u64, u64, u64) {
    let (mut parts, mut whole_of) = (u128::from(period) * u128::from(cost), u128::from(units) * 1_000);
    while whole_of > EXACT {
        (parts, whole_of) = (parts.div_ceil(2), whole_of.div_ceil(2));
    }
    // 142 years: what is longer is that.
    let time = (parts / whole_of).min(EXACT);
    (time as u64, (parts % whole_of) as u64, whole_of as u64)
}

// ===== impl What =====

impl What {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Take => "take",
            Self::Charge => "charge",
            Self::Refund => "refund",
        }
    }
}

// ===== impl Answer =====

impl Answer {
    /// `None` for what the script never says.
    pub(super) fn read(numbers: &[i64], limits: usize) -> Option<Self> {
        let (head, pairs) = numbers.split_at_checked(2)?;
        let natural = |n: i64| u64::try_from(n).ok();
        let (refuses, wait) = (natural(head[0])?, Duration::from_micros(natural(head[1])?));
        if refuses > limits as u64 || pairs.len() != 2 * limits {
            return None;
        }
        let mut said = Said::default();
        for (place, pair) in said.0.iter_mut().zip(pairs.chunks(2)) {
            *place = (natural(pair[0])?, natural(pair[1])?);
        }
        let refused = (refuses > 0).then(|| Refused { limit: refuses as usize - 1, wait });
        Some(Self { refused, said })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::Quota;
    use proptest::prelude::*;

    /// The part of a key that decides the slot, as the cluster specification has it.
    fn tag(key: &str) -> &str {
        let Some((_, rest)) = key.split_once('{') else { return key };
        match rest.split_once('}') {
            Some((tag, _)) if !tag.is_empty() => tag,
            _ => key,
        }
    }

    /// rate_limit_derived_keys_in_other_slots
    #[test]
    fn all_limits_of_a_key_share_a_slot_whatever_the_key_is() {
        let settings = RateLimitSettings::token_bucket(Quota::per_second(1))
            .name("a}{b")
            .and(RateLimitSettings::sliding_log(Quota::per_minute(5)).name("minute"));
        let limits = Asked::of_key(&settings).unwrap();
        for key in ["", "}", "{", "{}", "a{b}c", "%7D", "ein Schlüssel"] {
            let keys: Vec<_> = limits.iter().map(|limit| limit.key("x{y}", &key)).collect();
            assert_eq!(tag(&keys[0]), tag(&keys[1]), "{keys:?}");
            assert_ne!(keys[0], keys[1]);
            assert!(tag(&keys[0]).starts_with('.'), "{keys:?}");
        }
    }

    #[test]
    fn what_is_left_grows_as_time_goes() {
        let bucket = RateLimitSettings::token_bucket(Quota::per_second(10).burst(20)).name("ten");
        let bucket = &Asked::of_key(&bucket).unwrap()[0];
        let said = (1_500_000, 1_500_000);
        let after = |ms, leased| bucket.decision(said, Duration::from_millis(ms), leased);
        assert_eq!((after(0, 0).limit, after(0, 0).period), (20, Duration::from_secs(2)));
        assert_eq!([0, 99, 100, 1_000, 5_000].map(|ms| after(ms, 0).remaining), [5, 5, 6, 15, 20]);
        assert_eq!((after(0, 3).remaining, after(0, 30).remaining), (8, 20));
        assert_eq!(after(500, 0).reset_after, Duration::from_secs(1));
        let log = &Asked::of_all(&RateLimitSettings::sliding_log(Quota::per_second(5))).unwrap()[0];
        let after = |ms| log.decision((4, 300_000), Duration::from_millis(ms), 0).remaining;
        assert_eq!([0, 299, 300].map(after), [1, 1, 5]);
    }

    #[test]
    fn what_belongs_to_all_keys_is_at_no_key() {
        let settings = RateLimitSettings::token_bucket(Quota::per_second(1));
        let (own, all) = (Asked::of_key(&settings).unwrap(), Asked::of_all(&settings).unwrap());
        assert_eq!(all[0].key("p", &"a"), all[0].key("p", &"b"));
        for key in ["", "*", "{*}"] {
            assert_ne!(own[0].key("p", &key), all[0].key("p", &key));
        }
    }

    #[test]
    fn what_redis_cannot_count_is_refused() {
        let log = RateLimitSettings::sliding_log(Quota::per_second(10_001));
        assert_eq!(Asked::of_key(&log).unwrap_err().field(), "units");
        let endless = RateLimitSettings::token_bucket(Quota::new(1, Duration::from_secs(1 << 40)));
        assert_eq!(Asked::of_key(&endless).unwrap_err().field(), "quota");
    }

    /// throttle_kit_interval_truncated_to_zero
    #[test]
    fn no_unit_is_free() {
        for units in [1, 3, 2_000, 10_u64.pow(6), 10_u64.pow(12), 1 << 52] {
            let (time, parts, whole_of) = micros(units, 1_000_000_000, 1);
            assert!(time > 0 || parts > 0, "{units}");
            assert!(parts < whole_of);
        }
    }

    #[test]
    fn an_answer_that_is_none_is_known() {
        let (refused, passes) = (Answer::read(&[1, 7, 5, 9], 1).unwrap(), Answer::read(&[0, 0, 5, 9], 1).unwrap());
        assert_eq!(refused.refused, Some(Refused { limit: 0, wait: Duration::from_micros(7) }));
        assert_eq!((passes.refused, passes.said.0[0]), (None, (5, 9)));
        let rows: [&[i64]; 8] =
            [&[], &[1], &[1, 7], &[2, 7, 5, 9], &[-1, 7, 5, 9], &[1, -7, 5, 9], &[0, 0, -5, 9], &[0, 0, 5, 9, 1, 1]];
        for numbers in rows {
            assert_eq!(Answer::read(numbers, 1), None);
        }
    }

    proptest! {
        #[test]
        fn different_keys_have_different_names(one in ".{0,12}", other in ".{0,12}") {
            let limits = Asked::of_key(&RateLimitSettings::token_bucket(Quota::per_second(1))).unwrap();
            prop_assert_eq!(one == other, limits[0].key("p", &one) == limits[0].key("p", &other));
        }

        #[test]
        fn time_is_exact_in_parts(units in 1_u64..1 << 40, period in 1_u64..1 << 40, cost in 0_u64..1 << 10) {
            let (time, parts, whole_of) = micros(units, period, cost);
            prop_assert_eq!(
                (u128::from(time) * u128::from(whole_of) + u128::from(parts)) * u128::from(units) * 1_000,
                u128::from(period) * u128::from(cost) * u128::from(whole_of)
            );
        }
    }
}
