//! Memory in front of Redis, in several processes.

use std::{sync::Arc, time::Duration};

use buttress::{
    cache::{CacheKey, CacheSettings, Keep, MemoryStore, Store},
    redis::{Invalidation, LaneSettings, Lanes, RedisStoreSettings, SingleLoad, TierSettings, TieredStore},
};

use crate::{
    LONG, PATIENT, QUICK,
    cache::{CACHE, Dependency, MINUTE, Node, Page, STORE, key, name, store, until},
    lanes,
    proxy::{Fault, Proxy},
    server::{Server, free_port},
};

pub(crate) type Tiered = Node<TieredStore<Page>>;

pub(crate) const TIER: TierSettings = TierSettings::new();
pub(crate) const PUBLISHED: RedisStoreSettings = STORE.invalidation(Invalidation::PubSub);

struct Process {
    lanes: LaneSettings,
    cache: CacheSettings,
    store: RedisStoreSettings,
    tier: TierSettings,
}

const PROCESS: Process = Process { lanes: PATIENT, cache: CACHE, store: STORE, tier: TIER };

impl Process {
    fn start(&self, url: &str, dependency: &Dependency) -> Arc<Tiered> {
        let near = MemoryStore::try_new(self.cache).unwrap();
        let store = TieredStore::try_new(near, store(&lanes(url, self.lanes), self.store), self.tier).unwrap();
        Node::new(self.cache, store, dependency)
    }

    /// One that hears what others change.
    async fn listening(&self, url: &str, dependency: &Dependency) -> Arc<Tiered> {
        let node = self.start(url, dependency);
        listening(&node).await;
        node
    }
}

pub(crate) async fn listening(node: &Tiered) {
    until("it listens", async || {
        // It begins with the first question.
        drop(buttress::cache::Store::fetch(node.cache.store(), &key("another")));
        node.cache.store().is_listening().then_some(())
    })
    .await;
}

async fn fleet(server: &Server, process: Process) -> (Arc<Tiered>, Arc<Tiered>) {
    let dependency = Dependency::new();
    (process.listening(&server.url(), &dependency).await, process.listening(&server.url(), &dependency).await)
}

/// How often a command was executed.
async fn executed(server: &Server, command: &str) -> u64 {
    let stats: String = server.ask("INFO", "commandstats").await;
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|line| line.split(',').next()).map_or(0, |calls| calls.parse().unwrap())
}

/// Loads an entry, and waits until it is written and its echo has been heard.
async fn load(server: &Server, node: &Tiered, key: &str, answer: u32) {
    let before = (node.cache.store().stats().writes, executed(server, "getrange").await);
    node.is(key, answer, "loaded").await;
    until("it is written", async || (node.cache.store().stats().writes > before.0).then_some(())).await;
    until("it is looked after", async || (executed(server, "getrange").await > before.1).then_some(())).await;
}

#[tokio::test]
async fn a_hit_in_memory_never_leaves_the_process() {
    let server = Server::start().await;
    let (one, other) = fleet(&server, PROCESS).await;
    load(&server, &one, "a", 1).await;
    let before = executed(&server, "evalsha").await;
    for _ in 0..100 {
        one.is("a", 1, "fresh").await;
    }
    assert_eq!(executed(&server, "evalsha").await, before, "its own echo has not taken it away");
    // The other one finds it in Redis once.
    for _ in 0..100 {
        other.is("a", 1, "fresh").await;
    }
    assert_eq!(executed(&server, "evalsha").await, before + 1);
    assert_eq!((one.cache.stats().hits, other.cache.store().stats().hits), (100, 1));
}

#[cfg(feature = "scan-resistant")]
#[tokio::test]
async fn another_memory_may_be_in_front() {
    let server = Server::start().await;
    let near = buttress::scan_resistant::ScanResistantStore::try_new(CACHE).unwrap();
    let store = TieredStore::try_new(near, store(&lanes(&server.url(), PATIENT), STORE), TIER).unwrap();
    let node = Node::new(CACHE, store, &Dependency::new());
    for _ in 0..100 {
        node.says("a").await;
    }
    assert_eq!((node.cache.stats().hits, node.cache.store().stats().misses), (99, 1));
    assert_eq!(node.cache.stats().entries, 1);
}

