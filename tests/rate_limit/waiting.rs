//! Calls that wait for their turn: in a future, and in `poll_ready`.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use buttress::{
    AsRejected, Deadline, Reason, Rejected,
    rate_limit::{Quota, RateLimitHandle, RateLimitLayer, RateLimitSettings as Settings},
};
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, Service, ServiceExt};

use crate::{
    ALGORITHMS, NS, SECOND,
    support::{AppError, Probe, Ready},
};

/// Ten a second, one at a time.
const STEADY: Settings =
    Settings::token_bucket(Quota::per_second(10).burst(1)).max_wait(Duration::MAX).max_waiters(1_000);
const STEP: Duration = Duration::from_millis(100);

type Call = Pin<Box<dyn Future<Output = Result<u32, AppError>> + Send>>;

/// Calls through a layer that waits.
fn caller(handle: &RateLimitHandle) -> impl Fn(u32) -> Call {
    let layer = handle.layer().waiting();
    let service = layer.layer(Probe::new().0);
    move |request| Box::pin(service.clone().oneshot(request))
}

/// A waker that counts.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn polled(call: &mut Call, woken: &Arc<Woken>) -> Poll<Result<u32, AppError>> {
    call.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(woken))))
}

fn rejected(answer: Result<u32, AppError>) -> Rejected {
    answer.unwrap_err().as_rejected().unwrap()
}

