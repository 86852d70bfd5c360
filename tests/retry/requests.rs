//! What is sent again, and how it is changed.

use super::*;
use buttress::retry::RetryLayer;
use tower::{Layer, ServiceExt};

/// tower_retry_cannot_clone_request
#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_to_be_sent_twice_is_sent_once_and_untouched() {
    let heard = Heard::default();
    let only_even = |request: &u32| request.is_multiple_of(2).then_some(*request);
    let layer = RetryLayer::new(PLAIN).resend(only_even).on_event(heard.listener());
    let dependency = Dependency::down();
    assert_eq!(layer.layer(dependency.clone()).oneshot(7).await, Err(AppError::Down));
    assert_eq!(dependency.requests(), [7]);
    assert_eq!(heard.gave_up(), Some(GaveUp::Request));

    let dependency = Dependency::down();
    assert_eq!(layer.layer(dependency.clone()).oneshot(8).await, Err(AppError::Down));
    assert_eq!(dependency.requests(), [8, 8, 8]);
}

/// tower_resilience_clones_on_the_last_attempt_too
#[tokio::test(start_paused = true)]
async fn a_copy_is_made_for_each_attempt_but_the_last() {
    for attempts in [1, 2, 5] {
        let copies = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&copies);
        let layer = RetryLayer::new(PLAIN.attempts(attempts)).resend(move |request: &u32| {
            *counted.lock().unwrap() += 1;
            Some(*request)
        });
        assert!(layer.layer(Dependency::down()).oneshot(7).await.is_err());
        assert_eq!(*copies.lock().unwrap(), attempts - 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_changes_the_request_of_each_further_attempt() {
    let dependency = Dependency::down();
    let layer = RetryLayer::new(PLAIN).prepare(|request: &mut u32, attempt| *request += 100 * attempt);
    assert!(layer.layer(dependency.clone()).oneshot(7).await.is_err());
    // What a hook has changed stays changed.
    assert_eq!(dependency.requests(), [7, 207, 507]);
}

/// No `Clone` is asked of a request that the function knows how to copy, and none of the answer.
#[tokio::test(start_paused = true)]
async fn neither_request_nor_answer_need_be_clone() {
    struct Letter(String);
    let calls = Arc::new(Mutex::new(0));
    let client = tower::service_fn({
        let calls = Arc::clone(&calls);
        move |letter: Letter| {
            *calls.lock().unwrap() += 1;
            let good = *calls.lock().unwrap() == 2;
            async move { if good { Ok(Letter(letter.0 + "!")) } else { Err(AppError::Down) } }
        }
    });
    let layer = RetryLayer::new(PLAIN).resend(|letter: &Letter| Some(Letter(letter.0.clone())));
    assert_eq!(layer.layer(client).oneshot(Letter("hello".into())).await.unwrap().0, "hello!");
}

/// Whether a copy can be sent is asked when the attempt has failed, also through a hook, and hooks add up.
#[tokio::test(start_paused = true)]
async fn a_copy_may_turn_out_to_be_of_no_use() {
    #[derive(Clone)]
    struct UpTo(u32);
    impl buttress::retry::Resend<u32> for UpTo {
        fn copy(&self, request: &u32) -> Option<u32> {
            Some(*request)
        }
        fn can_resend(&self, copy: &u32) -> bool {
            *copy < self.0
        }
        fn prepare(&self, copy: &mut u32, _: u32) {
            *copy += 1;
        }
    }
    let heard = Heard::default();
    let dependency = Dependency::down();
    let layer = RetryLayer::new(PLAIN.attempts(9)).resend(UpTo(30)).prepare(|request: &mut u32, _| *request += 10);
    assert!(layer.on_event(heard.listener()).layer(dependency.clone()).oneshot(7).await.is_err());
    assert_eq!(dependency.requests(), [7, 18, 29, 40]);
    assert_eq!(heard.gave_up(), Some(GaveUp::Request));
}

/// A hook that panics has not begun an attempt.
#[tokio::test(start_paused = true)]
async fn what_was_taken_for_an_attempt_that_a_hook_prevents_is_given_back() {
    use futures::FutureExt;
    use std::panic::AssertUnwindSafe;
    let copies = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&copies);
    let copy_panics = RetryLayer::new(RetrySettings::new()).resend(move |request: &u32| {
        *counted.lock().unwrap() += 1;
        assert!(*counted.lock().unwrap() < 2, "copy");
        Some(*request)
    });
    let prepare_panics = RetryLayer::new(RetrySettings::new()).prepare(|_: &mut u32, _| panic!("prepare"));
    let budgets = [copy_panics.handle(), prepare_panics.handle()];
    let call = copy_panics.layer(Dependency::down()).oneshot(7);
    assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    let call = prepare_panics.layer(Dependency::down()).oneshot(7);
    assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    for handle in budgets {
        assert_eq!(handle.budget().unwrap().balance().spent, buttress::Cost::ZERO);
    }
}

/// The last result is the answer, and nothing is spent.
#[tokio::test(start_paused = true)]
async fn a_copy_that_spoils_while_the_call_sleeps_is_not_sent() {
    #[derive(Clone)]
    struct Spoils(Arc<std::sync::atomic::AtomicBool>);
    impl buttress::retry::Resend<u32> for Spoils {
        fn copy(&self, request: &u32) -> Option<u32> {
            Some(*request)
        }
        fn can_resend(&self, _: &u32) -> bool {
            !self.0.load(std::sync::atomic::Ordering::SeqCst)
        }
    }
    let spoilt = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let heard = Heard::default();
    let dependency = Dependency::down();
    let layer = RetryLayer::new(PLAIN.budget(buttress::BudgetSettings::new())).resend(Spoils(Arc::clone(&spoilt)));
    let layer = layer.on_event(heard.listener());
    let call = tokio::spawn(layer.layer(dependency.clone()).oneshot(7));
    sleep(500 * MS).await;
    spoilt.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(call.await.unwrap(), Err(AppError::Down));
    assert_eq!((dependency.attempts(), heard.gave_up()), (1, Some(GaveUp::Request)));
    assert_eq!(layer.handle().budget().unwrap().balance().spent, buttress::Cost::ZERO);
}
