//! A [`Store`](crate::cache::Store) in memory out of which a scan does not push what is asked for again and again.
//!
//! The least recently used leaves a [`MemoryStore`](crate::cache::MemoryStore) first. Whoever walks through all of a catalogue once, a crawler or a nightly job, is
//! the most recent user of everything, and leaves nothing of what the others had in use. This store keeps what has been asked for a second time apart from what has not: the
//! policy of [`quick_cache`], which is near Clock-PRO and S3-FIFO. Where few keys have most of the calls, it finds more of them in the same room (0.79 of all against 0.73 for Zipf's law
//! with the exponent 0.99, 100,000 keys and room for a tenth: `cargo bench -p buttress-peers --bench cache`).
//!
//! # Example
//!
//! ```
//! use buttress::{cache::{CacheHandle, CacheSettings}, scan_resistant::ScanResistantStore};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), buttress::BoxError> {
//! let settings = CacheSettings::new().max_entries(100);
//! let cache = CacheHandle::with_store(settings, ScanResistantStore::try_new(settings)?)?;
//! let mut shop = ServiceBuilder::new()
//!     .layer(cache.layer(|article: &u32| Some(*article)))
//!     .map_err(buttress::Error::Service)
//!     .service(service_fn(async |article: u32| Ok::<_, std::io::Error>(format!("article {article}"))));
//!
//! // Two customers, and then a crawler.
//! for article in (0..50).chain(0..50).chain(1_000..2_000) {
//!     shop.ready().await?.call(article).await?;
//! }
//! let loads = cache.stats().loads;
//! for article in 0..50 {
//!     shop.ready().await?.call(article).await?;
//! }
//! assert_eq!(cache.stats().loads, loads);
//! # Ok(())
//! # }
//! ```
//!
//! # What is different
//!
//! Bounds, weigher, reports, shards and hashing are those of a [`MemoryStore`](crate::cache::MemoryStore), but for this:
//!
//! - An entry takes at least an even share of the bytes: `max_bytes / max_entries` of them. Where both are bounded, choose them so that this is what a small entry weighs.
//! - The heaviest entry weighs 97 % of a shard's bytes, because the rest is for those that are new, and never more than 4 PiB.
//! - What has expired leaves when it is looked for or when its place is taken, and not before.
//! - The hashes of what has left lately are remembered, to know it when it comes back: at most half as many as there may be entries, and at most one for each 512 bytes.

use std::{fmt, hash::Hash};

use quick_cache::{Lifecycle, OptionsBuilder, Weighter, unsync::Cache};

use crate::{
    cache::{BuildAsItIs, Hashed, Held, Left, Look, Replacement, Room, ShardedStore, Usage},
    time::Instant,
};

/// A [`Store`](crate::cache::Store) in memory out of which a scan does not push what is asked for again and again.
///
/// See the [module docs](self).
pub type ScanResistantStore<K, V> = ShardedStore<K, V, ScanResistant<K, V>>;

/// The order in which entries leave a [`ScanResistantStore`]: those first that were asked for once.
pub struct ScanResistant<K, V> {
    cache: Cache<Hashed<K>, Held<V>, EvenShare, BuildAsItIs, HandOut>,
    heaviest: u64,
    bytes: u64,
}

/// What an entry weighs for the cache, which knows one bound: so much that there are never more than the other one.
struct EvenShare {
    least: u64,
}

/// Whatever leaves is handed out.
struct HandOut;

/// How much of the room is for what has been asked for again.
const HOT: f64 = 0.97;
/// Below this the rest has no room for one entry, and all of it is for everything.
const FEW: usize = 64;
/// Every number up to here is one that an `f64` can hold, in which the cache reckons.
const MOST_BYTES: u64 = 1 << 52;
/// What entries are taken to weigh when the hashes of those that have left are bounded.
const TYPICAL: u64 = 256;

impl<K: Hash + Eq + Send, V: Send + Sync> Replacement<K, V> for ScanResistant<K, V> {
    fn new(Room { entries, bytes }: Room) -> Self {
        let bytes = bytes.min(MOST_BYTES);
        let least = (bytes / entries as u64).max(1);
        // As many even shares as there may be entries, or all of the bytes where there are fewer of those.
        let capacity = bytes.min(least.saturating_mul(entries as u64));
        let hot = if entries < FEW || bytes < FEW as u64 { 1.0 } else { HOT };
        let typical = usize::try_from(bytes / TYPICAL).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .weight_capacity(capacity)
            .estimated_items_capacity(entries.min(typical))
            .hot_allocation(hot)
            .build()
            .expect("both capacities are given");
        let cache = Cache::with_options(options, EvenShare { least }, BuildAsItIs::default(), HandOut);
        Self { cache, heaviest: (capacity as f64 * hot) as u64, bytes: 0 }
    }

    fn heaviest(&self) -> u64 {
        self.heaviest
    }

    #[inline]
    fn get(&mut self, key: &Hashed<&K>) -> Option<&Held<V>> {
        self.cache.get(key as &dyn Look<K>)
    }

    fn peek(&self, key: &Hashed<&K>) -> Option<&Held<V>> {
        self.cache.peek(key as &dyn Look<K>)
    }

    fn put(&mut self, key: Hashed<K>, held: Held<V>, _: Instant, left: &mut Left<K, V>) {
        let weight = held.weight;
        self.cache.insert_with_lifecycle(key, held, left);
        let gone = left.iter().map(|held| held.weight).sum::<u64>();
        // Neither what is there nor one more is above `MOST_BYTES`, and nothing leaves that was not counted.
        self.bytes = self.bytes + weight - gone;
    }

    fn take(&mut self, key: &Hashed<&K>) -> Option<(Hashed<K>, Held<V>)> {
        let left = self.cache.remove(key as &dyn Look<K>)?;
        self.bytes -= left.1.weight;
        Some(left)
    }

    fn usage(&self) -> Usage {
        Usage { entries: self.cache.len(), bytes: self.bytes }
    }
}

impl<K, V> Weighter<Hashed<K>, Held<V>> for EvenShare {
    fn weight(&self, _: &Hashed<K>, held: &Held<V>) -> u64 {
        held.weight.max(self.least)
    }
}

impl<K, V> Lifecycle<Hashed<K>, Held<V>> for HandOut {
    type RequestState = Left<K, V>;

    fn on_evict(&self, left: &mut Self::RequestState, key: Hashed<K>, held: Held<V>) {
        left.push((key, held));
    }
}

impl<K, V> fmt::Debug for ScanResistant<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScanResistant").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}
