//! The laws of the house, run over every exported layer. A new layer joins with one `subject!` at the end of this file.

#![cfg(feature = "full")]

mod support;

use std::{
    convert::Infallible,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use buttress::{
    AsRejected, DeadlineLayer, LateLayer, StampDeadlineLayer,
    cache::{CacheLayer, CacheSettings, Hooks, MemoryStore, Store},
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings, KeyedCircuitBreakerLayer},
    rate_limit::{
        Backpressure, Decisions, KeyedRateLimitHandle, KeyedRateLimitLayer, KeyedWaitingLayer, LimitStore, OneUnit,
        Quota, RateLimitLayer, RateLimitSettings, Taken, Waiting,
    },
    red::RedLayer,
    redis::{LaneSettings, Lanes, RedisLimits, Unavailable},
    retry::{Backoff, RetryLayer, RetrySettings},
    timeout::{TimeoutLayer, TimeoutSettings},
};
use futures::task::noop_waker_ref;
use support::{Answer, AppError, Control, Probe, Ready};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, buffer::Buffer, limit::ConcurrencyLimit,
    util::BoxCloneService,
};

/// A layer under test.
struct Subject<L> {
    layer: L,
    /// Makes everything the layer builds refuse from now on, and says whether it can.
    refuse: fn(&L) -> bool,
    /// Counts the permits, places and gauges that calls hold.
    held: fn(&L) -> u64,
}

trait Stack: Service<u32, Response = u32, Error = AppError, Future: Send + 'static> + Clone + Send + 'static {}
impl<S> Stack for S where
    S: Service<u32, Response = u32, Error = AppError, Future: Send + 'static> + Clone + Send + 'static
{
}

type Boxed = BoxCloneService<u32, u32, AppError>;

impl<L> Subject<L> {
    fn over_probe<S>(&self) -> (S, Arc<Control>)
    where
        L: Layer<Probe, Service = S>,
    {
        let (probe, control) = Probe::new();
        (self.layer.layer(probe), control)
    }

    fn assert_nothing_is_held(&self, control: &Control, when: &str) {
        assert_eq!((self.held)(&self.layer), 0, "held {when}");
        assert_eq!(control.alive(), 0, "futures alive {when}");
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "tasks {when}");
    }
}

fn poll_once<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    poll(&mut Context::from_waker(noop_waker_ref()))
}

async fn works<S: Stack>(service: &mut S, when: &str) {
    assert_eq!(service.ready().await.unwrap().call(7).await, Ok(7), "{when}");
}

/// tower_resilience_286_call_on_a_clone_that_was_not_polled_ready, tower_resilience_392_second_attempt_skips_readiness
async fn every_call_follows_its_own_readiness<L, S: Stack, B: Stack>(subject: &Subject<L>)
where
    L: Layer<Probe, Service = S> + Layer<Boxed, Service = B>,
{
    // The probe panics when it is called without readiness, and a clone of it has none.
    let (mut service, control) = subject.over_probe();
    for _ in 0..3 {
        works(&mut service, "the same instance").await;
        works(&mut service.clone(), "a clone").await;
        assert_eq!(service.clone().oneshot(7).await, Ok(7));
    }
    control.ready(Ready::After(2));
    works(&mut service, "ready after a while").await;

    let (probe, _) = Probe::new();
    let limited = Boxed::new(ConcurrencyLimit::new(probe, 1));
    let mut service: B = subject.layer.layer(limited);
    for _ in 0..3 {
        works(&mut service, "over a concurrency limit").await;
        works(&mut service.clone(), "a clone over a concurrency limit").await;
    }

    let (probe, _) = Probe::new();
    let into_app = |error: BoxError| error.downcast::<AppError>().map_or(AppError::NotReady("buffer"), |e| *e);
    let buffered = Boxed::new(ServiceBuilder::new().map_err(into_app).service(Buffer::new(probe, 4)));
    let mut service: B = subject.layer.layer(buffered);
    for _ in 0..3 {
        works(&mut service, "over a buffer").await;
        works(&mut service.clone(), "a clone over a buffer").await;
    }
}

