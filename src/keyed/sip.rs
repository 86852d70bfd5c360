//! SipHash-1-3 with a random key, over words: each integer counts as eight bytes, and bytes are filled up to eight.
//!
//! std's does the same over bytes, which it has to put together, in calls of their own; for a key that is a word the two agree.

use std::hash::{BuildHasher, Hasher, RandomState};

/// The key.
pub(super) struct Sip([u64; 2]);

pub(super) struct SipHasher {
    state: [u64; 4],
    /// How many bytes came, filled up or not: who says less in as many words is somebody else.
    bytes: u64,
}

impl Sip {
    /// As random as std's.
    pub(super) fn random() -> Self {
        let random = RandomState::new();
        Self([random.hash_one(0_u64), random.hash_one(1_u64)])
    }
}

impl BuildHasher for Sip {
    type Hasher = SipHasher;

    #[inline]
    fn build_hasher(&self) -> SipHasher {
        let [k0, k1] = self.0;
        // "somepseudorandomlygeneratedbytes"
        let state = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        SipHasher { state, bytes: 0 }
    }
}

impl SipHasher {
    #[inline]
    const fn word(&mut self, word: u64, bytes: u64) {
        self.bytes = self.bytes.wrapping_add(bytes);
        self.state[3] ^= word;
        self.state = round(self.state);
        self.state[0] ^= word;
    }
}

impl Hasher for SipHasher {
    #[inline]
    fn finish(&self) -> u64 {
        let mut last = Self { state: self.state, bytes: 0 };
        last.word(self.bytes << 56, 0);
        last.state[2] ^= 0xff;
        let [a, b, c, d] = round(round(round(last.state)));
        a ^ b ^ c ^ d
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.word(u64::from_le_bytes(*word), 8);
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(word), rest.len() as u64);
        }
    }

    #[inline]
    fn write_u8(&mut self, one: u8) {
        self.word(u64::from(one), 1);
    }

    #[inline]
    fn write_u16(&mut self, one: u16) {
        self.word(u64::from(one), 2);
    }

    #[inline]
    fn write_u32(&mut self, one: u32) {
        self.word(u64::from(one), 4);
    }

    #[inline]
    fn write_u64(&mut self, one: u64) {
        self.word(one, 8);
    }

    #[inline]
    fn write_usize(&mut self, one: usize) {
        self.word(one as u64, 8);
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
        fn of_words_it_is_the_hash_of_std(words in proptest::collection::vec(any::<u64>(), 0..70)) {
            let (mut ours, mut theirs) = (Sip([0; 2]).build_hasher(), DefaultHasher::new());
            for word in words {
                ours.write_u64(word);
                theirs.write_u64(word);
            }
            prop_assert_eq!(ours.finish(), theirs.finish());
        }
    }
}
