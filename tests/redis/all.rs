//! Limits of each key and of all keys together.

use std::time::Duration;

use buttress::{
    Reason,
    rate_limit::{LimitStore, Quota, RateLimitSettings as Settings, Taken},
    redis::{LeaseSettings, RedisLimitSettings, RedisLimits, Unavailable},
};

use crate::{LONG, PATIENT, QUICK, admitted, lanes, leases::until, server::Server, take};

const HOUR: Duration = Duration::from_secs(3600);
const USER: Settings = Settings::token_bucket(Quota::new(40, HOUR)).name("user");
const ALL: Settings = Settings::sliding_counter(Quota::new(100, HOUR)).name("all");
const BOTH: RedisLimitSettings = RedisLimitSettings::new(USER).and_all(ALL).unavailable(Unavailable::Closed);
const APART: RedisLimitSettings = BOTH.and_all_leased(ALL, LeaseSettings::new(10).life(LONG));

fn process(server: &Server, settings: RedisLimitSettings) -> RedisLimits<String> {
    RedisLimits::try_with(&lanes(&server.url(), PATIENT), settings).unwrap()
}

/// How much of the limit of all is paid in Redis.
async fn paid(server: &Server) -> u64 {
    let counted: Option<String> = server.ask("GET", "buttress:{*}:0:counter:all").await;
    counted.map_or(0, |counted| counted.split(' ').nth(1).unwrap().parse().unwrap())
}

/// What each of four users gets, who ask four processes 60 times in all.
async fn four_users(server: &Server, settings: RedisLimitSettings) -> Vec<usize> {
    let all = (0..4).map(|n| {
        let limits: Vec<_> = (0..4).map(|_| process(server, settings)).collect();
        tokio::spawn(async move {
            let mut passed = 0;
            for call in 0..60 {
                passed += admitted(&limits[call % 4], &format!("user {n}"), 1).await;
            }
            passed
        })
    });
    futures::future::join_all(all).await.into_iter().map(|passed| passed.unwrap()).collect()
}

/// governor_117_several_quotas, envoy_ratelimit_427_not_atomic
#[tokio::test]
async fn four_processes_keep_the_limit_of_each_and_of_all() {
    let server = Server::start().await;
    let passed = four_users(&server, BOTH).await;
    assert_eq!(passed.iter().sum::<usize>(), 100, "{passed:?}");
    assert!(passed.iter().all(|passed| *passed <= 40), "{passed:?}");
    assert_eq!(paid(&server).await, 100);
}

#[tokio::test]
async fn with_leases_all_get_the_quota_but_for_what_is_leased() {
    let server = Server::start().await;
    let passed = four_users(&server, APART).await;
    // Each of the sixteen has at most two batches, of which the last are spent by nobody.
    assert!(passed.iter().sum::<usize>() <= 100 && passed.iter().all(|passed| *passed <= 40), "{passed:?}");
    let server = Server::start().await;
    let limits = process(&server, APART);
    let mut passed = 0;
    for user in ["a", "b", "c", "d"] {
        passed += admitted(&limits, user, 50).await;
    }
    assert_eq!(passed, 100, "what no whole batch is left for is asked for by itself");
}

/// pubkey_573_the_first_limit_pays_although_the_second_refuses
#[tokio::test]
async fn who_is_refused_by_his_own_limit_takes_nothing_of_all() {
    let server = Server::start().await;
    let limits = process(&server, BOTH);
    assert_eq!(admitted(&limits, "greedy", 200).await, 40);
    assert_eq!(paid(&server).await, 40);
    // Nor does one whose refusal is not known yet.
    for _ in 0..10 {
        assert!(take(&process(&server, BOTH), "greedy", 1).await.is_err());
    }
    assert_eq!(paid(&server).await, 40);
    let server = Server::start().await;
    let life = Duration::from_millis(100);
    let settings = BOTH.and_all_leased(ALL, LeaseSettings::new(10).life(life));
    let mut passed = 0;
    for _ in 0..20 {
        passed += admitted(&process(&server, settings), "greedy", 3).await as u64;
    }
    assert!(passed <= 40);
    until("all but what was used has gone back", async || paid(&server).await == passed).await;
}

#[tokio::test]
async fn a_refusal_names_its_limit_and_one_of_all_is_known_for_every_key() {
    let server = Server::start().await;
    for (prefix, settings) in [("both", BOTH), ("apart", APART)] {
        let limits = process(&server, settings.prefix(prefix));
        let mut passed = 0;
        for user in ["a", "b", "c", "d"] {
            passed += admitted(&limits, user, 30).await;
        }
        assert_eq!(passed, 100);
        let refused = take(&limits, "e", 1).await.unwrap_err();
        assert_eq!((refused.policy(), refused.reason()), ("all", Reason::RateLimited));
        assert!(matches!(limits.take(&"never seen".to_owned(), 1), Taken::Now(Err(_))));
        assert_eq!(take(&limits, "a", 41).await.unwrap_err().reason(), Reason::CostTooHigh);
    }
}

