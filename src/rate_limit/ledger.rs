//! What has been used of several limits that count in any way, all or nothing.

use super::{
    decision::{Decision, Decisions},
    policy::{Algorithm, Limit},
    quota::{LONGEST, Rate, STEP},
    sliding_counter::SlidingCounter,
    sliding_log::SlidingLog,
    token_bucket,
};
use std::time::Duration;

/// What has been used of each limit. The limits are given to each call, because the ledgers of all keys have the same.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    spent: Box<[Spent]>,
    /// Since when, and until when, nothing passes.
    paused: Option<(u64, u64)>,
}

#[derive(Clone, Debug)]
enum Spent {
    Bucket { full_at: u64, horizon: u64 },
    Log(SlidingLog),
    Counter(SlidingCounter),
}

/// Why a call does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// How long it would have to wait, or [`NEVER`].
    pub(super) wait: u64,
    /// Which limit refuses it.
    pub(super) limit: usize,
}

/// A call that costs more than there ever is.
pub(super) const NEVER: u64 = u64::MAX;

/// A call that passes, and the limits that it takes past the ratio of which a report is wanted, as bits.
pub(super) type Crossed = u8;

impl Refused {
    /// How long to wait, unless no wait helps.
    pub(super) fn wait(self) -> Option<Duration> {
        (self.wait != NEVER).then(|| Duration::from_nanos(self.wait))
    }
}

impl Ledger {
    pub(super) fn new(limits: &[Limit]) -> Self {
        let spent = |limit: &Limit| match limit.algorithm {
            Algorithm::TokenBucket => Spent::Bucket { full_at: 0, horizon: 0 },
            Algorithm::SlidingLog => Spent::Log(SlidingLog::default()),
            Algorithm::SlidingCounter => Spent::Counter(SlidingCounter::default()),
        };
        Self { spent: limits.iter().map(spent).collect(), paused: None }
    }

    /// Takes the cost of every limit, or of none.
    pub(super) fn take(
        &mut self,
        limits: &[Limit],
        now: u64,
        cost: u64,
        near: Option<f64>,
    ) -> Result<Crossed, Refused> {
        let refused = self.would(limits, now, cost);
        if refused.wait > 0 {
            return Err(refused);
        }
        let mut crossed = 0;
        for (index, (limit, spent)) in limits.iter().zip(&mut self.spent).enumerate() {
            let before = near.map(|_| spent.remaining(&limit.rate, now));
            spent.take(&limit.rate, now, cost);
            if let (Some(ratio), Some(before)) = (near, before)
                && is_crossed(ratio, limit.size(), before, spent.remaining(&limit.rate, now))
            {
                crossed |= 1 << index;
            }
        }
        Ok(crossed)
    }

    /// Whether a call of this cost would pass, or how long it would have to wait.
    pub(super) fn would(&mut self, limits: &[Limit], now: u64, cost: u64) -> Refused {
        match limits.iter().position(|limit| cost > limit.size()) {
            Some(limit) => Refused { wait: NEVER, limit },
            None => self.look(limits, now, cost),
        }
    }

    /// How long so many units would have to wait, and for which limit. More than there ever are at once come after one another.
    pub(super) fn look(&mut self, limits: &[Limit], now: u64, units: u64) -> Refused {
        let pause = self.pause_left(now);
        let mut longest = Refused { wait: pause, limit: 0 };
        for (index, (limit, spent)) in limits.iter().zip(&mut self.spent).enumerate() {
            let wait = spent.look(&limit.rate, now, units, pause);
            if wait > longest.wait {
                longest = Refused { wait, limit: index };
            }
        }
        longest
    }

    /// What each limit says to a call of this cost, without taking it.
    pub(super) fn decisions(&mut self, limits: &[Limit], now: u64, cost: u64) -> Decisions {
        let pause = self.pause_left(now);
        let mut all = limits.iter().zip(&mut self.spent).map(|(limit, spent)| {
            let wait = if cost > limit.size() { NEVER } else { spent.look(&limit.rate, now, cost, pause) };
            limit.decision(wait, spent.remaining(&limit.rate, now), spent.full_in(&limit.rate, now).max(pause))
        });
        let first = all.next().unwrap_or_else(|| unreachable!("a limiter has a limit"));
        Decisions::new(first, all)
    }