/// fusioncache_180_foreign_delete_unseen
#[tokio::test]
async fn what_others_write_by_other_means_is_seen() {
    let server = Server::start().await;
    let (one, _) = fleet(&server, PROCESS).await;
    let mut plain = server.plain().await;
    let ways = [vec!["SET", "garbage"], vec!["DEL"], vec!["PEXPIRE", "1"], vec!["FLUSHALL"]];
    for way in ways {
        until("it is near", async || {
            one.says("a").await;
            one.cache.get(&key("a"))
        })
        .await;
        let mut command = buttress::redis::deadpool_redis::redis::cmd(way[0]);
        if way[0] != "FLUSHALL" {
            command.arg(name("a"));
        }
        command.arg(&way[1..]).query_async::<()>(&mut plain).await.unwrap();
        until("it is gone", async || one.cache.get(&key("a")).is_none().then_some(())).await;
    }
}

#[tokio::test]
async fn what_one_invalidates_or_puts_is_not_near_any_other() {
    let server = Server::start().await;
    for settings in [STORE.prefix("tracked"), PUBLISHED.prefix("published")] {
        let (one, other) = fleet(&server, Process { store: settings, ..PROCESS }).await;
        type Change = fn(&Tiered) -> buttress::redis::Writing;
        let changes: [Change; 4] = [
            |node| node.cache.invalidate(&key("a")),
            |node| node.cache.invalidate_tag("every"),
            |node| node.cache.clear(),
            |node| node.cache.put(key("a"), b"put".to_vec()),
        ];
        let mut loads = 0;
        for change in changes {
            loads += 1;
            let before = one.cache.store().stats().writes;
            one.is("a", loads, "loaded").await;
            until("it is written", async || (one.cache.store().stats().writes > before).then_some(())).await;
            until("both have it", async || {
                let near = async |node: &Tiered| node.says("a").await == (loads.to_string(), "fresh");
                (near(&one).await && near(&other).await && other.cache.get(&key("a")).is_some()).then_some(())
            })
            .await;
            change(&one).await.unwrap();
            until("the other one has heard of it", async || other.cache.get(&key("a")).is_none().then_some(())).await;
            assert_ne!(other.says("a").await.0, loads.to_string());
            // For the next round.
            loads = one.dependency.calls();
            one.cache.invalidate(&key("a")).await.unwrap();
            until("it is gone", async || {
                (one.cache.get(&key("a")).is_none() && other.cache.get(&key("a")).is_none()).then_some(())
            })
            .await;
        }
    }
}

/// moka_574_stale_write_wins: here the invalidation comes from another process.
#[tokio::test]
async fn an_invalidation_elsewhere_while_it_is_loaded_keeps_it_out_of_memory() {
    for settings in [STORE, PUBLISHED] {
        let server = Server::start().await;
        let (one, other) = fleet(&server, Process { store: settings, ..PROCESS }).await;
        one.dependency.hold();
        let loading = tokio::spawn({
            let one = Arc::clone(&one);
            async move { one.says("a").await }
        });
        until("it is loading", async || (one.dependency.calls() == 1).then_some(())).await;
        other.cache.invalidate(&key("a")).await.unwrap();
        // One that is heard after it: so the first has been heard too.
        one.cache.put(key("mark"), b"mark".to_vec()).await.unwrap();
        other.cache.invalidate(&key("mark")).await.unwrap();
        until("it is heard", async || one.cache.get(&key("mark")).is_none().then_some(())).await;
        one.dependency.let_go();
        assert_eq!(loading.await.unwrap(), ("1".into(), "loaded"), "it had come before");
        assert_eq!(one.cache.get(&key("a")), None);
        one.is("a", 2, "loaded").await;
    }
}

/// Cuts the wires of those who listen.
async fn hang_up(server: &Server) {
    let clients: String = server.ask("CLIENT", "LIST").await;
    for client in clients.lines() {
        let field = |name| client.split(' ').find_map(|field| field.strip_prefix(name)).unwrap();
        if field("flags=").contains(['B', 'P']) {
            server.ask::<u8>("CLIENT", ("KILL", "ID", field("id="))).await;
        }
    }
}

