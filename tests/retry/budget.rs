//! What all calls together may cost.

use super::*;
use buttress::{
    Budget, BudgetSettings, Cost,
    rate_limit::{Quota, RateLimitLayer, RateLimitSettings},
    retry::{RetryLayer, TimeoutsCostDouble},
    timeout::TimeoutLayer,
};
use futures::{FutureExt, future::join_all};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

/// One retry for ten calls, and none for nothing.
const TENTH: BudgetSettings = BudgetSettings::new().ratio(0.1).per_second(0);
const QUICK: RetrySettings = RetrySettings::new().backoff(Backoff::constant(MS));

/// failsafe_go_141_exhausted_budget_replaces_the_error
#[tokio::test(start_paused = true)]
async fn when_the_budget_is_empty_the_original_error_is_returned() {
    let heard = Heard::default();
    let dependency = Dependency::down();
    let layer = RetryLayer::new(QUICK.budget(TENTH)).on_event(heard.listener());
    let retry = layer.layer(dependency.clone());
    for _ in 0..9 {
        assert_eq!(retry.clone().oneshot(7).await, Err(AppError::Down));
    }
    assert_eq!((dependency.attempts(), heard.gave_up()), (9, Some(GaveUp::Budget)));
    assert_eq!(retry.clone().oneshot(7).await, Err(AppError::Down));
    assert_eq!(dependency.attempts(), 11);
}

/// envoy_30205_retries_in_their_delay_are_not_counted
#[tokio::test(start_paused = true)]
async fn a_retry_is_paid_before_it_sleeps_and_given_back_when_it_is_cancelled() {
    let layer = RetryLayer::new(PLAIN.budget(TENTH));
    let budget = layer.handle().budget().unwrap().clone();
    (0..10).for_each(|_| budget.deposit());
    let retry = layer.layer(Dependency::down());
    let mut first = tokio_test::task::spawn(retry.clone().oneshot(7));
    assert!(first.poll().is_pending());
    // It sleeps, and has taken what there was.
    assert_eq!(retry.clone().oneshot(7).await, Err(AppError::Down));
    drop(first);
    assert_eq!(budget.balance().spent, Cost::ZERO);
    let mut next = tokio_test::task::spawn(retry.oneshot(7));
    assert!(next.poll().is_pending());
}

/// Dropped after each number of polls, from none to all.
#[tokio::test(start_paused = true)]
async fn a_cancelled_retry_costs_only_what_has_begun() {
    let (probe, control) = support::Probe::new();
    let layer = RetryLayer::new(QUICK.budget(TENTH.per_second(1_000)));
    let budget = layer.handle().budget().unwrap().clone();
    control.answer(support::Answer::Err);
    for polls in 0..40 {
        let (before, called) = (budget.balance().spent, control.calls());
        control.ready(support::Ready::After(2));
        let retry = layer.layer(probe.clone());
        let mut call = tokio_test::task::spawn(retry.oneshot(7));
        for _ in 0..polls {
            if call.poll().is_ready() {
                break;
            }
            tokio::time::advance(MS).await;
        }
        drop(call);
        let retries = (control.calls() - called).saturating_sub(1) as u32;
        let spent = budget.balance().spent.as_percent() - before.as_percent();
        assert_eq!(spent, u64::from(retries) * 100, "after {polls} polls");
    }
}

/// And not by the reading of the clock that a call before it took.
#[tokio::test(start_paused = true)]
async fn a_call_is_counted_when_it_is_made() {
    let limited = RateLimitLayer::new(RateLimitSettings::token_bucket(Quota::per_second(1_000)));
    let layer = RetryLayer::new(PLAIN.budget(TENTH));
    let budget = layer.handle().budget().unwrap().clone();
    let (up, _) = support::Probe::new();
    layer.layer(limited.layer(up.clone())).oneshot(7).await.unwrap();
    assert_eq!(budget.balance().calls, 1);

    limited.layer(up.clone()).oneshot(7).await.unwrap();
    tokio::time::advance(20 * SECOND).await;
    layer.layer(up).oneshot(7).await.unwrap();
    assert_eq!(budget.balance().calls, 1, "the first one is forgotten, and the last one is not");
}

/// Time passes within the very call, after the limiter has read the clock.
#[tokio::test(start_paused = true)]
async fn a_call_is_counted_by_the_reading_of_the_limiter_inside_it() {
    let limited = RateLimitLayer::new(RateLimitSettings::token_bucket(Quota::per_second(1_000)));
    let layer = RetryLayer::new(PLAIN.budget(TENTH));
    let budget = layer.handle().budget().unwrap().clone();
    let slow = service_fn(|_: u32| {
        tokio::time::advance(6 * SECOND).now_or_never();
        std::future::ready(Ok::<_, AppError>(()))
    });
    layer.layer(limited.layer(slow)).oneshot(7).await.unwrap();
    tokio::time::advance(3 * SECOND).await;
    assert_eq!(budget.balance().calls, 1);
    tokio::time::advance(2 * SECOND).await;
    assert_eq!(budget.balance().calls, 0, "the limiter was asked eleven seconds ago, of a window of ten");
}

#[tokio::test(start_paused = true)]
async fn without_a_budget_every_failure_is_retried() {
    for (settings, expected) in [(QUICK.without_budget(), 3_000), (QUICK, 1_000 + 230)] {
        let dependency = Dependency::down();
        let retry = RetryLayer::new(settings).layer(dependency.clone());
        join_all((0..1_000).map(|_| retry.clone().oneshot(7))).await;
        assert_eq!(dependency.attempts(), expected);
    }
}