    /// Takes what was used already, whether it is there or not.
    pub(super) fn charge(&mut self, limits: &[Limit], now: u64, units: u64) {
        for (limit, spent) in limits.iter().zip(&mut self.spent) {
            let rate = &limit.rate;
            match spent {
                Spent::Bucket { .. } => {
                    spent.put_ahead(rate, now, |full_at| token_bucket::charged(full_at, now, rate.time_of_any(units)));
                }
                Spent::Log(log) => log.charge(&limit.rate, now, units),
                Spent::Counter(counter) => counter.charge(&limit.rate, now, units),
            }
        }
    }

    /// Gives back what was taken at a time, where it still counts.
    pub(super) fn refund(&mut self, limits: &[Limit], now: u64, units: u64, taken_at: u64) {
        for (limit, spent) in limits.iter().zip(&mut self.spent) {
            spent.rebase(&limit.rate, now);
            match spent {
                Spent::Bucket { full_at, .. } => *full_at = full_at.saturating_sub(limit.rate.time_of_any(units)),
                Spent::Log(log) => {
                    log.slide(&limit.rate, now);
                    if taken_at.saturating_add(limit.rate.period) > now {
                        log.refund(units);
                    }
                }
                Spent::Counter(counter) => counter.refund_of(&limit.rate, now, units, taken_at),
            }
        }
    }

    /// Leaves nothing of any limit.
    pub(super) fn drain(&mut self, limits: &[Limit], now: u64) {
        for (limit, spent) in limits.iter().zip(&mut self.spent) {
            spent.rebase(&limit.rate, now);
            let left = spent.remaining(&limit.rate, now);
            match spent {
                Spent::Bucket { full_at, .. } => *full_at = token_bucket::drained(&limit.rate, *full_at, now),
                Spent::Log(_) if left == 0 => (),
                Spent::Log(log) => log.charge(&limit.rate, now, left),
                Spent::Counter(counter) => counter.charge(&limit.rate, now, left),
            }
        }
    }

    /// Lets nothing pass for so long.
    pub(super) fn pause(&mut self, limits: &[Limit], now: u64, wait: u64) {
        let until = now.saturating_add(wait.min(LONGEST));
        // One of a clock that was put back is over.
        self.pause_left(now);
        if self.paused.is_none_or(|(_, earlier)| until > earlier) {
            self.paused = Some((now, until));
        }
        for (limit, spent) in limits.iter().zip(&mut self.spent) {
            spent.put_ahead(&limit.rate, now, |full_at| token_bucket::paused(&limit.rate, full_at, now, wait));
        }
    }

    /// Brings buckets forward whose quota has changed.
    pub(super) fn requote(&mut self, limits: &[Limit], now: u64) {
        for (limit, spent) in limits.iter().zip(&mut self.spent) {
            if let Spent::Bucket { full_at, horizon } = spent {
                *full_at = token_bucket::requoted(&limit.rate, *full_at, now, *full_at <= *horizon);
            }
        }
    }

    /// Whether it is as a new one.
    pub(super) fn is_full(&mut self, limits: &[Limit], now: u64) -> bool {
        let pause = self.pause_left(now);
        pause == 0 && limits.iter().zip(&mut self.spent).all(|(limit, spent)| spent.full_in(&limit.rate, now) == 0)
    }

    /// A clock that was put back ends a pause.
    fn pause_left(&mut self, now: u64) -> u64 {
        match self.paused {
            Some((since, until)) if now < until && since.saturating_sub(now) <= STEP => until - now,
            Some(_) => {
                self.paused = None;
                0
            }
            None => 0,
        }
    }
}

impl Spent {
    fn take(&mut self, rate: &Rate, now: u64, cost: u64) {
        match self {
            Self::Bucket { full_at, .. } => *full_at = token_bucket::charged(*full_at, now, rate.time_of(cost)),
            // There is room: it has been looked for.
            Self::Log(log) => drop(log.take(rate, now, cost)),
            Self::Counter(counter) => drop(counter.take(rate, now, cost)),
        }
    }

    /// How long so many units have to wait, with a pause that is on.
    fn look(&mut self, rate: &Rate, now: u64, units: u64, pause: u64) -> u64 {
        self.rebase(rate, now);
        let (units_in_one, further) = in_one_window(rate, units);
        let wait = match self {
            Self::Bucket { full_at, .. } => return ahead(rate, *full_at, now, units).max(pause),
            Self::Log(log) => log.look(rate, now, units_in_one).err(),
            Self::Counter(counter) => counter.look(rate, now, units_in_one).err(),
        };
        wait.unwrap_or(0).max(pause).saturating_add(further)
    }