#[tokio::test]
async fn a_cost_that_is_charged_or_given_back_counts_for_all_too() {
    let server = Server::start().await;
    for (prefix, settings) in [("both", BOTH), ("apart", APART)] {
        let limits = process(&server, settings.prefix(prefix));
        let key = format!("{prefix}:{{*}}:0:counter:all");
        let paid = async || {
            let counted: Option<String> = server.ask("GET", &key).await;
            counted.map_or(0, |counted| counted.split(' ').nth(1).unwrap().parse::<u64>().unwrap())
        };
        assert_eq!(take(&limits, "a", 5).await, Ok(()));
        let batches = if prefix == "apart" { 10 } else { 0 };
        until("the batch is there", async || paid().await == 5 + batches).await;
        limits.charge(&"a".to_owned(), 3);
        until("it is charged", async || paid().await == 8 + batches).await;
        limits.refund(&"a".to_owned(), 6, Duration::ZERO);
        until("it is given back", async || paid().await == 2 + batches).await;
    }
}

#[tokio::test]
async fn without_redis_a_share_of_both_decides() {
    let mut server = Server::start().await;
    server.kill();
    for settings in [BOTH, APART] {
        let settings = settings.unavailable(Unavailable::local(0.5));
        let limits = RedisLimits::<String>::try_with(&lanes(&server.url(), QUICK), settings).unwrap();
        assert_eq!(admitted(&limits, "a", 30).await, 20);
        assert_eq!(admitted(&limits, "b", 30).await, 20);
        assert_eq!(admitted(&limits, "c", 30).await, 10);
        assert_eq!(take(&limits, "c", 1).await.unwrap_err().policy(), "all");
    }
}

/// A call that goes away before its key is decided gives the units of all back.
#[tokio::test]
async fn a_call_that_is_dropped_midway_leaves_the_lease_whole() {
    let server = Server::start().await;
    let limits = process(&server, APART);
    until("a batch comes", async || {
        let _ = take(&limits, "first", 0).await;
        paid(&server).await == 10
    })
    .await;
    for n in 0..200 {
        let Taken::Later(verdict) = limits.take(&format!("user {n}"), 1) else { panic!("its key must be asked for") };
        drop(verdict);
    }
    assert_eq!(admitted(&limits, "user", 10).await, 10);
    // Two batches, and what may have been asked before the first of them was there.
    assert!(paid(&server).await <= 30);
}

/// It passes without an answer for its key, so nobody else may have its unit of all.
#[tokio::test]
async fn what_a_lease_has_paid_for_a_call_that_redis_does_not_answer_stays_paid() {
    let server = Server::start().await;
    let short = LeaseSettings::new(10).life(Duration::from_secs(1));
    let settings = BOTH.and_all_leased(ALL, short).unavailable(Unavailable::Open);
    let limits = RedisLimits::<String>::try_with(&lanes(&server.url(), QUICK), settings).unwrap();
    let mut calls = 0;
    until("a batch is there, and pays", async || {
        let before = paid(&server).await;
        calls += 1;
        assert_eq!(take(&limits, "first", 1).await, Ok(()));
        before >= 10 && paid(&server).await == before
    })
    .await;
    server.signal("STOP");
    assert_eq!(take(&limits, "a", 1).await, Ok(()));
    server.signal("CONT");
    until("the rest is given back", async || paid(&server).await == calls + 1).await;
}

#[test]
fn what_cannot_work_says_so() {
    let single = lanes("redis://localhost", PATIENT);
    let field = |settings| RedisLimits::<String>::try_with(&single, settings).map(drop).map_err(|error| error.field());
    let log = Settings::sliding_log(Quota::per_second(5));
    assert_eq!(field(RedisLimitSettings::new(USER).and_all(log)), Ok(()));
    assert_eq!(field(RedisLimitSettings::new(USER).and_all_leased(log, LeaseSettings::new(1))), Err("lease"));
    assert_eq!(field(RedisLimitSettings::new(USER).and_all(log).lease(LeaseSettings::new(1))), Err("lease"));
    assert_eq!(field(RedisLimitSettings::new(USER).and_all_leased(ALL, LeaseSettings::new(101))), Err("lease"));
    assert_eq!(
        field(RedisLimitSettings::new(USER).and_all(Settings::token_bucket(Quota::per_second(0)))),
        Err("units")
    );
    let cluster = buttress::redis::Lanes::try_from_cluster_urls(["redis://localhost"], PATIENT).unwrap();
    let field = |settings| RedisLimits::<String>::try_with(&cluster, settings).map(drop).map_err(|error| error.field());
    assert_eq!(field(BOTH), Err("all"));
    assert_eq!(field(APART), Ok(()));
}
