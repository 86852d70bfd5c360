//! What the keys of a layer share: the limits, a place for each key, and one for all that find none.

use std::{
    hash::Hash,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    bucket::SharedRate,
    decision::Decisions,
    ledger::{Crossed, Ledger, NEVER, Refused, ahead, is_crossed},
    policy::{Algorithm, Limit, RateLimitSettings},
    quota::{Quota, Rate},
    state::rejected,
    token_bucket,
};
use crate::{
    error::{ConfigError, Rejected},
    event::{EventKind, Events, Pattern},
    keyed::cells::Cells,
    sync::{AtomicU64, Mutex},
    time::{self, Instant},
};

pub(super) struct KeyedLimiter<K> {
    used: Used<K>,
    max_keys: usize,
    near: Option<f64>,
    shadow: AtomicBool,
    homeless: Homeless,
    pub(super) events: Events,
}

/// How many calls found no place for their key. Not each of a flood is worth a word.
#[derive(Default)]
pub(super) struct Homeless(AtomicUsize);

enum Used<K> {
    Buckets(Buckets<K>),
    Ledgers(Ledgers<K>),
}

/// One bucket for each key: an integer.
struct Buckets<K> {
    name: &'static str,
    rate: SharedRate,
    /// How far ahead of the clock a debt or a pause has put any of them.
    horizon: AtomicU64,
    cells: Cells<K, u64>,
    others: Mutex<u64>,
}

struct Ledgers<K> {
    limits: RwLock<Arc<[Limit]>>,
    cells: Cells<K, Ledger>,
    others: Mutex<Ledger>,
}

impl<K: Hash + Eq + Clone> KeyedLimiter<K> {
    pub(super) fn new(settings: RateLimitSettings) -> Result<Self, ConfigError> {
        let limits = settings.check()?;
        let max_keys = settings.max_keys;
        let used = match &*limits {
            [limit] if limit.algorithm == Algorithm::TokenBucket => Used::Buckets(Buckets {
                name: limit.name,
                rate: SharedRate::new(limit.rate),
                horizon: AtomicU64::new(0),
                cells: Cells::new(max_keys),
                others: Mutex::new(0),
            }),
            _ => Used::Ledgers(Ledgers {
                cells: Cells::new(max_keys),
                others: Mutex::new(Ledger::new(&limits)),
                limits: RwLock::new(limits.into()),
            }),
        };
        Ok(Self {
            used,
            max_keys,
            near: settings.near_limit,
            shadow: AtomicBool::new(settings.shadow),
            homeless: Homeless::default(),
            events: Events::keyed(Pattern::RateLimit, settings.own_name()),
        })
    }