    /// A bucket whose clock was put back, before anything is done with it. Windows see that for themselves.
    fn rebase(&mut self, rate: &Rate, now: u64) {
        if let Self::Bucket { full_at, horizon } = self
            && let Some(rebased) = token_bucket::rebased(rate.whole, *full_at, now, || *horizon)
        {
            *full_at = rebased;
        }
    }

    /// Moves a bucket further ahead of the clock than a burst, if need be.
    fn put_ahead(&mut self, rate: &Rate, now: u64, to: impl FnOnce(u64) -> u64) {
        self.rebase(rate, now);
        if let Self::Bucket { full_at, horizon } = self {
            *full_at = to(*full_at);
            if token_bucket::owed(*full_at, now) > rate.whole {
                *horizon = (*horizon).max(*full_at);
            }
        }
    }

    fn remaining(&mut self, rate: &Rate, now: u64) -> u64 {
        match self {
            Self::Bucket { full_at, .. } => token_bucket::remaining(rate, *full_at, now),
            Self::Log(log) => {
                log.slide(rate, now);
                rate.units.saturating_sub(log.used())
            }
            Self::Counter(counter) => {
                let since = counter.slide(rate, now);
                rate.units.saturating_sub(counter.used(rate, since))
            }
        }
    }

    fn full_in(&mut self, rate: &Rate, now: u64) -> u64 {
        match self {
            Self::Bucket { full_at, .. } => token_bucket::owed(*full_at, now),
            Self::Log(log) => {
                let now = log.slide(rate, now);
                log.empty_at(rate).map_or(0, |at| at.saturating_sub(now))
            }
            Self::Counter(counter) => counter.full_in(rate, now),
        }
    }
}

/// What does not fit into one window comes in the next ones: so many units in the last, and how much later that is.
#[inline]
pub(super) const fn in_one_window(rate: &Rate, units: u64) -> (u64, u64) {
    if units <= rate.units {
        return (units, 0);
    }
    let windows = (units - 1) / rate.units;
    (units - windows * rate.units, windows.saturating_mul(rate.period))
}

/// How long so many units of a bucket have to wait, which may be more than it ever holds.
pub(super) fn ahead(rate: &Rate, full_at: u64, now: u64, units: u64) -> u64 {
    let time = if units <= rate.burst { rate.time_of(units) } else { rate.time_of_any(units) };
    token_bucket::owed(full_at, now).saturating_add(time).saturating_sub(rate.whole)
}

/// Whether so much is used after a call, and was not before.
pub(super) fn is_crossed(ratio: f64, size: u64, before: u64, after: u64) -> bool {
    let (from, used) = (size as f64 * ratio, |left| size.saturating_sub(left) as f64);
    used(before) < from && used(after) >= from
}

impl Limit {
    /// How many units there are at most at once.
    pub(super) const fn size(&self) -> u64 {
        match self.algorithm {
            Algorithm::TokenBucket => self.rate.burst,
            Algorithm::SlidingLog | Algorithm::SlidingCounter => self.rate.units,
        }
    }

