//! One sliding counter in one atomic integer.

use super::{
    bucket::SharedRate,
    decision::Decision,
    ledger::{Crossed, NEVER, Refused, in_one_window, is_crossed},
    policy::{Algorithm, LARGEST_COUNT, Limit},
    quota::{LONGEST, Rate, STEP},
    sliding_counter::SlidingCounter,
};
use crate::sync::{AtomicU64, Ordering};

/// The counts of both windows in one word, with the number of the present one: whoever goes on to the next window says first when that began, in the
/// place that the number will choose, and then changes the word.
///
/// Threads whose readings of the clock are a window apart may both say when it began. Then calls count as if they had come a window later, never as
/// fewer than they are.
#[derive(Debug)]
pub(super) struct Counter {
    name: &'static str,
    rate: SharedRate,
    word: AtomicU64,
    began: [AtomicU64; 2],
    paused_since: AtomicU64,
    paused_until: AtomicU64,
}

/// Of the word: 24 bits are the count of the present window, 24 that of the one before, and 16 the number.
const BITS: u32 = 24;

#[derive(Clone, Copy)]
struct Seen {
    word: u64,
    number: u64,
    counter: SlidingCounter,
}

impl Counter {
    pub(super) fn new(limit: &Limit) -> Self {
        Self {
            name: limit.name,
            rate: SharedRate::new(limit.rate),
            word: AtomicU64::new(0),
            began: [AtomicU64::new(0), AtomicU64::new(0)],
            paused_since: AtomicU64::new(0),
            paused_until: AtomicU64::new(0),
        }
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn units(&self) -> u64 {
        self.rate.get().units
    }

    pub(super) fn set_rate(&self, rate: Rate) {
        self.rate.set(rate);
    }

    /// Lets a call pass, if that can be said at the first attempt, which nearly always it can. What keeps it from that is for [`take`](Self::take) to
    /// find out.
    #[inline(always)]
    pub(super) fn pass(&self, now: u64, cost: u64) -> bool {
        let read = |field: &AtomicU64| field.load(Ordering::Relaxed);
        let (units, period) = (read(&self.rate.units), read(&self.rate.period));
        if now < read(&self.paused_until) {
            return false;
        }
        let Seen { word, counter, .. } = self.see();
        // In place: all that is in a window is no more than the units, and these are no more than a count may be.
        counter.fits_at_once(units, period, now, cost)
            && self.word.compare_exchange_weak(word, word + cost, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    #[inline]
    pub(super) fn take(&self, now: u64, cost: u64, near: Option<f64>) -> Result<Crossed, Refused> {
        let rate = self.rate.get();
        if cost > rate.units {
            return Err(Refused { wait: NEVER, limit: 0 });
        }
        if now < self.paused_until.load(Ordering::Relaxed) {
            let wait = self.look(now, cost);
            if wait > 0 {
                return Err(Refused { wait, limit: 0 });
            }
        }
        let taken = self.change(|counter| {
            counter.slide(&rate, now);
            let before = *counter;
            counter.take(&rate, now, cost).map(|()| before)
        });
        match (taken, near) {
            (Ok(_), None) => Ok(0),
            (Ok((before, after)), Some(ratio)) => Ok(Self::crossed(&rate, now, before, after, ratio)),
            (Err(wait), _) => Err(Refused { wait, limit: 0 }),
        }
    }

    #[cold]
    fn crossed(rate: &Rate, now: u64, before: SlidingCounter, after: SlidingCounter, ratio: f64) -> Crossed {
        u8::from(is_crossed(ratio, rate.units, left(rate, before, now), left(rate, after, now)))
    }

    pub(super) fn look(&self, now: u64, units: u64) -> u64 {
        let rate = self.rate.get();
        let (units, further) = in_one_window(&rate, units);
        let wait = self.see().counter.look(&rate, now, units).err().unwrap_or(0);
        wait.max(self.pause_left(now)).saturating_add(further)
    }

    /// A clock that was put back ends a pause.
    fn pause_left(&self, now: u64) -> u64 {
        let until = self.paused_until.load(Ordering::Acquire);
        if now >= until {
            return 0;
        }
        if self.paused_since.load(Ordering::Relaxed).saturating_sub(now) > STEP {
            let _ = self.paused_until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
            return 0;
        }
        until - now
    }

    pub(super) fn pause(&self, now: u64, wait: u64) {
        // One of a clock that was put back is over.
        self.pause_left(now);
        self.paused_since.store(now, Ordering::Relaxed);
        self.paused_until.fetch_max(now.saturating_add(wait.min(LONGEST)), Ordering::Release);
    }

    pub(super) fn decision(&self, now: u64, cost: u64) -> Decision {
        let rate = self.rate.get();
        let mut counter = self.see().counter;
        let pause = self.pause_left(now);
        let wait = if cost > rate.units { NEVER } else { counter.look(&rate, now, cost).err().unwrap_or(0).max(pause) };
        let limit = Limit { name: self.name, algorithm: Algorithm::SlidingCounter, rate };
        limit.decision(wait, left(&rate, counter, now), counter.full_in(&rate, now).max(pause))
    }

    pub(super) fn charge(&self, now: u64, units: u64) {
        let rate = self.rate.get();
        self.always(|counter| counter.charge(&rate, now, units));
    }

    pub(super) fn refund(&self, now: u64, units: u64, taken_at: u64) {
        let rate = self.rate.get();
        self.always(|counter| counter.refund_of(&rate, now, units, taken_at));
    }

    pub(super) fn drain(&self, now: u64) {
        let rate = self.rate.get();
        self.always(|counter| counter.charge(&rate, now, left(&rate, *counter, now)));
    }

    pub(super) fn refill(&self) {
        self.paused_until.store(0, Ordering::Relaxed);
        self.always(|counter| (counter.present, counter.before) = (0, 0));
    }

    fn always(&self, change: impl Fn(&mut SlidingCounter)) {
        let _ = self.change(|counter| {
            change(counter);
            Ok::<_, u64>(())
        });
    }

    /// Goes from one state to another, unless that is refused. Answers what `to` does, and the state after it.
    #[inline]
    fn change<T>(&self, to: impl Fn(&mut SlidingCounter) -> Result<T, u64>) -> Result<(T, SlidingCounter), u64> {
        loop {
            let seen = self.see();
            let mut after = seen.counter;
            let answer = to(&mut after);
            // What was seen may be the counts of one window with the beginning of a later one.
            if answer.is_err() && self.word.load(Ordering::Acquire) != seen.word {
                continue;
            }
            let answer = match answer {
                // A clock that was put back is to be remembered, or each refusal would begin the wait anew.
                Err(wait) if after.began >= seen.counter.began => return Err(wait),
                answer => answer,
            };
            let number = if after.began == seen.counter.began { seen.number } else { self.announce(seen, after.began) };
            let word =
                number << (2 * BITS) | after.before.min(LARGEST_COUNT) << BITS | after.present.min(LARGEST_COUNT);
            // Release: who sees the number sees when its window began.
            if self.word.compare_exchange_weak(seen.word, word, Ordering::Release, Ordering::Relaxed).is_ok() {
                return answer.map(|answer| (answer, after));
            }
        }
    }

    #[cold]
    fn announce(&self, seen: Seen, began: u64) -> u64 {
        let number = (seen.number + 1) & 0xFFFF;
        let places = [&self.began[(number & 1) as usize], &self.began[(seen.number & 1) as usize]];
        if began > seen.counter.began {
            // Who was held up while others went on must not take the window of today back: what counts in it would be forgotten.
            places[0].fetch_max(began, Ordering::Relaxed);
        } else {
            // The clock was put back, for the window after this one too.
            places.iter().for_each(|place| place.store(began, Ordering::Relaxed));
        }
        number
    }

    #[inline]
    fn see(&self) -> Seen {
        let word = self.word.load(Ordering::Acquire);
        let number = word >> (2 * BITS);
        let began = self.began[(number & 1) as usize].load(Ordering::Relaxed);
        let counter = SlidingCounter { began, present: word & LARGEST_COUNT, before: word >> BITS & LARGEST_COUNT };
        Seen { word, number, counter }
    }
}

fn left(rate: &Rate, mut counter: SlidingCounter, now: u64) -> u64 {
    let since = counter.slide(rate, now);
    rate.units.saturating_sub(counter.used(rate, since))
}

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;
    use crate::rate_limit::{policy::RateLimitSettings, quota::Quota};

    /// A thread that is held up between its look and its word, for windows.
    #[test]
    fn who_is_held_up_takes_no_window_back() {
        let limits = RateLimitSettings::sliding_counter(Quota::per_second(5)).check().unwrap();
        let (counter, start) = (Counter::new(&limits[0]), 1 << 62);
        let seen = counter.see();
        assert_eq!(counter.take(start + 5 * STEP, 5, None), Ok(0));
        counter.announce(seen, start);
        assert!(counter.take(start + 5 * STEP, 1, None).is_err());
    }

    /// The first refusal is remembered, so that the second is not told to wait as long again.
    #[test]
    fn a_clock_that_was_put_back_makes_nobody_wait_for_it() {
        let limits = RateLimitSettings::sliding_counter(Quota::per_second(5)).check().unwrap();
        let (counter, start) = (Counter::new(&limits[0]), 1 << 62);
        for now in [start + 100 * STEP, start + 101 * STEP] {
            let _ = counter.take(now, 1, None);
        }
        assert_eq!(counter.take(start, 5, None).map_err(|refused| refused.wait <= 2 * STEP), Err(true));
        for window in 1..10 {
            assert_eq!(counter.take(start + 2 * window * STEP, 5, None), Ok(0));
        }
    }

    #[test]
    fn a_pause_after_the_clock_was_put_back_is_as_long_as_it_says() {
        let limits = RateLimitSettings::sliding_counter(Quota::per_second(5)).check().unwrap();
        let (counter, start) = (Counter::new(&limits[0]), 1 << 62);
        counter.pause(start + 1_000_000 * STEP, STEP);
        counter.pause(start, 100 * STEP);
        assert_eq!(counter.look(start, 1), 100 * STEP);
    }
}
