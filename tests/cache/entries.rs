//! What is kept, and for how long.

use buttress::{
    AsRejected, LoadFailure, Outcome, Reason,
    cache::{CacheLayer, CacheStats, Keep},
};

use super::*;

#[tokio::test(start_paused = true)]
async fn an_answer_is_fresh_for_its_ttl_and_not_a_nanosecond_longer() {
    let bench = Bench::new(BASE);
    assert_eq!(bench.says(1).await, (1, "stored"));
    pass(10 * SECOND - NANO).await;
    let (answer, status) = bench.ask(1).await.unwrap();
    assert!(matches!(status, CacheStatus::Fresh { ttl, .. } if ttl == NANO), "{status:?}");
    assert_eq!(answer, 1);
    pass(NANO).await;
    assert_eq!(bench.says(1).await, (2, "stored"));
    assert_eq!(bench.dependency.calls(), 2);
}

/// moka_359_reads_extend_the_ttl
#[tokio::test(start_paused = true)]
async fn a_read_makes_nothing_live_longer() {
    let bench = Bench::new(BASE);
    for _ in 0..10 {
        assert_eq!(bench.says(1).await.0, 1);
        pass(SECOND).await;
    }
    assert_eq!(bench.says(1).await.0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_ttl_that_has_no_end_and_one_of_a_nanosecond_work() {
    let bench = Bench::new(BASE.ttl(Duration::MAX));
    bench.says(1).await;
    pass(1_000_000 * MINUTE).await;
    assert_eq!(bench.says(1).await, (1, "fresh"));
    let bench = Bench::new(BASE.ttl(NANO).stale_if_error(Duration::MAX));
    bench.says(1).await;
    assert_eq!(bench.says(1).await, (1, "fresh"));
    pass(NANO).await;
    bench.dependency.then(Then::Fail(AppError::Down));
    pass(1_000_000 * MINUTE).await;
    assert_eq!(bench.says(1).await, (1, "stale: failed"));
}

/// stash_129_synchronised_expiry
#[tokio::test(start_paused = true)]
async fn what_is_stored_together_does_not_end_together_and_nothing_outlives_its_ttl() {
    let bench = Bench::new(BASE.jitter(0.1));
    for key in 1..=1000 {
        bench.says(key).await;
    }
    let fresh = async || {
        let mut fresh = 0;
        for key in 1..=1000 {
            fresh += u32::from(bench.handle.get(&key).is_some());
        }
        fresh
    };
    pass(9 * SECOND - NANO).await;
    assert_eq!(fresh().await, 1000);
    pass(SECOND / 2).await;
    assert!((400..600).contains(&fresh().await));
    pass(SECOND / 2 + NANO).await;
    assert_eq!(fresh().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_key_passes_by() {
    let bench = Bench::new(BASE);
    assert_eq!(bench.says(0).await, (1, "bypassed"));
    assert_eq!(bench.says(0).await, (2, "bypassed"));
    assert_eq!(bench.handle.stats(), CacheStats::default());
}

/// fastmcp_4705_errors_are_cached
#[tokio::test(start_paused = true)]
async fn a_failure_is_never_stored() {
    let bench = Bench::new(BASE);
    for (then, failure) in
        [(Then::Fail(AppError::Down), AppError::Down), (Then::Fail(AppError::NotReady("x")), AppError::NotReady("x"))]
    {
        bench.dependency.then(then);
        assert_eq!(bench.ask(1).await, Err(failure));
        assert_eq!(bench.handle.stats().entries, 0);
    }
    bench.dependency.then(Then::Answer);
    assert_eq!(bench.says(1).await, (3, "stored"));
}

/// The default classifier, but some numbers are failures.
fn by_number(result: Result<&u32, &AppError>) -> Outcome {
    match result {
        Ok(1) => Outcome::TRANSIENT,
        Ok(2) => Outcome::Ignored,
        Ok(3) | Err(AppError::NotReady(_)) => Outcome::Permanent,
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::TRANSIENT,
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_a_failure_is_passed_on_and_not_stored() {
    let bench = Bench::new(BASE);
    let layer = bench.handle.layer(|ask: &Ask| Some(ask.0)).classify(by_number);
    let service = layer.layer(bench.dependency.client());
    for call in 1..=4 {
        assert_eq!(service.clone().oneshot(Ask(7)).await, Ok(call));
    }
    assert_eq!(service.oneshot(Ask(7)).await, Ok(4), "the success is stored");
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_is_remembered_for_the_negative_ttl() {
    let bench = Bench::new(BASE.negative_ttl(2 * SECOND).stale_if_error(MINUTE));
    let layer = bench.handle.layer(|ask: &Ask| Some(ask.0)).classify(by_number);
    let service = layer.layer(bench.dependency.client());
    let ask = async || service.clone().oneshot(Ask(7)).await;
    assert_eq!([ask().await, ask().await, ask().await], [Ok(1), Ok(2), Ok(3)]);
    pass(2 * SECOND - NANO).await;
    assert_eq!(ask().await, Ok(3));
    pass(NANO).await;
    assert_eq!(ask().await, Ok(4), "and it is never stale");
}

/// worldmonitor_3527_throws_stampede
#[tokio::test(start_paused = true)]
async fn a_permanent_error_is_remembered_too() {
    let bench = Bench::new(BASE.negative_ttl(2 * SECOND));
    bench.dependency.then(Then::Fail(AppError::NotReady("no such thing")));
    let layer = bench.handle.layer(|ask: &Ask| Some(ask.0)).classify(by_number);
    let service = layer.clone().layer(bench.dependency.client());
    assert_eq!(service.clone().oneshot(Ask(7)).await, Err(AppError::NotReady("no such thing")));
    let rejected = service.clone().oneshot(Ask(7)).await.unwrap_err().as_rejected().unwrap();
    assert_eq!((rejected.policy(), rejected.reason()), ("test", Reason::LoadFailed(LoadFailure::Permanent)));
    assert_eq!(bench.dependency.calls(), 1);
    pass(2 * SECOND).await;
    assert_eq!(service.oneshot(Ask(7)).await, Err(AppError::NotReady("no such thing")));
    let sharing = layer.share_errors().layer(bench.dependency.client());
    for _ in 0..3 {
        let answer = sharing.clone().oneshot(Ask(8)).await;
        assert_eq!(answer, Err(AppError::NotReady("no such thing")), "the error itself");
    }
    assert_eq!(bench.dependency.calls(), 3);
    assert_eq!(bench.handle.get(&8), None, "it is no value");
}

#[tokio::test(start_paused = true)]
async fn the_response_decides_what_is_kept() {
    let bench = Bench::new(BASE.negative_ttl(3 * SECOND));
    let layer = bench.handle.layer(|ask: &Ask| Some(ask.0)).keep(|answer: &u32| match answer {
        1 => Keep::never(),
        2 => Keep::negative(),
        3 => Keep::from(Duration::from_secs(100)),
        4 => Keep::from(Duration::ZERO),
        5 => Keep::from(None::<Duration>),
        _ => Keep::default(),
    });
    let service = layer.layer(bench.dependency.client());
    let ask = async || service.clone().oneshot(Ask(7)).await.unwrap();
    assert_eq!([ask().await, ask().await, ask().await], [1, 2, 2], "vetoed, then short");
    pass(3 * SECOND).await;
    assert_eq!(ask().await, 3);
    pass(100 * SECOND - NANO).await;
    assert_eq!(ask().await, 3);
    pass(NANO).await;
    assert_eq!([ask().await, ask().await, ask().await, ask().await], [4, 5, 6, 6]);
    pass(10 * SECOND).await;
    assert_eq!(ask().await, 7);
}

#[tokio::test(start_paused = true)]
async fn the_request_decides_with_the_response() {
    let bench = Bench::new(BASE);
    let layer = bench.handle.layer(|ask: &Ask| Some(ask.0)).keep_by_request(|ask: &Ask| {
        let key = ask.0;
        move |answer: &u32| Duration::from_secs(u64::from(key * answer))
    });
    let service = layer.layer(bench.dependency.client());
    assert_eq!(service.clone().oneshot(Ask(30)).await, Ok(1));
    pass(30 * SECOND - NANO).await;
    assert_eq!(service.clone().oneshot(Ask(30)).await, Ok(1));
    pass(NANO).await;
    assert_eq!(service.oneshot(Ask(30)).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_veto_of_a_permanent_failure_holds() {
    let bench = Bench::new(BASE.negative_ttl(MINUTE));
    let layer = bench.handle.layer(|ask: &Ask| Some(ask.0)).classify(|_: Result<&u32, &AppError>| Outcome::Permanent);
    let service = layer.keep(|_: &u32| Keep::never()).layer(bench.dependency.client());
    assert_eq!(service.clone().oneshot(Ask(7)).await, Ok(1));
    assert_eq!(service.oneshot(Ask(7)).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_hit_needs_no_readiness_and_calls_nothing() {
    let (probe, control) = support::Probe::new();
    let service = CacheLayer::new(BASE, |key: &u32| Some(*key)).layer(probe);
    assert_eq!(service.clone().oneshot(7).await, Ok(7));
    control.ready(support::Ready::Never);
    let readiness = control.readiness.load(Ordering::SeqCst);
    assert_eq!(service.clone().oneshot(7).await, Ok(7));
    assert_eq!((control.calls(), control.readiness.load(Ordering::SeqCst)), (1, readiness));
    control.ready(support::Ready::Error);
    assert_eq!(service.clone().oneshot(8).await, Err(AppError::NotReady("told so")));
}

/// tower_resilience_225_layers_share_no_store
#[tokio::test(start_paused = true)]
async fn clones_further_layers_and_handles_share_the_entries() {
    let bench = Bench::new(BASE);
    assert_eq!(bench.service().clone().oneshot(Ask(1)).await.unwrap().0, 1);
    let other = bench.handle.clone().layer(|_: &Ask| Some(1)).layer(bench.dependency.client());
    assert_eq!(other.handle().get(&1), Some(1));
    assert_eq!(other.oneshot(Ask(9)).await, Ok(1));
}

/// Outside a runtime nobody could load: the call is the inner service's.
#[test]
fn outside_a_runtime_a_call_passes_by() {
    let layer = CacheLayer::new(BASE, |key: &u32| Some(*key));
    let service = layer.layer(service_fn(|n: u32| std::future::ready(Ok::<_, AppError>(n))));
    assert_eq!(futures::executor::block_on(service.clone().oneshot(7)), Ok(7));
    assert_eq!(layer.handle().get(&7), None);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(service.clone().oneshot(7)), Ok(7), "without timers too");
    assert_eq!(layer.handle().get(&7), Some(7));
}
