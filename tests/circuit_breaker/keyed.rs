//! A circuit per key.

use std::task::Poll;

use buttress::circuit_breaker::KeyedCircuitBreakerLayer;
use tower::limit::ConcurrencyLimit;

use super::*;
use crate::support::Ready;

/// The probe's request is the key.
fn layer(settings: Settings) -> KeyedCircuitBreakerLayer<u32, fn(&u32) -> u32> {
    KeyedCircuitBreakerLayer::new(settings, |request: &u32| *request)
}

#[tokio::test(start_paused = true)]
async fn each_key_has_its_own_circuit() {
    let layer = layer(Settings::consecutive_failures(1).name("hosts"));
    let (probe, control) = Probe::new();
    let service = layer.layer(probe);
    control.answer(Answer::Err);
    assert_eq!(service.clone().oneshot(1).await, Err(AppError::Down));
    control.answer(Answer::Ok);
    assert_eq!(service.clone().oneshot(1).await.unwrap_err().as_rejected().unwrap().policy(), "hosts");
    assert_eq!(service.clone().oneshot(2).await, Ok(2));
    assert_eq!(layer.handle().get(1).unwrap().state(), CircuitState::Open);
    assert_eq!(layer.handle().get(2).unwrap().state(), CircuitState::Closed);
    assert!(layer.handle().get(3).is_none());
    assert_eq!(layer.handle().len(), 2);
    layer.handle().reset();
    assert_eq!(service.oneshot(1).await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn an_open_key_answers_at_once_and_a_closed_one_waits_over_a_service_that_is_not_ready() {
    let layer = layer(Settings::new());
    layer.handle().circuit(1).unwrap().force_open();
    let (probe, control) = Probe::new();
    control.ready(Ready::Never);
    let service = layer.layer(ConcurrencyLimit::new(probe, 1));
    let mut open = tokio_test::task::spawn(service.clone().oneshot(1));
    assert!(matches!(open.poll(), Poll::Ready(Err(AppError::Rejected(_)))));
    let mut closed = tokio_test::task::spawn(service.oneshot(2));
    assert!(closed.poll().is_pending());
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_counts_for_the_key_of_the_request() {
    let layer = layer(Settings::consecutive_failures(1));
    let (probe, control) = Probe::new();
    control.ready(Ready::Error);
    assert_eq!(layer.layer(probe).oneshot(1).await, Err(AppError::NotReady("told so")));
    assert_eq!(layer.handle().get(1).unwrap().state(), CircuitState::Open);
}

/// omniroute_4114: eviction must not be the way out of an open circuit.
#[tokio::test(start_paused = true)]
async fn omniroute_4114_a_million_keys_keep_to_the_bound_and_an_open_circuit_outlasts_them() {
    let layer = layer(Settings::consecutive_failures(1).max_keys(1_000));
    let (probe, control) = Probe::new();
    let mut service = layer.layer(probe);
    control.answer(Answer::Err);
    for key in 0..10 {
        let _ = service.ready().await.unwrap().call(key).await;
    }
    control.answer(Answer::Ok);
    for key in 10..1_000_000 {
        assert_eq!(service.ready().await.unwrap().call(key).await, Ok(key));
    }
    assert_eq!(layer.handle().len(), 1_000);
    for key in 0..10 {
        let refused = service.ready().await.unwrap().call(key).await.unwrap_err();
        assert!(refused.as_rejected().is_some(), "{key} is still open");
    }
    // Once its time is over it may leave, but closed ones leave first.
    pass(60 * SECOND).await;
    for key in 1_000_000..1_010_000 {
        let _ = service.ready().await.unwrap().call(key).await;
    }
    assert!((0..10).all(|key| layer.handle().get(key).is_some()));
}

#[tokio::test(start_paused = true)]
async fn with_every_place_taken_by_open_circuits_a_new_key_passes_uncounted_and_is_reported() {
    let layer = layer(Settings::consecutive_failures(1).max_keys(3));
    let log = Arc::new(Mutex::new(Vec::new()));
    let (probe, control) = Probe::new();
    let mut service = layer.layer(probe);
    control.answer(Answer::Err);
    for key in 0..3 {
        let _ = service.ready().await.unwrap().call(key).await;
    }
    layer.handle().on_event({
        let log = Arc::clone(&log);
        move |event| log.lock().unwrap().push(line(event))
    });
    for _ in 0..5 {
        assert_eq!(service.ready().await.unwrap().call(9).await, Err(AppError::Down));
    }
    assert_eq!(layer.handle().len(), 3);
    assert!(layer.handle().circuit(9).is_none());
    assert_eq!(*log.lock().unwrap(), ["more than 3 keys"; 5]);
    pass(60 * SECOND).await;
    assert!(layer.handle().circuit(9).is_some(), "the time of the others is over");
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_is_in_use_or_in_somebodys_hand_is_not_forgotten() {
    let layer = layer(Settings::consecutive_failures(5).max_keys(2));
    let (probe, control) = Probe::new();
    let mut service = layer.layer(probe);
    control.answer(Answer::Never);
    let mut pending = tokio_test::task::spawn(service.ready().await.unwrap().call(1));
    assert!(pending.poll().is_pending());
    let handle = layer.handle().circuit(2).unwrap();
    control.answer(Answer::Ok);
    for key in 3..10 {
        assert_eq!(service.ready().await.unwrap().call(key).await, Ok(key));
    }
    assert!(layer.handle().get(1).is_some());
    assert_eq!(layer.handle().get(2).as_ref(), Some(&handle));
    drop((pending, handle));
    for key in 3..10 {
        assert_eq!(service.ready().await.unwrap().call(key).await, Ok(key));
    }
    assert!(layer.handle().get(1).is_none() && layer.handle().get(2).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_operators_hand_on_a_circuit_is_not_forgotten() {
    let layer = layer(Settings::new().max_keys(1));
    layer.handle().circuit(1).unwrap().force_closed();
    let (probe, _) = Probe::new();
    assert_eq!(layer.layer(probe).oneshot(2).await, Ok(2));
    assert!(layer.handle().get(1).is_some());
}

#[test]
fn settings_that_cannot_work_are_a_typed_error() {
    let error = KeyedCircuitBreakerLayer::try_new(Settings::new().max_keys(0), |request: &u32| *request).unwrap_err();
    assert_eq!(error.field(), "max_keys");
}

#[tokio::test(start_paused = true)]
async fn a_trip_and_force_open_reach_the_calls_that_wait_for_readiness() {
    let layer = layer(Settings::consecutive_failures(2).slow_calls(SECOND));
    let (probe, control) = Probe::new();
    control.answer(Answer::Never);
    let service = layer.layer(ConcurrencyLimit::new(probe, 2));
    let calls: Vec<_> = (0..4).map(|_| tokio::spawn(service.clone().oneshot(1))).collect();
    tokio::time::sleep(2 * SECOND).await;
    let finished: Vec<_> = calls.iter().map(tokio::task::JoinHandle::is_finished).collect();
    assert_eq!(finished, [false, false, true, true], "refused by the trip");
    calls.iter().for_each(tokio::task::JoinHandle::abort);

    let (probe, control) = Probe::new();
    control.ready(Ready::Never);
    let mut waits = tokio_test::task::spawn(layer.layer(probe).oneshot(2));
    assert!(waits.poll().is_pending());
    layer.handle().circuit(2).unwrap().force_open();
    assert!(waits.is_woken());
    assert!(matches!(waits.poll(), Poll::Ready(Err(AppError::Rejected(_)))));
    assert_eq!(control.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn our_own_queue_is_not_the_dependencys_slowness() {
    let layer = layer(Settings::consecutive_failures(1).slow_calls(SECOND));
    let take = |_: u32| async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        Ok::<u32, AppError>(1)
    };
    let service = layer.layer(ConcurrencyLimit::new(tower::service_fn(take), 1));
    let calls: Vec<_> = (0..5).map(|_| tokio::spawn(service.clone().oneshot(1))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waited_through_an_outage_goes_once_the_circuit_lets_it() {
    let layer = layer(Settings::consecutive_failures(1).open_for(SECOND));
    let (probe, control) = Probe::new();
    control.ready(Ready::Never);
    let mut waits = tokio_test::task::spawn(layer.layer(probe).oneshot(1));
    assert!(waits.poll().is_pending());
    let circuit = layer.handle().circuit(1).unwrap();
    circuit.try_acquire().unwrap().failure();
    pass(SECOND).await;
    // It is polled only now: half-open, and a place is free.
    assert!(waits.poll().is_pending());
    assert_eq!(circuit.snapshot().probes_in_flight, 1);
    control.ready(Ready::Yes);
    assert_eq!(waits.poll(), Poll::Ready(Ok(1)));
    assert_eq!(circuit.snapshot().probes_succeeded, 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_permit_is_out_is_not_forgotten() {
    let layer = layer(Settings::consecutive_failures(1).max_keys(1));
    let permit = layer.handle().circuit(1).unwrap().try_acquire().unwrap();
    let (probe, _) = Probe::new();
    assert_eq!(layer.layer(probe).oneshot(2).await, Ok(2));
    permit.failure();
    assert_eq!(layer.handle().get(1).unwrap().state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn idle_closed_circuits_leave_before_one_that_is_trying_again() {
    let layer = layer(Settings::consecutive_failures(1).open_for(SECOND).max_keys(2));
    layer.handle().circuit(1).unwrap().try_acquire().unwrap().failure();
    let _ = layer.handle().circuit(2).unwrap();
    pass(SECOND).await;
    assert_eq!(layer.handle().get(1).unwrap().state(), CircuitState::HalfOpen);
    let _ = layer.handle().circuit(3).unwrap();
    assert!(layer.handle().get(1).is_some() && layer.handle().get(2).is_none());
    // In shadow too, somebody has a hand on it.
    layer.handle().circuit(3).unwrap().shadow();
    let _ = layer.handle().circuit(4).unwrap();
    assert!(layer.handle().get(3).is_some() && layer.handle().get(1).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_in_shadow_is_refused_once_the_circuit_enforces() {
    let layer = layer(Settings::consecutive_failures(1));
    let circuit = layer.handle().circuit(1).unwrap();
    circuit.shadow();
    circuit.try_acquire().unwrap().failure();
    let (probe, control) = Probe::new();
    control.ready(Ready::Never);
    let mut waits = tokio_test::task::spawn(layer.layer(probe).oneshot(1));
    assert!(waits.poll().is_pending());
    circuit.enforce();
    assert!(waits.is_woken());
    assert!(matches!(waits.poll(), Poll::Ready(Err(AppError::Rejected(_)))));
}
