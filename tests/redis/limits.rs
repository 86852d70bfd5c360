use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::{
    Reason,
    rate_limit::{KeyedRateLimitLayer, LimitStore, Paid, Quota, RateLimitSettings as Settings},
    redis::{RedisLimits, Unavailable},
};
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    LONG, PATIENT, QUICK, admitted, lanes,
    leases::until,
    server::{Server, free_port},
    take,
};

const SECOND: Duration = Duration::from_secs(1);
/// No unit comes back while a test runs.
const HOUR: Duration = Duration::from_secs(3600);
const KINDS: [(&str, fn(Quota) -> Settings); 3] =
    [("bucket", Settings::token_bucket), ("log", Settings::sliding_log), ("counter", Settings::sliding_counter)];

/// Limits of a process of its own.
fn process(server: &Server, settings: Settings) -> RedisLimits<String> {
    RedisLimits::try_new(&lanes(&server.url(), PATIENT), settings, Unavailable::Closed).unwrap()
}

async fn keys(server: &Server) -> Vec<String> {
    server.ask("KEYS", "*").await
}

/// limitador_stacked_limits_race, redis_ratelimiting_js_2, rolling_rate_limiter_11_same_microsecond
#[tokio::test]
async fn four_processes_admit_exactly_the_quota() {
    let server = Server::start().await;
    for (kind, algorithm) in KINDS {
        let settings = algorithm(Quota::new(100, HOUR)).name(kind);
        let all = (0..4).map(|_| {
            let limits = process(&server, settings);
            let calls = (0..250).map(move |_| {
                let limits = limits.clone();
                async move { take(&limits, "user", 1).await.is_ok() }
            });
            tokio::spawn(futures::future::join_all(calls))
        });
        let passed: usize = futures::future::join_all(all)
            .await
            .into_iter()
            .map(|passed| passed.unwrap().into_iter().filter(|passed| *passed).count())
            .sum();
        assert_eq!(passed, 100, "{kind}");
    }
    for key in keys(&server).await {
        let left: i64 = server.ask("PTTL", &key).await;
        assert!(left > 0 && left <= 2 * 3_600_001 + 1, "{key} {left}");
        if key.contains(":log:") {
            let count: u64 = server.ask("ZCARD", &key).await;
            assert_eq!(count, 100, "what is refused is not recorded");
            let bytes: u64 = server.ask("MEMORY", ("USAGE", &key)).await;
            assert!(bytes < 200 * 100, "{bytes}");
        }
    }
}

/// redis_tutorial_zadd_before_zcard, redis_ratelimiting_js_2_refusals_are_recorded
#[tokio::test]
async fn ten_times_the_load_gets_the_quota_in_every_window() {
    let (server, window) = (Server::start().await, Duration::from_secs(1));
    let in_windows = async |kind: usize| {
        let (kind, algorithm) = KINDS[kind];
        let limits = process(&server, algorithm(Quota::new(20, window)).name(kind));
        let (began, mut passed) = (tokio::time::Instant::now(), [0_u32; 3]);
        let mut next = began;
        while began.elapsed() < 3 * window {
            if take(&limits, "user", 1).await.is_ok()
                && let Some(passed) = passed.get_mut((began.elapsed().as_micros() / window.as_micros()) as usize)
            {
                *passed += 1;
            }
            next += window / 200;
            tokio::time::sleep_until(next).await;
        }
        passed
    };
    let (bucket, log, counter) = tokio::join!(in_windows(0), in_windows(1), in_windows(2));
    assert_eq!(log, [20; 3]);
    // What is left of the window before is counted in whole units, so of a later one the last unit may be missing.
    assert!(counter[0] == 20 && counter[1..].iter().all(|passed| (19..=20).contains(passed)), "{counter:?}");
    // A rested bucket has its burst once. A unit that comes back on the edge may come in the next.
    assert!(
        (39..=40).contains(&bucket[0]) && bucket[1..].iter().all(|passed| (19..=21).contains(passed)),
        "{bucket:?}"
    );
    let all: u32 = bucket.iter().sum();
    assert!((79..=80).contains(&all), "{bucket:?}");
}

