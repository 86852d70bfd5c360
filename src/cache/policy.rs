//! The settings: small values, checked once.

use std::time::Duration;

use crate::error::ConfigError;

/// What is kept, for how long, and what is done when there is nothing fresh.
///
/// # Defaults
///
/// | setting | default | as |
/// |---|---|---|
/// | [`ttl`](Self::ttl) | 60 s | the recommendation of DNS and CDNs for what may change |
/// | [`jitter`](Self::jitter) | 0.1 | FusionCache and Stash add as much; here it is taken off, so that the ttl is a promise |
/// | [`negative_ttl`](Self::negative_ttl) | nothing is remembered of failures | |
/// | [`stale_while_revalidate`](Self::stale_while_revalidate) | no | RFC 5861 |
/// | [`stale_if_error`](Self::stale_if_error) | no | RFC 5861 |
/// | [`throttle`](Self::throttle) | 30 s | FusionCache |
/// | [`soft_timeout`](Self::soft_timeout) | none | FusionCache |
/// | [`hard_timeout`](Self::hard_timeout) | 30 s | |
/// | [`early`](Self::early) | none | |
/// | [`max_loads`](Self::max_loads) | 1,024 | |
/// | [`max_waiters`](Self::max_waiters) | 16,384 | |
/// | [`in_turn`](Self::in_turn) | no | |
/// | [`max_entries`](Self::max_entries), [`max_bytes`](Self::max_bytes) | 10,000 entries of any weight | |
/// | [`name`](Self::name) | `"cache"` | |
#[derive(Clone, Copy, Debug)]
pub struct CacheSettings {
    pub(super) name: &'static str,
    pub(super) ttl: Duration,
    pub(super) jitter: f64,
    pub(super) negative_ttl: Option<Duration>,
    pub(super) while_revalidate: Duration,
    pub(super) if_error: Duration,
    pub(super) throttle: Duration,
    pub(super) soft_timeout: Option<Duration>,
    pub(super) hard_timeout: Duration,
    pub(super) early: Early,
    pub(super) max_loads: usize,
    pub(super) max_waiters: usize,
    pub(super) in_turn: bool,
    pub(super) room: Room,
}

/// When an entry that is still fresh is loaded anew in the background, so that it never has to be waited for.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Early {
    /// Not before it is stale.
    Never,
    /// With the first call after this part of its ttl, such as 0.8.
    Ratio(f64),
    /// At random, more likely the nearer its end is and the longer its load took, times this. Needs nobody to agree on who loads, so it is right
    /// for many processes with one dependency. (Vattani, Chierichetti, Lowenstein: *Optimal Probabilistic Cache Stampede Prevention*, where it is 1.)
    XFetch(f64),
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) entries: usize,
    pub(crate) bytes: u64,
}

