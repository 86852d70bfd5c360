//! A cache in Redis alone.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::{
    BoxError, EventKind,
    cache::{CacheKey, Keep, Store},
    redis::{Codec, Lanes, RedisStore, SingleLoad},
};
use futures::future::join_all;

use crate::{
    LONG, PATIENT, QUICK,
    cache::{CACHE, Dependency, MINUTE, Node, Page, STORE, key, name, store, until},
    lanes,
    proxy::{Fault, Proxy},
    server::{Server, free_port},
};

/// Two processes that share a cache and a dependency.
fn fleet(server: &Server) -> (Arc<Node<RedisStore<Page>>>, Arc<Node<RedisStore<Page>>>) {
    let dependency = Dependency::new();
    let node = || Node::new(CACHE, store(&lanes(&server.url(), PATIENT), STORE), &dependency);
    (node(), node())
}

/// The load's own task writes, after its callers have been answered.
async fn written(node: &Node<RedisStore<Page>>, writes: u64) {
    until("it is written", async || (node.cache.store().stats().writes >= writes).then_some(())).await;
}

async fn no_key_without_a_ttl(server: &Server) {
    for key in server.ask::<Vec<String>>("KEYS", "*").await {
        assert!(server.ask::<i64>("PTTL", &key).await > 0, "{key}");
    }
}

#[tokio::test]
async fn what_one_has_loaded_the_other_finds_in_redis() {
    let server = Server::start().await;
    let (one, other) = fleet(&server);
    one.is("a", 1, "loaded").await;
    written(&one, 1).await;
    other.is("a", 1, "fresh").await;
    one.is("a", 1, "fresh").await;
    let stats = one.cache.store().stats();
    assert_eq!((stats.hits, stats.misses, stats.writes, stats.errors), (1, 1, 1, 0));
    assert_eq!(server.ask::<Vec<String>>("KEYS", "*").await, [name("a")]);
    let ttl = server.ask::<i64>("PTTL", name("a")).await;
    assert!((50_000..=60_000).contains(&ttl), "{ttl}");
}

/// fusioncache_distributed_cache_wire_version, A102_undecodable_value_errors_the_request
#[tokio::test]
async fn what_somebody_else_put_there_is_a_miss_that_is_counted_and_overwritten() {
    let server = Server::start().await;
    let (one, _) = fleet(&server);
    let events = Arc::new(Mutex::new(0));
    one.cache.store().on_event({
        let events = Arc::clone(&events);
        move |event| *events.lock().unwrap() += u32::from(event.kind == EventKind::StoreForeign)
    });
    let mut old_version = vec![0xB7, 0x7E, 2, 0];
    old_version.resize(60, 0);
    let mut answer = 0;
    // It begins like one of ours, and its times go back.
    let mut from_ours = vec![0xB7, 0x7E, 1, 0];
    from_ours.resize(20, 7);
    from_ours.extend([9, 8, 7, 6].into_iter().flat_map(u64::to_be_bytes));
    for bytes in [b"garbage".to_vec(), old_version, from_ours, vec![0xFF; 100]] {
        answer += 1;
        server.ask::<()>("SET", (name("a"), bytes)).await;
        one.is("a", answer, "loaded").await;
        written(&one, u64::from(answer)).await;
        one.is("a", answer, "fresh").await;
    }
    server.ask::<()>("DEL", name("a")).await;
    server.ask::<()>("RPUSH", (name("a"), "a list")).await;
    one.is("a", 5, "loaded").await;
    written(&one, 5).await;
    one.is("a", 5, "fresh").await;
    let stats = one.cache.store().stats();
    assert_eq!((stats.foreign, stats.misses, stats.hits, stats.errors), (5, 5, 5, 0));
    assert_eq!(*events.lock().unwrap(), 5);
    no_key_without_a_ttl(&server).await;
}

/// One that reads no value and panics over some, and writes none of others.
struct Picky;