/// Lost invalidations: what may have changed unheard is not fresh.
#[tokio::test]
async fn when_the_wire_is_lost_what_is_near_ages_at_once() {
    let server = Server::start().await;
    for (store, prefix) in [(STORE, "tracked"), (PUBLISHED, "published")] {
        for stale in [Duration::ZERO, MINUTE] {
            let process = Process {
                store: store.prefix(if stale.is_zero() { prefix } else { "stale" }),
                cache: CACHE.stale_while_revalidate(stale),
                ..PROCESS
            };
            let dependency = Dependency::new();
            let one = process.listening(&server.url(), &dependency).await;
            one.cache.put(key("a"), b"near".to_vec()).await.unwrap();
            assert_eq!(one.cache.get(&key("a")).as_deref(), Some(&b"near"[..]));
            hang_up(&server).await;
            until("it is aged", async || one.cache.get(&key("a")).is_none().then_some(())).await;
            let (answer, from) = one.says("a").await;
            assert_eq!((&*answer, from), ("near", if stale.is_zero() { "fresh" } else { "stale" }));
            until("it listens again", async || one.cache.store().is_listening().then_some(())).await;
            until("it is near again", async || {
                one.says("a").await;
                one.cache.get(&key("a"))
            })
            .await;
            assert_eq!(dependency.calls(), 0, "it was in Redis all the time");
        }
    }
}

/// half_open_tcp_is_listened_to_for_ever
#[tokio::test]
async fn a_wire_on_which_nothing_comes_any_more_is_given_up() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port).await;
    let process = Process { lanes: QUICK, tier: TIER.heartbeat(Duration::from_millis(50)), ..PROCESS };
    let one = process.listening(&proxy.url(), &Dependency::new()).await;
    one.cache.put(key("a"), b"near".to_vec()).await.unwrap();
    proxy.set(Fault::Stall);
    until("it is aged", async || one.cache.get(&key("a")).is_none().then_some(())).await;
    until("it is known", async || (!one.cache.store().is_listening()).then_some(())).await;
    proxy.set(Fault::None);
    listening(&one).await;
}

