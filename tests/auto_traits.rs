//! Layers, services and futures are `Send`, `Sync` and `Unpin` exactly when what they wrap is.

#![cfg(feature = "full")]

use std::{marker::PhantomPinned, rc::Rc};

use buttress::{
    Budget, ConfigError, Deadline, DeadlineLayer, Error, ErrorsAreTransient, Late, Rejected,
    budget::Withdrawal,
    cache::{
        self, Cache, CacheHandle, CacheKey, CacheLayer, CacheStats, CacheStatus, Entry, Fetched, Hooks, Keep, KeepAll,
        RefuseWaiters, Seen, Untold, WeakEntry,
    },
    circuit_breaker::{
        CircuitBreaker, CircuitBreakerHandle, CircuitBreakerLayer, CircuitBreakerSettings as Settings,
        KeyedCircuitBreaker, KeyedCircuitBreakerHandle, KeyedCircuitBreakerLayer, Permit, ResponseFuture,
    },
    deadline::{DeadlineService, Scope, StampDeadline, StampFuture},
    http::{ClientKey, ClientKeys, IpPrefix, Problem, RateLimitHeaders, Respond, RespondFuture, RespondLayer},
    rate_limit::{
        self, Backpressure, KeyedRateLimit, KeyedRateLimitHandle, KeyedWaiting, Nothing, OneUnit, RateLimit,
        RateLimitHandle, RateLimitLayer, Reservation, Waiting, WaitingFuture,
    },
    red::{self, Red, RedHandle, RedLayer},
    redis::{
        self, LaneSettings, Lanes, LeaseSettings, RedisFailure, RedisLimitSettings, RedisLimits, RedisStore,
        RedisStoreStats, TieredStore, Verdict,
    },
    retry::{self, CloneRequest, FlatCost, OfSettings, Retry, RetryHandle, RetryLayer, RetrySettings},
    scan_resistant::ScanResistantStore,
    timeout::{self, Timeout, TimeoutHandle, TimeoutLayer},
};
use tower::util::BoxCloneService;

/// Whether a type has an auto trait, by the inherent constant that hides the trait's.
macro_rules! has {
    ($type:ty: $bound:ident) => {{
        #[allow(dead_code)]
        trait Otherwise {
            const HAS: bool = false;
        }
        impl<T: ?Sized> Otherwise for T {}
        #[allow(dead_code)]
        struct Is<T: ?Sized>(std::marker::PhantomData<T>);
        #[allow(dead_code)]
        impl<T: ?Sized + $bound> Is<T> {
            const HAS: bool = true;
        }
        <Is<$type>>::HAS
    }};
}

macro_rules! assert_auto_traits {
    ($($type:ty: send $send:literal, sync $sync:literal, unpin $unpin:literal;)*) => {$(
        assert_eq!(
            (has!($type: Send), has!($type: Sync), has!($type: Unpin)),
            ($send, $sync, $unpin),
            stringify!($type)
        );
    )*};
}

type Everything = u32;
type Boxed = BoxCloneService<u32, u32, Rejected>;
type NotSend = Rc<u32>;
type NotUnpin = PhantomPinned;
type NotSync = std::cell::Cell<u32>;
type Default = ErrorsAreTransient;
type Key = fn(&u32) -> u32;
type ByKey = Hooks<fn(&u32) -> Option<u32>>;
type Loads<S> =
    cache::ResponseFuture<S, u32, u32, cache::MemoryStore<u32, u32>, Default, KeepAll, RefuseWaiters, Untold>;
type Retries<S> = retry::ResponseFuture<S, u32, Default, CloneRequest, FlatCost, OfSettings>;
type Ready = tower::util::ServiceFn<fn(u32) -> std::future::Ready<Result<u32, Rejected>>>;

