//! The rate limiter, on paused time.

#![cfg(feature = "full")]

#[path = "../support/mod.rs"]
mod support;

mod handle;
mod keyed;
mod settle;
mod several;
mod waiting;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use buttress::{
    AsRejected, EventKind, Reason,
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings},
    rate_limit::{Quota, RateLimitHandle, RateLimitLayer, RateLimitSettings as Settings},
};
use support::{AppError, Probe, Ready};
use tokio::time::{Instant, advance};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);
const NS: Duration = Duration::from_nanos(1);

const ALGORITHMS: [fn(Quota) -> Settings; 3] =
    [Settings::token_bucket, Settings::sliding_log, Settings::sliding_counter];

/// How often a unit can be taken now.
fn admitted(limiter: &RateLimitHandle) -> usize {
    (0..10_000).take_while(|_| limiter.check(1).allowed).count()
}

/// tower_governor_retry_after_is_zero, ratelimit_meter_36_wrong_wait
#[tokio::test(start_paused = true)]
async fn a_refusal_says_exactly_when_to_come_back() {
    for algorithm in ALGORITHMS {
        let limiter = RateLimitHandle::try_new(algorithm(Quota::per_second(4))).unwrap();
        assert_eq!(admitted(&limiter), 4);
        for _ in 0..5 {
            let wait = limiter.try_acquire(1).unwrap_err().retry_after().unwrap();
            assert_eq!(limiter.check(1).retry_after, Some(wait));
            advance(wait - NS).await;
            assert!(!limiter.check(1).allowed, "{limiter:?}");
            advance(NS).await;
            assert!(limiter.check(1).allowed, "{limiter:?}");
            while limiter.check(1).allowed {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_decision_tells_what_is_left() {
    for algorithm in ALGORITHMS {
        let limiter = RateLimitHandle::try_new(algorithm(Quota::per_minute(60))).unwrap();
        let decision = limiter.check(20);
        assert_eq!((decision.allowed, decision.limit, decision.remaining), (true, 60, 40));
        assert!(decision.reset_after >= 20 * SECOND && decision.retry_after.is_none());
        assert_eq!(limiter.peek().remaining, 40);
        advance(decision.reset_after).await;
        assert_eq!((limiter.peek().remaining, limiter.peek().reset_after), (60, Duration::ZERO));
    }
}

/// polars_27924_more_than_there_ever_is_waits_for_ever
#[tokio::test(start_paused = true)]
async fn a_cost_above_the_limit_is_refused_with_its_own_reason() {
    for algorithm in ALGORITHMS {
        let limiter = RateLimitHandle::try_new(algorithm(Quota::per_second(5))).unwrap();
        let rejected = limiter.try_acquire(6).unwrap_err();
        assert_eq!((rejected.reason(), rejected.retry_after()), (Reason::CostTooHigh, None));
        assert!(limiter.try_acquire(u64::MAX).is_err());
        assert!(limiter.try_acquire(5).is_ok());
        assert!(limiter.try_acquire(0).is_ok());
    }
}

/// tower_842, by the table of the chapter: what passes in a stretch of one period.
#[tokio::test(start_paused = true)]
async fn each_algorithm_keeps_its_bound_at_the_edge_of_a_window() {
    let worst = |algorithm: fn(Quota) -> Settings| async move {
        let limiter = RateLimitHandle::try_new(algorithm(Quota::per_second(10))).unwrap();
        let mut passed: Vec<(Instant, usize)> = Vec::new();
        advance(990 * SECOND / 1000).await;
        for _ in 0..2_000 {
            passed.push((Instant::now(), admitted(&limiter)));
            advance(SECOND / 500).await;
        }
        let in_a_period = |from: Instant| -> usize {
            passed.iter().filter(|(at, _)| *at >= from && *at < from + SECOND).map(|(_, n)| n).sum()
        };
        passed.iter().map(|(at, _)| in_a_period(*at)).max().unwrap()
    };
    assert_eq!(worst(Settings::sliding_log).await, 10);
    assert!((10..20).contains(&worst(Settings::sliding_counter).await));
    assert!((19..=20).contains(&worst(Settings::token_bucket).await));
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_what_comes_together_in_a_rest() {
    let limiter = RateLimitHandle::try_new(Settings::token_bucket(Quota::per_second(10).burst(3))).unwrap();
    assert_eq!(admitted(&limiter), 3);
    advance(3600 * SECOND).await;
    assert_eq!(admitted(&limiter), 3);
    advance(SECOND / 10).await;
    assert_eq!(admitted(&limiter), 1);
}

/// tower_RateLimit_is_not_clone: a limit per connection is none.
#[tokio::test(start_paused = true)]
async fn clones_layers_and_handles_share_the_quota() {
    let layer = RateLimitLayer::new(Settings::token_bucket(Quota::per_second(4)).name("shared"));
    let service = layer.layer(Probe::new().0);
    let further = layer.handle().layer().layer(Probe::new().0);
    assert!(service.clone().oneshot(7).await.is_ok());
    assert!(service.clone().oneshot(7).await.is_ok());
    assert!(further.oneshot(7).await.is_ok());
    assert!(layer.handle().try_acquire(1).is_ok());
    let rejected = service.oneshot(7).await.unwrap_err().as_rejected().unwrap();
    assert_eq!(
        (rejected.policy(), rejected.reason(), rejected.reached_inner()),
        ("shared", Reason::RateLimited, false)
    );
    assert_eq!(layer.handle().name(), "shared");
}

#[tokio::test(start_paused = true)]
async fn a_request_costs_what_the_function_says() {
    let layer =
        RateLimitLayer::new(Settings::sliding_log(Quota::per_second(10))).cost(|request: &u32| u64::from(*request));
    let mut service = layer.layer(Probe::new().0);
    for (cost, passes) in [(7, true), (4, false), (3, true), (1, false), (0, true), (11, false)] {
        assert_eq!(service.ready().await.unwrap().call(cost).await.is_ok(), passes, "{cost}");
    }
}

/// An open circuit outside spends no quota, and a refusal inside opens no circuit.
#[tokio::test(start_paused = true)]
async fn inside_a_breaker_a_refusal_is_no_failure() {
    let breaker = CircuitBreakerLayer::new(CircuitBreakerSettings::consecutive_failures(1));
    let circuit = breaker.handle();
    let limiter = RateLimitLayer::new(Settings::token_bucket(Quota::per_second(1)));
    let stack = ServiceBuilder::new().layer(breaker).layer(limiter.clone()).service(Probe::new().0);
    assert!(stack.clone().oneshot(7).await.is_ok());
    for _ in 0..5 {
        let refused: AppError = stack.clone().oneshot(7).await.unwrap_err();
        assert_eq!(refused.as_rejected().unwrap().reason(), Reason::RateLimited);
    }
    circuit.force_open();
    advance(SECOND).await;
    assert!(stack.oneshot(7).await.is_err());
    assert_eq!(limiter.handle().peek().remaining, 1);
}

/// The answer of a call that was made only because the limiter refuses is a refusal, even if a unit has come back: nobody is ready for it.
#[tokio::test(start_paused = true)]
async fn readiness_for_a_refusal_stays_one() {
    let (probe, control) = Probe::new();
    control.ready(Ready::Never);
    let layer = RateLimitLayer::new(Settings::token_bucket(Quota::per_second(1)));
    let mut service = layer.layer(probe);
    assert!(layer.handle().try_acquire(1).is_ok());
    assert!(service.ready().await.is_ok());
    advance(SECOND).await;
    assert!(service.call(7).await.is_err());
    assert_eq!((control.calls(), layer.handle().peek().remaining), (0, 1));
    control.ready(Ready::Yes);
    assert!(service.ready().await.unwrap().call(7).await.is_ok());
}

/// In shadow mode every call passes, so it waits for the inner service like any other.
#[tokio::test(start_paused = true)]
async fn in_shadow_mode_nobody_is_ready_before_the_inner_service_is() {
    let (probe, control) = Probe::new();
    control.ready(Ready::Never);
    let layer = RateLimitLayer::new(Settings::token_bucket(Quota::per_second(1)).shadow());
    layer.handle().drain();
    let mut service = layer.layer(probe);
    assert!(tokio_test::task::spawn(service.ready()).poll().is_pending());
}

#[tokio::test(start_paused = true)]
async fn an_event_tells_of_each_refusal() {
    let heard = Arc::new(Mutex::new(0));
    let told = Arc::clone(&heard);
    let layer = RateLimitLayer::new(Settings::token_bucket(Quota::per_second(1))).on_event(move |event| {
        assert!(matches!(event.kind, EventKind::Rejected { shadow: false, .. }));
        *told.lock().unwrap() += 1;
    });
    let service = layer.layer(Probe::new().0);
    for _ in 0..4 {
        let _ = service.clone().oneshot(7).await;
    }
    assert_eq!(*heard.lock().unwrap(), 3);
}

/// resilience4j_822_governor_16_more_than_the_limit_under_contention
#[test]
fn many_threads_together_never_take_more_than_there_is() {
    for algorithm in ALGORITHMS {
        let limiter = RateLimitHandle::try_new(algorithm(Quota::new(1_000, 86_400 * SECOND))).unwrap();
        let passed = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        passed.fetch_add(u64::from(limiter.check(1).allowed), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(passed.load(Ordering::Relaxed), 1_000);
    }
}

#[test]
fn settings_that_cannot_work_are_errors_or_panics() {
    let field = |settings| RateLimitLayer::try_new(settings).unwrap_err().field();
    assert_eq!(field(Settings::token_bucket(Quota::per_second(0))), "units");
    assert_eq!(field(Settings::sliding_log(Quota::per_second(2_000_000))), "units");
    assert_eq!(field(Settings::sliding_counter(Quota::per_second(5).burst(9))), "burst");
    assert!(std::panic::catch_unwind(|| RateLimitLayer::new(Settings::token_bucket(Quota::per_second(0)))).is_err());
    assert!(RateLimitLayer::try_new(Settings::token_bucket(Quota::per_second(1_000_000_000_000))).is_ok());
}