impl Codec<Page> for Picky {
    fn encode(&self, page: &Page, bytes: &mut Vec<u8>) -> Result<(), BoxError> {
        assert_ne!(page, b"2", "panics");
        if page == b"1" {
            return Err("not this one".into());
        }
        bytes.extend_from_slice(page);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Page, BoxError> {
        assert_ne!(bytes, b"3", "panics");
        Err("not this one".into())
    }
}

#[tokio::test]
async fn a_codec_that_fails_or_panics_costs_no_call_its_answer() {
    let server = Server::start().await;
    let store = RedisStore::try_new(&lanes(&server.url(), PATIENT), STORE, Picky).unwrap();
    let node = Node::new(CACHE, store, &Dependency::new());
    for answer in 1..=5 {
        node.is("a", answer, "loaded").await;
        until("it is written or not", async || {
            let stats = node.cache.store().stats();
            (stats.writes + stats.unfit >= u64::from(answer)).then_some(())
        })
        .await;
    }
    let stats = node.cache.store().stats();
    assert_eq!((stats.unfit, stats.writes, stats.foreign, stats.hits), (2, 3, 2, 0));
}

#[tokio::test]
async fn what_is_too_large_stays_out() {
    let server = Server::start().await;
    let settings = STORE.max_bytes(200);
    let node = Node::new(CACHE, store(&lanes(&server.url(), PATIENT), settings), &Dependency::new());
    node.cache.put(key("small"), vec![7; 100]).await.unwrap();
    node.cache.put(key("large"), vec![7; 200]).await.unwrap();
    assert_eq!(server.ask::<Vec<String>>("KEYS", "*").await, [name("small")]);
    let stats = node.cache.store().stats();
    assert_eq!((stats.writes, stats.unfit), (1, 1));
    assert!(server.ask::<usize>("STRLEN", name("small")).await <= 200);
}

#[tokio::test]
async fn every_key_has_a_ttl_and_no_entry_lives_longer_than_the_longest() {
    let server = Server::start().await;
    let settings = STORE.max_life(Duration::from_secs(10)).single_load(SingleLoad::new());
    let node = Node::new(
        CACHE.ttl(Duration::MAX).stale_if_error(Duration::MAX),
        store(&lanes(&server.url(), PATIENT), settings),
        &Dependency::new(),
    );
    node.dependency.hold();
    let loading = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.is("a", 1, "loaded").await }
    });
    until("it is loading", async || (node.dependency.calls() == 1).then_some(())).await;
    assert_eq!(server.ask::<Vec<String>>("KEYS", "*").await, [format!("{}:lease", name("a"))]);
    no_key_without_a_ttl(&server).await;
    node.dependency.let_go();
    loading.await.unwrap();
    written(&node, 1).await;
    assert!(server.ask::<i64>("PTTL", name("a")).await <= 10_001);
    node.cache.put(key("b"), vec![]).await.unwrap();
    node.cache.invalidate(&key("c")).await.unwrap();
    node.cache.invalidate_tag("t").await.unwrap();
    node.cache.clear().await.unwrap();
    assert!(server.ask::<Vec<String>>("KEYS", "*").await.len() >= 5);
    no_key_without_a_ttl(&server).await;
    // One that has lost it gets it back with the next write.
    server.ask::<()>("PERSIST", name("b")).await;
    node.cache.put(key("b"), vec![]).await.unwrap();
    no_key_without_a_ttl(&server).await;
}

#[tokio::test]
async fn an_invalidation_is_remembered_for_as_long_as_a_load_may_take() {
    let server = Server::start().await;
    let settings = STORE.max_life(Duration::from_secs(1_000)).longest_load(Duration::from_secs(2_000));
    let node = Node::new(CACHE, store(&lanes(&server.url(), PATIENT), settings), &Dependency::new());
    node.cache.invalidate(&key("a")).await.unwrap();
    node.cache.invalidate_tag("every").await.unwrap();
    let [tag] = &server.ask::<Vec<String>>("KEYS", "*:tag:*").await[..] else { panic!("there is one mark") };
    let (entry, tag) = (server.ask::<i64>("PTTL", name("a")).await, server.ask::<i64>("PTTL", tag).await);
    assert!((1_000_001..=2_000_000).contains(&entry), "{entry}");
    assert!((2_000_001..=3_000_000).contains(&tag), "{tag}");
}

