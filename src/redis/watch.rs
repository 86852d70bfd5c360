//! What is near, and being loaded, by the names that changes are told by.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    envelope::Stamp,
    far::Flag,
    names::{Digest, Heard, digest_of_tag},
};
use crate::{
    cache::{Entry, WeakEntry},
    sync::Mutex,
};

/// A record for each entry that is near and each that is being loaded. It keeps nothing alive, and is swept as it grows.
pub(super) struct Watch<V>(Mutex<Records<V>>);

struct Records<V> {
    of: HashMap<Digest, Record<V>>,
    sweep_at: usize,
}

struct Record<V> {
    load: Weak<AtomicBool>,
    entry: Option<WeakEntry<V>>,
    tags: Box<[Digest]>,
    /// The write of this process whose echo has not been heard.
    written: Option<Stamp>,
}

/// What was heard may be the echo of one's own write, or somebody else's.
pub(super) struct Suspect<V> {
    pub(super) digest: Digest,
    pub(super) stamp: Stamp,
    pub(super) entry: WeakEntry<V>,
}

const FIRST_SWEEP: usize = 64;

impl<V> Watch<V> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Records { of: HashMap::new(), sweep_at: FIRST_SWEEP }))
    }

    /// Before it is fetched: whatever is heard of it from now on sets the flag.
    pub(super) fn begin(&self, digest: Digest) -> Flag {
        let mut records = self.0.lock();
        let record = records.of(digest);
        match record.load.upgrade().filter(|flag| !flag.load(Ordering::Acquire)) {
            Some(flag) => flag,
            None => {
                let flag = Flag::default();
                record.load = Arc::downgrade(&flag);
                flag
            }
        }
    }

    /// Whether nothing was heard of it since its load began. From now on it is void when something is.
    pub(super) fn admit(&self, digest: Digest, entry: &Entry<V>, written: Option<Stamp>, flag: Option<&Flag>) -> bool {
        let tags = entry.envelope().tags.iter().map(|tag| digest_of_tag(tag)).collect();
        // The last to have an entry drops its value, which is somebody's code.
        let before;
        let mut records = self.0.lock();
        if flag.is_some_and(|flag| flag.load(Ordering::Acquire)) {
            return false;
        }
        let record = records.of(digest);
        before = record.entry.as_ref().and_then(WeakEntry::upgrade);
        if before.as_ref().is_some_and(|before| before.generation() > entry.generation()) {
            return false;
        }
        (record.entry, record.tags, record.written) = (Some(entry.downgrade()), tags, written);
        true
    }

    /// Forgets what others have changed. What may be one's own echo is for the caller to find out.
    pub(super) fn heard(&self, heard: Heard) -> Option<Suspect<V>> {
        match heard {
            Heard::Nothing => None,
            Heard::Key(digest) => {
                let mut records = self.0.lock();
                let record = records.of.get_mut(&digest)?;
                record.flag();
                let entry = record.entry.clone()?;
                if let Some(stamp) = record.written.take() {
                    return Some(Suspect { digest, stamp, entry });
                }
                let entry = entry.upgrade();
                if let Some(entry) = &entry {
                    entry.void();
                }
                drop(records);
                None
            }
            Heard::Tag(tag) => {
                // The tags of what is being loaded are not known yet.
                self.each(|record| record.tags.contains(&tag), Entry::void);
                None
            }
            Heard::All => {
                self.each(|_| true, Entry::void);
                None
            }
        }
    }

    /// Nobody knows what has changed.
    pub(super) fn age(&self) {
        self.each(|_| true, Entry::age);
    }

    fn each(&self, is_meant: impl Fn(&Record<V>) -> bool, becomes: impl Fn(&Entry<V>)) {
        let mut held = Vec::new();
        let records = self.0.lock();
        for record in records.of.values() {
            record.flag();
            if is_meant(record) {
                held.extend(record.entry.as_ref().and_then(WeakEntry::upgrade));
            }
        }
        held.iter().for_each(becomes);
        // The last to have an entry drops its value, which is somebody's code.
        drop(records);
        drop(held);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().of.len()
    }
}

impl<V> Records<V> {
    fn of(&mut self, digest: Digest) -> &mut Record<V> {
        if self.of.len() >= self.sweep_at {
            self.of.retain(|_, record| record.is_of_use());
            self.sweep_at = (self.of.len() * 2).max(FIRST_SWEEP);
        }
        self.of.entry(digest).or_insert_with(|| Record {
            load: Weak::new(),
            entry: None,
            tags: Box::default(),
            written: None,
        })
    }
}