    /// Lets a call of this key pass, or says how long it would have to wait.
    #[inline]
    pub(super) fn take_at(&self, key: &K, now: Instant, cost: u64) -> Result<(), Refused> {
        let now = now.as_nanos();
        let taken = match &self.used {
            Used::Buckets(buckets) => {
                let (rate, near) = (buckets.rate.get(), self.near);
                if cost > rate.burst {
                    return Err(Refused { wait: NEVER, limit: 0 });
                }
                let time = rate.time_of(cost);
                buckets.change(&rate, key, now, self, |full_at| {
                    let before = *full_at;
                    *full_at =
                        token_bucket::take(&rate, before, now, time).map_err(|wait| Refused { wait, limit: 0 })?;
                    Ok(near.map_or(0, |ratio| crossed(&rate, now, before, *full_at, ratio)))
                })
            }
            Used::Ledgers(ledgers) => {
                ledgers.change(key, now, self, |limits, ledger| ledger.take(limits, now, cost, self.near))
            }
        };
        match taken {
            Ok(0) => Ok(()),
            Ok(crossed) => {
                self.tell_near_limit(key, now, crossed);
                Ok(())
            }
            Err(refused) => Err(refused),
        }
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
            Used::Buckets(buckets) => {
                let rate = buckets.rate.get();
                let full_at = match buckets.cells.look(key, |full_at| *full_at) {
                    Some(full_at) => full_at,
                    None if buckets.cells.has_room(key, |full_at| *full_at <= now) => 0,
                    None => *buckets.others.lock(),
                };
                let full_at = buckets.rebased(&rate, full_at, now).unwrap_or(full_at);
                let wait = if cost > rate.burst { NEVER } else { ahead(&rate, full_at, now, cost) };
                let limit = Limit { name: buckets.name, algorithm: Algorithm::TokenBucket, rate };
                let left = token_bucket::remaining(&rate, full_at, now);
                Decisions::new(limit.decision(wait, left, token_bucket::owed(full_at, now)), [])
            }
            Used::Ledgers(ledgers) => {
                let limits = ledgers.limits();
                let look = |ledger: &mut Ledger| ledger.decisions(&limits, now, cost);
                match ledgers.cells.look(key, look) {
                    Some(known) => known,
                    None if ledgers.cells.has_room(key, |ledger| ledger.is_full(&limits, now)) => {
                        look(&mut Ledger::new(&limits))
                    }
                    None => look(&mut ledgers.others.lock()),
                }
            }
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
            Used::Buckets(buckets) => buckets.name,
            Used::Ledgers(ledgers) => {
                ledgers.limits().get(refused.limit).map_or(self.events.name(), |limit| limit.name)
            }
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
            Used::Buckets(buckets) => {
                let rate = buckets.rate.get();
                let time = rate.time_of_any(units);
                buckets.put_ahead(&rate, key, now, self, |full_at| token_bucket::charged(full_at, now, time));
            }
            Used::Ledgers(ledgers) => {
                ledgers.change(key, now, self, |limits, ledger| ledger.charge(limits, now, units));
            }
        }
    }

    /// Gives back what was taken at a time. A key that has left has all of it.
    pub(super) fn refund(&self, key: &K, units: u64, taken_at: Instant) {
        let now = time::now().as_nanos();
        match &self.used {
            Used::Buckets(buckets) => {
                let rate = buckets.rate.get();
                let time = rate.time_of_any(units);
                buckets.cells.look(key, |full_at| *full_at = full_at.saturating_sub(time));
            }
            Used::Ledgers(ledgers) => {
                let limits = ledgers.limits();
                ledgers.cells.look(key, |ledger| ledger.refund(&limits, now, units, taken_at.as_nanos()));
            }
        }
    }

    /// Gives back what was taken just now, also of what those without a place share.
    #[cold]
    pub(super) fn give_back(&self, key: &K, units: u64, taken_at: Instant) {
        let now = taken_at.as_nanos();
        match &self.used {
            Used::Buckets(buckets) => {
                let time = buckets.rate.get().time_of_any(units);
                let refund = |full_at: &mut u64| *full_at = full_at.saturating_sub(time);
                if buckets.cells.look(key, refund).is_none() {
                    refund(&mut buckets.others.lock());
                }
            }
            Used::Ledgers(ledgers) => {
                let limits = ledgers.limits();
                let refund = |ledger: &mut Ledger| ledger.refund(&limits, now, units, now);
                if ledgers.cells.look(key, refund).is_none() {
                    refund(&mut ledgers.others.lock());
                }
            }
        }
    }

    pub(super) fn pause(&self, key: &K, wait: Duration) {
        let (now, wait) = (time::now().as_nanos(), time::nanos(wait));
        match &self.used {
            Used::Buckets(buckets) => {
                let rate = buckets.rate.get();
                buckets.put_ahead(&rate, key, now, self, |full_at| token_bucket::paused(&rate, full_at, now, wait));
            }
            Used::Ledgers(ledgers) => {
                ledgers.change(key, now, self, |limits, ledger| ledger.pause(limits, now, wait));
            }
        }
    }

    pub(super) fn drain(&self, key: &K) {
        let now = time::now().as_nanos();
        match &self.used {
            Used::Buckets(buckets) => {
                let rate = buckets.rate.get();
                buckets.change(&rate, key, now, self, |full_at| *full_at = token_bucket::drained(&rate, *full_at, now));
            }
            Used::Ledgers(ledgers) => {
                ledgers.change(key, now, self, |limits, ledger| ledger.drain(limits, now));
            }
        }
    }

    pub(super) fn reset(&self, key: &K) {
        match &self.used {
            Used::Buckets(buckets) => drop(buckets.cells.look(key, |full_at| *full_at = 0)),
            Used::Ledgers(ledgers) => {
                let limits = ledgers.limits();
                ledgers.cells.look(key, |ledger| *ledger = Ledger::new(&limits));
            }
        }
    }

    pub(super) fn set_quota(&self, name: Option<&str>, quota: Quota) -> Result<(), ConfigError> {
        const UNKNOWN: ConfigError = ConfigError::new("name", "is that of no limit of this limiter");
        match &self.used {
            Used::Buckets(buckets) => {
                if name.is_some_and(|name| name != buckets.name) {
                    return Err(UNKNOWN);
                }
                let (old, rate) = (buckets.rate.get(), Algorithm::TokenBucket.check(quota)?);
                buckets.rate.set(rate);
                let now = time::now().as_nanos();
                let requote = |full_at: &mut u64| {
                    // Each key for itself: how far any of them is ahead says nothing of the others.
                    let is_put_ahead = token_bucket::owed(*full_at, now) > old.whole;
                    *full_at = token_bucket::requoted(&rate, *full_at, now, is_put_ahead);
                };
                buckets.cells.change_all(requote);
                requote(&mut buckets.others.lock());
            }
            Used::Ledgers(ledgers) => {
                let mut limits = ledgers.limits.write().unwrap_or_else(PoisonError::into_inner);
                let mut changed = limits.to_vec();
                let place = match name {
                    None => Some(0),
                    Some(name) => changed.iter().position(|limit| limit.name == name),
                };
                let limit = place.and_then(|place| changed.get_mut(place)).ok_or(UNKNOWN)?;
                limit.rate = limit.algorithm.check(quota)?;
                *limits = changed.into();
                let (limits, now) = (Arc::clone(&limits), time::now().as_nanos());
                ledgers.cells.change_all(|ledger| ledger.requote(&limits, now));
                ledgers.others.lock().requote(&limits, now);
            }
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        match &self.used {
            Used::Buckets(buckets) => buckets.cells.len(),
            Used::Ledgers(ledgers) => ledgers.cells.len(),
        }
    }

    pub(super) const fn max_keys(&self) -> usize {
        self.max_keys
    }
}

