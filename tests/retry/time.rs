//! Total time and deadline.

use super::*;
use buttress::{Deadline, DeadlineLayer, Outcome, Reason, retry::RetryLayer, timeout::TimeoutLayer};
use proptest::prelude::*;
use tower::{Layer, ServiceBuilder, ServiceExt};

#[tokio::test(start_paused = true)]
async fn a_failure_that_says_when_to_come_back_is_obeyed_up_to_the_cap() {
    let rows = [(Some(7 * SECOND), 20 * SECOND, 8000), (Some(100 * SECOND), 20 * SECOND, 21000), (None, SECOND, 1000)];
    for (retry_after, cap, second_attempt) in rows {
        let dependency = Dependency::down();
        let layer = RetryLayer::new(PLAIN.attempts(2).retry_after_cap(cap))
            .classify(move |_: Result<&u32, &AppError>| Outcome::Transient { retry_after });
        assert!(layer.layer(dependency.clone()).oneshot(7).await.is_err());
        // On top of it comes the delay, which is jittered by default: those who were told the same spread.
        assert_eq!(dependency.times(), [0, second_attempt]);
    }
}

/// linkerd_2369_five_hours_of_retries, failsafe_go_29
#[tokio::test(start_paused = true)]
async fn no_attempt_begins_after_the_total_time() {
    let heard = Heard::default();
    let dependency = Dependency::new(|_| (500 * MS, Err(AppError::Down)));
    let settings = PLAIN.attempts(u32::MAX).within(10 * SECOND);
    let layer = RetryLayer::new(settings).on_event(heard.listener());
    let began = Instant::now();
    assert_eq!(layer.layer(dependency.clone()).oneshot(7).await, Err(AppError::Down));
    assert_eq!(dependency.times(), [0, 1500, 4000, 8500]);
    assert_eq!((began.elapsed(), heard.gave_up()), (9 * SECOND, Some(GaveUp::Within)));
}

/// The total time is the deadline of what is inside.
#[tokio::test(start_paused = true)]
async fn a_time_out_inside_ends_the_last_attempt_with_the_total_time() {
    let dependency = Dependency::new(|attempt| (if attempt == 0 { MS } else { 60 * SECOND }, Err(AppError::Down)));
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::new(PLAIN.within(4 * SECOND)))
        .layer(TimeoutLayer::new(30 * SECOND))
        .service(dependency.clone());
    let began = Instant::now();
    let error = stack.oneshot(7).await.unwrap_err();
    assert_eq!(error, AppError::Rejected(Rejected::new("timeout", Reason::DeadlineExceeded)));
    assert_eq!((began.elapsed().as_millis() / 10, dependency.attempts()), (400, 2));
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_starts_the_total_time_when_nothing_was_pending() {
    let dependency = Dependency::down();
    let layer = RetryLayer::new(PLAIN.attempts(9).within(4 * SECOND));
    let retry = layer.layer(dependency.clone());
    sleep(60 * SECOND).await;
    assert!(retry.oneshot(7).await.is_err());
    assert_eq!(dependency.times(), [60000, 61000, 63000]);
}

#[tokio::test(start_paused = true)]
async fn it_never_sleeps_past_the_callers_deadline() {
    let heard = Heard::default();
    let dependency = Dependency::new(|_| (500 * MS, Err(AppError::Down)));
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(4 * SECOND))
        .layer(RetryLayer::new(PLAIN.attempts(9)).on_event(heard.listener()))
        .service(dependency.clone());
    let began = Instant::now();
    // The next attempt would begin just at the deadline.
    assert_eq!(stack.clone().oneshot(7).await, Err(AppError::Down));
    assert_eq!(dependency.times(), [0, 1500]);
    assert_eq!((began.elapsed(), heard.gave_up()), (2 * SECOND, Some(GaveUp::Deadline)));

    let later = Deadline::after(SECOND).scope(stack.oneshot(7));
    assert_eq!(later.await, Err(AppError::Down));
    assert_eq!(dependency.attempts(), 3);
}

#[tokio::test(start_paused = true)]
async fn of_deadline_and_total_time_the_earlier_is_named() {
    for (within, deadline, expected) in [(2, 3, GaveUp::Within), (3, 2, GaveUp::Deadline), (2, 2, GaveUp::Within)] {
        let heard = Heard::default();
        let settings = PLAIN.attempts(9).within(within * SECOND);
        let stack = ServiceBuilder::new()
            .layer(DeadlineLayer::new(deadline * SECOND))
            .layer(RetryLayer::new(settings).on_event(heard.listener()))
            .service(Dependency::down());
        assert!(stack.oneshot(7).await.is_err());
        assert_eq!(heard.gave_up(), Some(expected), "{within} {deadline}: {:?}", heard.all());
    }
}

