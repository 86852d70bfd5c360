//! RED: what becomes of every call, counted once.

#![cfg(feature = "full")]

mod support;

use std::{
    convert::Infallible,
    future::{pending, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use buttress::{
    EveryErrorIsTransient, Outcome, Reason,
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings},
    red::{RedHandle, RedLayer, RedSettings, Requests},
    retry::{Backoff, RetryLayer, RetrySettings},
    timeout::TimeoutLayer,
};
use proptest::prelude::*;
use support::{Answer, AppError, Probe, Ready};
use tokio::time::{advance, sleep};
use tokio_test::task::spawn;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// All of them, as `[ok, error, permanent, ignored, cancelled, rejected, in_flight]`, after the sum was checked.
fn counts(handle: &RedHandle) -> [u64; 7] {
    let Requests { total, in_flight, ok, error, permanent, ignored, cancelled, rejected, .. } =
        handle.snapshot().requests;
    let counts = [ok, error, permanent, ignored, cancelled, rejected, in_flight];
    assert_eq!(total, counts.iter().sum::<u64>());
    counts
}

/// What a request wants to become.
#[derive(Clone, Copy)]
enum Fate {
    Ok(u64),
    Error(u64),
    Hang,
}

#[tokio::test(start_paused = true)]
async fn a_known_day_of_a_thousand_calls_gives_exactly_these_figures() {
    let layer = RedLayer::new("day");
    let stack = ServiceBuilder::new().layer(&layer).layer(TimeoutLayer::new(SECOND)).service_fn(async |fate: Fate| {
        match fate {
            Fate::Ok(millis) => sleep(millis as u32 * MILLI).await,
            Fate::Error(millis) => {
                sleep(millis as u32 * MILLI).await;
                return Err(AppError::Down);
            }
            Fate::Hang => pending().await,
        }
        Ok(())
    });
    let fates = (1..=700).map(Fate::Ok).chain((1..=200).map(Fate::Error)).chain([Fate::Hang; 100]);
    let mut calls: Vec<_> = fates.map(|fate| spawn(stack.clone().oneshot(fate))).collect();
    for call in &mut calls {
        assert!(call.poll().is_pending());
    }
    assert_eq!(counts(&layer.handle()), [0, 0, 0, 0, 0, 0, 1000]);
    for millis in 1..=1000 {
        advance(MILLI).await;
        if millis == 800 {
            calls.truncate(50);
        }
        calls.retain_mut(|call| call.poll().is_pending());
    }
    assert!(calls.is_empty());
    assert_eq!(counts(&layer.handle()), [700, 250, 0, 0, 50, 0, 0]);

    // 1 to 200 twice, 201 to 700 once, 50 of 800, 50 of 1000.
    let duration = layer.handle().snapshot().duration;
    assert_eq!((duration.count, duration.max), (1000, SECOND));
    let sum: u32 = 2 * (1..=200).sum::<u32>() + (201..=700).sum::<u32>() + 50 * 800 + 50 * 1000;
    assert_eq!(duration.mean, sum * MILLI / 1000);
    for (quantile, exact) in [(duration.p50, 300), (duration.p95, 800), (duration.p99, 1000), (duration.p999, 1000)] {
        let exact = exact * MILLI;
        assert!(quantile.abs_diff(exact) <= exact / 64, "{quantile:?} for {exact:?}");
    }
    let requests = layer.handle().snapshot().requests;
    assert!((requests.error_ratio - 250.0 / 950.0).abs() < 1e-9);
}

/// http4s_7866_cancelled_requests_vanish, rapina_516_in_flight_gauge_leaks
#[tokio::test(start_paused = true)]
async fn whatever_becomes_of_a_call_it_is_counted_once_and_leaves_the_flight() {
    let layer = RedLayer::new("ways-out");
    let (probe, control) = Probe::new();
    let mut service = layer.layer(probe);
    let expect = |ok, error, cancelled, in_flight| {
        assert_eq!(counts(&layer.handle()), [ok, error, 0, 0, cancelled, 0, in_flight]);
    };

    drop(service.ready().await.unwrap().call(7));
    expect(0, 0, 1, 0); // Never polled.

    control.answer(Answer::Never);
    let mut call = spawn(service.ready().await.unwrap().call(7));
    assert!(call.poll().is_pending());
    expect(0, 0, 1, 1);
    drop(call);
    expect(0, 0, 2, 0); // Cancelled.

    let task = tokio::spawn(service.clone().oneshot(7));
    tokio::task::yield_now().await;
    expect(0, 0, 2, 1);
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    expect(0, 0, 3, 0); // Aborted.

    for (answer, errors) in [(Answer::PanicInCall, 1), (Answer::PanicInFuture, 2)] {
        control.answer(answer);
        let mut own = service.clone();
        let call = catch_unwind(AssertUnwindSafe(|| spawn(call_now(&mut own, 7)).poll()));
        assert!(call.is_err());
        expect(0, errors, 3, 0); // Panicked.
    }

    control.answer(Answer::Ok);
    let mut kept = spawn(service.ready().await.unwrap().call(7));
    assert!(kept.poll().is_ready());
    expect(1, 2, 3, 0); // Answered, and the future kept.
    drop(kept);
    expect(1, 2, 3, 0);

    control.ready(Ready::Error);
    assert!(service.ready().await.is_err());
    expect(1, 3, 3, 0); // Never ready.
    assert_eq!(layer.handle().snapshot().duration.count, 6, "which took no time");
}

/// Calls a service that is ready at once.
fn call_now<S: Service<u32>>(service: &mut S, request: u32) -> S::Future {
    assert!(spawn(service.ready()).poll().is_ready());
    service.call(request)
}

#[tokio::test(start_paused = true)]
async fn a_panic_elsewhere_that_drops_a_call_cancels_it() {
    let layer = RedLayer::new("bystander");
    let mut service = layer.layer(service_fn(|_: u32| pending::<Result<u32, AppError>>()));
    let panics = catch_unwind(AssertUnwindSafe(|| {
        let _call = call_now(&mut service, 1);
        panic!("elsewhere");
    }));
    assert!(panics.is_err());
    assert_eq!(counts(&layer.handle()), [0, 0, 0, 0, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_classifier_that_panics_costs_its_own_call_only() {
    let layer = RedLayer::new("classifier").classify(|result: Result<&u32, &AppError>| match result {
        Ok(0) => panic!("told so"),
        Ok(_) => Outcome::Ignored,
        Err(_) => Outcome::Permanent,
    });
    let mut service = layer.layer(service_fn(async |n: u32| if n > 1 { Err(AppError::Down) } else { Ok(n) }));
    assert!(catch_unwind(AssertUnwindSafe(|| spawn(call_now(&mut service, 0)).poll())).is_err());
    assert!(service.ready().await.unwrap().call(1).await.is_ok());
    assert!(service.ready().await.unwrap().call(2).await.is_err());
    assert_eq!(counts(&layer.handle()), [0, 1, 1, 1, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn refusals_are_counted_by_their_reason_and_do_not_make_the_dependency_look_fast() {
    let layer = RedLayer::new("refused");
    let breaker = CircuitBreakerLayer::new(CircuitBreakerSettings::consecutive_failures(1));
    let stack = ServiceBuilder::new().layer(&layer).layer(breaker).service_fn(async |(): ()| {
        sleep(SECOND).await;
        Err::<(), _>(AppError::Down)
    });
    for _ in 0..5 {
        assert!(stack.clone().oneshot(()).await.is_err());
    }
    assert_eq!(counts(&layer.handle()), [0, 1, 0, 0, 0, 4, 0]);
    let snapshot = layer.handle().snapshot();
    assert_eq!(snapshot.requests.rejected_by().collect::<Vec<_>>(), [("circuit_open", 4)]);
    assert_eq!((snapshot.duration.count, snapshot.duration.mean), (1, SECOND));
    // One that may have been executed has taken the dependency's time.
    let refused = Outcome::Rejected { reason: Reason::DeadlineExceeded, retry_after: None };
    layer.handle().begin().record(refused);
    assert_eq!(layer.handle().snapshot().duration.count, 2);
    let reasons: Vec<_> = layer.handle().snapshot().requests.rejected_by().collect();
    assert_eq!(reasons, [("circuit_open", 4), (Reason::DeadlineExceeded.as_str(), 1)]);
}

/// smg_2130_attempts_and_requests_mixed
#[tokio::test(start_paused = true)]
async fn one_request_of_three_attempts_is_one_request_outside_the_retry_and_three_inside() {
    let (requests, attempts) = (RedLayer::new("requests"), RedLayer::new("attempts"));
    let retry = RetryLayer::new(RetrySettings::new().backoff(Backoff::constant(Duration::ZERO)));
    let stack = ServiceBuilder::new()
        .layer(&requests)
        .layer(retry)
        .layer(&attempts)
        .service_fn(|(): ()| ready(Err::<(), _>(AppError::Down)));
    assert!(stack.oneshot(()).await.is_err());
    assert_eq!(counts(&requests.handle())[1], 1);
    assert_eq!(counts(&attempts.handle())[1], 3);
}

#[tokio::test(start_paused = true)]
async fn it_wraps_a_router_that_cannot_fail_and_a_client_whose_error_has_no_place_for_a_refusal() {
    let router = axum::Router::new().route("/", axum::routing::get(async || "hello"));
    let layer = RedLayer::new("router").classify(buttress::http::ByStatus::new());
    for path in ["/", "/none"] {
        let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let answer: Result<_, Infallible> = layer.layer(router.clone()).oneshot(request).await;
        assert!(answer.is_ok());
    }
    assert_eq!(counts(&layer.handle()), [1, 0, 1, 0, 0, 0, 0]);

    let layer = RedLayer::new("client").classify(EveryErrorIsTransient);
    let client = service_fn(|(): ()| ready(Err::<(), _>("no error at all")));
    assert!(layer.layer(client).oneshot(()).await.is_err());
    assert_eq!(counts(&layer.handle()), [0, 1, 0, 0, 0, 0, 0]);

    // As a layer of axum's own.
    let layer = RedLayer::new("routes").classify(buttress::http::ByStatus::new());
    let routes = router.layer(layer.clone());
    assert!(routes.oneshot(http::Request::get("/").body(axum::body::Body::empty()).unwrap()).await.is_ok());
    assert_eq!(counts(&layer.handle())[0], 1);
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_that_of_the_last_whole_second_and_of_the_last_minute() {
    let red = RedHandle::try_new("rate").unwrap();
    let rate = || {
        let requests = red.snapshot().requests;
        (requests.last_second, requests.per_second)
    };
    let calls = |n: u32| (0..n).for_each(|_| red.begin().record(Outcome::Success));
    assert_eq!(rate(), (0, 0.0));
    calls(30);
    assert_eq!(rate(), (0, 0.0), "a second that is not over does not count");
    advance(SECOND).await;
    assert_eq!(rate(), (30, 30.0));
    advance(SECOND).await;
    assert_eq!(rate(), (0, 15.0), "of the two seconds that it has lived for");
    calls(90);
    advance(58 * SECOND).await;
    assert_eq!(rate(), (0, 2.0));
    advance(SECOND).await;
    assert_eq!(rate(), (0, 1.5), "the first 30 are more than a minute ago");
    advance(3600 * SECOND).await;
    assert_eq!(rate(), (0, 0.0));
    calls(1);
    advance(SECOND).await;
    assert_eq!(rate(), (1, 1.0 / 60.0));
}

#[test]
fn absurd_settings_are_errors() {
    static MANY: [&str; 101] = ["a"; 101];
    for key in ["", "name", "outcome", "reason", "le", "quantile"] {
        assert_eq!(RedHandle::try_new(RedSettings::new("p").label(key, &[])).unwrap_err().field(), "label");
    }
    assert!(RedHandle::try_new(RedSettings::new("p").label("route", &MANY)).is_err());
    assert!(RedLayer::try_new(RedSettings::new("p").label("route", &MANY[1..])).is_ok());
    assert!(catch_unwind(|| RedLayer::new(RedSettings::new("p").label("", &[]))).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_label_that_is_declared_twice_or_by_nobody_is_harmless() {
    let settings = RedSettings::new("labels").label("route", &["b", "a", "b", "other"]);
    let layer = RedLayer::new(settings);
    assert_eq!(layer.handle().name(), "labels");
    // Nobody says which one a request has.
    let service = layer.layer(service_fn(|(): ()| ready(Ok::<_, AppError>(()))));
    assert!(service.oneshot(()).await.is_ok());
    layer.handle().begin_labelled("b").record(Outcome::Success);
    let labels: Vec<_> = layer.handle().snapshot_by_label().into_iter().map(|(v, red)| (v, red.requests.ok)).collect();
    assert_eq!(labels, [("a", 0), ("b", 1), ("other", 1)]);
    assert_eq!(layer.handle().snapshot().requests.ok, 2);
    assert!(RedHandle::try_new("none").unwrap().snapshot_by_label().is_empty());
}

/// resilience4j_2243_registry_growth: figures go with their last handle.
#[test]
fn layers_that_come_and_go_leave_nothing_behind() {
    let used = |n: u32| {
        for _ in 0..n {
            RedHandle::try_new("gone").unwrap().begin().record(Outcome::Success);
        }
    };
    used(10);
    let measured = allocation_counter::measure(|| used(1_000));
    assert_eq!(measured.count_current, 0, "{measured:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// On several threads, each call ending on another one than it began on.
    #[test]
    fn the_figures_of_many_threads_add_up(fates in proptest::collection::vec(0..4_u8, 1..200)) {
        let red = RedHandle::try_new("threads").unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            for fates in fates.chunks(fates.len().div_ceil(3)) {
                let (red, sender) = (red.clone(), sender.clone());
                scope.spawn(move || fates.iter().for_each(|fate| sender.send((*fate, red.begin())).unwrap()));
            }
            drop(sender);
            for (fate, call) in receiver {
                match fate {
                    0 => call.record(Outcome::Success),
                    1 => call.record(Outcome::TRANSIENT),
                    2 => call.record(Outcome::Permanent),
                    _ => drop(call),
                }
                let Requests { total, in_flight, .. } = red.snapshot().requests;
                assert!(in_flight <= total);
            }
        });
        let expected = |which: u8| fates.iter().filter(|fate| **fate == which).count() as u64;
        prop_assert_eq!(counts(&red), [expected(0), expected(1), expected(2), 0, expected(3), 0, 0]);
    }
}

#[test]
fn a_snapshot_is_json_in_the_shape_of_a_metrics_page() {
    let red = RedHandle::try_new("json").unwrap();
    red.begin().record(Outcome::Success);
    red.begin().record(Outcome::Rejected { reason: Reason::RateLimited, retry_after: None });
    let json = serde_json::to_value(red.snapshot()).unwrap();
    assert_eq!(json["name"], "json");
    assert_eq!(json["requests"]["total"], 2);
    assert_eq!(json["requests"]["rejected_by"], serde_json::json!({ "rate_limited": 1 }));
    assert_eq!(json["duration"]["count"], 1);
    let keys = |part: &str| json[part].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys("duration"), ["count", "max_ms", "mean_ms", "p50_ms", "p95_ms", "p999_ms", "p99_ms"]);
    assert_eq!(keys("requests").len(), 12);
}
