use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::{
    EventKind, Reason,
    rate_limit::{KeyedRateLimitLayer, LimitStore, Quota, RateLimitSettings as Settings, Taken},
    redis::{RedisLimits, Unavailable},
};
use tower::{ServiceBuilder, ServiceExt, service_fn};

use crate::{
    LONG, QUICK, admitted, lanes,
    leases::until,
    proxy::{Fault, Proxy},
    server::{Server, free_port},
    take,
};

const HOUR: Duration = Duration::from_secs(3600);

fn limits(url: &str, quota: u64, unavailable: Unavailable) -> RedisLimits<String> {
    let settings = Settings::token_bucket(Quota::new(quota, HOUR)).name("user");
    RedisLimits::try_new(&lanes(url, QUICK), settings, unavailable).unwrap()
}

/// Asks until Redis decides again.
async fn until_shared(limits: &RedisLimits<String>, key: &str) {
    let began = tokio::time::Instant::now();
    loop {
        let _ = take(limits, key, 1).await;
        if !limits.is_away() {
            return;
        }
        assert!(began.elapsed() < LONG, "it never came back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn until_refused_at_once(limits: &RedisLimits<String>, key: &str) {
    let began = tokio::time::Instant::now();
    while !matches!(limits.take(&key.to_owned(), 1), Taken::Now(_)) {
        let _ = take(limits, key, 1).await;
        assert!(began.elapsed() < LONG, "it asks for ever");
    }
}

#[tokio::test]
async fn without_redis_the_policy_decides() {
    let url = format!("redis://127.0.0.1:{}/", free_port());
    for (unavailable, passes) in [
        (Unavailable::default(), 25),
        (Unavailable::local(0.5), 50),
        (Unavailable::Open, 300),
        (Unavailable::Closed, 0),
    ] {
        let limits = limits(&url, 100, unavailable);
        assert_eq!(admitted(&limits, "user", 300).await, passes, "{unavailable:?}");
        assert!(limits.is_away());
    }
    let closed = limits(&url, 100, Unavailable::Closed);
    let refused = take(&closed, "user", 1).await.unwrap_err();
    assert_eq!((refused.policy(), refused.reason()), ("user", Reason::LimitUnknown));
}

#[tokio::test]
async fn a_service_starts_while_redis_is_down_and_shares_once_it_is_up() {
    let mut server = Server::start().await;
    server.kill();
    let limits = limits(&server.url(), 4, Unavailable::default());
    let stack = ServiceBuilder::new()
        .layer(KeyedRateLimitLayer::over(limits.clone(), |user: &String| user.clone()))
        .service(service_fn(async |_: String| Ok::<_, buttress::BoxError>(())));
    assert!(stack.clone().oneshot("user".into()).await.is_ok());
    assert!(limits.is_away());
    server.restart().await;
    until_shared(&limits, "probe").await;
    let other = self::limits(&server.url(), 4, Unavailable::default());
    assert_eq!(admitted(&other, "shared", 3).await, 3);
    assert_eq!(admitted(&limits, "shared", 3).await, 1);
}

/// throttle_kit_fails_open_for_ever, tower_rate_limit_redis_fails_closed_for_ever
#[tokio::test]
async fn after_kill_and_restart_the_limit_is_shared_again() {
    let mut server = Server::start().await;
    let limits = limits(&server.url(), 1_000, Unavailable::Open);
    assert_eq!(take(&limits, "user", 1).await, Ok(()));
    for _ in 0..2 {
        server.kill();
        until_refused_at_once(&limits, "user").await;
        assert!(limits.is_away());
        server.restart().await;
        until_shared(&limits, "user").await;
        let keys: Vec<String> = server.ask("KEYS", "*").await;
        assert_eq!(keys.len(), 1);
    }
}

#[tokio::test]
async fn what_redis_refused_passes_without_it_if_that_is_the_policy() {
    let mut server = Server::start().await;
    let limits = limits(&server.url(), 1, Unavailable::Open);
    assert_eq!(admitted(&limits, "user", 3).await, 1);
    assert!(matches!(limits.take(&"user".to_owned(), 1), Taken::Now(Err(_))), "the refusal is remembered");
    server.kill();
    until("somebody else finds out", async || {
        let _ = take(&limits, "other", 1).await;
        limits.is_away()
    })
    .await;
    assert_eq!(admitted(&limits, "user", 3).await, 3);
}

/// aisix_1147_fail_open_that_hangs, langfuse_12574
#[tokio::test]
async fn a_server_that_hangs_holds_a_few_calls_for_the_deadline_and_the_rest_not_at_all() {
    let server = Server::start().await;
    let limits = limits(&server.url(), 1_000, Unavailable::Open);
    assert_eq!(take(&limits, "user", 1).await, Ok(()));
    server.signal("STOP");
    let mut worst = Duration::ZERO;
    for _ in 0..3 {
        let began = tokio::time::Instant::now();
        assert_eq!(take(&limits, "user", 1).await, Ok(()));
        worst = worst.max(began.elapsed());
    }
    // The deadline is 200 ms; the rest is for the machine.
    assert!(worst < Duration::from_secs(2), "{worst:?}");
    assert!(matches!(limits.take(&"user".to_owned(), 1), Taken::Now(Ok(()))), "known to be away");
    server.signal("CONT");
    until_shared(&limits, "user").await;
}

/// rate_limit_redis_251_replay_charges_twice
#[tokio::test]
async fn a_call_whose_answer_is_lost_is_paid_at_most_once() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port).await;
    let settings = Settings::sliding_counter(Quota::new(1_000, HOUR));
    let limits =
        RedisLimits::<String>::try_new(&lanes(&proxy.url(), QUICK.lanes(1)), settings, Unavailable::Open).unwrap();
    assert_eq!(take(&limits, "user", 1).await, Ok(()));
    let key = server.ask::<Vec<String>>("KEYS", "*").await.remove(0);
    let paid = async || server.ask::<String>("GET", &key).await.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    assert_eq!(paid().await, 1);
    proxy.set(Fault::DropReplies);
    assert_eq!(take(&limits, "user", 1).await, Ok(()));
    proxy.set(Fault::None);
    assert_eq!(paid().await, 2, "it was paid, and once");
    assert!(limits.is_away());
    until_shared(&limits, "probe").await;
    proxy.set(Fault::Delay);
    let before = paid().await;
    assert_eq!(admitted(&limits, "user", 5).await, 5);
    assert_eq!(paid().await, before + 5);
}

