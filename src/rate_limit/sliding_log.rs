//! A window that slides by the nanosecond: never more than so many units in any stretch of the period's length.
//!
//! It remembers each admitted call, 16 bytes each and at most as many as there are units.

use std::collections::VecDeque;

use super::quota::{Rate, STEP};

#[derive(Clone, Debug, Default)]
pub(super) struct SlidingLog {
    /// When a call was admitted, and its cost; the oldest first.
    admitted: VecDeque<(u64, u64)>,
    used: u64,
}

impl SlidingLog {
    /// Admits a call of at most all units, or says how long to wait before it would be.
    pub(super) fn take(&mut self, rate: &Rate, now: u64, cost: u64) -> Result<(), u64> {
        let now = self.look(rate, now, cost)?;
        if cost > 0 {
            self.admitted.push_back((now, cost));
            self.used += cost;
        }
        Ok(())
    }

    /// Whether a call would be admitted, at what time of this log, or how long it would have to wait.
    pub(super) fn look(&mut self, rate: &Rate, now: u64, cost: u64) -> Result<u64, u64> {
        let now = self.slide(rate, now);
        let over = self.used.saturating_add(cost).saturating_sub(rate.units);
        if over == 0 {
            return Ok(now);
        }
        // The oldest go first: until enough of them have gone.
        let mut freed = 0;
        let last = self.admitted.iter().find(|(_, cost)| {
            freed += cost;
            freed >= over
        });
        Err(last.map_or(0, |(at, _)| at.saturating_add(rate.period).saturating_sub(now)))
    }

    /// Forgets what has left the window, and answers the time of this log, which never falls but when its clock was put back: then all it
    /// knows of was admitted just now.
    pub(super) fn slide(&mut self, rate: &Rate, now: u64) -> u64 {
        if self.admitted.back().is_some_and(|(at, _)| at.saturating_sub(now) > STEP) {
            self.admitted.iter_mut().for_each(|(at, _)| *at = now);
        }
        let now = self.admitted.back().map_or(now, |(at, _)| now.max(*at));
        while let Some((at, cost)) = self.admitted.front().copied()
            && at.saturating_add(rate.period) <= now
        {
            self.admitted.pop_front();
            self.used = self.used.saturating_sub(cost);
        }
        now
    }

    /// Takes what was used already, whether it is there or not.
    pub(super) fn charge(&mut self, rate: &Rate, now: u64, units: u64) {
        if units == 0 {
            return;
        }
        let now = self.slide(rate, now);
        self.used = self.used.saturating_add(units);
        // No more entries than there are units, however many debts are made.
        let is_long = self.admitted.len() as u64 >= rate.units;
        match self.admitted.back_mut() {
            Some((at, cost)) if is_long || *at == now => {
                (*at, *cost) = (now, cost.saturating_add(units));
            }
            _ => self.admitted.push_back((now, units)),
        }
    }

    /// Gives units of this window back, the oldest first, so that no later call gains by it.
    pub(super) fn refund(&mut self, mut units: u64) {
        while units > 0
            && let Some((_, cost)) = self.admitted.front_mut()
        {
            let part = units.min(*cost);
            *cost -= part;
            units -= part;
            self.used = self.used.saturating_sub(part);
            if *cost == 0 {
                self.admitted.pop_front();
            }
        }
    }

    pub(super) const fn used(&self) -> u64 {
        self.used
    }

    /// When the youngest leaves, and so the window is empty.
    pub(super) fn empty_at(&self, rate: &Rate) -> Option<u64> {
        self.admitted.back().map(|(at, _)| at.saturating_add(rate.period))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::quota::Quota;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        /// tower_842_twice_the_limit_at_the_edge_of_a_window
        #[test]
        fn never_more_than_the_limit_in_any_window(
            units in 1_u64..30, period in 1_u64..1_000, steps in proptest::collection::vec((0_u64..200, 1_u64..8), 1..300),
        ) {
            let rate = Quota::new(units, Duration::from_nanos(period)).check_window().unwrap();
            let (mut log, mut now, mut admitted) = (SlidingLog::default(), 1_u64 << 62, Vec::new());
            for (wait, cost) in steps {
                now += wait;
                let cost = cost.min(units);
                let in_window: u64 = admitted.iter().filter(|(at, _)| at + period > now).map(|(_, cost)| cost).sum();
                let before = log.clone();
                match log.take(&rate, now, cost) {
                    Ok(()) => {
                        prop_assert!(in_window + cost <= units);
                        admitted.push((now, cost));
                    }
                    Err(wait) => {
                        prop_assert!(in_window + cost > units);
                        prop_assert!(before.clone().take(&rate, now + wait, cost).is_ok());
                        prop_assert!(before.clone().take(&rate, now + wait - 1, cost).is_err());
                    }
                }
                prop_assert!(log.admitted.len() as u64 <= units);
            }
        }
    }

    #[test]
    fn a_clock_that_steps_back_makes_nobody_wait_for_it() {
        let rate = Quota::new(1, Duration::from_nanos(100)).check_window().unwrap();
        let mut log = SlidingLog::default();
        assert_eq!(log.take(&rate, 1_000, 1), Ok(()));
        // A reading that was overtaken is as good as the one that overtook it.
        assert_eq!(log.take(&rate, 990, 1), Err(100));
        assert_eq!(log.take(&rate, 1_100, 1), Ok(()));
        let mut log = SlidingLog::default();
        assert_eq!(log.take(&rate, 10 * STEP, 1), Ok(()));
        assert_eq!(log.take(&rate, 5, 1), Err(100));
        assert_eq!(log.take(&rate, 105, 1), Ok(()));
    }
}
