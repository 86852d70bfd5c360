//! Small state per key, in the map itself: bounded, sharded, what may be forgotten without loss leaves.
//!
//! Where [`Keyed`](super::Keyed) hands out references to its values, this changes them in place, under the lock of their shard. So a value costs its
//! size, its key, its key's hash, and a byte.
//!
//! Who is idle is as a newcomer would be, so it leaves without loss: a hand goes round the table, two places with each newcomer, and further
//! when there is no more room. It asks a bounded number of values, so the cost of a call does not grow with the number of keys. When nobody it
//! asked may leave, the newcomer gets no place.

use std::hash::{BuildHasher, Hash, RandomState};

use hashbrown::HashTable;

use super::{ASKED, MOST_SHARDS};
use crate::sync::Mutex;

/// How many places are looked at for each newcomer while there is room: enough that what has become idle leaves faster than others come.
const SWEPT: usize = 2;
/// How many places are looked at when there is none; many may be empty in a table that has just grown.
const LOOKED_AT: usize = 8 * ASKED;
/// With so many keys a shard grows in less than a tenth of a millisecond.
const SHARD: usize = 1024;

pub(crate) struct Cells<K, V> {
    shards: Box<[Shard<K, V>]>,
    hasher: RandomState,
}

/// On a cache line of its own.
#[repr(align(64))]
struct Shard<K, V> {
    room: usize,
    table: Mutex<Table<K, V>>,
}

struct Table<K, V> {
    entries: HashTable<Entry<K, V>>,
    /// The next place to be looked at.
    hand: usize,
}

struct Entry<K, V> {
    /// So that the user's `Hash` need not run under the lock when the table grows.
    hash: u64,
    key: K,
    value: V,
}

impl<K: Hash + Eq + Clone, V> Cells<K, V> {
    pub(crate) fn new(max_keys: usize) -> Self {
        // A power of two, because a division would cost as much as the rest of a look.
        let shards = 1 << (max_keys / SHARD).clamp(1, 4 * MOST_SHARDS).ilog2();
        let shard = |index| Shard {
            // The rooms add up to `max_keys`.
            room: max_keys / shards + usize::from(index < max_keys % shards),
            // Nothing is allocated for keys that may never come.
            table: Mutex::new(Table { entries: HashTable::new(), hand: 0 }),
        };
        Self { shards: (0..shards).map(shard).collect(), hasher: RandomState::new() }
    }

    /// Changes the value of this key once, made by `make` when it has none. `None` when there is no place for it, and nothing was changed.
    #[inline]
    pub(crate) fn change<T>(
        &self,
        key: &K,
        make: impl FnOnce() -> V,
        is_idle: impl Fn(&mut V) -> bool,
        change: &mut impl FnMut(&mut V) -> T,
    ) -> Option<T> {
        let (hash, shard) = self.find(key);
        let mut table = shard.table.lock();
        if let Some(entry) = table.entries.find_mut(hash, |entry| entry.hash == hash && entry.key == *key) {
            return Some(change(&mut entry.value));
        }
        drop(table);
        self.insert(hash, key, shard, make, is_idle, change)
    }

    #[cold]
    #[inline(never)]
    fn insert<T>(
        &self,
        hash: u64,
        key: &K,
        shard: &Shard<K, V>,
        make: impl FnOnce() -> V,
        is_idle: impl Fn(&mut V) -> bool,
        change: &mut impl FnMut(&mut V) -> T,
    ) -> Option<T> {
        // The user's `Clone` runs before the lock, and `Drop` after it: what is declared here is dropped after the guard.
        let mut fresh = Some(key.clone());
        let mut left = Vec::new();
        let mut table = shard.table.lock();
        if let Some(entry) = table.entries.find_mut(hash, |entry| entry.hash == hash && entry.key == *key) {
            // Somebody else was quicker.
            let changed = change(&mut entry.value);
            drop(table);
            return Some(changed);
        }
        table.sweep(SWEPT, usize::MAX, &is_idle, &mut left);
        if table.entries.len() >= shard.room {
            table.sweep(LOOKED_AT, ASKED, &is_idle, &mut left);
        }
        if table.entries.len() >= shard.room {
            drop(table);
            return None;
        }
        let mut value = make();
        let changed = change(&mut value);
        if let Some(key) = fresh.take() {
            table.entries.insert_unique(hash, Entry { hash, key, value }, |entry| entry.hash);
        }
        drop(table);
        Some(changed)
    }

    /// Looks at the value of this key, if it has one.
    pub(crate) fn look<T>(&self, key: &K, look: impl FnOnce(&mut V) -> T) -> Option<T> {
        let (hash, shard) = self.find(key);
        let mut table = shard.table.lock();
        let entry = table.entries.find_mut(hash, |entry| entry.hash == hash && entry.key == *key)?;
        Some(look(&mut entry.value))
    }

    /// Whether there is a place for this key, which has none. Who is idle and in its way leaves, as when it comes.
    #[cold]
    pub(crate) fn has_room(&self, key: &K, is_idle: impl Fn(&mut V) -> bool) -> bool {
        let (_, shard) = self.find(key);
        // Dropped after the lock.
        let mut left = Vec::new();
        let mut table = shard.table.lock();
        if table.entries.len() >= shard.room {
            table.sweep(LOOKED_AT, ASKED, &is_idle, &mut left);
        }
        let has_room = table.entries.len() < shard.room;
        drop(table);
        has_room
    }

