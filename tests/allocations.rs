//! The happy path allocates nothing, in both ways of use: one long-lived service, and a clone for each call.

#![cfg(feature = "full")]

use std::{
    future::{Ready, ready},
    task::Context,
    time::Duration,
};

use buttress::{
    Error,
    circuit_breaker::{
        CircuitBreakerLayer, CircuitBreakerSettings as Settings, KeyedCircuitBreakerLayer, ResponseFuture, Window,
    },
};
use futures::task::noop_waker_ref;
use tower::{Layer, Service, ServiceExt, service_fn};

type Answer = Result<u32, Error<std::fmt::Error>>;

fn dependency(request: u32) -> Ready<Answer> {
    ready(if request == 0 { Err(Error::Service(std::fmt::Error)) } else { Ok(request) })
}

/// Calls a service by hand, ready at once.
fn call<S: Service<u32>>(service: &mut S, request: u32) -> Result<S::Response, S::Error> {
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

/// A stack of five should stay under 128 bytes, so one layer may add 40.
#[test]
fn the_response_future_is_small() {
    type Inner = Ready<Result<u64, Error<std::fmt::Error>>>;
    assert!(size_of::<ResponseFuture<Inner, buttress::ErrorsAreTransient>>() <= size_of::<Inner>() + 40);
    let service = CircuitBreakerLayer::new(PATIENT).layer(service_fn(dependency));
    drop(service.oneshot(1));
}
