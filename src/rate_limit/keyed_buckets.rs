//! One bucket for each key: an integer.

use std::hash::Hash;

use super::{
    bucket::SharedRate,
    decision::Decisions,
    homeless::Homeless,
    ledger::{Crossed, NEVER, Refused, ahead, is_crossed},
    policy::{Algorithm, Limit, UNKNOWN},
    quota::{Quota, Rate},
    token_bucket,
};
use crate::{
    error::ConfigError,
    event::Events,
    keyed::cells::Cells,
    sync::{AtomicU64, Mutex, Ordering},
    time,
};

pub(super) struct Buckets<K> {
    name: &'static str,
    rate: SharedRate,
    /// How far ahead of the clock a debt or a pause has put any of them.
    horizon: AtomicU64,
    cells: Cells<K, u64>,
    others: Mutex<u64>,
    homeless: Homeless,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    pub(super) fn new(limit: &Limit, max_keys: usize) -> Self {
        Self {
            name: limit.name,
            rate: SharedRate::new(limit.rate),
            horizon: AtomicU64::new(0),
            cells: Cells::new(max_keys),
            others: Mutex::new(0),
            homeless: Homeless::new(max_keys),
        }
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

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
        let time = rate.time_of(cost);
        self.change(&rate, key, now, events, |full_at| {
            let before = *full_at;
            *full_at = token_bucket::take(&rate, before, now, time).map_err(|wait| Refused { wait, limit: 0 })?;
            Ok(near.map_or(0, |ratio| crossed(&rate, now, before, *full_at, ratio)))
        })
    }

    pub(super) fn decisions(&self, key: &K, now: u64, cost: u64) -> Decisions {
        let rate = self.rate.get();
        let full_at = match self.cells.look(key, |full_at| *full_at) {
            Some(full_at) => full_at,
            None if self.cells.has_room(key, |full_at| *full_at <= now) => 0,
            None => *self.others.lock(),
        };
        let full_at = self.rebased(&rate, full_at, now).unwrap_or(full_at);
        let wait = if cost > rate.burst { NEVER } else { ahead(&rate, full_at, now, cost) };
        let limit = Limit { name: self.name, algorithm: Algorithm::TokenBucket, rate };
        let left = token_bucket::remaining(&rate, full_at, now);
        Decisions::new(limit.decision(wait, left, token_bucket::owed(full_at, now)), [])
    }

    pub(super) fn charge(&self, key: &K, now: u64, units: u64, events: &Events) {
        let rate = self.rate.get();
        let time = rate.time_of_any(units);
        self.put_ahead(&rate, key, now, events, |full_at| token_bucket::charged(full_at, now, time));
    }

    /// A key that has left has all of it.
    pub(super) fn refund(&self, key: &K, units: u64) {
        let time = self.rate.get().time_of_any(units);
        self.cells.look(key, |full_at| *full_at = full_at.saturating_sub(time));
    }

    /// Also of what those without a place share.
    pub(super) fn give_back(&self, key: &K, units: u64) {
        let time = self.rate.get().time_of_any(units);
        let refund = |full_at: &mut u64| *full_at = full_at.saturating_sub(time);
        if self.cells.look(key, refund).is_none() {
            refund(&mut self.others.lock());
        }
    }

    pub(super) fn pause(&self, key: &K, now: u64, wait: u64, events: &Events) {
        let rate = self.rate.get();
        self.put_ahead(&rate, key, now, events, |full_at| token_bucket::paused(&rate, full_at, now, wait));
    }

    pub(super) fn drain(&self, key: &K, now: u64, events: &Events) {
        let rate = self.rate.get();
        self.change(&rate, key, now, events, |full_at| *full_at = token_bucket::drained(&rate, *full_at, now));
    }

    pub(super) fn reset(&self, key: &K) {
        self.cells.look(key, |full_at| *full_at = 0);
    }

    pub(super) fn set_quota(&self, name: Option<&str>, quota: Quota) -> Result<(), ConfigError> {
        if name.is_some_and(|name| name != self.name) {
            return Err(UNKNOWN);
        }
        let (old, rate) = (self.rate.get(), Algorithm::TokenBucket.check(quota)?);
        self.rate.set(rate);
        let now = time::now().as_nanos();
        let requote = |full_at: &mut u64| {
            // Each key for itself: how far any of them is ahead says nothing of the others.
            let is_put_ahead = token_bucket::owed(*full_at, now) > old.whole;
            *full_at = token_bucket::requoted(&rate, *full_at, now, is_put_ahead);
        };
        self.cells.change_all(requote);
        requote(&mut self.others.lock());
        Ok(())
    }

    /// Changes the bucket of this key, or the one for all that find no place.
    #[inline]
    fn change<T>(&self, rate: &Rate, key: &K, now: u64, events: &Events, mut change: impl FnMut(&mut u64) -> T) -> T {
        let mut go = |full_at: &mut u64| {
            if let Some(rebased) = self.rebased(rate, *full_at, now) {
                *full_at = rebased;
            }
            change(full_at)
        };
        // A full one is as a new one.
        match self.cells.change(key, || 0, |full_at| *full_at <= now, &mut go) {
            Some(changed) => changed,
            None => {
                self.homeless.one_more(events);
                go(&mut self.others.lock())
            }
        }
    }

    fn put_ahead(&self, rate: &Rate, key: &K, now: u64, events: &Events, to: impl Fn(u64) -> u64) {
        self.change(rate, key, now, events, |full_at| {
            *full_at = to(*full_at);
            if token_bucket::owed(*full_at, now) > rate.whole {
                self.horizon.fetch_max(*full_at, Ordering::AcqRel);
            }
        });
    }

    #[inline]
    fn rebased(&self, rate: &Rate, full_at: u64, now: u64) -> Option<u64> {
        token_bucket::rebased(rate, full_at, now, || self.horizon.load(Ordering::Acquire))
    }
}

#[cold]
fn crossed(rate: &Rate, now: u64, before: u64, after: u64, ratio: f64) -> Crossed {
    let left = |full_at| token_bucket::remaining(rate, full_at, now);
    u8::from(is_crossed(ratio, rate.burst, left(before), left(after)))
}