#[tokio::test]
async fn an_invalidation_holds_for_all() {
    let server = Server::start().await;
    let (one, other) = fleet(&server);
    one.is("a", 1, "loaded").await;
    written(&one, 1).await;
    other.cache.invalidate(&key("a")).await.unwrap();
    one.is("a", 2, "loaded").await;
    written(&one, 2).await;
    other.is("a", 2, "fresh").await;
    one.cache.invalidate_tag("another").await.unwrap();
    other.is("a", 2, "fresh").await;
    one.cache.invalidate_tag("every").await.unwrap();
    other.is("a", 3, "loaded").await;
    written(&other, 1).await;
    one.is("a", 3, "fresh").await;
    one.cache.clear().await.unwrap();
    other.is("a", 4, "loaded").await;
    written(&other, 2).await;
    one.is("a", 4, "fresh").await;
}

/// moka_574_stale_write_wins, facebook_leases_stale_set
#[tokio::test]
async fn an_invalidation_while_it_is_loaded_elsewhere_voids_the_write() {
    type Invalidate = fn(&Node<RedisStore<Page>>) -> buttress::redis::Writing;
    let ways: [Invalidate; 4] = [
        |node| node.cache.invalidate(&key("a")),
        |node| node.cache.invalidate_tag("every"),
        |node| node.cache.clear(),
        |node| node.cache.put(key("a"), b"newer".to_vec()),
    ];
    for invalidate in ways {
        let server = Server::start().await;
        let (one, other) = fleet(&server);
        one.dependency.hold();
        let loading = tokio::spawn({
            let one = Arc::clone(&one);
            async move { one.says("a").await }
        });
        until("it is loading", async || (one.dependency.calls() == 1).then_some(())).await;
        invalidate(&other).await.unwrap();
        one.dependency.let_go();
        assert_eq!(loading.await.unwrap(), ("1".into(), "loaded"), "it had come before");
        until("it is written or not", async || {
            let stats = one.cache.store().stats();
            (stats.writes + stats.refused > 0).then_some(())
        })
        .await;
        assert_ne!(other.says("a").await.0, "1");
    }
}

#[tokio::test]
async fn what_was_decided_on_later_stays_however_the_writes_overtake_one_another() {
    let server = Server::start().await;
    let (one, other) = fleet(&server);
    let put = |bytes: &[u8]| one.cache.put(key("a"), bytes.to_vec());
    let (first, second) = (put(b"first"), put(b"second"));
    second.await.unwrap();
    first.await.unwrap();
    assert_eq!(other.says("a").await, ("second".into(), "fresh"));
    let (third, gone) = (put(b"third"), one.cache.invalidate(&key("a")));
    gone.await.unwrap();
    third.await.unwrap();
    other.is("a", 1, "loaded").await;
    let (gone, fourth) = (one.cache.invalidate(&key("a")), put(b"fourth"));
    fourth.await.unwrap();
    gone.await.unwrap();
    assert_eq!(other.says("a").await, ("fourth".into(), "fresh"));
    assert_eq!(one.cache.store().stats().refused, 2);
}

/// worldmonitor_3527_redis_error_looks_like_a_miss, fusioncache_HandlesDistributedCacheFailures
#[tokio::test]
async fn without_redis_the_dependency_answers_and_an_error_is_no_miss() {
    let url = format!("redis://127.0.0.1:{}/", free_port());
    let node = Node::new(CACHE, store(&lanes(&url, QUICK), STORE), &Dependency::new());
    for answer in 1..=10 {
        node.is("a", answer, "loaded").await;
    }
    let stats = node.cache.store().stats();
    assert_eq!((stats.misses, stats.hits, stats.writes), (0, 0, 0));
    assert!(stats.errors >= 10);
    assert!(node.cache.store().is_away());
    assert!(node.cache.invalidate(&key("a")).await.is_err(), "who invalidates hears of it");
}

