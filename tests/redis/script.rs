//! The script of the limits with a clock that these tests set, on a server that runs it.

use std::time::Duration;

use buttress::{
    rate_limit::{LimitStore, Quota, RateLimitSettings as Settings},
    redis::{
        RedisLimits, Unavailable,
        deadpool_redis::redis::{FromRedisValue, Value},
    },
};

use crate::{PATIENT, lanes, leases::until, server::Server, take};

const CODE: &str = include_str!("../../src/redis/limits.lua");
const SECOND: u64 = 1_000_000;
const HOUR: Duration = Duration::from_secs(3600);

/// One limit under one key: its kind and its five numbers.
struct Limit<'a> {
    server: &'a Server,
    key: &'static str,
    kind: &'static str,
    numbers: [u64; 5],
}

impl Limit<'_> {
    /// Which limit refuses, for how long, what is used and in what time it is back.
    async fn ask(&self, now: u64, what: &str, cost: u64, ago: u64) -> [i64; 4] {
        let code = CODE.replace("redis.call('TIME')", &format!("{{ '{}', '{}' }}", now / SECOND, now % SECOND));
        assert_ne!(code, CODE);
        let whose = (code, 1, self.key, what, cost, ago, self.kind);
        let [a, b, c, d, e] = self.numbers;
        match self.server.ask("EVAL", (whose, a, b, c, d, e)).await {
            Value::Int(used) => [0, 0, used, used],
            list => Vec::<i64>::from_redis_value(list).unwrap().try_into().unwrap(),
        }
    }

    async fn take(&self, now: u64, cost: u64) -> [i64; 4] {
        // Of a bucket the cost is a time.
        let numbers =
            if self.kind == "bucket" { [cost * self.numbers[0], 0, 1, self.numbers[3], 0] } else { self.numbers };
        Limit { numbers, ..*self }.ask(now, "take", cost, 0).await
    }

    async fn charge(&self, now: u64, cost: u64) -> [i64; 4] {
        let numbers =
            if self.kind == "bucket" { [cost * self.numbers[0], 0, 1, self.numbers[3], 0] } else { self.numbers };
        Limit { numbers, ..*self }.ask(now, "charge", cost, 0).await
    }

    /// What a server does to a time to live whose clock is put back.
    async fn clock_goes_back_by(&self, time: u64) {
        let ttl: u64 = self.server.ask("PTTL", self.key).await;
        let _: u8 = self.server.ask("PEXPIRE", (self.key, ttl + time / 1000)).await;
    }
}

/// A unit each second, and ten at once.
fn bucket<'a>(server: &'a Server, key: &'static str) -> Limit<'a> {
    Limit { server, key, kind: "bucket", numbers: [SECOND, 0, 1, 10 * SECOND, 0] }
}

fn window<'a>(server: &'a Server, kind: &'static str, units: u64, period: u64) -> Limit<'a> {
    Limit { server, key: kind, kind, numbers: [units, period, 0, 0, 0] }
}

const NOW: u64 = 1_800_000_000 * SECOND;

/// A replica whose clock is behind becomes the master.
///
/// resilience4j_61_a_clock_that_steps_back
#[tokio::test]
async fn a_clock_that_is_put_back_makes_nobody_wait_for_it() {
    let (server, back) = (Server::start().await, 3600 * SECOND);
    let rows = [
        (bucket(&server, "bucket"), 10 * SECOND),
        (window(&server, "log", 10, 10 * SECOND), 10 * SECOND),
        (window(&server, "counter", 10, 10 * SECOND), 20 * SECOND),
    ];
    for (limit, longest) in rows {
        assert_eq!(limit.take(NOW, 10).await[0], 0, "{}", limit.kind);
        assert_eq!(limit.take(NOW, 1).await[0], 1, "{}", limit.kind);
        limit.clock_goes_back_by(back).await;
        let now = NOW - back;
        let [refuses, wait, ..] = limit.take(now, 1).await;
        assert!(refuses == 0 || wait <= longest as i64, "{} waits for {wait}", limit.kind);
        let [refuses, ..] = limit.take(now + longest, 10).await;
        assert_eq!(refuses, 0, "{}: its time has come", limit.kind);
    }
}

#[tokio::test]
async fn neither_a_debt_nor_a_larger_burst_is_a_clock_that_was_put_back() {
    let server = Server::start().await;
    for (key, parts) in [("whole", 0), ("parts", 1)] {
        let limit = bucket(&server, key);
        assert_eq!(limit.charge(NOW, 100).await[2..], [100 * SECOND as i64; 2]);
        let numbers = [SECOND, 0, 1 + parts, 10 * SECOND, parts];
        let wait = Limit { numbers, ..limit }.ask(NOW + SECOND, "take", 1, 0).await[1];
        assert!((90 * SECOND - 1..=90 * SECOND).contains(&(wait as u64)), "{wait}");
        // The debt is told anew where the clock has been put back, and is no smaller for it.
        bucket(&server, key).clock_goes_back_by(3600 * SECOND).await;
        let wait = bucket(&server, key).take(NOW - 3600 * SECOND, 1).await[1] as u64;
        assert!((50 * SECOND..=92 * SECOND).contains(&wait), "{wait}");
    }
    let limit = bucket(&server, "changed");
    let larger = Limit { numbers: [0, 0, 1, 60 * SECOND, 0], ..bucket(&server, "changed") };
    let numbers = [60 * SECOND, 0, 1, 60 * SECOND, 0];
    assert_eq!(Limit { numbers, ..larger }.ask(NOW, "take", 60, 0).await[0], 0);
    let wait = limit.take(NOW + SECOND, 1).await[1];
    assert_eq!(wait, 50 * SECOND as i64, "what was taken of the larger burst was taken");
    assert_eq!(bucket(&server, "changed").take(NOW + 51 * SECOND, 1).await[0], 0);
}

