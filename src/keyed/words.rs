//! One word per key, changed without a lock: bounded, sharded, what may be forgotten without loss leaves.
//!
//! A key is known by its hash alone, 64 bits that nobody can predict, so it takes no more than its hash and its word, whatever it is. Of `n` keys that are
//! remembered, a fresh one shares the word of another with a chance of `n` in 2^64: of a million, one in eighteen million millions.
//!
//! ```text
//! hash ──> shard ──> one of two lines ──> one of four places: hash, word
//! ```
//!
//! A line is a cache line. Most keys find a place in the first of their two; who finds none in either has another move to its second, or else the shard
//! doubles its lines, and nearly all are in their first ones again. Who calls finds the place of a known key and exchanges the word in it. Only newcomers and those who look for idle
//! keys take the lock of the shard, and whoever asks for a key that they have in hand.
//!
//! As in [`Cells`](super::cells::Cells) a hand goes round the table, a line with each newcomer, and further when there is no more room, and lets leave who is as a
//! newcomer would be. When nobody it asked may leave, the newcomer gets no place.

mod line;
#[cfg(all(test, buttress_loom))]
mod loom_models;
#[cfg(all(test, not(buttress_loom)))]
mod tests;

use std::{
    convert::Infallible,
    hash::{Hash, Hasher},
    marker::PhantomData,
    sync::OnceLock,
};

use super::{ASKED, MOST_SHARDS, hash::Seed};
use crate::sync::{AtomicU64, Mutex, Ordering};
use line::{Asked, Line, NOBODY, SLOTS};

/// How many lines are looked at for each newcomer when there is no room; many may be empty in a table that has just grown.
const LOOKED_AT: usize = 8 * ASKED / SLOTS;
/// With so many keys a shard grows in less than a tenth of a millisecond. There are no more than [`MOST_SHARDS`], because only newcomers take their locks, and
/// fewer heads stay in the cache: at a million keys growth holds up a shard for two or three milliseconds, which is a third of what governor's takes
/// (`cargo bench -p buttress-peers --bench rate_limit` prints both).
const SHARD: usize = 1024;
/// As many lines as the bits of a hash tell apart: sixteen millions in each shard.
const DOUBLINGS: usize = 24;
/// So many places for each key are more than chance ever asks for. Who would need more gets none, and memory stays bounded.
const SPARSE: usize = 16;

pub(crate) struct Words<K> {
    shards: Box<[Shard]>,
    seed: Seed,
    keys: PhantomData<fn(&K)>,
}

/// On cache lines of its own.
#[repr(align(64))]
struct Shard {
    /// How often the lines have doubled.
    doublings: AtomicU64,
    /// The first line, and what each doubling has put between those that there were.
    lines: [OnceLock<Box<[Line]>>; DOUBLINGS + 1],
    room: usize,
    table: Mutex<Table>,
}

struct Table {
    len: usize,
    /// The line to be looked at next.
    hand: u64,
}

impl<K: Hash> Words<K> {
    pub(crate) fn new(max_keys: usize) -> Self {
        let shards = 1 << (max_keys / SHARD).clamp(1, MOST_SHARDS).ilog2();
        // The rooms add up to `max_keys`.
        let shard = |index| Shard::new(max_keys / shards + usize::from(index < max_keys % shards));
        Self { shards: (0..shards).map(shard).collect(), seed: Seed::random(), keys: PhantomData }
    }

    /// Changes the word of this key, which begins with zero, from one to another, unless that is refused; `to` may be asked more than once.
    /// `None` when there is no place for it, and nothing was changed.
    #[inline]
    pub(crate) fn change<E>(
        &self,
        key: &K,
        is_idle: impl Fn(u64) -> bool + Copy,
        to: impl Fn(u64) -> Result<u64, E> + Copy,
    ) -> Option<Result<(u64, u64), E>> {
        let (hash, shard) = self.find(key);
        // What is `Copy` is put together for the newcomers alone.
        shard.change(hash, to).or_else(|| shard.insert(hash, is_idle, to))
    }

