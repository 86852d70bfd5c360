//! The entries beside a naive model of them.

use buttress::cache::{Keep, MemoryStore};
use proptest::{collection::vec, prelude::*};

use super::*;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Put { key: u32, value: u32, ttl: u64, tag: Option<&'static str> },
    Get(u32),
    Invalidate(u32),
    InvalidateTag(&'static str),
    Clear,
    Pass(u64),
}

pub(crate) const ENTRIES: usize = 5;
pub(crate) const BYTES: u64 = 20;

struct Naive {
    /// The least recently used first.
    entries: Vec<Kept>,
    now: u64,
}

struct Kept {
    key: u32,
    value: u32,
    until: u64,
    tag: Option<&'static str>,
}

impl Naive {
    fn remove(&mut self, mut leaves: impl FnMut(&Kept) -> bool) {
        self.entries.retain(|entry| !leaves(entry));
    }

    fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.value)).sum()
    }

    fn put(&mut self, key: u32, value: u32, ttl: u64, tag: Option<&'static str>) {
        self.remove(|entry| entry.key == key);
        if u64::from(value) > BYTES {
            return;
        }
        self.entries.push(Kept { key, value, until: self.now + ttl, tag });
        while self.entries.len() > ENTRIES || self.bytes() > BYTES {
            self.entries.remove(0);
        }
        for _ in 0..2 {
            if self.entries.len() > 1 && self.entries[0].until <= self.now {
                self.entries.remove(0);
            }
        }
    }

    fn get(&mut self, key: u32) -> Option<u32> {
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        let entry = self.entries.remove(at);
        let found = (self.now < entry.until).then_some(entry.value);
        self.entries.push(entry);
        found
    }
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let key = || 1..9_u32;
    let tag = || prop_oneof![Just("a"), Just("b")];
    prop_oneof![
        4 => (key(), 0..25_u32, 1..6_u64, prop::option::of(tag()))
            .prop_map(|(key, value, ttl, tag)| Op::Put { key, value, ttl, tag }),
        4 => key().prop_map(Op::Get),
        1 => key().prop_map(Op::Invalidate),
        1 => tag().prop_map(Op::InvalidateTag),
        1 => Just(Op::Clear),
        2 => (0..4_u64).prop_map(Op::Pass),
    ]
}

proptest! {
    #[test]
    fn entries_live_and_leave_as_a_naive_cache_would_have_it(ops in vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let settings = BASE.max_entries(ENTRIES).max_bytes(BYTES);
        let store = MemoryStore::weighed(settings, |_: &u32, value: &u32| u64::from(*value)).unwrap();
        let cache = CacheHandle::with_store(settings, store).unwrap();
        let mut naive = Naive { entries: Vec::new(), now: 0 };
        runtime.block_on(async {
            for op in ops {
                match op.clone() {
                    Op::Put { key, value, ttl, tag } => {
                        let keep = Keep::from(Duration::from_nanos(ttl));
                        cache.put_for(key, value, tag.into_iter().fold(keep, Keep::tag));
                        naive.put(key, value, ttl, tag);
                    }
                    Op::Get(key) => prop_assert_eq!(cache.get(&key), naive.get(key), "{:?}", op),
                    Op::Invalidate(key) => {
                        cache.invalidate(&key);
                        naive.remove(|entry| entry.key == key);
                    }
                    Op::InvalidateTag(tag) => {
                        cache.invalidate_tag(tag);
                        // They only take room until somebody looks: so look.
                        for key in 1..9 {
                            if naive.entries.iter().any(|entry| entry.key == key && entry.tag == Some(tag)) {
                                prop_assert_eq!(cache.get(&key), None);
                            }
                        }
                        naive.remove(|entry| entry.tag == Some(tag));
                    }
                    Op::Clear => {
                        cache.clear();
                        naive.remove(|_| true);
                    }
                    Op::Pass(nanos) => {
                        tokio::time::advance(Duration::from_nanos(nanos)).await;
                        naive.now += nanos;
                    }
                }
                let stats = cache.stats();
                prop_assert_eq!((stats.entries, stats.bytes), (naive.entries.len(), naive.bytes()), "{:?}", op);
            }
            Ok(())
        })?;
    }
}