/// What waits for the inner readiness, and what a busy thread makes late, does not begin after the end either: the last result is the answer.
#[tokio::test(start_paused = true)]
async fn no_attempt_begins_after_the_end_whatever_kept_it() {
    let (probe, control) = support::Probe::new();
    control.answer(support::Answer::Err);
    let heard = Heard::default();
    let stack = RetryLayer::new(PLAIN.within(5 * SECOND)).on_event(heard.listener()).layer(probe);
    let call = tokio::spawn(stack.oneshot(7));
    sleep(100 * MS).await;
    control.ready(support::Ready::Never);
    let began = Instant::now();
    assert_eq!(call.await.unwrap(), Err(AppError::Down));
    assert_eq!((began.elapsed().as_millis() / 10, control.calls()), (490, 1));
    assert_eq!(heard.gave_up(), Some(GaveUp::Within));

    let heard = Heard::default();
    let dependency = Dependency::down();
    let stack = RetryLayer::new(PLAIN).on_event(heard.listener()).layer(dependency.clone());
    let mut call = tokio_test::task::spawn(Deadline::after(2 * SECOND).scope(stack.oneshot(7)));
    assert!(call.poll().is_pending());
    // The thread comes back to it late.
    tokio::time::advance(5 * SECOND).await;
    assert_eq!(call.poll(), std::task::Poll::Ready(Err(AppError::Down)));
    assert_eq!((dependency.attempts(), heard.gave_up()), (1, Some(GaveUp::Deadline)));
}

/// Nothing is taken from the budget for it, and nobody is told that it comes.
#[test]
fn without_a_timer_nothing_is_said_to_follow() {
    let heard = Heard::default();
    let dependency = futures::executor::block_on(async { Dependency::down() });
    let layer = RetryLayer::new(RetrySettings::new()).on_event(heard.listener());
    let budget = layer.handle().budget().unwrap().clone();
    let mut call = tokio_test::task::spawn(layer.layer(dependency).oneshot(7));
    assert!(call.poll().is_ready());
    assert_eq!((heard.all().len(), heard.gave_up()), (1, Some(GaveUp::Delays)));
    assert_eq!(budget.balance().spent, buttress::Cost::ZERO);
}

#[tokio::test(start_paused = true)]
async fn endless_times_are_endless() {
    let dependency = Dependency::down();
    let settings = PLAIN.attempts(4).within(Duration::MAX).retry_after_cap(Duration::MAX);
    let call = RetryLayer::new(settings).layer(dependency.clone()).oneshot(7);
    assert!(Deadline::after(Duration::MAX).scope(call).await.is_err());
    assert_eq!(dependency.attempts(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the attempts take and whatever they ask for.
    #[test]
    fn nothing_begins_after_the_end_and_all_ends_with_it(
        takes in proptest::collection::vec(0_u64..5_000, 12),
        asks in proptest::collection::vec(proptest::option::of(0_u64..5_000), 12),
        first in 1_u64..3_000, within in 1_u64..20_000, deadline in 1_u64..20_000, limit in 1_u64..5_000,
    ) {
        let millis = Duration::from_millis;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let dependency = Dependency::new(move |attempt| (millis(takes[attempt % 12]), Err(AppError::Down)));
            let asked = std::sync::atomic::AtomicUsize::new(0);
            let settings = RetrySettings::new()
                .attempts(1_000)
                .without_budget()
                .within(millis(within))
                .backoff(Backoff::exponential(millis(first)).cap(millis(3_000)));
            let stack = ServiceBuilder::new()
                .layer(DeadlineLayer::new(millis(deadline)))
                .layer(RetryLayer::new(settings).classify(Shared::of(move |_: Result<&u32, &AppError>| {
                    let n = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    Outcome::Transient { retry_after: asks[n % 12].map(millis) }
                })))
                .layer(TimeoutLayer::new(millis(limit)))
                .service(dependency.clone());
            let began = Instant::now();
            let _ = stack.oneshot(7).await;
            let end = u128::from(within.min(deadline));
            // A timer counts in milliseconds and so may be late by one.
            assert!(began.elapsed().as_millis() <= end + 2, "{:?} of {end}", began.elapsed());
            assert!(dependency.times().iter().all(|at| *at < end.max(1)), "{:?} of {end}", dependency.times());
        });
    }
}

/// A classifier that counts is not `Clone`.
struct Shared<F>(Arc<F>);

impl<F: Fn(Result<&u32, &AppError>) -> Outcome> Shared<F> {
    fn of(classify: F) -> Self {
        Self(Arc::new(classify))
    }
}

impl<F> Clone for Shared<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F: Fn(Result<&u32, &AppError>) -> Outcome> buttress::Classify<u32, AppError> for Shared<F> {
    fn classify(&self, result: Result<&u32, &AppError>) -> Outcome {
        (self.0)(result)
    }
}
