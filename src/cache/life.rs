//! The life of an entry: fresh, stale, gone. No clock, no lock, no dice.

use std::time::Duration;

use super::{
    keep::Span,
    policy::{CacheSettings, Early},
};
use crate::{
    outcome::Outcome,
    time::{Instant, nanos},
};

/// The times of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)] // What each hit looks at comes first.
pub(super) struct Times {
    pub(super) fresh_until: Instant,
    pub(super) stale_until: Instant,
    /// When its load began.
    pub(super) created: Instant,
    /// When its load ended.
    pub(super) stored: Instant,
}

/// What an entry is good for at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Fresh,
    /// Fresh, and to be loaded anew all the same.
    Due,
    /// To be answered with at once, and to be loaded anew.
    Revalidate,
    /// To be answered with when the load fails.
    IfError,
    Gone,
}

impl Times {
    pub(super) const fn new(created: Instant, now: Instant, ttl: Duration, max_stale: Duration) -> Self {
        let fresh_until = now.saturating_add(ttl);
        Self { fresh_until, stale_until: fresh_until.saturating_add(max_stale), created, stored: now }
    }

    /// How long its load took.
    pub(super) const fn cost(&self) -> Duration {
        self.stored.saturating_since(self.created)
    }

    /// `random` is drawn, from above 0 to 1, only where it decides something.
    #[inline]
    pub(super) fn life(&self, now: Instant, settings: &CacheSettings, random: impl FnOnce() -> f64) -> Life {
        if now < self.fresh_until {
            return if self.is_due(now, settings.early, random) { Life::Due } else { Life::Fresh };
        }
        if now >= self.stale_until {
            Life::Gone
        } else if now < self.fresh_until.saturating_add(settings.while_revalidate) {
            Life::Revalidate
        } else if now < self.fresh_until.saturating_add(settings.if_error) {
            Life::IfError
        } else {
            Life::Gone
        }
    }

    #[inline]
    fn is_due(&self, now: Instant, early: Early, random: impl FnOnce() -> f64) -> bool {
        match early {
            Early::Never => false,
            Early::Ratio(ratio) => {
                // From when it was stored: the load's own time is no part of the ttl.
                let ttl = self.fresh_until.saturating_since(self.stored);
                let passed = ttl.saturating_sub(self.fresh_until.saturating_since(now));
                nanos(passed) as f64 >= nanos(ttl) as f64 * ratio
            }
            Early::XFetch(beta) => {
                let left = nanos(self.fresh_until.saturating_since(now)) as f64;
                nanos(self.cost()) as f64 * beta * -random().ln() >= left
            }
        }
    }

    /// Whether it may be answered with for want of a new one.
    pub(super) fn is_servable(&self, now: Instant, settings: &CacheSettings) -> bool {
        let within = settings.if_error.max(settings.while_revalidate);
        now < self.fresh_until || (now < self.stale_until && now < self.fresh_until.saturating_add(within))
    }

    pub(super) const fn stale_for(&self, now: Instant) -> Duration {
        now.saturating_since(self.fresh_until)
    }
}

/// How long an answer with this outcome is fresh, if it is stored. `random` is from 0 to 1.
pub(super) fn ttl(outcome: Outcome, span: Span, settings: &CacheSettings, random: f64) -> Option<Duration> {
    let ttl = match (outcome, span) {
        (_, Span::Never) => None,
        (Outcome::Success, Span::OfSettings) => Some(settings.ttl),
        (Outcome::Success, Span::For(ttl)) => Some(ttl),
        (Outcome::Success, Span::Negative) | (Outcome::Permanent, _) => settings.negative_ttl,
        _ => None,
    }?;
    let ttl = nanos(ttl);
    let off = (ttl as f64 * settings.jitter * random) as u64;
    // What is stored is fresh for a moment at least.
    Some(Duration::from_nanos(ttl.saturating_sub(off).max(1)))
}

/// Whether an answer with this outcome is a failure that a stale answer stands in for.
pub(super) const fn gives_way(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Transient { .. } | Outcome::Rejected { .. })
}
