//! Hashes of keys that strangers choose: of one integer by multiplication, and of all else by SipHash-1-3.
//!
//! * An integer of up to eight bytes that is the whole key, as an account's number is, is multiplied by a secret number of sixteen bytes, to which another is added, and the upper
//!   half counts. That is strongly universal: whichever two integers somebody chooses who has seen no hashes, they meet with a chance of one in 2^64. What
//!   follows has no two meet, and breaks up the order that a product keeps. It does not resist somebody who sees hashes; they leave this crate in no way.
//! * Everything else is SipHash-1-3 over words, and resists those too: each integer counts as one, and bytes as their number and then as many as they fill.

use std::hash::{BuildHasher, Hasher, RandomState};

/// The seed.
pub(super) struct Seed {
    sip: [u64; 2],
    factor: u128,
    summand: u128,
    /// Odd.
    mixer: u64,
}

pub(super) struct KeyHasher<'a> {
    seed: &'a Seed,
    state: [u64; 4],
    /// Not in the state yet, because it may be all.
    first: u64,
    words: u64,
}

impl Seed {
    /// As random as std's.
    pub(super) fn random() -> Self {
        let random = RandomState::new();
        let word = |number: u64| random.hash_one(number);
        let wide = |number| u128::from(word(number)) << 64 | u128::from(word(number + 1));
        Self { sip: [word(0), word(1)], factor: wide(2), summand: wide(4), mixer: word(6) | 1 }
    }

    #[inline]
    pub(super) fn hasher(&self) -> KeyHasher<'_> {
        let [k0, k1] = self.sip;
        // "somepseudorandomlygeneratedbytes"
        let state = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        KeyHasher { seed: self, state, first: 0, words: 0 }
    }

    #[inline]
    const fn of_one(&self, word: u64) -> u64 {
        let universal = (self.factor.wrapping_mul(word as u128).wrapping_add(self.summand) >> 64) as u64;
        let mixed = (universal ^ universal >> 32).wrapping_mul(self.mixer);
        mixed ^ mixed >> 32
    }
}

impl KeyHasher<'_> {
    #[inline]
    const fn word(&mut self, word: u64) {
        match self.words {
            0 => self.first = word,
            1 => {
                self.take_in(self.first);
                self.take_in(word);
            }
            _ => self.take_in(word),
        }
        self.words += 1;
    }

    #[inline]
    const fn take_in(&mut self, word: u64) {
        self.state[3] ^= word;
        self.state = round(self.state);
        self.state[0] ^= word;
    }
}

impl Hasher for KeyHasher<'_> {
    #[inline]
    fn finish(&self) -> u64 {
        if self.words == 1 {
            return self.seed.of_one(self.first);
        }
        let mut last = Self { ..*self };
        last.take_in(self.words << 59);
        last.state[2] ^= 0xff;
        let [a, b, c, d] = round(round(round(last.state)));
        a ^ b ^ c ^ d
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u8(&mut self, one: u8) {
        self.word(u64::from(one));
    }

    #[inline]
    fn write_u16(&mut self, one: u16) {
        self.word(u64::from(one));
    }

    #[inline]
    fn write_u32(&mut self, one: u32) {
        self.word(u64::from(one));
    }

    #[inline]
    fn write_u64(&mut self, one: u64) {
        self.word(one);
    }

    #[inline]
    fn write_usize(&mut self, one: usize) {
        self.word(one as u64);
    }
}

#[inline]
const fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    c = c.wrapping_add(d);
    b = b.rotate_left(13) ^ a;
    d = d.rotate_left(16) ^ c;
    a = a.rotate_left(32).wrapping_add(d);
    c = c.wrapping_add(b);
    d = d.rotate_left(21) ^ a;
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::hash::DefaultHasher;

    proptest! {
        /// Whose key is zero.
        #[test]
        fn of_several_words_it_is_the_hash_of_std(words in proptest::collection::vec(any::<u64>(), 2..70)) {
            let seed = Seed { sip: [0; 2], ..Seed::random() };
            let (mut ours, mut theirs) = (seed.hasher(), DefaultHasher::new());
            for word in words {
                ours.write_u64(word);
                theirs.write_u64(word);
            }
            prop_assert_eq!(ours.finish(), theirs.finish());
        }
    }

    #[test]
    fn bytes_are_told_apart_by_where_they_end() {
        let seed = Seed::random();
        let of = |parts: &[&[u8]]| {
            let mut hasher = seed.hasher();
            parts.iter().for_each(|part| hasher.write(part));
            hasher.finish()
        };
        let parts: [&[&[u8]]; 8] = [
            &[],
            &[b""],
            &[b"a"],
            &[b"a\0"],
            &[b"a\0", b"b"],
            &[b"a", b"b\0"],
            &[b"a\0\0\0\0\0\0\0", b"b"],
            &[b"a", b"b\0\0\0\0\0\0\0"],
        ];
        let hashes = parts.map(of);
        assert!(hashes.iter().enumerate().all(|(index, hash)| !hashes[..index].contains(hash)));
    }
}