/// tower_resilience_365_busy_spin, tower_561_missed_wake_up
async fn readiness_never_spins_and_never_loses_a_waker<L, S: Stack, B: Stack>(subject: &Subject<L>)
where
    L: Layer<Probe, Service = S> + Layer<Boxed, Service = B>,
{
    let (service, control) = subject.over_probe();
    control.ready(Ready::Never);
    let mut waiting: Vec<_> = (0..3)
        .map(|_| {
            let mut service = service.clone();
            tokio_test::task::spawn(async move { service.ready().await?.call(7).await })
        })
        .collect();
    for waiter in &mut waiting {
        // What is ready at once with the inner service pending decides by the request; its future then waits.
        while waiter.poll().is_pending() && waiter.is_woken() {}
        for _ in 0..10 {
            assert!(waiter.poll().is_pending());
            assert!(!waiter.is_woken(), "spins");
        }
    }
    control.ready(Ready::Yes);
    for mut waiter in waiting {
        assert!(waiter.is_woken(), "lost its waker");
        assert_eq!(waiter.poll(), Poll::Ready(Ok(7)));
    }
}

/// tower_resilience_391_inner_readiness_error_swallowed
async fn an_error_of_readiness_passes_unchanged<L, S: Stack, B: Stack>(subject: &Subject<L>)
where
    L: Layer<Probe, Service = S> + Layer<Boxed, Service = B>,
{
    let (mut service, control) = subject.over_probe();
    control.ready(Ready::Error);
    let error = async { service.ready().await?.call(7).await }.await;
    assert_eq!(error, Err(AppError::NotReady("told so")));
    control.ready(Ready::Yes);
    works(&mut service, "after an error of readiness").await;
    subject.assert_nothing_is_held(&control, "after an error of readiness");
}

/// tower_pr_855_error_in_poll_ready_kills_a_buffer
async fn a_refusal_is_an_answer_and_never_an_error_of_readiness<L, S: Stack, B: Stack>(subject: &Subject<L>)
where
    L: Layer<Probe, Service = S> + Layer<Boxed, Service = B>,
{
    let (mut service, control) = subject.over_probe();
    if !(subject.refuse)(&subject.layer) {
        return;
    }
    for _ in 0..3 {
        let refused = service.ready().await.expect("readiness is no place to refuse").call(7).await;
        let rejected = refused.unwrap_err().as_rejected().expect("a refusal");
        assert!(!rejected.reached_inner());
        assert_eq!(rejected.policy(), "contract");
    }
    assert_eq!(control.calls(), 0);
    subject.assert_nothing_is_held(&control, "after refusals");
}

/// tower_resilience_386_rejection_waits_on_a_hung_inner_poll_ready
async fn a_refusal_waits_for_nothing<L, S: Stack, B: Stack>(subject: &Subject<L>)
where
    L: Layer<Probe, Service = S> + Layer<Boxed, Service = B>,
{
    let (mut service, control) = subject.over_probe();
    control.ready(Ready::Never);
    if !(subject.refuse)(&subject.layer) {
        return;
    }
    assert!(matches!(poll_once(|cx| service.poll_ready(cx)), Poll::Ready(Ok(()))));
    let mut call = Box::pin(service.call(7));
    match poll_once(|cx| call.as_mut().poll(cx)) {
        Poll::Ready(Err(error)) => assert!(error.as_rejected().is_some()),
        other => panic!("{other:?}"),
    }
}

