//! The gate comes before the inner readiness.

use std::task::Poll;

use tower::limit::ConcurrencyLimit;

use super::*;
use crate::support::Ready;

#[tokio::test(start_paused = true)]
async fn tower_resilience_386_an_open_circuit_answers_although_the_inner_service_is_never_ready() {
    let mut rig = Rig::open(Settings::new()).await;
    rig.control.ready(Ready::Never);
    let mut call = tokio_test::task::spawn(async { rig.service.ready().await?.call(1).await });
    assert!(matches!(call.poll(), Poll::Ready(Err(AppError::Rejected(_)))));
}

#[tokio::test(start_paused = true)]
async fn a_trip_and_force_open_wake_the_callers_that_are_parked() {
    let trips: [fn(&Rig); 2] = [
        |rig| {
            for _ in 0..5 {
                rig.handle.try_acquire().unwrap().failure();
            }
        },
        |rig| rig.handle.force_open(),
    ];
    for trip in trips {
        let rig = Rig::new(Settings::new());
        rig.control.ready(Ready::Never);
        let mut parked: Vec<_> = (0..20)
            .map(|_| {
                let mut service = rig.service.clone();
                tokio_test::task::spawn(async move { service.ready().await?.call(1).await })
            })
            .collect();
        for caller in &mut parked {
            assert!(caller.poll().is_pending());
            assert!(!caller.is_woken());
        }
        // Half of them leave; their places must not swallow a wake-up.
        parked.truncate(10);
        trip(&rig);
        for mut caller in parked {
            assert!(caller.is_woken());
            assert!(matches!(caller.poll(), Poll::Ready(Err(AppError::Rejected(_)))));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn half_open_over_a_service_that_is_never_ready_ends_with_its_time_out() {
    let mut rig = Rig::half_open(Settings::new().half_open_timeout(3 * SECOND)).await;
    rig.control.ready(Ready::Never);
    let start = tokio::time::Instant::now();
    let refused = rig.call().await.unwrap_err().as_rejected().unwrap();
    assert_eq!(start.elapsed().as_secs(), 3);
    assert_eq!(trip(&refused), Trip::ProbesTimedOut);
    assert_eq!(rig.handle.snapshot().probes_in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn while_the_probe_waits_for_readiness_the_others_are_refused() {
    let rig = Rig::half_open(Settings::new()).await;
    rig.control.ready(Ready::Never);
    let mut probe = rig.service.clone();
    let mut probe = tokio_test::task::spawn(async move { probe.ready().await?.call(1).await });
    assert!(probe.poll().is_pending());
    let mut other = rig.service.clone();
    let mut other = tokio_test::task::spawn(async move { other.ready().await?.call(1).await });
    assert!(matches!(other.poll(), Poll::Ready(Err(AppError::Rejected(_)))));
    rig.control.ready(Ready::Yes);
    assert_eq!(probe.poll(), Poll::Ready(Ok(1)));
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_opens_between_readiness_and_call_refuses_and_one_that_closes_does_not_call_the_unready() {
    let mut rig = Rig::new(Settings::new());
    let ready = rig.service.ready().await.unwrap();
    rig.handle.force_open();
    assert!(ready.call(1).await.unwrap_err().as_rejected().is_some());
    assert_eq!(rig.control.calls(), 0);

    // Ready only because it refuses: the probe would panic if it were called now.
    rig.control.ready(Ready::Never);
    let mut ready = tokio_test::task::spawn(rig.service.ready());
    let Poll::Ready(Ok(service)) = ready.poll() else { panic!("not ready") };
    rig.handle.reset();
    let refused = service.call(1).await.unwrap_err();
    assert!(refused.as_rejected().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_probes_place_that_is_held_and_not_used_does_not_outlast_the_half_open_time_out() {
    let mut rig = Rig::half_open(Settings::new().half_open_timeout(SECOND)).await;
    let mut idle = rig.service.clone();
    idle.ready().await.unwrap();
    assert!(rig.call().await.is_err(), "the place is taken");
    pass(SECOND).await;
    assert!(rig.is_open());
    pass(SECOND).await;
    // What was latched is of another period; the call is decided anew.
    assert_eq!(idle.call(1).await, Ok(1));
    assert_eq!(rig.call().await, Ok(1));
    assert_eq!(rig.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_is_a_failed_call() {
    let mut rig = Rig::new(Settings::consecutive_failures(2));
    rig.control.ready(Ready::Error);
    assert_eq!(rig.call().await, Err(AppError::NotReady("told so")));
    assert_eq!(rig.call().await, Err(AppError::NotReady("told so")));
    assert!(rig.is_open());
    rig.control.ready(Ready::Yes);
    pass(60 * SECOND).await;
    rig.control.ready(Ready::Error);
    assert_eq!(rig.call().await, Err(AppError::NotReady("told so")));
    assert_eq!(trip(&rig.refusal().await), Trip::ProbesFailed);
}

#[tokio::test(start_paused = true)]
async fn an_idle_ready_clone_over_a_full_concurrency_limit_does_not_stop_a_refusal() {
    let (probe, _control) = Probe::new();
    let layer = CircuitBreakerLayer::new(Settings::new());
    let service = layer.layer(ConcurrencyLimit::new(probe, 1));
    let mut idle = service.clone();
    idle.ready().await.unwrap();
    let mut waits = tokio_test::task::spawn(service.oneshot(1));
    assert!(waits.poll().is_pending());
    layer.handle().force_open();
    assert!(waits.is_woken());
    assert!(waits.poll().is_ready());
}

/// Outside a tokio runtime there is no timer, and no panic either.
#[test]
fn it_works_under_another_executor() {
    let (probe, control) = Probe::new();
    let layer = CircuitBreakerLayer::new(Settings::consecutive_failures(1).open_for(Duration::from_nanos(1)));
    let mut service = layer.layer(probe);
    futures::executor::block_on(async {
        control.answer(Answer::Err);
        let _ = service.ready().await.unwrap().call(1).await;
        control.ready(Ready::After(3));
        control.answer(Answer::After(3));
        while service.ready().await.unwrap().call(1).await.is_err() {}
    });
    assert_eq!(layer.handle().snapshot().probes_succeeded, 1);
}

/// Whoever parked before the calls began to hang has set no clock by them.
#[tokio::test(start_paused = true)]
async fn a_caller_that_parked_first_hears_of_the_hang_too() {
    for update in [false, true] {
        let threshold = if update { 3_600 * SECOND } else { SECOND };
        let (probe, control) = Probe::new();
        control.answer(Answer::Never);
        let layer = CircuitBreakerLayer::new(Settings::consecutive_failures(1).slow_calls(threshold));
        let service = layer.layer(ConcurrencyLimit::new(probe, 1));
        let mut first = service.clone();
        first.ready().await.unwrap();
        let parked = tokio::spawn(service.clone().oneshot(1));
        tokio::task::yield_now().await;
        let hangs = tokio::spawn(first.call(1));
        tokio::task::yield_now().await;
        if update {
            layer.handle().update(Settings::consecutive_failures(1).slow_calls(SECOND)).unwrap();
        }
        tokio::time::sleep(2 * SECOND).await;
        assert!(parked.is_finished(), "update: {update}");
        hangs.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_waits_for_readiness_hears_that_another_has_failed() {
    let settings = Settings::new().probes(2).slow_calls(SECOND).half_open_timeout(60 * SECOND);
    let rig = Rig::half_open(settings).await;
    let _hangs = rig.hang().await;
    rig.control.ready(Ready::Never);
    let mut waits = rig.service.clone();
    let waits = tokio::spawn(async move { waits.ready().await?.call(1).await });
    tokio::time::sleep(2 * SECOND).await;
    assert!(waits.is_finished());
}

/// Readiness that is never used is no call, and so nothing that could have been cancelled.
#[tokio::test(start_paused = true)]
async fn a_probes_place_that_is_never_used_is_no_cancelled_call() {
    let rig = Rig::half_open(Settings::new().count_cancelled()).await;
    for ready in [Ready::Yes, Ready::Never] {
        rig.control.ready(ready);
        let mut idle = rig.service.clone();
        assert_eq!(tokio_test::task::spawn(idle.ready()).poll().is_ready(), ready == Ready::Yes);
        drop(idle);
        assert_eq!((rig.state(), rig.handle.snapshot().probes_in_flight), (CircuitState::HalfOpen, 0));
    }
    // Nor a stale one, when the period has passed meanwhile.
    rig.control.ready(Ready::Yes);
    let mut idle = rig.service.clone();
    idle.ready().await.unwrap();
    rig.handle.reset();
    rig.log();
    drop(idle);
    assert_eq!(rig.log(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_woken_before_listeners_run() {
    let rig = Rig::new(Settings::consecutive_failures(1));
    rig.control.ready(Ready::Never);
    let mut service = rig.service.clone();
    let parked = Arc::new(Mutex::new(tokio_test::task::spawn(async move { service.ready().await?.call(1).await })));
    assert!(parked.lock().unwrap().poll().is_pending());
    let woken = Arc::new(Mutex::new(None));
    rig.handle.on_event({
        let (parked, woken) = (Arc::clone(&parked), Arc::clone(&woken));
        move |_| *woken.lock().unwrap() = Some(parked.lock().unwrap().is_woken())
    });
    rig.handle.try_acquire().unwrap().failure();
    assert_eq!(*woken.lock().unwrap(), Some(true));
}

#[test]
fn a_runtime_without_time_waits_without_a_timer() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let layer = CircuitBreakerLayer::new(Settings::consecutive_failures(1).open_for(Duration::from_nanos(1)));
    layer.handle().try_acquire().unwrap().failure();
    let (probe, control) = Probe::new();
    control.ready(Ready::After(3));
    assert_eq!(runtime.block_on(layer.layer(probe).oneshot(1)), Ok(1));
}

/// Where nothing is judged, nothing that is due is ever done: a caller that waits must not wait for it in a loop.
#[tokio::test(start_paused = true)]
async fn forced_closed_with_calls_that_hang_makes_nobody_spin() {
    let settings = Settings::failure_rate(0.5).window(buttress::circuit_breaker::Window::Time(10 * SECOND));
    for force in [true, false] {
        let mut rig = Rig::new(settings.slow_calls(SECOND).minimum_calls(1_000));
        if force {
            rig.handle.force_closed();
        }
        rig.ok(10).await;
        let _hangs = rig.hang().await;
        pass(2 * SECOND).await;
        rig.ok(1).await;
        rig.control.ready(Ready::Never);
        let mut service = rig.service.clone();
        let mut waits = tokio_test::task::spawn(async move { service.ready().await?.call(1).await });
        for _ in 0..30 {
            assert!(waits.poll().is_pending());
            let polls = rig.control.readiness.load(std::sync::atomic::Ordering::SeqCst);
            pass(SECOND).await;
            assert!(rig.control.readiness.load(std::sync::atomic::Ordering::SeqCst) - polls <= 2);
        }
        rig.control.ready(Ready::Yes);
        assert!(waits.is_woken());
        assert_eq!(waits.poll(), Poll::Ready(Ok(1)));
    }
}

/// A queue over one place: each call that ends lets one in, and must not wake all the others because it begins to wait.
#[tokio::test(start_paused = true)]
async fn a_slow_threshold_makes_no_herd_of_those_who_wait() {
    const CALLERS: usize = 200;
    let mut polls = Vec::new();
    for settings in [Settings::new(), Settings::new().slow_calls(60 * SECOND)] {
        let (probe, control) = Probe::new();
        control.answer(Answer::After(1));
        let service = CircuitBreakerLayer::new(settings).layer(ConcurrencyLimit::new(probe, 1));
        let calls: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(service.clone().oneshot(1))).collect();
        for call in calls {
            assert_eq!(call.await.unwrap(), Ok(1));
        }
        polls.push(control.readiness.load(std::sync::atomic::Ordering::SeqCst));
    }
    assert_eq!(polls[0], polls[1]);
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_keeps_nobody_else_asleep() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("waker");
        }
    }
    let rig = Rig::new(Settings::consecutive_failures(1));
    rig.control.ready(Ready::Never);
    let mut bad = rig.service.clone();
    let waker = std::task::Waker::from(Arc::new(Panics));
    let polled = tower::Service::<u32>::poll_ready(&mut bad, &mut std::task::Context::from_waker(&waker));
    assert!(polled.is_pending());
    let mut good = rig.service.clone();
    let mut good = tokio_test::task::spawn(async move { good.ready().await?.call(1).await });
    assert!(good.poll().is_pending());
    rig.handle.try_acquire().unwrap().failure();
    assert!(good.is_woken());
    assert_eq!(rig.log(), ["closed -> open #2 (1 failure)"]);
}