/// rate_limit_redis_251_replay_charges_twice
#[tokio::test]
async fn a_charge_or_refund_whose_answer_is_lost_is_not_sent_again() {
    type Tell = fn(&RedisLimits<String>);
    let ways: [(Tell, u64); 2] = [
        (|limits| limits.charge(&"user".to_owned(), 7), 27),
        (|limits| limits.refund(&"user".to_owned(), 7, Duration::ZERO), 13),
    ];
    for (tell, after) in ways {
        let server = Server::start().await;
        let proxy = Proxy::before(server.port).await;
        let settings = Settings::sliding_counter(Quota::new(1_000, HOUR));
        let limits =
            RedisLimits::<String>::try_new(&lanes(&proxy.url(), QUICK.lanes(1)), settings, Unavailable::Open).unwrap();
        let failed = Arc::new(Mutex::new(0));
        limits.on_event({
            let failed = Arc::clone(&failed);
            move |event| *failed.lock().unwrap() += u32::from(matches!(event.kind, EventKind::StoreFailed { .. }))
        });
        assert_eq!(take(&limits, "user", 20).await, Ok(()));
        let key = server.ask::<Vec<String>>("KEYS", "*").await.remove(0);
        let paid = async || server.ask::<String>("GET", &key).await.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
        proxy.set(Fault::DropReplies);
        tell(&limits);
        until("its answer is lost", async || *failed.lock().unwrap() == 1).await;
        proxy.set(Fault::None);
        assert_eq!(paid().await, after);
        until_shared(&limits, "probe").await;
        assert_eq!(paid().await, after);
    }
}

/// A local limiter that begins an outage full would let every process spend its burst again.
#[tokio::test]
async fn the_local_limiter_is_warm() {
    let mut server = Server::start().await;
    let limits = limits(&server.url(), 100, Unavailable::default());
    assert_eq!(admitted(&limits, "user", 20).await, 20);
    server.kill();
    assert_eq!(admitted(&limits, "user", 100).await, 5);
    assert_eq!(admitted(&limits, "fresh", 100).await, 25);
}