#[test]
fn auto_traits_are_those_of_what_is_inside() {
    assert_auto_traits! {
        CacheLayer<u32, u32, ByKey>: send true, sync true, unpin true;
        CacheHandle<u32, u32>: send true, sync true, unpin true;
        CacheHandle<u32, NotSync>: send false, sync false, unpin true;
        Cache<Everything, u32, u32, ByKey>: send true, sync true, unpin true;
        Cache<Boxed, u32, u32, ByKey>: send true, sync false, unpin true;
        Cache<NotSend, u32, u32, ByKey>: send false, sync false, unpin true;
        Loads<Boxed>: send true, sync false, unpin true;
        Loads<Ready>: send true, sync true, unpin true;
        CacheKey: send true, sync true, unpin true;
        CacheStats: send true, sync true, unpin true;
        CacheStatus: send true, sync true, unpin true;
        Entry<u32>: send true, sync true, unpin true;
        WeakEntry<u32>: send true, sync true, unpin true;
        WeakEntry<NotSync>: send false, sync false, unpin true;
        Seen: send true, sync true, unpin true;
        Fetched<u32>: send true, sync false, unpin true;
        Lanes: send true, sync true, unpin true;
        RedisStore<Vec<u8>>: send true, sync true, unpin true;
        ScanResistantStore<u32, u32>: send true, sync true, unpin true;
        ScanResistantStore<u32, NotSync>: send false, sync false, unpin true;
        TieredStore<Vec<u8>>: send true, sync true, unpin true;
        TieredStore<NotSync>: send false, sync false, unpin true;
        RedisStoreStats: send true, sync true, unpin true;
        redis::Fetching<u32>: send true, sync false, unpin true;
        redis::Writing: send true, sync false, unpin true;
        Keep: send true, sync true, unpin true;
        CircuitBreakerLayer: send true, sync true, unpin true;
        CircuitBreakerHandle: send true, sync true, unpin true;
        Permit: send true, sync true, unpin true;
        CircuitBreaker<Everything>: send true, sync true, unpin true;
        CircuitBreaker<Boxed>: send true, sync false, unpin true;
        CircuitBreaker<NotSend>: send false, sync false, unpin true;
        CircuitBreaker<NotSync>: send true, sync false, unpin true;
        ResponseFuture<Everything, Default>: send true, sync true, unpin true;
        ResponseFuture<NotSend, Default>: send false, sync false, unpin true;
        ResponseFuture<NotSync, Default>: send true, sync false, unpin true;
        ResponseFuture<NotUnpin, Default>: send true, sync true, unpin false;
        KeyedCircuitBreakerLayer<u32, Key>: send true, sync true, unpin true;
        KeyedCircuitBreakerHandle<u32>: send true, sync true, unpin true;
        KeyedCircuitBreaker<Everything, u32, Key>: send true, sync true, unpin true;
        KeyedCircuitBreaker<Boxed, u32, Key>: send true, sync false, unpin true;
        RateLimitLayer: send true, sync true, unpin true;
        RateLimitHandle: send true, sync true, unpin true;
        RateLimit<Everything>: send true, sync true, unpin true;
        RateLimit<Boxed>: send true, sync false, unpin true;
        RateLimit<NotSend>: send false, sync false, unpin true;
        RateLimit<Boxed, OneUnit, Waiting>: send true, sync false, unpin true;
        RateLimit<Everything, OneUnit, Backpressure>: send true, sync true, unpin true;
        RateLimit<NotSend, OneUnit, Backpressure>: send false, sync false, unpin true;
        WaitingFuture<Boxed, u32, Nothing>: send true, sync false, unpin true;
        WaitingFuture<Ready, u32, Nothing>: send true, sync true, unpin true;
        Reservation: send true, sync true, unpin true;
        KeyedRateLimitHandle<NotSync>: send true, sync true, unpin true;
        KeyedRateLimit<Everything, u32, Key>: send true, sync true, unpin true;
        KeyedRateLimit<Boxed, u32, Key>: send true, sync false, unpin true;
        KeyedWaiting<Everything, u32, Key>: send true, sync true, unpin true;
        rate_limit::KeyedResponseFuture<Boxed, u32, std::future::Ready<Result<(), Rejected>>, ()>: send true, sync false, unpin true;
        rate_limit::ResponseFuture<NotSend>: send false, sync false, unpin true;
        rate_limit::ResponseFuture<NotUnpin>: send true, sync true, unpin false;
        Lanes: send true, sync true, unpin true;
        LaneSettings: send true, sync true, unpin true;
        LeaseSettings: send true, sync true, unpin true;
        RedisLimitSettings: send true, sync true, unpin true;
        RedisFailure: send true, sync true, unpin true;
        RedisLimits<u32>: send true, sync true, unpin true;
        Verdict: send true, sync true, unpin true;
        KeyedRateLimit<Boxed, u32, Key, OneUnit, Nothing, RedisLimits<u32>>: send true, sync false, unpin true;
        rate_limit::KeyedResponseFuture<Ready, u32, Verdict, ()>: send true, sync true, unpin true;
        rate_limit::KeyedResponseFuture<Boxed, u32, Verdict, ()>: send true, sync false, unpin true;
        RedLayer: send true, sync true, unpin true;
        RedHandle: send true, sync true, unpin true;
        red::Call: send true, sync true, unpin true;
        Red<Everything>: send true, sync true, unpin true;
        Red<Boxed>: send true, sync false, unpin true;
        Red<NotSend>: send false, sync false, unpin true;
        red::ResponseFuture<Everything, Default>: send true, sync true, unpin true;
        red::ResponseFuture<NotSend, Default>: send false, sync false, unpin true;
        red::ResponseFuture<NotSync, Default>: send true, sync false, unpin true;
        red::ResponseFuture<NotUnpin, Default>: send true, sync true, unpin false;
        RetryLayer: send true, sync true, unpin true;
        RetryHandle: send true, sync true, unpin true;
        Retry<Everything>: send true, sync true, unpin true;
        Retry<Boxed>: send true, sync false, unpin true;
        Retry<NotSend>: send false, sync false, unpin true;
        Retries<Boxed>: send true, sync false, unpin true;
        Retries<Late<Boxed>>: send true, sync false, unpin true;
        Retries<Ready>: send true, sync true, unpin true;
        Budget: send true, sync true, unpin true;
        Withdrawal: send true, sync true, unpin true;
        TimeoutLayer: send true, sync true, unpin true;
        TimeoutHandle: send true, sync true, unpin true;
        Timeout<Everything>: send true, sync true, unpin true;
        Timeout<Boxed>: send true, sync false, unpin true;
        Timeout<NotSend>: send false, sync false, unpin true;
        timeout::ResponseFuture<Everything>: send true, sync true, unpin true;
        timeout::ResponseFuture<NotSend>: send false, sync false, unpin true;
        timeout::ResponseFuture<NotSync>: send true, sync false, unpin true;
        timeout::ResponseFuture<NotUnpin>: send true, sync true, unpin false;
        Deadline: send true, sync true, unpin true;
        DeadlineLayer: send true, sync true, unpin true;
        DeadlineService<NotSend>: send false, sync false, unpin true;
        Scope<Everything>: send true, sync true, unpin true;
        Scope<NotSend>: send false, sync false, unpin true;
        Scope<NotUnpin>: send true, sync true, unpin false;
        StampDeadline<Boxed, ()>: send true, sync false, unpin true;
        StampFuture<Boxed, (), u32>: send true, sync false, unpin true;
        Late<Everything>: send true, sync true, unpin true;
        Late<NotSend>: send false, sync false, unpin true;
        RespondLayer<Everything>: send true, sync true, unpin true;
        Respond<Everything>: send true, sync true, unpin true;
        Respond<Boxed>: send true, sync false, unpin true;
        Respond<NotSend>: send false, sync false, unpin true;
        RespondFuture<Everything, Problem>: send true, sync true, unpin true;
        RespondFuture<NotSend, Problem>: send false, sync false, unpin true;
        RespondFuture<NotSync, Problem>: send true, sync false, unpin true;
        RespondFuture<NotUnpin, Problem>: send true, sync true, unpin false;
        ClientKeys<Everything>: send true, sync true, unpin true;
        ClientKeys<NotSend>: send false, sync false, unpin true;
        ClientKey: send true, sync true, unpin true;
        IpPrefix: send true, sync true, unpin true;
        RateLimitHeaders: send true, sync true, unpin true;
        Rejected: send true, sync true, unpin true;
        ConfigError: send true, sync true, unpin true;
        Error<NotSend>: send false, sync false, unpin true;
    }
}

