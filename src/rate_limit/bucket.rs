//! One bucket in one atomic integer, and the rate at which it fills, which may change.

use super::{
    decision::Decision,
    ledger::{Crossed, NEVER, Refused, ahead, is_crossed},
    policy::{Algorithm, Limit},
    quota::Rate,
    token_bucket,
};
use crate::sync::{AtomicU64, Ordering};

#[derive(Debug)]
pub(super) struct Bucket {
    name: &'static str,
    rate: SharedRate,
    /// When the bucket is full again, in nanoseconds of our clock. `Relaxed`: the number stands for nothing but itself.
    full_at: AtomicU64,
    /// How far ahead of the clock a debt, a pause or a reservation has put it.
    horizon: AtomicU64,
}

/// A rate that is read without a lock. Who reads while it is changed may see some of the old one and some of the new one, and judges one call by that.
#[derive(Debug)]
pub(super) struct SharedRate {
    pub(super) units: AtomicU64,
    pub(super) period: AtomicU64,
    burst: AtomicU64,
    each: AtomicU64,
    whole: AtomicU64,
}

/// What a reservation has taken, to give it back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserved {
    /// How long until it may be used.
    pub(super) wait: u64,
    until: u64,
    time: u64,
}

// ===== impl SharedRate =====

impl SharedRate {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            units: AtomicU64::new(rate.units),
            period: AtomicU64::new(rate.period),
            burst: AtomicU64::new(rate.burst),
            each: AtomicU64::new(rate.each),
            whole: AtomicU64::new(rate.whole),
        }
    }

    #[inline]
    pub(super) fn get(&self) -> Rate {
        let read = |field: &AtomicU64| field.load(Ordering::Relaxed);
        Rate {
            units: read(&self.units),
            period: read(&self.period),
            burst: read(&self.burst),
            each: read(&self.each),
            whole: read(&self.whole),
        }
    }

    pub(super) fn set(&self, rate: Rate) {
        self.units.store(rate.units, Ordering::Relaxed);
        self.period.store(rate.period, Ordering::Relaxed);
        self.burst.store(rate.burst, Ordering::Relaxed);
        self.each.store(rate.each, Ordering::Relaxed);
        self.whole.store(rate.whole, Ordering::Relaxed);
    }
}

// ===== impl Bucket =====

impl Bucket {
    pub(super) fn new(limit: &Limit) -> Self {
        Self {
            name: limit.name,
            rate: SharedRate::new(limit.rate),
            full_at: AtomicU64::new(0),
            horizon: AtomicU64::new(0),
        }
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn burst(&self) -> u64 {
        self.rate.burst.load(Ordering::Relaxed)
    }

    pub(super) fn set_rate(&self, now: u64, rate: Rate) {
        self.rate.set(rate);
        let horizon = self.horizon.load(Ordering::Acquire);
        let _ =
            self.change(rate.whole, now, |full_at| Ok(token_bucket::requoted(&rate, full_at, now, full_at <= horizon)));
    }

    /// Lets a call of this cost pass or refuses it, if that can be said at the first attempt, which nearly always it can. What keeps it from that is
    /// for [`take`](Self::take) to find out.
    #[inline(always)]
    pub(super) fn take_at_once(&self, now: u64, cost: u64) -> Option<Result<(), Refused>> {
        let SharedRate { burst, each, whole, .. } = &self.rate;
        let [burst, each, whole] = [burst, each, whole].map(|field| field.load(Ordering::Relaxed));
        let before = self.full_at.load(Ordering::Relaxed);
        let time = each.checked_mul(cost).filter(|_| cost <= burst)?;
        match token_bucket::take_at_once(whole, before, now, time)? {
            Ok(after) => {
                let put = self.full_at.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed);
                put.is_ok().then_some(Ok(()))
            }
            Err(wait) => Some(Err(Refused { wait, limit: 0 })),
        }
    }

    /// Lets a call of this cost pass, or says how long it would have to wait.
    #[inline]
    pub(super) fn take(&self, now: u64, cost: u64, near: Option<f64>) -> Result<Crossed, Refused> {
        let rate = self.rate.get();
        if cost > rate.burst {
            return Err(Refused { wait: NEVER, limit: 0 });
        }
        let time = rate.time_of(cost);
        let taken = self.change(rate.whole, now, |before| token_bucket::take(rate.whole, before, now, time));
        match (taken, near) {
            (Ok(_), None) => Ok(0),
            (Ok((before, after)), Some(ratio)) => Ok(crossed(&rate, now, before, after, ratio)),
            (Err(wait), _) => Err(Refused { wait, limit: 0 }),
        }
    }

