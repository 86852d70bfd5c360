//! A window that slides, in two integers: what came in the present window of the clock, and a part of what came in the one before, as
//! if it had come evenly.
//!
//! Where it came evenly this is exact to a unit. Where it all came at the end of the window before, up to twice the units pass in a stretch of the
//! period's length, and never more.

use super::quota::{Rate, STEP};

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SlidingCounter {
    /// When the present window began.
    pub(super) began: u64,
    pub(super) present: u64,
    pub(super) before: u64,
}

impl SlidingCounter {
    /// Admits a call of at most all units, or says how long to wait before it would be.
    #[inline]
    pub(super) fn take(&mut self, rate: &Rate, now: u64, cost: u64) -> Result<(), u64> {
        self.look(rate, now, cost)?;
        self.present = self.present.saturating_add(cost);
        Ok(())
    }

    /// Takes what was used already, whether it is there or not.
    pub(super) fn charge(&mut self, rate: &Rate, now: u64, units: u64) {
        self.slide(rate, now);
        self.present = self.present.saturating_add(units);
    }

    /// Gives units back, those of the present window first.
    pub(super) fn refund(&mut self, units: u64) {
        let of_the_present = units.min(self.present);
        self.present -= of_the_present;
        self.before = self.before.saturating_sub(units - of_the_present);
    }

    /// Gives back what was taken at a time, where it still counts.
    pub(super) fn refund_of(&mut self, rate: &Rate, now: u64, units: u64, taken_at: u64) {
        self.slide(rate, now);
        if taken_at >= self.began {
            self.refund(units);
        } else if taken_at.saturating_add(rate.period) >= self.began {
            // Of the window in which it was taken: that counts for less by now.
            self.before = self.before.saturating_sub(units);
        }
    }

    /// How long until nothing of this counts any more.
    pub(super) fn full_in(&mut self, rate: &Rate, now: u64) -> u64 {
        let since = self.slide(rate, now);
        if self.used(rate, since) == 0 { 0 } else { self.empty_at(rate).saturating_sub(now) }
    }

    /// Whether a call fits into the present window, as most do. What does not is for [`look`](Self::look), and so is a moment that is not in this window.
    #[inline]
    pub(super) const fn fits_at_once(&self, units: u64, period: u64, now: u64, cost: u64) -> bool {
        // Of a clock that was put back it is longer than any period.
        let since = now.wrapping_sub(self.began);
        let Some(room) = units.checked_sub(cost) else { return false };
        let Some(room) = room.checked_sub(self.present) else { return false };
        since < period && product(self.before, period - since) <= product(room, period)
    }

    /// Whether a call would be admitted, or how long it would have to wait.
    #[inline]
    pub(super) fn look(&mut self, rate: &Rate, now: u64, cost: u64) -> Result<(), u64> {
        let since = self.slide(rate, now);
        let room = rate.units - cost.min(rate.units);
        match room.checked_sub(self.present) {
            // What comes of the window before fits: compared without a division, which would cost more than all the rest.
            Some(room) if product(self.before, rate.period - since) <= product(room, rate.period) => Ok(()),
            left => Err(self.wait(rate, since, room, left)),
        }
    }

    #[cold]
    #[inline(never)]
    fn wait(&self, rate: &Rate, since: u64, room: u64, left: Option<u64>) -> u64 {
        match left {
            // So much of the window before may still count, when it is admitted in this one.
            Some(left) if self.before > 0 => share(rate.period, left, self.before).saturating_sub(since),
            _ => (rate.period - since).saturating_add(share(rate.period, room, self.present)),
        }
    }

    /// Goes on to the window of `now`, and says how long it has lasted. With a clock that was put back it begins anew.
    #[inline]
    pub(super) fn slide(&mut self, rate: &Rate, now: u64) -> u64 {
        let since = now.saturating_sub(self.began);
        // A clock that is behind is looked at as one that has not moved on.
        if since < rate.period && now >= self.began { since } else { self.move_on(rate, now) }
    }

    #[cold]
    #[inline(never)]
    fn move_on(&mut self, rate: &Rate, now: u64) -> u64 {
        if self.began.saturating_sub(now) > STEP {
            self.began = now;
        }
        let since = now.saturating_sub(self.began);
        if since < rate.period {
            return since;
        }
        let into = since % rate.period;
        self.before = if since - into == rate.period { self.present } else { 0 };
        self.present = 0;
        self.began = now - into;
        into
    }

    /// What counts now, rounded up.
    pub(super) fn used(&self, rate: &Rate, since: u64) -> u64 {
        let part = product(self.before, rate.period - since);
        self.present.saturating_add(part.div_ceil(u128::from(rate.period)) as u64)
    }

