//! What holds of every store in memory: its bounds, and what it does with the code of others. `Tested` is the store.

use std::{
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{OnceLock, Weak, atomic::AtomicBool},
};

use super::{Tested, *};

fn cache<K: Hash + Eq + Clone + Send + Sync + 'static, V: Send + Sync + 'static>(
    settings: CacheSettings,
) -> CacheHandle<K, V, Tested<K, V>> {
    CacheHandle::with_store(settings, Tested::try_new(settings).unwrap()).unwrap()
}

/// lru_preallocates_its_capacity
#[test]
fn a_bound_of_2_to_the_30_is_built_of_nothing() {
    let settings = BASE.max_entries(1 << 30).max_bytes(u64::MAX);
    let made = allocation_counter::measure(|| drop(cache::<u64, u64>(settings)));
    assert!(made.bytes_max < 16 * 1024, "{made:?}");
    let made = allocation_counter::measure(|| drop(cache::<u64, u64>(settings.max_entries(usize::MAX))));
    assert!(made.bytes_max < 16 * 1024, "{made:?}");
}

#[test]
fn a_million_inserts_stay_inside_both_bounds() {
    const BYTES: u64 = 100_000;
    let settings = BASE.max_entries(1_000).max_bytes(BYTES);
    let store = Tested::weighed(settings, |_: &u64, value: &u64| *value).unwrap();
    let cache = CacheHandle::with_store(settings, store).unwrap();
    for key in 0..1_000_000_u64 {
        // From a few large ones to many small ones.
        cache.put(key % 5_000, 1 + key * 7919 % if key < 500_000 { 10_000 } else { 10 });
        if key % 1_000 == 0 {
            let stats = cache.stats();
            assert!(stats.bytes <= BYTES && stats.entries <= 1_000, "{stats:?}");
        }
    }
    assert_eq!(cache.stats().entries, 1_000);
    assert!(cache.stats().evictions > 900_000);
}

/// moka_309_entries_that_nobody_manages
#[test]
fn what_leaves_takes_its_memory_along() {
    let cache = cache::<u64, Vec<u8>>(BASE.max_entries(100));
    let churn = |keys: std::ops::Range<u64>| {
        for key in keys {
            cache.put(key, vec![0; 1_000]);
        }
    };
    churn(0..1_000);
    let churned = allocation_counter::measure(|| churn(1_000..10_000));
    assert!(churned.bytes_current.abs() < 10_000, "{churned:?}");
}

/// A value that looks into its cache when it is dropped, and a key whose `Eq` panics when told to.
struct Looks(Arc<OnceLock<Weak<Cache>>>);

#[derive(Clone)]
struct Key(u32, Arc<AtomicBool>);

type Cache = CacheHandle<Key, Arc<Looks>, Tested<Key, Arc<Looks>>>;

impl Drop for Looks {
    fn drop(&mut self) {
        if let Some(cache) = self.0.get().and_then(Weak::upgrade) {
            let _ = cache.stats();
        }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(0);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        assert!(!self.1.load(Ordering::SeqCst) && !other.1.load(Ordering::SeqCst), "Eq");
        self.0 == other.0
    }
}

impl Eq for Key {}

#[test]
fn the_code_of_others_runs_under_no_lock_and_its_panic_poisons_nothing() {
    let home = Arc::new(OnceLock::new());
    let cache = Arc::new(cache::<Key, Arc<Looks>>(BASE.max_entries(3)));
    home.set(Arc::downgrade(&cache)).unwrap();
    let (panics, value) = (Arc::new(AtomicBool::new(false)), || Arc::new(Looks(Arc::clone(&home))));
    let key = |id| Key(id, Arc::clone(&panics));
    for id in [1, 2, 3, 3, 4, 1, 5] {
        cache.put(key(id), value());
    }
    cache.invalidate(&key(5));
    assert_eq!(cache.stats().entries, 2);
    panics.store(true, Ordering::SeqCst);
    assert!(catch_unwind(AssertUnwindSafe(|| cache.get(&key(1)).is_some())).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| cache.put(key(1), value()))).is_err());
    panics.store(false, Ordering::SeqCst);
    cache.put(key(6), value());
    assert!(cache.get(&key(1)).is_some() && cache.get(&key(6)).is_some());
    assert_eq!(cache.stats().entries, 3);
    cache.clear();
    assert_eq!(cache.stats().entries, 0);
}

#[tokio::test(start_paused = true)]
async fn a_weigher_that_panics_is_a_load_that_failed_and_nobody_waits_for_ever() {
    let store = Tested::weighed(BASE, |_: &u32, _: &u32| panic!("weigher")).unwrap();
    let cache = CacheHandle::with_store(BASE, store).unwrap();
    let service = cache.layer(|key: &u32| Some(*key)).layer(service_fn(async |key: u32| Ok::<_, AppError>(key)));
    for _ in 0..2 {
        assert!(service.clone().oneshot(1).await.is_err());
    }
    assert_eq!((cache.stats().in_flight, cache.stats().errors), (0, 2));
}

/// A value whose drop panics when told to.
struct Drops(Arc<AtomicBool>);

impl Drop for Drops {
    fn drop(&mut self) {
        assert!(!self.0.load(Ordering::SeqCst), "told so");
    }
}

#[test]
fn all_is_forgotten_also_when_the_drop_of_one_value_panics() {
    let (calm, panics) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let cache = cache::<u32, Drops>(BASE.max_entries(100_000));
    for key in 0..1_000 {
        cache.put(key, Drops(Arc::clone(if key == 7 { &panics } else { &calm })));
    }
    panics.store(true, Ordering::SeqCst);
    assert!(catch_unwind(AssertUnwindSafe(|| cache.clear())).is_err());
    assert_eq!(cache.stats().entries, 0);
}

#[test]
fn weights_that_no_sum_holds_are_summed_all_the_same() {
    let settings = BASE.max_entries(10);
    let store = Tested::weighed(settings, |_: &u32, weight: &u64| *weight).unwrap();
    let cache = CacheHandle::with_store(settings, store).unwrap();
    for weight in [u64::MAX, u64::MAX - 1, u64::MAX / 2, 1 << 62] {
        for key in 0..4 {
            cache.put(key, weight);
        }
        cache.put(9, 9);
        for key in 0..4 {
            cache.invalidate(&key);
        }
        let stats = cache.stats();
        assert_eq!((stats.entries, stats.bytes), (1, 9), "{weight}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_put_stays_also_when_an_older_load_brings_what_is_too_large() {
    let settings = BASE.max_bytes(100);
    let store = Tested::weighed(settings, |_: &u32, value: &u32| u64::from(*value)).unwrap();
    let cache = CacheHandle::with_store(settings, store).unwrap();
    let slow = service_fn(async |_: u32| {
        tokio::time::sleep(SECOND).await;
        Ok::<_, AppError>(101)
    });
    let load = tokio::spawn(cache.layer(|key: &u32| Some(*key)).layer(slow).oneshot(1));
    settle().await;
    cache.put(1, 50);
    assert_eq!(load.await.unwrap(), Ok(101));
    assert_eq!(cache.get(&1), Some(50));
}
