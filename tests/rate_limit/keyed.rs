//! A limit per key.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use buttress::{
    AsRejected, EventKind, Rejected,
    rate_limit::{
        Decisions, KeyedRateLimitHandle, KeyedRateLimitLayer, KeyedWaitingLayer, LimitStore, Quota,
        RateLimitSettings as Settings, Taken,
    },
};
use tokio::time::{Instant, Sleep, advance, sleep};
use tower::{Layer, Service, ServiceExt};

use crate::{
    ALGORITHMS, NS, SECOND,
    support::{Probe, Ready},
};

fn handle(settings: Settings) -> KeyedRateLimitHandle<u64> {
    KeyedRateLimitHandle::try_new(settings).unwrap()
}

/// How often a unit of this key can be taken now.
fn admitted(handle: &KeyedRateLimitHandle<u64>, key: u64) -> usize {
    (0..10_000).take_while(|_| handle.try_acquire(&key, 1).is_ok()).count()
}

#[tokio::test(start_paused = true)]
async fn each_key_has_a_quota_of_its_own_and_its_waits_are_exact() {
    for algorithm in ALGORITHMS {
        let handle = handle(algorithm(Quota::per_second(4)));
        for key in [1, 2, 3] {
            assert_eq!(admitted(&handle, key), 4);
            assert_eq!(handle.peek(&key).remaining, 0);
        }
        let wait = handle.try_acquire(&2, 1).unwrap_err().retry_after().unwrap();
        advance(wait - NS).await;
        assert!(handle.try_acquire(&2, 1).is_err());
        advance(NS).await;
        assert!(handle.check(&2, 1).allowed);
        assert_eq!((handle.len(), handle.is_empty()), (3, false));
    }
}

#[tokio::test(start_paused = true)]
async fn the_layer_takes_the_key_and_the_cost_from_the_request() {
    let layer = KeyedRateLimitLayer::new(Settings::token_bucket(Quota::per_second(10)).name("users"), |n: &u32| n / 10)
        .cost(|n: &u32| u64::from(n % 10));
    let service = layer.layer(Probe::new().0);
    for (request, passes) in [(19, true), (12, false), (11, true), (28, true), (20, true), (23, false)] {
        assert_eq!(service.clone().oneshot(request).await.is_ok(), passes, "{request}");
    }
    let refused = service.oneshot(19).await.unwrap_err().as_rejected().unwrap();
    assert_eq!((refused.policy(), layer.handle().name(), layer.handle().max_keys()), ("users", "users", 100_000));
}

/// A refusal needs nothing of the inner service.
#[tokio::test(start_paused = true)]
async fn a_refusal_waits_for_nothing_and_clones_nothing() {
    let (probe, control) = Probe::new();
    let layer = KeyedRateLimitLayer::new(Settings::token_bucket(Quota::per_second(1)), |_: &u32| 0_u64);
    let mut service = layer.layer(probe);
    assert!(layer.handle().try_acquire(&0, 1).is_ok());
    control.ready(Ready::Never);
    assert!(service.ready().await.unwrap().call(7).await.is_err());
    assert_eq!(control.readiness.load(Ordering::SeqCst), 0);
}

