//! A token bucket for each key, in one integer, and one for all that find no place.

use std::hash::Hash;

use super::{
    bucket::{self, Bucket, SharedRate},
    decision::Decisions,
    homeless::Homeless,
    ledger::{Crossed, NEVER, Refused},
    policy::{Algorithm, Limit, UNKNOWN},
    quota::{Quota, Rate},
    token_bucket,
};
use crate::{
    error::ConfigError,
    event::Events,
    keyed::words::Words,
    sync::{AtomicU64, Ordering},
    time,
};

pub(super) struct Buckets<K> {
    rate: SharedRate,
    /// How far ahead of the clock a debt or a pause has put any of them.
    horizon: AtomicU64,
    words: Words<K>,
    others: Bucket,
    homeless: Homeless,
}

impl<K: Hash> Buckets<K> {
    pub(super) fn new(limit: &Limit, max_keys: usize) -> Self {
        Self {
            rate: SharedRate::new(limit.rate),
            horizon: AtomicU64::new(0),
            words: Words::new(max_keys),
            others: Bucket::new(limit),
            homeless: Homeless::new(max_keys),
        }
    }

    pub(super) const fn name(&self) -> &'static str {
        self.others.name()
    }

    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// Lets a call of this key pass, or says how long it would have to wait.
    #[inline]
    pub(super) fn take(
        &self,
        key: &K,
        now: u64,
        cost: u64,
        near: Option<f64>,
        events: &Events,
    ) -> Result<Crossed, Refused> {
        let rate = self.rate.get();
        if cost > rate.burst {
            return Err(Refused { wait: NEVER, limit: 0 });
        }
        let (whole, time) = (rate.whole, rate.time_of(cost));
        let taken = self.words.change(
            key,
            move |full_at| full_at <= now,
            move |full_at| match token_bucket::take_at_once(whole, full_at, now, time) {
                Some(taken) => taken.map_err(|wait| (wait, false)),
                None => {
                    let rebased = self.rebased(whole, full_at, now);
                    let taken = token_bucket::take(whole, rebased.unwrap_or(full_at), now, time);
                    taken.map_err(|wait| (wait, rebased.is_some()))
                }
            },
        );
        match taken {
            Some(Ok(changed)) => Ok(near.map_or(0, |ratio| self.crossed(now, changed, ratio))),
            Some(Err((wait, is_put_back))) => {
                if is_put_back {
                    self.put_back(key, whole, now);
                }
                Err(Refused { wait, limit: 0 })
            }
            None => {
                self.homeless.one_more(events);
                self.others.take(now, cost, near)
            }
        }
    }

    /// A clock that was put back is to be remembered, or each refusal would begin the wait anew.
    #[cold]
    #[inline(never)]
    fn put_back(&self, key: &K, whole: u64, now: u64) {
        self.words.change_known(key, |full_at| self.rebased(whole, full_at, now).unwrap_or(full_at));
    }

    #[cold]
    fn crossed(&self, now: u64, (before, after): (u64, u64), ratio: f64) -> Crossed {
        bucket::crossed(&self.rate.get(), now, before, after, ratio)
    }

    pub(super) fn decisions(&self, key: &K, now: u64, cost: u64) -> Decisions {
        let rate = self.rate.get();
        let full_at = match self.words.change_known(key, |full_at| full_at) {
            Some(full_at) => self.rebased(rate.whole, full_at, now).unwrap_or(full_at),
            None if self.words.has_room(key, |full_at| full_at <= now) => 0,
            None => return Decisions::new(self.others.decision(now, cost), []),
        };
        Decisions::new(bucket::decision(self.name(), rate, full_at, now, cost), [])
    }

    pub(super) fn charge(&self, key: &K, now: u64, units: u64, events: &Events) {
        let rate = self.rate.get();
        let time = rate.time_of_any(units);
        if !self.put_ahead(rate, key, now, |full_at| token_bucket::charged(full_at, now, time)) {
            self.homeless.one_more(events);
            self.others.charge(now, units);
        }
    }

    pub(super) fn pause(&self, key: &K, now: u64, wait: u64, events: &Events) {
        let rate = self.rate.get();
        if !self.put_ahead(rate, key, now, |full_at| token_bucket::paused(&rate, full_at, now, wait)) {
            self.homeless.one_more(events);
            self.others.pause(now, wait);
        }
    }

    pub(super) fn drain(&self, key: &K, now: u64, events: &Events) {
        let rate = self.rate.get();
        if !self.put_ahead(rate, key, now, |full_at| token_bucket::drained(&rate, full_at, now)) {
            self.homeless.one_more(events);
            self.others.drain(now);
        }
    }

    /// Whether the key is known. One that has left has all of it.
    pub(super) fn refund(&self, key: &K, units: u64) -> bool {
        let time = self.rate.get().time_of_any(units);
        self.words.change_known(key, |full_at| full_at.saturating_sub(time)).is_some()
    }

    /// Gives back what was taken just now, also of what those without a place share.
    pub(super) fn give_back(&self, key: &K, units: u64) {
        if !self.refund(key, units) {
            self.others.refund(time::now().as_nanos(), units);
        }
    }

    pub(super) fn reset(&self, key: &K) {
        self.words.change_known(key, |_| 0);
    }

    pub(super) fn set_quota(&self, name: Option<&str>, quota: Quota) -> Result<(), ConfigError> {
        if name.is_some_and(|name| name != self.name()) {
            return Err(UNKNOWN);
        }
        let (old, rate) = (self.rate.get(), Algorithm::TokenBucket.check(quota)?);
        self.rate.set(rate);
        let now = time::now().as_nanos();
        self.words.change_all(|full_at| {
            // Each key for itself: how far any of them is ahead says nothing of the others.
            let is_put_ahead = token_bucket::owed(full_at, now) > old.whole;
            token_bucket::requoted(&rate, full_at, now, is_put_ahead)
        });
        self.others.set_rate(now, rate);
        Ok(())
    }

    /// Changes the bucket of this key, if there is a place for it.
    #[inline]
    fn change(
        &self,
        whole: u64,
        key: &K,
        now: u64,
        to: impl Fn(u64) -> Result<u64, u64> + Copy,
    ) -> Option<Result<(u64, u64), u64>> {
        // A full one is as a new one.
        self.words.change(
            key,
            move |full_at| full_at <= now,
            move |full_at| to(self.rebased(whole, full_at, now).unwrap_or(full_at)),
        )
    }

    /// Moves the bucket further ahead of the clock than a burst, if need be, and if there is a place for the key.
    fn put_ahead(&self, rate: Rate, key: &K, now: u64, to: impl Fn(u64) -> u64 + Copy) -> bool {
        let put = self.change(rate.whole, key, now, |full_at| {
            let after = to(full_at);
            // Before anybody can see the bucket there, and take it for a clock that was put back.
            if token_bucket::owed(after, now) > rate.whole {
                self.horizon.fetch_max(after, Ordering::AcqRel);
            }
            Ok(after)
        });
        put.is_some()
    }

    #[inline]
    fn rebased(&self, whole: u64, full_at: u64, now: u64) -> Option<u64> {
        token_bucket::rebased(whole, full_at, now, || self.horizon.load(Ordering::Acquire))
    }
}

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;
    use crate::{event::Pattern, rate_limit::policy::RateLimitSettings};

    const SECOND: u64 = 1_000_000_000;
    const LATER: u64 = 1 << 62;

    #[test]
    fn a_clock_that_was_put_back_makes_no_key_wait_for_it() {
        let limits = RateLimitSettings::token_bucket(Quota::per_second(1)).check().unwrap();
        let (buckets, events) = (Buckets::new(&limits[0], 10), Events::keyed(Pattern::RateLimit, "back"));
        let take = |key, now| buckets.take(&key, now, 1, None, &events).map_err(|refused| refused.wait);
        let earlier = LATER - 1_000_000 * SECOND;
        for key in [1, 2] {
            assert_eq!(take(key, LATER), Ok(0));
        }
        // It is empty, and fills from the first call that is refused.
        assert_eq!(buckets.decisions(&1, earlier, 1).tightest().retry_after, Some(std::time::Duration::from_secs(1)));
        for key in [1, 2] {
            assert_eq!([0, SECOND - 1].map(|since| take(key, earlier + since)), [Err(SECOND), Err(1)]);
            assert_eq!(take(key, earlier + SECOND), Ok(0));
        }
        buckets.drain(&1, LATER, &events);
        buckets.drain(&1, earlier, &events);
        assert_eq!(take(1, earlier + SECOND), Ok(0));
    }
}