/// tower_408_readiness_reserved_and_never_used
async fn readiness_that_is_never_used_is_given_back<L, S: Stack, B: Stack>(subject: &Subject<L>)
where
    L: Layer<Probe, Service = S> + Layer<Boxed, Service = B>,
{
    let (service, control) = subject.over_probe();
    for _ in 0..5 {
        let mut idle = service.clone();
        idle.ready().await.unwrap();
        drop(idle);
        let mut waits = service.clone();
        control.ready(Ready::Never);
        let _ = poll_once(|cx| waits.poll_ready(cx));
        drop(waits);
        control.ready(Ready::Yes);
        subject.assert_nothing_is_held(&control, "after unused readiness");
    }
    works(&mut service.clone(), "after unused readiness").await;
}

/// hystrix_1621_probe_cancelled, resilience4j_332_permit_not_released_on_cancel, tower_resilience_287_task_per_waiter
async fn cancelled_anywhere_nothing_is_lost<L, S: Stack, B: Stack>(subject: &Subject<L>)
where
    L: Layer<Probe, Service = S> + Layer<Boxed, Service = B>,
{
    let (service, control) = subject.over_probe();
    control.ready(Ready::After(3));
    control.answer(Answer::After(4));
    for polls in 0_u32.. {
        let mut own = service.clone();
        let mut call = Box::pin(async move { own.ready().await?.call(7).await });
        let finished = (0..polls).any(|_| poll_once(|cx| call.as_mut().poll(cx)).is_ready());
        drop(call);
        subject.assert_nothing_is_held(&control, &format!("after {polls} polls"));
        works(&mut service.clone(), &format!("after {polls} polls")).await;
        if finished {
            assert!(polls > 7, "{polls} polls saw every state");
            break;
        }
    }
    // Never polled at all, and finished but kept.
    let mut own = service.clone();
    drop(own.ready().await.unwrap().call(7));
    subject.assert_nothing_is_held(&control, "after a future that was never polled");
    control.answer(Answer::Ok);
    let mut kept = Box::pin(own.ready().await.unwrap().call(7));
    assert_eq!(poll_fn(|cx| kept.as_mut().poll(cx)).await, Ok(7));
    assert_eq!((subject.held)(&subject.layer), 0, "a finished future that is kept holds nothing");
}

/// gobreaker_TestPanicInRequest, tower_resilience_126_panicking_callbacks
async fn a_panic_anywhere_harms_only_its_own_call<L, S: Stack, B: Stack>(subject: &Subject<L>)
where
    L: Layer<Probe, Service = S> + Layer<Boxed, Service = B>,
{
    let (service, control) = subject.over_probe();
    let panics = [(Ready::Panic, Answer::Ok), (Ready::Yes, Answer::PanicInCall), (Ready::Yes, Answer::PanicInFuture)];
    for (ready, answer) in panics {
        control.ready(ready);
        control.answer(answer);
        let mut own = service.clone();
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let mut call = Box::pin(async move { own.ready().await?.call(7).await });
            poll_once(|cx| call.as_mut().poll(cx))
        }));
        assert!(caught.is_err(), "{answer:?}");
        control.ready(Ready::Yes);
        control.answer(Answer::Ok);
        subject.assert_nothing_is_held(&control, "after a panic");
        for _ in 0..10 {
            works(&mut service.clone(), "after a panic").await;
        }
    }
}

/// tower_794_clone_does_not_share_state
async fn clones_and_further_services_share_the_state<L, S: Stack, B: Stack>(subject: &Subject<L>)
where
    L: Layer<Probe, Service = S> + Layer<Boxed, Service = B> + Clone,
{
    let (service, _) = subject.over_probe();
    let (further, _) = Subject { layer: subject.layer.clone(), ..*subject }.over_probe();
    if !(subject.refuse)(&subject.layer) {
        return;
    }
    for service in [service.clone(), service, further] {
        assert!(service.oneshot(7).await.unwrap_err().as_rejected().is_some());
    }
}

