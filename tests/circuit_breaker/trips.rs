//! What opens a circuit.

use buttress::{Outcome, circuit_breaker::Window};
use tower::limit::ConcurrencyLimit;

use super::*;

const LAST_TEN: Settings = Settings::failure_rate(0.5).window(Window::Calls(10)).minimum_calls(4);
const TEN_SECONDS: Settings =
    Settings::failure_rate(0.5).window(Window::Time(Duration::from_secs(10))).minimum_calls(4);

/// gobreaker trips on the 6th of "5".
#[tokio::test(start_paused = true)]
async fn it_opens_on_the_nth_failure_in_a_row() {
    for n in [1, 2, 5] {
        let mut rig = Rig::new(Settings::consecutive_failures(n));
        rig.fail(n as usize - 1).await;
        assert!(!rig.is_open());
        rig.fail(1).await;
        assert_eq!(trip(&rig.refusal().await), Trip::ConsecutiveFailures(n));
    }
    let mut default = Rig::new(Settings::new());
    default.fail(4).await;
    assert!(!default.is_open());
    default.fail(1).await;
    assert!(default.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_success_breaks_the_row() {
    let mut rig = Rig::new(Settings::new());
    for _ in 0..100 {
        rig.fail(4).await;
        rig.ok(1).await;
    }
    assert!(!rig.is_open());
}

/// solace_296: gobreaker's consecutive count decays with its buckets, so that slow outages never trip.
#[tokio::test(start_paused = true)]
async fn solace_296_a_row_does_not_fade_with_a_window() {
    let mut rig = Rig::new(TEN_SECONDS.minimum_calls(100).or_consecutive_failures(5));
    for _ in 0..5 {
        assert!(!rig.is_open());
        rig.fail(1).await;
        pass(60 * SECOND).await;
    }
    assert_eq!(trip(&rig.log_trip()), Trip::ConsecutiveFailures(5));
}

impl Rig {
    /// The refusal as it would be now.
    fn log_trip(&self) -> buttress::Rejected {
        let trip = self.handle.snapshot().trip.expect("it has tripped");
        buttress::Rejected::new("", Reason::CircuitOpen(trip))
    }
}

/// tower-resilience 0.13 needs 10,000 failures here: its window never slides.
#[tokio::test(start_paused = true)]
async fn after_ten_thousand_successes_half_a_window_of_failures_opens_it() {
    let mut rig = Rig::new(Settings::failure_rate(0.5).window(Window::Calls(100)));
    rig.ok(10_000).await;
    rig.fail(49).await;
    assert!(!rig.is_open());
    rig.fail(1).await;
    assert_eq!(trip(&rig.refusal().await), Trip::FailureRate(50));
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_judged_as_soon_as_the_minimum_is_there() {
    let mut rig = Rig::new(Settings::failure_rate(0.5).window(Window::Calls(100)).minimum_calls(10));
    rig.fail(9).await;
    assert!(!rig.is_open());
    rig.ok(1).await;
    assert_eq!(trip(&rig.refusal().await), Trip::FailureRate(90), "a success can be the one that was missing");

    let mut default = Rig::new(Settings::failure_rate(0.5));
    default.fail(19).await;
    assert!(!default.is_open());
    default.fail(1).await;
    assert!(default.is_open());
}

/// resilience4j_6_threshold_comparison
#[tokio::test(start_paused = true)]
async fn resilience4j_6_a_rate_opens_at_exactly_its_threshold() {
    let mut below = Rig::new(LAST_TEN.minimum_calls(10));
    below.fail(4).await;
    below.ok(6).await;
    assert!(!below.is_open());
    let mut at = Rig::new(LAST_TEN.minimum_calls(10));
    at.fail(5).await;
    at.ok(5).await;
    assert!(at.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_time_window_forgets_what_is_older() {
    let mut rig = Rig::new(TEN_SECONDS);
    rig.fail(3).await;
    pass(11 * SECOND).await;
    rig.ok(2).await;
    rig.fail(1).await;
    let snapshot = rig.handle.snapshot();
    assert_eq!((snapshot.calls, snapshot.failed), (3, 1));
    rig.fail(1).await;
    assert_eq!(trip(&rig.refusal().await), Trip::FailureRate(50));
}

/// polly_health_info_with_zero_total
#[tokio::test(start_paused = true)]
async fn polly_zero_total_an_idle_window_has_no_rate_and_one_failure_after_it_opens_nothing() {
    let mut rig = Rig::new(TEN_SECONDS);
    rig.fail(3).await;
    pass(3_600 * SECOND).await;
    assert_eq!(rig.handle.snapshot().failure_rate, None);
    rig.fail(1).await;
    assert_eq!(rig.handle.snapshot().failure_rate, Some(1.0));
    assert!(!rig.is_open());
}

/// tower_857_family: work on wake-up must not grow with the time slept.
#[tokio::test(start_paused = true)]
async fn ten_idle_years_change_nothing() {
    let mut rig = Rig::new(TEN_SECONDS.slow_calls(SECOND));
    rig.fail(3).await;
    pass(Duration::from_secs(10 * 365 * 86_400)).await;
    rig.ok(1).await;
    assert_eq!(rig.handle.snapshot().calls, 1);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_outcome_is_a_success_and_an_ignored_one_is_nothing() {
    let (probe, control) = Probe::new();
    control.answer(Answer::Err);
    let settings = Settings::failure_rate(1.0).window(Window::Calls(2)).or_consecutive_failures(2);
    for (outcome, calls) in [
        (Outcome::Permanent, 2),
        (Outcome::Ignored, 0),
        (Outcome::Rejected { reason: Reason::RateLimited, retry_after: None }, 0),
    ] {
        let layer = CircuitBreakerLayer::new(settings).classify(move |_: Result<&u32, &AppError>| outcome);
        let service = layer.layer(probe.clone());
        for _ in 0..3 {
            let _ = service.clone().oneshot(1).await;
        }
        assert_eq!(layer.handle().state(), CircuitState::Closed, "{outcome:?}");
        assert_eq!(layer.handle().snapshot().calls, calls, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_is_a_failure() {
    let mut rig = Rig::new(Settings::consecutive_failures(2).slow_calls(SECOND));
    for (time, run) in [(SECOND - Duration::from_nanos(1), 0), (SECOND, 1)] {
        rig.take(time).await;
        assert_eq!(rig.handle.snapshot().consecutive_failures, run, "{time:?}");
    }
    rig.take(SECOND).await;
    assert!(rig.is_open());
}

impl Rig {
    /// A call that takes so long and succeeds.
    async fn take(&mut self, time: Duration) {
        self.control.answer(Answer::After(1));
        let mut call = tokio_test::task::spawn(self.service.ready().await.unwrap().call(1));
        assert!(call.poll().is_pending());
        pass(time).await;
        assert!(call.poll().is_ready());
        self.control.answer(Answer::Ok);
    }
}

#[tokio::test(start_paused = true)]
async fn slow_calls_have_a_rate_of_their_own() {
    let settings = Settings::slow_call_rate(0.5, SECOND).or_consecutive_failures(3).window(Window::Calls(10));
    let mut rig = Rig::new(settings.minimum_calls(8));
    rig.ok(4).await;
    for _ in 0..3 {
        rig.take(2 * SECOND).await;
    }
    let snapshot = rig.handle.snapshot();
    assert_eq!((snapshot.slow, snapshot.failed, snapshot.consecutive_failures), (3, 0, 0));
    rig.take(2 * SECOND).await;
    assert_eq!(trip(&rig.refusal().await), Trip::SlowCallRate(50));
}

/// polly_217, resilience4j_1597: a hang must not be invisible until it ends.
#[tokio::test(start_paused = true)]
async fn resilience4j_1597_calls_that_hang_open_the_circuit_without_any_time_out() {
    let rows = [
        ("consecutive", Settings::consecutive_failures(5).slow_calls(SECOND), Trip::ConsecutiveFailures(5)),
        ("calls", LAST_TEN.minimum_calls(5).slow_calls(SECOND), Trip::FailureRate(100)),
        ("time", TEN_SECONDS.minimum_calls(5).slow_calls(SECOND), Trip::FailureRate(100)),
        (
            "slow rate",
            Settings::slow_call_rate(1.0, SECOND).window(Window::Calls(10)).minimum_calls(5),
            Trip::SlowCallRate(100),
        ),
    ];
    for (name, settings, expected) in rows {
        let mut rig = Rig::new(settings);
        let mut hanging = Vec::new();
        for _ in 0..5 {
            hanging.push(rig.hang().await);
        }
        pass(SECOND - Duration::from_nanos(1)).await;
        assert!(!rig.is_open(), "{name}");
        pass(Duration::from_nanos(1)).await;
        assert_eq!(trip(&rig.refusal().await), expected, "{name}");
        assert_eq!(rig.control.calls(), 5, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_grew_too_slow_counts_once() {
    let mut rig = Rig::new(LAST_TEN.minimum_calls(10).or_consecutive_failures(10).slow_calls(SECOND));
    let hanging = rig.hang().await;
    pass(SECOND).await;
    let snapshot = rig.handle.snapshot();
    assert_eq!((snapshot.calls, snapshot.failed, snapshot.consecutive_failures), (1, 1, 1));
    assert_eq!(snapshot.overdue_in_flight, 1);
    drop(hanging);
    let snapshot = rig.handle.snapshot();
    assert_eq!((snapshot.calls, snapshot.failed, snapshot.consecutive_failures), (1, 1, 1));
    assert_eq!(snapshot.overdue_in_flight, 0);
    rig.ok(1).await;
    assert_eq!(rig.handle.snapshot().consecutive_failures, 0);
}

/// A success between two calls that hang breaks the row, whoever notices first.
#[tokio::test(start_paused = true)]
async fn calls_that_grew_too_slow_count_before_a_call_that_ended_after_them() {
    let rig = Rig::new(Settings::consecutive_failures(3).slow_calls(SECOND));
    let mut hanging = Vec::new();
    for _ in 0..2 {
        hanging.push(rig.handle.try_acquire().unwrap());
    }
    pass(SECOND / 2).await;
    let quick = rig.handle.try_acquire().unwrap();
    pass(SECOND / 4).await;
    hanging.push(rig.handle.try_acquire().unwrap());
    pass(SECOND / 2).await;
    // 1.25 s: two are overdue, and nobody has looked.
    quick.success();
    pass(SECOND).await;
    assert_eq!(rig.handle.snapshot().consecutive_failures, 1);
    assert!(!rig.is_open());

    // Three are overdue, and the only thing that happens is that a fourth ends.
    let rig = Rig::new(Settings::consecutive_failures(3).slow_calls(SECOND));
    let _hanging: Vec<_> = (0..3).map(|_| rig.handle.try_acquire().unwrap()).collect();
    pass(SECOND / 2).await;
    let last = rig.handle.try_acquire().unwrap();
    pass(SECOND / 2).await;
    last.success();
    assert_eq!(rig.log(), ["closed -> open #2 (3 consecutive failures)", "stale #1 in #2"]);
}

#[tokio::test(start_paused = true)]
async fn with_a_slow_rate_a_slow_failure_is_still_a_failure_in_the_row() {
    let mut rig = Rig::new(Settings::slow_call_rate(1.0, SECOND).minimum_calls(100).or_consecutive_failures(2));
    for _ in 0..2 {
        rig.control.answer(Answer::Err);
        let permit = rig.handle.try_acquire().unwrap();
        pass(2 * SECOND).await;
        assert_eq!(rig.handle.snapshot().overdue_in_flight, 1);
        permit.failure();
    }
    assert_eq!(trip(&rig.refusal().await), Trip::ConsecutiveFailures(2));
}

/// A hang fills the pool, and every caller waits for a place in it: nobody is left to make a call.
#[tokio::test(start_paused = true)]
async fn a_hang_is_noticed_when_every_caller_is_parked() {
    let (probe, control) = Probe::new();
    control.answer(Answer::Never);
    let layer = CircuitBreakerLayer::new(Settings::consecutive_failures(2).slow_calls(SECOND));
    let service = layer.layer(ConcurrencyLimit::new(probe, 2));
    let calls: Vec<_> = (0..4).map(|_| tokio::spawn(service.clone().oneshot(1))).collect();
    tokio::time::sleep(SECOND + Duration::from_millis(1)).await;
    let finished: Vec<_> = calls.iter().map(tokio::task::JoinHandle::is_finished).collect();
    assert_eq!(finished, [false, false, true, true], "the parked are refused as soon as the hang is one");
    for call in calls {
        call.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_trip_to_fire_is_the_reason() {
    let both = LAST_TEN.or_consecutive_failures(3);
    let mut row = Rig::new(both);
    row.fail(3).await;
    assert_eq!(trip(&row.refusal().await), Trip::ConsecutiveFailures(3));
    let mut rate = Rig::new(both);
    for _ in 0..2 {
        rate.ok(1).await;
        rate.fail(1).await;
    }
    assert_eq!(trip(&rate.refusal().await), Trip::FailureRate(50));
}

#[tokio::test(start_paused = true)]
async fn cancelled_calls_count_as_the_settings_say() {
    let base = Settings::consecutive_failures(100);
    let rows = [
        ("ignored by default", base, false, 0),
        ("ignored while they are quick", base.slow_calls(3 * SECOND), false, 0),
        ("counted once they are slow", base.slow_calls(SECOND), false, 1),
        ("counted always", base.count_cancelled(), false, 1),
        ("counted although they were never polled", base.count_cancelled(), true, 1),
        ("never polled and never slow", base.slow_calls(SECOND), true, 0),
    ];
    for (name, settings, unpolled, run) in rows {
        let mut rig = Rig::new(settings);
        if unpolled {
            drop(rig.service.ready().await.unwrap().call(1));
        } else {
            let hanging = rig.hang().await;
            pass(2 * SECOND).await;
            drop(hanging);
        }
        assert_eq!(rig.handle.snapshot().consecutive_failures, run, "{name}");
    }
}

/// gobreaker_test_panic_in_request, and the reverse: `std::thread::panicking` would take the second for the first.
#[tokio::test(start_paused = true)]
async fn a_panic_inside_is_a_failure_and_a_caller_that_unwinds_is_a_cancel() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    for (answer, run) in [(Answer::PanicInCall, 1), (Answer::PanicInFuture, 1), (Answer::Never, 0)] {
        let rig = Rig::new(Settings::new());
        rig.control.answer(answer);
        let mut service = rig.service.clone();
        let _ = service.ready().await.unwrap();
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let mut call = tokio_test::task::spawn(service.call(1));
            let _ = call.poll();
            panic!("the caller");
        }));
        assert!(unwound.is_err());
        assert_eq!(rig.handle.snapshot().consecutive_failures, run, "{answer:?}");
    }
    // A call that is made while a thread unwinds, and ends well, is a success.
    struct CallsOnDrop(CircuitBreakerHandle);
    impl Drop for CallsOnDrop {
        fn drop(&mut self) {
            self.0.try_acquire().unwrap().success();
        }
    }
    let mut rig = Rig::new(Settings::new());
    rig.fail(2).await;
    let handle = rig.handle.clone();
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let _calls = CallsOnDrop(handle);
        panic!("the caller");
    }));
    assert_eq!(rig.handle.snapshot().consecutive_failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_time_out_of_the_attempt_is_a_failure_and_a_refusal_from_inside_is_not() {
    for (reason, run) in [
        (Reason::TimedOut, 1),
        (Reason::DeadlineExceeded, 0),
        (Reason::RateLimited, 0),
        (Reason::CircuitOpen(Trip::Forced), 0),
    ] {
        let layer = CircuitBreakerLayer::new(Settings::new());
        let inner = move |_: u32| std::future::ready(Err::<u32, _>(buttress::Rejected::new("inner", reason)));
        let _ = layer.layer(tower::service_fn(inner)).oneshot(1).await;
        assert_eq!(layer.handle().snapshot().consecutive_failures, run, "{reason:?}");
    }
}

/// gobreaker_91: a herd that was let in before the trip cannot be called back, but it cannot prolong the trouble either.
#[tokio::test(start_paused = true)]
async fn gobreaker_91_a_herd_that_began_before_the_trip_changes_nothing_after_it() {
    let rig = Rig::new(Settings::new().open_for(SECOND));
    let herd: Vec<_> = (0..100).map(|_| rig.handle.try_acquire().unwrap()).collect();
    herd.into_iter().for_each(buttress::circuit_breaker::Permit::failure);
    let log = rig.log();
    assert_eq!((log.len(), log[0].as_str()), (96, "closed -> open #2 (5 consecutive failures)"));
    assert!(log[1..].iter().all(|line| line == "stale #1 in #2"));
    pass(SECOND).await;
    assert_eq!(rig.state(), CircuitState::HalfOpen);
}

/// What is in the window already must make room for what hangs, or a hang never shows after good traffic.
#[tokio::test(start_paused = true)]
async fn a_hang_opens_a_window_that_is_full_of_good_calls() {
    let calls = Settings::failure_rate(0.5).slow_calls(SECOND);
    for (settings, hung) in [(calls, 50), (Settings::slow_call_rate(1.0, SECOND), 100)] {
        let mut rig = Rig::new(settings);
        rig.ok(1_000).await;
        let mut hanging: Vec<_> = (1..hung).map(|_| rig.handle.try_acquire().unwrap()).collect();
        pass(SECOND).await;
        assert!(!rig.is_open());
        hanging.push(rig.handle.try_acquire().unwrap());
        pass(SECOND).await;
        assert_eq!(rig.handle.snapshot().calls, 100);
        assert!(rig.is_open(), "{hung}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hang_weighs_more_as_good_calls_leave_a_window_of_time() {
    let mut rig = Rig::new(TEN_SECONDS.slow_calls(SECOND));
    rig.ok(100).await;
    let _hanging: Vec<_> = (0..50).map(|_| rig.handle.try_acquire().unwrap()).collect();
    pass(2 * SECOND).await;
    assert!(!rig.is_open(), "a third of the calls");
    pass(10 * SECOND).await;
    assert_eq!(trip(&rig.refusal().await), Trip::FailureRate(100));

    // The same with nobody left to call.
    let (probe, control) = Probe::new();
    let layer = CircuitBreakerLayer::new(TEN_SECONDS.slow_calls(SECOND));
    let service = layer.layer(ConcurrencyLimit::new(probe, 4));
    for _ in 0..20 {
        service.clone().oneshot(1).await.unwrap();
    }
    control.answer(Answer::Never);
    let calls: Vec<_> = (0..6).map(|_| tokio::spawn(service.clone().oneshot(1))).collect();
    tokio::time::sleep(15 * SECOND).await;
    let finished: Vec<_> = calls.iter().map(tokio::task::JoinHandle::is_finished).collect();
    assert_eq!(finished, [false, false, false, false, true, true]);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

/// With a rate of their own, slow calls are no failures, and no good calls either until they end.
#[tokio::test(start_paused = true)]
async fn calls_that_hang_dilute_no_failure_rate() {
    let settings = Settings::failure_rate(0.5).or_slow_call_rate(1.0, SECOND).window(Window::Calls(10));
    let mut rig = Rig::new(settings.minimum_calls(10));
    rig.ok(1).await;
    let _hanging: Vec<_> = (0..5).map(|_| rig.handle.try_acquire().unwrap()).collect();
    pass(2 * SECOND).await;
    rig.fail(9).await;
    assert_eq!(trip(&rig.refusal().await), Trip::FailureRate(90));
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_that_was_given_up_is_no_success_in_the_row() {
    let mut rig = Rig::new(Settings::slow_call_rate(1.0, SECOND).minimum_calls(50).or_consecutive_failures(3));
    rig.fail(2).await;
    let hanging = rig.hang().await;
    pass(2 * SECOND).await;
    drop(hanging);
    rig.fail(1).await;
    assert!(rig.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_success_that_was_ready_at_once_comes_after_what_grew_too_slow_before_it() {
    let mut rig = Rig::new(Settings::consecutive_failures(3).slow_calls(SECOND));
    let _hanging = [rig.handle.try_acquire().unwrap(), rig.handle.try_acquire().unwrap()];
    let made = rig.service.ready().await.unwrap().call(1);
    pass(SECOND).await;
    made.await.unwrap();
    let _third = rig.handle.try_acquire().unwrap();
    pass(SECOND).await;
    assert_eq!(rig.handle.snapshot().consecutive_failures, 1);
}
