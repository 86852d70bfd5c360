//! One error type runs through a whole stack, and a refusal is found wherever it comes from.

#![cfg(feature = "full")]

mod support;

use std::{convert::Infallible, io, time::Duration};

use buttress::{
    AsRejected, BoxError, CircuitState, Classify, Error, ErrorsAreTransient, EveryErrorIsTransient, LateLayer, Outcome,
    Reason, Rejected, Trip,
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings as Settings},
    rate_limit::{Quota, RateLimitLayer, RateLimitSettings},
    red::RedLayer,
    retry::{RetryLayer, RetrySettings},
};
use futures::FutureExt;
use support::{Answer, AppError, Probe, Ready};
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt, buffer::BufferLayer, limit::ConcurrencyLimitLayer,
    load_shed::LoadShedLayer, service_fn, timeout::TimeoutLayer,
};

const SECOND: Duration = Duration::from_secs(1);

async fn call<S: Service<u32>>(service: &mut S) -> Result<S::Response, S::Error> {
    service.ready().await?.call(1).await
}

#[tokio::test(start_paused = true)]
async fn a_box_error_runs_through_our_layer_and_towers() {
    let (probe, control) = Probe::new();
    let outer = CircuitBreakerLayer::new(Settings::consecutive_failures(2).name("outer"));
    let inner = CircuitBreakerLayer::new(Settings::consecutive_failures(100).name("inner"));
    let mut stack = ServiceBuilder::new()
        .layer(outer.clone())
        .layer(BufferLayer::new(8))
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(1))
        .layer(TimeoutLayer::new(SECOND))
        .map_err(|error: AppError| BoxError::from(error))
        .layer(inner.clone())
        .service(probe);
    buttress::check::<u32, _>(&stack);
    assert_eq!(call(&mut stack).await.unwrap(), 1);

    // Shed load is a refusal: found under the buffer, and nobody's failure.
    control.answer(Answer::Never);
    let first = tokio::spawn(stack.clone().oneshot(1));
    tokio::task::yield_now().await;
    let shed = call(&mut stack).await.unwrap_err().as_rejected().unwrap();
    assert_eq!(shed.reason(), Reason::Overloaded);
    assert_eq!(outer.handle().snapshot().consecutive_failures, 0);

    // A time-out of the attempt is tower's `Elapsed`, and a failure of the dependency.
    let elapsed = first.await.unwrap().unwrap_err().as_rejected().unwrap();
    assert_eq!(elapsed.reason(), Reason::TimedOut);
    assert!(elapsed.reached_inner());
    assert_eq!(outer.handle().snapshot().consecutive_failures, 1);

    // The inner circuit's refusal passes the whole stack, named, and the outer one leaves it alone.
    inner.handle().force_open();
    for _ in 0..5 {
        let refused = call(&mut stack).await.unwrap_err().as_rejected().unwrap();
        assert_eq!((refused.policy(), refused.reason()), ("inner", Reason::CircuitOpen(Trip::Forced)));
    }
    assert_eq!(outer.handle().state(), CircuitState::Closed);
    // The outer one refuses by its own name.
    outer.handle().force_open();
    assert_eq!(call(&mut stack).await.unwrap_err().as_rejected().unwrap().policy(), "outer");
}

