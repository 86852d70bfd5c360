//! What is reported, and when.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[tokio::test(start_paused = true)]
async fn events_tell_the_whole_story_in_order_and_each_with_its_generation() {
    let mut rig = Rig::new(Settings::consecutive_failures(1).open_for(SECOND));
    rig.fail(1).await;
    rig.ok(1).await;
    pass(SECOND).await;
    rig.fail(1).await;
    pass(SECOND).await;
    rig.ok(2).await;
    rig.handle.force_open();
    rig.handle.reset();
    assert_eq!(
        rig.log(),
        [
            "closed -> open #2 (1 failure)",
            "rejected",
            "open -> half_open #3",
            "half_open -> open #4 (probes failed)",
            "open -> half_open #5",
            "half_open -> closed #6",
            "closed -> open #7 (forced)",
            "open -> closed #8",
        ]
    );
}

/// gobreaker_on_state_change_under_mutex, polly_2953_inline_continuation_deadlock
#[tokio::test(start_paused = true)]
async fn polly_2953_a_listener_may_call_the_circuit() {
    let rig = Rig::new(Settings::consecutive_failures(1));
    let seen = Arc::new(AtomicUsize::new(0));
    rig.handle.on_event({
        let (handle, seen) = (rig.handle.clone(), Arc::clone(&seen));
        move |_| {
            assert_eq!(handle.state(), CircuitState::Open);
            // Refused, which is an event of its own: told from within, and only once more.
            if seen.fetch_add(1, Ordering::Relaxed) == 0 {
                assert!(handle.try_acquire().is_err());
            }
        }
    });
    rig.handle.try_acquire().unwrap().failure();
    assert_eq!(seen.load(Ordering::Relaxed), 2);
}

/// tower_resilience_126, tower_resilience_313: neither a listener's nor a classifier's panic breaks the breaker.
#[tokio::test(start_paused = true)]
async fn tower_resilience_126_user_code_that_panics_poisons_nothing() {
    let (probe, control) = Probe::new();
    let layer = CircuitBreakerLayer::new(Settings::consecutive_failures(3)).on_event(|_| panic!("listener")).classify(
        |result: Result<&u32, &AppError>| match result {
            Ok(13) => panic!("classifier"),
            Ok(_) => buttress::Outcome::Success,
            Err(_) => buttress::Outcome::TRANSIENT,
        },
    );
    let service = layer.layer(probe);
    for _ in 0..10 {
        assert!(tokio::spawn(service.clone().oneshot(13)).await.unwrap_err().is_panic());
    }
    assert_eq!(layer.handle().snapshot().consecutive_failures, 0, "the call was cancelled, not failed");
    control.answer(Answer::Err);
    for _ in 0..3 {
        assert_eq!(service.clone().oneshot(1).await, Err(AppError::Down));
    }
    assert_eq!(layer.handle().state(), CircuitState::Open);
    for _ in 0..10 {
        assert!(service.clone().oneshot(1).await.unwrap_err().as_rejected().is_some());
    }
}

/// A listener that panics while a permit is dropped by a panic would end the process.
#[tokio::test(start_paused = true)]
async fn a_listener_that_panics_while_a_call_unwinds_does_not_abort() {
    let (probe, control) = Probe::new();
    let layer = CircuitBreakerLayer::new(Settings::consecutive_failures(1)).on_event(|_| panic!("listener"));
    control.answer(Answer::PanicInFuture);
    let call = tokio::spawn(layer.layer(probe).oneshot(1));
    assert!(call.await.unwrap_err().is_panic());
    assert_eq!(layer.handle().state(), CircuitState::Open);
}

/// Hystrix PR#1863, resilience4j_562, resilience4j_646: state and time in two variables made illegal edges.
#[tokio::test(start_paused = true)]
async fn a_listener_that_keeps_the_newest_generation_ends_with_the_true_state() {
    let mut rig = Rig::new(Settings::consecutive_failures(1).open_for(SECOND).successes(1));
    let kept = Arc::new(Mutex::new((0, CircuitState::Closed)));
    rig.handle.on_event({
        let kept = Arc::clone(&kept);
        move |event| {
            if let EventKind::Transition { to, generation, .. } = event.kind {
                let mut kept = kept.lock().unwrap();
                if generation > kept.0 {
                    *kept = (generation, to);
                }
            }
        }
    });
    for round in 0..20 {
        rig.answer([Answer::Ok, Answer::Err, Answer::Err][round % 3], 1).await;
        pass(SECOND / 2).await;
        let state = rig.state();
        assert_eq!(kept.lock().unwrap().1, state);
    }
}
