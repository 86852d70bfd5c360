//! Inspect, control, and use without tower.

use std::{fmt, hash::Hash, time::Duration};

use super::{
    keep::{Keep, Span},
    life,
    memory::MemoryStore,
    policy::CacheSettings,
    state::{State, uniform},
    stats::CacheStats,
    store::Store,
};
use crate::{error::ConfigError, event::Event, outcome::Outcome, shared::Shared};

/// A cache to look into and to change. Clones are handles of the same one, and so are the services of all its layers.
///
/// What writes does what is to be done in this process before it returns, and answers with the future of the rest, to be awaited where the store has a far half: a [`MemoryStore`] has none.
///
/// See the [module docs](crate::cache).
pub struct CacheHandle<K, V, St = MemoryStore<K, V>> {
    pub(super) state: Shared<State<K, V, St>>,
}

impl<K, V> CacheHandle<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// A cache in memory.
    ///
    /// # Panics
    ///
    /// If the settings cannot work; [`try_new`](Self::try_new) says so instead.
    #[must_use]
    #[track_caller]
    pub fn new(settings: CacheSettings) -> Self {
        match Self::try_new(settings) {
            Ok(handle) => handle,
            Err(error) => panic!("{error}"),
        }
    }

    /// A cache in memory.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_new(settings: CacheSettings) -> Result<Self, ConfigError> {
        Self::with_store(settings, MemoryStore::try_new(settings)?)
    }
}

impl<K, V, St> CacheHandle<K, V, St>
where
    K: Hash + Eq + Clone,
    St: Store<K, V>,
{
    /// A cache over this store.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn with_store(settings: CacheSettings, store: St) -> Result<Self, ConfigError> {
        State::try_new(settings, store).map(|state| Self { state: Shared::new(state) })
    }

    /// The value of this key while it is fresh, from what is near. Counts as no call.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<V>
    where
        V: Clone,
    {
        self.state.peek(key)?.value().cloned()
    }

    /// Puts a value there for the ttl of the settings. A load that is under way is not stored over it.
    pub fn put(&self, key: K, value: V) -> St::Writing {
        self.put_for(key, value, Keep::default())
    }

    /// Puts a value there for another ttl, or with tags. One that is not to be kept leaves nothing behind.
    pub fn put_for(&self, key: K, value: V, keep: impl Into<Keep>) -> St::Writing {
        let keep = keep.into();
        // As of one that was loaded.
        let max_stale = if keep.span == Span::Negative { Duration::ZERO } else { self.state.max_stale() };
        match life::ttl(Outcome::Success, keep.span, &self.state.settings, uniform()) {
            Some(ttl) => self.state.put(key, value, (ttl, max_stale), keep.tags),
            None => self.state.invalidate(&key),
        }
    }

    /// Forgets the entry of a key. Who comes after this gets nothing that was loaded before it: a load that is under way is not stored, and its
    /// answer goes only to those who wait for it already.
    pub fn invalidate(&self, key: &K) -> St::Writing {
        self.state.invalidate(key)
    }

    /// Forgets all entries with this tag, in one step however many there are, and those that are being loaded.
    #[expect(clippy::must_use_candidate, reason = "a store without a far half leaves nothing to do")]
    pub fn invalidate_tag(&self, tag: &str) -> St::Writing {
        self.state.invalidate_tag(tag)
    }

    /// Forgets all entries, and those that are being loaded.
    #[expect(clippy::must_use_candidate, reason = "a store without a far half leaves nothing to do")]
    pub fn clear(&self) -> St::Writing {
        self.state.clear()
    }

    /// What the cache has done so far, and what it keeps.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.state.stats()
    }
}

impl<K, V, St> CacheHandle<K, V, St> {
    /// The name in errors, events and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.state.settings.name
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &St {
        &self.state.store
    }

    /// Tells `listener` of every [`Event`] from now on, under no lock.
    pub fn on_event(&self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        self.state.events.listen(listener);
    }
}

impl<K, V, St> Clone for CacheHandle<K, V, St> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone() }
    }
}

impl<K, V, St> fmt::Debug for CacheHandle<K, V, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheHandle").field("state", &*self.state).finish()
    }
}
