//! A cache whose entries are in Redis alone.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    codec::{Bytes, Codec},
    far::Far,
    lanes::Lanes,
    names::digest_of_tag,
    store_policy::RedisStoreSettings,
    store_stats::RedisStoreStats,
};
use crate::{
    cache::{CacheKey, Entry, Fetched, Put, Store, Usage},
    error::{BoxError, ConfigError},
    event::Event,
    time,
};

/// A [`Store`] in Redis, without memory in front of it: each call asks Redis, and one at a time for a key. Clones are handles of the same one.
///
/// See the [module docs](crate::redis#a-cache).
pub struct RedisStore<V, C = Bytes> {
    pub(super) far: Arc<Far<V, C>>,
}

/// What Redis will have of an entry.
#[must_use = "futures do nothing unless polled"]
pub struct Fetching<V>(pub(super) Pin<Box<dyn Future<Output = Fetched<V>> + Send>>);

/// What is left to do in Redis. It always ends, within the deadline of the lanes.
#[must_use = "futures do nothing unless polled"]
pub struct Writing(pub(super) Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>);

impl<V: Send + Sync + 'static, C: Codec<V>> RedisStore<V, C> {
    /// Over these lanes. Nothing is connected before the first question.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_new(lanes: &Lanes, settings: RedisStoreSettings, codec: C) -> Result<Self, ConfigError> {
        Ok(Self { far: Arc::new(Far::try_new(lanes, settings, codec)?) })
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> RedisStoreStats {
        self.far.counts.look()
    }

    /// Whether the last question had no answer.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.far.is_away()
    }

    /// Tells `listener` of every [`Event`] from now on, under no lock.
    pub fn on_event(&self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        self.far.events.listen(listener);
    }
}

impl<V: Send + Sync + 'static, C: Codec<V>> Store<CacheKey, V> for RedisStore<V, C> {
    type Fetch = Fetching<V>;
    type Writing = Writing;

    fn get(&self, _: &CacheKey) -> Option<Entry<V>> {
        None
    }

    fn fetch(&self, key: &CacheKey) -> Fetching<V> {
        Fetching(Box::pin(Arc::clone(&self.far).fetch(key.digest(), None)))
    }

    fn put(&self, key: CacheKey, entry: Entry<V>) -> Put<Writing> {
        let (far, digest, stamp) = (Arc::clone(&self.far), key.digest(), (self.far.stamp(), time::now()));
        let writing = Writing(Box::pin(async move { far.write(&digest, &entry, stamp).await }));
        Put { writing, evicted: 0, expired: 0, too_large: false }
    }

    fn expire(&self, _: &CacheKey, _: &Entry<V>) {}

    fn remove(&self, key: &CacheKey) -> Writing {
        let (far, digest, stamp) = (Arc::clone(&self.far), key.digest(), self.far.stamp());
        Writing(Box::pin(async move { far.forget(&digest, stamp).await }))
    }

    fn remove_tag(&self, tag: &str) -> Writing {
        let (far, tag) = (Arc::clone(&self.far), digest_of_tag(tag));
        Writing(Box::pin(async move { far.forget_tag(&tag).await }))
    }

    fn clear(&self) -> Writing {
        let far = Arc::clone(&self.far);
        Writing(Box::pin(async move { far.forget_all().await }))
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}

impl<V> Future for Fetching<V> {
    type Output = Fetched<V>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl Future for Writing {
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<V> fmt::Debug for Fetching<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetching").finish_non_exhaustive()
    }
}

impl fmt::Debug for Writing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writing").finish_non_exhaustive()
    }
}

impl<V, C> Clone for RedisStore<V, C> {
    fn clone(&self) -> Self {
        Self { far: Arc::clone(&self.far) }
    }
}

impl<V, C> fmt::Debug for RedisStore<V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("settings", &self.far.settings).finish_non_exhaustive()
    }
}