    /// Changes the word of this key if it has one, and answers what it was.
    pub(crate) fn change_known(&self, key: &K, to: impl Fn(u64) -> u64 + Copy) -> Option<u64> {
        let (hash, shard) = self.find(key);
        shard.change_known(hash, |word| Ok(to(word))).map(|Ok((before, _))| before)
    }

    /// Whether there is a place for this key, which has none. Who is idle and in its way leaves, as when it comes.
    #[cold]
    pub(crate) fn has_room(&self, key: &K, is_idle: impl Fn(u64) -> bool + Copy) -> bool {
        let (_, shard) = self.find(key);
        shard.make_room(&mut shard.table.lock(), is_idle)
    }

    /// Changes every word. Each shard is locked in its turn, for as long as its words take.
    pub(crate) fn change_all(&self, to: impl Fn(u64) -> u64 + Copy) {
        let to = |word| Ok::<_, Infallible>(to(word));
        for shard in &self.shards {
            let _held = shard.table.lock();
            for line in shard.lines.iter().filter_map(OnceLock::get).flatten() {
                for owner in (0..SLOTS).map(|slot| line.owner(slot)).filter(|owner| *owner != NOBODY) {
                    line.change(owner, to);
                }
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.table.lock().len).sum()
    }

    #[inline]
    fn find(&self, key: &K) -> (u64, &Shard) {
        let mut hasher = self.seed.hasher();
        key.hash(&mut hasher);
        let hash = hasher.finish().max(NOBODY + 1);
        // The lines go by the highest bits of both halves; the shard by the lowest.
        (hash, &self.shards[hash as usize & (self.shards.len() - 1)])
    }
}

impl Shard {
    fn new(room: usize) -> Self {
        let lines: [OnceLock<Box<[Line]>>; DOUBLINGS + 1] = [const { OnceLock::new() }; DOUBLINGS + 1];
        lines[0].get_or_init(|| Box::new([Line::new()]));
        Self { doublings: AtomicU64::new(0), lines, room, table: Mutex::new(Table { len: 0, hand: 0 }) }
    }

    #[inline]
    fn change<E>(&self, hash: u64, to: impl Fn(u64) -> Result<u64, E> + Copy) -> Option<Result<(u64, u64), E>> {
        let doublings = self.doublings.load(Ordering::Acquire);
        let [first, second] = places(hash, doublings);
        self.line(first, doublings)?.change(hash, to).or_else(|| self.line(second, doublings)?.change(hash, to))
    }

    /// Who is being moved is found under the lock.
    fn change_known(
        &self,
        hash: u64,
        to: impl Fn(u64) -> Result<u64, Infallible> + Copy,
    ) -> Option<Result<(u64, u64), Infallible>> {
        self.change(hash, to).or_else(|| {
            let _held = self.table.lock();
            self.change(hash, to)
        })
    }

    /// The line of this number: an odd one has come with the last doubling, and an even one was that of half its number before.
    #[inline]
    fn line(&self, index: u64, doublings: u64) -> Option<&Line> {
        let since = (index | 1 << doublings).trailing_zeros();
        let came_with = doublings - u64::from(since);
        self.lines.get(came_with as usize)?.get()?.get((index >> since >> 1) as usize)
    }

    #[cold]
    #[inline(never)]
    fn insert<E>(
        &self,
        hash: u64,
        is_idle: impl Fn(u64) -> bool + Copy,
        to: impl Fn(u64) -> Result<u64, E> + Copy,
    ) -> Option<Result<(u64, u64), E>> {
        let mut table = self.table.lock();
        if let Some(changed) = self.change(hash, to) {
            // Somebody else was quicker, or had it in hand.
            return Some(changed);
        }
        self.sweep(&mut table, 1, usize::MAX, is_idle);
        if !self.make_room(&mut table, is_idle) {
            return None;
        }
        let word = match to(0) {
            Ok(word) => word,
            Err(refused) => return Some(Err(refused)),
        };
        self.put(hash, word, table.len).then(|| {
            table.len += 1;
            Ok((0, word))
        })
    }

