//! What is counted of a cache in Redis.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a cache's far half did since it was made. What was asked and not answered is an error, and no miss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisStoreStats {
    /// Entries that were found, stale ones included.
    pub hits: u64,
    /// Questions that were answered with nothing of use.
    pub misses: u64,
    /// Those of them for which there was something that no such cache wrote, or no value of this type.
    pub foreign: u64,
    /// Questions and writes without an answer, those that were not asked while Redis was known to be away included.
    pub errors: u64,
    /// Entries that were written.
    pub writes: u64,
    /// Entries that Redis did not take, because they were invalidated or replaced while they were loaded, or because it had not answered before the load.
    pub refused: u64,
    /// Entries that were too large, or had no form in bytes.
    pub unfit: u64,
    /// Entries that found no place in the queue of those to be written.
    pub dropped: u64,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) hits: Count,
    pub(super) misses: Count,
    pub(super) foreign: Count,
    pub(super) errors: Count,
    pub(super) writes: Count,
    pub(super) refused: Count,
    pub(super) unfit: Count,
    pub(super) dropped: Count,
}

#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counts {
    pub(super) fn look(&self) -> RedisStoreStats {
        RedisStoreStats {
            hits: self.hits.get(),
            misses: self.misses.get(),
            foreign: self.foreign.get(),
            errors: self.errors.get(),
            writes: self.writes.get(),
            refused: self.refused.get(),
            unfit: self.unfit.get(),
            dropped: self.dropped.get(),
        }
    }
}
