//! The least recently used leaves first.

use std::{fmt, hash::Hash};

use lru::LruCache;

use super::{
    hashed::{BuildAsItIs, Hashed, Look},
    policy::Room,
    replacement::{Held, Left, Replacement},
    store::Usage,
};
use crate::time::Instant;

/// The order in which entries leave a [`MemoryStore`](super::MemoryStore): the least recently used first.
pub struct LeastRecent<K, V> {
    map: LruCache<Hashed<K>, Held<V>, BuildAsItIs>,
    bytes: u64,
    room: Room,
}

/// How many of the least recently used are asked whether they have expired when another is stored.
const ASKED: usize = 2;

impl<K: Hash + Eq, V> LeastRecent<K, V> {
    fn pop(&mut self) -> Option<(Hashed<K>, Held<V>)> {
        let left = self.map.pop_lru()?;
        self.bytes -= left.1.weight;
        Some(left)
    }
}

impl<K, V> fmt::Debug for LeastRecent<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeastRecent").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Send, V: Send + Sync> Replacement<K, V> for LeastRecent<K, V> {
    fn new(room: Room) -> Self {
        Self { map: LruCache::unbounded_with_hasher(BuildAsItIs::default()), bytes: 0, room }
    }

    fn heaviest(&self) -> u64 {
        self.room.bytes
    }

    #[inline]
    fn get(&mut self, key: &Hashed<&K>) -> Option<&Held<V>> {
        self.map.get(key as &dyn Look<K>)
    }

    fn peek(&self, key: &Hashed<&K>) -> Option<&Held<V>> {
        self.map.peek(key as &dyn Look<K>)
    }

    fn put(&mut self, key: Hashed<K>, held: Held<V>, now: Instant, left: &mut Left<K, V>) {
        let weight = held.weight;
        if let Some(before) = self.map.push(key, held) {
            self.bytes -= before.1.weight;
            left.push(before);
        }
        self.bytes = self.bytes.saturating_add(weight);
        while self.map.len() > self.room.entries || self.bytes > self.room.bytes {
            let Some(last) = self.pop() else { break };
            left.push(last);
        }
        for _ in 0..ASKED {
            if self.map.len() < 2 || !self.map.peek_lru().is_some_and(|(_, held)| held.entry.has_expired_at(now)) {
                break;
            }
            let Some(last) = self.pop() else { break };
            left.push(last);
        }
    }

    fn take(&mut self, key: &Hashed<&K>) -> Option<(Hashed<K>, Held<V>)> {
        let left = self.map.pop_entry(key as &dyn Look<K>)?;
        self.bytes -= left.1.weight;
        Some(left)
    }

    fn usage(&self) -> Usage {
        Usage { entries: self.map.len(), bytes: self.bytes }
    }
}
