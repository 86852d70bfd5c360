//! What a limiter says to a call.

use std::{ops::Deref, time::Duration};

use super::policy::MOST_LIMITS;

/// Whether a call may pass, and what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// The name of the limit.
    pub policy: &'static str,
    /// How many units may come at once after a rest: the burst of a bucket, the units of a window.
    pub limit: u64,
    /// The time in which so many come back.
    pub period: Duration,
    /// How many of them are left now.
    pub remaining: u64,
    /// How long to wait before the same call passes: refused a nanosecond earlier, admitted then. `None` when it may pass now, or never can,
    /// because it costs more than the limit.
    pub retry_after: Option<Duration>,
    /// How long until all of it is there again.
    pub reset_after: Duration,
    /// Whether the call may pass.
    pub allowed: bool,
}

/// Those of a key, and those of all keys.
const MOST_DECISIONS: usize = 2 * MOST_LIMITS;

/// What each limit of a limiter says, in the order of the settings: at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decisions {
    all: [Decision; MOST_DECISIONS],
    count: usize,
}

impl Decisions {
    pub(crate) fn new(first: Decision, others: impl IntoIterator<Item = Decision>) -> Self {
        let (mut all, mut count) = ([first; MOST_DECISIONS], 1);
        for (place, other) in all[1..].iter_mut().zip(others) {
            *place = other;
            count += 1;
        }
        Self { all, count }
    }

    /// What a call was told that was admitted.
    pub(super) fn admitted(&self) -> Decision {
        Decision { allowed: true, retry_after: None, ..self.tightest() }
    }

    /// What a call was told that this limit has refused, whatever has come back since.
    pub(super) fn refused(&self, limit: usize, wait: Option<Duration>) -> Decision {
        Decision { allowed: false, retry_after: wait, ..self.get(limit).copied().unwrap_or(self.all[0]) }
    }

    /// These and those, as far as there is room.
    pub(crate) fn and(mut self, others: &Self) -> Self {
        for other in others.iter() {
            if let Some(place) = self.all.get_mut(self.count) {
                *place = *other;
                self.count += 1;
            }
        }
        self
    }

    /// The one that decides: the refusal with the longest wait, or else the limit of which the smallest part is left.
    #[must_use]
    pub fn tightest(&self) -> Decision {
        let left = |decision: &Decision| (u128::from(decision.remaining) << 64) / u128::from(decision.limit.max(1));
        let never = |decision: &Decision| !decision.allowed && decision.retry_after.is_none();
        let mut tightest = self.all[0];
        for other in &self[1..] {
            let is_tighter = match (tightest.allowed, other.allowed) {
                (true, false) => true,
                (false, true) => false,
                (false, false) => !never(&tightest) && (never(other) || other.retry_after > tightest.retry_after),
                (true, true) => left(other) < left(&tightest),
            };
            if is_tighter {
                tightest = *other;
            }
        }
        tightest
    }
}

impl Deref for Decisions {
    type Target = [Decision];

    fn deref(&self) -> &[Decision] {
        &self.all[..self.count]
    }
}