#[tokio::test]
async fn after_kill_and_restart_it_is_shared_again() {
    let mut server = Server::start().await;
    let dependency = Dependency::new();
    let node = || Node::new(CACHE, store(&lanes(&server.url(), QUICK), STORE), &dependency);
    let (one, other) = (node(), node());
    one.is("a", 1, "loaded").await;
    for _ in 0..2 {
        server.kill();
        until("it is away", async || {
            one.says("a").await;
            one.cache.store().is_away().then_some(())
        })
        .await;
        server.restart().await;
        until("it is shared", async || {
            let said = one.says("a").await.0;
            (other.says("a").await == (said, "fresh")).then_some(())
        })
        .await;
    }
}

/// aisix_1147_fail_open_that_hangs, fusioncache_534_timeout_ignored_on_first_far_try
#[tokio::test]
async fn a_server_that_hangs_costs_a_few_loads_the_deadline_and_its_late_writes_change_nothing() {
    let server = Server::start().await;
    let node = Node::new(CACHE, store(&lanes(&server.url(), QUICK), STORE), &Dependency::new());
    node.is("warm", 1, "loaded").await;
    written(&node, 1).await;
    server.signal("STOP");
    drop(node.cache.put(key("a"), b"never polled".to_vec()));
    let put = node.cache.put(key("a"), b"late".to_vec());
    assert!(put.await.is_err());
    let began = tokio::time::Instant::now();
    for answer in 2..20 {
        node.is("b", answer, "loaded").await;
    }
    // The deadline is 200 ms, and three in a row open the breaker; the rest is for the machine.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    server.signal("CONT");
    until("it is back", async || node.cache.invalidate(&key("a")).await.ok()).await;
    assert_ne!(node.says("a").await.0, "late");
}

/// redis_py_2665_reply_of_another_command
#[tokio::test]
async fn three_hundred_calls_cancelled_midway_leave_no_wrong_value() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port).await;
    let store = store(&lanes(&proxy.url(), PATIENT.lanes(1)), STORE);
    let put = |n: usize| Store::put(&store, key(&n.to_string()), entry(n.to_string())).writing;
    join_all((0..10).map(put)).await.into_iter().for_each(|put| put.unwrap());
    proxy.set(Fault::Delay);
    for n in 0..300 {
        let fetch = store.fetch(&key(&(n % 10).to_string()));
        tokio::select! {
            biased;
            _ = fetch => panic!("answers take longer"),
            () = async { for _ in 0..3 { tokio::task::yield_now().await } } => {}
        }
    }
    for n in 0..10 {
        let found = store.fetch(&key(&n.to_string())).await.entry.unwrap();
        assert_eq!(found.value(), Some(&n.to_string().into_bytes()));
    }
}

fn entry(value: String) -> buttress::cache::Entry<Page> {
    buttress::cache::Entry::new(value.into_bytes(), buttress::cache::Envelope::new(MINUTE))
}

