//! Keys that are made of parts.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::hex::push_hex;

/// A key made of a namespace, a version and typed parts, each framed with its type and its length: different parts never make the same key.
///
/// There is no default key: what is left out of it is shared by all who differ in nothing else, so begin with the tenant. In memory the framed
/// parts are the key; where it leaves the process it is its [`digest`](Self::digest). `Debug` shows neither.
///
/// ```
/// use buttress::cache::CacheKey;
///
/// let key = CacheKey::new("prediction", 2).str("tenant-7").u64(40).bytes(b"image");
/// assert_ne!(key, CacheKey::new("prediction", 2).str("tenant-74").u64(0).bytes(b"image"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CacheKey(Vec<u8>);

impl CacheKey {
    /// A key without parts yet. Another version is another key: raise it when what the answers mean changes.
    #[must_use]
    pub fn new(namespace: &str, version: u32) -> Self {
        Self(Vec::with_capacity(64)).str(namespace).fixed(b'v', &version.to_le_bytes())
    }

    /// Adds a text.
    #[must_use]
    pub fn str(self, part: &str) -> Self {
        self.framed(b's', part.as_bytes())
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(self, part: &[u8]) -> Self {
        self.framed(b'b', part)
    }

    /// Adds a number.
    #[must_use]
    pub fn u64(self, part: u64) -> Self {
        self.fixed(b'u', &part.to_le_bytes())
    }

    /// Adds a number with a sign.
    #[must_use]
    pub fn i64(self, part: i64) -> Self {
        self.fixed(b'i', &part.to_le_bytes())
    }

    /// Adds a number by its bits, so that 0 and -0 differ, and one that is none is equal to itself.
    #[must_use]
    pub fn f64(self, part: f64) -> Self {
        self.fixed(b'f', &part.to_bits().to_le_bytes())
    }

    /// Adds a yes or a no.
    #[must_use]
    pub fn bool(self, part: bool) -> Self {
        self.fixed(b'o', &[u8::from(part)])
    }

    /// Adds that there is no part where there might be one.
    #[must_use]
    pub fn none(self) -> Self {
        self.fixed(b'n', &[])
    }

    /// All of its SHA-256: what the key is called outside this process.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }

    /// The digest in 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        let mut hex = String::with_capacity(64);
        push_hex(&mut hex, &self.digest());
        hex
    }

    /// How many bytes the key has, to weigh it.
    #[must_use]
    pub const fn weight(&self) -> usize {
        self.0.len()
    }

    fn framed(self, kind: u8, part: &[u8]) -> Self {
        let mut key = self.fixed(kind, &(part.len() as u64).to_le_bytes());
        key.0.extend_from_slice(part);
        key
    }

    fn fixed(mut self, kind: u8, part: &[u8]) -> Self {
        self.0.push(kind);
        self.0.extend_from_slice(part);
        self
    }
}

impl fmt::Debug for CacheKey {
    /// Without the parts, which are the request's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    enum Part {
        Str(String),
        Bytes(Vec<u8>),
        U64(u64),
        I64(i64),
        Bool(bool),
        None,
        /// What another key is called outside, given as a part.
        Digest(String),
    }

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            "[ab/:]{0,3}".prop_map(Part::Str),
            vec(prop_oneof![Just(b's'), Just(b'b'), Just(0), Just(1), any::<u8>()], 0..12).prop_map(Part::Bytes),
            (0..3_u64).prop_map(Part::U64),
            (-1..2_i64).prop_map(Part::I64),
            any::<bool>().prop_map(Part::Bool),
            Just(Part::None),
            "[ab]{0,1}".prop_map(|part| Part::Digest(CacheKey::new("n", 1).str(&part).hex())),
        ]
    }

    fn key((namespace, version, parts): &(String, u32, Vec<Part>)) -> CacheKey {
        parts.iter().fold(CacheKey::new(namespace, *version), |key, part| match part {
            Part::Str(part) | Part::Digest(part) => key.str(part),
            Part::Bytes(part) => key.bytes(part),
            Part::U64(part) => key.u64(*part),
            Part::I64(part) => key.i64(*part),
            Part::Bool(part) => key.bool(*part),
            Part::None => key.none(),
        })
    }

    fn tuple() -> impl Strategy<Value = (String, u32, Vec<Part>)> {
        ("[abv]{0,2}", 0..2_u32, vec(part(), 0..4))
    }

    proptest! {
        /// msal_js_8705_unframed_key, django_21516_netstrings
        #[test]
        fn keys_are_equal_exactly_for_equal_parts(one in tuple(), other in tuple()) {
            prop_assert_eq!(key(&one) == key(&other), one == other);
            prop_assert_eq!(key(&one).digest() == key(&other).digest(), one == other);
            prop_assert_eq!(key(&one), key(&one.clone()));
        }

        #[test]
        fn where_one_part_ends_and_the_next_begins_is_part_of_the_key(bytes in vec(any::<u8>(), 1..20), at in any::<prop::sample::Index>()) {
            let (left, right) = bytes.split_at(at.index(bytes.len()));
            let whole = CacheKey::new("n", 1).bytes(&bytes).bytes(&[]);
            let parted = CacheKey::new("n", 1).bytes(left).bytes(right);
            prop_assert_ne!(&whole, &parted);
            prop_assert_ne!(CacheKey::new("n", 1).bytes(&bytes), parted);
        }
    }

    /// steemit_wallet_318_poisoning_by_a_digest
    #[test]
    fn a_part_that_is_another_keys_digest_is_not_that_key() {
        let victim = CacheKey::new("n", 1).str("victim");
        for forged in [
            CacheKey::new("n", 1).str(&victim.hex()),
            CacheKey::new(&victim.hex(), 1),
            CacheKey::new("n", 1).bytes(&victim.digest()),
        ] {
            assert_ne!(forged, victim);
            assert_ne!(forged.digest(), victim.digest());
        }
    }

    #[test]
    fn the_digest_is_sha_256_of_the_framed_parts() {
        let key = CacheKey(b"abc".to_vec());
        assert_eq!(key.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn debug_shows_no_part() {
        let shown = format!("{:?}", CacheKey::new("namespace", 7).str("secret").bytes(b"secret"));
        assert!(!shown.contains("secret") && !shown.contains("namespace"), "{shown}");
    }
}