/// L2 away means L1 only, and L1 is not emptied again and again by a wire that does not come back.
#[tokio::test]
async fn without_redis_memory_alone_is_used() {
    let mut server = Server::start().await;
    let (one, other) = fleet(&server, Process { lanes: QUICK, ..PROCESS }).await;
    server.kill();
    until("it is known", async || (!one.cache.store().is_listening()).then_some(())).await;
    one.is("a", 1, "loaded").await;
    for _ in 0..10 {
        one.is("a", 1, "fresh").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(one.cache.store().stats().misses, 0, "an error is none");
    server.restart().await;
    listening(&one).await;
    listening(&other).await;
    // What others did meanwhile nobody told: it is loaded once for both.
    until("it is shared", async || {
        let said = one.says("a").await.0;
        (other.says("a").await == (said, "fresh")).then_some(())
    })
    .await;
}

/// A server that hangs takes the wire of who listens with it, and answers nothing, not even that it is gone.
#[tokio::test]
async fn with_a_redis_that_hangs_memory_goes_on_and_misses_wait_for_the_deadline_and_no_longer() {
    let server = Server::start().await;
    let tier = TIER.heartbeat(Duration::from_millis(50));
    let (one, other) = fleet(&server, Process { lanes: QUICK, tier, ..PROCESS }).await;
    load(&server, &one, "before", 1).await;
    let misses = one.cache.store().stats().misses;
    server.signal("STOP");
    until("it is known", async || (!one.cache.store().is_listening()).then_some(())).await;
    // Until the breaker opens, a load waits for the deadline of the question and of what it writes; then for neither.
    for n in 0..10 {
        let (key, began) = (n.to_string(), tokio::time::Instant::now());
        one.is(&key, n + 2, "loaded").await;
        // The deadline is 200 ms; the rest is for the machine.
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        for _ in 0..10 {
            one.is(&key, n + 2, "fresh").await;
        }
    }
    assert!(one.cache.store().is_away());
    assert_eq!(one.cache.store().stats().misses, misses, "an error is none");
    // What others may have changed unheard is not fresh, and is loaded.
    one.is("before", 12, "loaded").await;
    one.is("before", 12, "fresh").await;
    server.signal("CONT");
    for node in [&one, &other] {
        listening(node).await;
        let mut asked = 0;
        until("it is back", async || {
            asked += 1;
            node.says(&format!("probe {asked}")).await;
            (!node.cache.store().is_away()).then_some(())
        })
        .await;
    }
    let before = one.cache.store().stats().writes;
    let said = one.says("after").await;
    until("it is written", async || (one.cache.store().stats().writes > before).then_some(())).await;
    assert_eq!(other.says("after").await, (said.0, "fresh"), "it is shared again");
}

#[tokio::test]
async fn a_service_starts_while_redis_is_down() {
    let mut server = Server::start().await;
    server.kill();
    let one = Process { lanes: QUICK, ..PROCESS }.start(&server.url(), &Dependency::new());
    one.is("a", 1, "loaded").await;
    one.is("a", 1, "fresh").await;
    server.restart().await;
    listening(&one).await;
}

/// fusioncache_MemoryExpirationAlignedWithDistributed
#[tokio::test]
async fn near_it_is_fresh_for_no_longer_than_in_redis_and_than_the_near_ttl() {
    let server = Server::start().await;
    for (near_ttl, ttl, most) in [(MINUTE, 30, 30), (Duration::from_secs(10), 30, 10), (MINUTE, 300, 60)] {
        let process = Process { cache: CACHE.ttl(Duration::from_secs(ttl)), tier: TIER.near_ttl(near_ttl), ..PROCESS };
        let (one, other) = fleet(&server, process).await;
        one.cache.put(key("a"), vec![]).await.unwrap();
        let left = other.fresh_for("a").await;
        assert!(left <= Duration::from_secs(most) && left > Duration::from_secs(most / 2), "{left:?}");
        let far: u64 = server.ask("PTTL", name("a")).await;
        assert!(left <= Duration::from_millis(far + 1_000) && far > (ttl - 20) * 1_000, "{far}");
        assert!(one.fresh_for("a").await <= Duration::from_secs(most));
    }
    // When it is gone near, it is asked for in Redis.
    let process = Process { tier: TIER.near_ttl(Duration::from_millis(50)), ..PROCESS };
    let one = process.listening(&server.url(), &Dependency::new()).await;
    one.cache.put(key("b"), b"far".to_vec()).await.unwrap();
    until("it is gone near", async || one.cache.get(&key("b")).is_none().then_some(())).await;
    assert_eq!(one.says("b").await, ("far".into(), "fresh"));
}

#[tokio::test]
async fn writes_behind_wait_for_nobody_and_no_more_than_there_are_places() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port).await;
    let process = Process { tier: TIER.write_behind(2), ..PROCESS };
    let one = process.listening(&proxy.url(), &Dependency::new()).await;
    one.cache.put(key("first"), vec![]).await.unwrap();
    until("it is written", async || (one.cache.store().stats().writes == 1).then_some(())).await;
    proxy.set(Fault::Stall);
    for n in 0..10 {
        let put = one.cache.put(key(&n.to_string()), vec![n]);
        tokio::time::timeout(LONG / 2, put).await.expect("it waits for nothing").unwrap();
    }
    // One is under way, or about to be.
    let dropped = one.cache.store().stats().dropped;
    assert!((7..=8).contains(&dropped), "{dropped}");
    proxy.set(Fault::None);
    until("the rest is written", async || (one.cache.store().stats().writes == 11 - dropped).then_some(())).await;
    // What was invalidated while it waited is not written.
    proxy.set(Fault::Stall);
    one.cache.put(key("a"), b"old".to_vec()).await.unwrap();
    let gone = one.cache.invalidate(&key("a"));
    proxy.set(Fault::None);
    gone.await.unwrap();
    one.is("a", 1, "loaded").await;
}

/// A listener that outlives its store would keep a connection for ever.
#[tokio::test]
async fn when_the_store_is_dropped_nobody_listens_any_more() {
    let server = Server::start().await;
    let one = PROCESS.listening(&server.url(), &Dependency::new()).await;
    let listeners = async || {
        let clients: String = server.ask("CLIENT", "LIST").await;
        clients.lines().filter(|client| client.contains("flags=tB") || client.contains("flags=Bt")).count()
    };
    assert_eq!(listeners().await, 1);
    drop(one);
    until("it is gone", async || (listeners().await == 0).then_some(())).await;
}

#[tokio::test]
async fn a_fleet_loads_once_with_memory_in_front_too() {
    let server = Server::start().await;
    let (one, other) = fleet(&server, Process { store: STORE.single_load(SingleLoad::new()), ..PROCESS }).await;
    one.dependency.hold();
    let both = [&one, &other].map(|node| {
        let node = Arc::clone(node);
        tokio::spawn(async move { node.says("a").await.0 })
    });
    until("one is loading", async || (one.dependency.calls() == 1).then_some(())).await;
    one.dependency.let_go();
    for answer in both {
        assert_eq!(answer.await.unwrap(), "1");
    }
    assert_eq!(one.dependency.calls(), 1);
}

