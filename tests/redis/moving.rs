//! A slot whose keys are on their way from one master to another.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::{
    CircuitState, EventKind, Reason,
    rate_limit::{Quota, RateLimitSettings as Settings},
    redis::{
        Lanes, RedisFailure, RedisLimitSettings, RedisLimits, RedisStore, Unavailable, deadpool_redis::redis::cmd,
    },
};

use crate::{
    PATIENT, QUICK, admitted,
    cache::{CACHE, Dependency, Node, Page, STORE, key, store, until},
    nodes::{Cluster, cluster},
    take,
};

const HOUR: Duration = Duration::from_secs(3600);
const FIVE: Settings = Settings::sliding_counter(Quota::new(5, HOUR)).name("five");
const FOUR: Settings = Settings::sliding_counter(Quota::new(4, HOUR)).name("four");

fn limits(lanes: &Lanes, prefix: &'static str, settings: Settings) -> RedisLimits<String> {
    let settings = RedisLimitSettings::new(settings).prefix(prefix).unavailable(Unavailable::Closed);
    RedisLimits::try_with(lanes, settings).unwrap()
}

/// Why Redis gave no answer, each time.
fn failures(of: &RedisLimits<String>) -> Arc<Mutex<Vec<String>>> {
    let failures = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&failures);
    of.on_event(move |event| {
        if let EventKind::StoreFailed { why, .. } = event.kind {
            told.lock().unwrap().push(why.to_owned());
        }
    });
    failures
}

/// A number of `INFO`.
async fn counted(cluster: &Cluster, node: usize, section: &str, name: &str) -> u64 {
    let stats: String = cluster.nodes[node].ask("INFO", section).await.unwrap();
    let line = stats.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty()));
    number.map_or(0, |number| number.parse().unwrap())
}

/// How many questions it was asked for keys that had come before their slot.
async fn asked(cluster: &Cluster, node: usize) -> u64 {
    counted(cluster, node, "commandstats", "cmdstat_asking:calls=").await
}

/// How many it has sent to where the slot is.
async fn sent_away(cluster: &Cluster, node: usize) -> u64 {
    counted(cluster, node, "errorstats", "errorstat_MOVED:count=").await
}

/// upstash_122_noscript
#[tokio::test]
async fn a_limit_whose_keys_are_on_their_way_is_followed_and_admits_no_more() {
    let cluster = cluster().await;
    let lanes = Lanes::try_from_cluster_urls(cluster.urls(), PATIENT).unwrap();
    let before = limits(&lanes, "before", FIVE);
    let failed = failures(&before);
    assert_eq!(admitted(&before, "traveller", 2).await, 2);
    let carried = "before:{.traveller}:0:counter:five";
    let (from, slot) = cluster.master_of(carried).await;
    let to = cluster.other_master(from).await;
    assert_eq!(lanes.query(cmd("SET").arg("{.traveller}").arg("stays")).await, Ok("OK".to_owned()));
    let _: String = cluster.nodes[to].ask("SCRIPT", "FLUSH").await.unwrap();
    cluster.depart(slot, from, to).await;
    let (asked_before, sent_before) = (asked(&cluster, to).await, sent_away(&cluster, to).await);
    assert_eq!(admitted(&before, "traveller", 1).await, 1);
    assert_eq!(asked(&cluster, to).await, asked_before, "its key is still where it was");
    cluster.carry(carried, from, to).await;
    assert_eq!(admitted(&before, "traveller", 1).await, 1);
    assert_eq!(asked(&cluster, to).await, asked_before + 2, "once more, with the script that the node did not know");
    assert_eq!(admitted(&before, "traveller", 1).await, 1);
    assert_eq!(asked(&cluster, to).await, asked_before + 3);
    // By one who has not heard that all five are paid.
    assert_eq!(admitted(&limits(&lanes, "before", FIVE), "traveller", 3).await, 0);
    // A new key begins there; and of many who are sent there together each is asked.
    let during = limits(&lanes, "during", FIVE);
    let failed_during = failures(&during);
    let many = (0..100).map(|_| {
        let during = during.clone();
        tokio::spawn(async move { take(&during, "traveller", 1).await })
    });
    let verdicts = futures::future::join_all(many).await;
    assert_eq!(verdicts.into_iter().filter(|verdict| matches!(verdict, Ok(Ok(())))).count(), 5);
    // The lanes have not been told that the slot is elsewhere: the rest is asked for where it is.
    assert_eq!(lanes.query(cmd("GET").arg("{.traveller}")).await, Ok("stays".to_owned()));
    assert_eq!(sent_away(&cluster, to).await, sent_before);
    cluster.arrive(slot, from, to).await;
    let asked_before = asked(&cluster, to).await;
    for prefix in ["before", "during"] {
        assert_eq!(admitted(&limits(&lanes, prefix, FIVE), "traveller", 3).await, 0, "{prefix}");
    }
    assert_eq!(admitted(&limits(&lanes, "after", FIVE), "traveller", 7).await, 5);
    assert_eq!(lanes.query(cmd("GET").arg("{.traveller}")).await, Ok("stays".to_owned()));
    assert_eq!(asked(&cluster, to).await, asked_before, "the slot has come too");
    cluster.depart(slot, to, from).await;
    cluster.arrive(slot, to, from).await;
    assert_eq!(admitted(&limits(&lanes, "after", FIVE), "traveller", 3).await, 0);
    assert_eq!((&*failed.lock().unwrap(), &*failed_during.lock().unwrap()), (&vec![], &vec![]));
}

