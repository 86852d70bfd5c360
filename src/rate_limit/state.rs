//! What clones share: what has been used of the limits, who waits, and who listens.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    bucket::{Bucket, Reserved},
    counter::Counter,
    decision::Decisions,
    ledger::{Crossed, Ledger, NEVER, Refused},
    line::{Gate, Line},
    policy::{Algorithm, Limit, RateLimitSettings, UNKNOWN},
    quota::Quota,
};
use crate::{
    error::{ConfigError, Reason, Rejected},
    event::{EventKind, Events, Pattern},
    shared::Shared,
    sync::Mutex,
    time::{self, Instant},
};

#[derive(Debug)]
pub(super) struct Limiter {
    used: Used,
    near: Option<f64>,
    shadow: AtomicBool,
    pub(super) max_wait: Duration,
    pub(super) line: Line,
    /// Those of all keys of a layer, where there are many.
    pub(super) events: Arc<Events>,
}

#[derive(Debug)]
enum Used {
    /// What most limiters are: one bucket, and no lock.
    Bucket(Bucket),
    /// One counter, and no lock.
    Counter(Counter),
    Ledger(Mutex<Book>),
}

#[derive(Debug)]
struct Book {
    limits: Vec<Limit>,
    ledger: Ledger,
}

impl Limiter {
    pub(super) fn share(settings: RateLimitSettings) -> Result<Shared<Self>, ConfigError> {
        let events = Events::named(Pattern::RateLimit, settings.own_name());
        Self::new(settings, Arc::new(events)).map(Shared::new)
    }

    pub(super) fn new(settings: RateLimitSettings, events: Arc<Events>) -> Result<Self, ConfigError> {
        let limits = settings.check()?;
        let used = match &*limits {
            [limit] if limit.algorithm == Algorithm::TokenBucket => Used::Bucket(Bucket::new(limit)),
            [limit] if limit.algorithm == Algorithm::SlidingCounter => Used::Counter(Counter::new(limit)),
            _ => Used::Ledger(Mutex::new(Book { ledger: Ledger::new(&limits), limits })),
        };
        Ok(Self {
            used,
            near: settings.near_limit,
            shadow: AtomicBool::new(settings.shadow),
            max_wait: settings.max_wait,
            line: Line::new(settings.max_waiters),
            events,
        })
    }

    /// Lets a call of this cost pass, or says how long it would have to wait.
    #[inline(always)]
    pub(super) fn take(&self, cost: u64) -> Result<(), Refused> {
        self.take_at(time::now_noted(), cost)
    }

    #[inline(always)]
    pub(super) fn take_at(&self, now: Instant, cost: u64) -> Result<(), Refused> {
        if self.near.is_none() {
            match &self.used {
                Used::Bucket(bucket) => {
                    if let Some(taken) = bucket.take_at_once(now.as_nanos(), cost) {
                        return taken;
                    }
                }
                Used::Counter(counter) if counter.pass(now.as_nanos(), cost) => return Ok(()),
                Used::Counter(_) | Used::Ledger(_) => {}
            }
        }
        self.take_slowly(now, cost)
    }

