//! Whether a failed attempt is followed by another one: the pure core.

use std::time::Duration;

use crate::{
    event::GaveUp,
    outcome::Outcome,
    time::{Instant, TICK, nanos},
};

/// The numbers of the settings, once they are checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) attempts: u32,
    pub(super) retry_rejections: bool,
    /// In nanoseconds, or `u64::MAX`.
    pub(super) within: u64,
    pub(super) retry_after_cap: u64,
}

impl Plan {
    /// How long at least another attempt has to wait, if the outcome asks for one.
    #[inline]
    pub(super) fn wants(&self, outcome: Outcome) -> Option<Duration> {
        let cap = Duration::from_nanos(self.retry_after_cap);
        match outcome {
            Outcome::Transient { retry_after } => Some(retry_after.map_or(Duration::ZERO, |wait| wait.min(cap))),
            // Who refuses knows when it would admit: to come back earlier is in vain.
            Outcome::Rejected { retry_after: Some(wait), .. } if self.retry_rejections && wait <= cap => Some(wait),
            Outcome::Success | Outcome::Permanent | Outcome::Rejected { .. } | Outcome::Ignored => None,
        }
    }

    /// When all time is over, and whose time that is. `within` is the end of the total time.
    pub(super) fn end(within: Instant, deadline: Instant) -> (Instant, GaveUp) {
        if within <= deadline { (within, GaveUp::Within) } else { (deadline, GaveUp::Deadline) }
    }

    /// Whether an attempt after this delay begins before all time is over.
    pub(super) fn fits(delay: Duration, now: Instant, (end, why): (Instant, GaveUp)) -> Result<(), GaveUp> {
        if end == Instant::NEVER {
            return Ok(());
        }
        // A timer fires up to a tick late.
        let late = if delay.is_zero() { 0 } else { nanos(TICK) };
        let begins = now.as_nanos().saturating_add(nanos(delay)).saturating_add(late);
        if begins < end.as_nanos() { Ok(()) } else { Err(why) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PLAN: Plan =
        Plan { name: "plan", attempts: 3, retry_rejections: false, within: u64::MAX, retry_after_cap: 20_000_000_000 };

    fn rejected(retry_after: Option<Duration>) -> Outcome {
        Outcome::Rejected { reason: Reason::RateLimited, retry_after }
    }

    /// nanobot_2760, khive_2279: what is retried, by its outcome and nothing else.
    #[test]
    fn only_what_may_pass_is_tried_again() {
        let asked = Plan { retry_rejections: true, ..PLAN };
        let after = |retry_after| Outcome::Transient { retry_after };
        let rows = [
            (PLAN, Outcome::Success, None),
            (PLAN, Outcome::Permanent, None),
            (PLAN, Outcome::Ignored, None),
            (PLAN, Outcome::TRANSIENT, Some(Duration::ZERO)),
            (PLAN, after(Some(7 * SECOND)), Some(7 * SECOND)),
            (PLAN, after(Some(Duration::MAX)), Some(20 * SECOND)),
            (PLAN, rejected(Some(SECOND)), None),
            (asked, rejected(Some(SECOND)), Some(SECOND)),
            (asked, rejected(Some(21 * SECOND)), None),
            (asked, rejected(None), None),
        ];
        for (plan, outcome, expected) in rows {
            assert_eq!(plan.wants(outcome), expected, "{plan:?} {outcome:?}");
        }
    }

    #[test]
    fn the_earlier_of_total_time_and_deadline_decides() {
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let fits = |delay, within, deadline| Plan::fits(delay, at(100), Plan::end(within, deadline));
        assert_eq!(fits(SECOND, Instant::NEVER, Instant::NEVER), Ok(()));
        assert_eq!(fits(Duration::MAX, Instant::NEVER, Instant::NEVER), Ok(()));
        assert_eq!(fits(SECOND, at(102), at(103)), Ok(()));
        assert_eq!(fits(SECOND, at(101), at(103)), Err(GaveUp::Within));
        assert_eq!(fits(SECOND, at(103), at(101)), Err(GaveUp::Deadline));
        assert_eq!(fits(Duration::ZERO, at(101), Instant::NEVER), Ok(()));
        assert_eq!(fits(Duration::ZERO, at(100), Instant::NEVER), Err(GaveUp::Within));
        assert_eq!(fits(Duration::MAX, Instant::NEVER, at(200)), Err(GaveUp::Deadline));
    }

    proptest! {
        #[test]
        fn nothing_begins_after_the_end(delay: u64, now: u64, within: u64, deadline: u64) {
            let end = within.min(deadline);
            let delay = Duration::from_nanos(delay);
            let ends = Plan::end(Instant::from_nanos(within), Instant::from_nanos(deadline));
            let fits = Plan::fits(delay, Instant::from_nanos(now), ends);
            if fits.is_ok() && end != u64::MAX {
                prop_assert!(u128::from(now) + delay.as_nanos() < u128::from(end));
            }
        }
    }
}
