//! Memory in front of Redis.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, task::JoinHandle};

use super::{
    behind::Behind,
    codec::{Bytes, Codec},
    far::{Far, Note},
    listener::{Hears, Listener},
    names::{Heard, digest_of_tag},
    store::{Fetching, RedisStore, Writing},
    store_policy::{Invalidation, TierSettings},
    store_stats::RedisStoreStats,
    watch::Watch,
};
use crate::{
    cache::{CacheKey, Done, Entry, MemoryStore, Put, Seen, Store, Usage},
    error::ConfigError,
    event::{Event, EventKind},
    sync::Mutex,
    time,
};

/// A [`Store`] in the memory of this process, and behind it in Redis. A hit in memory never leaves the process. Clones are handles of the same one.
///
/// See the [module docs](crate::redis#a-cache).
pub struct TieredStore<V, C = Bytes, N = MemoryStore<CacheKey, V>> {
    tiers: Arc<Tiers<V, C, N>>,
}

struct Tiers<V, C, N> {
    near: N,
    far: Arc<Far<V, C>>,
    watch: Watch<V>,
    settings: TierSettings,
    behind: Option<Behind>,
    listener: Mutex<Option<JoinHandle<()>>>,
    listens: AtomicBool,
}

impl<V, C, N> TieredStore<V, C, N>
where
    V: Send + Sync + 'static,
    C: Codec<V>,
    N: Store<CacheKey, V, Writing = Done>,
{
    /// This memory in front of this store.
    ///
    /// # Errors
    ///
    /// Settings that cannot work: [`Tracking`](Invalidation::Tracking) in a cluster, lanes of which it is not known
    /// [where to listen](super::Lanes::try_listening_at), and writes behind with a single load, whose others would not find it.
    pub fn try_new(near: N, far: RedisStore<V, C>, settings: TierSettings) -> Result<Self, ConfigError> {
        settings.check()?;
        let far = far.far;
        if settings.write_behind.is_some() && far.settings.single_load.is_some() {
            return Err(ConfigError::new("write_behind", "is not for a single load of a fleet"));
        }
        match far.settings.invalidation {
            Invalidation::Tracking if far.lanes().is_cluster() => {
                return Err(ConfigError::new("invalidation", "by tracking is not for a cluster: publish"));
            }
            Invalidation::Tracking | Invalidation::PubSub if far.lanes().listened().is_empty() => {
                return Err(ConfigError::new("invalidation", "needs to know where to listen"));
            }
            _ => {}
        }
        let tiers = Tiers {
            near,
            far,
            watch: Watch::new(),
            settings,
            behind: settings.write_behind.map(Behind::new),
            listener: Mutex::new(None),
            listens: AtomicBool::new(false),
        };
        Ok(Self { tiers: Arc::new(tiers) })
    }

    /// What the far half has done so far.
    #[must_use]
    pub fn stats(&self) -> RedisStoreStats {
        self.tiers.far.counts.look()
    }

    /// Whether the last question had no answer, so that there is only what is near.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.tiers.far.is_away()
    }

    /// Whether changes by others are told. It begins with the first question.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.tiers.listens.load(Ordering::Relaxed)
    }

    /// Tells `listener` of every [`Event`] of the far half from now on, under no lock.
    pub fn on_event(&self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        self.tiers.far.events.listen(listener);
    }
}

impl<V, C, N> Tiers<V, C, N>
where
    V: Send + Sync + 'static,
    C: Codec<V>,
    N: Store<CacheKey, V, Writing = Done>,
{
    /// What was still far away may have been found, and be near, since it was forgotten near. Tracking tells of that by itself, where it is heard.
    fn hear_oneself(&self, heard: Heard) {
        if self.far.settings.invalidation != Invalidation::Tracking || !self.listens.load(Ordering::Relaxed) {
            self.watch.heard(heard);
        }
    }

    /// Sees to it that there is one who listens.
    fn listen(self: &Arc<Self>) {
        if self.far.settings.invalidation == Invalidation::None {
            return;
        }
        let mut listener = self.listener.lock();
        // Its runtime may have ended.
        if listener.as_ref().is_some_and(|listener| !listener.is_finished()) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let this: Weak<Self> = Arc::downgrade(self);
        let hears: Weak<dyn Hears> = this;
        let made = Listener {
            servers: self.far.lanes().listened().to_vec(),
            invalidation: self.far.settings.invalidation,
            names: self.far.names,
            origin: self.far.origin,
            heartbeat: self.settings.heartbeat,
            connect_timeout: self.far.lanes().connect_timeout(),
            hears,
        };
        *listener = Some(runtime.spawn(made.run()));
    }
}