/// aws_sdk_a_retry_after_a_time_out_costs_double
#[tokio::test(start_paused = true)]
async fn the_kind_of_failure_decides_what_a_retry_costs() {
    let attempts = |hangs: bool, double: bool| async move {
        let dependency = Dependency::new(move |_| (if hangs { 60 * SECOND } else { MS }, Err(AppError::Down)));
        let layer = RetryLayer::new(QUICK.budget(TENTH.ratio(0.0).per_second(1)));
        let inner = TimeoutLayer::new(10 * MS).layer(dependency.clone());
        let calls = 0..20;
        if double {
            let retry = layer.cost(TimeoutsCostDouble).layer(inner);
            join_all(calls.map(|_| retry.clone().oneshot(7))).await;
        } else {
            let retry = layer.layer(inner);
            join_all(calls.map(|_| retry.clone().oneshot(7))).await;
        }
        dependency.attempts() - 20
    };
    assert_eq!(attempts(false, false).await, 10);
    assert_eq!(attempts(true, false).await, 10);
    assert_eq!(attempts(false, true).await, 10);
    assert_eq!(attempts(true, true).await, 5);
}

#[tokio::test(start_paused = true)]
async fn a_closure_charges_as_it_likes() {
    let dependency = Dependency::down();
    let layer = RetryLayer::new(QUICK.attempts(2).budget(TENTH.ratio(0.0).per_second(1)))
        .cost(|_: Result<&u32, &AppError>| Cost::percent(250));
    let retry = layer.layer(dependency.clone());
    join_all((0..20).map(|_| retry.clone().oneshot(7))).await;
    assert_eq!(dependency.attempts(), 24);
}

#[tokio::test(start_paused = true)]
async fn layers_that_share_a_budget_draw_on_the_same() {
    let budget = Budget::new(TENTH);
    let dependency = Dependency::down();
    let layers = [(); 2].map(|()| RetryLayer::new(QUICK.attempts(2)).budget(budget.clone()));
    let calls = (0..100).map(|n| layers[n % 2].layer(dependency.clone()).oneshot(7));
    join_all(calls).await;
    assert_eq!(dependency.attempts(), 110);
    assert_eq!(budget.balance().calls, 100);
}

/// nanobot_2760, envoy_9069, tower_resilience_171: nested retries multiply.
#[tokio::test(start_paused = true)]
async fn nested_retries_that_share_a_budget_stay_inside_it() {
    let budget = Budget::new(BudgetSettings::new().ratio(0.2).per_second(1));
    let dependency = Dependency::down();
    let layer = || RetryLayer::new(QUICK).budget(budget.clone());
    let stack = ServiceBuilder::new().layer(layer()).layer(layer()).layer(layer()).service(dependency.clone());
    join_all((0..1_000).map(|_| stack.clone().oneshot(7))).await;
    assert_eq!(budget.balance().calls, 1_000);
    let retries = dependency.attempts() - 1_000;
    assert!(retries <= 200 + 10, "{retries}");
    assert!(retries >= 207, "{retries}");
}

/// A stack for each call, and a shutdown with calls under way: the budget outlives what was built on it.
#[tokio::test(start_paused = true)]
async fn a_budget_holds_for_calls_that_outlive_their_layers() {
    let budget = Budget::new(TENTH);
    let dependency = Dependency::down();
    for _ in 0..100 {
        let stack = RetryLayer::new(QUICK).budget(budget.clone()).layer(dependency.clone());
        assert!(stack.oneshot(7).await.is_err());
    }
    assert_eq!(dependency.attempts(), 110);

    let dependency = Dependency::new(|_| (SECOND, Err(AppError::Down)));
    let stack = RetryLayer::new(QUICK.budget(TENTH)).layer(dependency.clone());
    let calls: Vec<_> = (0..1_000).map(|_| tokio::spawn(stack.clone().oneshot(7))).collect();
    tokio::task::yield_now().await;
    drop(stack);
    join_all(calls).await;
    assert_eq!(dependency.attempts(), 1_100);
}

/// A retry inside that makes its call later than in `call`, and for a further attempt: part of the same call all the same.
#[tokio::test(start_paused = true)]
async fn a_nested_call_is_known_when_it_is_made_in_a_poll_too() {
    let budget = Budget::new(BudgetSettings::new().ratio(0.0).per_second(100));
    let dependency = Dependency::down();
    let layer = || RetryLayer::new(QUICK).budget(budget.clone());
    let late =
        ServiceBuilder::new().layer(layer()).layer(buttress::LateLayer).layer(layer()).service(dependency.clone());
    assert!(late.oneshot(7).await.is_err());
    assert_eq!((dependency.attempts(), budget.balance().calls), (9, 1));
}

/// From many threads at once: never more than the law allows, and not less than 99 % of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_together_stay_inside_the_budget_and_use_it() {
    for ratio in [0.05, 0.2, 0.6, 1.0, 1.5] {
        let settings = RetrySettings::new()
            .attempts(4)
            .backoff(Backoff::constant(Duration::ZERO))
            .budget(BudgetSettings::new().ratio(ratio).per_second(3).window(3600 * SECOND));
        let dependency = Dependency::down();
        let retry = RetryLayer::new(settings).layer(dependency.clone());
        let calls = 32 * 50;
        join_all((0..32).map(|_| {
            let retry = retry.clone();
            tokio::spawn(async move {
                for _ in 0..50 {
                    let _ = retry.clone().oneshot(7).await;
                }
            })
        }))
        .await;
        let retries = (dependency.attempts() - calls) as f64;
        let allowed = (calls as f64).mul_add(ratio, 3.0 * 3600.0);
        let wanted = (calls * 3) as f64;
        assert!(retries <= allowed, "{ratio}: {retries} of {allowed}");
        assert!(retries >= allowed.min(wanted) * 0.99, "{ratio}: {retries} of {allowed}");
    }
}
