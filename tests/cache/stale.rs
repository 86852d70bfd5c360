//! Answers that are past their time.

use buttress::{
    AsRejected, Deadline, Outcome, Reason,
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings},
};
use futures::future::join_all;

use super::*;

const REVALIDATING: CacheSettings = BASE.stale_while_revalidate(MINUTE);
const IF_ERROR: CacheSettings = BASE.stale_if_error(MINUTE);

/// A cache with an answer that has just become stale.
async fn stale(settings: CacheSettings) -> Bench {
    let bench = Bench::new(settings);
    bench.says(1).await;
    pass(10 * SECOND).await;
    bench
}

/// tower_http_cache_fetches_inline
#[tokio::test(start_paused = true)]
async fn while_it_is_revalidated_everybody_is_answered_at_once_and_there_is_one_load() {
    let bench = stale(REVALIDATING).await;
    bench.dependency.takes(SECOND);
    let started = tokio::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(bench.says(1).await, (1, "stale: revalidating"));
    }
    let answers = join_all((0..100).map(|_| bench.says(1))).await;
    assert!(answers.into_iter().all(|answer| answer == (1, "stale: revalidating")));
    assert_eq!(started.elapsed(), Duration::ZERO);
    settle().await;
    assert_eq!(bench.dependency.calls(), 2);
    pass(SECOND).await;
    settle().await;
    assert_eq!(bench.says(1).await, (2, "fresh"));
    let stats = bench.handle.stats();
    assert_eq!((stats.stale, stats.loads, stats.misses), (200, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn past_its_last_moment_nothing_is_served_while_it_is_revalidated() {
    let bench = stale(REVALIDATING).await;
    pass(MINUTE - NANO).await;
    assert_eq!(bench.says(1).await, (1, "stale: revalidating"));
    let bench = stale(REVALIDATING).await;
    pass(MINUTE).await;
    assert_eq!(bench.says(1).await, (2, "stored"));
}

/// fusioncache_648_stale_for_ever, pulsar_14154
#[tokio::test(start_paused = true)]
async fn a_dead_dependency_is_covered_until_max_stale_and_not_a_nanosecond_longer() {
    let bench = stale(IF_ERROR.throttle(Duration::ZERO)).await;
    bench.dependency.then(Then::Fail(AppError::Down));
    assert_eq!(bench.says(1).await, (1, "stale: failed"));
    pass(MINUTE - NANO).await;
    let (_, status) = bench.ask(1).await.unwrap();
    assert!(matches!(status, CacheStatus::Stale { stale_for, .. } if stale_for == MINUTE - NANO), "{status:?}");
    pass(NANO).await;
    assert_eq!(bench.ask(1).await, Err(AppError::Down));
    assert_eq!(bench.handle.stats().entries, 0, "and it is gone");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waited_for_a_load_and_got_the_stale_answer_is_one_call_and_no_hit() {
    let bench = stale(IF_ERROR.throttle(Duration::ZERO)).await;
    bench.dependency.then(Then::Fail(AppError::Down));
    for _ in 0..3 {
        assert_eq!(bench.says(1).await, (1, "stale: failed"));
    }
    let stats = bench.handle.stats();
    assert_eq!((stats.stale, stats.misses, stats.covered, stats.loads), (3, 4, 3, 4));
    assert_eq!((stats.calls(), stats.hit_rate(), stats.calls_saved()), (4, 0.0, 0));
}

/// It passes its last moment while the load goes on.
#[tokio::test(start_paused = true)]
async fn the_bound_holds_at_the_time_of_the_answer() {
    let bench = stale(IF_ERROR).await;
    bench.dependency.takes(2 * SECOND);
    bench.dependency.then(Then::Fail(AppError::Down));
    pass(MINUTE - SECOND).await;
    assert_eq!(bench.ask(1).await, Err(AppError::Down));
}

#[tokio::test(start_paused = true)]
async fn when_the_dependency_is_well_a_stale_answer_is_not_served_for_errors_to_come() {
    let bench = stale(IF_ERROR).await;
    assert_eq!(bench.says(1).await, (2, "stored"));
}

#[tokio::test(start_paused = true)]
async fn a_panic_and_a_hard_time_out_are_covered_too() {
    for then in [Then::Panic, Then::PanicInCall, Then::Hang] {
        let bench = stale(IF_ERROR).await;
        bench.dependency.then(then);
        assert_eq!(bench.says(1).await, (1, "stale: failed"));
    }
}

/// "served from stale cache while the circuit is open"
#[tokio::test(start_paused = true)]
async fn an_open_circuit_below_is_covered() {
    let bench = Bench::new(IF_ERROR.throttle(Duration::ZERO));
    let circuit = CircuitBreakerLayer::new(CircuitBreakerSettings::new());
    let layer = bench.handle.layer(|ask: &Ask| Some(ask.0)).tell(|answer, status| (answer, name(status)));
    let service = layer.layer(circuit.layer(bench.dependency.client()));
    let ask = async || service.clone().oneshot(Ask(1)).await;
    assert_eq!(ask().await, Ok((1, "stored")));
    pass(10 * SECOND).await;
    circuit.handle().force_open();
    for _ in 0..10 {
        assert_eq!(ask().await, Ok((1, "stale: failed")));
    }
    circuit.handle().reset();
    assert_eq!(ask().await, Ok((2, "stored")));
}

/// nestjs_redisx_11_only_what_may_pass
#[tokio::test(start_paused = true)]
async fn a_permanent_failure_is_no_reason_to_serve_what_is_stale() {
    let bench = stale(IF_ERROR).await;
    bench.dependency.then(Then::Fail(AppError::NotReady("no such thing")));
    for outcome in [Outcome::Permanent, Outcome::Ignored] {
        let classify = move |result: Result<&u32, &AppError>| result.map_or(outcome, |_| Outcome::Success);
        let service = bench.handle.layer(|ask: &Ask| Some(ask.0)).classify(classify).layer(bench.dependency.client());
        assert_eq!(service.oneshot(Ask(1)).await, Err(AppError::NotReady("no such thing")));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_a_failure_gives_way_to_a_stale_one() {
    let bench = stale(IF_ERROR).await;
    let classify = |result: Result<&u32, &AppError>| match result {
        Ok(1) => Outcome::Success,
        _ => Outcome::TRANSIENT,
    };
    let layer = bench.handle.layer(|ask: &Ask| Some(ask.0)).classify(classify);
    assert_eq!(layer.layer(bench.dependency.client()).oneshot(Ask(1)).await, Ok(1));
    assert_eq!(bench.dependency.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dead_dependency_is_asked_once_in_a_throttle() {
    let bench = stale(IF_ERROR.throttle(5 * SECOND)).await;
    bench.dependency.then(Then::Fail(AppError::Down));
    for _ in 0..100 {
        assert_eq!(bench.says(1).await, (1, "stale: failed"));
    }
    assert_eq!(bench.dependency.calls(), 2);
    pass(5 * SECOND - NANO).await;
    bench.says(1).await;
    assert_eq!(bench.dependency.calls(), 2);
    pass(NANO).await;
    bench.says(1).await;
    assert_eq!(bench.dependency.calls(), 3);
    bench.dependency.then(Then::Answer);
    pass(5 * SECOND).await;
    assert_eq!(bench.says(1).await, (4, "stored"));
}

/// The throttle ends with the last moment: without an answer in hand, everybody asks.
#[tokio::test(start_paused = true)]
async fn a_throttle_makes_nothing_live_longer() {
    let bench = stale(IF_ERROR.throttle(Duration::MAX)).await;
    bench.dependency.then(Then::Fail(AppError::Down));
    bench.says(1).await;
    pass(MINUTE).await;
    assert_eq!(bench.ask(1).await, Err(AppError::Down));
}

/// fusioncache_332_534_paths_that_share_no_policy
#[tokio::test(start_paused = true)]
async fn a_revalidation_that_fails_is_throttled_too() {
    let bench = stale(REVALIDATING.throttle(5 * SECOND)).await;
    bench.dependency.then(Then::Fail(AppError::Down));
    assert_eq!(bench.says(1).await, (1, "stale: revalidating"));
    settle().await;
    for _ in 0..10 {
        assert_eq!(bench.says(1).await, (1, "stale: failed"));
    }
    assert_eq!(bench.dependency.calls(), 2);
    pass(5 * SECOND).await;
    bench.dependency.then(Then::Answer);
    assert_eq!(bench.says(1).await, (1, "stale: revalidating"));
    settle().await;
    assert_eq!(bench.says(1).await, (3, "fresh"));
}

#[tokio::test(start_paused = true)]
async fn a_revalidation_that_panics_or_is_cancelled_does_not_stay_for_ever() {
    let bench = stale(REVALIDATING.throttle(Duration::ZERO)).await;
    bench.dependency.then(Then::Panic);
    bench.says(1).await;
    settle().await;
    bench.dependency.then(Then::Answer);
    assert_eq!(bench.says(1).await, (1, "stale: revalidating"));
    settle().await;
    assert_eq!(bench.says(1).await, (3, "fresh"));
}

/// bentocache_timeout_zero
#[tokio::test(start_paused = true)]
async fn at_the_soft_time_out_the_stale_answer_is_served_and_the_load_goes_on() {
    let bench = stale(IF_ERROR.soft_timeout(Duration::from_millis(50))).await;
    bench.dependency.takes(SECOND);
    let started = tokio::time::Instant::now();
    let answers = join_all((0..10).map(|_| bench.says(1))).await;
    assert!(answers.into_iter().all(|answer| answer == (1, "stale: slow")));
    assert_eq!(started.elapsed().as_millis(), 50);
    pass(SECOND).await;
    settle().await;
    assert_eq!((bench.says(1).await, bench.dependency.calls()), ((2, "fresh"), 2));
}

#[tokio::test(start_paused = true)]
async fn without_a_stale_answer_there_is_no_soft_time_out() {
    let bench = Bench::new(IF_ERROR.soft_timeout(Duration::from_millis(50)));
    bench.dependency.takes(SECOND);
    assert_eq!(bench.says(1).await, (1, "stored"));
}

#[tokio::test(start_paused = true)]
async fn who_has_a_stale_answer_in_hand_gets_it_at_its_deadline() {
    let bench = stale(IF_ERROR).await;
    bench.dependency.takes(SECOND);
    let hurried = Deadline::after(SECOND / 2).scope(bench.service().oneshot(Ask(1))).await.unwrap();
    assert_eq!((hurried.0, name(hurried.1)), (1, "stale: slow"));
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_gets_what_is_in_hand() {
    for (settings, told) in [(IF_ERROR, "stale: failed"), (REVALIDATING, "stale: revalidating")] {
        let bench = stale(settings.max_loads(1)).await;
        bench.dependency.then(Then::Hang);
        let other = tokio::spawn(bench.service().oneshot(Ask(2)));
        settle().await;
        assert_eq!(bench.says(1).await, (1, told));
        let refused = bench.ask(3).await.unwrap_err().as_rejected().unwrap();
        assert_eq!(refused.reason(), Reason::BulkheadFull);
        other.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn revalidation_comes_before_waiting_and_waiting_before_nothing() {
    let bench =
        Bench::new(BASE.stale_while_revalidate(5 * SECOND).stale_if_error(20 * SECOND).throttle(Duration::ZERO));
    bench.says(1).await;
    bench.dependency.then(Then::Fail(AppError::Down));
    pass(15 * SECOND - NANO).await;
    assert_eq!(bench.says(1).await, (1, "stale: revalidating"));
    settle().await;
    pass(NANO).await;
    assert_eq!(bench.says(1).await, (1, "stale: failed"));
    pass(15 * SECOND).await;
    assert_eq!(bench.ask(1).await, Err(AppError::Down));
}

#[tokio::test(start_paused = true)]
async fn what_was_found_stale_is_served_only_while_it_may_be_when_its_call_is_polled() {
    let bench = stale(REVALIDATING).await;
    let late = bench.service().call(Ask(1));
    pass(MINUTE).await;
    assert_eq!(late.await.map(|(answer, _)| answer), Ok(2));

    // What is only for errors by then has its load waited for.
    let bench = stale(REVALIDATING.stale_if_error(10 * MINUTE)).await;
    let late = bench.service().call(Ask(1));
    pass(MINUTE).await;
    assert_eq!(late.await.map(|(answer, _)| answer), Ok(2));
    let stats = bench.handle.stats();
    assert_eq!((stats.misses, stats.stale), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn who_came_before_a_load_failed_asks_no_more_within_the_throttle() {
    for settings in [IF_ERROR, REVALIDATING] {
        let bench = stale(settings).await;
        bench.dependency.then(Then::Fail(AppError::Down));
        let calls = [(); 5].map(|()| bench.service().call(Ask(1)));
        for call in calls {
            assert_eq!(call.await.map(|(answer, _)| answer), Ok(1));
            settle().await;
        }
        assert_eq!(bench.dependency.calls(), 2);
    }
}