#[tokio::test]
async fn a_refusal_says_when_to_come_back_and_then_there_is_one() {
    let server = Server::start().await;
    for (kind, algorithm) in KINDS {
        let limits = process(&server, algorithm(Quota::new(3, Duration::from_secs(1))).name(kind));
        assert_eq!(admitted(&limits, "user", 3).await, 3, "{kind}");
        let refused = take(&limits, "user", 1).await.unwrap_err();
        assert_eq!((refused.policy(), refused.reason()), (kind, Reason::RateLimited));
        let wait = refused.retry_after().unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(2), "{kind} {wait:?}");
        tokio::time::sleep(wait + Duration::from_millis(2)).await;
        assert_eq!(take(&limits, "user", 1).await, Ok(()), "{kind}");
        assert_eq!(admitted(&limits, "other", 1).await, 1, "{kind}");
    }
}

/// tabcorp_1_key_without_ttl_locks_out, ask_o11y_217
#[tokio::test]
async fn a_key_without_a_time_to_live_gets_one_and_foreign_bytes_count_as_nothing() {
    let server = Server::start().await;
    for (kind, algorithm) in KINDS {
        // Each time a process that remembers no refusal.
        let limits = || process(&server, algorithm(Quota::new(1, Duration::from_secs(60))).name(kind));
        assert_eq!(take(&limits(), "user", 1).await, Ok(()));
        let key = keys(&server).await.into_iter().find(|key| key.contains(&format!(":{kind}:"))).unwrap();
        let _: i64 = server.ask("PERSIST", &key).await;
        assert!(take(&limits(), "user", 1).await.is_err());
        let left: i64 = server.ask("PTTL", &key).await;
        assert!(left > 0, "{kind}");
        for planted in ["\u{0}garbage", "-5", "1e400", ""] {
            let _: String = server.ask("SET", (&key, planted)).await;
            assert_eq!(take(&limits(), "user", 1).await, Ok(()), "{kind} {planted}");
            assert!(take(&limits(), "user", 1).await.is_err(), "{kind} {planted}");
        }
        let _: i64 = server.ask("DEL", &key).await;
        let _: i64 = server.ask("SADD", (&key, "a")).await;
        assert_eq!(take(&limits(), "user", 1).await, Ok(()), "{kind} over a set");
        let left: i64 = server.ask("PTTL", &key).await;
        assert!(left > 0, "{kind}");
    }
    let limits = || process(&server, Settings::token_bucket(Quota::new(1, Duration::from_secs(1))).name("far"));
    assert_eq!(take(&limits(), "user", 1).await, Ok(()));
    let key = keys(&server).await.into_iter().find(|key| key.contains(":far")).unwrap();
    let _: String = server.ask("SET", (&key, "4000000000000000")).await;
    let wait = take(&limits(), "user", 1).await.unwrap_err().retry_after().unwrap();
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
}

/// praxis_first_limit_is_charged_when_the_second_refuses
#[tokio::test]
async fn several_limits_take_all_or_nothing() {
    let server = Server::start().await;
    let settings = Settings::token_bucket(Quota::new(10, HOUR))
        .name("ten")
        .and(Settings::sliding_log(Quota::new(3, HOUR)).name("three"))
        .and(Settings::sliding_counter(Quota::new(5, HOUR)).name("five"));
    let limits = process(&server, settings);
    assert_eq!(admitted(&limits, "user", 10).await, 3);
    assert_eq!(take(&limits, "user", 1).await.unwrap_err().policy(), "three");
    assert_eq!(take(&limits, "user", 4).await.unwrap_err().reason(), Reason::CostTooHigh);
    // Refusals have taken nothing of the others.
    let key = keys(&server).await.into_iter().find(|key| key.contains(":counter:")).unwrap();
    let counted: String = server.ask("GET", &key).await;
    assert_eq!(counted.split(' ').nth(1), Some("3"), "{counted}");
}

#[tokio::test]
async fn a_cost_takes_so_many_units_and_what_is_charged_or_given_back_counts() {
    let server = Server::start().await;
    for (kind, algorithm) in KINDS {
        let limits = process(&server, algorithm(Quota::new(10, HOUR)).name(kind));
        let user = "user".to_owned();
        assert_eq!(take(&limits, "user", 7).await, Ok(()));
        assert!(take(&limits, "user", 4).await.is_err(), "{kind}");
        limits.refund(&user, 3, Duration::ZERO);
        settled(&limits, &server).await;
        assert_eq!(take(&limits, "user", 4).await, Ok(()), "{kind}");
        limits.charge(&user, 2);
        settled(&limits, &server).await;
        assert!(take(&limits, "user", 1).await.is_err(), "{kind}");
    }
}