/// tower's layers box the error; one line above them makes it the stack's own again, and what is in it is still found.
#[tokio::test(start_paused = true)]
async fn typed_errors_run_through_our_layer_over_all_of_towers() {
    #[derive(Debug, thiserror::Error)]
    enum Mine {
        #[error(transparent)]
        Rejected(#[from] Rejected),
        #[error("below")]
        Below(#[source] BoxError),
    }
    impl AsRejected for Mine {
        fn as_rejected(&self) -> Option<Rejected> {
            Rejected::find(self)
        }
    }
    #[derive(Debug, thiserror::Error)]
    #[error("a client's")]
    struct Foreign(#[source] BoxError);

    async fn drive<E>(wrap: fn(BoxError) -> E)
    where
        E: From<Rejected> + AsRejected + std::fmt::Debug + Send + 'static,
    {
        let (probe, control) = Probe::new();
        let layer = CircuitBreakerLayer::new(Settings::consecutive_failures(3).name("typed"));
        let mut stack = ServiceBuilder::new()
            .layer(layer.clone())
            .map_err(wrap)
            .layer(BufferLayer::new(8))
            .layer(LoadShedLayer::new())
            .layer(ConcurrencyLimitLayer::new(1))
            .layer(TimeoutLayer::new(SECOND))
            .service(probe);
        buttress::check::<u32, _>(&stack);
        control.answer(Answer::Never);
        let first = tokio::spawn(stack.clone().oneshot(1));
        tokio::task::yield_now().await;
        let shed = stack.ready().await.unwrap().call(1).await.unwrap_err();
        assert_eq!(shed.as_rejected().unwrap().reason(), Reason::Overloaded);
        let elapsed = first.await.unwrap().unwrap_err();
        assert_eq!(elapsed.as_rejected().unwrap().reason(), Reason::TimedOut);
        assert_eq!(layer.handle().snapshot().consecutive_failures, 1);
        control.answer(Answer::Err);
        for _ in 0..2 {
            assert!(stack.ready().await.unwrap().call(1).await.unwrap_err().as_rejected().is_none());
        }
        let refused = stack.ready().await.unwrap().call(1).await.unwrap_err().as_rejected().unwrap();
        assert_eq!((refused.policy(), refused.reached_inner()), ("typed", false));
    }
    drive::<Mine>(Mine::Below).await;
    drive::<Error<Foreign>>(|error| Error::Service(Foreign(error))).await;
    drive::<BoxError>(|error| error).await;
}

#[tokio::test(start_paused = true)]
async fn a_users_own_enum_runs_through_the_stack() {
    let (probe, control) = Probe::new();
    let layer = CircuitBreakerLayer::new(Settings::consecutive_failures(1));
    let mut stack = ServiceBuilder::new()
        .layer(CircuitBreakerLayer::new(Settings::new().name("above")))
        .layer(layer)
        .layer(ConcurrencyLimitLayer::new(4))
        .layer(LateLayer)
        .service(probe);
    buttress::check::<u32, _>(&stack);
    control.answer(Answer::Err);
    assert_eq!(call(&mut stack).await, Err(AppError::Down));
    assert!(matches!(call(&mut stack).await, Err(AppError::Rejected(_))));
    assert_eq!(stack.handle().snapshot().consecutive_failures, 1, "only the failure, not the refusal");
    control.ready(Ready::Yes);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_clients_error_takes_one_line() {
    let client =
        service_fn(
            |fails: u32| async move { if fails > 0 { Err(io::Error::other("connection reset")) } else { Ok(()) } },
        );
    let mut stack = ServiceBuilder::new()
        .layer(CircuitBreakerLayer::new(Settings::consecutive_failures(1)))
        .map_err(Error::Service)
        .service(client);
    buttress::check::<u32, _>(&stack);
    match call(&mut stack).await {
        Err(Error::Service(error)) => assert_eq!(error.to_string(), "connection reset"),
        other => panic!("{other:?}"),
    }
    match call(&mut stack).await {
        Err(Error::Rejected(rejected)) => assert!(!rejected.reached_inner()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refusal_is_found_through_box_transparent_variant_and_nested_stacks() {
    let refuses = || {
        let layer = CircuitBreakerLayer::new(Settings::new().name("deep"));
        layer.handle().force_open();
        layer
    };
    // A typed stack inside a boxed one, inside a client's error, inside another typed one.
    let typed = refuses().layer(Probe::new().0);
    let boxed = ServiceBuilder::new().map_err(|error: AppError| BoxError::from(error)).service(typed);
    let client = ServiceBuilder::new().map_err(|error: BoxError| io::Error::other(error)).service(boxed);
    let mut stack = ServiceBuilder::new()
        .layer(CircuitBreakerLayer::new(Settings::consecutive_failures(1)))
        .map_err(Error::Service)
        .service(client);
    for _ in 0..5 {
        let error = call(&mut stack).await.unwrap_err();
        assert_eq!(error.as_rejected().unwrap().policy(), "deep");
        assert!(matches!(error, Error::Service(_)), "it never opened the circuit above");
    }
}

/// A layer that only looks: it asks for a classifier, and for nothing else.
#[derive(Clone)]
struct Look<S, C> {
    inner: S,
    classify: C,
    seen: std::sync::Arc<std::sync::Mutex<Vec<Outcome>>>,
}

impl<S, C, Req> Service<Req> for Look<S, C>
where
    S: Service<Req>,
    S::Future: Send + 'static,
    C: Classify<S::Response, S::Error> + Clone + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = futures::future::BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let (call, classify, seen) = (self.inner.call(request), self.classify.clone(), self.seen.clone());
        Box::pin(async move {
            let result = call.await;
            seen.lock().unwrap().push(classify.classify(result.as_ref()));
            result
        })
    }
}

#[tokio::test]
async fn an_infallible_axum_router_and_a_bare_client_can_be_looked_at() {
    let seen = std::sync::Arc::default();
    let router = axum::Router::<()>::new().route("/", axum::routing::get(async || "hello"));
    let looked = Look { inner: router, classify: ErrorsAreTransient, seen: std::sync::Arc::clone(&seen) };
    let request = axum::http::Request::new(axum::body::Body::empty());
    let response: Result<_, Infallible> = looked.oneshot(request).await;
    assert_eq!(response.unwrap().status(), 200);

    let client = service_fn(|_: u32| std::future::ready(Err::<(), _>(io::Error::other("down"))));
    let mut looked = Look { inner: client, classify: EveryErrorIsTransient, seen: std::sync::Arc::clone(&seen) };
    assert_eq!(call(&mut looked).await.unwrap_err().to_string(), "down");
    assert_eq!(*seen.lock().unwrap(), [Outcome::Success, Outcome::TRANSIENT]);
}

/// The vocabulary serves tower's own retry too: its policy needs nothing but the outcome.
#[tokio::test(start_paused = true)]
async fn towers_retry_can_ask_the_shared_classifier() {
    #[derive(Clone)]
    struct Thrice(u32);
    impl<E: Clone, Res> tower::retry::Policy<u32, Res, E> for Thrice
    where
        ErrorsAreTransient: Classify<Res, E>,
    {
        type Future = std::future::Ready<()>;
        fn retry(&mut self, _: &mut u32, result: &mut Result<Res, E>) -> Option<Self::Future> {
            self.0 = self.0.checked_sub(1)?;
            let outcome = ErrorsAreTransient.classify((*result).as_ref());
            matches!(outcome, Outcome::Transient { .. }).then(|| std::future::ready(()))
        }
        fn clone_request(&mut self, request: &u32) -> Option<u32> {
            Some(*request)
        }
    }
    let (probe, control) = Probe::new();
    control.answer(Answer::Err);
    let stack = ServiceBuilder::new()
        .layer(tower::retry::RetryLayer::new(Thrice(2)))
        .layer(CircuitBreakerLayer::new(Settings::consecutive_failures(2)))
        .service(probe);
    let error = stack.oneshot(1).await.unwrap_err();
    assert!(error.as_rejected().is_some(), "the third attempt met the open circuit");
    assert_eq!(control.calls(), 2, "and the refusal was not retried");
}

#[test]
fn secrets_of_a_request_are_in_no_error() {
    let rejected = Rejected::new("payments", Reason::RateLimited).with_retry_after(SECOND);
    assert_eq!(
        format!("{rejected:?}"),
        r#"Rejected { policy: "payments", reason: RateLimited, retry_after: Some(1s) }"#
    );
}

/// A layer in between may let any reading that was taken further out grow old.
#[tokio::test(start_paused = true)]
async fn a_limiter_decides_by_its_own_time_whatever_a_layer_further_out_took() {
    let limit = RateLimitLayer::new(RateLimitSettings::token_bucket(Quota::per_second(1)));
    let slow = tower::util::MapRequestLayer::new(|request: u32| {
        // Time passes within the very call.
        tokio::time::advance(SECOND).now_or_never();
        request
    });
    let client = service_fn(|_: u32| std::future::ready(Ok::<_, AppError>(())));
    let retry = RetryLayer::new(RetrySettings::new());
    let mut stack = RedLayer::new("slow").layer(retry.layer(slow.layer(limit.layer(client))));
    for _ in 0..3 {
        call(&mut stack).await.expect("a second has passed since the last one");
        assert!(!limit.handle().check(1).allowed, "and none since this one");
    }
}