/// fusioncache_574_a_hundred_thousand_to_one
#[tokio::test]
async fn of_a_fleet_one_loads_and_the_others_have_what_it_stored() {
    let server = Server::start().await;
    let dependency = Dependency::new();
    let settings = STORE.single_load(SingleLoad::new());
    let nodes: Vec<_> =
        (0..10).map(|_| Node::new(CACHE, store(&lanes(&server.url(), PATIENT), settings), &dependency)).collect();
    dependency.hold();
    let all: Vec<_> = nodes
        .iter()
        .map(|node| {
            let node = Arc::clone(node);
            tokio::spawn(async move { node.says("a").await.0 })
        })
        .collect();
    until("one is loading", async || (dependency.calls() == 1).then_some(())).await;
    // Each has looked at least once.
    until("the others wait", async || {
        (nodes.iter().filter(|node| node.cache.stats().in_flight == 1).count() == 10).then_some(())
    })
    .await;
    dependency.let_go();
    assert!(join_all(all).await.into_iter().all(|answer| answer.unwrap() == "1"));
    assert_eq!(dependency.calls(), 1);
    until("the lease is given back", async || {
        (server.ask::<Vec<String>>("KEYS", "*").await == [name("a")]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_load_that_ends_without_an_entry_gives_its_lease_back_and_one_that_died_loses_it() {
    let server = Server::start().await;
    let dependency = Dependency::new();
    let node = |single| Node::new(CACHE, store(&lanes(&server.url(), PATIENT), STORE.single_load(single)), &dependency);
    let one = node(SingleLoad::new());
    // It is dropped midway.
    let fetched = one.cache.store().fetch(&key("a")).await;
    assert!(fetched.entry.is_none() && fetched.hold.is_some());
    let lease = format!("{}:lease", name("a"));
    assert_eq!(server.ask::<u8>("EXISTS", &lease).await, 1);
    drop(fetched);
    until("it is given back", async || (server.ask::<u8>("EXISTS", &lease).await == 0).then_some(())).await;
    // Somebody else's is not.
    let fetched = one.cache.store().fetch(&key("a")).await;
    server.ask::<()>("SET", (&lease, "another")).await;
    drop(fetched);
    one.cache.store().fetch(&key("b")).await;
    assert_eq!(server.ask::<String>("GET", &lease).await, "another");
    // Who has waited long enough loads.
    let impatient = node(SingleLoad::new().wait(Duration::from_millis(50)));
    impatient.is("a", 1, "loaded").await;
    // The lease of one that died ends by itself.
    let dying = node(SingleLoad::new().hold(Duration::from_millis(100)));
    std::mem::forget(dying.cache.store().fetch(&key("c")).await);
    one.is("c", 2, "loaded").await;
}

/// A tag barrier that nobody can read, and one from a clock that was put back.
#[tokio::test]
async fn a_mark_that_is_none_voids_once_and_is_overwritten() {
    let server = Server::start().await;
    let (one, other) = fleet(&server);
    for (mark, key) in [("nonsense", "a"), ("9999999999999999", "b"), ("18446744073709551615", "c")] {
        let (calls, writes) = (one.dependency.calls(), one.cache.store().stats().writes);
        server.ask::<()>("SET", ("t:all", mark)).await;
        one.is(key, calls + 1, "loaded").await;
        written(&one, writes + 1).await;
        one.is(key, calls + 2, "loaded").await;
        written(&one, writes + 2).await;
        other.is(key, calls + 2, "fresh").await;
        no_key_without_a_ttl(&server).await;
    }
}

/// A mark that nobody can read is overwritten, and the entry is looked at again by who has the lease for it already.
#[tokio::test]
async fn who_has_the_lease_does_not_wait_for_himself() {
    let server = Server::start().await;
    let single = STORE.single_load(SingleLoad::new().wait(MINUTE).hold(MINUTE));
    let store = store(&lanes(&server.url(), PATIENT), single);
    let mut envelope = buttress::cache::Envelope::new(Duration::from_millis(1));
    envelope.max_stale = MINUTE;
    store.put(key("a"), buttress::cache::Entry::new(b"stale".to_vec(), envelope)).writing.await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    server.ask::<()>("SET", ("t:all", "nonsense")).await;
    let fetched = tokio::time::timeout(LONG, store.fetch(&key("a"))).await.expect("nobody else loads");
    assert!(fetched.entry.is_none() && fetched.hold.is_some());
    drop(fetched);
    let lease = format!("{}:lease", name("a"));
    until("it goes back", async || (server.ask::<u8>("EXISTS", &lease).await == 0).then_some(())).await;
}

/// Who asked for it has lost the answer, or has gone: the others would wait for nobody.
///
/// fusioncache_distributed_locker_that_is_never_released
#[tokio::test]
async fn a_lease_that_nobody_knows_of_goes_back() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port).await;
    let single = STORE.single_load(SingleLoad::new().wait(MINUTE).hold(10 * MINUTE));
    let store = store(&lanes(&proxy.url(), QUICK.lanes(1)), single);
    assert!(store.fetch(&key("warm")).await.hold.is_some());
    let is_there = async |key: &str| server.ask::<u8>("EXISTS", format!("{}:lease", name(key))).await == 1;
    proxy.set(Fault::DropReplies);
    let fetched = store.fetch(&key("lost")).await;
    proxy.set(Fault::None);
    assert!(fetched.hold.is_none() && fetched.entry.is_none());
    until("it goes back", async || (!is_there("lost").await).then_some(())).await;
    until("it is there again", async || store.fetch(&key("warm")).await.hold.is_some().then_some(())).await;
    let mut fetch = Box::pin(store.fetch(&key("gone")));
    assert!(futures::poll!(&mut fetch).is_pending());
    until("it is given", async || is_there("gone").await.then_some(())).await;
    drop(fetch);
    until("it goes back", async || (!is_there("gone").await).then_some(())).await;
}

/// Writes may wait, in a queue or for who polls them.
#[tokio::test]
async fn what_was_put_before_an_invalidation_does_not_come_back_after_it() {
    let server = Server::start().await;
    let store = store(&lanes(&server.url(), PATIENT), STORE);
    type Invalidate = fn(&RedisStore<Page>) -> buttress::redis::Writing;
    let ways: [Invalidate; 3] = [
        |store| store.remove_tag("tag"),
        |store| Store::<CacheKey, Page>::clear(store),
        |store| store.remove(&key("a")),
    ];
    for way in ways {
        let entry = |value: &str| {
            let mut envelope = buttress::cache::Envelope::new(MINUTE);
            envelope.tags = Arc::new(["tag".into()]);
            buttress::cache::Entry::new(value.as_bytes().to_vec(), envelope)
        };
        let put = store.put(key("a"), entry("before"));
        tokio::time::sleep(Duration::from_millis(20)).await;
        way(&store).await.unwrap();
        put.writing.await.unwrap();
        assert!(store.fetch(&key("a")).await.entry.is_none());
        store.put(key("a"), entry("after")).writing.await.unwrap();
        assert!(store.fetch(&key("a")).await.entry.is_some());
    }
}

/// Two processes whose clocks are 10 s apart: only that of Redis counts.
#[tokio::test]
async fn an_entry_is_as_old_as_redis_says() {
    let server = Server::start().await;
    let store = store(&lanes(&server.url(), PATIENT), STORE);
    let mut envelope = buttress::cache::Envelope::new(MINUTE);
    envelope.age = Duration::from_secs(10);
    envelope.max_stale = MINUTE;
    envelope.tags = Arc::new(["t".into()]);
    let entry = buttress::cache::Entry::new(b"page".to_vec(), envelope);
    store.put(key("a"), entry).writing.await.unwrap();
    let found = store.fetch(&key("a")).await.entry.unwrap().envelope();
    assert!(found.age < Duration::from_secs(5), "put by hand it lives from when Redis got it");
    assert_eq!((found.ttl, found.max_stale, &*found.tags), (MINUTE, MINUTE, &["t".into()][..]));
}

/// lettuce_1405_password_in_debug
#[tokio::test]
async fn no_secret_is_in_any_debug() {
    let lanes = Lanes::try_from_url("redis://user:s3cret@127.0.0.1:1/", QUICK).unwrap();
    let store = store(&lanes, STORE);
    let fetched = store.fetch(&CacheKey::new("s3cret", 1)).await;
    let failed = store.remove(&CacheKey::new("s3cret", 1)).await.unwrap_err();
    let shown = format!("{store:?} {fetched:?} {failed:?} {failed} {:?}", store.clear());
    assert!(!shown.contains("s3cret") && !shown.contains("user"), "{shown}");
}

#[tokio::test]
async fn what_is_not_to_be_kept_is_gone_in_redis_too() {
    let server = Server::start().await;
    let (one, other) = fleet(&server);
    one.cache.put(key("a"), b"page".to_vec()).await.unwrap();
    assert_eq!(other.says("a").await, ("page".into(), "fresh"));
    one.cache.put_for(key("a"), b"page".to_vec(), Keep::never()).await.unwrap();
    other.is("a", 1, "loaded").await;
}
