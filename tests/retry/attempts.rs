//! How often, and when not.

use super::*;
use buttress::{
    EveryErrorIsTransient, Outcome, Reason,
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings},
    retry::RetryLayer,
    timeout::TimeoutLayer,
};
use support::{Answer as Told_, Probe, Ready};
use tower::{Layer, ServiceBuilder, ServiceExt, limit::ConcurrencyLimit};

/// failsafe_go_32_attempts_off_by_one, tower_resilience_retry_respects_max_attempts
#[tokio::test(start_paused = true)]
async fn attempts_are_counted_with_the_first() {
    for attempts in [1, 2, 3, 5, 9] {
        let dependency = Dependency::down();
        let retry = RetryLayer::new(PLAIN.attempts(attempts)).layer(dependency.clone());
        assert_eq!(retry.oneshot(7).await, Err(AppError::Down));
        assert_eq!(dependency.attempts(), attempts as usize);
    }
    let dependency = Dependency::down();
    let three = RetryLayer::new(RetrySettings::new()).layer(dependency.clone());
    assert_eq!(three.oneshot(7).await, Err(AppError::Down));
    assert_eq!(dependency.attempts(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_first_success_ends_it() {
    let dependency = Dependency::at_once(|attempt| if attempt < 2 { Err(AppError::Down) } else { Ok(7) });
    let retry = RetryLayer::new(PLAIN.attempts(5)).layer(dependency.clone());
    assert_eq!(retry.oneshot(7).await, Ok(7));
    assert_eq!(dependency.times(), [0, 1000, 3000]);
}

/// The seeds' 1, 2, 4, 8 s.
#[tokio::test(start_paused = true)]
async fn delays_are_those_of_the_backoff() {
    let dependency = Dependency::down();
    let retry = RetryLayer::new(PLAIN.attempts(5)).layer(dependency.clone());
    assert!(retry.oneshot(7).await.is_err());
    assert_eq!(dependency.times(), [0, 1000, 3000, 7000, 15000]);
}

#[tokio::test(start_paused = true)]
async fn any_iterator_gives_delays_and_its_end_ends_the_retrying() {
    let dependency = Dependency::down();
    let layer = RetryLayer::new(PLAIN.attempts(9)).delays([5 * SECOND, SECOND].into_iter());
    assert!(layer.layer(dependency.clone()).oneshot(7).await.is_err());
    assert_eq!(dependency.times(), [0, 5000, 6000]);
}

/// A refusal is an answer, and so is a request at fault.
#[tokio::test(start_paused = true)]
async fn only_what_may_pass_is_tried_again() {
    let rows: [(&str, Outcome, usize); 4] = [
        ("transient", Outcome::TRANSIENT, 3),
        ("permanent", Outcome::Permanent, 1),
        ("ignored", Outcome::Ignored, 1),
        ("rejected", Outcome::Rejected { reason: Reason::RateLimited, retry_after: Some(SECOND) }, 1),
    ];
    for (name, outcome, attempts) in rows {
        let dependency = Dependency::down();
        let layer = RetryLayer::new(PLAIN).classify(move |_: Result<&u32, &AppError>| outcome);
        assert_eq!(layer.layer(dependency.clone()).oneshot(7).await, Err(AppError::Down));
        assert_eq!(dependency.attempts(), attempts, "{name}");
    }
}

/// redis_client_228_open_circuit_is_retried
#[tokio::test(start_paused = true)]
async fn a_refusal_by_a_layer_inside_ends_the_retrying() {
    let dependency = Dependency::down();
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::new(PLAIN.attempts(10)))
        .layer(CircuitBreakerLayer::new(CircuitBreakerSettings::consecutive_failures(2)))
        .service(dependency.clone());
    assert!(matches!(stack.oneshot(7).await, Err(AppError::Rejected(_))));
    assert_eq!(dependency.times(), [0, 1000]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_tried_again_where_the_user_asks_for_it_and_it_says_when() {
    let limited = |retry_after| {
        Dependency::at_once(
            move |attempt| {
                if attempt == 0 { Err(refused(Reason::RateLimited, retry_after)) } else { Ok(7) }
            },
        )
    };
    let asked = PLAIN.retry_rejections();
    let rows = [
        (asked.clone(), Some(5 * SECOND), 2),
        (asked.clone(), None, 1),
        (asked.clone(), Some(21 * SECOND), 1),
        (asked.clone().retry_after_cap(SECOND), Some(5 * SECOND), 1),
        (asked.clone().within(4 * SECOND), Some(5 * SECOND), 1),
        (PLAIN, Some(5 * SECOND), 1),
    ];
    for (settings, retry_after, attempts) in rows {
        let dependency = limited(retry_after);
        let _ = RetryLayer::new(settings.clone()).layer(dependency.clone()).oneshot(7).await;
        assert_eq!(dependency.attempts(), attempts, "{settings:?} {retry_after:?}");
        assert!(attempts == 1 || dependency.times()[1] >= 5000);
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_out_of_the_attempt_is_tried_again() {
    let hangs_once = Dependency::new(|attempt| (if attempt == 0 { 60 * SECOND } else { MS }, Ok(7)));
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::new(PLAIN))
        .layer(TimeoutLayer::new(2 * SECOND))
        .service(hangs_once.clone());
    assert_eq!(stack.oneshot(7).await, Ok(7));
    assert_eq!(hangs_once.times(), [0, 3000]);
}

/// Not a time-out, not an error: the classifier alone decides, and the caller gets what there was.
#[tokio::test(start_paused = true)]
async fn the_last_result_is_returned_as_it_is() {
    let counts = Dependency::at_once(|attempt| Ok(500 + attempt as u32));
    let layer = RetryLayer::new(PLAIN).classify(|answer: Result<&u32, &AppError>| match answer {
        Ok(500..) => Outcome::TRANSIENT,
        _ => Outcome::Success,
    });
    assert_eq!(layer.layer(counts.clone()).oneshot(7).await, Ok(502));
    assert_eq!(counts.attempts(), 3);
}

/// A foreign error that cannot be a refusal.
#[tokio::test(start_paused = true)]
async fn a_bare_client_is_retried_with_the_named_classifier() {
    let calls = Arc::new(Mutex::new(0));
    let client = tower::service_fn({
        let calls = Arc::clone(&calls);
        move |_: u32| {
            *calls.lock().unwrap() += 1;
            std::future::ready(Err::<u32, _>(std::fmt::Error))
        }
    });
    let stack = RetryLayer::new(PLAIN).classify(EveryErrorIsTransient).layer(client);
    assert_eq!(stack.oneshot(7).await, Err(std::fmt::Error));
    assert_eq!(*calls.lock().unwrap(), 3);
}

/// tower_resilience_392_second_attempt_skips_readiness
#[tokio::test(start_paused = true)]
async fn every_attempt_has_one_readiness_of_its_own() {
    let (probe, control) = Probe::new();
    control.answer(Told_::Err);
    let mut retry = RetryLayer::new(PLAIN.attempts(4)).layer(probe);
    // The probe panics when it is called without.
    assert_eq!(retry.ready().await.unwrap().call(7).await, Err(AppError::Down));
    assert_eq!((control.calls(), control.readiness.load(std::sync::atomic::Ordering::SeqCst)), (4, 4));

    control.ready(Ready::After(3));
    assert_eq!(retry.ready().await.unwrap().call(7).await, Err(AppError::Down));
    assert_eq!(control.calls(), 8);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_finds_no_readiness_is_one_that_failed() {
    let (probe, control) = Probe::new();
    control.answer(Told_::Err);
    let mut retry = RetryLayer::new(PLAIN).layer(probe);
    let call = retry.ready().await.unwrap().call(7);
    control.ready(Ready::Error);
    assert_eq!(call.await, Err(AppError::NotReady("told so")));
    assert_eq!(control.calls(), 1);
    // It costs two delays: 1 s and 2 s.
    let mut retry = retry.clone();
    control.ready(Ready::Yes);
    let call = retry.ready().await.unwrap().call(7);
    control.ready(Ready::Error);
    let began = Instant::now();
    assert!(call.await.is_err());
    assert_eq!(began.elapsed().as_secs(), 3);
}

/// No slot of an inner bulkhead is held while it sleeps.
#[tokio::test(start_paused = true)]
async fn nothing_inside_is_held_while_it_sleeps() {
    let dependency = Dependency::at_once(|attempt| if attempt == 0 { Err(AppError::Down) } else { Ok(7) });
    let one_at_a_time = ConcurrencyLimit::new(dependency.clone(), 1);
    let retry = RetryLayer::new(PLAIN).layer(one_at_a_time.clone());
    let retrying = tokio::spawn(retry.oneshot(7));
    sleep(100 * MS).await;
    assert_eq!(dependency.attempts(), 1);
    let other = tokio::time::timeout(MS, one_at_a_time.oneshot(8)).await;
    assert_eq!(other, Ok(Ok(7)));
    assert_eq!(retrying.await.unwrap(), Ok(7));
    assert_eq!(dependency.requests(), [7, 8, 7]);
}

/// polly_2456_cancelled_during_the_delay_still_retries, aborted anywhere
#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_while_it_sleeps_tries_no_more() {
    let dependency = Dependency::down();
    let retry = RetryLayer::new(PLAIN).layer(dependency.clone());
    let retrying = tokio::spawn(retry.oneshot(7));
    sleep(1500 * MS).await;
    retrying.abort();
    assert!(retrying.await.unwrap_err().is_cancelled());
    sleep(60 * SECOND).await;
    assert_eq!(dependency.times(), [0, 1000]);
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

/// `oneshot` drops the service, and here the layer, before the first poll.
#[tokio::test(start_paused = true)]
async fn a_call_that_outlives_its_layer_and_its_services_is_retried_all_the_same() {
    let dependency = Dependency::down();
    for settings in [PLAIN, PLAIN.budget(buttress::BudgetSettings::new())] {
        let call = RetryLayer::new(settings).layer(dependency.clone()).oneshot(7);
        assert_eq!(call.await, Err(AppError::Down));
    }
    assert_eq!(dependency.attempts(), 6);
}

/// A retry of nothing at all must neither fill the stack nor keep the thread.
#[tokio::test(start_paused = true)]
async fn a_delay_of_zero_lets_others_have_a_turn() {
    let dependency = Dependency::down();
    let settings = PLAIN.attempts(20_000).backoff(Backoff::constant(Duration::ZERO));
    let retrying = tokio::spawn(RetryLayer::new(settings).layer(dependency.clone()).oneshot(7));
    sleep(10 * MS).await;
    assert!(dependency.attempts() < 20);
    assert_eq!(retrying.await.unwrap(), Err(AppError::Down));
    assert_eq!(dependency.attempts(), 20_000);
}

#[test]
fn without_a_timer_there_is_one_attempt() {
    let dependency = futures::executor::block_on(async { Dependency::down() });
    let answer = futures::executor::block_on(RetryLayer::new(PLAIN).layer(dependency.clone()).oneshot(7));
    assert_eq!((answer, dependency.attempts()), (Err(AppError::Down), 1));
}

#[tokio::test(start_paused = true)]
async fn a_changed_inner_service_is_the_one_of_further_attempts() {
    let (old, new) = (Dependency::down(), Dependency::down());
    let mut retry = RetryLayer::new(PLAIN).layer(old.clone());
    assert!(retry.ready().await.unwrap().call(7).await.is_err());
    *retry.get_mut() = new.clone();
    assert!(retry.ready().await.unwrap().call(7).await.is_err());
    assert_eq!((old.attempts(), new.attempts()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn an_event_tells_each_retry_and_the_end_of_a_call_that_had_some() {
    let heard = Heard::default();
    let answer = |attempt| if attempt == 1 { Ok(7) } else { Err(AppError::Down) };
    let dependency = Dependency::new(move |attempt| (500 * MS, answer(attempt)));
    let layer = RetryLayer::new(PLAIN.name("told")).on_event(heard.listener());
    assert_eq!(layer.handle().name(), "told");
    let mut retry = layer.layer(dependency);
    assert_eq!(retry.ready().await.unwrap().call(7).await, Ok(7));
    assert_eq!(
        heard.all(),
        [Told::Retry { attempt: 1, delay: SECOND }, Told::Retried { attempts: 2, elapsed: 2 * SECOND, gave_up: None },]
    );
    assert!(retry.ready().await.unwrap().call(7).await.is_err());
    assert_eq!(
        heard.all()[2..],
        [
            Told::Retry { attempt: 1, delay: SECOND },
            Told::Retry { attempt: 2, delay: 2 * SECOND },
            Told::Retried { attempts: 3, elapsed: 4500 * MS, gave_up: Some(GaveUp::Attempts) },
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_never_needed_a_retry_tells_nothing() {
    let heard = Heard::default();
    let layer = RetryLayer::new(PLAIN)
        .on_event(heard.listener())
        .classify(|answer: Result<&u32, &AppError>| if answer.is_ok() { Outcome::Success } else { Outcome::Permanent });
    let dependency = Dependency::at_once(|attempt| if attempt == 0 { Ok(7) } else { Err(AppError::Down) });
    let mut retry = layer.layer(dependency);
    assert!(retry.ready().await.unwrap().call(7).await.is_ok());
    assert!(retry.ready().await.unwrap().call(7).await.is_err());
    assert_eq!(heard.all(), []);
}

#[test]
fn settings_that_cannot_work_are_errors_or_panics() {
    let error = RetryLayer::try_new(PLAIN.attempts(0)).unwrap_err();
    assert_eq!(error.field(), "attempts");
    assert!(std::panic::catch_unwind(|| RetryLayer::new(PLAIN.attempts(0))).is_err());
    assert!(RetryLayer::try_new(PLAIN.budget(buttress::BudgetSettings::new().ratio(f64::NAN))).is_err());
}

#[tokio::test(start_paused = true)]
async fn the_defaults_are_those_of_the_table() {
    let heard = Heard::default();
    // The budget would leave too few of them to be sure.
    let layer = RetryLayer::new(RetrySettings::new().without_budget());
    assert_eq!(layer.handle().name(), "retry");
    // A handle hears as much as a layer.
    layer.handle().on_event(heard.listener());
    for _ in 0..200 {
        assert!(layer.layer(Dependency::down()).oneshot(7).await.is_err());
    }
    let delays = |attempt| {
        let delays = heard.all().into_iter().filter_map(move |told| match told {
            Told::Retry { attempt: n, delay } if n == attempt => Some(delay),
            _ => None,
        });
        delays.collect::<Vec<_>>()
    };
    // Anything up to the whole, and all of it used.
    for (attempt, whole) in [(1, 100 * MS), (2, 200 * MS)] {
        let delays = delays(attempt);
        assert!(delays.iter().all(|delay| *delay <= whole));
        assert!(delays.iter().any(|delay| *delay < whole / 5) && delays.iter().any(|delay| *delay > whole / 5 * 4));
    }
}

#[test]
fn load_is_that_of_the_inner_service() {
    use tower::load::Load;
    let inner = tower::load::Constant::new(
        Dependency(Arc::new(Diary {
            began: futures::executor::block_on(async { Instant::now() }),
            answer: Box::new(|_| (Duration::ZERO, Ok(7))),
            attempts: Mutex::default(),
        })),
        42,
    );
    let stack = RetryLayer::new(PLAIN).layer(TimeoutLayer::new(SECOND).layer(inner));
    assert_eq!(stack.load(), 42);
}
