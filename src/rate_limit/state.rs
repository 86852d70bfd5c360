//! What clones share: what has been used of the quota, and who listens.

use super::{
    decision::Decision,
    policy::{Algorithm, RateLimitSettings},
    quota::Rate,
    sliding_counter::SlidingCounter,
    sliding_log::SlidingLog,
    token_bucket,
};
use crate::{
    error::{ConfigError, Reason, Rejected},
    event::{EventKind, Events, Pattern},
    shared::Shared,
    sync::{AtomicU64, Mutex, Ordering},
    time::{self, Instant},
};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Limiter {
    rate: Rate,
    used: Used,
    pub(super) events: Events,
}

#[derive(Debug)]
enum Used {
    /// When the bucket is full again, in nanoseconds of our clock. `Relaxed`: the number stands for nothing but itself.
    Bucket(AtomicU64),
    Log(Mutex<SlidingLog>),
    Counter(Mutex<SlidingCounter>),
}

/// How long a call that was refused would have to wait, or `None` if it can never pass.
pub(super) type Refused = Option<u64>;

impl Limiter {
    pub(super) fn share(settings: RateLimitSettings) -> Result<Shared<Self>, ConfigError> {
        let rate = settings.check()?;
        let used = match settings.algorithm {
            Algorithm::TokenBucket => Used::Bucket(AtomicU64::new(0)),
            Algorithm::SlidingLog => Used::Log(Mutex::default()),
            Algorithm::SlidingCounter => Used::Counter(Mutex::default()),
        };
        Ok(Shared::new(Self { rate, used, events: Events::named(Pattern::RateLimit, settings.name) }))
    }

    /// Lets a call of this cost pass, or says how long it would have to wait.
    #[inline]
    pub(super) fn take(&self, cost: u64) -> Result<(), Refused> {
        self.take_at(time::now(), cost)
    }

    #[inline]
    pub(super) fn take_at(&self, now: Instant, cost: u64) -> Result<(), Refused> {
        if cost > self.limit() {
            return Err(None);
        }
        let now = now.as_nanos();
        match &self.used {
            Used::Bucket(full_at) => self.take_from(full_at, now, self.rate.time_of(cost)),
            Used::Log(log) => log.lock().take(&self.rate, now, cost),
            Used::Counter(counter) => counter.lock().take(&self.rate, now, cost),
        }
        .map_err(Some)
    }

    #[inline]
    fn take_from(&self, full_at: &AtomicU64, now: u64, time: u64) -> Result<(), u64> {
        let mut before = full_at.load(Ordering::Relaxed);
        loop {
            if let Some(rebased) = token_bucket::rebased(&self.rate, before, now) {
                // Whoever comes first does it; all others see the same or something later.
                let _ = full_at.compare_exchange(before, rebased, Ordering::Relaxed, Ordering::Relaxed);
                before = full_at.load(Ordering::Relaxed);
                continue;
            }
            let after = token_bucket::take(&self.rate, before, now, time)?;
            match full_at.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => before = other,
            }
        }
    }

    /// How long a call of this cost would have to wait.
    #[cold]
    pub(super) fn look(&self, cost: u64) -> Refused {
        if cost > self.limit() {
            return None;
        }
        let now = time::now().as_nanos();
        let time = self.rate.time_of(cost);
        let looked = match &self.used {
            Used::Bucket(full_at) => {
                token_bucket::take(&self.rate, full_at.load(Ordering::Relaxed), now, time).map(|_| ())
            }
            Used::Log(log) => log.lock().look(&self.rate, now, cost).map(|_| ()),
            Used::Counter(counter) => counter.lock().look(&self.rate, now, cost),
        };
        Some(looked.err().unwrap_or(0))
    }

    /// Whether not even one unit is left.
    pub(super) fn is_used_up(&self) -> bool {
        self.remaining(time::now().as_nanos()) == 0
    }

    /// What a call of this cost is told. `refused` is what it was refused for.
    pub(super) fn decision(&self, refused: Option<Refused>) -> Decision {
        let now = time::now().as_nanos();
        Decision {
            policy: self.events.name(),
            limit: self.limit(),
            period: self.period(),
            remaining: self.remaining(now),
            retry_after: refused.flatten().map(Duration::from_nanos),
            reset_after: Duration::from_nanos(self.full_in(now)),
            allowed: refused.is_none(),
        }
    }

    /// The refusal of a call.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse(&self, refused: Refused) -> Rejected {
        let rejected = match refused {
            Some(wait) => {
                Rejected::new(self.events.name(), Reason::RateLimited).with_retry_after(Duration::from_nanos(wait))
            }
            None => Rejected::new(self.events.name(), Reason::CostTooHigh),
        };
        self.events.emit(|| EventKind::Rejected { rejected: &rejected, shadow: false });
        rejected
    }

    const fn limit(&self) -> u64 {
        match self.used {
            Used::Bucket(_) => self.rate.burst,
            Used::Log(_) | Used::Counter(_) => self.rate.units,
        }
    }

    /// How long the units of the limit take to come.
    fn period(&self) -> Duration {
        let exact = u128::from(self.rate.period) * u128::from(self.limit()) / u128::from(self.rate.units);
        Duration::from_nanos(u64::try_from(exact).unwrap_or(u64::MAX))
    }

    fn remaining(&self, now: u64) -> u64 {
        match &self.used {
            Used::Bucket(full_at) => token_bucket::remaining(&self.rate, full_at.load(Ordering::Relaxed), now),
            Used::Log(log) => {
                let mut log = log.lock();
                log.slide(&self.rate, now);
                self.rate.units - log.used()
            }
            Used::Counter(counter) => {
                let mut counter = counter.lock();
                let since = counter.slide(&self.rate, now);
                self.rate.units.saturating_sub(counter.used(&self.rate, since))
            }
        }
    }

    fn full_in(&self, now: u64) -> u64 {
        match &self.used {
            Used::Bucket(full_at) => token_bucket::owed(&self.rate, full_at.load(Ordering::Relaxed), now),
            Used::Log(log) => log.lock().empty_at(&self.rate).map_or(0, |at| at.saturating_sub(now)),
            Used::Counter(counter) => counter.lock().empty_at(&self.rate).saturating_sub(now),
        }
    }
}
