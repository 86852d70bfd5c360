//! What the keys of a layer share: the limits, a place for each key, and one for all that find none.

use std::{
    hash::Hash,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::{
    decision::Decisions,
    keyed_buckets::Buckets,
    keyed_ledgers::Ledgers,
    ledger::{Crossed, Refused},
    policy::{Algorithm, RateLimitSettings},
    quota::Quota,
    state::rejected,
};
use crate::{
    error::{ConfigError, Rejected},
    event::{EventKind, Events, Pattern},
    time::{self, Instant},
};

pub(super) struct KeyedLimiter<K> {
    used: Used<K>,
    max_keys: usize,
    near: Option<f64>,
    shadow: AtomicBool,
    pub(super) events: Events,
}

enum Used<K> {
    /// What most limiters are.
    Buckets(Buckets<K>),
    Ledgers(Ledgers<K>),
}

impl<K: Hash + Eq + Clone> KeyedLimiter<K> {
    pub(super) fn new(settings: RateLimitSettings) -> Result<Self, ConfigError> {
        let limits = settings.check()?;
        let max_keys = settings.max_keys;
        let used = match &*limits {
            [limit] if limit.algorithm == Algorithm::TokenBucket => Used::Buckets(Buckets::new(limit, max_keys)),
            _ => Used::Ledgers(Ledgers::new(limits, max_keys)),
        };
        Ok(Self {
            used,
            max_keys,
            near: settings.near_limit,
            shadow: AtomicBool::new(settings.shadow),
            events: Events::keyed(Pattern::RateLimit, settings.own_name()),
        })
    }

    /// Lets a call of this key pass, or says how long it would have to wait.
    #[inline]
    pub(super) fn take_at(&self, key: &K, now: Instant, cost: u64) -> Result<(), Refused> {
        let now = now.as_nanos();
        let crossed = match &self.used {
            Used::Buckets(buckets) => buckets.take(key, now, cost, self.near, &self.events)?,
            Used::Ledgers(ledgers) => ledgers.take(key, now, cost, self.near, &self.events)?,
        };
        if crossed != 0 {
            self.tell_near_limit(key, now, crossed);
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn tell_near_limit(&self, key: &K, now: u64, crossed: Crossed) {
        if !self.events.is_heard() {
            return;
        }
        let decisions = self.decisions_at(key, now, 0);
        for (_, decision) in decisions.iter().enumerate().filter(|(index, _)| crossed & (1 << index) != 0) {
            self.events.emit(|| EventKind::NearLimit {
                limit_name: decision.policy,
                used: decision.limit - decision.remaining,
                limit: decision.limit,
            });
        }
    }

    pub(super) fn decisions(&self, key: &K, cost: u64) -> Decisions {
        self.decisions_at(key, time::now().as_nanos(), cost)
    }

    fn decisions_at(&self, key: &K, now: u64, cost: u64) -> Decisions {
        match &self.used {
            Used::Buckets(buckets) => buckets.decisions(key, now, cost),
            Used::Ledgers(ledgers) => ledgers.decisions(key, now, cost),
        }
    }

    /// The refusal of a call, and its report. In shadow mode it passes.
    #[inline]
    pub(super) fn refuse(&self, refused: Refused) -> Result<(), Rejected> {
        if self.events.is_heard() || self.is_shadow() { self.report(refused) } else { Err(self.rejected(refused)) }
    }

    #[cold]
    #[inline(never)]
    fn report(&self, refused: Refused) -> Result<(), Rejected> {
        let (rejected, shadow) = (self.rejected(refused), self.is_shadow());
        self.events.emit(|| EventKind::Rejected { rejected: &rejected, shadow });
        if shadow { Ok(()) } else { Err(rejected) }
    }

    #[inline]
    fn rejected(&self, refused: Refused) -> Rejected {
        let name = match &self.used {
            Used::Buckets(buckets) => buckets.name(),
            Used::Ledgers(ledgers) => ledgers.name(refused.limit).unwrap_or(self.events.name()),
        };
        rejected(name, refused)
    }

    pub(super) fn is_shadow(&self) -> bool {
        self.shadow.load(Ordering::Relaxed)
    }

    pub(super) fn set_shadow(&self, shadow: bool) {
        self.shadow.store(shadow, Ordering::Relaxed);
    }

    pub(super) fn charge(&self, key: &K, units: u64) {
        let now = time::now().as_nanos();
        match &self.used {
            Used::Buckets(buckets) => buckets.charge(key, now, units, &self.events),
            Used::Ledgers(ledgers) => ledgers.charge(key, now, units, &self.events),
        }
    }

    /// Gives back what was taken at a time.
    pub(super) fn refund(&self, key: &K, units: u64, taken_at: Instant) {
        match &self.used {
            Used::Buckets(buckets) => _ = buckets.refund(key, units),
            Used::Ledgers(ledgers) => ledgers.refund(key, time::now().as_nanos(), units, taken_at.as_nanos()),
        }
    }

    /// Gives back what was taken just now.
    #[cold]
    pub(super) fn give_back(&self, key: &K, units: u64, taken_at: Instant) {
        match &self.used {
            Used::Buckets(buckets) => buckets.give_back(key, units),
            Used::Ledgers(ledgers) => ledgers.give_back(key, taken_at.as_nanos(), units),
        }
    }

    pub(super) fn pause(&self, key: &K, wait: Duration) {
        let (now, wait) = (time::now().as_nanos(), time::nanos(wait));
        match &self.used {
            Used::Buckets(buckets) => buckets.pause(key, now, wait, &self.events),
            Used::Ledgers(ledgers) => ledgers.pause(key, now, wait, &self.events),
        }
    }

    pub(super) fn drain(&self, key: &K) {
        let now = time::now().as_nanos();
        match &self.used {
            Used::Buckets(buckets) => buckets.drain(key, now, &self.events),
            Used::Ledgers(ledgers) => ledgers.drain(key, now, &self.events),
        }
    }

    pub(super) fn reset(&self, key: &K) {
        match &self.used {
            Used::Buckets(buckets) => buckets.reset(key),
            Used::Ledgers(ledgers) => ledgers.reset(key),
        }
    }

    pub(super) fn set_quota(&self, name: Option<&str>, quota: Quota) -> Result<(), ConfigError> {
        match &self.used {
            Used::Buckets(buckets) => buckets.set_quota(name, quota),
            Used::Ledgers(ledgers) => ledgers.set_quota(name, quota),
        }
    }

    pub(super) fn len(&self) -> usize {
        match &self.used {
            Used::Buckets(buckets) => buckets.len(),
            Used::Ledgers(ledgers) => ledgers.len(),
        }
    }

    pub(super) const fn max_keys(&self) -> usize {
        self.max_keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where another call takes the last unit of all in between, which no test can time.
    #[test]
    fn what_is_given_back_of_a_key_without_a_place_comes_to_what_those_share() {
        let bucket = RateLimitSettings::token_bucket(Quota::per_day(5)).max_keys(1);
        for settings in [bucket, RateLimitSettings::sliding_log(Quota::per_day(5)).max_keys(1)] {
            let (limiter, now) = (KeyedLimiter::<u64>::new(settings).unwrap(), time::now());
            assert_eq!(limiter.take_at(&1, now, 1), Ok(()));
            assert_eq!(limiter.take_at(&2, now, 5), Ok(()));
            limiter.give_back(&2, 5, now);
            limiter.give_back(&1, 1, now);
            assert_eq!([1, 3].map(|key| limiter.take_at(&key, now, 5)), [Ok(()); 2]);
        }
    }
}
