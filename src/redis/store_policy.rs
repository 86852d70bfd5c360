//! The settings of a cache in Redis, and of one with memory in front of it.

use std::time::Duration;

use crate::error::ConfigError;

/// How a cache is kept in Redis. All who share one must agree on the prefix, and on [`invalidation`](Self::invalidation).
///
/// # Defaults
///
/// | setting | default |
/// |---|---|
/// | [`name`](Self::name) | `"cache"` |
/// | [`prefix`](Self::prefix) | `"buttress:cache"` |
/// | [`max_bytes`](Self::max_bytes) | 1 MiB, as .NET's HybridCache has it |
/// | [`max_life`](Self::max_life) | a day |
/// | [`longest_load`](Self::longest_load) | 60 s: twice the hard time-out of a load |
/// | [`invalidation`](Self::invalidation) | [`Invalidation::Tracking`] |
/// | [`single_load`](Self::single_load) | no |
#[derive(Clone, Copy, Debug)]
pub struct RedisStoreSettings {
    pub(super) name: &'static str,
    pub(super) prefix: &'static str,
    pub(super) max_bytes: usize,
    pub(super) max_life: Duration,
    pub(super) longest_load: Duration,
    pub(super) invalidation: Invalidation,
    pub(super) single_load: Option<SingleLoad>,
}

/// How a process hears that another one has changed an entry, so that it does not keep the old one near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalidation {
    /// Redis tells of every change, whoever made it: RESP3 client tracking in broadcast mode, on one connection. Not in a cluster.
    Tracking,
    /// Who changes something says so on a channel: for a cluster, and where tracking is not allowed. What others than these caches write is not heard.
    PubSub,
    /// Nobody tells: an entry is near for as long as [`near_ttl`](TierSettings::near_ttl) says.
    None,
}

/// Of all processes that miss the same entry one loads it, and the others wait for what it stores.
#[derive(Clone, Copy, Debug)]
pub struct SingleLoad {
    pub(super) wait: Duration,
    pub(super) hold: Duration,
}

/// How memory stands in front of Redis.
///
/// # Defaults
///
/// | setting | default |
/// |---|---|
/// | [`near_ttl`](Self::near_ttl) | 60 s |
/// | [`write_behind`](Self::write_behind) | no |
/// | [`heartbeat`](Self::heartbeat) | 1 s |
#[derive(Clone, Copy, Debug)]
pub struct TierSettings {
    pub(super) near_ttl: Duration,
    pub(super) write_behind: Option<usize>,
    pub(super) heartbeat: Duration,
}

impl RedisStoreSettings {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            name: "cache",
            prefix: "buttress:cache",
            max_bytes: 1 << 20,
            max_life: Duration::from_secs(86_400),
            longest_load: Duration::from_secs(60),
            invalidation: Invalidation::Tracking,
            single_load: None,
        }
    }

    /// The name in events and metrics, best that of the cache. Defaults to `"cache"`.
    #[must_use]
    pub const fn name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// What all keys in Redis begin with; to clear one cache is to forget all of its prefix. Defaults to `"buttress:cache"`.
    #[must_use]
    pub const fn prefix(mut self, prefix: &'static str) -> Self {
        self.prefix = prefix;
        self
    }

    /// How large an entry may be in Redis, with all that is kept beside it. A larger one stays in this process. Defaults to 1 MiB.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How long an entry is in Redis at most, whatever its ttl, and the mark of an invalidated tag at least. Defaults to a day.
    #[must_use]
    pub const fn max_life(mut self, life: Duration) -> Self {
        self.max_life = life;
        self
    }

    /// For so long an invalidation is remembered in the place of its entry, because a load that had begun before must not store what it found: longer
    /// than the [`hard_timeout`](crate::cache::CacheSettings::hard_timeout) of all who share the cache. Defaults to 60 s.
    #[must_use]
    pub const fn longest_load(mut self, longest: Duration) -> Self {
        self.longest_load = longest;
        self
    }

    /// How changes are told to other processes. Defaults to [`Invalidation::Tracking`].
    #[must_use]
    pub const fn invalidation(mut self, invalidation: Invalidation) -> Self {
        self.invalidation = invalidation;
        self
    }

    /// One process loads an entry for all. It spares the dependency, and is no lock: who has waited long enough loads too. Defaults to no.
    #[must_use]
    pub const fn single_load(mut self, single: SingleLoad) -> Self {
        self.single_load = Some(single);
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let checks = [
            (!self.prefix.is_empty(), "prefix", "must not be empty"),
            (!self.prefix.contains(['{', '}']), "prefix", "must have no braces: they decide on the slot"),
            (self.max_bytes > 0, "max_bytes", "must not be zero"),
            (self.max_life >= LEAST && self.max_life <= MOST, "max_life", "must be from a millisecond to 100 years"),
            (
                self.longest_load >= LEAST && self.longest_load <= MOST,
                "longest_load",
                "must be from a millisecond to 100 years",
            ),
        ];
        if let Some(SingleLoad { wait, hold }) = self.single_load {
            if hold < LEAST || hold > MOST {
                return Err(ConfigError::new("hold", "must be from a millisecond to 100 years"));
            }
            if wait.is_zero() {
                return Err(ConfigError::new("wait", "must not be zero"));
            }
        }
        checks
            .into_iter()
            .find(|(is_well, ..)| !is_well)
            .map_or(Ok(()), |(_, field, why)| Err(ConfigError::new(field, why)))
    }
}

