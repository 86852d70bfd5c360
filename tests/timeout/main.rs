//! The time-out, on paused time.

#![cfg(feature = "full")]

#[path = "../support/mod.rs"]
mod support;

use std::{
    future::{pending, poll_fn, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use buttress::{
    AsRejected, Deadline, DeadlineLayer, Error, EventKind, LateLayer, Reason, Rejected,
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings, CircuitState},
    timeout::{TimeoutHandle, TimeoutLayer, TimeoutSettings},
};
use support::{Answer, AppError, Probe, Ready};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn timed_out() -> AppError {
    AppError::Rejected(Rejected::new("timeout", Reason::TimedOut))
}

fn deadline_exceeded() -> AppError {
    AppError::Rejected(Rejected::new("timeout", Reason::DeadlineExceeded))
}

/// Answers after so many milliseconds.
async fn after(millis: u32) -> Result<u32, AppError> {
    sleep(millis * MS).await;
    Ok(millis)
}

/// Answers with an error after so many milliseconds.
async fn fails_after(millis: u32) -> Result<u32, AppError> {
    sleep(millis * MS).await;
    Err(AppError::Down)
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_longer_is_refused_at_the_limit() {
    let mut stack = TimeoutLayer::new(SECOND).layer(service_fn(after));
    for (takes, expected, ends) in [(999, Ok(999), 999), (5000, Err(timed_out()), 1000)] {
        let began = Instant::now();
        assert_eq!(stack.ready().await.unwrap().call(takes).await, expected);
        assert_eq!(began.elapsed().as_millis(), ends);
    }
}

/// tower_resilience_195_a_time_out_that_does_not_cancel
#[tokio::test(start_paused = true)]
async fn the_inner_future_is_dropped_at_the_limit() {
    struct Tells(Arc<AtomicBool>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let inner = service_fn({
        let dropped = Arc::clone(&dropped);
        move |_: u32| {
            let tells = Tells(Arc::clone(&dropped));
            async move {
                let _tells = tells;
                pending::<Result<u32, AppError>>().await
            }
        }
    });
    let mut stack = TimeoutLayer::new(SECOND).layer(inner);
    let mut call = tokio_test::task::spawn(stack.ready().await.unwrap().call(7));
    assert!(call.poll().is_pending());
    assert!(!dropped.load(Ordering::SeqCst));
    sleep(SECOND + MS).await;
    // The future is kept, and yet what it was about is gone.
    assert_eq!(call.poll(), Poll::Ready(Err(timed_out())));
    assert!(dropped.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_ready_at_once_is_never_too_late() {
    for limit in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        let stack = TimeoutLayer::new(limit).layer(service_fn(|n: u32| ready(Ok::<_, AppError>(n))));
        assert_eq!(stack.oneshot(7).await, Ok(7));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_there_when_the_time_is_over_wins() {
    let stack = TimeoutLayer::new(SECOND).layer(service_fn(after));
    assert_eq!(stack.clone().oneshot(1000).await, Ok(1000));
    // The caller comes back late: the answer is there, and so is the end of the time.
    let mut call = tokio_test::task::spawn(stack.oneshot(1000));
    assert!(call.poll().is_pending());
    sleep(10 * SECOND).await;
    assert_eq!(call.poll(), Poll::Ready(Ok(1000)));
}

/// tokio_2667_duration_max_panics, tower_rate_limit_duration_max
#[tokio::test(start_paused = true)]
async fn any_limit_will_do() {
    let extremes = [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(u64::MAX / 10), Duration::MAX];
    for (n, limit) in extremes.into_iter().enumerate() {
        for cover in [false, true] {
            let settings = TimeoutSettings::new(limit);
            let settings = if cover { settings.cover_readiness() } else { settings };
            let stack = TimeoutLayer::new(settings).layer(service_fn(after));
            let answer = Deadline::after(limit).scope(stack.oneshot(5)).await;
            assert_eq!(answer.is_ok(), n >= 2, "{limit:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_can_come_from_the_request() {
    let by_request = |millis: &u32| (*millis > 1000).then_some(2 * SECOND);
    let mut stack = TimeoutLayer::new(100 * MS).from_request(by_request).layer(service_fn(after));
    for (takes, expected) in [(99, Ok(99)), (200, Err(timed_out())), (1500, Ok(1500)), (2500, Err(timed_out()))] {
        assert_eq!(stack.ready().await.unwrap().call(takes).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_shortens_the_limit_and_is_named() {
    let stack = TimeoutLayer::new(2 * SECOND).layer(service_fn(after));
    for (deadline, expected, ends) in
        [(SECOND, deadline_exceeded(), 1000), (3 * SECOND, timed_out(), 2000), (2 * SECOND, timed_out(), 2000)]
    {
        let began = Instant::now();
        assert_eq!(Deadline::after(deadline).scope(stack.clone().oneshot(9000)).await, Err(expected));
        assert_eq!(began.elapsed().as_millis(), ends, "{deadline:?}");
    }
    let layered = ServiceBuilder::new().layer(DeadlineLayer::new(SECOND)).service(stack);
    assert_eq!(layered.oneshot(9000).await, Err(deadline_exceeded()));
}

#[tokio::test(start_paused = true)]
async fn a_call_does_not_begin_after_the_deadline() {
    let (probe, control) = Probe::new();
    let mut timeout = TimeoutLayer::new(SECOND).layer(probe);
    let deadline = Deadline::after(SECOND);
    sleep(2 * SECOND).await;
    control.answer(Answer::PanicInFuture);
    let call = timeout.ready().await.unwrap().call(7);
    // Ready at once or not, nobody wants the answer any more.
    assert_eq!(deadline.scope(call).await, Err(deadline_exceeded()));
    assert_eq!(control.alive(), 0);
}

/// Hurried callers must not open the circuit for everyone.
#[tokio::test(start_paused = true)]
async fn to_the_breaker_outside_a_time_out_is_a_failure_and_a_deadline_is_none() {
    let breaker = CircuitBreakerLayer::new(CircuitBreakerSettings::consecutive_failures(1));
    let circuit = breaker.handle();
    let stack = ServiceBuilder::new().layer(breaker).layer(TimeoutLayer::new(SECOND)).service_fn(after);
    assert_eq!(Deadline::after(MS).scope(stack.clone().oneshot(9000)).await, Err(deadline_exceeded()));
    assert_eq!(circuit.state(), CircuitState::Closed);
    assert_eq!(stack.oneshot(9000).await, Err(timed_out()));
    assert_eq!(circuit.state(), CircuitState::Open);
}

/// The limit outside is the deadline inside, so both end at once; whoever has set the limit has a time-out.
#[tokio::test(start_paused = true)]
async fn a_time_out_is_one_to_who_has_set_it_whatever_it_is_to_those_inside() {
    let seen = Arc::new(Mutex::new(None));
    let spy = |answer: Result<u32, AppError>| {
        if let Err(error) = &answer {
            *seen.lock().unwrap() = error.as_rejected().map(|rejected| (rejected.policy(), rejected.reason()));
        }
        answer
    };
    let named = |name, limit| TimeoutLayer::new(TimeoutSettings::new(limit).name(name));
    for millis in [1000_u32, 1001, 1333, 1] {
        let limit = millis * MS + Duration::from_micros(300);
        let inner = named("inner", 10 * SECOND).layer(service_fn(after));
        let outer = named("outer", limit).layer(inner.then(|answer| ready(spy(answer))));
        let error = outer.oneshot(60_000).await.unwrap_err();
        assert_eq!(error.as_rejected(), Some(Rejected::new("outer", Reason::TimedOut)));
    }
    assert_eq!(*seen.lock().unwrap(), Some(("inner", Reason::DeadlineExceeded)));
}

#[tokio::test(start_paused = true)]
async fn an_error_that_comes_after_the_limit_is_a_time_out_and_one_before_is_not() {
    let stack = TimeoutLayer::new(SECOND).layer(service_fn(fails_after));
    assert_eq!(stack.clone().oneshot(999).await, Err(AppError::Down));
    let mut call = tokio_test::task::spawn(stack.oneshot(1500));
    assert!(call.poll().is_pending());
    sleep(2 * SECOND).await;
    assert_eq!(call.poll(), Poll::Ready(Err(timed_out())));
}

/// tower_resilience_373_the_wait_for_readiness_is_not_covered
#[tokio::test(start_paused = true)]
async fn readiness_counts_where_it_is_asked_for() {
    let (probe, control) = Probe::new();
    control.ready(Ready::Never);
    let covered = TimeoutLayer::new(TimeoutSettings::new(SECOND).cover_readiness());
    let mut service = covered.layer(probe.clone());
    let began = Instant::now();
    // A refusal is no error of readiness.
    assert!(service.ready().await.is_ok());
    assert_eq!(began.elapsed(), SECOND);
    assert_eq!(service.call(7).await, Err(timed_out()));
    assert_eq!(control.calls(), 0);

    // Once it is ready, it is a service as before.
    control.ready(Ready::Yes);
    assert_eq!(service.ready().await.unwrap().call(7).await, Ok(7));

    control.ready(Ready::Never);
    let mut bare = TimeoutLayer::new(SECOND).layer(probe);
    assert!(tokio::time::timeout(60 * SECOND, bare.ready()).await.is_err());
}

/// linkerd_delays_dont_add_up
#[tokio::test(start_paused = true)]
async fn a_call_has_what_its_readiness_has_left() {
    let gate = Arc::new(AtomicBool::new(false));
    #[derive(Clone)]
    struct Gated(Arc<AtomicBool>);
    impl Service<u32> for Gated {
        type Response = u32;
        type Error = AppError;
        type Future = std::pin::Pin<Box<dyn Future<Output = Result<u32, AppError>> + Send>>;
        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), AppError>> {
            if self.0.load(Ordering::SeqCst) { Poll::Ready(Ok(())) } else { Poll::Pending }
        }
        fn call(&mut self, millis: u32) -> Self::Future {
            Box::pin(after(millis))
        }
    }
    let layer = TimeoutLayer::new(TimeoutSettings::new(SECOND).cover_readiness());
    for (takes, expected) in [(399, Ok(399)), (401, Err(timed_out()))] {
        gate.store(false, Ordering::SeqCst);
        let mut service = layer.layer(Gated(Arc::clone(&gate)));
        let mut waits = tokio_test::task::spawn(poll_fn(|cx| service.poll_ready(cx)));
        assert!(waits.poll().is_pending());
        sleep(600 * MS).await;
        gate.store(true, Ordering::SeqCst);
        assert!(waits.poll().is_ready());
        drop(waits);
        // How long the caller takes to make its call is its own affair.
        sleep(60 * SECOND).await;
        let began = Instant::now();
        assert_eq!(service.call(takes).await, expected);
        assert!(began.elapsed() <= 402 * MS);
        // And the next call has all of it again.
        assert_eq!(service.ready().await.unwrap().call(900).await, Ok(900));
    }
}

/// A caller that gave up its wait has not waited since.
#[tokio::test(start_paused = true)]
async fn a_wait_that_was_given_up_long_ago_does_not_count() {
    let (probe, control) = Probe::new();
    control.ready(Ready::Never);
    control.answer(Answer::After(1));
    let layer = TimeoutLayer::new(TimeoutSettings::new(SECOND).cover_readiness());
    let mut service = layer.layer(probe);
    assert!(tokio::time::timeout(10 * MS, service.ready()).await.is_err());
    sleep(3600 * SECOND).await;
    control.ready(Ready::Yes);
    assert_eq!(service.ready().await.unwrap().call(7).await, Ok(7));

    control.ready(Ready::Never);
    assert!(tokio::time::timeout(10 * MS, service.ready()).await.is_err());
    sleep(3600 * SECOND).await;
    let began = Instant::now();
    assert!(service.ready().await.is_ok());
    assert_eq!(began.elapsed(), SECOND);
    assert_eq!(service.call(7).await, Err(timed_out()));
}

/// The timer counts in milliseconds, and zero is less.
#[tokio::test(start_paused = true)]
async fn what_is_pending_under_a_limit_of_zero_is_refused_at_once() {
    let yields = |n: u32| async move {
        tokio::task::yield_now().await;
        Ok::<_, AppError>(n)
    };
    let stack = TimeoutLayer::new(Duration::ZERO).layer(service_fn(yields));
    assert_eq!(stack.oneshot(7).await, Err(timed_out()));
    let stack = TimeoutLayer::new(SECOND).layer(service_fn(yields));
    let hurried = DeadlineLayer::new(Duration::ZERO).layer(stack);
    assert_eq!(hurried.oneshot(7).await, Err(deadline_exceeded()));
}

/// What `poll_ready` cannot do, because a deadline belongs to a call.
#[tokio::test(start_paused = true)]
async fn over_late_the_deadline_covers_readiness_too() {
    let (probe, control) = Probe::new();
    control.ready(Ready::Never);
    let stack = ServiceBuilder::new().layer(TimeoutLayer::new(Duration::MAX)).layer(LateLayer).service(probe);
    assert_eq!(Deadline::after(SECOND).scope(stack.oneshot(7)).await, Err(deadline_exceeded()));
}

#[tokio::test(start_paused = true)]
async fn a_handle_shows_and_changes_the_limit_for_the_calls_to_come() {
    let layer = TimeoutLayer::new(TimeoutSettings::new(SECOND).name("shown"));
    let handle = layer.handle();
    assert_eq!((handle.name(), handle.limit()), ("shown", SECOND));
    let stack = layer.layer(service_fn(after));
    let under_way = tokio_test::task::spawn(stack.clone().oneshot(900));
    let mut under_way = under_way;
    assert!(under_way.poll().is_pending());
    handle.set_limit(100 * MS);
    assert_eq!(stack.handle().limit(), 100 * MS);
    let rejected = stack.clone().oneshot(900).await.unwrap_err();
    assert_eq!(rejected, AppError::Rejected(Rejected::new("shown", Reason::TimedOut)));
    assert_eq!(under_way.await, Ok(900));
    let further = handle.layer().layer(service_fn(after));
    handle.set_limit(Duration::MAX);
    assert_eq!(further.oneshot(50_000).await, Ok(50_000));
}

#[tokio::test(start_paused = true)]
async fn a_handle_works_without_tower() {
    let handle = TimeoutHandle::new(SECOND);
    assert_eq!(handle.run(after(10)).await, Ok(10));
    assert_eq!(handle.run(after(2000)).await, Err(timed_out()));
    let foreign = handle.run(async {
        sleep(2 * SECOND).await;
        Err::<(), _>(Error::Service(std::fmt::Error))
    });
    assert!(matches!(foreign.await, Err(Error::Rejected(_))));
}

#[tokio::test(start_paused = true)]
async fn an_event_tells_of_each_refusal_also_when_the_service_is_gone() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&heard);
    let layer = TimeoutLayer::new(TimeoutSettings::new(SECOND).name("told")).on_event(move |event| {
        if let EventKind::Rejected { rejected, shadow: false, .. } = event.kind {
            told.lock().unwrap().push((event.policy.to_owned(), rejected.reason()));
        }
    });
    let stack = layer.layer(service_fn(after));
    drop(layer);
    assert!(stack.clone().oneshot(10).await.is_ok());
    assert!(Deadline::after(MS).scope(stack.clone().oneshot(9000)).await.is_err());
    // `oneshot` drops the last service before the first poll.
    assert!(stack.oneshot(9000).await.is_err());
    let told = |reason| ("told".to_owned(), reason);
    assert_eq!(*heard.lock().unwrap(), [told(Reason::DeadlineExceeded), told(Reason::TimedOut)]);
}

/// There is nobody to wake the caller, and nobody to panic for it.
#[test]
fn without_a_runtime_a_call_has_no_limit() {
    let stack = TimeoutLayer::new(MS).layer(service_fn(|n: u32| {
        let mut polled = false;
        poll_fn(move |cx| {
            if std::mem::replace(&mut polled, true) {
                return Poll::Ready(Ok::<_, AppError>(n));
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }));
    assert_eq!(futures::executor::block_on(stack.clone().oneshot(7)), Ok(7));
    let without_time = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(without_time.block_on(stack.oneshot(7)), Ok(7));
}

/// The timers of a thread go from call to call.
#[tokio::test(start_paused = true)]
async fn each_call_has_its_own_limit_whatever_the_last_one_had() {
    let limits = [SECOND, 10 * MS, 3600 * SECOND, Duration::MAX, 30 * SECOND, 5 * SECOND, 31 * SECOND];
    for (first, then) in limits.into_iter().flat_map(|first| limits.map(|then| (first, then))) {
        assert_eq!(TimeoutHandle::new(first).run(after(1)).await, Ok(1));
        let began = Instant::now();
        let outcome = TimeoutHandle::new(then).run(after(86_400_000)).await;
        let (expected, ends) =
            if then == Duration::MAX { (Ok(86_400_000), 86_400 * SECOND) } else { (Err(timed_out()), then) };
        assert_eq!((outcome, began.elapsed()), (expected, ends), "{then:?} after {first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_begin_and_end_in_any_order_keep_their_limits() {
    let mut calls = Vec::new();
    for n in 0..1000_u32 {
        // Now fifty, now none are under way beside this one.
        calls.push(tokio::spawn(async move {
            sleep(n % 97 * MS).await;
            let (limit, takes) = ((n % 7 * 20 + 10) * MS, n % 50 * 5);
            let began = Instant::now();
            let outcome = TimeoutHandle::new(limit).run(after(takes)).await;
            let in_time = takes * MS <= limit;
            assert_eq!(outcome, if in_time { Ok(takes) } else { Err(timed_out()) }, "{takes} under {limit:?}");
            assert_eq!(began.elapsed(), limit.min(takes * MS));
        }));
    }
    for call in calls {
        call.await.unwrap();
    }
}

#[test]
fn a_call_in_another_runtime_is_not_timed_by_the_last_one() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let call =
        |runtime: &tokio::runtime::Runtime, limit, takes| runtime.block_on(TimeoutHandle::new(limit).run(after(takes)));
    // Nobody drives the first any longer, and then there is no first any longer.
    let first = runtime();
    assert_eq!(call(&first, 30 * SECOND, 1), Ok(1));
    assert_eq!(call(&runtime(), 5 * MS, 60_000), Err(timed_out()));
    assert_eq!(call(&first, 30 * SECOND, 1), Ok(1));
    drop(first);
    assert_eq!(call(&runtime(), 5 * MS, 60_000), Err(timed_out()));
}

#[tokio::test(start_paused = true)]
async fn the_waker_of_a_call_that_is_over_is_kept_for_a_minute_at_most() {
    struct Counted;
    impl std::task::Wake for Counted {
        fn wake(self: Arc<Self>) {}
    }
    // One after the other on one thread, so each finds the timer of the last.
    for (limit, stays) in
        [(SECOND, true), (60 * SECOND, true), (61 * SECOND, false), (Duration::MAX, false), (SECOND, true)]
    {
        let counted = Arc::new(Counted);
        let mut call = Box::pin(TimeoutHandle::new(limit).run(pending::<Result<(), AppError>>()));
        let waker = Arc::clone(&counted).into();
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop((call, waker));
        assert_eq!(Arc::strong_count(&counted) > 1, stays, "{limit:?}");
        sleep(limit.min(60 * SECOND) + MS).await;
        assert_eq!(Arc::strong_count(&counted), 1, "{limit:?}");
    }
}

/// Calls that move between threads, in real time: each is over, and none by the timer of another.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_limit_is_lost_when_calls_move_between_threads() {
    let tasks: Vec<_> = (0..200_u32)
        .map(|task| {
            tokio::spawn(async move {
                for n in 0..20 {
                    let limit = if n % 2 == 0 { (1 + (task + n) % 5) * MS } else { 10 * SECOND };
                    let handle = TimeoutHandle::new(limit);
                    if n % 2 == 0 {
                        assert_eq!(handle.run(pending::<Result<u32, AppError>>()).await, Err(timed_out()));
                    } else {
                        assert_eq!(handle.run(after(1)).await, Ok(1));
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        let is_over = tokio::time::timeout(60 * SECOND, task).await;
        is_over.expect("a call has lost its limit").unwrap();
    }
}
