//! Our cache beside its peers, in one run: hits through the whole layer and of the store alone, with a ttl and without, keys large and small, a
//! skewed load that does not fit, misses, and two threads. What skews it: each reads the clock it comes with, ours the time stamp counter; quick_cache
//! and foyer have no ttl at all, and neither has `Mutex<lru>`, which is the floor. Our store answers with an entry, whose value is copied out of
//! it under no lock; theirs copy under one. A miss of ours is a task of its own, so that its caller may go away: what that costs is in its row.
//!
//! ```text
//! cargo bench -p buttress-peers --bench cache [-- [--short] [FILTER]]
//! ```
//!
//! Only with `-p`: a build of the whole workspace turns tokio's `test-util` on, and with it slower clocks.

#[path = "../../harness/mod.rs"]
mod harness;

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    hint::black_box,
    num::NonZeroUsize,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::{
    cache::{CacheHandle, CacheKey, CacheLayer, CacheSettings, Entry, Envelope, MemoryStore, Store as Stores},
    scan_resistant::ScanResistantStore,
};
use lru::LruCache;
use sha2::{Digest, Sha256};
use tower::{Layer, service_fn};

use harness::{
    Batch, Bench, Bound, CaseId,
    usage::{Use, runtime},
};

const TTL: Duration = Duration::from_secs(3600);
const SETTINGS: CacheSettings = CacheSettings::new().ttl(TTL).max_entries(CAPACITY);
/// A tenth of the keys.
const CAPACITY: usize = 10_000;
const KEYS: usize = 100_000;

/// The client's own error.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("down")]
struct Down;

type Error = buttress::Error<Down>;
type Page = Arc<[u8]>;

/// A cache without a layer, as the benchmark uses it.
trait Plain: Send + Sync + 'static {
    fn get(&self, key: u64) -> Option<u64>;
    fn put(&self, key: u64, value: u64);
}

type Shared = Arc<dyn Plain>;

impl<St: Stores<u64, u64>> Plain for CacheHandle<u64, u64, St> {
    fn get(&self, key: u64) -> Option<u64> {
        self.get(&key)
    }

    fn put(&self, key: u64, value: u64) {
        drop(self.put(key, value));
    }
}

impl Plain for Mutex<LruCache<u64, u64>> {
    fn get(&self, key: u64) -> Option<u64> {
        self.lock().expect("no panic").get(&key).copied()
    }

    fn put(&self, key: u64, value: u64) {
        self.lock().expect("no panic").put(key, value);
    }
}

impl Plain for quick_cache::sync::Cache<u64, u64> {
    fn get(&self, key: u64) -> Option<u64> {
        self.get(&key)
    }

    fn put(&self, key: u64, value: u64) {
        self.insert(key, value);
    }
}

impl Plain for moka::sync::Cache<u64, u64> {
    fn get(&self, key: u64) -> Option<u64> {
        self.get(&key)
    }

    fn put(&self, key: u64, value: u64) {
        self.insert(key, value);
    }
}

impl Plain for foyer_memory::Cache<u64, u64> {
    fn get(&self, key: u64) -> Option<u64> {
        self.get(&key).map(|entry| *entry.value())
    }

    fn put(&self, key: u64, value: u64) {
        self.insert(key, value);
    }
}

/// The store alone, which has no clock, as `Mutex<lru>` has none.
struct Store<St>(St);

/// The store, and whether its answer has expired, which reads the clock.
struct Timed(MemoryStore<u64, u64>);

impl<St: Stores<u64, u64>> Plain for Store<St> {
    fn get(&self, key: u64) -> Option<u64> {
        self.0.get(&key).and_then(|entry| entry.value().copied())
    }

    fn put(&self, key: u64, value: u64) {
        self.0.put(key, Entry::new(value, Envelope::new(TTL)));
    }
}

impl Plain for Timed {
    fn get(&self, key: u64) -> Option<u64> {
        let entry = self.0.get(&key).filter(|entry| !entry.has_expired())?;
        entry.value().copied()
    }

    fn put(&self, key: u64, value: u64) {
        self.0.put(key, Entry::new(value, Envelope::new(TTL)));
    }
}