async fn it_works_over_a_boxed_clone_service<L, S: Stack, B: Stack>(subject: &Subject<L>)
where
    L: Layer<Probe, Service = S> + Layer<Boxed, Service = B>,
{
    let (probe, control) = Probe::new();
    let service: B = subject.layer.layer(Boxed::new(probe));
    // Into a task, as hyper and axum do.
    let answer = tokio::spawn(service.clone().oneshot(7)).await.unwrap();
    assert_eq!(answer, Ok(7));
    control.answer(Answer::Err);
    assert_eq!(service.oneshot(7).await, Err(AppError::Down));
}

/// Runs every law over a layer.
macro_rules! subject {
    ($name:ident, $layer:expr, refuse: $refuse:expr, held: $held:expr) => {
        mod $name {
            use super::*;

            subject!(@laws $layer, $refuse, $held;
                every_call_follows_its_own_readiness,
                readiness_never_spins_and_never_loses_a_waker,
                an_error_of_readiness_passes_unchanged,
                a_refusal_is_an_answer_and_never_an_error_of_readiness,
                a_refusal_waits_for_nothing,
                readiness_that_is_never_used_is_given_back,
                cancelled_anywhere_nothing_is_lost,
                a_panic_anywhere_harms_only_its_own_call,
                clones_and_further_services_share_the_state,
                it_works_over_a_boxed_clone_service,
            );
        }
    };
    (@laws $layer:expr, $refuse:expr, $held:expr; $law:ident, $($rest:ident,)*) => {
        #[tokio::test(start_paused = true)]
        async fn $law() {
            let subject = Subject { layer: $layer, refuse: $refuse, held: $held };
            // A circuit that was opened just now is half-open.
            tokio::time::advance(Duration::from_millis(1)).await;
            super::$law(&subject).await;
        }
        subject!(@laws $layer, $refuse, $held; $($rest,)*);
    };
    (@laws $layer:expr, $refuse:expr, $held:expr;) => {};
}

/// Tolerates the failures that the laws provoke.
const PATIENT: CircuitBreakerSettings = CircuitBreakerSettings::consecutive_failures(1_000).name("contract");

/// A circuit that has just opened, and in half-open tolerates the failures that the laws provoke.
fn opened() -> CircuitBreakerLayer {
    let settings = CircuitBreakerSettings::consecutive_failures(1).open_for(Duration::from_nanos(1)).name("contract");
    let patient = settings.half_open_timeout(Duration::MAX).probes(1_000).successes(500);
    let layer = CircuitBreakerLayer::new(patient);
    layer.handle().try_acquire().unwrap().failure();
    layer
}

fn force_open(layer: &CircuitBreakerLayer) -> bool {
    layer.handle().force_open();
    true
}

fn held(layer: &CircuitBreakerLayer) -> u64 {
    let snapshot = layer.handle().snapshot();
    u64::from(snapshot.probes_in_flight) + snapshot.overdue_in_flight
}

type Keyed = KeyedCircuitBreakerLayer<u32, fn(&u32) -> u32>;

fn force_open_key(layer: &Keyed) -> bool {
    // The handle keeps the circuit from being forgotten; forced open it stays by itself.
    layer.handle().circuit(7).unwrap().force_open();
    true
}

fn held_by_key(layer: &Keyed) -> u64 {
    layer.handle().get(7).map_or(0, |circuit| u64::from(circuit.snapshot().probes_in_flight))
}

const RETRY: RetrySettings = RetrySettings::new().backoff(Backoff::constant(Duration::from_secs(1))).name("contract");
const LIMIT: TimeoutSettings = TimeoutSettings::new(Duration::from_secs(60)).name("contract");

type Stamp = StampDeadlineLayer<fn(&mut u32, Duration)>;

/// What is taken for retries that have not begun: these laws see none that has.
fn held_of_the_budget(layer: &RetryLayer) -> u64 {
    layer.handle().budget().unwrap().balance().spent.as_percent()
}

type Cached<St = MemoryStore<u32, u32>> = CacheLayer<u32, u32, Hooks<fn(&u32) -> Option<u32>>, St>;

