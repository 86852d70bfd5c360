//! What happens after a call, by its answer.

use std::{future::ready, time::Duration};

use buttress::{
    AsRejected, BoxError, Outcome,
    rate_limit::{
        ActualCost, KeyedRateLimitLayer, KeyedWaitingLayer, Paid, PauseWhenAsked, Quota, RateLimitHandle,
        RateLimitLayer, RateLimitSettings as Settings,
    },
};
use tokio::time::advance;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::{NS, SECOND};

const TOKENS: Settings = Settings::token_bucket(Quota::per_second(1_000));

/// Answers what it is asked.
fn echo() -> impl Service<u64, Response = u64, Error = BoxError, Future: Send> + Clone + Send + 'static {
    service_fn(|n: u64| ready(if n == 0 { Err("failed".into()) } else { Ok(n) }))
}

/// upstash_negative_rates_praxis_121_language_model_tokens
#[tokio::test(start_paused = true)]
async fn the_answer_says_what_the_call_has_cost() {
    let estimate = |_: &u64| 100;
    let layer = RateLimitLayer::new(TOKENS).cost(estimate).after(ActualCost(|answer: &u64| *answer));
    let handle = layer.handle();
    for (actual, remaining) in [(100, 900), (150, 750), (20, 730), (0, 630), (u64::MAX, 0)] {
        let _ = layer.layer(echo()).oneshot(actual).await;
        assert_eq!(handle.peek().remaining, remaining, "{actual}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_says_when_to_come_back_pauses_the_limiter() {
    let classify = |result: Result<&u64, &BoxError>| match result {
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Transient { retry_after: Some(Duration::MAX) },
    };
    let layer = RateLimitLayer::new(TOKENS).after(PauseWhenAsked::new(classify, 30 * SECOND));
    assert!(layer.layer(echo()).oneshot(1).await.is_ok());
    assert!(layer.layer(echo()).oneshot(0).await.is_err());
    let refused = layer.layer(echo()).oneshot(1).await.unwrap_err().as_rejected().unwrap();
    assert_eq!(refused.retry_after(), Some(30 * SECOND), "and not for ever");
    advance(30 * SECOND - NS).await;
    assert!(layer.layer(echo()).oneshot(1).await.is_err());
    advance(NS).await;
    assert!(layer.layer(echo()).oneshot(1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_answer_can_be_told_what_is_left() {
    let tell = |result: &mut Result<u64, BoxError>, paid: &Paid<'_>| {
        *result = Ok(paid.decisions().unwrap().tightest().remaining);
    };
    let settings = Settings::token_bucket(Quota::per_second(10));
    let layer = RateLimitLayer::new(settings).after(tell);
    let mut service = layer.layer(echo());
    assert_eq!(service.ready().await.unwrap().call(7).await.unwrap(), 9);
    let mut waits = layer.waiting().layer(echo());
    assert_eq!(waits.ready().await.unwrap().call(7).await.unwrap(), 8);
    let mut paced = RateLimitLayer::new(settings).after(tell).backpressure().layer(echo());
    assert_eq!(paced.ready().await.unwrap().call(7).await.unwrap(), 9);
    let mut keyed = KeyedRateLimitLayer::new(settings, |n: &u64| *n).after(tell).layer(echo());
    assert_eq!(keyed.ready().await.unwrap().call(7).await.unwrap(), 9);
    let mut keyed = KeyedWaitingLayer::new(settings, |n: &u64| *n).after(tell).layer(echo());
    assert_eq!(keyed.ready().await.unwrap().call(7).await.unwrap(), 9);
}

#[tokio::test(start_paused = true)]
async fn two_things_can_be_done_and_a_key_has_its_own_account() {
    let hooks = (ActualCost(|answer: &u64| *answer), |result: &mut Result<u64, BoxError>, paid: &Paid<'_>| {
        if let Ok(3) = result {
            paid.pause(SECOND);
        }
    });
    let layer = KeyedRateLimitLayer::new(TOKENS, |n: &u64| *n).after(hooks);
    let handle = layer.handle();
    for n in [2, 3, 500] {
        assert!(layer.layer(echo()).oneshot(n).await.is_ok());
    }
    assert_eq!([2, 500, 4].map(|key| handle.peek(&key).remaining), [998, 500, 1000]);
    assert_eq!(handle.try_acquire(&3, 1).unwrap_err().retry_after(), Some(SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_cancelled_has_paid_what_was_thought() {
    let hangs = service_fn(|_: u64| std::future::pending::<Result<u64, BoxError>>());
    let layer = RateLimitLayer::new(TOKENS).cost(|_: &u64| 100).after(ActualCost(|answer: &u64| *answer));
    let mut call = tokio_test::task::spawn(layer.layer(hangs).oneshot(1));
    assert!(call.poll().is_pending());
    drop(call);
    assert_eq!(layer.handle().peek().remaining, 900);
}

/// What passes only because nothing is refused has taken nothing: there is nothing to give back, and nothing more to pay.
#[tokio::test(start_paused = true)]
async fn a_call_that_passes_in_shadow_mode_has_no_account() {
    let settings = Settings::token_bucket(Quota::per_day(100)).shadow();
    let actual = || ActualCost(|answer: &u64| *answer);
    let cost = |_: &u64| 60;
    let refusing = RateLimitLayer::new(settings).cost(cost).after(actual());
    let waiting = RateLimitLayer::new(settings).cost(cost).after(actual()).waiting();
    let keyed = KeyedRateLimitLayer::new(settings, |_: &u64| 7).cost(cost).after(actual());
    let keyed_waiting = KeyedWaitingLayer::new(settings, |_: &u64| 7).cost(cost).after(actual());
    for n in [60, 1, 500, 2] {
        assert!(refusing.layer(echo()).oneshot(n).await.is_ok());
        assert!(waiting.layer(echo()).oneshot(n).await.is_ok());
        assert!(keyed.layer(echo()).oneshot(n).await.is_ok());
        assert!(keyed_waiting.layer(echo()).oneshot(n).await.is_ok());
    }
    let of_a_key = keyed_waiting.handle().get(7).unwrap().peek();
    let left = [refusing.handle().peek(), waiting.handle().peek(), keyed.handle().peek(&7), of_a_key];
    assert_eq!(left.map(|decision| decision.remaining), [40; 4]);

    let paced = RateLimitLayer::new(settings).after(actual()).backpressure();
    let handle = paced.handle();
    assert!(handle.try_acquire(100).is_ok());
    for n in [1, 5] {
        assert!(paced.layer(echo()).oneshot(n).await.is_ok());
    }
    handle.refund(1);
    assert_eq!(handle.peek().remaining, 1);
}

/// A window gives back what still counts in it, by the time at which it was taken and not at which somebody heard of it.
#[tokio::test(start_paused = true)]
async fn who_hears_late_of_a_turn_gets_nothing_back_that_counts_no_more() {
    let handle = RateLimitHandle::try_new(Settings::sliding_log(Quota::per_second(1))).unwrap();
    let layer = handle.layer().waiting().after(ActualCost(|_: &u64| 0));
    assert!(handle.check(1).allowed);
    let mut call = tokio_test::task::spawn(layer.layer(echo()).oneshot(7));
    assert!(call.poll().is_pending());
    tokio::time::sleep(SECOND).await;
    assert!(call.is_woken(), "its turn has come");
    tokio::time::sleep(SECOND).await;
    assert!(handle.check(1).allowed);
    assert!(call.poll().is_ready());
    assert!(!handle.check(1).allowed, "that one is used");
}

/// By a layer with keys, and by a service that was ready for long.
#[tokio::test(start_paused = true)]
async fn who_answers_late_gives_nothing_back_that_counts_no_more() {
    let log = Settings::sliding_log(Quota::per_second(1));
    let slow = service_fn(async |n: u64| {
        tokio::time::sleep(2 * SECOND).await;
        Ok::<_, BoxError>(n)
    });
    let layer = KeyedRateLimitLayer::new(log, |n: &u64| *n).after(ActualCost(|_: &u64| 0));
    let handle = layer.handle();
    let call = tokio::spawn(layer.layer(slow).oneshot(7));
    tokio::time::sleep(SECOND + SECOND / 2).await;
    assert!(handle.check(&7, 1).allowed);
    assert!(call.await.unwrap().is_ok());
    assert!(!handle.check(&7, 1).allowed);

    let layer = RateLimitLayer::new(log).after(ActualCost(|_: &u64| 0)).backpressure();
    let mut service = layer.layer(echo());
    service.ready().await.unwrap();
    advance(SECOND).await;
    assert!(layer.handle().check(1).allowed);
    assert!(service.call(7).await.is_ok());
    assert!(!layer.handle().check(1).allowed);
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_all_keys_has_the_same_account() {
    let all = RateLimitHandle::try_new(TOKENS.name("all")).unwrap();
    let layer = KeyedRateLimitLayer::new(TOKENS, |n: &u64| *n).cost(|_: &u64| 100);
    let layer = layer.and_all(&all).after(ActualCost(|answer: &u64| *answer));
    for (actual, remaining) in [(150, 850), (20, 830)] {
        assert!(layer.layer(echo()).oneshot(actual).await.is_ok());
        assert_eq!(all.peek().remaining, remaining);
    }
}
