//! A token bucket in one integer: the generic cell rate algorithm.
//!
//! The bucket is known by the moment at which it will be full again. A call moves that moment on by what it costs, and is refused if that would
//! put it further away than a whole burst takes. So nothing has to be refilled, and nothing is lost by rounding between calls.

use super::quota::{LONGEST, Rate, STEP};

/// What a bucket says that is no more than a burst ahead of the clock, as most are. `None` of one that is, for a debt or a clock that was put back, and
/// where a sum would overflow: then [`rebased`] and [`take`] are to be asked.
#[inline]
pub(super) fn take_at_once(whole: u64, full_at: u64, now: u64, time: u64) -> Option<Result<u64, u64>> {
    let from = full_at.max(now);
    let after = from.checked_add(time)?;
    if after - now <= whole {
        return Some(Ok(after));
    }
    (from - now <= whole).then(|| Err(after - now - whole))
}

/// What a bucket makes of a call: the moment at which it is full then, or how long to wait before the same call is admitted.
///
/// `whole` is how long a whole burst takes, `full_at` and `now` are nanoseconds of one clock. The cost is one of [`Rate::time_of`], so at most a whole burst.
#[inline]
pub(super) fn take(whole: u64, full_at: u64, now: u64, time: u64) -> Result<u64, u64> {
    let after = owed(full_at, now).saturating_add(time);
    if after <= whole { Ok(now.saturating_add(after)) } else { Err(after - whole) }
}

/// When a bucket is full whose clock was put back, if it was: it is empty now, and fills from here, so that nobody waits for the clock.
///
/// A debt or a pause puts a bucket that far ahead too. `horizon` is the furthest to which any has.
#[inline]
pub(super) fn rebased(whole: u64, full_at: u64, now: u64, horizon: impl FnOnce() -> u64) -> Option<u64> {
    let is_behind = owed(full_at, now) > whole.saturating_add(STEP) && full_at > horizon();
    is_behind.then(|| now.saturating_add(whole))
}

/// How long the bucket takes to be full.
#[inline]
pub(super) const fn owed(full_at: u64, now: u64) -> u64 {
    full_at.saturating_sub(now)
}

/// How many units are left.
pub(super) fn remaining(rate: &Rate, full_at: u64, now: u64) -> u64 {
    let left = rate.whole.saturating_sub(owed(full_at, now));
    // Less than 2^126; what is rounded up for a unit is rounded down for all.
    let exact = u128::from(left) * u128::from(rate.burst) / u128::from(rate.whole);
    exact as u64
}

/// Leaves of what was used no more than a burst, for a quota that has changed. What a debt, a pause or a reservation has put ahead stays there.
pub(super) fn requoted(rate: &Rate, full_at: u64, now: u64, is_put_ahead: bool) -> u64 {
    if is_put_ahead { full_at } else { full_at.min(now.saturating_add(rate.whole)) }
}

/// Takes what was used already, whether it is there or not: what is not is a debt.
pub(super) fn charged(full_at: u64, now: u64, time: u64) -> u64 {
    owed(full_at, now).saturating_add(time).min(LONGEST).saturating_add(now)
}

/// Leaves nothing.
pub(super) const fn drained(rate: &Rate, full_at: u64, now: u64) -> u64 {
    later(full_at, now.saturating_add(rate.whole))
}

/// Admits nothing for so long, and then one unit: who asked for the pause gets no burst at its end.
pub(super) fn paused(rate: &Rate, full_at: u64, now: u64, wait: u64) -> u64 {
    later(full_at, now.saturating_add(wait.min(LONGEST)).saturating_add(rate.whole - rate.each.min(rate.whole)))
}

/// Gives back what a reservation took, as far as nobody has reserved after it: who did waits for what was there then.
pub(super) const fn unreserved(full_at: u64, reserved_until: u64, time: u64) -> u64 {
    full_at.saturating_sub(time.saturating_sub(full_at.saturating_sub(reserved_until)))
}

