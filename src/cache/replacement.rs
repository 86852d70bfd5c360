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

    /// Keeps an entry that is not too heavy. Whatever leaves for it is handed out, to be dropped after the lock: the one before it under this key too.
    fn put(&mut self, key: Hashed<K>, held: Held<V>, now: Instant, left: &mut Vec<(Hashed<K>, Held<V>)>);

    /// Takes the entry out.
    fn take(&mut self, key: &Hashed<&K>) -> Option<(Hashed<K>, Held<V>)>;

    /// How much there is.
    fn usage(&self) -> Usage;
}

/// An entry and its weight, which nobody weighs twice.
pub(crate) struct Held<V> {
    pub(crate) entry: Entry<V>,
    pub(crate) weight: u64,
}