const CACHE: CacheSettings = CacheSettings::new().name("contract");

/// Places of loads and of waiters.
fn held_by_loads<St: Store<u32, u32>>(layer: &Cached<St>) -> u64 {
    layer.handle().stats().in_flight as u64
}

subject!(cache_without_a_key, <Cached>::new(CACHE, |_: &u32| None), refuse: |_| false, held: held_by_loads);

/// A load runs in a task of its own, on purpose: it outlives its caller, and its panic and its readiness come later than the first poll. What the
/// other laws say of calls, `tests/cache/load.rs` says of loads.
mod cache {
    use super::*;

    subject!(@laws <Cached>::new(CACHE, |request: &u32| Some(*request)), |_| false, held_by_loads;
        every_call_follows_its_own_readiness,
        an_error_of_readiness_passes_unchanged,
        readiness_that_is_never_used_is_given_back,
    );
}
/// The same cache over another store.
mod scan_resistant_cache {
    use super::*;
    use buttress::{cache::CacheHandle, scan_resistant::ScanResistantStore};

    fn layer() -> Cached<ScanResistantStore<u32, u32>> {
        let key: fn(&u32) -> Option<u32> = |request| Some(*request);
        CacheHandle::with_store(CACHE, ScanResistantStore::try_new(CACHE).unwrap()).unwrap().layer(key)
    }

    subject!(@laws layer(), |_| false, held_by_loads;
        every_call_follows_its_own_readiness,
        an_error_of_readiness_passes_unchanged,
        readiness_that_is_never_used_is_given_back,
    );
}
subject!(circuit_breaker, CircuitBreakerLayer::new(PATIENT), refuse: force_open, held: held);
subject!(circuit_breaker_with_slow_calls, CircuitBreakerLayer::new(PATIENT.slow_calls(Duration::from_secs(1))), refuse: force_open, held: held);
subject!(circuit_breaker_half_open, opened(), refuse: force_open, held: held);
subject!(keyed_circuit_breaker, Keyed::new(PATIENT, |request: &u32| *request), refuse: force_open_key, held: held_by_key);
subject!(late, LateLayer, refuse: |_| false, held: |_| 0);
/// Uses up what there is for a day.
fn use_up(layer: &RateLimitLayer) -> bool {
    let handle = layer.handle();
    while handle.check(1).allowed {}
    true
}

const QUOTA: Quota = Quota::per_day(1_000);
const BUCKET: RateLimitSettings = RateLimitSettings::token_bucket(QUOTA).name("contract");
const SEVERAL: RateLimitSettings = BUCKET
    .and(RateLimitSettings::sliding_log(QUOTA).name("contract"))
    .and(RateLimitSettings::sliding_counter(QUOTA).name("contract"));

type KeyedLimits = KeyedRateLimitLayer<u32, fn(&u32) -> u32>;
type KeyedLines = KeyedWaitingLayer<u32, fn(&u32) -> u32>;
type LimitLayer<M> = RateLimitLayer<OneUnit, M>;

fn use_up_key(layer: &KeyedLimits) -> bool {
    layer.handle().drain(&7);
    true
}

/// Without Redis, of which it is known at once.
fn away() -> RedisLimits<u32> {
    let lanes = Lanes::try_from_url("redis://127.0.0.1:1", LaneSettings::new()).unwrap();
    lanes.breaker().force_open();
    RedisLimits::try_new(&lanes, BUCKET, Unavailable::local(1.0)).unwrap()
}

/// A store that is asked in the future.
struct Later(KeyedRateLimitHandle<u32>);

impl LimitStore<u32> for Later {
    type Later = std::future::Ready<Taken<Infallible>>;

    fn take(&self, key: &u32, cost: u64) -> Taken<Self::Later> {
        Taken::Later(std::future::ready(Taken::Now(self.0.try_acquire(key, cost))))
    }

