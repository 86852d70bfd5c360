//! A token bucket in one integer: the generic cell rate algorithm.
//!
//! The bucket is known by the moment at which it will be full again. A call moves that moment on by what it costs, and is refused if that would
//! put it further away than a whole burst takes. So nothing has to be refilled, and nothing is lost by rounding between calls.

use super::quota::{Rate, STEP};

/// What a bucket makes of a call: the moment at which it is full then, or how long to wait before the same call is admitted.
///
/// `full_at` and `now` are nanoseconds of one clock. The cost is one of [`Rate::time_of`], so at most a whole burst.
#[inline]
pub(super) fn take(rate: &Rate, full_at: u64, now: u64, time: u64) -> Result<u64, u64> {
    let owed = owed(rate, full_at, now);
    let after = owed.saturating_add(time);
    if after <= rate.whole { Ok(now.saturating_add(after)) } else { Err(after - rate.whole) }
}

/// When a bucket is full whose clock was put back, if it was: it is empty now, and fills from here, so that nobody waits for the clock.
#[inline]
pub(super) fn rebased(rate: &Rate, full_at: u64, now: u64) -> Option<u64> {
    let is_behind = full_at.saturating_sub(now) > rate.whole.saturating_add(STEP);
    is_behind.then(|| now.saturating_add(rate.whole))
}

/// How long the bucket takes to be full.
#[inline]
pub(super) fn owed(rate: &Rate, full_at: u64, now: u64) -> u64 {
    full_at.saturating_sub(now).min(rate.whole)
}

/// How many units are left.
pub(super) fn remaining(rate: &Rate, full_at: u64, now: u64) -> u64 {
    let left = rate.whole - owed(rate, full_at, now);
    // Less than 2^126; what is rounded up for a unit is rounded down for all.
    let exact = u128::from(left) * u128::from(rate.burst) / u128::from(rate.whole);
    exact as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::quota::Quota;
    use proptest::prelude::*;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    fn rate(quota: Quota) -> Rate {
        quota.check().unwrap()
    }

    /// governor_249_a_free_token_after_idling, ratelimit_meter_36_wrong_wait
    #[test]
    fn after_a_rest_of_any_length_there_is_exactly_a_burst_and_the_wait_is_exact() {
        let rate = rate(Quota::per_second(10).burst(5));
        for start in [0, 7, SECOND, u64::MAX / 2] {
            let mut full_at = 0;
            for now in [start, start + SECOND, start + 1_000_000 * SECOND] {
                let mut admitted = 0;
                let wait = loop {
                    match take(&rate, full_at, now, rate.each) {
                        Ok(next) => full_at = next,
                        Err(wait) => break wait,
                    }
                    admitted += 1;
                };
                assert_eq!((admitted, wait), (5, SECOND / 10));
                assert_eq!(take(&rate, full_at, now + wait - 1, rate.each), Err(1));
                assert!(take(&rate, full_at, now + wait, rate.each).is_ok());
            }
        }
    }

    /// tower_resilience_370_fractions_are_lost
    #[test]
    fn a_third_of_a_second_is_not_lost() {
        let rate = rate(Quota::per_second(3));
        let mut full_at = 0;
        let admitted = (0..36_000_u64)
            .filter(|tick| match take(&rate, full_at, SECOND + tick * SECOND / 10, rate.each) {
                Ok(next) => {
                    full_at = next;
                    true
                }
                Err(_) => false,
            })
            .count();
        assert!((10_799..=10_803).contains(&admitted), "{admitted}");
    }

    /// resilience4j_61_a_clock_below_zero, and one that steps back
    #[test]
    fn a_clock_that_steps_back_makes_nobody_wait_for_it() {
        let rate = rate(Quota::per_second(1));
        let full_at = take(&rate, 0, 1_000_000 * SECOND, rate.each).unwrap();
        let full_at = rebased(&rate, full_at, 5).unwrap();
        assert_eq!(take(&rate, full_at, 5, rate.each), Err(SECOND));
        assert!(take(&rate, full_at, 5 + SECOND, rate.each).is_ok());
        // Readings that overtook one another are no step.
        assert_eq!(rebased(&rate, 100 * SECOND + rate.whole + 1, 100 * SECOND), None);
    }

    proptest! {
        /// Against a bucket of fractions, over random arrivals and costs.
        #[test]
        fn it_is_the_bucket_that_it_stands_for(
            units in 1_u64..2_000, burst in 1_u64..50, steps in proptest::collection::vec((0_u64..3_000_000_000, 1_u64..60), 1..200),
        ) {
            // Whole nanoseconds, so that there is no rounding: the interval is the unit's.
            let each = units * 1_000;
            let rate = rate(Quota::new(1, Duration::from_nanos(each)).burst(burst));
            let (mut full_at, mut now) = (0, SECOND);
            // In nanoseconds of filling, which are fractions of a token.
            let mut tokens = u128::from(burst) * u128::from(each);
            for (wait, cost) in steps {
                now += wait;
                tokens = (tokens + u128::from(wait)).min(u128::from(burst) * u128::from(each));
                prop_assert_eq!(u128::from(remaining(&rate, full_at, now)), tokens / u128::from(each));
                if cost > burst {
                    continue;
                }
                let price = u128::from(cost) * u128::from(each);
                match take(&rate, full_at, now, rate.time_of(cost)) {
                    Ok(next) => {
                        prop_assert!(tokens >= price);
                        tokens -= price;
                        full_at = next;
                    }
                    Err(wait) => prop_assert_eq!(u128::from(wait), price - tokens),
                }
            }
        }

        /// Whatever the quota: never more than a burst and the rate, and the next call is admitted when it is told.
        #[test]
        fn it_never_admits_more_than_burst_and_rate(
            units in 1_u64..10_000_000_000, period in 1_u64..100_000_000_000, burst in 1_u64..1_000, waits in proptest::collection::vec(0_u64..1_000_000_000, 1..300),
        ) {
            let Ok(rate) = Quota::new(units, Duration::from_nanos(period)).burst(burst).check() else { return Ok(()) };
            let (start, mut full_at, mut admitted) = (1_u64 << 62, 0, 0_u128);
            let mut now = start;
            for wait in waits {
                now += wait;
                match take(&rate, full_at, now, rate.each) {
                    Ok(next) => {
                        admitted += 1;
                        full_at = next;
                    }
                    Err(wait) => prop_assert!(take(&rate, full_at, now + wait, rate.each).is_ok() && take(&rate, full_at, now + wait - 1, rate.each).is_err()),
                }
                let allowed = u128::from(burst) + u128::from(now - start) * u128::from(units) / u128::from(period);
                prop_assert!(admitted <= allowed);
            }
        }
    }
}
