//! Keys with their hashes, so that a map runs none of the user's code under its lock but `Eq`.

use std::{
    borrow::Borrow,
    hash::{BuildHasherDefault, Hash, Hasher},
};

/// A key with its hash.
pub(crate) struct Hashed<K> {
    pub(crate) hash: u64,
    pub(crate) key: K,
}

/// A look at a key with its hash, owned or not.
pub(crate) trait Look<K> {
    fn hash(&self) -> u64;
    fn key(&self) -> &K;
}

/// The hasher of what is hashed already.
#[derive(Default)]
pub(crate) struct AsItIs(u64);

pub(crate) type BuildAsItIs = BuildHasherDefault<AsItIs>;

impl<K> Look<K> for Hashed<K> {
    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }

    #[inline]
    fn key(&self) -> &K {
        &self.key
    }
}

impl<K> Look<K> for Hashed<&K> {
    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }

    #[inline]
    fn key(&self) -> &K {
        self.key
    }
}

impl<'a, K: 'a> Borrow<dyn Look<K> + 'a> for Hashed<K> {
    #[inline]
    fn borrow(&self) -> &(dyn Look<K> + 'a) {
        self
    }
}

impl<K> Hash for dyn Look<K> + '_ {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(Look::hash(self));
    }
}

impl<K: Eq> PartialEq for dyn Look<K> + '_ {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        Look::hash(self) == Look::hash(other) && self.key() == other.key()
    }
}

impl<K: Eq> Eq for dyn Look<K> + '_ {}

impl<K> Hash for Hashed<K> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<K: Eq> PartialEq for Hashed<K> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.key == other.key
    }
}

impl<K: Eq> Eq for Hashed<K> {}

impl Hasher for AsItIs {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only a finished hash is written")
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