    fn make_room(&self, table: &mut Table, is_idle: impl Fn(u64) -> bool + Copy) -> bool {
        if table.len >= self.room {
            self.sweep(table, LOOKED_AT, ASKED, is_idle);
        }
        table.len < self.room
    }

    /// Looks at the next lines and lets leave who is idle: all of them, or with a bound on who is asked the first.
    fn sweep(&self, table: &mut Table, lines: usize, asked: usize, is_idle: impl Fn(u64) -> bool + Copy) {
        let doublings = self.doublings.load(Ordering::Relaxed);
        let mut may_ask = asked;
        for _ in 0..lines.min(1 << doublings) {
            table.hand = (table.hand + 1) & ((1 << doublings) - 1);
            let Some(line) = self.line(table.hand, doublings) else { return };
            for slot in 0..SLOTS {
                match line.ask(slot, is_idle) {
                    Asked::Nobody => continue,
                    Asked::Left => {
                        table.len -= 1;
                        if asked != usize::MAX {
                            return;
                        }
                    }
                    Asked::Stays => (),
                }
                may_ask -= 1;
                if may_ask == 0 {
                    return;
                }
            }
        }
    }

    fn put(&self, hash: u64, word: u64, keys: usize) -> bool {
        loop {
            let doublings = self.doublings.load(Ordering::Relaxed);
            let lines = places(hash, doublings).map(|index| self.line(index, doublings));
            if lines.into_iter().flatten().any(|line| line.put(hash, word)) {
                return true;
            }
            let is_sparse = SLOTS << doublings > SPARSE * (keys + 1);
            if !self.make_way(hash, doublings) && (is_sparse || !self.grow(doublings)) {
                return false;
            }
        }
    }

    /// Moves one of those who are in the way of this hash to its other line.
    fn make_way(&self, hash: u64, doublings: u64) -> bool {
        for index in places(hash, doublings) {
            let Some(line) = self.line(index, doublings) else { return false };
            for slot in 0..SLOTS {
                let mut others = places(line.owner(slot), doublings).into_iter().filter(|other| *other != index);
                let with_a_place = |other| self.line(other, doublings).filter(|line| line.has_place());
                if let Some(other) = others.find_map(with_a_place) {
                    line.hand_over(slot, other);
                    return true;
                }
            }
        }
        false
    }

    /// Doubles the lines: behind each comes a new one. Until all have moved, whoever calls looks for them where they were.
    #[cold]
    fn grow(&self, doublings: u64) -> bool {
        let Some(added) = self.lines.get(doublings as usize + 1) else { return false };
        let added = added.get_or_init(|| (0..1 << doublings).map(|_| Line::new()).collect());
        for (index, new) in (0..).zip(added) {
            let Some(line) = self.line(index, doublings) else { return false };
            for slot in 0..SLOTS {
                let owner = line.owner(slot);
                if owner != NOBODY && !places(owner, doublings + 1).contains(&(2 * index)) {
                    line.hand_over(slot, new);
                }
            }
        }
        self.doublings.store(doublings + 1, Ordering::Release);
        self.settle(doublings + 1);
        true
    }

    /// Moves to their first lines those who found no place there when the table was fuller: there they are found at once.
    fn settle(&self, doublings: u64) {
        for index in 0..1 << doublings {
            let Some(line) = self.line(index, doublings) else { return };
            for slot in 0..SLOTS {
                let owner = line.owner(slot);
                let [first, _] = places(owner, doublings);
                if owner != NOBODY
                    && first != index
                    && let Some(first) = self.line(first, doublings).filter(|line| line.has_place())
                {
                    line.hand_over(slot, first);
                }
            }
        }
    }
}

/// The lines of this hash, by the first bits of each of its halves.
#[inline]
const fn places(hash: u64, doublings: u64) -> [u64; 2] {
    [hash >> 1 >> (63 - doublings), hash << 32 >> 1 >> (63 - doublings)]
}
