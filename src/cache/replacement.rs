//! Which entry leaves first, in one shard of a store in memory.

use super::{entry::Entry, hashed::Hashed, policy::Room, store::Usage};
use crate::time::Instant;

/// The entries of one shard, and the order in which they leave. It runs under the shard's lock, and of the code of others only `Eq`.
pub(crate) trait Replacement<K, V>: Send + Sized {
    /// Without entries, and without memory for them.
    fn new(room: Room) -> Self;

    /// What the heaviest entry may weigh.
    fn heaviest(&self) -> u64;

    /// The entry, which is used.
    fn get(&mut self, key: &Hashed<&K>) -> Option<&Held<V>>;

    /// The entry, which is only looked at.
    fn peek(&self, key: &Hashed<&K>) -> Option<&Held<V>>;

    /// Keeps an entry that is not too heavy. Whatever leaves for it is handed out in `left`, which holds nobody before, to be dropped after
    /// the lock: the one before it under this key too.
    fn put(&mut self, key: Hashed<K>, held: Held<V>, now: Instant, left: &mut Left<K, V>);

    /// Takes the entry out.
    fn take(&mut self, key: &Hashed<&K>) -> Option<(Hashed<K>, Held<V>)>;

    /// How much there is.
    fn usage(&self) -> Usage;
}

/// What leaves. Mostly that is one, which takes no memory of its own.
pub(crate) struct Left<K, V> {
    first: Option<(Hashed<K>, Held<V>)>,
    others: Vec<(Hashed<K>, Held<V>)>,
}

impl<K, V> Default for Left<K, V> {
    fn default() -> Self {
        Self { first: None, others: Vec::new() }
    }
}

impl<K, V> Left<K, V> {
    pub(crate) fn push(&mut self, left: (Hashed<K>, Held<V>)) {
        if self.first.is_none() {
            self.first = Some(left);
        } else {
            self.others.push(left);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Held<V>> {
        self.first.iter().chain(&self.others).map(|(_, held)| held)
    }
}

/// An entry and its weight, which nobody weighs twice.
pub(crate) struct Held<V> {
    pub(crate) entry: Entry<V>,
    pub(crate) weight: u64,
}
