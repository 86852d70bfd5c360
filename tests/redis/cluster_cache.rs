use buttress::{
    cache::MemoryStore,
    redis::{Lanes, SingleLoad, TieredStore},
};

use crate::{
    PATIENT,
    cache::{CACHE, Dependency, Node, key, store, until},
    nodes::cluster,
    tiered::{PUBLISHED, TIER, listening},
};

/// Entries, leases and marks are on several masters.
#[tokio::test]
async fn a_cache_is_shared_over_a_cluster() {
    let cluster = cluster().await;
    let urls: Vec<String> = cluster.urls().into_iter().collect();
    let dependency = Dependency::new();
    let node = || {
        let lanes = Lanes::try_from_cluster_urls(&urls, PATIENT).unwrap();
        let store = store(&lanes, PUBLISHED.single_load(SingleLoad::new()));
        let near = MemoryStore::try_new(CACHE).unwrap();
        Node::new(CACHE, TieredStore::try_new(near, store, TIER).unwrap(), &dependency)
    };
    let (one, other) = (node(), node());
    listening(&one).await;
    listening(&other).await;
    let keys: Vec<String> = (0..20).map(|n| format!("key {n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        one.is(key, n as u32 + 1, "loaded").await;
    }
    until("all are written", async || (one.cache.store().stats().writes == 20).then_some(())).await;
    for (n, key) in keys.iter().enumerate() {
        other.is(key, n as u32 + 1, "fresh").await;
    }
    assert_eq!(other.cache.store().stats().hits, 20);
    one.cache.invalidate(&key(&keys[0])).await.unwrap();
    until("it is gone", async || other.cache.get(&key(&keys[0])).is_none().then_some(())).await;
    other.is(&keys[0], 21, "loaded").await;
    one.cache.invalidate_tag("every").await.unwrap();
    until("all are gone", async || keys.iter().all(|name| other.cache.get(&key(name)).is_none()).then_some(())).await;
    for (n, key) in keys.iter().enumerate() {
        other.is(key, n as u32 + 22, "loaded").await;
    }
    assert_eq!(one.cache.store().stats().errors + other.cache.store().stats().errors, 0);
}