    /// When nothing of this counts any more.
    pub(super) const fn empty_at(&self, rate: &Rate) -> u64 {
        if self.present > 0 {
            self.began.saturating_add(rate.period).saturating_add(rate.period)
        } else if self.before > 0 {
            self.began.saturating_add(rate.period)
        } else {
            self.began
        }
    }
}

#[inline]
const fn product(units: u64, time: u64) -> u128 {
    units as u128 * time as u128
}

/// How far into a window the one before it counts for no more than `room` of its `count`.
fn share(period: u64, room: u64, count: u64) -> u64 {
    if count == 0 {
        return 0;
    }
    let counts = u128::from(room) * u128::from(period) / u128::from(count);
    period.saturating_sub(u64::try_from(counts).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::quota::Quota;
    use proptest::prelude::*;
    use std::time::Duration;

    const START: u64 = 1 << 62;

    proptest! {
        #[test]
        fn the_wait_is_exact_and_the_error_is_bounded(
            units in 1_u64..30, period in 2_u64..1_000, steps in proptest::collection::vec((0_u64..300, 1_u64..8), 1..300),
        ) {
            let rate = Quota::new(units, Duration::from_nanos(period)).check_window().unwrap();
            let (mut counter, mut now, mut admitted) = (SlidingCounter::default(), START, Vec::new());
            for (wait, cost) in steps {
                now += wait;
                let cost = cost.min(units);
                let before = counter;
                let fits_at_once = counter.fits_at_once(units, period, now, cost);
                match counter.take(&rate, now, cost) {
                    Ok(()) => {
                        prop_assert!(fits_at_once || before.began != counter.began, "{before:?}");
                        admitted.push((now, cost));
                    }
                    Err(wait) => {
                        prop_assert!(!fits_at_once);
                        prop_assert!(wait > 0);
                        prop_assert!(before.clone().take(&rate, now + wait, cost).is_ok(), "{before:?} {wait}");
                        prop_assert!(before.clone().take(&rate, now + wait - 1, cost).is_err(), "{before:?} {wait}");
                    }
                }
                let in_window: u64 = admitted.iter().filter(|(at, _)| at + period > now).map(|(_, cost)| cost).sum();
                prop_assert!(in_window <= 2 * units);
            }
        }
    }

    #[test]
    fn even_traffic_is_counted_to_a_unit() {
        let rate = Quota::new(100, Duration::from_nanos(10_000)).check_window().unwrap();
        let mut counter = SlidingCounter::default();
        // Twice as much as is allowed, evenly.
        let admitted = (0..20_000).filter(|n| counter.take(&rate, START + n * 50, 1).is_ok()).count();
        assert!((9_900..=10_200).contains(&admitted), "{admitted}");
    }

    #[test]
    fn a_clock_that_steps_back_makes_nobody_wait_for_it() {
        let rate = Quota::new(1, Duration::from_nanos(100)).check_window().unwrap();
        let mut counter = SlidingCounter::default();
        assert_eq!(counter.take(&rate, 10 * STEP, 1), Ok(()));
        assert_eq!(counter.take(&rate, 5, 1), Err(200));
        assert_eq!(counter.take(&rate, 205, 1), Ok(()));
    }

    #[test]
    fn a_long_rest_is_forgotten_at_once() {
        let rate = Quota::new(5, Duration::from_nanos(100)).check_window().unwrap();
        let mut counter = SlidingCounter::default();
        assert!((0..5).all(|_| counter.take(&rate, START, 1).is_ok()));
        assert!(counter.take(&rate, START, 1).is_err());
        assert!((0..5).all(|_| counter.take(&rate, START + 10_u64.pow(17), 1).is_ok()));
    }

    /// What hardly counted any more makes no room for a whole unit.
    #[test]
    fn a_late_refund_gives_back_what_it_counts_for() {
        let rate = Quota::new(10, Duration::from_nanos(100)).check_window().unwrap();
        let (mut counter, begin) = (SlidingCounter::default(), START / 100 * 100 + 100);
        assert_eq!(counter.take(&rate, begin + 99, 10), Ok(()));
        let mut passed = 0;
        let mut take_all = |counter: &mut SlidingCounter, now| {
            while counter.take(&rate, begin + now, 1).is_ok() {
                passed += 1;
            }
        };
        take_all(&mut counter, 190);
        counter.refund_of(&rate, begin + 190, 10, begin + 99);
        (190..290).for_each(|now| take_all(&mut counter, now));
        assert!(passed < 20, "{passed} of 10 in a period");
    }
}
