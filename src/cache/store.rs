//! Where entries live.

use std::{
    any::Any,
    fmt,
    future::{Ready, ready},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use super::entry::{Entry, Seen};
use crate::error::BoxError;

/// Where entries live: what is at hand answers at once, and what is further away, later.
///
/// A store has a near half, in this process, and may have a far one. A hit looks into the near half only: [`get`](Self::get) waits for
/// nothing. The far half is asked by [`fetch`](Self::fetch), in the task of the load and so once for a key, before the inner service is. What is found there
/// is stored near by the cache.
///
/// Writes do what is to be done near before they return, and answer with the future of what is to be done far: it does nothing until it is
/// polled. Errors of the far half are the store's own to report: a cache works on without it.
///
/// A store need not look at the time, and an entry that is [new](Entry::generation) must not give way to an older one.
pub trait Store<K, V>: Send + Sync + 'static {
    /// What the far half will answer. [`Nowhere`] for a store that has none.
    type Fetch: Future<Output = Fetched<V>> + Send + 'static;
    /// What is left to do in the far half. [`Done`] for a store that has none.
    type Writing: Future<Output = Result<(), BoxError>> + Send + 'static;

    /// The entry that is near, however old. It is handed back as it was put: the cache knows it by itself.
    fn get(&self, key: &K) -> Option<Entry<V>>;

    /// The entry that is far, however old.
    fn fetch(&self, key: &K) -> Self::Fetch;

    /// Stores an entry, unless there is a newer one.
    fn put(&self, key: K, entry: Entry<V>) -> Put<Self::Writing>;

    /// Forgets this entry near, unless another one has taken its place.
    fn expire(&self, key: &K, entry: &Entry<V>);

    /// Forgets the entry of a key.
    fn remove(&self, key: &K) -> Self::Writing;

    /// Forgets all entries with this tag. A store that leaves it to the cache, which does not answer with them any more, does nothing near.
    fn remove_tag(&self, tag: &str) -> Self::Writing;

    /// Forgets all entries.
    fn clear(&self) -> Self::Writing;

    /// How much is near.
    fn usage(&self) -> Usage;

    /// How long an entry is fresh near at most. Defaults to as long as it is.
    fn near_ttl(&self) -> Option<Duration> {
        None
    }
}

/// What the far half of a [`Store`] answered.
pub struct Fetched<V> {
    /// What is there, however old.
    pub entry: Option<Entry<V>>,
    /// What the store will want to know when this load brings an entry.
    pub seen: Option<Seen>,
    /// Dropped when the load has ended, and its writing with it.
    pub hold: Option<Box<dyn Any + Send>>,
}

impl<V> From<Option<Entry<V>>> for Fetched<V> {
    fn from(entry: Option<Entry<V>>) -> Self {
        Self { entry, seen: None, hold: None }
    }
}

impl<V> fmt::Debug for Fetched<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched").field("entry", &self.entry).finish_non_exhaustive()
    }
}

/// What became of an entry that was put into a [`Store`].
#[derive(Debug)]
pub struct Put<W> {
    /// What is left to do in the far half.
    pub writing: W,
    /// How many entries left the near half to make room that had still been of use.
    pub evicted: u64,
    /// How many left that had not.
    pub expired: u64,
    /// Whether it was too large for the near half.
    pub too_large: bool,
}

/// How much a [`Store`] keeps near.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The number of entries.
    pub entries: usize,
    /// What they weigh.
    pub bytes: u64,
}

/// The future of a store without a far half: there is nothing to wait for, and need not be.
#[derive(Debug, Default)]
pub struct Done;

impl Future for Done {
    type Output = Result<(), BoxError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(()))
    }
}

/// The answer of a far half that a store does not have.
pub type Nowhere<V> = Ready<Fetched<V>>;

/// Nothing is there.
pub(super) fn nowhere<V>() -> Nowhere<V> {
    ready(None.into())
}
