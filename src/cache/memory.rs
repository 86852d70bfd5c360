//! The store in memory: the least recently used leaves first.

use std::{
    fmt,
    hash::{BuildHasher, Hash},
};

use lru::{DefaultHasher, LruCache};

use super::{
    entry::Entry,
    hashed::{BuildAsItIs, Hashed, Look},
    policy::{CacheSettings, Room},
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
pub struct MemoryStore<K, V> {
    shards: Box<[Part<K, V>]>,
    hasher: DefaultHasher,
    weigher: Weigher<K, V>,
    room: Room,
}

type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;

struct Part<K, V> {
    room: Room,
    inside: Mutex<Shard<K, V>>,
}

struct Shard<K, V> {
    map: LruCache<Hashed<K>, Held<V>, BuildAsItIs>,
    bytes: u64,
}

struct Held<V> {
    entry: Entry<V>,
    weight: u64,
}

/// Two threads with many keys get three times as much done as with one lock, and one thread as much.
const MOST_SHARDS: usize = 16;
/// Below this a shard's share is too small to be even, and the least recently used of all should leave.
const SHARD_ENTRIES: usize = 512;
/// The largest entry has room in a shard of this size at least, or there is only one.
const SHARD_BYTES: u64 = 1 << 22;

/// How many of the least recently used are asked whether they have expired when another is stored.
const ASKED: usize = 2;

impl<K: Hash + Eq, V> MemoryStore<K, V> {
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
        let shard = |index| Part {
            // The rooms add up to the whole.
            room: Room {
                entries: entries / shards + usize::from(index < entries % shards),
                // The sum of what is there and of one more has room in its number.
                bytes: (bytes / shards as u64).min(u64::MAX / 2),
            },
            inside: Mutex::new(Shard::new()),
        };
        Ok(Self {
            shards: (0..shards).map(shard).collect(),
            hasher: DefaultHasher::default(),
            weigher: Box::new(weigher),
            room: settings.room,
        })
    }
}

impl<K: Hash + Eq, V> Shard<K, V> {
    fn new() -> Self {
        Self { map: LruCache::unbounded_with_hasher(BuildAsItIs::default()), bytes: 0 }
    }
}

impl<K: Hash + Eq, V> MemoryStore<K, V> {
    #[inline]
    fn find<'a>(&self, key: &'a K) -> (Hashed<&'a K>, &Mutex<Shard<K, V>>) {
        let hash = self.hasher.hash_one(key);
        (Hashed { hash, key }, &self.part(hash).inside)
    }

    /// The map goes by the lowest and the highest bits; the shard by those between.
    #[inline]
    fn part(&self, hash: u64) -> &Part<K, V> {
        &self.shards[(hash >> 32) as usize & (self.shards.len() - 1)]
    }
}

impl<K, V> Store<K, V> for MemoryStore<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    type Fetch = Nowhere<V>;
    type Writing = Done;

    #[inline]
    fn get(&self, key: &K) -> Option<Entry<V>> {
        let (hashed, shard) = self.find(key);
        let mut shard = shard.lock();
        shard.map.get(&hashed as &dyn Look<K>).map(|held| held.entry.clone())
    }

    fn fetch(&self, _: &K) -> Nowhere<V> {
        nowhere()
    }

    fn put(&self, key: K, entry: Entry<V>) -> Put<Done> {
        let weight = entry.value().map_or(size_of::<K>() as u64, |value| (self.weigher)(&key, value));
        let hash = self.hasher.hash_one(&key);
        let Part { room, inside } = self.part(hash);
        let mut put = Put { writing: Done, evicted: 0, expired: 0, too_large: weight > room.bytes };
        let now = time::now();
        let hashed = Hashed { hash, key };
        // Before the lock, so that they are dropped after it, whatever happens.
        let (mut left, mut replaced) = (Vec::new(), None);
        let mut guard = inside.lock();
        let shard = &mut *guard;
        if shard.map.peek(&hashed as &dyn Look<K>).is_some_and(|held| held.entry.generation() > entry.generation()) {
            drop(guard);
            return put;
        }
        if put.too_large {
            replaced = shard.take(&Hashed { hash, key: &hashed.key });
            drop(guard);
            drop(replaced);
            return put;
        }
        if let Some((old_key, old)) = shard.map.push(hashed, Held { entry, weight }) {
            shard.bytes -= old.weight;
            replaced = Some((old_key, old));
        }
        shard.bytes = shard.bytes.saturating_add(weight);
        while shard.map.len() > room.entries || shard.bytes > room.bytes {
            let Some((key, held)) = shard.map.pop_lru() else { break };
            shard.bytes -= held.weight;
            *if held.entry.has_expired_at(now) { &mut put.expired } else { &mut put.evicted } += 1;
            left.push((key, held));
        }
        for _ in 0..ASKED {
            if shard.map.len() < 2 || !shard.map.peek_lru().is_some_and(|(_, held)| held.entry.has_expired_at(now)) {
                break;
            }
            let Some((key, held)) = shard.map.pop_lru() else { break };
            shard.bytes -= held.weight;
            put.expired += 1;
            left.push((key, held));
        }
        drop(guard);
        drop((left, replaced));
        put
    }

    fn expire(&self, key: &K, entry: &Entry<V>) {
        let (hashed, shard) = self.find(key);
        let mut guard = shard.lock();
        let mut left = None;
        if guard.map.peek(&hashed as &dyn Look<K>).is_some_and(|held| held.entry.is(entry)) {
            left = guard.take(&hashed);
        }
        drop(guard);
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
        let left = self.shards.iter().map(|part| std::mem::replace(&mut *part.inside.lock(), Shard::new()));
        // All are empty before anything is dropped, whose code may panic.
        drop(left.collect::<Vec<_>>());
        Done
    }

    fn usage(&self) -> Usage {
        self.shards.iter().fold(Usage::default(), |sum, part| {
            let shard = part.inside.lock();
            Usage { entries: sum.entries + shard.map.len(), bytes: sum.bytes.saturating_add(shard.bytes) }
        })
    }
}

impl<K: Eq, V> Shard<K, V> {
    fn take(&mut self, key: &Hashed<&K>) -> Option<(Hashed<K>, Held<V>)> {
        let left = self.map.pop_entry(key as &dyn Look<K>)?;
        self.bytes -= left.1.weight;
        Some(left)
    }
}

impl<K, V> fmt::Debug for MemoryStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("room", &self.room).finish_non_exhaustive()
    }
}