/// Until what was told has arrived: on the same lanes, or not at all.
async fn settled(_: &RedisLimits<String>, server: &Server) {
    let began = tokio::time::Instant::now();
    let calls = async || {
        let stats: String = server.ask("INFO", "commandstats").await;
        let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha")).unwrap_or_default().to_owned();
        line.split(['=', ',']).nth(1).unwrap_or("0").parse::<u64>().unwrap()
    };
    let before = calls().await;
    while calls().await == before && began.elapsed() < Duration::from_millis(100) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// pyrate_limiter_182_noscript, upstash_122
#[tokio::test]
async fn a_flush_of_scripts_is_seen_by_nobody() {
    let server = Server::start().await;
    let limits = process(&server, Settings::token_bucket(Quota::new(100, HOUR)));
    for _ in 0..3 {
        assert_eq!(admitted(&limits, "user", 10).await, 10);
        let _: String = server.ask("SCRIPT", "FLUSH").await;
    }
    assert!(!limits.is_away());
}

/// throttle_kit_fast_quotas_are_unlimited
#[tokio::test]
async fn a_rate_that_no_microsecond_holds_is_exact() {
    let server = Server::start().await;
    let limits = process(&server, Settings::token_bucket(Quota::per_second(3_000_000).burst(30)));
    assert_eq!(take(&limits, "user", 30).await, Ok(()));
    tokio::time::timeout(LONG, async { while take(&limits, "user", 30).await.is_err() {} }).await.unwrap();
    let slow = process(&server, Settings::token_bucket(Quota::new(3, HOUR)).name("slow"));
    assert_eq!(admitted(&slow, "user", 10).await, 3);
}

/// spring_cloud_gateway_2412_client_clock, go_zero_4072
#[test]
fn two_processes_whose_clocks_are_ten_seconds_apart_share_a_limit() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let own = runtime();
    let server = own.block_on(Server::start());
    for (kind, algorithm) in KINDS {
        let settings = algorithm(Quota::new(100, HOUR)).name(kind);
        let passed: usize = std::thread::scope(|scope| {
            let processes = [Duration::ZERO, Duration::from_secs(10)].map(|ahead| {
                let server = &server;
                scope.spawn(move || {
                    runtime().block_on(async {
                        let limits = process(server, settings);
                        tokio::time::pause();
                        tokio::time::advance(ahead).await;
                        tokio::time::resume();
                        admitted(&limits, "user", 100).await
                    })
                })
            });
            processes.into_iter().map(|process| process.join().unwrap()).sum()
        });
        assert_eq!(passed, 100, "{kind}");
        // Nor does the clock say when to come back.
        let wait = own.block_on(async { take(&process(&server, settings), "user", 1).await }).unwrap_err();
        assert!(wait.retry_after().unwrap() <= 2 * HOUR, "{kind}");
    }
}

const FIVE: Settings = Settings::token_bucket(Quota::new(5, HOUR));

/// What the layer has for headers.
#[tokio::test]
async fn what_redis_said_of_a_key_is_known_afterwards() {
    let server = Server::start().await;
    for (kind, algorithm) in KINDS {
        let limits = process(&server, algorithm(Quota::new(10, HOUR)).name(kind));
        let user = "user".to_owned();
        assert!(limits.decisions(&user).is_none());
        assert_eq!(take(&limits, "user", 4).await, Ok(()));
        let said = limits.decisions(&user).unwrap()[0];
        assert_eq!((said.policy, said.limit, said.period, said.remaining, said.allowed), (kind, 10, HOUR, 6, true));
        let back = match kind {
            "bucket" => HOUR * 4 / 10,
            "log" => HOUR,
            _ => 2 * HOUR,
        };
        assert!(said.reset_after <= back && said.reset_after + LONG > back, "{kind} {:?}", said.reset_after);
        assert!(take(&limits, "user", 7).await.is_err());
        assert_eq!(limits.decisions(&user).unwrap()[0].remaining, 6, "{kind}: a refusal takes nothing");
        let other = process(&server, algorithm(Quota::new(10, HOUR)).name(kind));
        assert_eq!(take(&other, "user", 6).await, Ok(()));
        assert_eq!(other.decisions(&user).unwrap()[0].remaining, 0);
    }
}

