use std::time::Duration;

use buttress::{
    rate_limit::{LimitStore, Quota, RateLimitSettings as Settings, Taken},
    redis::{LeaseSettings, RedisLimitSettings, RedisLimits, Unavailable},
};

use crate::{LONG, PATIENT, admitted, lanes, server::Server, take};

const HOUR: Duration = Duration::from_secs(3600);

fn leased(server: &Server, settings: Settings, lease: LeaseSettings) -> RedisLimits<String> {
    let settings = RedisLimitSettings::new(settings).lease(lease).unavailable(Unavailable::Closed);
    RedisLimits::try_with(&lanes(&server.url(), PATIENT), settings).unwrap()
}

pub(crate) async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let began = tokio::time::Instant::now();
    while !is().await {
        assert!(began.elapsed() < LONG, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// wso2_203_leases_that_overshoot
#[tokio::test]
async fn four_processes_with_leases_admit_the_quota_and_no_more() {
    let server = Server::start().await;
    for settings in
        [Settings::token_bucket(Quota::new(1_000, HOUR)), Settings::sliding_counter(Quota::new(1_000, HOUR))]
    {
        let all = (0..4).map(|_| {
            let limits = leased(&server, settings, LeaseSettings::new(20).life(LONG));
            tokio::spawn(async move { admitted(&limits, "all", 400).await })
        });
        let passed: usize = futures::future::join_all(all).await.into_iter().map(|passed| passed.unwrap()).sum();
        // At most two batches of each are out.
        assert!((1_000 - 4 * 2 * 20..=1_000).contains(&passed), "{passed}");
    }
}

#[tokio::test]
async fn most_calls_of_a_busy_key_ask_nobody() {
    let server = Server::start().await;
    let settings = Settings::token_bucket(Quota::new(100_000, HOUR));
    let limits = leased(&server, settings, LeaseSettings::new(1_000).life(LONG));
    let key = "all".to_owned();
    until("a lease comes", async || matches!(limits.take(&key, 1), Taken::Now(Ok(())))).await;
    let mut at_once = 0;
    for n in 0..10_000 {
        match limits.take(&key, 1) {
            Taken::Now(verdict) => {
                verdict.unwrap();
                at_once += 1;
            }
            Taken::Unpaid => panic!("nothing is in shadow"),
            Taken::Later(verdict) => assert!(matches!(verdict.await, Taken::Now(Ok(())))),
        }
        if n % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert!(at_once > 9_000, "{at_once}");
}

#[tokio::test]
async fn what_is_left_of_a_lease_goes_back() {
    let server = Server::start().await;
    let settings = Settings::sliding_counter(Quota::new(100, HOUR));
    let limits = leased(&server, settings, LeaseSettings::new(50).life(Duration::from_millis(100)));
    assert_eq!(take(&limits, "all", 1).await, Ok(()));
    let paid = async || {
        let key = server.ask::<Vec<String>>("KEYS", "*").await.remove(0);
        server.ask::<String>("GET", &key).await.split(' ').nth(1).unwrap().parse::<u64>().unwrap()
    };
    until("the lease is paid", async || paid().await == 51).await;
    drop(limits);
    until("the lease is given back", async || paid().await == 1).await;
}

#[tokio::test]
async fn what_was_refused_is_not_asked_again_before_its_time() {
    let server = Server::start().await;
    let settings = Settings::token_bucket(Quota::new(2, Duration::from_millis(600)));
    let limits = RedisLimits::<String>::try_new(&lanes(&server.url(), PATIENT), settings, Unavailable::Closed).unwrap();
    assert_eq!(take(&limits, "user", 1).await, Ok(()));
    let wait = take(&limits, "user", 2).await.unwrap_err().retry_after().unwrap();
    let key = "user".to_owned();
    assert!(matches!(limits.take(&key, 2), Taken::Now(Err(_))), "known");
    assert!(matches!(limits.take(&key, 1), Taken::Later(_)), "a lesser cost may pass");
    tokio::time::sleep(wait).await;
    assert!(matches!(limits.take(&key, 2), Taken::Later(_)), "its time has come");
    assert_eq!(take(&limits, "user", 2).await, Ok(()));
}

#[test]
fn leases_that_cannot_work_say_so() {
    let lanes = lanes("redis://localhost", PATIENT);
    let field = |settings, lease| {
        let settings = RedisLimitSettings::new(settings).lease(lease);
        RedisLimits::<String>::try_with(&lanes, settings).unwrap_err().to_string()
    };
    let ten = Quota::per_second(10);
    assert!(field(Settings::sliding_log(ten), LeaseSettings::new(1)).contains("log"));
    assert!(field(Settings::token_bucket(ten), LeaseSettings::new(0)).contains("lease"));
    assert!(field(Settings::token_bucket(ten), LeaseSettings::new(11)).contains("lease"));
    assert!(field(Settings::token_bucket(ten), LeaseSettings::new(1).life(Duration::ZERO)).contains("life"));
}

/// A limit outlives the runtime that was the first to use it.
#[test]
fn a_batch_whose_fetching_was_shut_down_is_fetched_anew() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key = "all".to_owned();
    let (_server, limits) = runtime().block_on(async {
        let server = Server::start().await;
        let settings = Settings::token_bucket(Quota::new(1_000, HOUR));
        let limits = leased(&server, settings, LeaseSettings::new(100).life(LONG));
        // It begins to fetch, and gets no further.
        assert!(matches!(limits.take(&key, 1), Taken::Later(_)));
        (server, limits)
    });
    runtime().block_on(until("a lease comes", async || matches!(limits.take(&key, 1), Taken::Now(Ok(())))));
}

/// What is given back travels for a while, and who asks meanwhile is refused for the last time.
///
/// redis_rate_deny_cache_that_outlives_what_it_knows
#[tokio::test]
async fn a_refusal_is_forgotten_once_something_has_come_back() {
    let server = Server::start().await;
    let settings = Settings::sliding_counter(Quota::new(1, HOUR));
    let limits =
        RedisLimits::<String>::try_new(&lanes(&server.url(), PATIENT.lanes(1)), settings, Unavailable::Closed).unwrap();
    for _ in 0..20 {
        assert_eq!(take(&limits, "user", 1).await, Ok(()));
        limits.refund(&"user".to_owned(), 1, Duration::ZERO);
        // The task that gives it back has not run yet.
        assert!(take(&limits, "user", 1).await.is_err());
        until("it is there again", async || take(&limits, "user", 1).await.is_ok()).await;
        limits.refund(&"user".to_owned(), 1, Duration::ZERO);
        let key = server.ask::<Vec<String>>("KEYS", "*").await.remove(0);
        let paid = async || server.ask::<String>("GET", &key).await.split(' ').nth(1).map(str::to_owned);
        until("it has come back", async || paid().await.as_deref() == Some("0")).await;
    }
}

/// The promise of [`LeaseSettings`]: it is missing to the others for the life of a lease.
#[tokio::test]
async fn what_one_process_has_leased_and_not_used_is_there_for_another_after_the_life_of_the_lease() {
    let server = Server::start().await;
    for (kind, settings) in [
        ("counter", Settings::sliding_counter(Quota::new(100, HOUR))),
        ("bucket", Settings::token_bucket(Quota::new(100, 1_000 * HOUR))),
    ] {
        let settings = settings.name(kind);
        let lease = LeaseSettings::new(60).life(Duration::from_millis(300));
        let (one, other) = (leased(&server, settings, lease), leased(&server, settings, lease));
        assert_eq!(take(&one, "all", 1).await, Ok(()));
        until("all is paid", async || take(&other, "all", 5).await.is_err()).await;
        drop(one);
        until("it has come back", async || take(&other, "all", 5).await.is_ok()).await;
    }
}