    #[inline(never)]
    fn take_slowly(&self, now: Instant, cost: u64) -> Result<(), Refused> {
        let now = now.as_nanos();
        let crossed = match &self.used {
            Used::Bucket(bucket) => bucket.take(now, cost, self.near)?,
            Used::Counter(counter) => counter.take(now, cost, self.near)?,
            Used::Ledger(book) => book.lock().take(now, cost, self.near)?,
        };
        if crossed != 0 {
            self.tell_near_limit(now, crossed);
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn tell_near_limit(&self, now: u64, crossed: Crossed) {
        if !self.events.is_heard() {
            return;
        }
        let decisions = self.decisions_at(now, 0);
        for (_, decision) in decisions.iter().enumerate().filter(|(index, _)| crossed & (1 << index) != 0) {
            self.events.emit(|| EventKind::NearLimit {
                limit_name: decision.policy,
                used: decision.limit - decision.remaining,
                limit: decision.limit,
            });
        }
    }

    /// How long so many units would have to wait.
    pub(super) fn look_at(&self, now: Instant, units: u64) -> Refused {
        let now = now.as_nanos();
        match &self.used {
            Used::Bucket(bucket) => Refused { wait: bucket.look(now, units), limit: 0 },
            Used::Counter(counter) => Refused { wait: counter.look(now, units), limit: 0 },
            Used::Ledger(book) => book.lock().with(|limits, ledger| ledger.look(limits, now, units)),
        }
    }

    /// Whether a call of this cost would pass, or how long it would have to wait.
    pub(super) fn would_at(&self, now: Instant, cost: u64) -> Refused {
        match &self.used {
            Used::Bucket(bucket) if cost > bucket.burst() => Refused { wait: NEVER, limit: 0 },
            Used::Counter(counter) if cost > counter.units() => Refused { wait: NEVER, limit: 0 },
            Used::Bucket(_) | Used::Counter(_) => self.look_at(now, cost),
            Used::Ledger(book) => book.lock().with(|limits, ledger| ledger.would(limits, now.as_nanos(), cost)),
        }
    }

    /// How long a call of this cost would have to wait.
    #[cold]
    pub(super) fn look(&self, cost: u64) -> Refused {
        let decision = self.decisions(cost).tightest();
        let wait = match decision.retry_after {
            Some(wait) => time::nanos(wait),
            None if decision.allowed => 0,
            None => NEVER,
        };
        Refused { wait, limit: self.index_of(decision.policy) }
    }

    fn index_of(&self, name: &str) -> usize {
        match &self.used {
            Used::Bucket(_) | Used::Counter(_) => 0,
            Used::Ledger(book) => book.lock().limits.iter().position(|limit| limit.name == name).unwrap_or(0),
        }
    }

    /// Whether not even one unit is left.
    pub(super) fn is_used_up(&self) -> bool {
        self.look_at(time::now(), 1).wait > 0
    }

    /// What a call of this cost would be told.
    pub(super) fn decisions(&self, cost: u64) -> Decisions {
        self.decisions_at(time::now().as_nanos(), cost)
    }

    fn decisions_at(&self, now: u64, cost: u64) -> Decisions {
        match &self.used {
            Used::Bucket(bucket) => Decisions::new(bucket.decision(now, cost), []),
            Used::Counter(counter) => Decisions::new(counter.decision(now, cost), []),
            Used::Ledger(book) => book.lock().with(|limits, ledger| ledger.decisions(limits, now, cost)),
        }
    }

    /// The refusal of a call, and its report. In shadow mode it passes.
    ///
    /// Who floods is refused at every call, so where nobody listens that costs no call of its own.
    #[inline]
    pub(super) fn refuse(&self, refused: Refused) -> Result<(), Rejected> {
        if self.events.is_heard() || self.is_shadow() { self.report(refused) } else { Err(self.rejected(refused)) }
    }

    #[cold]
    #[inline(never)]
    fn report(&self, refused: Refused) -> Result<(), Rejected> {
        let rejected = self.rejected(refused);
        let shadow = self.is_shadow();
        self.events.emit(|| EventKind::Rejected { rejected: &rejected, shadow });
        if shadow { Ok(()) } else { Err(rejected) }
    }

    /// The refusal of a call for which the inner service is not ready, also in shadow mode.
    #[cold]
    pub(super) fn refuse_unready(&self, refused: Refused) -> Rejected {
        self.refuse(refused).err().unwrap_or_else(|| self.rejected(refused))
    }

    /// What a call is told that would have to wait too long in line.
    #[cold]
    pub(super) fn refusal(&self, wait: u64, cost: u64) -> Refused {
        Refused { wait, ..self.look(cost) }
    }

    #[inline]
    pub(super) fn rejected(&self, refused: Refused) -> Rejected {
        let name = match &self.used {
            Used::Bucket(bucket) => bucket.name(),
            Used::Counter(counter) => counter.name(),
            Used::Ledger(book) => self.name_in(book, refused.limit),
        };
        rejected(name, refused)
    }

    #[cold]
    fn name_in(&self, book: &Mutex<Book>, limit: usize) -> &'static str {
        book.lock().limits.get(limit).map_or(self.events.name(), |limit| limit.name)
    }

    pub(super) fn is_shadow(&self) -> bool {
        self.shadow.load(Ordering::Relaxed)
    }

    pub(super) fn set_shadow(&self, shadow: bool) {
        self.shadow.store(shadow, Ordering::Relaxed);
    }

    /// Takes what was used already, whether it is there or not.
    pub(super) fn charge_at(&self, now: Instant, units: u64) {
        let now = now.as_nanos();
        match &self.used {
            Used::Bucket(bucket) => bucket.charge(now, units),
            Used::Counter(counter) => counter.charge(now, units),
            Used::Ledger(book) => book.lock().with(|limits, ledger| ledger.charge(limits, now, units)),
        }
    }

    /// Gives back what was taken at a time.
    pub(super) fn refund_at(&self, now: Instant, units: u64, taken_at: Instant) {
        let now = now.as_nanos();
        match &self.used {
            Used::Bucket(bucket) => bucket.refund(now, units),
            Used::Counter(counter) => counter.refund(now, units, taken_at.as_nanos()),
            Used::Ledger(book) => {
                book.lock().with(|limits, ledger| ledger.refund(limits, now, units, taken_at.as_nanos()));
            }
        }
    }

    pub(super) fn drain_at(&self, now: Instant) {
        let now = now.as_nanos();
        match &self.used {
            Used::Bucket(bucket) => bucket.drain(now),
            Used::Counter(counter) => counter.drain(now),
            Used::Ledger(book) => book.lock().with(|limits, ledger| ledger.drain(limits, now)),
        }
    }

    pub(super) fn pause_at(&self, now: Instant, wait: Duration) {
        let (now, wait) = (now.as_nanos(), time::nanos(wait));
        match &self.used {
            Used::Bucket(bucket) => bucket.pause(now, wait),
            Used::Counter(counter) => counter.pause(now, wait),
            Used::Ledger(book) => book.lock().with(|limits, ledger| ledger.pause(limits, now, wait)),
        }
    }

    pub(super) fn refill(&self) {
        match &self.used {
            Used::Bucket(bucket) => bucket.refill(),
            Used::Counter(counter) => counter.refill(),
            Used::Ledger(book) => {
                let mut book = book.lock();
                let full = Ledger::new(&book.limits);
                book.ledger = full;
            }
        }
    }

    pub(super) fn set_quota(&self, name: Option<&str>, quota: Quota) -> Result<(), ConfigError> {
        match &self.used {
            Used::Bucket(bucket) => {
                if name.is_some_and(|name| name != bucket.name()) {
                    return Err(UNKNOWN);
                }
                bucket.set_rate(time::now().as_nanos(), Algorithm::TokenBucket.check(quota)?);
            }
            Used::Counter(counter) => {
                if name.is_some_and(|name| name != counter.name()) {
                    return Err(UNKNOWN);
                }
                counter.set_rate(Algorithm::SlidingCounter.check(quota)?);
            }
            Used::Ledger(book) => {
                let mut book = book.lock();
                let limit = match name {
                    None => book.limits.first_mut(),
                    Some(name) => book.limits.iter_mut().find(|limit| limit.name == name),
                };
                let limit = limit.ok_or(UNKNOWN)?;
                limit.rate = limit.algorithm.check(quota)?;
                book.with(|limits, ledger| ledger.requote(limits, time::now().as_nanos()));
            }
        }
        Ok(())
    }

    /// Books units ahead of time, where that can be done.
    pub(super) fn reserve_at(&self, now: Instant, cost: u64) -> Result<Option<Reserved>, Refused> {
        match &self.used {
            Used::Bucket(bucket) => bucket.reserve(now.as_nanos(), cost).map(Some),
            Used::Counter(_) | Used::Ledger(_) => self.take_at(now, cost).map(|()| None),
        }
    }

    pub(super) fn unreserve_at(&self, now: Instant, reserved: Reserved) {
        if let Used::Bucket(bucket) = &self.used {
            bucket.unreserve(now.as_nanos(), reserved);
        }
    }

    /// Whether it is as a new one, and nobody waits.
    pub(super) fn is_idle(&self) -> bool {
        let now = time::now().as_nanos();
        self.line.is_empty()
            && match &self.used {
                Used::Bucket(bucket) => bucket.decision(now, 0).reset_after.is_zero(),
                Used::Counter(counter) => counter.decision(now, 0).reset_after.is_zero(),
                Used::Ledger(book) => book.lock().with(|limits, ledger| ledger.is_full(limits, now)),
            }
    }
}

impl Gate for Limiter {
    fn line(&self) -> &Line {
        &self.line
    }

