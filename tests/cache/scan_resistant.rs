//! The store out of which a scan does not push what is in use.

use buttress::{
    cache::{Entry, Envelope, Keep, MemoryStore, Store},
    scan_resistant::ScanResistantStore as Tested,
};
use proptest::{collection::vec, prelude::*};

use super::{
    model::{BYTES, ENTRIES, Op, op},
    *,
};

#[path = "stores.rs"]
mod stores;

/// How many of the hundred in use a store still has after a scan of ten times its room.
fn left_after_a_scan(store: &impl Store<u32, u32>) -> usize {
    let entry = |value| Entry::new(value, Envelope::new(MINUTE));
    for key in 0..100 {
        store.put(key, entry(key));
    }
    for key in (0..100).chain(0..100) {
        assert!(store.get(&key).is_some());
    }
    for key in 1_000..11_000 {
        assert!(store.get(&key).is_none());
        store.put(key, entry(key));
    }
    (0..100).filter(|key| store.get(key).is_some()).count()
}

#[test]
fn a_scan_does_not_push_out_what_is_in_use() {
    let settings = BASE.max_entries(400);
    assert_eq!(left_after_a_scan(&Tested::try_new(settings).unwrap()), 100);
    assert_eq!(left_after_a_scan(&MemoryStore::try_new(settings).unwrap()), 0);
}

#[test]
fn what_comes_back_soon_is_known_and_stays() {
    let store = Tested::try_new(BASE.max_entries(100)).unwrap();
    let put = |key: u32| store.put(key, Entry::new(key, Envelope::new(MINUTE)));
    for key in 0..110 {
        put(key);
    }
    let gone = (0..110).find(|key| store.get(key).is_none()).unwrap();
    put(gone);
    // Others that are asked for once push one another out, and not it.
    for key in 1_000..1_100 {
        put(key);
    }
    assert!(store.get(&gone).is_some());
}

/// Bounded by bytes alone, so that the number of entries says nothing of how many have left.
#[test]
fn what_is_remembered_of_those_that_have_left_is_bounded_too() {
    let settings = BASE.max_entries(usize::MAX).max_bytes(64 * 1024);
    let cache = CacheHandle::with_store(settings, Tested::<u64, u64>::try_new(settings).unwrap()).unwrap();
    let churn = |keys: std::ops::Range<u64>| {
        for key in keys {
            cache.put(key, key);
        }
    };
    churn(0..10_000);
    let churned = allocation_counter::measure(|| churn(10_000..500_000));
    assert!(churned.bytes_current < 64 * 1024, "{churned:?}");
}

#[tokio::test(start_paused = true)]
async fn what_leaves_after_its_time_is_no_eviction() {
    let settings = BASE.max_entries(10);
    let cache = CacheHandle::with_store(settings, Tested::try_new(settings).unwrap()).unwrap();
    for key in 0..10 {
        cache.put(key, key);
    }
    pass(10 * SECOND).await;
    assert_eq!(cache.get(&3), None);
    for key in 10..30 {
        cache.put(key, key);
    }
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.expirations + stats.evictions), (10, 20));
    assert!(stats.expirations > 0 && stats.evictions > 0, "{stats:?}");
}

/// All that was put and not taken back. What a store has is some of it.
#[derive(Default)]
struct Naive {
    now: u64,
    put: std::collections::HashMap<u32, (u32, u64, Option<&'static str>)>,
}

proptest! {
    #[test]
    fn what_is_found_was_put_last_and_there_is_never_too_much(ops in vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let settings = BASE.max_entries(ENTRIES).max_bytes(BYTES);
        let store = Tested::weighed(settings, |_: &u32, value: &u32| u64::from(*value)).unwrap();
        let cache = CacheHandle::with_store(settings, store).unwrap();
        let mut naive = Naive::default();
        runtime.block_on(async {
            for op in ops {
                match op.clone() {
                    Op::Put { key, value, ttl, tag } => {
                        let keep = Keep::from(Duration::from_nanos(ttl));
                        cache.put_for(key, value, tag.into_iter().fold(keep, Keep::tag));
                        naive.put.insert(key, (value, naive.now + ttl, tag));
                        if u64::from(value) > BYTES {
                            naive.put.remove(&key);
                        }
                    }
                    Op::Get(key) => {
                        let known = naive.put.get(&key).filter(|(_, until, _)| naive.now < *until);
                        if let Some(found) = cache.get(&key) {
                            prop_assert_eq!(Some(found), known.map(|(value, ..)| *value), "{:?}", op);
                        }
                    }
                    Op::Invalidate(key) => {
                        cache.invalidate(&key);
                        naive.put.remove(&key);
                    }
                    Op::InvalidateTag(tag) => {
                        cache.invalidate_tag(tag);
                        naive.put.retain(|_, (_, _, of)| *of != Some(tag));
                    }
                    Op::Clear => {
                        cache.clear();
                        naive.put.clear();
                    }
                    Op::Pass(nanos) => {
                        tokio::time::advance(Duration::from_nanos(nanos)).await;
                        naive.now += nanos;
                    }
                }
                let stats = cache.stats();
                prop_assert!(stats.entries <= ENTRIES && stats.bytes <= BYTES, "{:?} {:?}", op, stats);
                if matches!(op, Op::Clear) {
                    prop_assert_eq!((stats.entries, stats.bytes), (0, 0));
                }
            }
            Ok(())
        })?;
        for key in 1..9 {
            cache.invalidate(&key);
        }
        prop_assert_eq!((cache.stats().entries, cache.stats().bytes), (0, 0));
    }
}
