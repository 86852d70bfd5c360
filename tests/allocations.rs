//! The happy path allocates nothing, in both ways of use: one long-lived service, and a clone for each call.

#![cfg(feature = "full")]

use std::{
    future::{Ready, ready},
    ops::Range,
    task::Context,
    time::Duration,
};

use buttress::{
    DeadlineLayer, Error, Outcome,
    circuit_breaker::{
        CircuitBreakerLayer, CircuitBreakerSettings as Settings, KeyedCircuitBreakerLayer, ResponseFuture, Window,
    },
    http::{ClientKeys, respond},
    rate_limit::{KeyedRateLimitLayer, KeyedWaitingLayer, Quota, RateLimitHandle, RateLimitLayer, RateLimitSettings},
    red::{RedLayer, RedSettings},
    redis::{LaneSettings, Lanes, RedisLimits, Unavailable},
    retry::{RetryLayer, RetrySettings},
    timeout::{TimeoutLayer, TimeoutSettings},
};
use futures::task::noop_waker_ref;
use tower::{Layer, Service, ServiceExt, service_fn};

type Answer = Result<u32, Error<std::fmt::Error>>;

fn dependency(request: u32) -> Ready<Answer> {
    ready(if request == 0 { Err(Error::Service(std::fmt::Error)) } else { Ok(request) })
}

/// Calls a service by hand, ready at once.
fn call<S: Service<Req>, Req>(service: &mut S, request: Req) -> Result<S::Response, S::Error> {
    let mut cx = Context::from_waker(noop_waker_ref());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut call = std::pin::pin!(service.call(request));
    loop {
        if let std::task::Poll::Ready(answer) = call.as_mut().poll(&mut cx) {
            return answer;
        }
    }
}

/// Asserts that neither way of use allocates, once warm.
fn assert_frugal<S>(name: &str, mut service: S, request: u32, is_expected: fn(&Answer) -> bool)
where
    S: Service<u32, Response = u32, Error = Error<std::fmt::Error>> + Clone,
{
    let mut drive = || {
        for _ in 0..20 {
            assert!(is_expected(&call(&mut service, request)), "{name}");
            assert!(is_expected(&call(&mut service.clone(), request)), "{name}");
        }
    };
    drive();
    let measured = allocation_counter::measure(drive);
    assert_eq!(measured.count_total, 0, "{name}: {measured:?}");
}

const PATIENT: Settings = Settings::consecutive_failures(1_000_000);

fn is_ok(answer: &Answer) -> bool {
    answer.is_ok()
}

fn is_failure(answer: &Answer) -> bool {
    matches!(answer, Err(Error::Service(_)))
}

fn is_refusal(answer: &Answer) -> bool {
    matches!(answer, Err(Error::Rejected(_)))
}

#[test]
fn a_closed_circuit_allocates_nothing_on_success_and_on_failure() {
    let settings = [
        ("consecutive", PATIENT),
        ("calls", PATIENT.or_failure_rate(1.0).window(Window::Calls(100_000)).minimum_calls(100_000)),
        ("time", PATIENT.or_failure_rate(1.0).window(Window::Time(Duration::from_secs(30))).minimum_calls(u32::MAX)),
        ("slow calls", PATIENT.slow_calls(Duration::from_secs(60))),
    ];
    for (name, settings) in settings {
        let layer = CircuitBreakerLayer::new(settings);
        assert_frugal(name, layer.layer(service_fn(dependency)), 1, is_ok);
        assert_frugal(name, layer.layer(service_fn(dependency)), 0, is_failure);
    }
}

#[test]
fn an_open_circuit_allocates_nothing_on_refusal() {
    let timed = CircuitBreakerLayer::new(Settings::consecutive_failures(1));
    timed.handle().try_acquire().unwrap().failure();
    assert_frugal("open", timed.layer(service_fn(dependency)), 1, is_refusal);
    let forced = CircuitBreakerLayer::new(Settings::new());
    forced.handle().force_open();
    assert_frugal("forced", forced.layer(service_fn(dependency)), 1, is_refusal);
}

#[test]
fn a_call_that_is_pending_allocates_nothing() {
    // Pending once, then ready: what a slow threshold watches.
    let dependency = |request: u32| {
        let mut polled = false;
        std::future::poll_fn(move |_| {
            if std::mem::replace(&mut polled, true) {
                std::task::Poll::Ready(Answer::Ok(request))
            } else {
                std::task::Poll::Pending
            }
        })
    };
    for settings in [PATIENT, PATIENT.slow_calls(Duration::from_secs(60))] {
        let service = CircuitBreakerLayer::new(settings).layer(service_fn(dependency));
        assert_frugal("pending", service, 1, is_ok);
    }
}

