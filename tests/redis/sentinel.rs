use std::sync::{Arc, Mutex};

use buttress::{
    cache::MemoryStore,
    rate_limit::{Quota, RateLimitSettings as Settings},
    redis::{
        LaneSettings, Lanes, RedisLimits, TieredStore, Unavailable,
        deadpool_redis::{
            Runtime,
            redis::{
                ConnectionAddr, cmd,
                sentinel::{SentinelClientBuilder, SentinelServerType as Wanted},
            },
            sentinel::{Config, SentinelServerType},
        },
    },
};

use crate::{
    QUICK, admitted,
    cache::{CACHE, Dependency, Node, STORE, key, name, store},
    leases::until,
    nodes::Watched,
    secrets::Recorded,
    take,
    tiered::{TIER, listening},
};

fn lanes(url: String, settings: LaneSettings) -> Lanes {
    let config = Config::from_urls(vec![url], "shop".to_owned(), SentinelServerType::Master);
    Lanes::try_from_sentinel(config.create_pool(Some(Runtime::Tokio1)).unwrap(), settings).unwrap()
}

/// deadpool_redis_config_debug_leaks, sentinel_failover_without_reconnect
#[tokio::test]
async fn lanes_follow_the_master_that_sentinel_names_and_nobody_reads_the_password() {
    let recorded = Recorded::default();
    // For this thread, and the test runs on one.
    let _guard = metrics::set_default_local_recorder(&recorded);
    let mut watched = Watched::start("s3cret").await;
    let at = |password: &str| format!("redis://:{password}@127.0.0.1:{}/", watched.sentinel.port);
    let lanes_of_all = lanes(at("s3cret"), QUICK);
    let settings = Settings::sliding_counter(Quota::per_day(3)).name("three");
    let limits = |lanes: &Lanes| RedisLimits::<String>::try_new(lanes, settings, Unavailable::Closed).unwrap();
    let shared = limits(&lanes_of_all);
    let told = Arc::new(Mutex::new(String::new()));
    shared.on_event({
        let told = Arc::clone(&told);
        move |event| told.lock().unwrap().push_str(&format!("{event:?}"))
    });
    lanes_of_all.breaker().on_event({
        let told = Arc::clone(&told);
        move |event| told.lock().unwrap().push_str(&format!("{event:?}"))
    });
    until("the first call passes", async || take(&shared, "user", 1).await.is_ok()).await;
    assert_eq!(watched.master.ask::<Vec<String>>("KEYS", "*").await.unwrap().len(), 1);
    watched.master.until_heard().await;
    watched.master.kill();
    until("the replica is the master", async || watched.replica.says("INFO", "replication", "role:master").await).await;
    until("it decides", async || take(&shared, "user", 1).await.is_ok()).await;
    assert!(!shared.is_away());
    // One was paid to the old master, one to the new one, and none is left but the third, unless an answer was lost.
    assert!(admitted(&limits(&lanes_of_all), "user", 5).await <= 1);
    // A wrong password: away, and not a word of it.
    let wrong = lanes(at("wr0ng"), QUICK);
    let failed = wrong.query::<u32>(&cmd("PING")).await.unwrap_err();
    let refused = take(&limits(&wrong), "user", 1).await.unwrap_err();
    let told = told.lock().unwrap();
    let recorded = recorded.text();
    let shown =
        format!("{lanes_of_all:?} {shared:?} {wrong:?} {failed:?} {failed} {refused:?} {refused} {told} {recorded}");
    assert!(!told.is_empty());
    assert_eq!(recorded.contains("three"), cfg!(feature = "metrics"), "{recorded}");
    assert!(!shown.contains("s3cret") && !shown.contains("wr0ng"), "{shown}");
}

/// Client tracking is per server: who listens at a list of them goes on to the next.
#[tokio::test]
async fn what_is_near_hears_of_changes_on_the_master_that_comes_after() {
    near_before_and_after_a_failover(|watched, lanes| {
        let servers = [&watched.master, &watched.replica].map(|node| format!("redis://127.0.0.1:{}/", node.port));
        lanes.try_listening_at(servers).unwrap()
    })
    .await;
}

/// A master that is on no list.
#[tokio::test]
async fn what_is_near_hears_of_changes_on_whichever_master_sentinel_names() {
    near_before_and_after_a_failover(|watched, lanes| {
        let sentinels = [ConnectionAddr::Tcp("127.0.0.1".to_owned(), watched.sentinel.port)];
        let sentinel = SentinelClientBuilder::new(sentinels, "shop", Wanted::Master).unwrap();
        lanes.try_listening_by_sentinel(sentinel.set_client_to_sentinel_password("s3cret").build().unwrap()).unwrap()
    })
    .await;
}

async fn near_before_and_after_a_failover(listen: impl FnOnce(&Watched, Lanes) -> Lanes) {
    let mut watched = Watched::start("s3cret").await;
    let at = format!("redis://:s3cret@127.0.0.1:{}/", watched.sentinel.port);
    let lanes = listen(&watched, lanes(at, QUICK));
    assert!(!format!("{lanes:?}").contains("s3cret"));
    let near = MemoryStore::try_new(CACHE).unwrap();
    let store = TieredStore::try_new(near, store(&lanes, STORE), TIER).unwrap();
    let node = Node::new(CACHE, store, &Dependency::new());
    listening(&node).await;
    until("it is stored", async || node.cache.put(key("a"), b"first".to_vec()).await.is_ok()).await;
    assert_eq!(node.cache.get(&key("a")).as_deref(), Some(&b"first"[..]));
    // What somebody else changes is not near any longer.
    watched.master.ask::<u8>("DEL", name("a")).await.unwrap();
    until("it is heard of", async || node.cache.get(&key("a")).is_none()).await;

    until("it is stored again", async || node.cache.put(key("a"), b"second".to_vec()).await.is_ok()).await;
    assert_eq!(node.cache.get(&key("a")).as_deref(), Some(&b"second"[..]));
    watched.master.until_heard().await;
    watched.master.kill();
    until("it ages", async || node.cache.get(&key("a")).is_none()).await;
    until("the replica is the master", async || watched.replica.says("INFO", "replication", "role:master").await).await;
    until("it listens there", async || node.cache.store().is_listening()).await;
    let get = || cmd("GET").arg(name("a")).to_owned();
    until("the lanes lead there", async || lanes.query::<Vec<u8>>(&get()).await.is_ok()).await;
    until("it is near again", async || {
        node.says("a").await;
        node.cache.get(&key("a")).as_deref() == Some(&b"second"[..])
    })
    .await;
    assert_eq!(node.dependency.calls(), 0, "it was in Redis all the time");
    watched.replica.ask::<u8>("DEL", name("a")).await.unwrap();
    until("it is heard of there", async || node.cache.get(&key("a")).is_none()).await;
}