    pub(super) fn decision(&self, wait: u64, remaining: u64, full_in: u64) -> Decision {
        Decision {
            policy: self.name,
            limit: self.size(),
            period: Duration::from_nanos(match self.algorithm {
                Algorithm::TokenBucket => self.rate.whole,
                Algorithm::SlidingLog | Algorithm::SlidingCounter => self.rate.period,
            }),
            remaining,
            retry_after: (wait != 0 && wait != NEVER).then(|| Duration::from_nanos(wait)),
            reset_after: Duration::from_nanos(full_in),
            allowed: wait == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::{policy::RateLimitSettings, quota::Quota};
    use proptest::prelude::*;

    const START: u64 = 1 << 62;

    fn limits(units: u64, period: u64) -> Vec<Limit> {
        let quota = |units| Quota::new(units, Duration::from_nanos(period));
        let bucket = RateLimitSettings::token_bucket(quota(units).burst(2 * units));
        let log = RateLimitSettings::sliding_log(quota(3 * units));
        bucket.and(log).and(RateLimitSettings::sliding_counter(quota(2 * units))).check().unwrap()
    }

    fn left(ledger: &mut Ledger, limits: &[Limit], now: u64) -> Vec<u64> {
        ledger.decisions(limits, now, 0).iter().map(|limit| limit.remaining).collect()
    }

    /// Whoever comes first after the clock was put back: nobody waits for it.
    #[test]
    fn nothing_that_is_done_to_a_ledger_takes_a_clock_that_was_put_back_for_a_debt() {
        const LATER: u64 = START + 1_000_000 * STEP;
        let limits = limits(5, STEP);
        let wait_after = |change: fn(&mut Ledger, &[Limit])| {
            let mut ledger = Ledger::new(&limits);
            ledger.take(&limits, LATER, 5, None).unwrap();
            // What fits a burst is no debt either.
            ledger.charge(&limits, LATER, 1);
            change(&mut ledger, &limits);
            ledger.look(&limits, START, 1).wait
        };
        assert!(wait_after(|ledger, limits| ledger.charge(limits, START, 1)) <= 2 * STEP);
        assert!(wait_after(|ledger, limits| ledger.refund(limits, START, 1, LATER)) <= STEP);
        assert!(wait_after(|ledger, limits| ledger.drain(limits, START)) <= 2 * STEP);
        assert_eq!(wait_after(|ledger, limits| ledger.pause(limits, START, 100 * STEP)), 100 * STEP);

        let limits = RateLimitSettings::sliding_log(Quota::per_second(5)).check().unwrap();
        let mut ledger = Ledger::new(&limits);
        ledger.pause(&limits, LATER, STEP);
        ledger.pause(&limits, START, 100 * STEP);
        assert_eq!(ledger.look(&limits, START, 1).wait, 100 * STEP, "the pause of then is over");
    }

    proptest! {
        /// All or nothing; the wait is exact; what is taken and given back at once changes nothing.
        #[test]
        fn a_call_takes_of_all_limits_or_of_none(
            units in 1_u64..20, each in 3_u64..60, steps in proptest::collection::vec((0_u64..300, 0_u64..8, 0_u8..4), 1..200),
        ) {
            // Whole nanoseconds, so that there is no rounding.
            let limits = limits(units, units * each);
            let (mut ledger, mut now) = (Ledger::new(&limits), START);
            for (wait, cost, then) in steps {
                now += wait;
                let before = left(&mut ledger, &limits, now);
                let smallest = limits.iter().map(Limit::size).min().unwrap();
                match ledger.clone().take(&limits, now, cost, None) {
                    Ok(_) => {
                        prop_assert!(cost <= smallest);
                        ledger.take(&limits, now, cost, None).unwrap();
                        for (before, after) in before.iter().zip(left(&mut ledger, &limits, now)) {
                            prop_assert_eq!(before - after, cost);
                        }
                        if then == 0 {
                            ledger.refund(&limits, now, cost, now);
                            prop_assert_eq!(&left(&mut ledger, &limits, now), &before);
                        }
                    }
                    Err(refused) if cost > smallest => prop_assert_eq!(refused.wait, NEVER),
                    Err(refused) => {
                        prop_assert_eq!(&left(&mut ledger, &limits, now), &before);
                        prop_assert!(ledger.clone().take(&limits, now + refused.wait, cost, None).is_ok());
                        prop_assert!(ledger.clone().take(&limits, now + refused.wait - 1, cost, None).is_err());
                    }
                }
                prop_assert_eq!(ledger.is_full(&limits, now), left(&mut ledger, &limits, now) == left(&mut Ledger::new(&limits), &limits, now)
                    && ledger.decisions(&limits, now, 0).iter().all(|limit| limit.reset_after.is_zero()));
            }
        }

        /// What is refunded in a window after it has left it gives nobody more than there is.
        #[test]
        fn a_log_with_refunds_never_counts_less_than_what_was_used(
            units in 1_u64..10, steps in proptest::collection::vec((0_u64..100, 0_u8..4), 1..200),
        ) {
            let limits = RateLimitSettings::sliding_log(Quota::new(units, Duration::from_nanos(100))).check().unwrap();
            let (mut ledger, mut now, mut used, mut held) = (Ledger::new(&limits), START, Vec::new(), Vec::new());
            for (wait, what) in steps {
                now += wait;
                match (what, held.pop()) {
                    // A unit that was held is given back, however late.
                    (0, Some(taken_at)) => ledger.refund(&limits, now, 1, taken_at),
                    (1, Some(taken_at)) => used.push(taken_at),
                    (_, popped) => {
                        held.extend(popped);
                        if ledger.take(&limits, now, 1, None).is_ok() {
                            held.insert(0, now);
                        }
                    }
                }
                let in_window = used.iter().filter(|at| **at + 100 > now).count() as u64;
                prop_assert!(in_window <= units);
            }
        }
    }
}
