//! State per key: bounded, sharded, least recently used leaves first.
//!
//! Keys come from requests, so a stranger chooses them. Three things follow:
//!
//! * the number of keys is bounded, and memory with it;
//! * a key's hash cannot be predicted (SipHash with a random seed);
//! * the user's `Hash` runs before a lock is taken and `Drop` after it is released; only `Eq` runs under it, and its panic poisons nothing.
//!
//! A value may say that it must not be forgotten yet, or only if need be. To make room a call asks the least recently used, at most [`ASKED`]
//! of them, so that its cost does not grow with the number of keys. Who stays gets another turn; when nobody may leave, the new key gets no
//! place.

#[cfg(feature = "rate-limit")]
pub(crate) mod cells;
#[cfg(feature = "rate-limit")]
mod hash;
#[cfg(feature = "rate-limit")]
pub(crate) mod words;

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

use lru::LruCache;

use crate::sync::Mutex;

/// How many values a call asks to leave.
const ASKED: usize = 16;
/// Enough for two busy threads to seldom meet.
const MOST_SHARDS: usize = 16;
/// Below this many keys a shard is too small for its share of the keys to be even.
const SHARD: usize = 256;

/// Whether a value may be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    Gladly,
    IfNeedBe,
    No,
}

/// A map from keys to values that are cheap to clone.
pub(crate) struct Keyed<K, V> {
    shards: Box<[Shard<K, V>]>,
    hasher: RandomState,
    max_keys: usize,
}

struct Shard<K, V> {
    room: usize,
    map: Mutex<LruCache<Hashed<K>, V, BuildHasherDefault<AsItIs>>>,
}

/// A key with its hash, so that the map need not run the user's `Hash`.
struct Hashed<K> {
    hash: u64,
    key: K,
}

/// The hasher of what is hashed already.
#[derive(Default)]
struct AsItIs(u64);

impl<K: Hash + Eq, V: Clone> Keyed<K, V> {
    pub(crate) fn new(max_keys: usize) -> Self {
        let shards = (max_keys / SHARD).clamp(1, MOST_SHARDS);
        let shard = |index| Shard {
            // The rooms add up to `max_keys`.
            room: max_keys / shards + usize::from(index < max_keys % shards),
            // Nothing is allocated for keys that may never come.
            map: Mutex::new(LruCache::unbounded_with_hasher(BuildHasherDefault::default())),
        };
        Self { shards: (0..shards).map(shard).collect(), hasher: RandomState::new(), max_keys }
    }

    pub(crate) const fn max_keys(&self) -> usize {
        self.max_keys
    }

    /// The value of this key, made by `make` when it has none. `None` when every place is taken by a value that may not leave.
    pub(crate) fn get_or_insert(&self, key: K, make: impl FnOnce() -> V, may_leave: impl Fn(&V) -> Leave) -> Option<V> {
        let (hashed, shard) = self.find(key);
        // Before the lock, so that they are dropped after it, whatever happens.
        let (mut asked, mut leaver) = (Vec::new(), None);
        let mut map = shard.map.lock();
        if let Some(value) = map.get(&hashed) {
            let value = value.clone();
            drop(map);
            return Some(value);
        }
        if map.len() >= shard.room {
            while asked.len() < ASKED
                && let Some((key, value)) = map.pop_lru()
            {
                let answer = may_leave(&value);
                asked.push((answer, key, value));
                if answer == Leave::Gladly {
                    break;
                }
            }
            let position = |wanted| asked.iter().position(|(answer, ..)| *answer == wanted);
            if let Some(leaves) = position(Leave::Gladly).or_else(|| position(Leave::IfNeedBe)) {
                let (_, key, value) = asked.remove(leaves);
                leaver = Some((key, value));
            }
            for (_, key, value) in asked.drain(..) {
                map.push(key, value);
            }
            if leaver.is_none() {
                drop(map);
                drop(hashed);
                return None;
            }
        }
        let value = make();
        map.push(hashed, value.clone());
        drop(map);
        drop(leaver);
        Some(value)
    }

    /// The value of this key, if it has one. Does not count as a use.
    pub(crate) fn peek(&self, key: K) -> Option<V> {
        let (hashed, shard) = self.find(key);
        let value = shard.map.lock().peek(&hashed).cloned();
        drop(hashed);
        value
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.map.lock().len()).sum()
    }

    /// Every value, without keys. Each shard is locked in its turn.
    pub(crate) fn values(&self) -> Vec<V> {
        self.shards
            .iter()
            .flat_map(|shard| shard.map.lock().iter().map(|(_, value)| value.clone()).collect::<Vec<_>>())
            .collect()
    }

    fn find(&self, key: K) -> (Hashed<K>, &Shard<K, V>) {
        let hash = self.hasher.hash_one(&key);
        // The map goes by the lowest and the highest bits; the shard by those between.
        let shard = &self.shards[(hash >> 32) as usize % self.shards.len()];
        (Hashed { hash, key }, shard)
    }
}

impl<K> Hash for Hashed<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<K: Eq> PartialEq for Hashed<K> {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.key == other.key
    }
}

