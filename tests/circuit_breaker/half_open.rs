//! How a circuit finds out that the dependency is well again.

use super::*;

/// polly_216, open_liberty_7080, safe_client_gateway_3442: a herd at the end of the open time.
#[tokio::test(start_paused = true)]
async fn polly_216_of_a_thousand_waiting_calls_the_probes_are_admitted() {
    for probes in [1, 3] {
        let rig = Rig::half_open(Settings::new().probes(probes)).await;
        rig.control.answer(Answer::Never);
        let before = rig.control.calls();
        let mut kept = Vec::new();
        let mut refused = 0;
        for _ in 0..1_000 {
            let mut service = rig.service.clone();
            let mut call = tokio_test::task::spawn(service.ready().await.unwrap().call(1));
            match call.poll() {
                std::task::Poll::Pending => kept.push(call),
                answer => {
                    assert!(matches!(answer, std::task::Poll::Ready(Err(AppError::Rejected(_)))));
                    refused += 1;
                }
            }
        }
        assert_eq!((rig.control.calls() - before, refused), (probes as usize, 1_000 - probes as usize));
    }
}

#[tokio::test(start_paused = true)]
async fn it_closes_after_the_successes_it_asks_for() {
    for successes in [1, 2, 5] {
        let mut rig = Rig::half_open(Settings::new().successes(successes)).await;
        rig.ok(successes as usize - 1).await;
        if successes > 1 {
            assert_eq!(rig.handle.snapshot().probes_succeeded, successes - 1);
            assert_eq!(rig.state(), CircuitState::HalfOpen);
        }
        rig.ok(1).await;
        assert_eq!(rig.state(), CircuitState::Closed);
    }
    let mut default = Rig::half_open(Settings::new()).await;
    default.ok(1).await;
    assert_eq!(default.state(), CircuitState::HalfOpen);
    default.ok(1).await;
    assert_eq!(default.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn it_opens_again_as_soon_as_the_successes_can_no_longer_come() {
    // (probes, successes, failures it tolerates)
    for (probes, successes, tolerated) in [(1, 1, 0), (1, 2, 0), (5, 3, 2), (5, 5, 0), (3, 1, 2)] {
        let mut rig = Rig::half_open(Settings::new().probes(probes).successes(successes)).await;
        rig.fail(tolerated).await;
        assert_eq!(rig.state(), CircuitState::HalfOpen, "{probes} {successes}");
        rig.fail(1).await;
        assert!(rig.is_open(), "{probes} {successes}");
        assert_eq!(trip(&rig.refusal().await), Trip::ProbesFailed);
    }
}

/// opossum_276, resilience4j_903: a minimum number of calls has no say in half-open.
#[tokio::test(start_paused = true)]
async fn opossum_276_a_minimum_of_calls_does_not_hold_the_verdict_back() {
    let settings = Settings::failure_rate(0.5).minimum_calls(50);
    let mut well = Rig::half_open(settings).await;
    well.ok(2).await;
    assert_eq!(well.state(), CircuitState::Closed);
    let mut ill = Rig::half_open(settings).await;
    ill.fail(1).await;
    assert!(ill.is_open());
}

/// hystrix_1621, resilience4j_542, omniroute_13836, tower_resilience_407; resilience4j_544 and nora_607 for the ignored outcome
#[tokio::test(start_paused = true)]
async fn a_probes_place_comes_back_however_it_ends() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    // Half-open with one place, and a failure to spare.
    let settings = Settings::new().probes(1).successes(2);
    let ends: [(&str, fn(buttress::circuit_breaker::Permit)); 4] = [
        ("dropped", drop),
        ("ignored", |permit| permit.ignore()),
        ("refused inside", |permit| {
            permit.record(buttress::Outcome::Rejected { reason: Reason::BulkheadFull, retry_after: None });
        }),
        ("unwound", |permit| {
            let unwound = catch_unwind(AssertUnwindSafe(|| {
                let _permit = permit;
                panic!("the caller");
            }));
            assert!(unwound.is_err());
        }),
    ];
    for (name, end) in ends {
        let mut rig = Rig::half_open(settings).await;
        for _ in 0..3 {
            let permit = rig.handle.try_acquire().unwrap();
            assert!(rig.handle.try_acquire().is_err(), "{name}: one place");
            end(permit);
            assert_eq!(rig.handle.snapshot().probes_in_flight, 0, "{name}");
        }
        assert_eq!(rig.state(), CircuitState::HalfOpen, "{name}: no verdict");
        rig.ok(2).await;
        assert_eq!(rig.state(), CircuitState::Closed, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_is_a_failed_probe() {
    let rig = Rig::half_open(Settings::new()).await;
    rig.control.answer(Answer::PanicInFuture);
    assert!(tokio::spawn(rig.service.clone().oneshot(1)).await.unwrap_err().is_panic());
    assert!(rig.is_open());
}

/// resilience4j_935: one probe that hangs must not hold a circuit half-open for ever.
#[tokio::test(start_paused = true)]
async fn resilience4j_935_it_gives_up_on_probes_that_hang() {
    // By default after the open time, here one second.
    for (settings, timeout) in [(Settings::new(), SECOND), (Settings::new().half_open_timeout(5 * SECOND), 5 * SECOND)]
    {
        let mut rig = Rig::half_open(settings).await;
        let hung = rig.hang().await;
        pass(timeout - Duration::from_nanos(1)).await;
        assert_eq!(rig.refusal().await.retry_after(), None, "its probes decide, not the clock");
        pass(Duration::from_nanos(1)).await;
        let rejected = rig.refusal().await;
        assert_eq!((trip(&rejected), rejected.retry_after()), (Trip::ProbesTimedOut, Some(SECOND)));
        assert_eq!(rig.handle.snapshot().failed_cycles, 1);
        rig.log();
        drop(hung);
        assert_eq!(rig.log(), ["stale #3 in #4"], "and changes nothing");
        pass(SECOND).await;
        rig.ok(2).await;
        assert_eq!(rig.state(), CircuitState::Closed);
    }
}

/// Traffic rarer than the time-out would otherwise never bring two successes together.
#[tokio::test(start_paused = true)]
async fn rare_traffic_closes_it_too() {
    let mut rig = Rig::half_open(Settings::new().half_open_timeout(SECOND)).await;
    rig.ok(1).await;
    pass(3_600 * SECOND).await;
    assert_eq!(rig.state(), CircuitState::HalfOpen);
    rig.ok(1).await;
    assert_eq!(rig.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_slow_probe_is_a_failed_probe_before_it_ends() {
    for settings in [Settings::new().slow_calls(SECOND), Settings::slow_call_rate(0.5, SECOND)] {
        let rig = Rig::half_open(settings.half_open_timeout(60 * SECOND)).await;
        let _hung = rig.hang().await;
        pass(SECOND).await;
        assert_eq!(rig.state(), CircuitState::Open);
        assert_eq!(rig.handle.snapshot().trip, Some(Trip::ProbesFailed));
    }
}

/// hystrix_1781, deno_std_7306, gobreaker_test_generation, tower_resilience_407
#[tokio::test(start_paused = true)]
async fn gobreaker_generation_a_result_of_another_period_changes_nothing() {
    let mut rig = Rig::new(Settings::consecutive_failures(1).open_for(SECOND).probes(1).successes(1));
    let old: Vec<_> = (0..3).map(|_| rig.handle.try_acquire().unwrap()).collect();
    rig.fail(1).await;
    pass(SECOND).await;
    let probe = rig.handle.try_acquire().unwrap();
    let before = rig.handle.snapshot();
    let mut old = old.into_iter();
    old.next().unwrap().success();
    old.next().unwrap().failure();
    drop(old.next());
    assert_eq!(rig.handle.snapshot(), before, "no count, no place, no transition");
    assert!(rig.handle.try_acquire().is_err(), "no place was freed that was never taken");
    probe.success();
    assert_eq!(rig.state(), CircuitState::Closed);
    assert_eq!(
        rig.log(),
        [
            "closed -> open #2 (1 failure)",
            "open -> half_open #3",
            "stale #1 in #3",
            "stale #1 in #3",
            "stale #1 in #3",
            "rejected",
            "half_open -> closed #4",
        ]
    );
}

/// A probe that outlives its half-open period must not decide the next one.
#[tokio::test(start_paused = true)]
async fn a_probe_of_an_earlier_half_open_period_is_stale() {
    let rig = Rig::half_open(Settings::new().half_open_timeout(SECOND).successes(1)).await;
    let first = rig.handle.try_acquire().unwrap();
    pass(SECOND).await;
    assert!(rig.is_open());
    pass(SECOND).await;
    let second = rig.handle.try_acquire().unwrap();
    first.success();
    assert_eq!(rig.state(), CircuitState::HalfOpen);
    assert_eq!(rig.handle.snapshot().probes_in_flight, 1);
    second.success();
    assert_eq!(rig.state(), CircuitState::Closed);
}

/// A dependency that is well must not be given up on because its callers come seldom or its answers take longer than the open time.
#[tokio::test(start_paused = true)]
async fn no_probe_is_given_up_on_before_its_own_time() {
    let rig = Rig::half_open(Settings::new().half_open_timeout(10 * SECOND)).await;
    for _ in 0..2 {
        let probe = rig.handle.try_acquire().unwrap();
        for _ in 0..5 {
            pass(SECOND).await;
            rig.state();
        }
        probe.success();
        for _ in 0..10 {
            pass(SECOND).await;
            rig.state();
        }
    }
    assert_eq!(rig.state(), CircuitState::Closed);

    let short = Rig::open(Settings::new().open_for(Duration::from_millis(10))).await;
    pass(Duration::from_millis(10)).await;
    let probe = short.handle.try_acquire().unwrap();
    pass(SECOND - Duration::from_nanos(1)).await;
    assert_eq!(short.state(), CircuitState::HalfOpen, "at least a second");
    pass(Duration::from_nanos(1)).await;
    assert_eq!(short.state(), CircuitState::Open);
    drop(probe);
}