    fn waited(&self, since: Instant) {
        self.events.waited(|| time::now().saturating_since(since));
    }

    fn take(&self, now: Instant, cost: u64) -> Result<(), u64> {
        self.take_at(now, cost).map_err(|refused| refused.wait)
    }

    fn fits(&self, cost: u64) -> bool {
        match &self.used {
            Used::Bucket(bucket) => cost <= bucket.burst(),
            Used::Counter(counter) => cost <= counter.units(),
            Used::Ledger(book) => book.lock().limits.iter().all(|limit| cost <= limit.size()),
        }
    }

    fn lets_all_pass(&self) -> bool {
        self.is_shadow()
    }

    fn ahead(&self, now: Instant, units: u64) -> u64 {
        self.look_at(now, units).wait
    }

    fn give_back(&self, now: Instant, cost: u64, taken_at: Instant) {
        self.refund_at(now, cost, taken_at);
    }
}

impl Book {
    fn take(&mut self, now: u64, cost: u64, near: Option<f64>) -> Result<Crossed, Refused> {
        self.ledger.take(&self.limits, now, cost, near)
    }

    fn with<T>(&mut self, change: impl FnOnce(&[Limit], &mut Ledger) -> T) -> T {
        change(&self.limits, &mut self.ledger)
    }
}

#[inline]
pub(super) fn rejected(name: &'static str, refused: Refused) -> Rejected {
    if refused.wait == NEVER {
        Rejected::new(name, Reason::CostTooHigh)
    } else {
        Rejected::new(name, Reason::RateLimited).with_retry_after_nanos(refused.wait)
    }
}