#[test]
fn a_keyed_circuit_allocates_nothing_once_its_key_is_known() {
    let layer = KeyedCircuitBreakerLayer::new(PATIENT, |request: &u32| *request);
    assert_frugal("success", layer.layer(service_fn(dependency)), 1, is_ok);
    assert_frugal("failure", layer.layer(service_fn(dependency)), 0, is_failure);
    layer.handle().circuit(2).unwrap().force_open();
    assert_frugal("refusal", layer.layer(service_fn(dependency)), 2, is_refusal);
}

/// Other threads clone a service that was made elsewhere: the stripe of the count is made once.
#[test]
fn a_service_that_was_made_on_another_thread_allocates_nothing() {
    let service = CircuitBreakerLayer::new(PATIENT).layer(service_fn(dependency));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let service = service.clone();
            scope.spawn(|| assert_frugal("elsewhere", service, 1, is_ok));
        }
    });
}

#[test]
fn a_cache_allocates_nothing_on_a_hit() {
    use buttress::cache::{CacheLayer, CacheSettings, Early};
    let settings = CacheSettings::new();
    let settings = [
        settings,
        settings.early(Early::Ratio(0.5)),
        settings.early(Early::XFetch(1.0)),
        // Stale, and throttled after a failure.
        settings.ttl(Duration::from_nanos(1)).stale_if_error(Duration::MAX).throttle(Duration::MAX),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for settings in settings {
        let layer = CacheLayer::new(settings, |request: &u32| Some(*request));
        let service = layer.layer(service_fn(dependency));
        layer.handle().put(1, 1);
        if settings_are_stale(&layer.handle()) {
            let fails = service_fn(|_: u32| ready(Answer::Err(Error::Service(std::fmt::Error))));
            runtime.block_on(layer.layer(fails).oneshot(1)).unwrap();
        }
        assert_frugal("hit", service, 1, is_ok);
        assert!(layer.handle().stats().loads <= 1);
    }
}

#[cfg(feature = "scan-resistant")]
#[test]
fn a_scan_resistant_cache_allocates_nothing_on_a_hit() {
    use buttress::{
        cache::{CacheHandle, CacheSettings},
        scan_resistant::ScanResistantStore,
    };
    let settings = CacheSettings::new();
    let cache = CacheHandle::with_store(settings, ScanResistantStore::try_new(settings).unwrap()).unwrap();
    cache.put(1, 1);
    assert_frugal("hit", cache.layer(|request: &u32| Some(*request)).layer(service_fn(dependency)), 1, is_ok);
    assert_eq!(cache.stats().loads, 0);
}

/// The entry, and its place in the order. What leaves for it, and what it has no tags for, takes nothing.
#[test]
fn a_full_cache_allocates_twice_for_an_answer_that_takes_the_place_of_another() {
    use buttress::cache::{CacheHandle, CacheSettings};
    let cache = CacheHandle::<u32, u64>::try_new(CacheSettings::new().max_entries(16)).unwrap();
    let put = |keys: Range<u32>| {
        for key in keys {
            cache.put(key, 1);
        }
    };
    put(0..100);
    let counted = allocation_counter::measure(|| put(100..200));
    assert_eq!((counted.count_total, cache.stats().evictions), (200, 184));
}

fn settings_are_stale(handle: &buttress::cache::CacheHandle<u32, u32>) -> bool {
    handle.get(&1).is_none()
}

#[test]
fn a_limiter_allocates_nothing_on_success_and_on_refusal() {
    let quota = Quota::per_day(1_000);
    for settings in [RateLimitSettings::token_bucket(quota), RateLimitSettings::sliding_counter(quota)] {
        let layer = RateLimitLayer::new(settings);
        assert_frugal("success", layer.layer(service_fn(dependency)), 1, is_ok);
        while layer.handle().check(1).allowed {}
        assert_frugal("refusal", layer.layer(service_fn(dependency)), 1, is_refusal);
    }
    // A log grows to what its window holds.
    let layer = RateLimitLayer::new(RateLimitSettings::sliding_log(quota));
    while layer.handle().check(1).allowed {}
    assert_frugal("refusal", layer.layer(service_fn(dependency)), 1, is_refusal);
}

/// Without a recorder; `observed.rs` has one.
#[test]
fn figures_allocate_nothing_whatever_becomes_of_a_call() {
    let figures = RedLayer::new("figures");
    assert_frugal("success", figures.layer(service_fn(dependency)), 1, is_ok);
    assert_frugal("failure", figures.layer(service_fn(dependency)), 0, is_failure);
    let limiter = RateLimitLayer::new(RateLimitSettings::token_bucket(Quota::per_day(1)));
    while limiter.handle().check(1).allowed {}
    assert_frugal("refusal", figures.layer(limiter.layer(service_fn(dependency))), 1, is_refusal);
    let labelled = RedLayer::new(RedSettings::new("labelled").label("parity", &["even", "odd"]));
    let labelled = labelled.label_by(|request: &u32| if request.is_multiple_of(2) { "even" } else { "odd" });
    assert_frugal("labelled", labelled.layer(service_fn(dependency)), 1, is_ok);
}

#[test]
fn several_limits_and_limits_per_key_allocate_nothing_once_the_key_is_known() {
    let quota = Quota::per_day(1_000);
    let bucket = RateLimitSettings::token_bucket(quota);
    let several = bucket.and(RateLimitSettings::sliding_counter(quota).name("counter"));
    let layer = RateLimitLayer::new(several);
    assert_frugal("several", layer.layer(service_fn(dependency)), 1, is_ok);
    for settings in [bucket, several] {
        let layer = KeyedRateLimitLayer::new(settings, |request: &u32| *request);
        assert_frugal("key, success", layer.layer(service_fn(dependency)), 1, is_ok);
        layer.handle().drain(&2);
        assert_frugal("key, refusal", layer.layer(service_fn(dependency)), 2, is_refusal);
        let all = RateLimitHandle::try_new(several).unwrap();
        let layer = KeyedRateLimitLayer::new(settings, |request: &u32| *request).and_all(&all);
        assert_frugal("key and all, success", layer.layer(service_fn(dependency)), 1, is_ok);
    }
}

/// An outage is no time to be slow.
#[test]
fn a_limit_in_redis_allocates_nothing_while_redis_is_away() {
    let lanes = Lanes::try_from_url("redis://127.0.0.1:1", LaneSettings::new()).unwrap();
    lanes.breaker().force_open();
    for (unavailable, is) in [(Unavailable::local(1.0), is_ok as fn(&_) -> bool), (Unavailable::Closed, is_refusal)] {
        let settings = RateLimitSettings::token_bucket(Quota::per_day(1_000_000));
        let limits = RedisLimits::try_new(&lanes, settings, unavailable).unwrap();
        let layer = KeyedRateLimitLayer::over(limits, |request: &u32| *request);
        assert_frugal("away", layer.layer(service_fn(dependency)), 1, is);
    }
}

#[test]
fn a_limiter_that_waits_allocates_nothing_while_nobody_has_to() {
    let settings = RateLimitSettings::token_bucket(Quota::per_day(1_000));
    assert_frugal("waiting", RateLimitLayer::new(settings).waiting().layer(service_fn(dependency)), 1, is_ok);
    assert_frugal("paced", RateLimitLayer::new(settings).backpressure().layer(service_fn(dependency)), 1, is_ok);
    let keyed = KeyedWaitingLayer::new(settings, |request: &u32| *request);
    assert_frugal("keyed", keyed.layer(service_fn(dependency)), 1, is_ok);
}

#[test]
fn a_retry_that_is_not_needed_allocates_nothing() {
    let settings = RetrySettings::new();
    for (name, settings) in [
        ("budget", settings.clone()),
        ("none", settings.clone().without_budget()),
        ("within", settings.within(Duration::from_secs(1))),
    ] {
        let layer = RetryLayer::new(settings);
        assert_frugal(name, layer.layer(service_fn(dependency)), 1, is_ok);
        // With a destructor, and with a word of its own: so that a spare is kept.
        let kept = std::sync::Arc::new(());
        let inner = service_fn(move |request| {
            let _ = &kept;
            dependency(request)
        });
        assert_frugal(name, layer.layer(inner), 1, is_ok);
        let number = std::hint::black_box(7);
        let inner = service_fn(move |request: u32| dependency(request.min(number)));
        assert_ne!(size_of_val(&inner), 0);
        assert_frugal(name, layer.layer(inner), 1, is_ok);
        let permanent = layer.classify(|answer: Result<&u32, &Error<std::fmt::Error>>| match answer {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Permanent,
        });
        assert_frugal(name, permanent.layer(service_fn(dependency)), 0, is_failure);
    }
}

#[test]
fn a_time_out_allocates_nothing_for_an_answer_that_is_ready() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let settings = TimeoutSettings::new(Duration::from_secs(1));
    for settings in [settings, settings.cover_readiness()] {
        let layer = TimeoutLayer::new(settings);
        assert_frugal("success", layer.layer(service_fn(dependency)), 1, is_ok);
        assert_frugal("failure", layer.layer(service_fn(dependency)), 0, is_failure);
        let deadline = DeadlineLayer::new(Duration::from_secs(1));
        assert_frugal("deadline", deadline.layer(layer.layer(service_fn(dependency))), 1, is_ok);
    }
}