/// No `Clone`, `Send` or `'static` is asked of the service, the request or the answer.
#[tokio::test]
async fn a_borrowed_service_that_is_neither_clone_nor_send_works() {
    use tower::{Layer, Service, ServiceExt};
    struct Unclonable(Rc<str>);
    let text = String::from("borrowed");
    let inner = tower::service_fn(|request: Unclonable| {
        let answer = Rc::new(text.as_str());
        async move { Ok::<_, Rejected>((request.0.len(), answer)) }
    });
    let layers = (
        RedLayer::new("borrowed"),
        TimeoutLayer::new(std::time::Duration::from_secs(1)),
        DeadlineLayer::new(std::time::Duration::from_secs(1)),
        CircuitBreakerLayer::new(Settings::new()),
        RateLimitLayer::new(LIMIT),
        RateLimitLayer::new(LIMIT).backpressure(),
    );
    let mut service = layers.layer(inner);
    let (length, answer) = service.ready().await.unwrap().call(Unclonable("request".into())).await.unwrap();
    assert_eq!((length, *answer), (7, "borrowed"));
}

const LIMIT: rate_limit::RateLimitSettings =
    rate_limit::RateLimitSettings::token_bucket(rate_limit::Quota::per_second(9));

/// A retry needs a service that is `Clone`, and nothing else.
#[tokio::test]
async fn a_borrowed_service_that_is_not_send_is_retried() {
    use tower::{Layer, ServiceExt};
    let text = String::from("borrowed");
    let inner = tower::service_fn(|request: Rc<u32>| {
        let answer = Rc::new(text.as_str());
        async move { Ok::<_, Rejected>((*request, answer)) }
    });
    let service = RetryLayer::new(RetrySettings::new()).layer(inner);
    assert_eq!(*service.clone().oneshot(Rc::new(7)).await.unwrap().1, "borrowed");
    // So does a limiter that waits, or that decides by the request.
    let waits = RateLimitLayer::new(LIMIT).waiting().layer(service.clone());
    assert_eq!(*waits.oneshot(Rc::new(7)).await.unwrap().1, "borrowed");
    let keyed = rate_limit::KeyedRateLimitLayer::new(LIMIT, |key: &Rc<u32>| **key).layer(service);
    assert_eq!(*keyed.oneshot(Rc::new(7)).await.unwrap().1, "borrowed");
}
