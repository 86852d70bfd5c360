//! What is counted for each call, striped so that threads do not meet.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{shared::this_stripe, thread_slot};

/// What a cache did since it was made, and what it keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Calls that were answered with a fresh entry.
    pub hits: u64,
    /// Calls that were answered with a stale one.
    pub stale: u64,
    /// Calls that found nothing to answer with at once.
    pub misses: u64,
    /// Misses that were answered with an entry in the end, because their load failed or was too slow, or another one had just stored it. They are among the
    /// hits or the stale ones as well.
    pub covered: u64,
    /// Loads that began, those in the background included.
    pub loads: u64,
    /// Loads that failed.
    pub errors: u64,
    /// Calls that waited for a load that another one had begun.
    pub collapsed: u64,
    /// Entries that had to leave while they were still of use.
    pub evictions: u64,
    /// Entries that left after their time.
    pub expirations: u64,
    /// Entries that are kept.
    pub entries: usize,
    /// What they weigh.
    pub bytes: u64,
    /// Loads that are under way.
    pub in_flight: usize,
}

impl CacheStats {
    /// Calls with a key.
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.at_once().saturating_add(self.misses)
    }

    /// The part of calls with a key that did not wait for a load: 0 while there were none.
    #[must_use]
    pub fn hit_rate(&self) -> f64 {
        let all = self.calls();
        if all == 0 { 0.0 } else { self.at_once() as f64 / all as f64 }
    }

    pub(super) const fn at_once(&self) -> u64 {
        self.hits.saturating_add(self.stale).saturating_sub(self.covered)
    }

    /// Calls that the inner service was spared.
    #[must_use]
    pub const fn calls_saved(&self) -> u64 {
        self.calls().saturating_sub(self.loads)
    }
}

const STRIPES: usize = 16;

#[derive(Default)]
pub(super) struct Counts([Stripe; STRIPES]);

#[derive(Default)]
#[repr(align(128))]
pub(super) struct Stripe {
    hits: AtomicU64,
    /// Of the one thread with the number of this stripe, which alone writes.
    own_hits: AtomicU64,
    pub(super) stale: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) covered: AtomicU64,
    pub(super) loads: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) collapsed: AtomicU64,
    pub(super) evictions: AtomicU64,
    pub(super) expirations: AtomicU64,
}

impl Counts {
    /// The counters of this thread.
    #[inline]
    pub(super) fn here(&self) -> &Stripe {
        &self.0[this_stripe() % STRIPES]
    }

    /// Counts a hit. An atomic addition would be dear for what a hit is, so most threads have a counter of their own.
    #[inline]
    pub(super) fn hit(&self) {
        match thread_slot::index().and_then(|index| self.0.get(index)) {
            Some(Stripe { own_hits, .. }) => own_hits.store(own_hits.load(Ordering::Relaxed) + 1, Ordering::Relaxed),
            None => add(&self.here().hits, 1),
        }
    }

    pub(super) fn sum(&self) -> CacheStats {
        let sum =
            |of: fn(&Stripe) -> &AtomicU64| self.0.iter().map(|stripe| of(stripe).load(Ordering::Relaxed)).sum::<u64>();
        CacheStats {
            hits: sum(|stripe| &stripe.hits).saturating_add(sum(|stripe| &stripe.own_hits)),
            stale: sum(|stripe| &stripe.stale),
            misses: sum(|stripe| &stripe.misses),
            covered: sum(|stripe| &stripe.covered),
            loads: sum(|stripe| &stripe.loads),
            errors: sum(|stripe| &stripe.errors),
            collapsed: sum(|stripe| &stripe.collapsed),
            evictions: sum(|stripe| &stripe.evictions),
            expirations: sum(|stripe| &stripe.expirations),
            ..CacheStats::default()
        }
    }
}

/// Adds to a counter.
#[inline]
pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_rate_is_a_number_also_when_nothing_was_asked() {
        assert_eq!(CacheStats::default().hit_rate(), 0.0);
        assert_eq!(CacheStats { hits: 2, stale: 1, misses: 1, ..CacheStats::default() }.hit_rate(), 0.75);
        assert_eq!(CacheStats { hits: u64::MAX, stale: 9, misses: 9, ..CacheStats::default() }.hit_rate(), 1.0);
    }
}
