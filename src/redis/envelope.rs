//! What is kept in Redis beside a value, in bytes. Whoever may write there can write anything, so what is read is believed in nothing.

use std::{sync::Arc, time::Duration};

/// Who wrote it, and what that one counts its writes by: no two writes have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// A random number of the store that wrote it.
    pub origin: u64,
    /// The number of the write.
    pub number: u64,
}

/// A value with its times, in microseconds of the clock of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// Who wrote it.
    pub stamp: Stamp,
    /// When its load began, or a little before.
    pub created: u64,
    /// When its load ended.
    pub stored: u64,
    /// It is fresh until then.
    pub fresh_until: u64,
    /// It may be served until then.
    pub stale_until: u64,
    /// The tags to invalidate it by.
    pub tags: Arc<[Box<str>]>,
    /// The value, as the codec wrote it.
    pub payload: &'a [u8],
}

/// What is under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// A value.
    Sealed(Sealed<'a>),
    /// What an invalidation left, so that a load that had begun before does not store what it found.
    Grave(Stamp),
    /// Something that no store of this version wrote.
    Foreign,
}

const MAGIC: [u8; 2] = [0xB7, 0x7E];
const VERSION: u8 = 1;
pub(super) const VALUE: u8 = 0;
const GRAVE: u8 = 1;

/// The magic, the version and the stamp: what the scripts in Redis compare.
pub const FRONT: usize = 20;
const TIMES: usize = 32;

/// What stands before the times, which Redis writes because they are its own.
#[must_use]
pub fn front(is_grave: bool, stamp: Stamp) -> [u8; FRONT] {
    let mut front = [0; FRONT];
    front[..2].copy_from_slice(&MAGIC);
    front[2] = VERSION;
    front[3] = if is_grave { GRAVE } else { VALUE };
    front[4..12].copy_from_slice(&stamp.origin.to_be_bytes());
    front[12..].copy_from_slice(&stamp.number.to_be_bytes());
    front
}

/// What stands behind the times; `encode` adds the value. `None` for tags that are too many or too long to be counted.
#[must_use]
pub fn back<E>(tags: &[Box<str>], encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Option<Result<Vec<u8>, E>> {
    let mut back = Vec::new();
    back.extend_from_slice(&u16::try_from(tags.len()).ok()?.to_be_bytes());
    for tag in tags {
        back.extend_from_slice(&u16::try_from(tag.len()).ok()?.to_be_bytes());
        back.extend_from_slice(tag.as_bytes());
    }
    Some(encode(&mut back).map(|()| back))
}

/// How many bytes the whole has, by what stands behind the times.
#[must_use]
pub const fn size(back: usize) -> usize {
    back.saturating_add(FRONT + TIMES)
}

/// What the scripts take for the version of what is under a key: they look no further than this.
#[must_use]
pub fn front_of(bytes: &[u8]) -> Option<[u8; FRONT]> {
    let front: [u8; FRONT] = *bytes.first_chunk()?;
    (bytes.len() >= FRONT + TIMES && front[..2] == MAGIC && front[2] == VERSION).then_some(front)
}

/// Reads what is under a key.
#[must_use]
pub fn open(bytes: &[u8]) -> Opened<'_> {
    read(bytes).unwrap_or(Opened::Foreign)
}

fn read(bytes: &[u8]) -> Option<Opened<'_>> {
    let mut rest = Rest(bytes);
    if rest.take::<2>()? != MAGIC || rest.take::<1>()? != [VERSION] {
        return None;
    }
    let [kind] = rest.take::<1>()?;
    let stamp = Stamp { origin: rest.number()?, number: rest.number()? };
    let (created, stored) = (rest.number()?, rest.number()?);
    let (fresh_until, stale_until) = (rest.number()?, rest.number()?);
    match kind {
        GRAVE => rest.0.is_empty().then_some(Opened::Grave(stamp)),
        VALUE if created <= stored && stored <= fresh_until && fresh_until <= stale_until => {
            let tags = rest.tags()?;
            let payload = rest.0;
            Some(Opened::Sealed(Sealed { stamp, created, stored, fresh_until, stale_until, tags, payload }))
        }
        _ => None,
    }
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn length(&mut self) -> Option<usize> {
        self.take().map(u16::from_be_bytes).map(usize::from)
    }

    /// Nothing is reserved for more than there is.
    fn tags(&mut self) -> Option<Arc<[Box<str>]>> {
        let count = self.length()?;
        let mut tags = Vec::with_capacity(count.min(self.0.len() / 2));
        for _ in 0..count {
            let length = self.length()?;
            tags.push(str::from_utf8(self.bytes(length)?).ok()?.into());
        }
        Some(tags.into())
    }
}

/// The lengths of time that a cache reckons in, at this time of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// How long ago it was stored.
    pub age: Duration,
    /// How long it is fresh, from when it was stored.
    pub ttl: Duration,
    /// How long it may be served after that.
    pub max_stale: Duration,
    /// How long its load took.
    pub cost: Duration,
}