/// What no ttl can do without, over the same map: a reading of the clock.
struct TimedLru(Mutex<LruCache<u64, u64>>, quanta::Clock);

impl Plain for TimedLru {
    fn get(&self, key: u64) -> Option<u64> {
        let value = self.0.get(key)?;
        (self.1.raw() > 0).then_some(value)
    }

    fn put(&self, key: u64, value: u64) {
        Plain::put(&self.0, key, value);
    }
}

/// What a hit costs our store, without what the cache makes of it: the life of an entry and the figures.
fn stores() -> Vec<(&'static str, Shared)> {
    let store = || MemoryStore::try_new(SETTINGS).expect("there is room");
    vec![
        ("buttress, the store alone", Arc::new(Store(store()))),
        ("buttress, the store and a ttl", Arc::new(Timed(store()))),
        ("buttress, the scan-resistant store alone", Arc::new(Store(scan_resistant()))),
        ("Mutex<lru> and a clock", Arc::new(TimedLru(lru(), quanta::Clock::new()))),
    ]
}

fn scan_resistant() -> ScanResistantStore<u64, u64> {
    ScanResistantStore::try_new(SETTINGS).expect("there is room")
}

fn scan_resistant_cache() -> CacheHandle<u64, u64, ScanResistantStore<u64, u64>> {
    CacheHandle::with_store(SETTINGS, scan_resistant()).expect("they work")
}

fn lru() -> Mutex<LruCache<u64, u64>> {
    Mutex::new(LruCache::new(NonZeroUsize::new(CAPACITY).expect("above zero")))
}

/// Each of them, empty.
fn caches() -> Vec<(&'static str, Shared)> {
    vec![
        ("buttress, ttl", Arc::new(CacheHandle::<u64, u64>::new(SETTINGS))),
        ("Mutex<lru>", Arc::new(lru())),
        ("quick_cache", Arc::new(quick_cache::sync::Cache::<u64, u64>::new(CAPACITY))),
        ("moka, ttl", Arc::new(moka::sync::Cache::builder().max_capacity(CAPACITY as u64).time_to_live(TTL).build())),
        ("buttress, scan-resistant, ttl", Arc::new(scan_resistant_cache())),
        ("foyer", Arc::new(foyer_memory::CacheBuilder::new(CAPACITY).build())),
    ]
}

fn main() {
    let runtime = Rc::new(runtime());
    let _entered = runtime.enter();
    let mut bench = Bench::from_args("cache_peers");
    let usage = Use { a_clone_per_call: false, runtime: None };

    bench.section("a hit through the layer: u64 key, Arc answer, ttl");
    let (ours, theirs) = layers(&mut bench, &usage);
    floor(&mut bench);
    bench.gate("a hit through the layer: of tower-resilience's", ours, theirs, Bound::AtMost(0.35));

    bench.section("a hit: one hot key");
    rows(&mut bench, caches(), |cache| {
        cache.put(1, 1);
        move |calls| {
            (0..calls).for_each(|_| {
                black_box(cache.get(black_box(1)));
            })
        }
    });

    bench.section("a hit: 10,000 keys");
    let many = |cache: Shared| {
        let keys = CAPACITY as u64 / 2;
        (0..keys).for_each(|key| cache.put(key, key));
        let mut key = 0_u64;
        move |calls| {
            for _ in 0..calls {
                key = key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                black_box(cache.get(black_box((key >> 33) % keys)));
            }
        }
    };
    let ids = rows(&mut bench, caches(), many);
    let stores = rows(&mut bench, stores(), many);
    bench.gate("a hit in the store: of Mutex<lru>'s", stores[0], ids[1], Bound::AtMost(2.2));
    bench.gate("a hit in the store, with a ttl: of moka's", stores[1], ids[3], Bound::AtMost(0.125));

    bench.section("get or put, zipf 0.99, 100,000 keys and room for a tenth");
    let load = Arc::new(zipf());
    let mut ratios = Vec::new();
    for (name, cache) in caches() {
        let ratio = hit_ratio(&*cache, &load);
        bench.remark(format!("hit ratio of {name}"), format!("{ratio:.4}"));
        ratios.push(ratio);
    }
    bench.gate_value("hits of the cache: of those of an LRU", ratios[0] / ratios[1], Bound::AtLeast(0.99));
    bench.gate_value(
        "hits of the scan-resistant cache: of those of an LRU",
        ratios[4] / ratios[1],
        Bound::AtLeast(1.05),
    );
    rows(&mut bench, caches(), |cache| {
        hit_ratio(&*cache, &load);
        let (load, mut at) = (Arc::clone(&load), 0);
        move |calls| {
            for _ in 0..calls {
                at = (at + 1) % load.len();
                get_or_put(&*cache, load[at]);
            }
        }
    });
    for id in 0..caches().len() {
        let (name, bytes) = bytes_per_entry(id);
        bench.remark(format!("bytes per entry of {name}"), format!("{bytes:.1}"));
    }

    bench.section("a hit: a key of 1 KiB");
    let (plain, hashed) = large_keys(&mut bench);
    bench.gate("a key of 1 KiB: of hashing it with SHA-256 first", plain, hashed, Bound::AtMost(0.2));

    bench.section("a miss through the layer");
    misses(&mut bench, &Use { a_clone_per_call: false, runtime: Some(Rc::clone(&runtime)) });

    bench.gate_allocations();
    bench.run();
}