/// governor_171_librefang_3668_a_million_keys, agave_8154_eviction_gives_an_attacker_a_burst
#[tokio::test(start_paused = true)]
async fn a_flood_of_fresh_keys_gives_no_exhausted_key_its_burst_back() {
    for algorithm in ALGORITHMS {
        let handle = handle(algorithm(Quota::per_second(5)).max_keys(1_000));
        let exhausted: Vec<u64> = (0..100).map(|n| u64::MAX - n).collect();
        for key in &exhausted {
            assert_eq!(admitted(&handle, *key), 5);
        }
        for key in 0..20_000 {
            let _ = handle.try_acquire(&key, 1);
        }
        assert!(handle.len() <= 1_000);
        for key in &exhausted {
            assert_eq!(admitted(&handle, *key), 0);
        }
        // Those of the flood that found no place share one.
        assert!(handle.try_acquire(&999_999, 1).is_err());
        advance(2 * SECOND).await;
        assert_eq!(admitted(&handle, 999_999), 5, "who is full makes room");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_without_a_place_are_reported_but_not_each_of_them() {
    let heard = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&heard);
    let handle = handle(Settings::token_bucket(Quota::per_second(5)).max_keys(100));
    handle.on_event(move |event| {
        if let EventKind::KeysExhausted { max_keys, .. } = event.kind {
            assert_eq!(max_keys, 100);
            told.fetch_add(1, Ordering::SeqCst);
        }
    });
    for key in 0..1_000 {
        let _ = handle.try_acquire(&key, 1);
    }
    assert!((1..=10).contains(&heard.load(Ordering::SeqCst)));
    assert_eq!(handle.try_acquire(&0, u64::MAX).unwrap_err().retry_after(), None);
}

/// A limiter with lines tells of as few.
#[tokio::test(start_paused = true)]
async fn of_keys_without_a_line_not_each_is_reported_either() {
    let heard = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&heard);
    let layer = KeyedWaitingLayer::new(Settings::token_bucket(Quota::per_second(5)).max_keys(100), |n: &u32| *n);
    let layer = layer.on_event(move |event| {
        if let EventKind::KeysExhausted { .. } = event.kind {
            told.fetch_add(1, Ordering::SeqCst);
        }
    });
    let service = layer.layer(Probe::new().0);
    for key in 0..1_000 {
        let _ = tokio_test::task::spawn(service.clone().oneshot(key)).poll();
    }
    assert_eq!(heard.load(Ordering::SeqCst), 9);
}

/// What is told to a key without a place is what all of them share, and not that it has all of a quota.
#[tokio::test(start_paused = true)]
async fn a_look_at_a_key_without_a_place_agrees_with_what_it_gets() {
    for algorithm in ALGORITHMS {
        let handle = handle(algorithm(Quota::per_second(5)).max_keys(1));
        assert_eq!(handle.peek(&2).remaining, 5);
        assert!(handle.check(&1, 1).allowed);
        assert_eq!((handle.check(&2, 3).remaining, handle.peek(&3).remaining), (2, 2));
        let refused = handle.check(&3, 3);
        assert_eq!((refused.allowed, refused.remaining), (false, 2));
        // Once the other may leave, there is a place, and looking made no key.
        advance(2 * SECOND).await;
        assert_eq!((handle.peek(&4).remaining, handle.check(&4, 1).remaining), (5, 4));
    }
}

/// What has become full leaves, although there would be room: no sweep that grows with time, and no task.
#[tokio::test(start_paused = true)]
async fn keys_of_the_past_leave_by_themselves() {
    let handle = handle(Settings::token_bucket(Quota::per_second(5)).max_keys(1_000_000));
    for round in 0..20_u64 {
        for key in 0..1_000 {
            assert!(handle.try_acquire(&(round * 1_000 + key), 1).is_ok());
        }
        advance(SECOND).await;
    }
    assert!(handle.len() < 5_000, "{}", handle.len());
}