impl<V, C, N> Store<CacheKey, V> for TieredStore<V, C, N>
where
    V: Send + Sync + 'static,
    C: Codec<V>,
    N: Store<CacheKey, V, Writing = Done>,
{
    type Fetch = Fetching<V>;
    type Writing = Writing;

    #[inline]
    fn get(&self, key: &CacheKey) -> Option<Entry<V>> {
        self.tiers.near.get(key)
    }

    fn fetch(&self, key: &CacheKey) -> Fetching<V> {
        let tiers = &self.tiers;
        tiers.listen();
        let digest = key.digest();
        let flag = tiers.watch.begin(digest);
        let fetch = Arc::clone(&tiers.far).fetch(digest, Some(flag));
        let near_ttl = tiers.settings.near_ttl;
        Fetching(Box::pin(async move {
            let mut fetched = fetch.await;
            fetched.entry = fetched.entry.map(|entry| entry.near_for(near_ttl));
            fetched
        }))
    }

    fn put(&self, key: CacheKey, entry: Entry<V>) -> Put<Writing> {
        let tiers = &self.tiers;
        tiers.listen();
        let (digest, stamp, seen) = (key.digest(), tiers.far.stamp(), entry.envelope().seen);
        let note = seen.as_ref().and_then(Seen::get::<Note>);
        // What was found there is not written, and neither is what failed for good.
        let is_written = entry.value().is_some() && !note.is_some_and(|note| note.is_found);
        let echo = (is_written && tiers.far.settings.invalidation == Invalidation::Tracking).then_some(stamp);
        let admitted = tiers.watch.admit(digest, &entry, echo, note.and_then(|note| note.flag.as_ref()));
        let mut put = Put { writing: (), evicted: 0, expired: 0, too_large: false };
        if admitted {
            let Put { evicted, expired, too_large, .. } = tiers.near.put(key, entry.clone());
            put = Put { writing: (), evicted, expired, too_large };
        }
        let (this, far, stamp) = (Arc::clone(tiers), Arc::clone(&tiers.far), (stamp, time::now()));
        let writing = async move {
            match &this.behind {
                None => far.write(&digest, &entry, stamp).await,
                Some(behind) => {
                    let writes = Arc::clone(&far);
                    // It reports its own errors.
                    let job = async move { drop(writes.write(&digest, &entry, stamp).await) };
                    if !behind.enqueue(Box::pin(job)) {
                        far.counts.dropped.one();
                        far.events.emit(|| EventKind::StoreFailed { why: "full" });
                    }
                    Ok(())
                }
            }
        };
        let Put { evicted, expired, too_large, .. } = put;
        Put { writing: Writing(Box::pin(writing)), evicted, expired, too_large }
    }

    fn expire(&self, key: &CacheKey, entry: &Entry<V>) {
        self.tiers.near.expire(key, entry);
    }

    fn remove(&self, key: &CacheKey) -> Writing {
        let Done = self.tiers.near.remove(key);
        let (this, digest, stamp) = (Arc::clone(&self.tiers), key.digest(), self.tiers.far.stamp());
        Writing(Box::pin(async move {
            let done = this.far.forget(&digest, stamp).await;
            this.hear_oneself(Heard::Key(digest));
            done
        }))
    }

    fn remove_tag(&self, tag: &str) -> Writing {
        let (this, tag) = (Arc::clone(&self.tiers), digest_of_tag(tag));
        Writing(Box::pin(async move {
            let done = this.far.forget_tag(&tag).await;
            this.hear_oneself(Heard::Tag(tag));
            done
        }))
    }

    fn clear(&self) -> Writing {
        let Done = self.tiers.near.clear();
        let this = Arc::clone(&self.tiers);
        Writing(Box::pin(async move {
            let done = this.far.forget_all().await;
            this.hear_oneself(Heard::All);
            done
        }))
    }

    fn usage(&self) -> Usage {
        self.tiers.near.usage()
    }

    fn near_ttl(&self) -> Option<Duration> {
        Some(self.tiers.settings.near_ttl)
    }
}

impl<V, C, N> Hears for Tiers<V, C, N>
where
    V: Send + Sync + 'static,
    C: Codec<V>,
    N: Store<CacheKey, V, Writing = Done>,
{
    fn changed(&self, name: &[u8]) {
        let Some(suspect) = self.watch.heard(self.far.names.heard(name)) else { return };
        let Ok(runtime) = Handle::try_current() else {
            suspect.entry.upgrade().iter().for_each(Entry::void);
            return;
        };
        let far = Arc::clone(&self.far);
        runtime.spawn(async move {
            // Whatever is changed after this look is told after it too.
            if !far.is_still(&suspect.digest, suspect.stamp).await {
                suspect.entry.upgrade().iter().for_each(Entry::void);
            }
        });
    }

    fn all_changed(&self) {
        self.watch.heard(Heard::All);
    }

    fn listens(&self, listens: bool) {
        if listens || self.listens.load(Ordering::Relaxed) {
            self.watch.age();
        }
        self.listens.store(listens, Ordering::Relaxed);
    }
}

impl<V, C, N> Drop for Tiers<V, C, N> {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.lock().take() {
            listener.abort();
        }
    }
}

impl<V, C, N> Clone for TieredStore<V, C, N> {
    fn clone(&self) -> Self {
        Self { tiers: Arc::clone(&self.tiers) }
    }
}

impl<V, C, N: fmt::Debug> fmt::Debug for TieredStore<V, C, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("TieredStore");
        shown.field("near", &self.tiers.near).field("settings", &self.tiers.settings).finish_non_exhaustive()
    }
}