    fn decisions(&self, key: &u32) -> Option<Decisions> {
        LimitStore::decisions(&self.0, key)
    }

    fn charge(&self, key: &u32, units: u64) {
        self.0.charge(key, units);
    }

    fn refund(&self, key: &u32, units: u64, _: Duration) {
        self.0.refund(key, units);
    }

    fn pause(&self, key: &u32, wait: Duration) {
        self.0.pause(key, wait);
    }
}

/// A call in line is none that is refused: so that it is, there is no end to the wait.
fn pause(layer: &LimitLayer<Waiting>) -> bool {
    layer.handle().pause(Duration::MAX);
    true
}

fn pause_key(layer: &KeyedLines) -> bool {
    layer.handle().limiter(7).pause(Duration::MAX);
    true
}

fn held_in_line<M>(layer: &LimitLayer<M>) -> u64 {
    layer.handle().snapshot().waiting as u64
}

/// Those of readiness too: nothing else takes any.
fn held_of_the_day(layer: &LimitLayer<Backpressure>) -> u64 {
    let snapshot = layer.handle().snapshot();
    // What calls have taken is used; the laws make fewer than a hundred.
    u64::from(snapshot.decisions[0].remaining < 900) + snapshot.waiting as u64
}

subject!(token_bucket, RateLimitLayer::new(RateLimitSettings::token_bucket(QUOTA).name("contract")), refuse: use_up, held: |_| 0);
subject!(sliding_log, RateLimitLayer::new(RateLimitSettings::sliding_log(QUOTA).name("contract")), refuse: use_up, held: |_| 0);
subject!(several_limits, RateLimitLayer::new(SEVERAL), refuse: use_up, held: |_| 0);
subject!(rate_limit_waiting, RateLimitLayer::new(BUCKET).waiting(), refuse: pause, held: held_in_line);
subject!(rate_limit_backpressure, RateLimitLayer::new(BUCKET).backpressure(), refuse: |_| false, held: held_of_the_day);
subject!(keyed_rate_limit, KeyedLimits::new(BUCKET, |request: &u32| *request), refuse: use_up_key, held: |_| 0);
subject!(keyed_rate_limit_several, KeyedLimits::new(SEVERAL, |request: &u32| *request), refuse: use_up_key, held: |_| 0);
subject!(keyed_waiting, KeyedLines::new(BUCKET, |request: &u32| *request), refuse: pause_key, held: |layer| layer.handle().get(7).map_or(0, |limiter| limiter.snapshot().waiting as u64));
subject!(redis_limits_away, KeyedRateLimitLayer::over(away(), |request: &u32| *request), refuse: |_| false, held: |_| 0);
subject!(limits_that_answer_later, KeyedRateLimitLayer::over(Later(KeyedRateLimitHandle::try_new(BUCKET).unwrap()), |request: &u32| *request), refuse: |_| false, held: |_| 0);
subject!(sliding_counter, RateLimitLayer::new(RateLimitSettings::sliding_counter(QUOTA).name("contract")), refuse: use_up, held: |_| 0);
subject!(red, RedLayer::new("contract"), refuse: |_| false, held: |layer| layer.handle().snapshot().requests.in_flight);
subject!(retry, RetryLayer::new(RETRY), refuse: |_| false, held: held_of_the_budget);
subject!(retry_within, RetryLayer::new(RETRY.within(Duration::from_secs(60))), refuse: |_| false, held: held_of_the_budget);
subject!(timeout, TimeoutLayer::new(Duration::from_secs(60)), refuse: |_| false, held: |_| 0);
subject!(timeout_of_readiness, TimeoutLayer::new(LIMIT.cover_readiness()), refuse: |_| false, held: |_| 0);
subject!(deadline, DeadlineLayer::new(Duration::from_secs(60)), refuse: |_| false, held: |_| 0);
subject!(stamp_deadline, Stamp::new(|_: &mut u32, _| ()), refuse: |_| false, held: |_| 0);