impl Sealed<'_> {
    /// Whatever the times are, nothing lives longer than `longest` from when it is read.
    #[must_use]
    pub fn lengths(&self, now: u64, longest: Duration) -> Lengths {
        let between = |from: u64, to: u64| Duration::from_micros(to.saturating_sub(from));
        let age = between(self.stored, now);
        // A clock that was put back makes nothing younger than it was when it was stored.
        let most = age.saturating_add(longest);
        let ttl = between(self.stored, self.fresh_until).min(most);
        let max_stale = between(self.fresh_until, self.stale_until).min(most.saturating_sub(ttl));
        Lengths { age, ttl, max_stale, cost: between(self.created, self.stored) }
    }

    /// Whether its load had begun when its tag, or everything, was invalidated.
    #[must_use]
    pub const fn is_void_by(&self, invalidated: u64) -> bool {
        self.created <= invalidated
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const STAMP: Stamp = Stamp { origin: 7, number: 9 };

    fn sealed(stamp: Stamp, times: [u64; 4], tags: &[Box<str>], payload: &[u8]) -> Vec<u8> {
        let mut bytes = front(false, stamp).to_vec();
        times.iter().for_each(|time| bytes.extend_from_slice(&time.to_be_bytes()));
        let back = back(tags, |back| {
            back.extend_from_slice(payload);
            Ok::<_, ()>(())
        });
        bytes.extend(back.unwrap().unwrap());
        bytes
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened_the_same(
            origin in any::<u64>(),
            number in any::<u64>(),
            mut times in any::<[u64; 4]>(),
            tags in vec("[a-zä]{0,9}", 0..9),
            payload in vec(any::<u8>(), 0..99),
        ) {
            times.sort_unstable();
            let tags: Arc<[Box<str>]> = tags.into_iter().map(Into::into).collect();
            let stamp = Stamp { origin, number };
            let bytes = sealed(stamp, times, &tags, &payload);
            prop_assert_eq!(bytes.len(), size(bytes.len() - FRONT - TIMES));
            let [created, stored, fresh_until, stale_until] = times;
            let whole = Sealed { stamp, created, stored, fresh_until, stale_until, tags, payload: &payload };
            prop_assert_eq!(open(&bytes), Opened::Sealed(whole));
        }

        /// fusioncache_distributed_cache_wire_version
        #[test]
        fn whatever_the_bytes_are_they_are_read_to_an_end(bytes in vec(any::<u8>(), 0..200), front in any::<bool>()) {
            let mut bytes = bytes;
            if front {
                bytes.splice(..0, super::front(false, STAMP));
            }
            match open(&bytes) {
                Opened::Sealed(sealed) => {
                    let lengths = sealed.lengths(0, Duration::from_secs(1));
                    prop_assert!(lengths.ttl.saturating_add(lengths.max_stale) <= Duration::from_secs(1));
                    prop_assert!(sealed.tags.iter().map(|tag| tag.len() + 2).sum::<usize>() <= bytes.len());
                }
                Opened::Grave(_) => prop_assert_eq!(bytes.len(), FRONT + TIMES),
                Opened::Foreign => {}
            }
        }

        #[test]
        fn what_is_cut_off_before_the_value_is_foreign(cut in 0..FRONT + TIMES + 7) {
            let bytes = sealed(STAMP, [1, 2, 3, 4], &["tag".into()], b"value");
            prop_assert_eq!(open(&bytes[..cut]), Opened::Foreign);
        }

        #[test]
        fn no_time_makes_anything_live_longer_than_the_longest(
            mut times in any::<[u64; 4]>(),
            now in any::<u64>(),
            longest in 0..u64::MAX / 1000,
        ) {
            times.sort_unstable();
            let [created, stored, fresh_until, stale_until] = times;
            let tags = Arc::new([]);
            let sealed = Sealed { stamp: STAMP, created, stored, fresh_until, stale_until, tags, payload: b"" };
            let Lengths { age, ttl, max_stale, .. } = sealed.lengths(now, Duration::from_micros(longest));
            let left = ttl.saturating_add(max_stale).saturating_sub(age);
            prop_assert!(left <= Duration::from_micros(longest));
            prop_assert!(left <= Duration::from_micros(stale_until - stored));
        }
    }

    #[test]
    fn another_version_another_kind_and_times_that_go_back_are_foreign() {
        let good = sealed(STAMP, [1, 2, 3, 4], &[], b"value");
        assert!(matches!(open(&good), Opened::Sealed(_)));
        for (at, byte) in [(0, 0), (1, 0), (2, 2), (3, 2)] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            assert_eq!(open(&bytes), Opened::Foreign, "byte {at}");
        }
        for times in [[2, 1, 3, 4], [1, 3, 2, 4], [1, 2, 4, 3]] {
            assert_eq!(open(&sealed(STAMP, times, &[], b"")), Opened::Foreign);
        }
        let mut grave = front(true, STAMP).to_vec();
        grave.extend([0; TIMES]);
        assert_eq!(open(&grave), Opened::Grave(STAMP));
        grave.push(0);
        assert_eq!(open(&grave), Opened::Foreign);
    }

    #[test]
    fn a_length_that_is_a_lie_reserves_nothing() {
        let mut bytes = front(false, STAMP).to_vec();
        bytes.extend([0; TIMES]);
        bytes.extend([0xFF; 2]);
        let read = allocation_counter::measure(|| assert_eq!(open(&bytes), Opened::Foreign));
        assert!(read.bytes_max <= 64, "{read:?}");
    }

    #[test]
    fn tags_that_cannot_be_counted_are_not_written() {
        let none = |_: &mut Vec<u8>| Ok::<_, ()>(());
        assert_eq!(back(&vec!["".into(); 1 << 16], none), None);
        assert_eq!(back(&["a".repeat(1 << 16).into()], none), None);
        assert!(back(&vec!["".into(); (1 << 16) - 1], none).is_some());
    }

    #[test]
    fn the_lengths_are_those_that_were_stored() {
        let tags = Arc::new([]);
        let sealed =
            Sealed { stamp: STAMP, created: 10, stored: 15, fresh_until: 115, stale_until: 215, tags, payload: b"" };
        let micros = Duration::from_micros;
        let lengths = sealed.lengths(40, Duration::from_secs(1));
        let expected = Lengths { age: micros(25), ttl: micros(100), max_stale: micros(100), cost: micros(5) };
        assert_eq!(lengths, expected);
        assert_eq!((sealed.is_void_by(9), sealed.is_void_by(10)), (false, true));
    }
}