#[cold]
fn crossed(rate: &Rate, now: u64, before: u64, after: u64, ratio: f64) -> Crossed {
    let left = |full_at| token_bucket::remaining(rate, full_at, now);
    u8::from(is_crossed(ratio, rate.burst, left(before), left(after)))
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// Changes the bucket of this key, or the one for all that find no place.
    #[inline]
    fn change<T>(
        &self,
        rate: &Rate,
        key: &K,
        now: u64,
        limiter: &KeyedLimiter<K>,
        mut change: impl FnMut(&mut u64) -> T,
    ) -> T {
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
                limiter.homeless.one_more(limiter.max_keys, &limiter.events);
                go(&mut self.others.lock())
            }
        }
    }

    fn put_ahead(&self, rate: &Rate, key: &K, now: u64, limiter: &KeyedLimiter<K>, to: impl Fn(u64) -> u64) {
        self.change(rate, key, now, limiter, |full_at| {
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

impl Homeless {
    #[cold]
    #[inline(never)]
    pub(super) fn one_more(&self, max_keys: usize, events: &Events) {
        if self.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(max_keys) {
            events.emit(|| EventKind::KeysExhausted { max_keys });
        }
    }
}

impl<K: Hash + Eq + Clone> Ledgers<K> {
    fn limits(&self) -> Arc<[Limit]> {
        Arc::clone(&self.limits.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(
        &self,
        key: &K,
        now: u64,
        limiter: &KeyedLimiter<K>,
        mut change: impl FnMut(&[Limit], &mut Ledger) -> T,
    ) -> T {
        let limits = self.limits();
        let mut go = |ledger: &mut Ledger| change(&limits, ledger);
        let make = || Ledger::new(&limits);
        match self.cells.change(key, make, |ledger| ledger.is_full(&limits, now), &mut go) {
            Some(changed) => changed,
            None => {
                limiter.homeless.one_more(limiter.max_keys, &limiter.events);
                go(&mut self.others.lock())
            }
        }
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
