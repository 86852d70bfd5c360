//! The store in memory, in shards.

use std::{
    fmt,
    hash::{BuildHasher, Hash},
};

use lru::DefaultHasher;

use super::{
    entry::Entry,
    hashed::Hashed,
    least_recent::LeastRecent,
    policy::{CacheSettings, Room},
    replacement::{Held, Left, Replacement},
    store::{Done, Nowhere, Put, Store, Usage, nowhere},
};
use crate::{error::ConfigError, sync::Mutex, time};

/// A [`Store`] in the memory of this process, bounded by entries and by what they weigh. Nothing is allocated in advance.
///
/// The least recently used leaves first: of all, or in a large store of one shard in sixteen, which has its share of the room. What has expired leaves when it is looked for, when its place is taken, and when it is among the least
/// recently used two while another is stored.
///
/// Keys are hashed by foldhash with a random seed, which a stranger who sees only answers cannot predict; one who can
/// measure each look-up to the nanosecond could make some slower, and the bound on entries bounds that too.
pub type MemoryStore<K, V> = ShardedStore<K, V, LeastRecent<K, V>>;

/// What stores in memory have in common. `R` says which entry leaves first: see [`MemoryStore`].
pub struct ShardedStore<K, V, R> {
    shards: Box<[Shard<R>]>,
    hasher: DefaultHasher,
    weigher: Weigher<K, V>,
    room: Room,
}

type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;

struct Shard<R> {
    room: Room,
    entries: Mutex<R>,
}

/// Two threads with many keys get three times as much done as with one lock, and one thread as much.
const MOST_SHARDS: usize = 16;
/// Below this a shard's share is too small to be even, and the least recently used of all should leave.
const SHARD_ENTRIES: usize = 512;
/// The largest entry has room in a shard of this size at least, or there is only one.
const SHARD_BYTES: u64 = 1 << 22;

#[expect(private_bounds, reason = "which there are is for this crate to say")]
impl<K: Hash + Eq, V, R: Replacement<K, V>> ShardedStore<K, V, R> {
    /// With the room that the settings give, in which each entry weighs what its types do.
    ///
    /// # Errors
    ///
    /// No room at all.
    pub fn try_new(settings: CacheSettings) -> Result<Self, ConfigError> {
        Self::weighed(settings, |_, _| (size_of::<K>() + size_of::<V>()) as u64)
    }

    /// With a weigher: how many bytes a key and its value take, the heap's included. It runs once for each entry that is stored, under no lock.
    ///
    /// # Errors
    ///
    /// No room at all.
    pub fn weighed(
        settings: CacheSettings,
        weigher: impl Fn(&K, &V) -> u64 + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        settings.room.check()?;
        let Room { entries, bytes } = settings.room;
        let by_bytes = usize::try_from(bytes / SHARD_BYTES).unwrap_or(MOST_SHARDS);
        // A power of two, because a division would cost as much as a third of a look.
        let shards = 1 << (entries / SHARD_ENTRIES).min(by_bytes).clamp(1, MOST_SHARDS).ilog2();
        let shard = |index| {
            // The rooms add up to the whole.
            let room = Room {
                entries: entries / shards + usize::from(index < entries % shards),
                // The sum of what is there and of one more has room in its number.
                bytes: (bytes / shards as u64).min(u64::MAX / 2),
            };
            Shard { room, entries: Mutex::new(R::new(room)) }
        };
        Ok(Self {
            shards: (0..shards).map(shard).collect(),
            hasher: DefaultHasher::default(),
            weigher: Box::new(weigher),
            room: settings.room,
        })
    }

    #[inline]
    fn find<'a>(&self, key: &'a K) -> (Hashed<&'a K>, &Mutex<R>) {
        let hash = self.hasher.hash_one(key);
        (Hashed { hash, key }, &self.shard(hash).entries)
    }

    /// The map goes by the lowest and the highest bits; the shard by those between.
    #[inline]
    fn shard(&self, hash: u64) -> &Shard<R> {
        &self.shards[(hash >> 32) as usize & (self.shards.len() - 1)]
    }
}

impl<K, V, R> Store<K, V> for ShardedStore<K, V, R>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    R: Replacement<K, V> + 'static,
{
    type Fetch = Nowhere<V>;
    type Writing = Done;

    #[inline]
    fn get(&self, key: &K) -> Option<Entry<V>> {
        let (hashed, shard) = self.find(key);
        shard.lock().get(&hashed).map(|held| held.entry.clone())
    }

    fn fetch(&self, _: &K) -> Nowhere<V> {
        nowhere()
    }

    fn put(&self, key: K, entry: Entry<V>) -> Put<Done> {
        let weight = entry.value().map_or(size_of::<K>() as u64, |value| (self.weigher)(&key, value));
        let hash = self.hasher.hash_one(&key);
        let mut put = Put { writing: Done, evicted: 0, expired: 0, too_large: false };
        let now = time::now();
        // Before the lock, so that they are dropped after it, whatever happens.
        let (mut left, mut before, key) = (Left::default(), None, Hashed { hash, key });
        let mut shard = self.shard(hash).entries.lock();
        let look = Hashed { hash, key: &key.key };
        put.too_large = weight > shard.heaviest();
        if let Some(held) = shard.peek(&look) {
            if held.entry.generation() > entry.generation() {
                drop(shard);
                return put;
            }
            before = Some(held.entry.clone());
        }
        if put.too_large {
            if let Some(gone) = shard.take(&look) {
                left.push(gone);
            }
            drop(shard);
            return put;
        }
        shard.put(key, Held { entry, weight }, now, &mut left);
        drop(shard);
        for Held { entry, .. } in left.iter() {
            if !before.as_ref().is_some_and(|before| entry.is(before)) {
                *if entry.has_expired_at(now) { &mut put.expired } else { &mut put.evicted } += 1;
            }
        }
        put
    }

    fn expire(&self, key: &K, entry: &Entry<V>) {
        let (hashed, shard) = self.find(key);
        let mut left = None;
        let mut shard = shard.lock();
        if shard.peek(&hashed).is_some_and(|held| held.entry.is(entry)) {
            left = shard.take(&hashed);
        }
        drop(shard);
        drop(left);
    }

    fn remove(&self, key: &K) -> Done {
        let (hashed, shard) = self.find(key);
        let left = shard.lock().take(&hashed);
        drop(left);
        Done
    }

    fn remove_tag(&self, _: &str) -> Done {
        Done
    }

    fn clear(&self) -> Done {
        let left = self.shards.iter().map(|shard| std::mem::replace(&mut *shard.entries.lock(), R::new(shard.room)));
        // All are empty before anything is dropped, whose code may panic.
        drop(left.collect::<Vec<_>>());
        Done
    }

    fn usage(&self) -> Usage {
        self.shards.iter().map(|shard| shard.entries.lock().usage()).fold(Usage::default(), |sum, usage| Usage {
            entries: sum.entries + usage.entries,
            bytes: sum.bytes.saturating_add(usage.bytes),
        })
    }
}

impl<K, V, R> fmt::Debug for ShardedStore<K, V, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedStore").field("room", &self.room).finish_non_exhaustive()
    }
}
