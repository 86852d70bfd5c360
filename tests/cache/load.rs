//! One load per key.

use std::{panic::AssertUnwindSafe, task::Poll};

use buttress::{
    AsRejected, Deadline, LoadFailure, Outcome, Reason, Rejected,
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings},
};
use futures::{FutureExt, future::join_all};
use tokio::task::JoinHandle;
use tokio_test::task::spawn;

use super::*;

/// So many callers of one key, each in a task of its own, all of them waiting.
async fn callers(bench: &Bench, callers: usize) -> Vec<JoinHandle<Result<Told, AppError>>> {
    let service = bench.service();
    let tasks = (0..callers).map(|_| tokio::spawn(service.clone().oneshot(Ask(1)))).collect();
    settle().await;
    tasks
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

fn reason(answer: Result<Told, AppError>) -> Reason {
    answer.unwrap_err().as_rejected().unwrap().reason()
}

/// moka_195_init_runs_more_than_once
#[tokio::test(start_paused = true)]
async fn a_thousand_concurrent_misses_are_one_load() {
    let bench = Bench::new(BASE);
    bench.dependency.takes(SECOND);
    let answers = join_all(callers(&bench, 1000).await).await;
    let told: Vec<_> = answers.into_iter().map(|answer| name(answer.unwrap().unwrap().1)).collect();
    assert_eq!(told.iter().filter(|told| **told == "collapsed").count(), 999);
    assert_eq!(told.iter().filter(|told| **told == "stored").count(), 1);
    let stats = bench.handle.stats();
    assert_eq!((bench.dependency.calls(), stats.loads, stats.misses, stats.collapsed), (1, 1, 1000, 999));
    assert_eq!((stats.in_flight, stats.calls_saved(), tasks()), (0, 999, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_misses_on_many_threads_are_one_load_each() {
    let bench = Bench::new(BASE);
    for key in 1..=300 {
        let service = bench.service();
        let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(service.clone().oneshot(Ask(key)))).collect();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap().0, key);
        }
        assert_eq!(bench.dependency.calls(), key);
    }
}

/// tower_resilience_coalesce_leader_cancelled, web3_proxy_217, moka_59_leader_cancelled
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_aborted_harms_nobody() {
    let bench = Bench::new(BASE);
    bench.dependency.takes(SECOND);
    let leader = tokio::spawn(bench.service().oneshot(Ask(1)));
    settle().await;
    let waiters = callers(&bench, 100).await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().unwrap().0, 1);
    }
    assert_eq!((bench.dependency.calls(), bench.says(1).await), (1, (1, "fresh")));
}