    /// Changes every value. Each shard is locked in its turn, for as long as its values take.
    pub(crate) fn change_all(&self, change: impl Fn(&mut V)) {
        for shard in &self.shards {
            shard.table.lock().entries.iter_mut().for_each(|entry| change(&mut entry.value));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.table.lock().entries.len()).sum()
    }

    #[inline]
    fn find(&self, key: &K) -> (u64, &Shard<K, V>) {
        let hash = self.hasher.hash_one(key);
        // The table goes by the lowest and the highest bits; the shard by those between.
        (hash, &self.shards[(hash >> 32) as usize & (self.shards.len() - 1)])
    }
}

impl<K, V> Table<K, V> {
    /// Looks at the next places and takes out who is idle: all of them, or with a bound on who is asked the first.
    fn sweep(&mut self, places: usize, asked: usize, is_idle: &impl Fn(&mut V) -> bool, left: &mut Vec<Entry<K, V>>) {
        let buckets = self.entries.num_buckets();
        let mut may_ask = asked;
        for _ in 0..places.min(buckets) {
            self.hand = if self.hand + 1 < buckets { self.hand + 1 } else { 0 };
            let Some(entry) = self.entries.get_bucket_mut(self.hand) else { continue };
            if is_idle(&mut entry.value) {
                if let Ok(entry) = self.entries.get_bucket_entry(self.hand) {
                    left.push(entry.remove().0);
                }
                if asked != usize::MAX {
                    return;
                }
            }
            may_ask = may_ask.saturating_sub(1);
            if may_ask == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cells: &Cells<u64, u64>, key: u64, value: u64) -> bool {
        cells.change(&key, || 0, |value| *value == 0, &mut |kept| *kept = value).is_some()
    }

    #[test]
    fn a_value_is_changed_in_place() {
        let cells = Cells::new(10);
        for key in 0..5 {
            assert!(put(&cells, key, key + 1));
        }
        assert_eq!(cells.look(&3, |value| *value), Some(4));
        assert_eq!(cells.look(&7, |value| *value), None);
        assert_eq!(cells.len(), 5);
    }

    #[test]
    fn who_is_idle_leaves_and_nobody_else_does() {
        for max_keys in [1, 100, 5_000] {
            let cells = Cells::new(max_keys);
            for key in 0..10 * max_keys as u64 {
                put(&cells, key, 1);
            }
            // Shards fill unevenly.
            let kept = (0..10 * max_keys as u64).filter(|key| cells.look(key, |_| ()).is_some()).count();
            assert_eq!((kept, cells.len()), (max_keys, max_keys));
            let first: Vec<u64> = (0..10 * max_keys as u64).filter(|key| cells.look(key, |_| ()).is_some()).collect();
            assert!(!put(&cells, u64::MAX, 1), "all places are taken for good");
            assert!(first.iter().all(|key| cells.look(key, |value| *value) == Some(1)));
            for key in &first {
                put(&cells, *key, 0);
            }
            assert!((0..100).all(|key| put(&cells, u64::MAX - key, 0)), "who is idle makes room");
        }
    }

    /// What has become idle leaves although there would be room.
    #[test]
    fn a_crowd_that_has_gone_leaves_no_trail() {
        let cells = Cells::new(1_000_000);
        for key in 0..100_000 {
            put(&cells, key, 0);
        }
        assert!(cells.len() < 40_000, "{}", cells.len());
    }

    #[test]
    fn a_million_keys_keep_to_the_bound() {
        for max_keys in [1, 1_000, 10_007] {
            let cells = Cells::new(max_keys);
            for key in 0..1_000_000 {
                put(&cells, key, 1 + key % 3);
            }
            assert!(cells.len() <= max_keys);
        }
    }

    #[test]
    fn a_huge_bound_allocates_nothing_in_advance() {
        let made = allocation_counter::measure(|| drop(Cells::<u64, u64>::new(usize::MAX)));
        assert!(made.bytes_max < 64 * 1024, "{made:?}");
    }

    /// A key that looks into the map when it is cloned and when it is dropped.
    #[test]
    fn user_code_runs_under_no_lock() {
        use std::{
            cell::{Cell, RefCell},
            rc::{Rc, Weak},
        };
        struct Looks(u32, RefCell<Weak<Cells<Self, u32>>>);
        impl Looks {
            fn look(&self) {
                if let Some(cells) = self.1.borrow().upgrade() {
                    cells.len();
                }
            }
        }
        impl Hash for Looks {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.look();
                state.write_u32(self.0);
            }
        }
        impl PartialEq for Looks {
            fn eq(&self, other: &Self) -> bool {
                self.0 == other.0
            }
        }
        impl Eq for Looks {}
        impl Clone for Looks {
            fn clone(&self) -> Self {
                self.look();
                Self(self.0, self.1.clone())
            }
        }
        impl Drop for Looks {
            fn drop(&mut self) {
                self.look();
            }
        }
        let cells = Rc::new(Cells::new(2));
        let changes = Cell::new(0);
        for id in [1, 2, 3, 3, 1, 9, 10, 11] {
            let key = Looks(id, RefCell::new(Rc::downgrade(&cells)));
            cells.change(&key, || 0, |_| true, &mut |_| changes.set(changes.get() + 1));
        }
        // All are idle, so the hand may have taken out more than it had to.
        assert!(cells.len() <= 2);
        assert_eq!(changes.get(), 8);
    }
}