/// The box of the timer, and nothing else; the next call of the thread finds it there.
#[test]
fn a_time_out_allocates_once_for_an_answer_that_is_not() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let hangs = |_: u32| std::future::pending::<Answer>();
    let mut service = TimeoutLayer::new(Duration::from_secs(1)).layer(service_fn(hangs));
    let mut cx = Context::from_waker(noop_waker_ref());
    for expected in [1, 0, 0] {
        let counted = allocation_counter::measure(|| {
            let mut call = std::pin::pin!(service.call(1));
            assert!(call.as_mut().poll(&mut cx).is_pending());
            assert!(call.as_mut().poll(&mut cx).is_pending());
        });
        assert_eq!(counted.count_total, expected);
    }
}

/// A stack of five should stay under 128 bytes, so one layer may add 40.
#[test]
fn the_response_future_is_small() {
    type Inner = Ready<Result<u64, Error<std::fmt::Error>>>;
    assert!(size_of::<ResponseFuture<Inner, buttress::ErrorsAreTransient>>() <= size_of::<Inner>() + 40);
    assert!(size_of::<buttress::timeout::ResponseFuture<Inner>>() <= size_of::<Inner>() + 24);
    assert!(size_of::<buttress::red::ResponseFuture<Inner, buttress::ErrorsAreTransient>>() <= size_of::<Inner>() + 24);
    let service = CircuitBreakerLayer::new(PATIENT).layer(service_fn(dependency));
    drop(service.oneshot(1));
}