/// resilience4j_1968_unfair_waiters
#[tokio::test(start_paused = true)]
async fn first_come_first_served_at_the_rate() {
    let handle = RateLimitHandle::try_new(STEADY).unwrap();
    let call = caller(&handle);
    let (begin, order) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let (call, order) = (call(n), Arc::clone(&order));
            tokio::spawn(async move {
                call.await.unwrap();
                order.lock().unwrap().push((n, begin.elapsed()));
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    let expected: Vec<_> = (0..20).map(|n| (n, n * STEP)).collect();
    assert_eq!(*order.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn each_waiter_is_woken_once() {
    let handle = RateLimitHandle::try_new(STEADY).unwrap();
    let call = caller(&handle);
    assert!(handle.check(1).allowed);
    let mut waiting: Vec<_> = (0..10).map(|n| (call(n), Arc::new(Woken::default()))).collect();
    for (call, woken) in &mut waiting {
        assert!(polled(call, woken).is_pending());
    }
    for done in 1..=10 {
        sleep(STEP).await;
        for (n, (_, woken)) in waiting.iter().enumerate() {
            assert_eq!(woken.0.load(Ordering::SeqCst), usize::from(n < done), "{n} after {done}");
        }
    }
    // Nobody has been polled in between: their turns did not depend on it.
    for (call, woken) in &mut waiting {
        assert!(polled(call, woken).is_ready());
    }
}

/// moka_240_polled_once_and_never_again
#[tokio::test(start_paused = true)]
async fn who_is_polled_once_and_never_again_holds_up_nobody() {
    let handle = RateLimitHandle::try_new(STEADY).unwrap();
    let call = caller(&handle);
    assert!(handle.check(1).allowed);
    let mut sleeper = call(0);
    assert!(polled(&mut sleeper, &Arc::default()).is_pending());
    let begin = Instant::now();
    assert_eq!(call(1).await, Ok(1));
    assert_eq!(begin.elapsed(), 2 * STEP);
    // What was granted to it and never used is given back.
    drop(sleeper);
    assert!(handle.check(1).allowed);
}

/// failsafe_go_cancelled_waiter_keeps_its_reservation
#[tokio::test(start_paused = true)]
async fn when_half_of_a_hundred_leave_the_others_move_up() {
    for settings in [STEADY, Settings::sliding_log(Quota::new(1, STEP)).max_wait(Duration::MAX)] {
        let handle = RateLimitHandle::try_new(settings).unwrap();
        let call = caller(&handle);
        assert!(handle.check(1).allowed);
        let mut first: Vec<_> = (0..50).map(&call).collect();
        for call in &mut first {
            assert!(polled(call, &Arc::default()).is_pending());
        }
        let begin = Instant::now();
        let rest: Vec<_> = (50..100).map(|n| tokio::spawn(call(n))).collect();
        tokio::task::yield_now().await;
        assert_eq!(handle.snapshot().waiting, 100);
        drop(first);
        for call in rest {
            call.await.unwrap().unwrap();
        }
        assert_eq!(begin.elapsed(), 50 * STEP, "{settings:?}");
        assert_eq!(handle.snapshot().waiting, 0);
    }
}

/// failsafe_go_reject_at_once_if_the_wait_exceeds_max
#[tokio::test(start_paused = true)]
async fn a_wait_that_would_be_too_long_is_refused_at_once_and_says_when_it_would_not() {
    for (index, algorithm) in ALGORITHMS.into_iter().enumerate() {
        let settings = algorithm(Quota::per_second(2)).max_wait(2 * SECOND);
        let handle = RateLimitHandle::try_new(settings).unwrap();
        let call = caller(&handle);
        while handle.check(1).allowed {}
        let mut waiting = Vec::new();
        let refused = loop {
            let mut next = call(7);
            match polled(&mut next, &Arc::default()) {
                Poll::Pending => waiting.push(next),
                Poll::Ready(answer) => break rejected(answer),
            }
            assert!(waiting.len() < 10, "{settings:?}");
        };
        assert!((2..=5).contains(&waiting.len()), "{} {settings:?}", waiting.len());
        assert_eq!((refused.reason(), refused.reached_inner()), (Reason::RateLimited, false));
        let wait = refused.retry_after().unwrap();
        if index == 2 {
            // What a counter will say of several windows is an estimate.
            continue;
        }
        // A nanosecond earlier it is too early still.
        advance(wait - NS).await;
        assert!(polled(&mut call(7), &Arc::default()).is_ready(), "{settings:?}");
        advance(NS).await;
        assert!(polled(&mut call(7), &Arc::default()).is_pending(), "{settings:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_past_the_deadline_of_the_call() {
    let handle = RateLimitHandle::try_new(STEADY).unwrap();
    let call = caller(&handle);
    assert!(handle.check(1).allowed);
    let begin = Instant::now();
    let refused = rejected(Deadline::after(STEP - NS).scope(call(7)).await);
    assert_eq!(
        (begin.elapsed(), refused.reason(), refused.retry_after()),
        (Duration::ZERO, Reason::RateLimited, Some(STEP))
    );
    assert_eq!(Deadline::after(STEP).scope(call(7)).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn the_line_is_bounded_and_who_gives_up_makes_room() {
    let handle = RateLimitHandle::try_new(STEADY.max_waiters(3)).unwrap();
    let call = caller(&handle);
    assert!(handle.check(1).allowed);
    let mut waiting: Vec<_> = (0..3).map(&call).collect();
    for call in &mut waiting {
        assert!(polled(call, &Arc::default()).is_pending());
    }
    let refused = rejected(call(7).await);
    assert_eq!(refused.retry_after(), Some(STEP), "when the first has gone");
    waiting.pop();
    assert!(polled(&mut call(7), &Arc::default()).is_pending());
}

/// Who is known to be late leaves at once, and does not keep others from their turn.
#[tokio::test(start_paused = true)]
async fn a_pause_sends_away_who_cannot_wait_for_its_end() {
    let handle = RateLimitHandle::try_new(STEADY.max_wait(SECOND)).unwrap();
    let call = caller(&handle);
    assert!(handle.check(1).allowed);
    let hurried: Vec<_> = (0..5).map(|n| tokio::spawn(call(n))).collect();
    let patient = RateLimitHandle::clone(&handle).layer().waiting().layer(Probe::new().0);
    tokio::task::yield_now().await;
    handle.pause(10 * SECOND);
    let begin = Instant::now();
    for call in hurried {
        let refused = rejected(call.await.unwrap());
        assert!(refused.retry_after() >= Some(10 * SECOND));
    }
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert!(patient.oneshot(7).await.is_err());
    handle.reset();
    assert_eq!(call(7).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn more_for_all_lets_those_in_line_go_at_once() {
    let handle = RateLimitHandle::try_new(STEADY).unwrap();
    let call = caller(&handle);
    assert!(handle.check(1).allowed);
    let waiting: Vec<_> = (0..5).map(|n| tokio::spawn(call(n))).collect();
    tokio::task::yield_now().await;
    let begin = Instant::now();
    handle.refund(1);
    tokio::task::yield_now().await;
    assert_eq!(handle.snapshot().waiting, 4);
    handle.set_quota(Quota::per_second(1_000)).unwrap();
    for call in waiting {
        call.await.unwrap().unwrap();
    }
    assert!(begin.elapsed() < STEP);
}

#[tokio::test(start_paused = true)]
async fn a_cost_that_can_never_be_paid_does_not_wait() {
    let layer = RateLimitLayer::new(STEADY).waiting().cost(|cost: &u32| u64::from(*cost));
    let service = layer.layer(Probe::new().0);
    assert_eq!(rejected(service.oneshot(2).await).reason(), Reason::CostTooHigh);
}

#[tokio::test(start_paused = true)]
async fn a_cost_that_can_never_be_paid_does_not_wait_behind_others_either() {
    for algorithm in ALGORITHMS {
        let handle = RateLimitHandle::try_new(algorithm(Quota::per_second(5)).max_wait(Duration::MAX)).unwrap();
        let service = handle.layer().waiting().cost(|cost: &u32| u64::from(*cost)).layer(Probe::new().0);
        let call = |cost| -> Call { Box::pin(service.clone().oneshot(cost)) };
        assert!(handle.check(5).allowed);
        let (mut small, mut large) = (call(1), call(5));
        assert!(polled(&mut small, &Arc::default()).is_pending());
        assert!(polled(&mut large, &Arc::default()).is_pending());
        let Poll::Ready(refused) = polled(&mut call(6), &Arc::default()) else { panic!("it waits: {handle:?}") };
        assert_eq!(rejected(refused).reason(), Reason::CostTooHigh);
        // Nor does one that can never be paid any more.
        handle.set_quota(Quota::per_second(4)).unwrap();
        let Poll::Ready(refused) = polled(&mut large, &Arc::default()) else { panic!("it waits: {handle:?}") };
        assert_eq!(rejected(refused).reason(), Reason::CostTooHigh);
        assert_eq!((small.await, handle.snapshot().waiting), (Ok(1), 0));
    }
}

/// What is only counted from now on keeps nobody in line.
#[tokio::test(start_paused = true)]
async fn shadow_mode_lets_go_who_waits_already() {
    let heard = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&heard);
    let handle = RateLimitHandle::try_new(STEADY).unwrap();
    handle.on_event(move |event| {
        if let buttress::EventKind::Rejected { shadow: true, .. } = event.kind {
            told.fetch_add(1, Ordering::SeqCst);
        }
    });
    let call = caller(&handle);
    handle.pause(3600 * SECOND);
    let mut tasks: Vec<_> = (0..5).map(|n| tokio::spawn(call(n))).collect();
    let mut paced = handle.layer().backpressure().layer(Probe::new().0);
    tasks.push(tokio::spawn(async move { paced.ready().await.unwrap().call(5).await }));
    tokio::task::yield_now().await;
    assert_eq!(handle.snapshot().waiting, 6);
    let begin = Instant::now();
    handle.shadow(true);
    for task in tasks {
        assert!(task.await.unwrap().is_ok());
    }
    assert_eq!((begin.elapsed(), heard.load(Ordering::SeqCst)), (Duration::ZERO, 6));
}

/// The second of the line has to wait for the end of the pause and a window more.
#[tokio::test(start_paused = true)]
async fn the_wait_behind_others_is_exact_during_a_pause() {
    for algorithm in ALGORITHMS {
        let handle = RateLimitHandle::try_new(algorithm(Quota::per_second(1)).max_wait(10 * SECOND)).unwrap();
        let call = caller(&handle);
        handle.pause(10 * SECOND);
        let mut first = call(1);
        assert!(polled(&mut first, &Arc::default()).is_pending());
        let Poll::Ready(refused) = polled(&mut call(2), &Arc::default()) else { panic!("in vain: {handle:?}") };
        assert_eq!(rejected(refused).retry_after(), Some(SECOND), "{handle:?}");
    }
}

/// Those in line hear of whatever is done to the limiter: who gains by it goes, and who cannot be served in time any more leaves.
#[tokio::test(start_paused = true)]
async fn those_in_line_hear_at_once_of_what_is_done_to_the_limiter() {
    let settings = Settings::token_bucket(Quota::per_second(10)).max_wait(SECOND - STEP);
    let in_line = |handle: &RateLimitHandle| {
        assert!(handle.check(5).allowed);
        let service = handle.layer().waiting().cost(|cost: &u32| u64::from(*cost)).layer(Probe::new().0);
        let mut call: Call = Box::pin(service.oneshot(10));
        assert!(polled(&mut call, &Arc::default()).is_pending());
        call
    };
    let changes: [(fn(&RateLimitHandle), bool); 4] = [
        (|handle| handle.charge(5), false),
        (RateLimitHandle::drain, false),
        (|handle| handle.pause(SECOND), false),
        (RateLimitHandle::reset, true),
    ];
    for (change, passes) in changes {
        let handle = RateLimitHandle::try_new(settings).unwrap();
        let mut call = in_line(&handle);
        change(&handle);
        let Poll::Ready(answer) = polled(&mut call, &Arc::default()) else { panic!("it waits: {handle:?}") };
        assert_eq!(answer.is_ok(), passes);
    }
    // A booking that is taken back.
    let handle = RateLimitHandle::try_new(STEADY).unwrap();
    let (call, begin) = (caller(&handle), Instant::now());
    let booked: Vec<_> = (0..20).map(|_| handle.reserve(1).unwrap()).collect();
    let waits = tokio::spawn(call(7));
    tokio::task::yield_now().await;
    booked.into_iter().rev().for_each(drop);
    assert_eq!((waits.await.unwrap(), begin.elapsed()), (Ok(7), Duration::ZERO));
}

/// A lesser quota, which adds up along the line.
#[tokio::test(start_paused = true)]
async fn a_lesser_quota_sends_away_those_at_the_end_of_the_line() {
    let handle = RateLimitHandle::try_new(STEADY.max_wait(SECOND)).unwrap();
    let call = caller(&handle);
    assert!(handle.check(1).allowed);
    let mut calls: Vec<_> = (0..5).map(&call).collect();
    for call in &mut calls {
        assert!(polled(call, &Arc::default()).is_pending());
    }
    handle.set_quota(Quota::per_second(2).burst(1)).unwrap();
    let stay = calls.iter_mut().map(|call| polled(call, &Arc::default()).is_pending()).collect::<Vec<_>>();
    assert_eq!(stay, [true, true, false, false, false]);
}

#[tokio::test(start_paused = true)]
async fn who_stands_behind_a_large_cost_goes_when_that_leaves() {
    let handle = RateLimitHandle::try_new(Settings::token_bucket(Quota::per_second(10))).unwrap();
    let service = handle.layer().waiting().cost(|cost: &u32| u64::from(*cost)).layer(Probe::new().0);
    let call = |cost| -> Call { Box::pin(service.clone().oneshot(cost)) };
    assert!(handle.check(5).allowed);
    let (mut large, mut small) = (call(10), call(1));
    assert!(polled(&mut large, &Arc::default()).is_pending() && polled(&mut small, &Arc::default()).is_pending());
    drop(large);
    assert_eq!(polled(&mut small, &Arc::default()), Poll::Ready(Ok(1)));
}

/// Bookings push the line back, which it does not see at once; who has a deadline is told when that is over, and not when its turn comes.
#[tokio::test(start_paused = true)]
async fn who_is_late_is_told_at_its_deadline_and_not_at_its_turn() {
    let handle = RateLimitHandle::try_new(STEADY).unwrap();
    let call = caller(&handle);
    assert!(handle.check(1).allowed);
    let patient = tokio::spawn(call(1));
    tokio::task::yield_now().await;
    let begin = Instant::now();
    let hurried = tokio::spawn(Deadline::after(3 * STEP).scope(call(2)));
    tokio::task::yield_now().await;
    (0..20).for_each(|_| handle.reserve(1).unwrap().keep());
    assert_eq!(rejected(hurried.await.unwrap()).reason(), Reason::RateLimited);
    assert!(begin.elapsed() < 4 * STEP, "{:?}", begin.elapsed());
    assert_eq!(patient.await.unwrap(), Ok(1));
}

/// Of two limits, the one that can never pay refuses, and not the one that could later.
#[tokio::test(start_paused = true)]
async fn who_can_never_pass_hears_of_the_limit_that_can_never_pay() {
    let settings =
        Settings::token_bucket(Quota::per_second(10)).and(Settings::sliding_log(Quota::per_day(5)).name("day"));
    let handle = RateLimitHandle::try_new(settings).unwrap();
    handle.drain();
    let service = handle.layer().waiting().cost(|cost: &u32| u64::from(*cost)).layer(Probe::new().0);
    let refused = rejected(service.oneshot(6).await);
    assert_eq!((refused.policy(), refused.reason()), ("day", Reason::CostTooHigh));
}

#[tokio::test(start_paused = true)]
async fn a_large_cost_at_the_head_is_not_passed_by() {
    let settings = Settings::token_bucket(Quota::per_second(10)).max_wait(Duration::MAX);
    let layer = RateLimitLayer::new(settings).waiting().cost(|cost: &u32| u64::from(*cost));
    let service = layer.layer(Probe::new().0);
    assert_eq!(service.clone().oneshot(10).await, Ok(10));
    let begin = Instant::now();
    let large = tokio::spawn(service.clone().oneshot(10));
    tokio::task::yield_now().await;
    assert_eq!(service.oneshot(1).await, Ok(1));
    assert!(large.is_finished());
    assert_eq!(begin.elapsed(), SECOND + STEP);
}

/// tower_resilience_W17_the_inner_readiness_is_held_while_waiting
#[tokio::test(start_paused = true)]
async fn who_waits_in_line_holds_no_readiness() {
    let handle = RateLimitHandle::try_new(STEADY).unwrap();
    let (probe, control) = Probe::new();
    let service = handle.layer().waiting().layer(probe);
    assert!(handle.check(1).allowed);
    let mut waits: Call = Box::pin(service.oneshot(7));
    assert!(polled(&mut waits, &Arc::default()).is_pending());
    assert_eq!((control.readiness.load(Ordering::SeqCst), control.alive()), (0, 0));
    assert_eq!(waits.await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_a_timer_ends_when_somebody_leaves_something() {
    let handle = RateLimitHandle::try_new(STEADY).unwrap();
    let call = caller(&handle);
    assert!(handle.check(1).allowed);
    // On a thread without a runtime.
    let waits = std::thread::spawn({
        let call = call(7);
        move || futures::executor::block_on(call)
    });
    while handle.snapshot().waiting == 0 {
        std::thread::yield_now();
    }
    handle.refund(1);
    assert_eq!(waits.join().unwrap(), Ok(7));
}

/// In two runtimes, of which the one that keeps the time ends first.
#[test]
fn a_runtime_that_ends_takes_nobody_else_along() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let settings = Settings::token_bucket(Quota::new(1, Duration::from_millis(300))).max_wait(Duration::MAX);
    let handle = RateLimitHandle::try_new(settings).unwrap();
    let call = caller(&handle);
    assert!(handle.check(1).allowed);
    let (one, other) = (runtime(), runtime());
    let first = one.spawn(call(1));
    while handle.snapshot().waiting < 1 {
        std::thread::yield_now();
    }
    let second = other.spawn(call(2));
    while handle.snapshot().waiting < 2 {
        std::thread::yield_now();
    }
    drop(one);
    assert!(other.block_on(first).unwrap_err().is_cancelled());
    assert_eq!(other.block_on(second).unwrap(), Ok(2));
}

/// A runtime of one thread that nobody drives any more, and that is kept, fires no timers: who waits in another does not depend on it.
#[test]
fn a_runtime_that_stands_still_holds_up_nobody_else() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let handle = RateLimitHandle::try_new(STEADY).unwrap();
    let call = caller(&handle);
    assert!(handle.check(1).allowed);
    let (mut first, second) = (call(1), call(2));
    let one = runtime();
    one.block_on(async { assert!(polled(&mut first, &Arc::default()).is_pending()) });
    let (stands, stands_still) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let waits = scope.spawn(move || {
            let other = runtime();
            let mut second = tokio_test::task::spawn(second);
            assert!(other.block_on(async { second.poll() }).is_pending());
            stands_still.recv().unwrap();
            other.block_on(async { tokio::time::timeout(SECOND, second).await })
        });
        while handle.snapshot().waiting < 2 {
            std::thread::yield_now();
        }
        assert_eq!(one.block_on(first), Ok(1));
        stands.send(()).unwrap();
        assert_eq!(waits.join().unwrap(), Ok(Ok(2)));
    });
}

/// What was asked is admitted, refused or given back, whoever is cancelled when.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_under_random_cancellation() {
    use rand::{RngExt, SeedableRng, rngs::SmallRng};
    for seed in 0..30 {
        let mut random = SmallRng::seed_from_u64(seed);
        let quota = Quota::per_second(100).burst(10);
        let settings =
            if seed % 2 == 0 { Settings::token_bucket(quota) } else { Settings::sliding_log(Quota::new(10, STEP)) };
        let handle = RateLimitHandle::try_new(settings.max_waiters(30).max_wait(SECOND)).unwrap();
        let layer = handle.layer().waiting().cost(|cost: &u32| u64::from(*cost));
        let (probe, control) = Probe::new();
        let service = layer.layer(probe);
        let (begin, mut calls, mut units) = (Instant::now(), Vec::<Call>::new(), 0);
        for _ in 0..2_000 {
            match random.random_range(0..10) {
                0..5 => calls.push(Box::pin(service.clone().oneshot(random.random_range(1..4)))),
                5..7 if !calls.is_empty() => drop(calls.swap_remove(random.random_range(0..calls.len()))),
                _ => sleep(Duration::from_millis(random.random_range(0..30))).await,
            }
            let mut place = 0;
            while place < calls.len() {
                // Some are forgotten for a while.
                if random.random_range(0..4) > 0
                    && let Poll::Ready(answer) = polled(&mut calls[place], &Arc::default())
                {
                    units += answer.unwrap_or(0);
                    drop(calls.swap_remove(place));
                } else {
                    place += 1;
                }
            }
        }
        drop(calls);
        assert!(control.calls() > 100, "seed {seed}");
        let most = 10.0 + begin.elapsed().as_secs_f64() * 100.0;
        assert!(f64::from(units) <= most, "seed {seed}: {units} of {most}");
        assert_eq!(handle.snapshot().waiting, 0);
        sleep(SECOND).await;
        assert_eq!(handle.peek().remaining, 10, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_in_shadow_mode() {
    let handle = RateLimitHandle::try_new(STEADY.shadow()).unwrap();
    let call = caller(&handle);
    let begin = Instant::now();
    for n in 0..10 {
        assert_eq!(call(n).await, Ok(n));
    }
    let mut paced = handle.layer().backpressure().layer(Probe::new().0);
    for n in 0..10 {
        assert_eq!(paced.ready().await.unwrap().call(n).await, Ok(n));
    }
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

// ===== backpressure =====

#[tokio::test(start_paused = true)]
async fn a_client_is_paced_by_readiness() {
    let layer = RateLimitLayer::new(STEADY).backpressure();
    let mut service = layer.layer(Probe::new().0);
    let begin = Instant::now();
    for n in 0..5 {
        assert_eq!(service.ready().await.unwrap().call(n).await, Ok(n));
        assert_eq!(begin.elapsed(), n * STEP);
    }
}

/// tower_resilience_W15_a_unit_is_lost_with_an_unused_readiness
#[tokio::test(start_paused = true)]
async fn readiness_that_is_not_used_gives_its_unit_back() {
    let layer = RateLimitLayer::new(STEADY).backpressure();
    for _ in 0..5 {
        let mut idle = layer.layer(Probe::new().0);
        idle.ready().await.unwrap();
        assert_eq!(layer.handle().peek().remaining, 0);
        drop(idle);
        assert_eq!(layer.handle().peek().remaining, 1);
    }
    // Somebody waits for it.
    let mut idle = layer.layer(Probe::new().0);
    idle.ready().await.unwrap();
    let mut next = layer.layer(Probe::new().0);
    let waits = tokio::spawn(async move { next.ready().await.unwrap().call(7).await });
    tokio::task::yield_now().await;
    let begin = Instant::now();
    drop(idle);
    assert_eq!(waits.await.unwrap(), Ok(7));
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_unit_is_kept_while_the_inner_service_is_not_ready() {
    let layer = RateLimitLayer::new(STEADY).backpressure();
    let (probe, control) = Probe::new();
    control.ready(Ready::After(3));
    let mut service = layer.layer(probe);
    let begin = Instant::now();
    assert_eq!(service.ready().await.unwrap().call(7).await, Ok(7));
    assert_eq!((begin.elapsed(), layer.handle().peek().remaining), (Duration::ZERO, 0));
}

#[tokio::test(start_paused = true)]
async fn when_the_line_is_full_readiness_comes_at_once_and_the_answer_is_a_refusal() {
    let layer = RateLimitLayer::new(STEADY.max_waiters(1)).backpressure();
    let mut services: Vec<_> = (0..3).map(|_| layer.layer(Probe::new().0)).collect();
    services[0].ready().await.unwrap();
    let mut waits = tokio_test::task::spawn(services[1].ready());
    assert!(waits.poll().is_pending());
    drop(waits);
    assert_eq!(layer.handle().snapshot().waiting, 1);
    let heard = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&heard);
    layer.handle().on_event(move |_| {
        told.fetch_add(1, Ordering::SeqCst);
    });
    // Asked several times it is still one call that is refused, and one that is never made is none.
    for _ in 0..3 {
        services[2].ready().await.unwrap();
    }
    assert_eq!(heard.load(Ordering::SeqCst), 0);
    let refused = services[2].call(7).await;
    assert_eq!(rejected(refused).reason(), Reason::RateLimited);
    assert_eq!(heard.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_in_futures_and_in_readiness_stand_in_one_line() {
    let handle = RateLimitHandle::try_new(STEADY).unwrap();
    let (call, order) = (caller(&handle), Arc::new(Mutex::new(Vec::new())));
    assert!(handle.check(1).allowed);
    let mut tasks = Vec::new();
    for n in 0..6_u32 {
        let (order, call, mut paced) =
            (Arc::clone(&order), call(n), handle.layer().backpressure().layer(Probe::new().0));
        tasks.push(tokio::spawn(async move {
            if n % 2 == 0 {
                call.await.unwrap()
            } else {
                paced.ready().await.unwrap().call(n).await.unwrap()
            };
            order.lock().unwrap().push(n);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4, 5]);
}
