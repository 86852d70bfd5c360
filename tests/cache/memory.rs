//! The store of the cache's own: the least recently used leaves first.

use std::hash::{Hash, Hasher};

use buttress::cache::MemoryStore as Tested;

use super::*;

#[path = "stores.rs"]
mod stores;

#[tokio::test(start_paused = true)]
async fn what_has_expired_leaves_when_another_comes() {
    // So small that it is one shard: of several one may see too few newcomers.
    let cache = CacheHandle::<u32, u32>::new(BASE.max_entries(1_000));
    for key in 0..100 {
        cache.put(key, key);
    }
    pass(10 * SECOND).await;
    for key in 100..200 {
        cache.put(key, key);
    }
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.expirations, stats.evictions), (100, 100, 0));
}

/// What a [`Fickle`] key does next.
static FICKLE: Mutex<Option<(&str, u32)>> = Mutex::new(None);

/// A key whose code panics the so-manieth time.
struct Fickle;

impl Fickle {
    fn does(what: &str) {
        let mut told = FICKLE.lock().unwrap();
        match &mut *told {
            Some((panics, left)) if *panics == what && *left > 0 => {
                *left -= 1;
                if *left == 0 {
                    drop(told);
                    panic!("told so");
                }
            }
            _ => {}
        }
    }
}

impl Clone for Fickle {
    fn clone(&self) -> Self {
        Self::does("clone");
        Self
    }
}

impl Hash for Fickle {
    fn hash<H: Hasher>(&self, _: &mut H) {
        Self::does("hash");
    }
}

impl PartialEq for Fickle {
    fn eq(&self, _: &Self) -> bool {
        Self::does("eq");
        true
    }
}

impl Eq for Fickle {}

/// fusioncache_647_lock_retained_when_a_factory_throws
#[tokio::test(start_paused = true)]
async fn a_key_that_panics_at_any_moment_of_a_load_leaves_nobody_waiting() {
    for what in ["clone", "hash", "eq"] {
        for time in 1..20 {
            let cache = CacheHandle::<Fickle, u32>::new(BASE);
            let inner = service_fn(async |()| Ok::<_, AppError>(7));
            let service = cache.layer(|(): &()| Some(Fickle)).layer(inner);
            *FICKLE.lock().unwrap() = Some((what, time));
            let _ = tokio::spawn(service.clone().oneshot(())).await;
            settle().await;
            *FICKLE.lock().unwrap() = None;
            let next = tokio::time::timeout(MINUTE, service.oneshot(())).await;
            assert_eq!(next, Ok(Ok(7)), "{what} {time}");
            assert_eq!(cache.stats().in_flight, 0, "{what} {time}");
        }
    }
}
