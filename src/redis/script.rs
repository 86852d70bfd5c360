//! What is said to Redis of a limit, and what it answers: no connection, no clock.

use std::{fmt, fmt::Write, time::Duration};

use crate::{
    error::ConfigError,
    rate_limit::{Algorithm, LimitSettings, RateLimitSettings},
};

pub(super) const CODE: &str = include_str!("limits.lua");

/// A limit as the script wants it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) name: &'static str,
    pub(super) at_once: u64,
    counted: Counted,
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
pub(super) enum Answer {
    Passes,
    Refused { limit: usize, wait: Duration },
}

/// Lua counts in doubles, which are exact up to twice this.
const EXACT: u128 = 1 << 52;
/// A unit of a log is a member of a set, and takes a hundred bytes of Redis.
const LONGEST_LOG: u64 = 10_000;

// ===== impl Asked =====

impl Asked {
    pub(super) fn all(settings: &RateLimitSettings) -> Result<Vec<Self>, ConfigError> {
        settings.limits().enumerate().map(|(index, limit)| Self::new(index, limit)).collect()
    }

    fn new(index: usize, LimitSettings { name, algorithm, quota, .. }: LimitSettings) -> Result<Self, ConfigError> {
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
        escape(&mut suffix, name);
        Ok(Self { name, at_once: quota.at_once(), counted, suffix })
    }

    /// The key in Redis. What is in braces is all that decides the slot, so all limits of a key are in one.
    pub(super) fn key(&self, prefix: &str, key: &impl fmt::Display) -> String {
        let mut text = String::with_capacity(prefix.len() + self.suffix.len() + 32);
        escape(&mut text, prefix);
        // Never empty: an empty tag is none.
        text.push_str(":{.");
        let _ = write!(Escaped(&mut text), "{key}");
        text.push('}');
        text.push_str(&self.suffix);
        text
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
        let (refuses, wait) = (*numbers.first()?, *numbers.get(1)?);
        match usize::try_from(refuses).ok()?.checked_sub(1) {
            None => Some(Self::Passes),
            Some(limit) if limit < limits => {
                let wait = Duration::from_micros(u64::try_from(wait).ok()?);
                Some(Self::Refused { limit, wait })
            }
            Some(_) => None,
        }
    }
}

/// Writes without braces, which say where the slot's part begins and ends.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text);
        Ok(())
    }
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '%' => out.push_str("%25"),
            '{' => out.push_str("%7B"),
            '}' => out.push_str("%7D"),
            c => out.push(c),
        }
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
        let limits = Asked::all(&settings).unwrap();
        for key in ["", "}", "{", "{}", "a{b}c", "%7D", "ein Schlüssel"] {
            let keys: Vec<_> = limits.iter().map(|limit| limit.key("x{y}", &key)).collect();
            assert_eq!(tag(&keys[0]), tag(&keys[1]), "{keys:?}");
            assert_ne!(keys[0], keys[1]);
            assert!(tag(&keys[0]).starts_with('.'), "{keys:?}");
        }
    }

    #[test]
    fn what_redis_cannot_count_is_refused() {
        let log = RateLimitSettings::sliding_log(Quota::per_second(10_001));
        assert_eq!(Asked::all(&log).unwrap_err().field(), "units");
        let endless = RateLimitSettings::token_bucket(Quota::new(1, Duration::from_secs(1 << 40)));
        assert_eq!(Asked::all(&endless).unwrap_err().field(), "quota");
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
        assert_eq!(Answer::read(&[0, 0, 5, 5], 1), Some(Answer::Passes));
        assert_eq!(Answer::read(&[1, 7], 1), Some(Answer::Refused { limit: 0, wait: Duration::from_micros(7) }));
        for numbers in [&[][..], &[1], &[2, 7], &[-1, 7], &[1, -7]] {
            assert_eq!(Answer::read(numbers, 1), None);
        }
    }

    proptest! {
        #[test]
        fn different_keys_have_different_names(one in ".{0,12}", other in ".{0,12}") {
            let limits = Asked::all(&RateLimitSettings::token_bucket(Quota::per_second(1))).unwrap();
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