/// A window of a log never has more than its units, whatever is given back meanwhile: the oldest go first, so that no later call gains by it.
///
/// refund_of_the_newest_unit_of_a_log
#[tokio::test]
async fn what_is_given_back_to_a_log_makes_no_window_fuller_than_it_may_be() {
    let server = Server::start().await;
    let log = window(&server, "log", 10, 10 * SECOND);
    assert_eq!(log.take(NOW, 1).await[0], 0);
    assert_eq!(log.take(NOW + 9 * SECOND, 9).await[0], 0);
    log.ask(NOW + 9 * SECOND, "refund", 1, 9 * SECOND).await;
    assert_eq!(log.take(NOW + 9 * SECOND, 1).await[0], 0);
    // Those ten, and this would be the eleventh.
    let [refuses, wait, ..] = log.take(NOW + 10 * SECOND, 1).await;
    assert_eq!((refuses, wait), (1, 9 * SECOND as i64));
}

/// sockudo_251_member_that_is_there_already
#[tokio::test]
async fn a_unit_of_a_log_never_takes_the_name_of_another() {
    let server = Server::start().await;
    let log = window(&server, "log", 10, 10 * SECOND);
    assert_eq!(log.take(NOW, 3).await[2], 3);
    assert_eq!(log.ask(NOW, "refund", 1, 0).await[2], 2);
    assert_eq!(log.take(NOW, 4).await[2], 6);
    let kept: i64 = server.ask("ZCARD", "log").await;
    assert_eq!(kept, 6);
    assert_eq!(log.take(NOW, 5).await[0], 1);
}

/// perry_6514_a_counter_that_overflows_allows
#[tokio::test]
async fn a_debt_of_any_size_is_a_debt_and_no_answer_that_is_none() {
    let server = Server::start().await;
    for (kind, settings) in [
        ("bucket", Settings::token_bucket(Quota::new(10, HOUR))),
        ("log", Settings::sliding_log(Quota::new(10, HOUR))),
        ("counter", Settings::sliding_counter(Quota::new(10, HOUR))),
    ] {
        let settings = settings.name(kind);
        let limits =
            || RedisLimits::<String>::try_new(&lanes(&server.url(), PATIENT), settings, Unavailable::Open).unwrap();
        let charging = limits();
        for _ in 0..3 {
            charging.charge(&"user".to_owned(), u64::MAX);
        }
        until("the debt is known", async || take(&limits(), "user", 10).await.is_err()).await;
        for _ in 0..3 {
            let limits = limits();
            assert!(take(&limits, "user", 1).await.is_err(), "{kind}");
            assert!(!limits.is_away(), "{kind}");
        }
    }
    let counter = window(&server, "counter", 10, SECOND);
    for _ in 0..2 {
        assert_eq!(counter.charge(NOW, u64::MAX).await[2], 1 << 52);
    }
    let digits = "9".repeat(400);
    for (limit, planted) in [
        (bucket(&server, "bucket"), digits.clone()),
        (bucket(&server, "bucket"), format!("{digits} {digits}")),
        (window(&server, "counter", 10, SECOND), format!("{digits} {digits} {digits}")),
        (window(&server, "counter", 10, SECOND), format!("0 {digits} 0")),
        (window(&server, "counter", 10, SECOND), format!("{NOW} 0 {digits}")),
    ] {
        for ttl in [None, Some(60_000)] {
            let _: String = server.ask("SET", (limit.key, &planted)).await;
            if let Some(ttl) = ttl {
                let _: u8 = server.ask("PEXPIRE", (limit.key, ttl)).await;
            }
            for at in [NOW, NOW + 1] {
                let answer = limit.take(at, 1).await;
                assert!(answer.iter().all(|number| *number >= 0), "{planted:.20} {answer:?}");
            }
            let ttl: i64 = server.ask("PTTL", limit.key).await;
            assert!(ttl > 0, "{planted:.20}");
            assert_eq!(limit.take(NOW + 10 * 60 * SECOND, 1).await[0], 0, "{planted:.20} is over some time");
        }
    }
}

/// The clock of who asked began before the script did, so a window may be younger than its first unit is said to be.
#[tokio::test]
async fn what_is_given_back_was_counted_in_the_window_before_only_if_that_counted_it() {
    let server = Server::start().await;
    let counter = window(&server, "counter", 10, 10 * SECOND);
    assert_eq!(counter.take(NOW, 4).await[2], 4);
    assert_eq!(counter.ask(NOW + SECOND, "refund", 1, SECOND + 7).await[2], 3);
    // In the next window it is taken off the one before, as far as that goes.
    assert_eq!(counter.take(NOW + 10 * SECOND, 2).await[2], 5);
    assert_eq!(counter.ask(NOW + 10 * SECOND, "refund", 1, 5 * SECOND).await[2], 4);
    assert_eq!(counter.take(NOW + 15 * SECOND, 0).await[2], 3, "half of the two that are left there, and two");
    assert_eq!(counter.ask(NOW + 15 * SECOND, "refund", 3, 6 * SECOND).await[2], 1);
    assert_eq!(counter.ask(NOW + 15 * SECOND, "refund", 1, 10 * SECOND).await[2], 1, "that is too long ago");
}