/// A unit that was taken in another window is nobody's in this one.
#[tokio::test]
async fn what_is_given_back_too_late_is_not_there_any_more() {
    let server = Server::start().await;
    let window = Duration::from_millis(300);
    for (kind, algorithm) in [KINDS[1], KINDS[2]] {
        let limits = process(&server, algorithm(Quota::new(2, window)).name(kind));
        let user = "user".to_owned();
        until("the quota is spent", async || take(&limits, "user", 2).await.is_ok()).await;
        limits.refund(&user, 2, window);
        settled(&limits, &server).await;
        let refused = take(&limits, "user", 2).await;
        assert!(refused.is_err(), "{kind}");
    }
}

/// What others took later still counts for as long as it would have.
#[tokio::test]
async fn what_is_given_back_late_is_not_what_others_took_since() {
    let server = Server::start().await;
    let limits = process(&server, Settings::sliding_log(Quota::new(10, 2 * SECOND)).name("log"));
    assert_eq!(take(&limits, "user", 5).await, Ok(()));
    tokio::time::sleep(SECOND).await;
    assert_eq!(take(&limits, "user", 5).await, Ok(()));
    limits.refund(&"user".to_owned(), 5, SECOND);
    settled(&limits, &server).await;
    // What was given back has left the window, and what was not has not.
    tokio::time::sleep(SECOND + SECOND / 10).await;
    assert_eq!(admitted(&limits, "user", 10).await, 5);
}

/// Keys come from requests, and what they are called is kept for as long as they count.
#[tokio::test]
async fn a_key_as_long_as_a_stranger_likes_is_short_in_redis_and_a_key_of_its_own() {
    let server = Server::start().await;
    let limits = process(&server, FIVE);
    let (one, other) = ("k".repeat(1_000_000), "k".repeat(1_000_001));
    assert_eq!(admitted(&limits, &one, 7).await, 5);
    assert_eq!(admitted(&limits, &other, 7).await, 5);
    let keys = keys(&server).await;
    assert!(keys.len() == 2 && keys.iter().all(|key| key.len() < 120), "{keys:?}");
}

/// The script has a short way for one bucket; a second limit that never refuses makes it go the long one.
#[tokio::test]
async fn a_bucket_by_itself_counts_as_one_of_several_does() {
    let server = Server::start().await;
    let bucket = Settings::token_bucket(Quota::new(1_000, Duration::from_secs(1_000)).burst(20));
    let short = process(&server, bucket.name("short"));
    let long = process(&server, bucket.name("long").and(Settings::sliding_counter(Quota::new(1_000, HOUR))));
    for cost in [1, 5, 0, 7, 8, 3, 20, 1, 3, 1, 1] {
        let (one, other) = (take(&short, "user", cost).await, take(&long, "user", cost).await);
        assert_eq!(one.is_ok(), other.is_ok(), "{cost}");
        let left = |limits: &RedisLimits<String>| limits.decisions(&"user".to_owned()).unwrap()[0].remaining;
        assert!(left(&short).abs_diff(left(&long)) <= 1, "{cost}");
    }
    let key = async |name: &str| keys(&server).await.into_iter().find(|key| key.ends_with(name)).unwrap();
    for name in ["short", "long"] {
        let key = key(name).await;
        let until_full: i64 = server.ask("PTTL", &key).await;
        // It lives by an eighth longer than it counts, which says when it was written.
        assert!((20_000..=22_503).contains(&until_full), "{name} {until_full}");
    }
}

