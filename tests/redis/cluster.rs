use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use buttress::{
    EventKind, Reason,
    rate_limit::{Quota, RateLimitSettings as Settings},
    redis::{Lanes, LeaseSettings, RedisLimitSettings, RedisLimits, Unavailable},
};

use crate::{LONG, PATIENT, QUICK, admitted, leases::until, nodes::cluster, take};

const HOUR: Duration = Duration::from_secs(3600);
const FIVE: Settings = Settings::sliding_counter(Quota::new(5, HOUR)).name("five");

fn limits(lanes: &Lanes, settings: RedisLimitSettings) -> RedisLimits<String> {
    RedisLimits::try_with(lanes, settings).unwrap()
}

const fn strict(prefix: &'static str, settings: Settings) -> RedisLimitSettings {
    RedisLimitSettings::new(settings).prefix(prefix).unavailable(Unavailable::Closed)
}

/// effect_smol_2328_derived_keys_cross_slots
#[tokio::test]
async fn several_limits_of_many_keys_are_exact_in_a_cluster() {
    let cluster = cluster().await;
    let lanes = Lanes::try_from_cluster_urls(cluster.urls().into_iter().take(1), PATIENT).unwrap();
    let settings = Settings::token_bucket(Quota::new(5, HOUR))
        .name("five")
        .and(Settings::sliding_log(Quota::new(4, HOUR)).name("four"))
        .and(Settings::sliding_counter(Quota::new(6, HOUR)).name("six"));
    let limits = limits(&lanes, strict("several", settings));
    for n in 0..30 {
        assert_eq!(admitted(&limits, &format!("user {n}"), 7).await, 4);
    }
    for key in ["{}", "{a}", "}{", "{a}{b}", "a{"] {
        assert_eq!(admitted(&limits, key, 7).await, 4, "{key}");
    }
    assert!(!limits.is_away());
}

/// limitador_stacked_limits_race
#[tokio::test]
async fn a_limit_of_all_keys_is_kept_in_a_cluster_with_leases() {
    let cluster = cluster().await;
    let lanes = || Lanes::try_from_cluster_urls(cluster.urls(), PATIENT).unwrap();
    let all = Settings::token_bucket(Quota::new(100, HOUR)).name("all");
    let settings = strict("all", FIVE).and_all_leased(all, LeaseSettings::new(5).life(LONG));
    let processes = [limits(&lanes(), settings), limits(&lanes(), settings)];
    let mut passed = 0;
    for n in 0..60 {
        let by_one = admitted(&processes[n % 2], &format!("user {}", n / 2), 4).await;
        passed += by_one;
        assert!(by_one <= 4);
    }
    // At most two batches of the one that came first are left with it.
    assert!((90..=100).contains(&passed), "{passed}");
}

/// redis_rs_1919_stale_slots
#[tokio::test]
async fn a_slot_that_has_moved_is_followed() {
    let cluster = cluster().await;
    let lanes = Lanes::try_from_cluster_urls(cluster.urls(), PATIENT.lanes(1)).unwrap();
    let limits = limits(&lanes, strict("moved", FIVE));
    assert_eq!(take(&limits, "another", 1).await, Ok(()), "the lane knows the slots");
    let (from, slot) = cluster.master_of("moved:{.user}:0:counter:five").await;
    let to = cluster.other_master(from).await;
    cluster.depart(slot, from, to).await;
    cluster.arrive(slot, from, to).await;
    let failed = Arc::new(AtomicBool::new(false));
    limits.on_event({
        let failed = Arc::clone(&failed);
        move |event| {
            failed.fetch_or(matches!(event.kind, EventKind::StoreFailed { .. }), Ordering::Relaxed);
        }
    });
    assert_eq!(admitted(&limits, "user", 7).await, 5);
    assert!(!failed.load(Ordering::Relaxed));
    assert_eq!(cluster.master_of("moved:{.user}:0:counter:five").await.0, to);
    cluster.depart(slot, to, from).await;
    cluster.arrive(slot, to, from).await;
}