impl<V> Record<V> {
    fn flag(&self) {
        if let Some(flag) = self.load.upgrade() {
            flag.store(true, Ordering::Release);
        }
    }

    fn is_of_use(&self) -> bool {
        self.load.strong_count() > 0 || self.entry.as_ref().is_some_and(|entry| !entry.is_gone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::Envelope;

    const STAMP: Stamp = Stamp { origin: 1, number: 2 };

    fn entry(tags: &[&str]) -> Entry<u32> {
        let mut envelope = Envelope::new(Duration::from_secs(60));
        envelope.tags = tags.iter().map(|tag| Box::from(*tag)).collect();
        Entry::new(7, envelope)
    }

    fn digest(of: u8) -> Digest {
        [of; 32]
    }

    #[test]
    fn what_is_heard_while_it_is_loaded_keeps_it_out() {
        let watch = Watch::new();
        for heard in [Heard::Key(digest(1)), Heard::Tag(digest(9)), Heard::All] {
            let flag = watch.begin(digest(1));
            assert!(watch.heard(heard).is_none());
            assert!(!watch.admit(digest(1), &entry(&[]), None, Some(&flag)));
            // Who begins after that has nothing to do with it, and does not share the flag.
            let next = watch.begin(digest(1));
            assert!(watch.admit(digest(1), &entry(&[]), None, Some(&next)));
        }
        let flag = watch.begin(digest(1));
        watch.heard(Heard::Key(digest(2)));
        watch.heard(Heard::Nothing);
        assert!(watch.admit(digest(1), &entry(&[]), None, Some(&flag)));
        let flag = watch.begin(digest(1));
        watch.age();
        assert!(!watch.admit(digest(1), &entry(&[]), None, Some(&flag)));
    }

    #[test]
    fn what_is_older_than_what_is_near_does_not_take_its_place() {
        let watch = Watch::new();
        let of = |generation| {
            let mut envelope = Envelope::new(Duration::from_secs(60));
            envelope.generation = generation;
            Entry::new(7, envelope)
        };
        let (newer, newest) = (of(2), of(3));
        assert!(watch.admit(digest(1), &newer, None, None));
        assert!(!watch.admit(digest(1), &of(1), None, None));
        assert!(watch.admit(digest(1), &newest, None, None));
        let kept = watch.0.lock().of[&digest(1)].entry.clone();
        assert!(kept.and_then(|kept| kept.upgrade()).is_some_and(|kept| kept.is(&newest)));
    }

    #[test]
    fn an_echo_is_suspect_once() {
        let watch = Watch::new();
        let entry = entry(&[]);
        assert!(watch.admit(digest(1), &entry, Some(STAMP), None));
        let suspect = watch.heard(Heard::Key(digest(1))).expect("it may be ours");
        assert_eq!((suspect.digest, suspect.stamp), (digest(1), STAMP));
        assert!(suspect.entry.upgrade().is_some_and(|suspect| suspect.is(&entry)));
        assert!(watch.heard(Heard::Key(digest(1))).is_none(), "it is not ours");
    }

    #[test]
    fn a_flood_of_keys_that_nobody_keeps_leaves_nothing_behind() {
        let watch = Watch::new();
        let kept: Vec<_> = (0..10).map(|_| entry(&[])).collect();
        for (of, entry) in kept.iter().enumerate() {
            watch.admit(digest(of as u8), entry, None, None);
        }
        for number in 0..100_000_u32 {
            let mut digest = digest(255);
            digest[..4].copy_from_slice(&number.to_le_bytes());
            watch.begin(digest);
            watch.admit(digest, &entry(&[]), None, None);
        }
        assert!(watch.len() <= FIRST_SWEEP);
        let there = (0..10).filter(|of| watch.0.lock().of.contains_key(&digest(*of))).count();
        assert_eq!(there, 10);
    }

    /// A value whose destructor comes back.
    struct Nosy(std::sync::Weak<Watch<Self>>);

    impl Drop for Nosy {
        fn drop(&mut self) {
            self.0.upgrade().expect("it is there").begin(digest(3));
        }
    }

    #[test]
    fn a_value_is_dropped_under_no_lock() {
        let watch = Arc::new(Watch::new());
        for heard in [Heard::Key(digest(1)), Heard::All] {
            let entry = Entry::new(Nosy(Arc::downgrade(&watch)), Envelope::new(Duration::from_secs(60)));
            watch.admit(digest(1), &entry, None, None);
            std::thread::scope(|scope| {
                scope.spawn(|| drop(entry));
                watch.heard(heard);
            });
        }
    }
}