/// The lanes have never heard of it, and it of no script.
#[tokio::test]
async fn a_node_that_has_no_slot_yet_decides_on_the_keys_that_come_first() {
    let mut cluster = cluster().await;
    let lanes = Lanes::try_from_cluster_urls(cluster.urls(), PATIENT).unwrap();
    let settler = limits(&lanes, "settled", FIVE);
    let failed = failures(&settler);
    assert_eq!(admitted(&settler, "settler", 1).await, 1);
    let to = cluster.join().await;
    let (from, slot) = cluster.master_of("settled:{.settler}:0:counter:five").await;
    cluster.depart(slot, from, to).await;
    cluster.carry("settled:{.settler}:0:counter:five", from, to).await;
    assert_eq!(admitted(&settler, "settler", 2).await, 2);
    assert_eq!(asked(&cluster, to).await, 3);
    cluster.arrive(slot, from, to).await;
    assert_eq!(admitted(&settler, "settler", 1).await, 1);
    cluster.depart(slot, to, from).await;
    assert_eq!(admitted(&settler, "settler", 1).await, 1);
    cluster.arrive(slot, to, from).await;
    assert_eq!(admitted(&limits(&lanes, "settled", FIVE), "settler", 3).await, 0);
    assert_eq!(*failed.lock().unwrap(), [""; 0]);
    cluster.leave().await;
}

#[tokio::test]
async fn whoever_is_sent_on_has_the_same_name_and_password() {
    let cluster = cluster().await;
    for node in &cluster.nodes {
        let rules = ("SETUSER", "shop", "reset", "on", ">s3cret", "~*", "&*", "+@all");
        assert_eq!(node.ask::<String>("ACL", rules).await.as_deref(), Some("OK"));
    }
    let urls = cluster.nodes.iter().map(|node| format!("redis://shop:s3cret@127.0.0.1:{}/", node.port));
    let lanes = Lanes::try_from_cluster_urls(urls, PATIENT).unwrap();
    let (from, slot) = cluster.master_of("{guest}").await;
    let to = cluster.other_master(from).await;
    cluster.depart(slot, from, to).await;
    let _: String = cluster.nodes[to].ask("ACL", ("SETUSER", "default", "-append")).await.unwrap();
    let answer = lanes.query::<u32>(cmd("APPEND").arg("{guest}").arg("abc")).await;
    let _: String = cluster.nodes[to].ask("ACL", ("SETUSER", "default", "+append")).await.unwrap();
    cluster.arrive(slot, from, to).await;
    cluster.depart(slot, to, from).await;
    cluster.arrive(slot, to, from).await;
    assert_eq!(answer, Ok(3));
}

/// Functions are where an operator has put them.
#[tokio::test]
async fn a_function_is_followed_too() {
    let cluster = cluster().await;
    let code =
        "#!lua name=counting\nredis.register_function('count', function(keys) return redis.call('INCR', keys[1]) end)";
    let (from, slot) = cluster.master_of("{called}").await;
    let to = cluster.other_master(from).await;
    for node in [from, to] {
        let loaded: Option<String> = cluster.nodes[node].ask("FUNCTION", ("LOAD", "REPLACE", code)).await;
        assert_eq!(loaded.as_deref(), Some("counting"));
    }
    let lanes = Lanes::try_from_cluster_urls(cluster.urls(), PATIENT).unwrap();
    let count = async || lanes.query::<u32>(cmd("FCALL").arg("count").arg(1).arg("{called}")).await;
    assert_eq!(count().await, Ok(1));
    cluster.depart(slot, from, to).await;
    assert_eq!(count().await, Ok(2));
    cluster.carry("{called}", from, to).await;
    assert_eq!(count().await, Ok(3));
    cluster.arrive(slot, from, to).await;
    assert_eq!(count().await, Ok(4));
    cluster.depart(slot, to, from).await;
    cluster.arrive(slot, to, from).await;
    assert_eq!(count().await, Ok(5));
}

