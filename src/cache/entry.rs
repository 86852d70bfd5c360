//! What is kept of an answer.

use std::{any::Any, fmt, sync::Arc, time::Duration};

use super::{keep::Tags, life::Times};
use crate::{
    error::Rejected,
    sync::{AtomicU64, Ordering},
    time::{self, Instant},
};

/// An answer that is kept, and its envelope. Clones are the same entry.
pub struct Entry<V>(Arc<Kept<V>>);

/// What a store that is not in this process keeps beside the value. All times are lengths, because an instant means nothing elsewhere.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Envelope {
    /// How long ago the value was stored first.
    pub age: Duration,
    /// How long it is fresh, from then.
    pub ttl: Duration,
    /// How long it may be served after that.
    pub max_stale: Duration,
    /// How long its load took.
    pub cost: Duration,
    /// The tags to invalidate it by.
    pub tags: Arc<[Box<str>]>,
    /// The number of its load in this process: what has a higher one is newer.
    pub generation: u64,
}

#[repr(C)] // What each hit looks at comes first, in as few cache lines as may be.
struct Kept<V> {
    /// What it is worth beside its times.
    standing: AtomicU64,
    tagged: Option<Box<Tagged>>,
    content: Content<V>,
    times: Times,
    generation: u64,
    /// Nobody asks for another one before.
    throttled_until: AtomicU64,
}

struct Tagged {
    tags: Tags,
    /// The number of invalidations by tag that it is known to have outlived.
    outlived: AtomicU64,
}

/// A value, or how its load failed for good: boxed, because it is larger than most values.
pub(super) enum Content<V> {
    Value(V),
    Failure(Box<Failure>),
}

/// A failure to share.
#[derive(Clone)]
pub(super) struct Failure {
    pub(super) rejected: Rejected,
    /// The error itself, where errors are shared.
    pub(super) error: Option<SharedError>,
}

pub(super) type SharedError = Arc<dyn Any + Send + Sync>;

/// In the store before it is known whether it was invalidated while it was loaded: nobody sees it yet.
const PROVISIONAL: u64 = 0;
const CONFIRMED: u64 = 1;
/// Confirmed, and being loaded anew.
const REFRESHING: u64 = 2;

impl Envelope {
    /// Of a value that was stored now, with this ttl, and nothing else.
    #[must_use]
    pub fn new(ttl: Duration) -> Self {
        let zero = Duration::ZERO;
        Self { age: zero, ttl, max_stale: zero, cost: zero, tags: Arc::new([]), generation: 0 }
    }
}

impl<V> Entry<V> {
    /// An entry that a store has kept elsewhere. The cache that fetched it gives it the generation of its load.
    #[must_use]
    pub fn new(value: V, envelope: Envelope) -> Self {
        let now = time::now();
        let Envelope { age, ttl, max_stale, cost, tags, generation } = envelope;
        let stored = now.saturating_sub(age);
        let fresh_until = stored.saturating_add(ttl);
        let stale_until = fresh_until.saturating_add(max_stale);
        let times = Times { fresh_until, stale_until, created: stored.saturating_sub(cost), stored };
        Self::provisional(Content::Value(value), times, generation, tags)
    }

    /// The value. `None` where it is remembered that there is none: that is not to leave the process.
    #[must_use]
    pub fn value(&self) -> Option<&V> {
        match &self.0.content {
            Content::Value(value) => Some(value),
            Content::Failure(_) => None,
        }
    }

    /// What is kept beside the value.
    #[must_use]
    pub fn envelope(&self) -> Envelope {
        let times = self.0.times;
        Envelope {
            age: time::now().saturating_since(times.stored),
            ttl: times.fresh_until.saturating_since(times.stored),
            max_stale: times.stale_until.saturating_since(times.fresh_until),
            cost: times.cost(),
            tags: self.tags().cloned().unwrap_or_else(|| Arc::new([])),
            generation: self.0.generation,
        }
    }

    /// The number of its load in this process: what has a higher one is newer.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// Whether it has passed all its time, so that it only takes room.
    #[must_use]
    pub fn has_expired(&self) -> bool {
        self.has_expired_at(time::now())
    }

    /// Whether both are the same entry.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn provisional(content: Content<V>, times: Times, generation: u64, tags: Tags) -> Self {
        let tagged = (!tags.is_empty()).then(|| Box::new(Tagged { tags, outlived: AtomicU64::new(0) }));
        Self(Arc::new(Kept {
            standing: AtomicU64::new(PROVISIONAL),
            tagged,
            times,
            content,
            generation,
            throttled_until: AtomicU64::new(0),
        }))
    }

    pub(super) fn confirm(&self) {
        self.0.standing.store(CONFIRMED, Ordering::Release);
    }

    #[inline]
    pub(super) fn is_confirmed(&self) -> bool {
        self.0.standing.load(Ordering::Acquire) != PROVISIONAL
    }

    pub(super) fn is_refreshing(&self) -> bool {
        self.0.standing.load(Ordering::Relaxed) == REFRESHING
    }

    pub(super) fn refreshes(&self) {
        self.0.standing.store(REFRESHING, Ordering::Release);
    }

    /// Nobody loads it anew any more.
    pub(super) fn rests(&self) {
        self.0.standing.store(CONFIRMED, Ordering::Release);
    }

    /// With another generation, as long as nobody else has it.
    pub(super) fn of_generation(mut self, generation: u64) -> Self {
        if let Some(kept) = Arc::get_mut(&mut self.0) {
            kept.generation = generation;
        }
        self
    }

    pub(super) fn throttle(&self, until: Instant) {
        self.0.throttled_until.store(until.as_nanos(), Ordering::Relaxed);
    }

    pub(super) fn is_throttled(&self, now: Instant) -> bool {
        now < Instant::from_nanos(self.0.throttled_until.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn times(&self) -> &Times {
        &self.0.times
    }

    #[inline]
    pub(super) fn content(&self) -> &Content<V> {
        &self.0.content
    }

    pub(super) fn tags(&self) -> Option<&Tags> {
        self.0.tagged.as_ref().map(|tagged| &tagged.tags)
    }

    /// `None` without tags.
    #[inline]
    pub(super) fn outlived(&self) -> Option<&AtomicU64> {
        self.0.tagged.as_ref().map(|tagged| &tagged.outlived)
    }

    pub(super) fn has_expired_at(&self, now: Instant) -> bool {
        now >= self.0.times.stale_until
    }
}

impl<V> Clone for Entry<V> {
    #[inline]
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V> fmt::Debug for Entry<V> {
    /// Without the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("generation", &self.generation()).finish_non_exhaustive()
    }
}