/// twenty_23100_store_errors_counted_as_rate_limited
#[tokio::test]
async fn an_outage_is_told_as_an_outage() {
    let mut server = Server::start().await;
    let limits = limits(&server.url(), 1_000, Unavailable::Open);
    let told = Arc::new(Mutex::new(Vec::new()));
    limits.on_event({
        let told = Arc::clone(&told);
        move |event| {
            told.lock().unwrap().push(match event.kind {
                EventKind::StoreFailed { .. } => "failed",
                EventKind::StoreSwitched { shared: true, .. } => "shared",
                EventKind::StoreSwitched { .. } => "away",
                EventKind::Rejected { .. } => "rejected",
                _ => "other",
            });
        }
    });
    assert_eq!(take(&limits, "user", 1).await, Ok(()));
    assert!(told.lock().unwrap().is_empty());
    server.kill();
    until_refused_at_once(&limits, "user").await;
    server.restart().await;
    until_shared(&limits, "user").await;
    let told = told.lock().unwrap();
    let count = |what| told.iter().filter(|told| **told == what).count();
    assert!(count("failed") >= 1);
    assert_eq!((count("away"), count("shared"), count("rejected"), count("other")), (1, 1, 0, 0), "{told:?}");
}

#[test]
fn a_share_that_is_none_is_refused() {
    let lanes = lanes("redis://localhost", QUICK);
    for share in [0.0, -1.0, 1.1, f64::NAN] {
        let settings = Settings::token_bucket(Quota::per_second(1));
        let refused = RedisLimits::<String>::try_new(&lanes, settings, Unavailable::local(share)).unwrap_err();
        assert_eq!(refused.field(), "share");
    }
}

/// A share has at once less than some calls cost that the quota has room for.
#[tokio::test]
async fn a_call_that_costs_more_than_the_share_has_at_once_passes_as_seldom_as_the_share_says() {
    let url = format!("redis://127.0.0.1:{}/", free_port());
    let limits = limits(&url, 100, Unavailable::default());
    assert_eq!(take(&limits, "user", 60).await, Ok(()));
    let refused = take(&limits, "user", 60).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::RateLimited);
    // What it has cost beyond the share is a debt.
    let wait = refused.retry_after().unwrap();
    assert!(wait <= HOUR * 60 / 25 && wait + LONG > HOUR * 60 / 25, "{wait:?}");
    assert_eq!(take(&limits, "user", 101).await.unwrap_err().reason(), Reason::CostTooHigh);
}

/// A call may end after the outage in which it was decided, and Redis knows nothing of it.
#[tokio::test]
async fn what_was_decided_alone_is_not_given_back_to_redis() {
    let server = Server::start().await;
    let settings = Settings::sliding_counter(Quota::new(1_000, HOUR));
    let limits =
        RedisLimits::<String>::try_new(&lanes(&server.url(), QUICK.lanes(1)), settings, Unavailable::Open).unwrap();
    let (user, shared) = ("user".to_owned(), tokio::time::Instant::now());
    assert_eq!(take(&limits, &user, 20).await, Ok(()));
    let key = server.ask::<Vec<String>>("KEYS", "*").await.remove(0);
    let paid = async || server.ask::<String>("GET", &key).await.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    server.signal("STOP");
    until_refused_at_once(&limits, "other").await;
    let alone = tokio::time::Instant::now();
    assert_eq!(take(&limits, &user, 5).await, Ok(()));
    server.signal("CONT");
    until_shared(&limits, "probe").await;
    limits.refund(&user, 5, alone.elapsed());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(paid().await, 20, "it was not paid there");
    limits.refund(&user, 7, shared.elapsed());
    until("what was paid before is given back", async || paid().await == 13).await;
    let again = tokio::time::Instant::now();
    assert_eq!(take(&limits, &user, 5).await, Ok(()));
    limits.refund(&user, 5, again.elapsed());
    until("what was paid after is given back", async || paid().await == 13).await;
}