/// A row for each, on one thread and on two that share it. What we put allocates the entry.
fn rows<B>(bench: &mut Bench, caches: Vec<(&'static str, Shared)>, batch: impl Fn(Shared) -> B) -> Vec<CaseId>
where
    B: FnMut(u64) + Send + 'static,
{
    let mut ids = Vec::new();
    for (index, (name, cache)) in caches.into_iter().enumerate() {
        let of_two = || Box::new(batch(Arc::clone(&cache))) as Batch;
        let case = bench.case(name, batch(Arc::clone(&cache))).on_two_threads(of_two);
        if index == 0 {
            case.ours().may_allocate();
        }
        ids.push(bench.last());
    }
    ids
}

fn layers(bench: &mut Bench, usage: &Use) -> (CaseId, CaseId) {
    let page: Page = Arc::from(&b"a page"[..]);
    let client = {
        let page = Arc::clone(&page);
        service_fn(move |_: u64| std::future::ready(Ok::<Page, Error>(Arc::clone(&page))))
    };
    let ours = CacheLayer::new(SETTINGS, |_: &u64| Some(7_u64));
    ours.handle().put(7, page);
    let service = ours.layer(client.clone());
    usage.case(bench, "buttress", &service).ours().on_two_threads(usage.batch(&service));
    let id = bench.last();
    let cloned = Use { a_clone_per_call: true, runtime: None };
    cloned.case(bench, "buttress, a clone per call", &service).ours().on_two_threads(cloned.batch(&service));

    let theirs = tower_resilience_cache::CacheLayer::builder()
        .max_size(CAPACITY)
        .ttl(TTL)
        .key_extractor(|_: &u64| 7_u64)
        .build()
        .expect("a key is set");
    let service = theirs.layer(client);
    usage.case(bench, "tower-resilience", &service).on_two_threads(usage.batch(&service));
    let theirs = bench.last();
    cloned.case(bench, "tower-resilience, a clone per call", &service);
    (id, theirs)
}

/// What a hit through a layer with a ttl cannot do without, over a map in a lock: a look, a copy of the answer, and a reading of the clock. And the
/// same where the answer is copied under no lock, as ours is because `Clone` is somebody else's code: then a reference keeps it meanwhile.
fn floor(bench: &mut Bench) {
    let page: Page = Arc::from(&b"a page"[..]);
    let (lru, clock) = (lru_of(Arc::clone(&page)), quanta::Clock::new());
    bench.case("Mutex<lru> and a clock, without a layer", move |calls| {
        (0..calls).for_each(|_| {
            let page = lru.lock().expect("no panic").get(&black_box(7)).cloned();
            black_box((page, clock.raw()));
        });
    });
    let (lru, clock) = (lru_of(Arc::new(page)), quanta::Clock::new());
    bench.case("as well, copied under no lock", move |calls| {
        (0..calls).for_each(|_| {
            let kept = lru.lock().expect("no panic").get(&black_box(7)).cloned();
            black_box((kept.map(|kept| Page::clone(&kept)), clock.raw()));
        });
    });
}

/// With this under a key.
fn lru_of<V>(value: V) -> Mutex<LruCache<u64, V>> {
    let lru = Mutex::new(LruCache::new(NonZeroUsize::MIN));
    lru.lock().expect("no panic").put(7, value);
    lru
}

fn large_keys(bench: &mut Bench) -> (CaseId, CaseId) {
    let parts = vec![7_u8; 1024];
    let key = CacheKey::new("pages", 1).bytes(&parts);
    let plain = CacheHandle::<CacheKey, u64>::new(SETTINGS);
    plain.put(key.clone(), 7);
    bench.case("buttress, the key as it is", move |calls| {
        (0..calls).for_each(|_| {
            black_box(plain.get(black_box(&key)));
        });
    });
    let id = bench.last();
    let hashed = CacheHandle::<[u8; 32], u64>::new(SETTINGS);
    hashed.put(Sha256::digest(&parts).into(), 7);
    bench.case("buttress, SHA-256 of the key", move |calls| {
        for _ in 0..calls {
            let digest: [u8; 32] = Sha256::digest(black_box(&parts)).into();
            black_box(hashed.get(&digest));
        }
    });
    (id, bench.last())
}

fn misses(bench: &mut Bench, usage: &Use) {
    let client = service_fn(|n: u64| std::future::ready(Ok::<u64, Error>(n)));
    // No two calls ask for the same, so that each is a miss, and what leaves has been of no use.
    let next = |counter: &std::sync::atomic::AtomicU64| counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let counter = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let service = {
        let counter = Arc::clone(&counter);
        CacheLayer::new(SETTINGS, move |_: &u64| Some(next(&counter))).layer(client)
    };
    usage.case(bench, "buttress, in a task", &service).ours().may_allocate();
    let theirs = tower_resilience_cache::CacheLayer::builder()
        .max_size(CAPACITY)
        .ttl(TTL)
        .key_extractor(move |_: &u64| next(&counter))
        .build()
        .expect("a key is set");
    usage.case(bench, "tower-resilience, in the call", &theirs.layer(client));
    let moka = moka::future::Cache::builder().max_capacity(CAPACITY as u64).time_to_live(TTL).build();
    let key = std::sync::atomic::AtomicU64::new(0);
    usage.futures(bench, "moka get_with, in the call", move |n| {
        let (moka, key) = (moka.clone(), next(&key));
        async move { moka.get_with(key, std::future::ready(n)).await }
    });
}

fn get_or_put(cache: &dyn Plain, key: u64) -> bool {
    let found = black_box(cache.get(key)).is_some();
    if !found {
        cache.put(key, key);
    }
    found
}

/// After a warm-up of the same length.
fn hit_ratio(cache: &dyn Plain, load: &[u64]) -> f64 {
    let pass = || load.iter().filter(|key| get_or_put(cache, **key)).count();
    pass();
    pass() as f64 / load.len() as f64
}

/// Requests for keys whose popularity falls with their rank to the power of 0.99, in an order that is the same in every run.
fn zipf() -> Vec<u64> {
    let mut sum = 0.0;
    let cumulated: Vec<f64> = (1..=KEYS)
        .map(|rank| {
            sum += (rank as f64).powf(-0.99);
            sum
        })
        .collect();
    let mut state = 7_u64;
    (0..500_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let drawn = (state >> 11) as f64 / (1_u64 << 53) as f64 * sum;
            cumulated.partition_point(|up_to| *up_to < drawn) as u64
        })
        .collect()
}

fn bytes_per_entry(index: usize) -> (&'static str, f64) {
    let mut name = "";
    let random = RandomState::new();
    let measured = allocation_counter::measure(|| {
        let (of, cache) = caches().swap_remove(index);
        name = of;
        for key in 0..CAPACITY as u64 {
            cache.put(random.hash_one(key), key);
        }
        // It is not to be freed inside.
        std::mem::forget(cache);
    });
    (name, measured.bytes_current as f64 / CAPACITY as f64)
}