#[tokio::test]
async fn what_cannot_work_is_refused() {
    let near = || MemoryStore::try_new(CACHE).unwrap();
    let refused = |lanes: &Lanes, settings, tier| {
        TieredStore::try_new(near(), store(lanes, settings), tier).map(drop).map_err(|error| error.field())
    };
    let url = format!("redis://127.0.0.1:{}/", free_port());
    let single = lanes(&url, QUICK);
    let cluster = Lanes::try_from_cluster_urls([&url], QUICK).unwrap();
    let pool = || {
        let config = buttress::redis::deadpool_redis::Config::from_url(&url);
        Lanes::try_new(config.create_pool(None).unwrap(), QUICK).unwrap()
    };
    assert_eq!(refused(&single, STORE, TIER), Ok(()));
    assert_eq!(refused(&cluster, STORE, TIER), Err("invalidation"));
    assert_eq!(refused(&cluster, PUBLISHED, TIER), Ok(()));
    assert_eq!(refused(&pool(), STORE, TIER), Err("invalidation"));
    assert_eq!(refused(&pool(), STORE.invalidation(Invalidation::None), TIER), Ok(()));
    assert_eq!(refused(&pool().try_listening_at([&url]).unwrap(), STORE, TIER), Ok(()));
    assert_eq!(pool().try_listening_at(["nonsense"]).unwrap_err().field(), "url");
    let shared = pool();
    let _other = shared.clone();
    assert_eq!(shared.try_listening_at([&url]).unwrap_err().field(), "lanes");
    let both = STORE.single_load(SingleLoad::new());
    assert_eq!(refused(&single, both, TIER.write_behind(1)), Err("write_behind"));
    assert_eq!(refused(&single, STORE, TIER.near_ttl(Duration::ZERO)), Err("near_ttl"));
}

/// lettuce_1405_password_in_debug
#[tokio::test]
async fn no_secret_is_in_any_debug() {
    let url = format!("redis://user:s3cret@127.0.0.1:{}/", free_port());
    let one = Process { lanes: QUICK, ..PROCESS }.start(&url, &Dependency::new());
    one.says("s3cret").await;
    let shown = format!("{:?} {:?}", one.cache.store(), one.cache);
    assert!(!shown.contains("s3cret") && !shown.contains("user"), "{shown}");
}

type Invalidate = fn(&Tiered) -> <TieredStore<Page> as Store<CacheKey, Page>>::Writing;

#[tokio::test]
async fn what_was_found_before_an_invalidation_had_arrived_is_not_near_afterwards() {
    let server = Server::start().await;
    for (number, invalidation) in
        [Invalidation::Tracking, Invalidation::PubSub, Invalidation::None].into_iter().enumerate()
    {
        let prefix = ["tracked", "published", "untold"][number];
        let process = Process { store: STORE.invalidation(invalidation).prefix(prefix), ..PROCESS };
        let node = process.start(&server.url(), &Dependency::new());
        let ways: [Invalidate; 3] = [
            |node| node.cache.invalidate(&key("a")),
            |node| node.cache.invalidate_tag("tag"),
            |node| node.cache.clear(),
        ];
        for way in ways {
            node.cache.put_for(key("a"), vec![b'7'], Keep::default().tag("tag")).await.unwrap();
            let invalidation = way(&node);
            assert_eq!(node.says("a").await.1, "fresh", "from far away");
            invalidation.await.unwrap();
            until("it is not near", async || node.cache.get(&key("a")).is_none().then_some(())).await;
        }
    }
}

/// Where tracking is not allowed nobody tells a process of what it has changed itself.
#[tokio::test]
async fn what_one_invalidates_is_not_near_afterwards_though_nobody_listens() {
    let server = Server::start().await;
    server.ask::<()>("ACL", ("SETUSER", "default", "-client")).await;
    let node = PROCESS.start(&server.url(), &Dependency::new());
    let ways: [Invalidate; 3] =
        [|node| node.cache.invalidate(&key("a")), |node| node.cache.invalidate_tag("tag"), |node| node.cache.clear()];
    for way in ways {
        node.cache.put_for(key("a"), vec![b'7'], Keep::default().tag("tag")).await.unwrap();
        let invalidation = way(&node);
        assert_eq!(node.says("a").await.1, "fresh", "from far away");
        invalidation.await.unwrap();
        assert!(node.cache.get(&key("a")).is_none());
        assert!(!node.cache.store().is_listening());
    }
}