#[tokio::test]
async fn limits_that_are_not_all_on_one_node_are_decided_by_the_policy_until_they_are() {
    let cluster = cluster().await;
    let lanes = Lanes::try_from_cluster_urls(cluster.urls(), QUICK).unwrap();
    let both = limits(&lanes, "both", FIVE.and(FOUR));
    let failed = failures(&both);
    assert_eq!(admitted(&both, "pair", 2).await, 2);
    let (from, slot) = cluster.master_of("both:{.pair}:0:counter:five").await;
    let to = cluster.other_master(from).await;
    cluster.depart(slot, from, to).await;
    assert_eq!(admitted(&both, "pair", 1).await, 1, "both are where they were");
    cluster.carry("both:{.pair}:0:counter:five", from, to).await;
    for _ in 0..10 {
        let rejected = take(&both, "pair", 1).await.unwrap_err();
        assert_eq!(rejected.reason(), Reason::LimitUnknown);
    }
    assert_eq!(*failed.lock().unwrap(), ["moving"; 10]);
    assert!(!both.is_away());
    // Nothing of it was executed, and nobody else hears of it.
    assert_eq!(
        lanes.query::<Vec<String>>(cmd("MGET").arg("{.pair}a").arg("{.pair}b")).await,
        Err(RedisFailure::Moving)
    );
    assert_eq!(lanes.breaker().state(), CircuitState::Closed);
    assert_eq!(admitted(&both, "another", 7).await, 4);
    cluster.carry("both:{.pair}:1:counter:four", from, to).await;
    assert_eq!(admitted(&both, "pair", 4).await, 1);
    cluster.arrive(slot, from, to).await;
    assert_eq!(admitted(&limits(&lanes, "both", FIVE.and(FOUR)), "pair", 4).await, 0);
    cluster.depart(slot, to, from).await;
    cluster.arrive(slot, to, from).await;
    assert_eq!(failed.lock().unwrap().len(), 10);
}

/// The entry, and then the mark of all, which is asked for together with that of a tag in another slot.
#[tokio::test]
async fn a_cache_whose_keys_are_on_their_way_finds_keeps_and_forgets() {
    let cluster = cluster().await;
    let dependency = Dependency::new();
    let node = || -> Arc<Node<RedisStore<Page>>> {
        let lanes = Lanes::try_from_cluster_urls(cluster.urls(), PATIENT).unwrap();
        Node::new(CACHE, store(&lanes, STORE.prefix("way")), &dependency)
    };
    let (one, other) = (node(), node());
    let written = async |node: &Node<RedisStore<Page>>, writes: u64| {
        until("it is written", async || (node.cache.store().stats().writes >= writes).then_some(())).await;
    };
    one.is("a", 1, "loaded").await;
    written(&one, 1).await;
    let entry = format!("way:{{{}}}", key("a").hex());
    let (from, slot) = cluster.master_of(&entry).await;
    let to = cluster.other_master(from).await;
    cluster.depart(slot, from, to).await;
    other.is("a", 1, "fresh").await;
    cluster.carry(&entry, from, to).await;
    other.is("a", 1, "fresh").await;
    one.cache.put(key("a"), b"put".to_vec()).await.unwrap();
    assert_eq!(other.says("a").await, ("put".into(), "fresh"));
    one.cache.invalidate(&key("a")).await.unwrap();
    other.is("a", 2, "loaded").await;
    written(&other, 1).await;
    one.is("a", 2, "fresh").await;
    cluster.arrive(slot, from, to).await;
    one.is("a", 2, "fresh").await;
    cluster.depart(slot, to, from).await;
    cluster.arrive(slot, to, from).await;
    one.is("a", 2, "fresh").await;

    let (from, slot) = cluster.master_of("way:all").await;
    let to = cluster.other_master(from).await;
    cluster.depart(slot, from, to).await;
    let asked_before = asked(&cluster, to).await;
    other.is("a", 2, "fresh").await;
    assert!(asked(&cluster, to).await > asked_before, "there is no mark where it would have been");
    one.cache.clear().await.unwrap();
    other.is("a", 3, "loaded").await;
    written(&other, 2).await;
    cluster.arrive(slot, from, to).await;
    one.is("a", 3, "fresh").await;
    cluster.depart(slot, to, from).await;
    cluster.arrive(slot, to, from).await;
    one.is("a", 3, "fresh").await;
    assert_eq!([&one, &other].map(|node| node.cache.store().stats().errors), [0, 0]);
}