impl<K: Eq> Eq for Hashed<K> {}

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only a finished hash is written")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    #[test]
    fn the_least_recently_used_leaves_first() {
        let keyed = Keyed::new(3);
        let get = |key| keyed.get_or_insert(key, || key, |_| Leave::Gladly);
        for key in [1, 2, 3, 1, 4] {
            assert_eq!(get(key), Some(key));
        }
        assert_eq!([1, 2, 3, 4].map(|key| keyed.peek(key)), [Some(1), None, Some(3), Some(4)]);
    }

    #[test]
    fn what_must_not_leave_stays_and_the_newcomer_gets_no_place() {
        let keyed = Keyed::new(2);
        let get =
            |key| keyed.get_or_insert(key, || key, |kept: &u32| if *kept % 2 == 1 { Leave::Gladly } else { Leave::No });
        assert_eq!((get(2), get(3)), (Some(2), Some(3)));
        assert_eq!(get(4), Some(4), "3 may leave although 2 is older");
        assert_eq!(get(5), None);
        assert_eq!((keyed.len(), keyed.peek(2), keyed.peek(4)), (2, Some(2), Some(4)));
    }

    #[test]
    fn who_may_leave_only_if_need_be_leaves_after_who_leaves_gladly() {
        let keyed = Keyed::new(3);
        let by_number = |kept: &u32| match kept {
            1 => Leave::IfNeedBe,
            2 => Leave::No,
            _ => Leave::Gladly,
        };
        let get = |key| keyed.get_or_insert(key, || key, by_number);
        for key in [1, 2, 3, 4] {
            assert_eq!(get(key), Some(key));
        }
        assert_eq!([1, 2, 3, 4].map(|key| keyed.peek(key).is_some()), [true, true, false, true]);
        let keyed = Keyed::new(2);
        let get = |key| keyed.get_or_insert(key, || key, by_number);
        assert_eq!([get(2), get(1), get(5)], [Some(2), Some(1), Some(5)]);
        assert_eq!([1, 2, 5].map(|key| keyed.peek(key).is_some()), [false, true, true]);
    }

    #[test]
    fn a_million_keys_keep_to_the_bound() {
        for max_keys in [1, 1_000, 10_007] {
            let keyed = Keyed::new(max_keys);
            for key in 0..1_000_000_u32 {
                keyed.get_or_insert(key, || (), |()| Leave::Gladly).unwrap();
            }
            assert_eq!(keyed.len(), max_keys);
        }
    }

    #[test]
    fn a_huge_bound_allocates_nothing_in_advance() {
        let made = allocation_counter::measure(|| drop(Keyed::<u64, u64>::new(usize::MAX)));
        assert!(made.bytes_max < 64 * 1024, "{made:?}");
    }

    /// A key whose `Eq` panics when told to, and whose `Drop` looks into the map.
    struct Nasty<'a> {
        id: u32,
        panics: &'a AtomicBool,
        drops: &'a AtomicUsize,
    }

    impl Hash for Nasty<'_> {
        fn hash<H: Hasher>(&self, state: &mut H) {
            state.write_u32(0);
        }
    }

    impl PartialEq for Nasty<'_> {
        fn eq(&self, other: &Self) -> bool {
            assert!(!self.panics.load(Ordering::Relaxed), "Eq");
            self.id == other.id
        }
    }

    impl Eq for Nasty<'_> {}

    impl Drop for Nasty<'_> {
        fn drop(&mut self) {
            self.drops.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn colliding_keys_and_a_panicking_eq_leave_the_map_whole() {
        let (panics, drops) = (AtomicBool::new(false), AtomicUsize::new(0));
        let keyed = Keyed::new(100);
        let get = |id| {
            let key = Nasty { id, panics: &panics, drops: &drops };
            keyed.get_or_insert(key, || id, |_| Leave::Gladly)
        };
        for id in 0..50 {
            assert_eq!(get(id), Some(id));
        }
        panics.store(true, Ordering::Relaxed);
        assert!(catch_unwind(AssertUnwindSafe(|| get(7))).is_err());
        panics.store(false, Ordering::Relaxed);
        for id in 0..50 {
            assert_eq!(get(id), Some(id));
        }
        assert_eq!(keyed.len(), 50);
        let keys_made = 50 + 1 + 50;
        drop(keyed);
        assert_eq!(drops.load(Ordering::Relaxed), keys_made);
    }

    #[test]
    fn a_key_that_looks_into_the_map_when_dropped_does_not_deadlock() {
        use std::{
            cell::Cell,
            rc::{Rc, Weak},
        };
        struct Looks(u32, Cell<Weak<Keyed<Self, u32>>>);
        impl Hash for Looks {
            fn hash<H: Hasher>(&self, state: &mut H) {
                state.write_u32(self.0);
            }
        }
        impl PartialEq for Looks {
            fn eq(&self, other: &Self) -> bool {
                self.0 == other.0
            }
        }
        impl Eq for Looks {}
        impl Drop for Looks {
            fn drop(&mut self) {
                if let Some(keyed) = self.1.take().upgrade() {
                    keyed.len();
                }
            }
        }
        let keyed = Rc::new(Keyed::new(2));
        for id in [1, 2, 3, 3, 1, 9] {
            let key = Looks(id, Cell::new(Rc::downgrade(&keyed)));
            keyed.get_or_insert(key, || id, |_| Leave::Gladly);
        }
        assert_eq!(keyed.len(), 2);
    }
}