/// moka_240_leader_polled_once
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_polled_once_and_abandoned_harms_nobody() {
    let bench = Bench::new(BASE);
    bench.dependency.takes(SECOND);
    let mut leader = spawn(bench.service().oneshot(Ask(1)));
    assert!(leader.poll().is_pending());
    for waiter in callers(&bench, 100).await {
        assert_eq!(waiter.await.unwrap().unwrap().0, 1);
    }
    assert!(leader.is_woken());
    assert_eq!(bench.dependency.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_polled_begins_nothing() {
    let bench = Bench::new(BASE);
    drop(bench.service().call(Ask(1)));
    settle().await;
    assert_eq!((bench.dependency.calls(), bench.handle.stats().misses), (0, 0));
}

/// moka_43_leader_panics
#[tokio::test(start_paused = true)]
async fn a_load_that_panics_is_an_answer_for_all_and_the_next_one_succeeds() {
    for then in [Then::Panic, Then::PanicInCall] {
        let bench = Bench::new(BASE);
        bench.dependency.takes(SECOND);
        bench.dependency.then(then);
        let mut answers = callers(&bench, 100).await;
        let leader = answers.remove(0).await;
        assert!(leader.unwrap_err().is_panic(), "the panic itself");
        for waiter in answers {
            assert_eq!(reason(waiter.await.unwrap()), Reason::LoadFailed(LoadFailure::Panicked));
        }
        assert_eq!((bench.handle.stats().entries, bench.handle.stats().in_flight, tasks()), (0, 0, 0));
        bench.dependency.then(Then::Answer);
        bench.dependency.takes(Duration::ZERO);
        assert_eq!(bench.says(1).await, (2, "stored"));
    }
}

/// fusioncache_647_factory_throws_before_its_first_await
#[tokio::test(start_paused = true)]
async fn user_code_that_panics_in_the_task_is_a_panic_of_the_load() {
    let bench = Bench::new(BASE);
    let layer = bench.handle.layer(|ask: &Ask| Some(ask.0));
    let keep = layer.clone().keep(|answer: &u32| -> Duration { panic!("keep {answer}") });
    let by_request = layer.clone().keep_by_request(|ask: &Ask| -> fn(&u32) -> Duration { panic!("keep {}", ask.0) });
    let classify = layer.classify(|_: Result<&u32, &AppError>| -> Outcome { panic!("classify") });
    let client = || bench.dependency.client();
    let calls = [
        keep.layer(client()).oneshot(Ask(1)).boxed(),
        by_request.layer(client()).oneshot(Ask(1)).boxed(),
        classify.layer(client()).oneshot(Ask(1)).boxed(),
    ];
    for call in calls {
        assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    }
    assert_eq!(bench.says(1).await.1, "stored");
    assert_eq!(bench.handle.stats().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_keeps_its_own_deadline_and_the_load_has_none() {
    let bench = Bench::new(BASE);
    bench.dependency.takes(5 * SECOND);
    let hurried = |patience| tokio::spawn(Deadline::after(patience).scope(bench.service().oneshot(Ask(1))));
    let (leader, waiter) = (hurried(SECOND), hurried(2 * SECOND));
    let patient = tokio::spawn(bench.service().oneshot(Ask(1)));
    let started = tokio::time::Instant::now();
    assert_eq!(reason(leader.await.unwrap()), Reason::DeadlineExceeded);
    assert_eq!(reason(waiter.await.unwrap()), Reason::DeadlineExceeded);
    assert!(started.elapsed() < 3 * SECOND);
    assert_eq!(patient.await.unwrap().unwrap().0, 1);
    assert!(started.elapsed() >= 5 * SECOND);
    // Who is late already begins nothing.
    let late = Deadline::after(Duration::ZERO).scope(bench.service().oneshot(Ask(2))).await;
    assert_eq!(reason(late), Reason::DeadlineExceeded);
    settle().await;
    assert_eq!(bench.dependency.calls(), 1);
    // Who has time enough is answered.
    let early = Deadline::after(6 * SECOND).scope(bench.service().oneshot(Ask(3))).await;
    assert_eq!(early.unwrap().0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_load_ends_at_its_hard_time_out() {
    let bench = Bench::new(BASE.hard_timeout(3 * SECOND));
    bench.dependency.then(Then::Hang);
    let started = tokio::time::Instant::now();
    for caller in callers(&bench, 10).await {
        let rejected = caller.await.unwrap().unwrap_err().as_rejected().unwrap();
        assert_eq!((rejected.policy(), rejected.reason()), ("test", Reason::TimedOut));
    }
    assert_eq!(started.elapsed().as_secs(), 3);
    assert_eq!((bench.handle.stats().in_flight, tasks()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_leader_gets_the_error_and_the_waiters_a_refusal_that_says_what_it_was() {
    let bench = Bench::new(BASE);
    bench.dependency.takes(SECOND);
    bench.dependency.then(Then::Fail(AppError::Down));
    let mut answers = callers(&bench, 10).await;
    assert_eq!(answers.remove(0).await.unwrap(), Err(AppError::Down));
    for waiter in answers {
        let error = waiter.await.unwrap().unwrap_err();
        let rejected = error.as_rejected().unwrap();
        assert_eq!((rejected.policy(), rejected.reason()), ("test", Reason::LoadFailed(LoadFailure::Transient)));
        // What an outer layer makes of it.
        let outcome = buttress::Classify::classify(&buttress::ErrorsAreTransient, Err::<&(), _>(&error));
        assert_eq!(outcome, Outcome::TRANSIENT);
    }
}

#[tokio::test(start_paused = true)]
async fn the_waiters_get_the_refusal_of_a_layer_below_as_it_is() {
    let bench = Bench::new(BASE);
    bench.dependency.takes(SECOND);
    let refusal = Rejected::new("inner", Reason::RateLimited).with_retry_after(MINUTE);
    bench.dependency.then(Then::Fail(refusal.into()));
    for answer in callers(&bench, 10).await {
        assert_eq!(answer.await.unwrap().unwrap_err().as_rejected(), Some(refusal));
    }
}

#[tokio::test(start_paused = true)]
async fn errors_are_shared_where_that_is_asked_for() {
    let bench = Bench::new(BASE);
    bench.dependency.takes(SECOND);
    bench.dependency.then(Then::Fail(AppError::Down));
    let service = bench.handle.layer(|ask: &Ask| Some(ask.0)).share_errors().layer(bench.dependency.client());
    let calls: Vec<_> = (0..10).map(|_| service.clone().oneshot(Ask(1))).collect();
    assert!(join_all(calls).await.into_iter().all(|answer| answer == Err(AppError::Down)));
    assert_eq!(bench.dependency.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn in_turn_each_leads_once_until_one_succeeds() {
    let bench = Bench::new(BASE.in_turn());
    bench.dependency.takes(SECOND);
    bench.dependency.then(Then::Fail(AppError::Down));
    let callers = callers(&bench, 5).await;
    pass(SECOND).await;
    settle().await;
    pass(SECOND).await;
    settle().await;
    assert_eq!(bench.dependency.calls(), 3);
    bench.dependency.then(Then::Answer);
    // The third load had begun before.
    pass(SECOND).await;
    settle().await;
    let answers: Vec<_> = join_all(callers).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == Err(AppError::Down)).count(), 3);
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Ok((4, _)))).count(), 2);
    assert_eq!(bench.dependency.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn in_turn_ends_when_nobody_succeeds() {
    let bench = Bench::new(BASE.in_turn());
    bench.dependency.takes(SECOND);
    bench.dependency.then(Then::Panic);
    let answers = join_all(callers(&bench, 5).await).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap_err().is_panic()));
    assert_eq!((bench.dependency.calls(), tasks()), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn loads_and_waiters_are_bounded_and_their_places_come_back() {
    let bench = Bench::new(BASE.max_loads(2).max_waiters(3));
    bench.dependency.takes(SECOND);
    let mut first: Vec<_> = [1, 2].map(|key| spawn(bench.service().oneshot(Ask(key)))).into();
    assert!(first.iter_mut().all(|call| call.poll().is_pending()));
    assert_eq!(reason(bench.ask(3).await), Reason::BulkheadFull);
    let mut waiters: Vec<_> = (0..3).map(|_| spawn(bench.service().oneshot(Ask(1)))).collect();
    assert!(waiters.iter_mut().all(|call| call.poll().is_pending()));
    assert_eq!(reason(bench.ask(2).await), Reason::BulkheadFull);
    // One leaves, another comes.
    waiters.pop();
    let mut other = spawn(bench.service().oneshot(Ask(2)));
    assert!(other.poll().is_pending());
    assert_eq!(bench.handle.stats().in_flight, 2);
    settle().await;
    pass(SECOND).await;
    settle().await;
    for call in first.iter_mut().chain(&mut waiters).chain([&mut other]) {
        assert!(call.is_woken());
        assert!(matches!(call.poll(), Poll::Ready(Ok(_))));
    }
    assert_eq!(bench.says(3).await, (3, "stored"));
    assert_eq!(bench.dependency.calls(), 3, "who was refused called nobody");
}

/// Hundreds come and go while one load hangs: nothing of them stays.
#[tokio::test(start_paused = true)]
async fn waiters_that_go_away_leave_nothing_behind() {
    let bench = Bench::new(BASE.max_waiters(1).hard_timeout(Duration::MAX));
    bench.dependency.then(Then::Hang);
    let leader = tokio::spawn(bench.service().oneshot(Ask(1)));
    settle().await;
    for _ in 0..1_000 {
        let mut waiter = spawn(bench.service().oneshot(Ask(1)));
        assert!(waiter.poll().is_pending(), "its place came back");
    }
    leader.abort();
}

/// tower_resilience_coalesce_busy_wait
#[tokio::test(start_paused = true)]
async fn who_waits_is_woken_once() {
    let bench = Bench::new(BASE);
    bench.dependency.takes(SECOND);
    let mut calls: Vec<_> = (0..3).map(|_| spawn(bench.service().oneshot(Ask(1)))).collect();
    for call in &mut calls {
        for _ in 0..5 {
            assert!(call.poll().is_pending());
            assert!(!call.is_woken(), "it spins");
        }
    }
    settle().await;
    pass(SECOND).await;
    settle().await;
    for call in &mut calls {
        assert!(call.is_woken(), "it sleeps on");
        assert!(call.poll().is_ready());
    }
}

/// A shutdown drops the tasks: whoever still waits hears of it.
#[test]
fn a_load_that_is_cancelled_at_shutdown_is_an_answer() {
    let bench = Bench::new(BASE);
    bench.dependency.then(Then::Hang);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut calls: Vec<_> = (0..3).map(|_| spawn(bench.service().oneshot(Ask(1)))).collect();
    runtime.block_on(async {
        for call in &mut calls {
            assert!(call.poll().is_pending());
        }
        settle().await;
    });
    drop(runtime);
    for mut call in calls {
        assert!(call.is_woken());
        let Poll::Ready(answer) = call.poll() else { panic!("it waits for ever") };
        assert_eq!(reason(answer), Reason::LoadFailed(LoadFailure::Cancelled));
    }
    assert_eq!(bench.handle.stats().in_flight, 0);
}

/// What a shutdown has cancelled may be begun anew, in another runtime.
#[test]
fn a_refresh_that_is_cancelled_at_shutdown_is_not_under_way_for_ever() {
    let bench = Bench::new(BASE.stale_while_revalidate(1000 * SECOND));
    let paused = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let first = paused();
    first.block_on(async {
        assert_eq!(bench.says(1).await, (1, "stored"));
        pass(20 * SECOND).await;
        bench.dependency.then(Then::Hang);
        assert_eq!(bench.says(1).await, (1, "stale: revalidating"));
        settle().await;
        assert_eq!(bench.dependency.calls(), 2);
    });
    drop(first);
    paused().block_on(async {
        pass(40 * SECOND).await;
        bench.dependency.then(Then::Answer);
        assert_eq!(bench.says(1).await, (1, "stale: revalidating"));
        settle().await;
        assert_eq!(bench.says(1).await, (3, "fresh"));
    });
}

thread_local! {
    static FALLS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// A key whose code panics when it is told to.
#[derive(Clone, PartialEq, Eq)]
struct Fickle(u32);

impl std::hash::Hash for Fickle {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        assert!(!FALLS.get(), "told so");
        self.0.hash(state);
    }
}

#[test]
fn a_cancelled_load_whose_key_panics_is_over_all_the_same() {
    let (dependency, handle) = (Dependency::new(), CacheHandle::<Fickle, u32>::new(BASE));
    let service = handle.layer(|ask: &Ask| Some(Fickle(ask.0))).layer(dependency.client());
    dependency.then(Then::Hang);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut call = spawn(service.clone().oneshot(Ask(1)));
    runtime.block_on(async {
        assert!(call.poll().is_pending());
        settle().await;
    });
    FALLS.set(true);
    drop(runtime);
    FALLS.set(false);
    assert!(call.is_woken());
    let Poll::Ready(Err(error)) = call.poll() else { panic!("it waits for ever") };
    assert_eq!(error.as_rejected().unwrap().reason(), Reason::LoadFailed(LoadFailure::Cancelled));
    dependency.then(Then::Answer);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    assert_eq!(runtime.block_on(service.oneshot(Ask(1))), Ok(2));
    assert_eq!(handle.stats().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_hit_touches_no_breaker_below() {
    let bench = Bench::new(BASE);
    let circuit = CircuitBreakerLayer::new(CircuitBreakerSettings::new().name("below"));
    let layer = bench.handle.layer(|ask: &Ask| Some(ask.0));
    let service = layer.layer(circuit.layer(bench.dependency.client()));
    assert_eq!(service.clone().oneshot(Ask(1)).await, Ok(1));
    circuit.handle().force_open();
    assert_eq!(service.clone().oneshot(Ask(1)).await, Ok(1));
    let refused = service.oneshot(Ask(2)).await.unwrap_err().as_rejected().unwrap();
    assert_eq!(refused.policy(), "below");
}

/// A waker that panics.
struct Falls;

impl std::task::Wake for Falls {
    fn wake(self: Arc<Self>) {
        panic!("told so");
    }
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_keeps_nobody_else_from_being_woken() {
    let bench = Bench::new(BASE);
    bench.dependency.takes(SECOND);
    let mut falls = Box::pin(bench.service().oneshot(Ask(1)));
    let waker = Arc::new(Falls).into();
    assert!(falls.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    let waits = [(); 3].map(|()| tokio::spawn(bench.service().oneshot(Ask(1))));
    settle().await;
    pass(SECOND).await;
    settle().await;
    assert!(waits.iter().all(tokio::task::JoinHandle::is_finished));
    assert_eq!(bench.handle.stats().errors, 0);
}
