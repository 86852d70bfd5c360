//! Inspection and control.

use buttress::circuit_breaker::{CircuitMode, Window};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_look_never_shows_an_open_circuit_whose_time_is_over() {
    let rig = Rig::open(Settings::new().open_for(SECOND)).await;
    pass(SECOND).await;
    assert_eq!(rig.state(), CircuitState::HalfOpen);
    assert_eq!(rig.handle.snapshot().time_to_half_open, None);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_has_the_figures() {
    let mut rig = Rig::new(Settings::failure_rate(0.9).window(Window::Calls(10)));
    rig.ok(3).await;
    rig.fail(1).await;
    let snapshot = rig.handle.snapshot();
    assert_eq!((snapshot.state, snapshot.mode, snapshot.generation), (CircuitState::Closed, CircuitMode::Enforced, 1));
    assert_eq!((snapshot.calls, snapshot.failed, snapshot.consecutive_failures), (4, 1, 1));
    assert_eq!((snapshot.failure_rate, snapshot.slow_call_rate), (Some(0.25), Some(0.0)));
    assert_eq!((snapshot.trip, snapshot.time_to_half_open), (None, None));
}

/// resilience4j_991: no timer undoes an operator's decision.
#[tokio::test(start_paused = true)]
async fn resilience4j_991_forced_open_stays_until_somebody_says_otherwise() {
    let mut rig = Rig::new(Settings::new().open_for(SECOND));
    rig.handle.force_open();
    pass(3_600 * SECOND).await;
    let rejected = rig.refusal().await;
    assert_eq!((trip(&rejected), rejected.retry_after()), (Trip::Forced, None));
    rig.handle.reset();
    assert_eq!(rig.call().await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn forced_open_while_open_stays_too() {
    let mut rig = Rig::open(Settings::new().open_for(SECOND)).await;
    rig.handle.force_open();
    pass(3_600 * SECOND).await;
    assert_eq!(trip(&rig.refusal().await), Trip::Forced);
    rig.handle.enforce();
    assert_eq!(rig.state(), CircuitState::Closed, "leaving a forced mode begins afresh");
}

#[tokio::test(start_paused = true)]
async fn forced_closed_counts_and_refuses_nothing() {
    let mut rig = Rig::new(Settings::consecutive_failures(2));
    rig.handle.force_closed();
    rig.fail(10).await;
    let snapshot = rig.handle.snapshot();
    assert_eq!((snapshot.state, snapshot.consecutive_failures), (CircuitState::Closed, 10));
    rig.handle.force_open();
    rig.handle.force_closed();
    assert_eq!(rig.handle.snapshot().trip, None);
    assert_eq!(rig.call().await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn disabled_counts_nothing() {
    let mut rig = Rig::new(Settings::consecutive_failures(2).slow_calls(SECOND));
    rig.handle.disable();
    rig.fail(10).await;
    let hanging = rig.hang().await;
    pass(2 * SECOND).await;
    let snapshot = rig.handle.snapshot();
    assert_eq!((snapshot.consecutive_failures, snapshot.overdue_in_flight), (0, 0));
    assert_eq!(snapshot.mode, CircuitMode::Disabled);
    drop(hanging);
    rig.handle.enforce();
    rig.fail(2).await;
    assert!(rig.is_open());
}

#[tokio::test(start_paused = true)]
async fn shadow_reports_what_it_would_refuse_and_refuses_nothing() {
    let mut rig = Rig::new(Settings::consecutive_failures(2).open_for(SECOND));
    rig.handle.shadow();
    rig.fail(2).await;
    assert_eq!(rig.state(), CircuitState::Open);
    assert_eq!(rig.call().await, Ok(1));
    pass(SECOND).await;
    // One probe counts; who would be refused passes and does not.
    let probe = rig.handle.try_acquire().unwrap();
    rig.handle.try_acquire().unwrap().failure();
    assert_eq!(rig.state(), CircuitState::HalfOpen);
    probe.success();
    rig.ok(1).await;
    assert_eq!(
        rig.log(),
        [
            "closed -> open #2 (2 consecutive failures)",
            "would reject",
            "open -> half_open #3",
            "would reject",
            "half_open -> closed #4",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn between_shadow_and_enforced_nothing_is_lost() {
    let mut rig = Rig::new(Settings::consecutive_failures(3));
    rig.fail(1).await;
    rig.handle.shadow();
    rig.fail(1).await;
    rig.handle.enforce();
    rig.fail(1).await;
    assert!(rig.is_open());
    rig.handle.shadow();
    assert_eq!(rig.call().await, Ok(1));
    rig.handle.enforce();
    assert_eq!(trip(&rig.refusal().await), Trip::ConsecutiveFailures(3));
}

/// tower-resilience's reset while closed keeps the counts.
#[tokio::test(start_paused = true)]
async fn a_reset_clears_the_counts_of_a_closed_circuit_too() {
    let mut rig = Rig::new(Settings::failure_rate(0.5).or_consecutive_failures(5));
    rig.fail(4).await;
    let late = rig.handle.try_acquire().unwrap();
    rig.handle.reset();
    let snapshot = rig.handle.snapshot();
    assert_eq!((snapshot.calls, snapshot.consecutive_failures), (0, 0));
    late.failure();
    assert_eq!(rig.handle.snapshot().calls, 0, "what was under way no longer counts");
    rig.fail(4).await;
    assert!(!rig.is_open());
}

#[tokio::test(start_paused = true)]
async fn new_settings_keep_the_state_and_the_window() {
    let window = |n| Settings::failure_rate(0.5).window(Window::Calls(n)).minimum_calls(10);
    let mut rig = Rig::new(window(100));
    rig.ok(10).await;
    rig.fail(9).await;
    assert_eq!(rig.handle.snapshot().calls, 19);
    rig.handle.update(window(50)).unwrap();
    assert_eq!((rig.handle.snapshot().calls, rig.handle.snapshot().failed), (19, 9));
    rig.fail(1).await;
    assert!(rig.is_open());
    rig.handle.update(window(50).open_for(SECOND)).unwrap();
    assert_eq!(rig.handle.snapshot().time_to_half_open, Some(60 * SECOND), "an opening under way keeps its time");
}

#[tokio::test(start_paused = true)]
async fn new_settings_judge_what_has_been_counted() {
    let mut rig = Rig::new(Settings::consecutive_failures(10));
    rig.fail(5).await;
    rig.handle.update(Settings::consecutive_failures(5)).unwrap();
    assert!(rig.is_open());
    // Half-open with one success and one failure of five trials: with two trials, that is a verdict.
    let mut rig = Rig::half_open(Settings::new().probes(5).successes(2)).await;
    rig.ok(1).await;
    rig.fail(1).await;
    assert_eq!(rig.state(), CircuitState::HalfOpen);
    rig.handle.update(Settings::new()).unwrap();
    assert!(rig.is_open(), "nobody is left to ask");
}

#[tokio::test(start_paused = true)]
async fn new_settings_keep_a_window_of_time_and_drop_or_take_up_a_slow_threshold() {
    let window = |seconds: u32| Settings::failure_rate(0.5).window(Window::Time(seconds * SECOND)).minimum_calls(10);
    let mut rig = Rig::new(window(10).or_slow_call_rate(1.0, SECOND));
    let _hanging: Vec<_> = (0..9).map(|_| rig.handle.try_acquire().unwrap()).collect();
    pass(SECOND).await;
    assert_eq!((rig.handle.snapshot().calls, rig.handle.snapshot().slow), (9, 9));
    rig.fail(5).await;
    rig.handle.update(window(20)).unwrap();
    assert_eq!((rig.handle.snapshot().calls, rig.handle.snapshot().failed), (5, 5), "nothing is slow any more");
    pass(12 * SECOND).await;
    assert_eq!(rig.handle.snapshot().calls, 5, "the longer window still holds them");
    rig.handle.update(window(20).slow_calls(SECOND)).unwrap();
    // Those that were watched before still are.
    assert!(rig.is_open());
}

#[tokio::test(start_paused = true)]
async fn new_settings_that_cannot_work_change_nothing() {
    let mut rig = Rig::new(Settings::consecutive_failures(2));
    let error = rig.handle.update(Settings::new().probes(0)).unwrap_err();
    assert_eq!(error.to_string(), "invalid `probes`: must be at least 1");
    rig.fail(2).await;
    assert!(rig.is_open());
}

#[test]
#[should_panic(expected = "invalid `successes`: must be at least 1")]
fn the_plain_constructor_panics_on_settings_that_cannot_work() {
    let _ = CircuitBreakerLayer::new(Settings::new().successes(0));
}

#[tokio::test(start_paused = true)]
async fn the_watch_shows_the_latest_state() {
    let mut rig = Rig::new(Settings::consecutive_failures(1).open_for(SECOND));
    let mut watch = rig.handle.watch();
    assert_eq!(*watch.borrow_and_update(), CircuitState::Closed);
    rig.fail(1).await;
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow_and_update(), CircuitState::Open);
    pass(SECOND).await;
    assert!(!watch.has_changed().unwrap(), "no timer runs for it");
    rig.ok(2).await;
    assert_eq!(*watch.borrow_and_update(), CircuitState::Closed);
    assert_eq!(*rig.handle.watch().borrow(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn code_without_tower_acquires_a_permit() {
    let handle = CircuitBreakerHandle::try_new(Settings::consecutive_failures(2).name("direct")).unwrap();
    assert_eq!(handle.name(), "direct");
    handle.try_acquire().unwrap().success();
    handle.try_acquire().unwrap().ignore();
    handle.try_acquire().unwrap().failure();
    handle.try_acquire().unwrap().failure();
    assert_eq!(handle.try_acquire().unwrap_err().policy(), "direct");
    // Further layers share the circuit.
    let (probe, _) = Probe::new();
    assert!(handle.layer().layer(probe).oneshot(1).await.is_err());
    assert_eq!(handle.layer().handle(), handle);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_permit_runs_from_its_acquisition() {
    let handle = CircuitBreakerHandle::try_new(Settings::consecutive_failures(1).slow_calls(SECOND)).unwrap();
    let permit = handle.try_acquire().unwrap();
    pass(SECOND).await;
    permit.success();
    assert_eq!(handle.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_service_gives_access_to_what_it_wraps() {
    #[derive(Clone, Debug)]
    struct Loaded(u32);
    impl tower::load::Load for Loaded {
        type Metric = u32;
        fn load(&self) -> u32 {
            self.0
        }
    }
    use tower::load::Load;
    let mut service = CircuitBreakerLayer::new(Settings::new()).layer(Loaded(7));
    service.get_mut().0 = 8;
    assert_eq!((service.load(), service.get_ref().0, service.into_inner().0), (8, 8, 8));
}