/// Redis counts in milliseconds, and its scripts in doubles.
const LEAST: Duration = Duration::from_millis(1);
const MOST: Duration = Duration::from_secs(100 * 365 * 86_400);

impl Default for RedisStoreSettings {
    fn default() -> Self {
        Self::new()
    }
}

impl SingleLoad {
    /// The others wait for 5 s at most, and the lease of one that died ends after 10 s.
    #[must_use]
    pub const fn new() -> Self {
        Self { wait: Duration::from_secs(5), hold: Duration::from_secs(10) }
    }

    /// How long a process waits for another one's load before it loads itself. Defaults to 5 s.
    #[must_use]
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How long a lease lasts that is not given back, because its process died: longer than most loads. Defaults to 10 s.
    #[must_use]
    pub const fn hold(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }
}

impl Default for SingleLoad {
    fn default() -> Self {
        Self::new()
    }
}

impl TierSettings {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self { near_ttl: Duration::from_secs(60), write_behind: None, heartbeat: Duration::from_secs(1) }
    }

    /// How long an entry is fresh near at most: the bound on what nobody told. Never longer than it is in Redis. Defaults to 60 s.
    #[must_use]
    pub const fn near_ttl(mut self, ttl: Duration) -> Self {
        self.near_ttl = ttl;
        self
    }

    /// Writes are done one after the other by a task of their own, of which so many may wait; who finds no place is not written. A put then waits for
    /// nothing. Invalidations are never among them. Defaults to each write in the task that it belongs to.
    #[must_use]
    pub const fn write_behind(mut self, places: usize) -> Self {
        self.write_behind = Some(places);
        self
    }

    /// How often the connection that tells of changes is asked whether it is one. Defaults to 1 s.
    #[must_use]
    pub const fn heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = every;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.near_ttl.is_zero() {
            return Err(ConfigError::new("near_ttl", "must not be zero"));
        }
        if self.write_behind.is_some_and(|places| places == 0 || places > MOST_PLACES) {
            return Err(ConfigError::new("write_behind", "must be from 1 to 1,000,000"));
        }
        if self.heartbeat.is_zero() {
            return Err(ConfigError::new("heartbeat", "must not be zero"));
        }
        Ok(())
    }
}

const MOST_PLACES: usize = 1_000_000;

impl Default for TierSettings {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_errors() {
        const BASE: RedisStoreSettings = RedisStoreSettings::new();
        let single = SingleLoad::new();
        let rows = [
            ("prefix", BASE.prefix("")),
            ("prefix", BASE.prefix("a{b}")),
            ("max_bytes", BASE.max_bytes(0)),
            ("max_life", BASE.max_life(Duration::ZERO)),
            ("max_life", BASE.max_life(Duration::MAX)),
            ("longest_load", BASE.longest_load(Duration::from_micros(999))),
            ("longest_load", BASE.longest_load(Duration::MAX)),
            ("wait", BASE.single_load(single.wait(Duration::ZERO))),
            ("hold", BASE.single_load(single.hold(Duration::ZERO))),
            ("hold", BASE.single_load(single.hold(Duration::MAX))),
        ];
        for (field, settings) in rows {
            assert_eq!(settings.check().unwrap_err().field(), field);
        }
        assert_eq!(BASE.single_load(single).check(), Ok(()));

        const TIER: TierSettings = TierSettings::new();
        let rows = [
            ("near_ttl", TIER.near_ttl(Duration::ZERO)),
            ("write_behind", TIER.write_behind(0)),
            ("write_behind", TIER.write_behind(usize::MAX)),
            ("heartbeat", TIER.heartbeat(Duration::ZERO)),
        ];
        for (field, settings) in rows {
            assert_eq!(settings.check().unwrap_err().field(), field);
        }
        assert_eq!(TIER.write_behind(1).check(), Ok(()));
    }
}