const fn later(one: u64, other: u64) -> u64 {
    if one > other { one } else { other }
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
                    match take(rate.whole, full_at, now, rate.each) {
                        Ok(next) => full_at = next,
                        Err(wait) => break wait,
                    }
                    admitted += 1;
                };
                assert_eq!((admitted, wait), (5, SECOND / 10));
                assert_eq!(take(rate.whole, full_at, now + wait - 1, rate.each), Err(1));
                assert!(take(rate.whole, full_at, now + wait, rate.each).is_ok());
            }
        }
    }

    /// tower_resilience_370_fractions_are_lost
    #[test]
    fn a_third_of_a_second_is_not_lost() {
        let rate = rate(Quota::per_second(3));
        let mut full_at = 0;
        let admitted = (0..36_000_u64)
            .filter(|tick| match take(rate.whole, full_at, SECOND + tick * SECOND / 10, rate.each) {
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
        let full_at = take(rate.whole, 0, 1_000_000 * SECOND, rate.each).unwrap();
        let full_at = rebased(rate.whole, full_at, 5, || 0).unwrap();
        assert_eq!(take(rate.whole, full_at, 5, rate.each), Err(SECOND));
        assert!(take(rate.whole, full_at, 5 + SECOND, rate.each).is_ok());
        // Readings that overtook one another are no step.
        assert_eq!(rebased(rate.whole, 100 * SECOND + rate.whole + 1, 100 * SECOND, || 0), None);
    }

    #[test]
    fn a_debt_is_no_clock_that_steps_back() {
        let rate = rate(Quota::per_second(1));
        let full_at = charged(0, SECOND, 3_600 * SECOND);
        assert_eq!(rebased(rate.whole, full_at, SECOND, || full_at), None);
        assert_eq!(take(rate.whole, full_at, SECOND, rate.each), Err(3_600 * SECOND));
        assert_eq!(remaining(&rate, full_at, SECOND), 0);
        assert_eq!(charged(u64::MAX, 5, u64::MAX), 5 + LONGEST);
    }

    #[test]
    fn after_a_pause_there_is_one_unit() {
        let rate = rate(Quota::per_second(10));
        let full_at = paused(&rate, 0, SECOND, 60 * SECOND);
        assert_eq!(take(rate.whole, full_at, 61 * SECOND - 1, rate.each), Err(1));
        let full_at = take(rate.whole, full_at, 61 * SECOND, rate.each).unwrap();
        assert_eq!(take(rate.whole, full_at, 61 * SECOND, rate.each), Err(rate.each));
    }

    proptest! {
        #[test]
        fn one_step_is_all_steps(full_at: u64, near: u64, now: u64, time: u64, whole: u64, is_near: bool) {
            let full_at = if is_near { now.saturating_add(near % 1_000) } else { full_at };
            match take_at_once(whole, full_at, now, time) {
                Some(taken) => {
                    prop_assert_eq!(rebased(whole, full_at, now, || 0), None);
                    prop_assert_eq!(take(whole, full_at, now, time), taken);
                }
                None => {
                    prop_assert!(owed(full_at, now) > whole || full_at.max(now).checked_add(time).is_none());
                }
            }
        }

        /// Against a bucket of fractions, over random arrivals, costs and steps of the clock.
        #[test]
        fn it_is_the_bucket_that_it_stands_for(
            units in 1_u64..2_000, burst in 1_u64..50,
            steps in proptest::collection::vec((0_u64..3_000_000_000, 1_u64..60, 0_u8..20), 1..200),
        ) {
            // Whole nanoseconds, so that there is no rounding: the interval is the unit's.
            let each = i128::from(units * 1_000);
            let rate = rate(Quota::new(1, Duration::from_nanos(units * 1_000)).burst(burst));
            let (mut full_at, mut now) = (0, 1_u64 << 62);
            // In nanoseconds of filling, which are fractions of a token, and as if the bucket had no rim until somebody looks.
            let (whole, mut tokens) = (i128::from(burst) * each, i128::MAX / 2);
            for (wait, cost, step) in steps {
                let forward = if step == 0 { -10 * i128::from(wait) } else { i128::from(wait) };
                now = now.checked_add_signed(forward as i64).unwrap();
                tokens += forward;
                if let Some(rebased) = rebased(rate.whole, full_at, now, || 0) {
                    prop_assert!(tokens < -i128::from(STEP));
                    (full_at, tokens) = (rebased, 0);
                }
                prop_assert!(tokens >= -i128::from(STEP));
                prop_assert_eq!(i128::from(remaining(&rate, full_at, now)), tokens.clamp(0, whole) / each);
                if cost > burst {
                    continue;
                }
                let price = i128::from(cost) * each;
                match take(rate.whole, full_at, now, rate.time_of(cost)) {
                    Ok(next) => {
                        prop_assert!(tokens >= price);
                        tokens = tokens.min(whole) - price;
                        full_at = next;
                    }
                    Err(wait) => prop_assert_eq!(i128::from(wait), price - tokens),
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
                match take(rate.whole, full_at, now, rate.each) {
                    Ok(next) => {
                        admitted += 1;
                        full_at = next;
                    }
                    Err(wait) => prop_assert!(take(rate.whole, full_at, now + wait, rate.each).is_ok() && take(rate.whole, full_at, now + wait - 1, rate.each).is_err()),
                }
                let allowed = u128::from(burst) + u128::from(now - start) * u128::from(units) / u128::from(period);
                prop_assert!(admitted <= allowed);
            }
        }
    }
}