/// 128 bytes are wanted.
#[test]
fn the_response_future_of_a_whole_stack_is_small() {
    type Inner = Ready<Result<u64, Error<std::fmt::Error>>>;
    let mut stack = tower::ServiceBuilder::new()
        .layer(RedLayer::new("size"))
        .layer(RetryLayer::new(RetrySettings::new()))
        .layer(CircuitBreakerLayer::new(PATIENT))
        .layer(RateLimitLayer::new(RateLimitSettings::token_bucket(Quota::per_second(1_000))))
        .layer(TimeoutLayer::new(Duration::from_secs(1)))
        .service(service_fn(|n: u64| -> Inner { ready(Ok(n)) }));
    assert!(stack.poll_ready(&mut Context::from_waker(noop_waker_ref())).is_ready());
    let size = size_of_val(&stack.call(1));
    assert!(size <= 200, "{size}");
}

#[test]
fn the_response_future_of_a_retry_has_no_room_for_the_service() {
    fn size<S: Service<u32> + Clone>(service: S) -> usize
    where
        RetryLayer: Layer<S, Service: Service<u32>>,
    {
        size_of_val(&RetryLayer::new(RetrySettings::new()).layer(service).call(1))
    }
    let large = [7_u64; 64];
    let large = service_fn(move |request| dependency(request + large.len() as u32));
    assert_eq!(size(large), size(service_fn(dependency)));
}

/// From the handler's `Infallible` to the stack's error and back.
#[test]
fn an_admitted_call_through_respond_allocates_nothing() {
    let handler =
        |_: http::Request<()>| ready(Ok::<_, std::convert::Infallible>(http::Response::new(bytes::Bytes::new())));
    let layers = tower::ServiceBuilder::new()
        .layer(CircuitBreakerLayer::new(PATIENT))
        .layer(RateLimitLayer::new(RateLimitSettings::token_bucket(Quota::per_day(1_000))))
        .layer(TimeoutLayer::new(Duration::from_secs(60)));
    let mut service = respond(layers).layer(service_fn(handler));
    let mut drive = || {
        for _ in 0..20 {
            let request = || http::Request::new(());
            let Ok(response) = call(&mut service, request());
            assert_eq!(response.status(), 200);
            let Ok(response) = call(&mut service.clone(), request());
            assert_eq!(response.status(), 200);
        }
    };
    drive();
    let measured = allocation_counter::measure(drive);
    assert_eq!(measured.count_total, 0, "{measured:?}");
}

#[test]
fn a_clients_key_allocates_nothing() {
    let clients =
        ClientKeys::new(|_: &http::Extensions| Some([10, 0, 0, 1].into())).trust(["10.0.0.0/8".parse().unwrap()]);
    let request = |name, value| http::Request::builder().header(name, value).body(()).unwrap();
    let plain = request("x-forwarded-for", "nobody, 198.51.100.9, 203.0.113.7, 10.0.0.2");
    let forwarded = request("forwarded", "for=\"[2001:db8::1]:80\";proto=http, for=10.0.0.2");
    let keys = [(clients.clone(), plain, "203.0.113.7"), (clients.forwarded(), forwarded, "2001:db8::")];
    for (clients, request, expected) in &keys {
        let mut key = None;
        let measured = allocation_counter::measure(|| key = Some(clients.clone().key(request)));
        assert_eq!((measured.count_total, key.unwrap().address().to_string().as_str()), (0, *expected));
    }
}