#[tokio::test(start_paused = true)]
async fn control_of_a_key_leaves_the_others_alone() {
    for algorithm in ALGORITHMS {
        let handle = handle(algorithm(Quota::per_second(10)));
        handle.pause(&1, 60 * SECOND);
        assert_eq!(handle.try_acquire(&1, 1).unwrap_err().retry_after(), Some(60 * SECOND));
        handle.drain(&2);
        handle.charge(&3, 4);
        handle.charge(&4, 8);
        handle.refund(&4, 5);
        assert_eq!([2, 3, 4, 5].map(|key| handle.peek(&key).remaining), [0, 6, 7, 10]);
        handle.reset(&1);
        handle.reset(&2);
        assert_eq!([1, 2].map(|key| handle.peek(&key).remaining), [10, 10]);
        handle.set_quota(Quota::per_second(20)).unwrap();
        assert_eq!(handle.peek(&9).limit, 20);
        assert_eq!(handle.set_quota(Quota::per_second(0)).unwrap_err().field(), "units");
        assert_eq!(handle.set_quota_of("nobody", Quota::per_second(1)).unwrap_err().field(), "name");
        handle.shadow(true);
        assert!((0..50).all(|_| handle.try_acquire(&9, 1).is_ok()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_nearly_used_up_is_reported() {
    for algorithm in ALGORITHMS {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&heard);
        let handle = handle(algorithm(Quota::per_second(10)).near_limit(0.8));
        handle.on_event(move |event| {
            if let EventKind::NearLimit { used, limit, .. } = event.kind {
                told.lock().unwrap().push((used, limit));
            }
        });
        assert_eq!(admitted(&handle, 1), 10);
        assert_eq!(*heard.lock().unwrap(), [(8, 10)]);
    }
}

#[test]
fn settings_that_cannot_work_are_errors_or_panics() {
    let settings = Settings::token_bucket(Quota::per_second(1));
    let field = |settings| KeyedRateLimitHandle::<u64>::try_new(settings).unwrap_err().field();
    assert_eq!(field(settings.max_keys(0)), "max_keys");
    assert_eq!(field(settings.max_waiters(0)), "max_waiters");
    assert!(std::panic::catch_unwind(|| KeyedRateLimitLayer::new(settings.max_keys(0), |n: &u64| *n)).is_err());
    assert!(std::panic::catch_unwind(|| KeyedWaitingLayer::new(settings.max_keys(0), |n: &u64| *n)).is_err());
}

/// The memory of a key: 25 bytes in a table that is at least seven sixteenths full after it has grown.
#[test]
fn a_million_keys_take_what_is_stated() {
    let handle = handle(Settings::token_bucket(Quota::per_day(5)).max_keys(1_000_000));
    let made = allocation_counter::measure(|| {
        for key in 0..900_000 {
            let _ = handle.try_acquire(&key, 1);
        }
    });
    let each = made.bytes_current as f64 / handle.len() as f64;
    assert!(handle.len() > 800_000 && each < 58.0, "{each} bytes a key, {} keys", handle.len());
}

// ===== waiting =====

#[tokio::test(start_paused = true)]
async fn the_calls_of_each_key_wait_in_a_line_of_their_own() {
    let settings = Settings::token_bucket(Quota::per_second(10).burst(1)).max_wait(SECOND);
    let layer = KeyedWaitingLayer::new(settings, |n: &u32| n % 2);
    let service = layer.layer(Probe::new().0);
    let begin = Instant::now();
    let calls: Vec<_> = (0..10).map(|n| tokio::spawn(service.clone().oneshot(n))).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(begin.elapsed(), Duration::from_millis(400));
    // Who would wait too long is refused, by the limit of its key.
    layer.handle().limiter(1).pause(2 * SECOND);
    assert!(service.clone().oneshot(1).await.is_err());
    assert!(service.clone().oneshot(2).await.is_ok());
    assert_eq!((layer.handle().len(), layer.handle().get(7).is_none()), (2, true));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_somebody_waits_for_does_not_leave() {
    let settings = Settings::token_bucket(Quota::per_second(1)).max_keys(2).max_wait(10 * SECOND);
    let layer = KeyedWaitingLayer::new(settings, |n: &u32| *n);
    let service = layer.layer(Probe::new().0);
    assert!(service.clone().oneshot(1).await.is_ok());
    let waits = tokio::spawn(service.clone().oneshot(1));
    tokio::task::yield_now().await;
    for other in 2..20 {
        let _ = tokio_test::task::spawn(service.clone().oneshot(other)).poll();
    }
    assert!(layer.handle().get(1).is_some());
    assert_eq!(waits.await.unwrap(), Ok(1));
}

/// With its quota, and although it is full.
#[tokio::test(start_paused = true)]
async fn a_key_whose_handle_is_kept_does_not_leave() {
    let settings = Settings::token_bucket(Quota::per_second(1)).max_keys(2);
    let layer = KeyedWaitingLayer::new(settings, |n: &u32| *n);
    let kept = layer.handle().limiter(1);
    kept.set_quota(Quota::per_second(7)).unwrap();
    for other in 2..20 {
        let _ = layer.handle().limiter(other);
    }
    assert_eq!(layer.handle().limiter(1).peek().limit, 7);
    drop(kept);
    for other in 2..20 {
        let _ = layer.handle().limiter(other);
    }
    assert_eq!(layer.handle().limiter(1).peek().limit, 1);
}

// ===== a store that answers later =====

/// The limits of a handle, a hundred milliseconds away.
struct Far(KeyedRateLimitHandle<u64>);

struct Later {
    sleep: Pin<Box<Sleep>>,
    take: Box<dyn FnMut() -> Result<(), Rejected> + Send + Sync>,
}

impl Future for Later {
    type Output = Taken<Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        std::task::ready!(self.sleep.as_mut().poll(cx));
        Poll::Ready(Taken::Now((self.take)()))
    }
}

impl LimitStore<u64> for Far {
    type Later = Later;

    fn take(&self, key: &u64, cost: u64) -> Taken<Later> {
        let (handle, key) = (self.0.clone(), *key);
        let take = Box::new(move || handle.try_acquire(&key, cost));
        Taken::Later(Later { sleep: Box::pin(sleep(SECOND / 10)), take })
    }

    fn decisions(&self, _: &u64) -> Option<Decisions> {
        None
    }

    fn charge(&self, key: &u64, units: u64) {
        self.0.charge(key, units);
    }

    fn refund(&self, key: &u64, units: u64, _: Duration) {
        self.0.refund(key, units);
    }

    fn pause(&self, key: &u64, wait: Duration) {
        self.0.pause(key, wait);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_may_answer_later() {
    let handle = handle(Settings::token_bucket(Quota::per_second(2)));
    let actual = buttress::rate_limit::ActualCost(|_: &u32| 0);
    let (probe, control) = Probe::new();
    let layer = KeyedRateLimitLayer::over(Far(handle.clone()), |n: &u32| u64::from(*n)).after(actual);
    let service = layer.layer(probe);
    let begin = Instant::now();
    assert_eq!(service.clone().oneshot(7).await, Ok(7));
    assert_eq!((begin.elapsed(), handle.peek(&7).remaining), (SECOND / 10, 2), "it has cost nothing after all");
    handle.drain(&7);
    assert!(service.clone().oneshot(7).await.is_err());
    assert_eq!(control.calls(), 1);
    // Who goes away while the store thinks has called nobody.
    let mut gone = tokio_test::task::spawn(service.oneshot(8));
    assert!(gone.poll().is_pending());
    drop(gone);
    assert_eq!(control.calls(), 1);
}

/// A store in shadow mode, which would have refused every call.
struct Lenient(Arc<AtomicU64>);

impl LimitStore<u64> for Lenient {
    type Later = std::future::Ready<Taken<Infallible>>;

    fn take(&self, _: &u64, _: u64) -> Taken<Self::Later> {
        Taken::Later(std::future::ready(Taken::Unpaid))
    }

    fn decisions(&self, _: &u64) -> Option<Decisions> {
        None
    }

    fn charge(&self, _: &u64, _: u64) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn refund(&self, _: &u64, _: u64, _: Duration) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn pause(&self, _: &u64, _: Duration) {}
}

#[tokio::test]
async fn what_a_store_says_later_was_not_paid_is_not_settled() {
    for actual in [0, 5] {
        let told = Arc::new(AtomicU64::new(0));
        let layer = KeyedRateLimitLayer::over(Lenient(Arc::clone(&told)), |n: &u32| u64::from(*n))
            .after(buttress::rate_limit::ActualCost(move |_: &u32| actual));
        assert_eq!(layer.layer(Probe::new().0).oneshot(7).await, Ok(7));
        assert_eq!(told.load(Ordering::Relaxed), 0);
    }
}