impl CacheSettings {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            name: "cache",
            ttl: Duration::from_secs(60),
            jitter: 0.1,
            negative_ttl: None,
            while_revalidate: Duration::ZERO,
            if_error: Duration::ZERO,
            throttle: Duration::from_secs(30),
            soft_timeout: None,
            hard_timeout: Duration::from_secs(30),
            early: Early::Never,
            max_loads: 1024,
            max_waiters: 16_384,
            in_turn: false,
            room: Room { entries: 10_000, bytes: u64::MAX },
        }
    }

    /// The name in errors, events and metrics. Defaults to `"cache"`.
    #[must_use]
    pub const fn name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// How long an entry is fresh. Defaults to 60 s.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Up to this part of its ttl is taken off at random, so that what was stored together does not end together: 0 to 1. Defaults to 0.1.
    #[must_use]
    pub const fn jitter(mut self, part: f64) -> Self {
        self.jitter = part;
        self
    }

    /// How long an answer is remembered that is [`Permanent`](crate::Outcome::Permanent), such as "not found". Defaults to not at all.
    #[must_use]
    pub const fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = Some(ttl);
        self
    }

    /// For so long past its ttl an entry is answered with at once, while one load in the background brings a new one. Defaults to zero.
    #[must_use]
    pub const fn stale_while_revalidate(mut self, within: Duration) -> Self {
        self.while_revalidate = within;
        self
    }

    /// For so long past its ttl an entry is answered with when its load fails, is refused by a layer below, or takes longer than the
    /// [`soft_timeout`](Self::soft_timeout). Defaults to zero.
    #[must_use]
    pub const fn stale_if_error(mut self, max_stale: Duration) -> Self {
        self.if_error = max_stale;
        self
    }

    /// For so long after a load failed, nobody asks again who has a stale answer at hand. Defaults to 30 s.
    #[must_use]
    pub const fn throttle(mut self, pause: Duration) -> Self {
        self.throttle = pause;
        self
    }

    /// Who has a stale answer at hand waits no longer than this for a new one; the load goes on. Defaults to none.
    #[must_use]
    pub const fn soft_timeout(mut self, limit: Duration) -> Self {
        self.soft_timeout = Some(limit);
        self
    }

    /// A load that takes longer is given up. Defaults to 30 s.
    #[must_use]
    pub const fn hard_timeout(mut self, limit: Duration) -> Self {
        self.hard_timeout = limit;
        self
    }

    /// When what is still fresh is loaded anew. Defaults to never.
    #[must_use]
    pub const fn early(mut self, early: Early) -> Self {
        self.early = early;
        self
    }

    /// How many loads there are at a time, of all keys. Defaults to 1,024.
    #[must_use]
    pub const fn max_loads(mut self, loads: usize) -> Self {
        self.max_loads = loads;
        self
    }

    /// How many callers wait at a time for loads that others began, of all keys. Defaults to 16,384.
    #[must_use]
    pub const fn max_waiters(mut self, waiters: usize) -> Self {
        self.max_waiters = waiters;
        self
    }

    /// When a load fails, one of those who waited for it makes the next attempt, and so on, each in its turn. Defaults to one failure for all of them.
    #[must_use]
    pub const fn in_turn(mut self) -> Self {
        self.in_turn = true;
        self
    }

    /// How many entries the memory store keeps. Nothing is allocated for them in advance. Defaults to 10,000.
    #[must_use]
    pub const fn max_entries(mut self, entries: usize) -> Self {
        self.room.entries = entries;
        self
    }

    /// How much all entries of the memory store may weigh; a [weigher](super::MemoryStore::weighed) tells what each does. An
    /// entry that weighs more than all the room of its shard is not kept: 4 MiB at least, or the whole. Defaults to no bound.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: u64) -> Self {
        self.room.bytes = bytes;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let checks = [
            (!self.ttl.is_zero(), "ttl", "must not be zero"),
            ((0.0..=1.0).contains(&self.jitter), "jitter", "must be from 0 to 1"),
            (self.negative_ttl != Some(Duration::ZERO), "negative_ttl", "must not be zero: leave it out"),
            (!self.hard_timeout.is_zero(), "hard_timeout", "must not be zero"),
            (self.max_loads > 0, "max_loads", "must not be zero"),
            (
                match self.early {
                    Early::Never => true,
                    Early::Ratio(ratio) => ratio > 0.0 && ratio < 1.0,
                    Early::XFetch(beta) => beta > 0.0 && beta.is_finite(),
                },
                "early",
                "must be a ratio between 0 and 1, or a finite factor above 0",
            ),
        ];
        match checks.into_iter().find(|(is_well, ..)| !is_well) {
            Some((_, field, problem)) => Err(ConfigError::new(field, problem)),
            None => self.room.check(),
        }
    }
}

impl Room {
    pub(super) const fn check(&self) -> Result<(), ConfigError> {
        if self.entries == 0 {
            return Err(ConfigError::new("max_entries", "must not be zero"));
        }
        if self.bytes == 0 {
            return Err(ConfigError::new("max_bytes", "must not be zero"));
        }
        Ok(())
    }
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: CacheSettings = CacheSettings::new();

    /// moka_230_zero_capacity
    #[test]
    fn settings_that_cannot_work_are_errors() {
        let rows = [
            ("ttl", BASE.ttl(Duration::ZERO)),
            ("jitter", BASE.jitter(1.1)),
            ("jitter", BASE.jitter(f64::NAN)),
            ("negative_ttl", BASE.negative_ttl(Duration::ZERO)),
            ("hard_timeout", BASE.hard_timeout(Duration::ZERO)),
            ("max_loads", BASE.max_loads(0)),
            ("early", BASE.early(Early::Ratio(0.0))),
            ("early", BASE.early(Early::Ratio(1.0))),
            ("early", BASE.early(Early::XFetch(f64::INFINITY))),
            ("early", BASE.early(Early::XFetch(f64::NAN))),
            ("max_entries", BASE.max_entries(0)),
            ("max_bytes", BASE.max_bytes(0)),
        ];
        for (field, settings) in rows {
            assert_eq!(settings.check().unwrap_err().field(), field);
        }
        assert_eq!(BASE.early(Early::Ratio(0.8)).max_waiters(0).check(), Ok(()));
        assert_eq!(BASE.check(), Ok(()));
    }
}
