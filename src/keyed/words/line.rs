//! A cache line with room for four keys: their hashes, and a word for each.
//!
//! Who changes a word takes no lock. Who moves keys or lets them leave holds that of their shard, so there is one at a time, and takes the word away
//! first: whoever looks for it then is told that it is not here, and asks again under the lock.

use crate::sync::{AtomicU64, Ordering};

pub(super) const SLOTS: usize = 4;

/// In place of the hash of a key.
pub(super) const NOBODY: u64 = 0;
/// In place of a word that has been taken away.
const AWAY: u64 = u64::MAX;

#[repr(align(64))]
pub(super) struct Line {
    hashes: [AtomicU64; SLOTS],
    /// Each under the hash of its key, as in [`sealed`].
    words: [AtomicU64; SLOTS],
}

/// A word as it stands in its place, or what stands there as a word. So no word looks like that of another key, and an exchange that comes late,
/// when the place has gone to somebody else, fails.
#[inline]
const fn sealed(word: u64, hash: u64) -> u64 {
    word ^ hash
}

/// What became of a key that might leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nobody,
    Left,
    Stays,
}

impl Line {
    pub(super) fn new() -> Self {
        Self { hashes: [(); SLOTS].map(|()| AtomicU64::new(NOBODY)), words: [(); SLOTS].map(|()| AtomicU64::new(AWAY)) }
    }

    /// Changes the word of this hash from one to another, unless that is refused. `None` where it is not here, or on its way.
    #[inline]
    pub(super) fn change<E>(&self, hash: u64, to: impl Fn(u64) -> Result<u64, E>) -> Option<Result<(u64, u64), E>> {
        let slot = self.find(hash)?;
        let (owner, place) = (self.hashes.get(slot)?, self.words.get(slot)?);
        let mut seen = place.load(Ordering::Acquire);
        loop {
            // Once more after the word was read, or it may be that of who took the place meanwhile.
            if seen == AWAY || owner.load(Ordering::Relaxed) != hash {
                return None;
            }
            let before = sealed(seen, hash);
            let after = match to(before) {
                Ok(after) => after,
                Err(refused) => return Some(Err(refused)),
            };
            match place.compare_exchange_weak(seen, sealed(after, hash), Ordering::Relaxed, Ordering::Acquire) {
                Ok(_) => return Some(Ok((before, after))),
                Err(other) => seen = other,
            }
        }
    }

    /// Where this hash is, without a branch for each place: nobody foresees which it is.
    #[inline]
    fn find(&self, hash: u64) -> Option<usize> {
        let met = |(slot, owner): (usize, &AtomicU64)| u32::from(owner.load(Ordering::Acquire) == hash) << slot;
        let met = self.hashes.iter().enumerate().map(met).fold(0, |all, one| all | one);
        (met != 0).then(|| met.trailing_zeros() as usize)
    }

    pub(super) fn owner(&self, slot: usize) -> u64 {
        self.hashes[slot].load(Ordering::Relaxed)
    }

    // ===== Under the lock of the shard =====

    pub(super) fn has_place(&self) -> bool {
        self.find(NOBODY).is_some()
    }

    /// Whether there was a place.
    pub(super) fn put(&self, hash: u64, word: u64) -> bool {
        let Some(slot) = self.find(NOBODY) else { return false };
        self.place(slot, hash, sealed(word, hash));
        true
    }

    /// To another line, which has a place.
    pub(super) fn hand_over(&self, slot: usize, to: &Self) {
        let sealed = self.words[slot].swap(AWAY, Ordering::AcqRel);
        let hash = self.hashes[slot].swap(NOBODY, Ordering::AcqRel);
        if let Some(free) = to.find(NOBODY) {
            to.place(free, hash, sealed);
        }
    }

    fn place(&self, slot: usize, hash: u64, sealed: u64) {
        self.words[slot].store(sealed, Ordering::Release);
        self.hashes[slot].store(hash, Ordering::Release);
    }

    /// Lets who is in this place leave, if its word may be forgotten.
    pub(super) fn ask(&self, slot: usize, is_idle: impl Fn(u64) -> bool) -> Asked {
        let (owner, seen) = (self.owner(slot), self.words[slot].load(Ordering::Acquire));
        if owner == NOBODY {
            return Asked::Nobody;
        }
        // Who is called in this moment is not idle.
        let leaves = is_idle(sealed(seen, owner))
            && self.words[slot].compare_exchange(seen, AWAY, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if !leaves {
            return Asked::Stays;
        }
        self.hashes[slot].store(NOBODY, Ordering::Release);
        Asked::Left
    }
}