/// What is charged is as large as somebody says.
#[tokio::test]
async fn a_charge_of_any_size_is_a_debt_and_a_key_that_is_in_debt_is_refused() {
    let server = Server::start().await;
    for (kind, algorithm) in KINDS {
        for (name, units) in [("max", u64::MAX), ("many", 1 << 53), ("most", i64::MAX as u64)] {
            let limits = process(&server, algorithm(Quota::new(10, HOUR)).name(kind));
            assert_eq!(take(&limits, name, 1).await, Ok(()));
            for _ in 0..2 {
                limits.charge(&name.to_owned(), units);
                settled(&limits, &server).await;
            }
            let other = process(&server, algorithm(Quota::new(10, HOUR)).name(kind));
            let rejected = take(&other, name, 1).await.unwrap_err();
            assert_eq!(rejected.reason(), Reason::RateLimited, "{kind} {name}");
            // It is forgiven.
            for _ in 0..3 {
                other.refund(&name.to_owned(), units, Duration::ZERO);
                settled(&other, &server).await;
            }
            assert_eq!(take(&other, name, 1).await, Ok(()), "{kind} {name}");
        }
    }
}

#[tokio::test]
async fn however_small_the_share_is_it_is_a_limit() {
    // Nobody is there.
    let lanes = lanes(&format!("redis://127.0.0.1:{}/", free_port()), QUICK);
    for share in [f64::MIN_POSITIVE, 1e-20, 1e-9, 0.01] {
        for quota in [Quota::new(1, HOUR), Quota::per_second(1).burst(10), Quota::per_second(50)] {
            let settings = Settings::token_bucket(quota).name("small");
            let limits = RedisLimits::try_new(&lanes, settings, Unavailable::local(share)).unwrap();
            let passed = admitted(&limits, "user", 5).await;
            assert_eq!(passed, 1, "{share} of {quota:?}");
        }
    }
}

/// It is there, but what it answers decides on nothing.
#[tokio::test]
async fn a_redis_that_refuses_to_decide_is_away() {
    let server = Server::start().await;
    let limits = process(&server, Settings::token_bucket(Quota::new(10, HOUR)).name("refused"));
    assert_eq!((take(&limits, "user", 1).await, limits.is_away()), (Ok(()), false));
    server.ask::<()>("ACL", ("SETUSER", "default", "-evalsha")).await;
    let rejected = take(&limits, "user", 1).await.unwrap_err();
    assert_eq!((rejected.reason(), limits.is_away()), (Reason::LimitUnknown, true));
    server.ask::<()>("ACL", ("SETUSER", "default", "+evalsha")).await;
    assert_eq!((take(&limits, "user", 1).await, limits.is_away()), (Ok(()), false));
}

/// With a time to live, so that it might be a debt.
#[tokio::test]
async fn digits_of_any_length_under_a_key_are_a_number() {
    let server = Server::start().await;
    let digits = "9".repeat(400);
    for (kind, planted) in [("bucket", digits.clone()), ("counter", format!("1 {digits} {digits}"))] {
        let algorithm = KINDS.iter().find(|(name, _)| *name == kind).unwrap().1;
        let limits = process(&server, algorithm(Quota::new(10, HOUR)).name(kind));
        assert_eq!(take(&limits, "user", 1).await, Ok(()));
        let key = keys(&server).await.into_iter().find(|key| key.contains(kind)).unwrap();
        server.ask::<()>("SET", (&key, planted, "PX", 1_000_000)).await;
        let verdict = take(&limits, "user", 1).await.map_err(|rejected| rejected.reason());
        assert_ne!(verdict, Err(Reason::LimitUnknown), "{kind}");
        assert!(!limits.is_away(), "{kind}");
    }
}

/// A call that passes only in shadow mode has paid nothing, so it has nothing to give back.
#[tokio::test]
async fn what_was_not_paid_in_shadow_mode_is_not_given_back() {
    let server = Server::start().await;
    let settings = Settings::sliding_counter(Quota::new(2, HOUR)).shadow();
    assert_eq!(admitted(&process(&server, settings), "user", 2).await, 2);
    let costs = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&costs);
    let after = move |_: &mut Result<(), buttress::BoxError>, paid: &Paid<'_>| {
        seen.lock().unwrap().push(paid.cost());
        paid.refund(1);
    };
    // The first asks, and the others know.
    let layer = KeyedRateLimitLayer::over(process(&server, settings), |user: &String| user.clone()).after(after);
    let service = layer.layer(service_fn(async |_: String| Ok::<_, buttress::BoxError>(())));
    for key in ["user", "user", "user", "other"] {
        service.clone().oneshot(key.to_owned()).await.unwrap();
    }
    assert_eq!(*costs.lock().unwrap(), [0, 0, 0, 1]);
}
