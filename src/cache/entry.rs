//! What is kept of an answer.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

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
    /// What the far half said when its load began.
    pub seen: Option<Seen>,
}

/// What the far half of a store said of a key when its load began: a note of the store's to itself, which the cache hands back with the entry. Clones are
/// the same note.
#[derive(Clone)]
pub struct Seen(Arc<dyn Any + Send + Sync>);

/// An entry that is found again as long as somebody has it.
pub struct WeakEntry<V>(Weak<Kept<V>>);

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
    far: Option<Box<Far>>,
}

/// What only an entry has that has to do with a far half.
struct Far {
    seen: Option<Seen>,
    /// It is fresh until then where it is far.
    fresh_until: Instant,
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
/// Gone, wherever it still is.
const VOID: u64 = 3;
/// Stale before its time.
const AGED: u64 = 4;

impl Seen {
    /// A note.
    pub fn new<T: Any + Send + Sync>(note: T) -> Self {
        Self(Arc::new(note))
    }

    /// The note, if it is of this type.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen").finish_non_exhaustive()
    }
}

impl Envelope {
    /// Of a value that was stored now, with this ttl, and nothing else.
    #[must_use]
    pub fn new(ttl: Duration) -> Self {
        let zero = Duration::ZERO;
        Self { age: zero, ttl, max_stale: zero, cost: zero, tags: Arc::new([]), generation: 0, seen: None }
    }
}

impl<V> Entry<V> {
    /// An entry that a store has kept elsewhere. The cache that fetched it gives it the generation of its load.
    #[must_use]
    pub fn new(value: V, envelope: Envelope) -> Self {
        let now = time::now();
        let Envelope { age, ttl, max_stale, cost, tags, generation, seen } = envelope;
        let stored = now.saturating_sub(age);
        let fresh_until = stored.saturating_add(ttl);
        let stale_until = fresh_until.saturating_add(max_stale);
        let times = Times { fresh_until, stale_until, created: stored.saturating_sub(cost), stored };
        Self::provisional(Content::Value(value), times, generation, tags).with_far(seen, None, now)
    }

    /// Fresh near for no longer than this from now, as long as nobody else has it: what the far half is told does not change.
    #[must_use]
    pub fn near_for(self, ttl: Duration) -> Self {
        let seen = self.0.far.as_ref().and_then(|far| far.seen.clone());
        self.with_far(seen, Some(ttl), time::now())
    }

    /// With this note, as long as nobody else has it.
    #[must_use]
    pub fn with_seen(self, seen: Seen) -> Self {
        self.with_far(Some(seen), None, time::now())
    }

    /// Nobody is answered with it any more.
    pub fn void(&self) {
        // No plain store: in the model one is overtaken by an exchange that had read before it.
        self.0.standing.swap(VOID, Ordering::AcqRel);
    }

    /// It is stale at once: served only as far as the settings allow it for one that is, and gone where they do not. One that is being stored is void.
    pub fn age(&self) {
        loop {
            let is = self.0.standing.load(Ordering::Acquire);
            let becomes = match is {
                PROVISIONAL => VOID,
                CONFIRMED | REFRESHING => AGED,
                _ => return,
            };
            if self.moves(is, becomes) {
                return;
            }
        }
    }

    /// The same entry, for who does not keep it.
    #[must_use]
    pub fn downgrade(&self) -> WeakEntry<V> {
        WeakEntry(Arc::downgrade(&self.0))
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
        let fresh_until = self.0.far.as_ref().map_or(times.fresh_until, |far| far.fresh_until);
        Envelope {
            age: time::now().saturating_since(times.stored),
            ttl: fresh_until.saturating_since(times.stored),
            max_stale: times.stale_until.saturating_since(fresh_until),
            cost: times.cost(),
            tags: self.tags().cloned().unwrap_or_else(|| Arc::new([])),
            generation: self.0.generation,
            seen: self.0.far.as_ref().and_then(|far| far.seen.clone()),
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

    /// Nobody is answered with it until it is [confirmed](Self::confirm).
    pub(super) fn provisional(
        content: Content<V>,
        times: Times,
        generation: u64,
        tags: impl AsRef<[Box<str>]> + Into<Tags>,
    ) -> Self {
        let has_tags = !tags.as_ref().is_empty();
        let tagged = has_tags.then(|| Box::new(Tagged { tags: tags.into(), outlived: AtomicU64::new(0) }));
        Self(Arc::new(Kept {
            standing: AtomicU64::new(PROVISIONAL),
            tagged,
            times,
            content,
            generation,
            throttled_until: AtomicU64::new(0),
            far: None,
        }))
    }

    /// With what has to do with a far half, as long as nobody else has it.
    pub(super) fn with_far(mut self, seen: Option<Seen>, near: Option<Duration>, now: Instant) -> Self {
        if (seen.is_some() || near.is_some())
            && let Some(kept) = Arc::get_mut(&mut self.0)
        {
            let fresh_until = kept.far.as_ref().map_or(kept.times.fresh_until, |far| far.fresh_until);
            kept.far = Some(Box::new(Far { seen, fresh_until }));
            if let Some(near) = near {
                kept.times.fresh_until = fresh_until.min(now.saturating_add(near));
            }
        }
        self
    }

    /// Whether it was this, and so is that now.
    fn moves(&self, is: u64, becomes: u64) -> bool {
        self.0.standing.compare_exchange(is, becomes, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub(super) fn confirm(&self) {
        self.moves(PROVISIONAL, CONFIRMED);
    }

    /// Neither before its time nor out of it.
    #[inline]
    pub(super) fn is_confirmed(&self) -> bool {
        matches!(self.0.standing.load(Ordering::Acquire), CONFIRMED | REFRESHING)
    }

    pub(super) fn is_aged(&self) -> bool {
        self.0.standing.load(Ordering::Acquire) == AGED
    }

    pub(super) fn is_refreshing(&self) -> bool {
        self.0.standing.load(Ordering::Relaxed) == REFRESHING
    }

    pub(super) fn refreshes(&self) {
        self.moves(CONFIRMED, REFRESHING);
    }

    /// Nobody loads it anew any more.
    pub(super) fn rests(&self) {
        self.moves(REFRESHING, CONFIRMED);
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

impl<V> WeakEntry<V> {
    /// The entry, if somebody still has it.
    #[must_use]
    pub fn upgrade(&self) -> Option<Entry<V>> {
        self.0.upgrade().map(Entry)
    }

    /// Whether nobody has it any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl<V> Clone for WeakEntry<V> {
    fn clone(&self) -> Self {
        Self(Weak::clone(&self.0))
    }
}

impl<V> fmt::Debug for WeakEntry<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakEntry").finish_non_exhaustive()
    }
}