/// A slot on its way from one master to another: what has arrived is asked for there, what has not, where it was.
#[tokio::test]
async fn a_slot_that_is_about_to_move_is_asked_for_where_it_is_going() {
    let cluster = cluster().await;
    let lanes = Lanes::try_from_cluster_urls(cluster.urls(), PATIENT.lanes(1)).unwrap();
    let pair = FIVE.and(Settings::token_bucket(Quota::new(4, HOUR)).name("four"));
    let (one, two) = (limits(&lanes, strict("asked", FIVE)), limits(&lanes, strict("asked pair", pair)));
    let events = Arc::new(AtomicUsize::new(0));
    for limits in [&one, &two] {
        let events = Arc::clone(&events);
        limits.on_event(move |event| {
            events.fetch_add(usize::from(matches!(event.kind, EventKind::StoreFailed { .. })), Ordering::Relaxed);
        });
    }
    // Of each, two units are taken while the slot is where it was.
    let key = "mover";
    assert_eq!((admitted(&one, key, 2).await, admitted(&two, key, 2).await), (2, 2));
    let (from, slot) = cluster.master_of("asked:{.mover}:0:counter:five").await;
    let to = cluster.other_master(from).await;
    let (from_id, to_id) = (cluster.id(from).await, cluster.id(to).await);
    let set = async |node: usize, what: &str, id: &str| {
        cluster.nodes[node].ask::<String>("CLUSTER", ("SETSLOT", slot, what, id)).await.unwrap();
    };
    // The target knows none of the scripts.
    cluster.nodes[to].ask::<String>("SCRIPT", "FLUSH").await.unwrap();
    set(to, "IMPORTING", &from_id).await;
    set(from, "MIGRATING", &to_id).await;
    // Nothing has left yet.
    assert_eq!(admitted(&one, key, 1).await, 1);
    let names: Vec<String> = cluster.nodes[from].ask("CLUSTER", ("GETKEYSINSLOT", slot, 100)).await.unwrap();
    let port = cluster.nodes[to].port;
    let move_key = async |name: &str| {
        cluster.nodes[from].ask::<String>("MIGRATE", ("127.0.0.1", port, name, 0, 5_000)).await.unwrap();
    };
    for name in names.iter().filter(|name| name.starts_with("asked:")) {
        move_key(name).await;
    }
    assert_eq!(admitted(&one, key, 3).await, 2, "three of five were taken before");
    assert_eq!(events.load(Ordering::Relaxed), 0);
    // Of two keys of a call one has left: nobody can answer, and nothing is paid.
    let rest: Vec<_> = names.iter().filter(|name| !name.starts_with("asked:")).collect();
    assert_eq!(rest.len(), 2, "{names:?}");
    move_key(rest[0]).await;
    assert_eq!(take(&two, key, 1).await.unwrap_err().reason(), Reason::LimitUnknown);
    assert!(events.swap(0, Ordering::Relaxed) > 0, "that is told");
    move_key(rest[1]).await;
    assert_eq!(admitted(&two, key, 4).await, 2, "two of four were taken before");
    set(to, "NODE", &to_id).await;
    set(from, "NODE", &to_id).await;
    assert_eq!((admitted(&one, key, 1).await, admitted(&two, key, 1).await), (0, 0));
    assert_eq!(admitted(&one, "somebody else", 7).await, 5);
    assert_eq!(events.load(Ordering::Relaxed), 0);
}

/// redis_rs_2277_stale_connections_after_failover
#[tokio::test]
async fn when_a_master_dies_under_load_each_call_is_decided_and_its_replica_goes_on() {
    let mut cluster = cluster().await;
    let lanes = Lanes::try_from_cluster_urls(cluster.urls(), QUICK).unwrap();
    let quota = Settings::sliding_counter(Quota::new(1_000_000, HOUR)).name("many");
    let load = limits(&lanes, strict("load", quota).unavailable(Unavailable::Open));
    let ends = Arc::new(AtomicBool::new(false));
    let (asked, passed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let (load, ends) = (load.clone(), Arc::clone(&ends));
            let (asked, passed) = (Arc::clone(&asked), Arc::clone(&passed));
            tokio::spawn(async move {
                let mut n = 0;
                while !ends.load(Ordering::Relaxed) {
                    n += 1;
                    asked.fetch_add(1, Ordering::Relaxed);
                    let key = format!("{caller} {}", n % 50);
                    let verdict = tokio::time::timeout(LONG, take(&load, &key, 1)).await.expect("it ends");
                    passed.fetch_add(usize::from(verdict.is_ok()), Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        })
        .collect();
    // Two units of five are paid before.
    let shared = limits(&lanes, strict("failover", FIVE));
    assert_eq!(admitted(&shared, "user", 2).await, 2);
    let (master, _) = cluster.master_of("failover:{.user}:0:counter:five").await;
    // What the replica has not heard of yet dies with its master.
    cluster.nodes[master].until_heard().await;
    cluster.nodes[master].kill();
    until("the replica goes on", async || take(&shared, "user", 1).await.is_ok()).await;
    ends.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(passed.load(Ordering::Relaxed), asked.load(Ordering::Relaxed), "open: all of them pass");
    // What was paid is still paid: three of five by now, or more where an answer was lost.
    let fresh = limits(&lanes, strict("failover", FIVE));
    until("the breaker is closed", async || {
        let _ = take(&load, "probe", 1).await;
        !load.is_away()
    })
    .await;
    assert!(admitted(&fresh, "user", 5).await <= 2);
    // And every other key is decided by its own node again, once each lane has heard of it.
    let settled = limits(&lanes, strict("settled", FIVE));
    for n in 0..600 {
        until("its node decides", async || take(&settled, &format!("user {n}"), 1).await.is_ok()).await;
    }
    for n in 0..600 {
        assert_eq!(take(&settled, &format!("other user {n}"), 1).await, Ok(()));
    }
    cluster.nodes[master].restart();
    cluster.until_well().await;
}

/// upstash_122_noscript
#[tokio::test]
async fn a_node_that_forgets_its_scripts_is_told_again() {
    let cluster = cluster().await;
    let lanes = Lanes::try_from_cluster_urls(cluster.urls(), PATIENT).unwrap();
    let limits = limits(&lanes, strict("flushed", FIVE));
    for _ in 0..3 {
        for n in 0..20 {
            assert_eq!(take(&limits, &format!("user {n}"), 1).await, Ok(()));
        }
        for node in &cluster.nodes {
            let _: Option<String> = node.ask("SCRIPT", "FLUSH").await;
        }
    }
}