    /// How long so many units would have to wait.
    pub(super) fn look(&self, now: u64, units: u64) -> u64 {
        let rate = self.rate.get();
        let full_at = self.full_at.load(Ordering::Relaxed);
        let full_at = self.rebased(rate.whole, full_at, now).unwrap_or(full_at);
        ahead(&rate, full_at, now, units)
    }

    pub(super) fn decision(&self, now: u64, cost: u64) -> Decision {
        let rate = self.rate.get();
        let full_at = self.full_at.load(Ordering::Relaxed);
        let full_at = self.rebased(rate.whole, full_at, now).unwrap_or(full_at);
        decision(self.name, rate, full_at, now, cost)
    }

    pub(super) fn charge(&self, now: u64, units: u64) {
        let rate = self.rate.get();
        let time = rate.time_of_any(units);
        self.put_ahead(&rate, now, |full_at| token_bucket::charged(full_at, now, time));
    }

    pub(super) fn refund(&self, now: u64, units: u64) {
        let rate = self.rate.get();
        let time = rate.time_of_any(units);
        let _ = self.change(rate.whole, now, |full_at| Ok(full_at.saturating_sub(time)));
    }

    pub(super) fn drain(&self, now: u64) {
        let rate = self.rate.get();
        let _ = self.change(rate.whole, now, |full_at| Ok(token_bucket::drained(&rate, full_at, now)));
    }

    pub(super) fn pause(&self, now: u64, wait: u64) {
        let rate = self.rate.get();
        self.put_ahead(&rate, now, |full_at| token_bucket::paused(&rate, full_at, now, wait));
    }

    pub(super) fn refill(&self) {
        self.full_at.store(0, Ordering::Relaxed);
        self.horizon.store(0, Ordering::Release);
    }

    /// Takes the units whether they are there or not, for a use as late as that makes it.
    pub(super) fn reserve(&self, now: u64, cost: u64) -> Result<Reserved, Refused> {
        let rate = self.rate.get();
        if cost > rate.burst {
            return Err(Refused { wait: NEVER, limit: 0 });
        }
        let time = rate.time_of(cost);
        let until = self.put_ahead(&rate, now, |full_at| token_bucket::charged(full_at, now, time));
        Ok(Reserved { wait: token_bucket::owed(until, now).saturating_sub(rate.whole), until, time })
    }

    pub(super) fn unreserve(&self, now: u64, reserved: Reserved) {
        let rate = self.rate.get();
        let Reserved { until, time, .. } = reserved;
        let _ = self.change(rate.whole, now, |full_at| Ok(token_bucket::unreserved(full_at, until, time)));
    }

    /// Moves the bucket further ahead of the clock than a burst, if need be.
    fn put_ahead(&self, rate: &Rate, now: u64, to: impl Fn(u64) -> u64) -> u64 {
        let put = self.change(rate.whole, now, |full_at| {
            let after = to(full_at);
            // Before anybody can see the bucket there, and take it for a clock that was put back.
            if token_bucket::owed(after, now) > rate.whole {
                self.horizon.fetch_max(after, Ordering::AcqRel);
            }
            Ok(after)
        });
        put.map_or(0, |(_, after)| after)
    }

    /// Goes from one moment to another, unless that is refused.
    #[inline]
    fn change(&self, whole: u64, now: u64, to: impl Fn(u64) -> Result<u64, u64>) -> Result<(u64, u64), u64> {
        let mut before = self.full_at.load(Ordering::Relaxed);
        loop {
            if let Some(rebased) = self.rebased(whole, before, now) {
                // Whoever comes first does it; all others see the same or something later.
                let _ = self.full_at.compare_exchange(before, rebased, Ordering::Relaxed, Ordering::Relaxed);
                before = self.full_at.load(Ordering::Relaxed);
                continue;
            }
            let after = to(before)?;
            match self.full_at.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok((before, after)),
                Err(other) => before = other,
            }
        }
    }

    #[inline]
    fn rebased(&self, whole: u64, full_at: u64, now: u64) -> Option<u64> {
        token_bucket::rebased(whole, full_at, now, || self.horizon.load(Ordering::Acquire))
    }
}

/// What a bucket says to a call of this cost, without taking it.
pub(super) fn decision(name: &'static str, rate: Rate, full_at: u64, now: u64, cost: u64) -> Decision {
    let wait = if cost > rate.burst { NEVER } else { ahead(&rate, full_at, now, cost) };
    let limit = Limit { name, algorithm: Algorithm::TokenBucket, rate };
    limit.decision(wait, token_bucket::remaining(&rate, full_at, now), token_bucket::owed(full_at, now))
}

#[cold]
pub(super) fn crossed(rate: &Rate, now: u64, before: u64, after: u64, ratio: f64) -> Crossed {
    let left = |full_at| token_bucket::remaining(rate, full_at, now);
    u8::from(is_crossed(ratio, rate.burst, left(before), left(after)))
}
