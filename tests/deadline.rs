//! The deadline: where it is in force, and where it is not.

#![cfg(feature = "full")]

mod support;

use std::{
    convert::Infallible,
    future::{pending, poll_fn, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Poll},
    time::Duration,
};

use buttress::{Deadline, DeadlineLayer, LateLayer, StampDeadlineLayer};
use futures::{FutureExt, future::join, task::noop_waker_ref};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceBuilder, ServiceExt, buffer::Buffer, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn left() -> Option<Duration> {
    Deadline::current().map(Deadline::remaining)
}

async fn look(_: u32) -> Result<Option<Duration>, Infallible> {
    Ok(left())
}

#[tokio::test(start_paused = true)]
async fn it_is_in_force_while_its_future_is_polled_and_nowhere_else() {
    assert_eq!(left(), None);
    let deadline = Deadline::after(SECOND);
    let scoped = deadline.scope(async {
        sleep(300 * MS).await;
        left()
    });
    assert_eq!(left(), None);
    let (inside, outside) = join(scoped, async {
        sleep(100 * MS).await;
        left()
    })
    .await;
    assert_eq!((inside, outside), (Some(700 * MS), None));
    assert!(!deadline.has_passed());
    sleep(SECOND).await;
    assert!(deadline.has_passed());
    assert_eq!(deadline.scope(async { left() }).await, Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn of_several_the_earliest_is_in_force() {
    let stack = |outer, inner| {
        ServiceBuilder::new().layer(DeadlineLayer::new(outer)).layer(DeadlineLayer::new(inner)).service_fn(look)
    };
    assert_eq!(stack(2 * SECOND, SECOND).oneshot(0).await, Ok(Some(SECOND)));
    assert_eq!(stack(SECOND, 2 * SECOND).oneshot(0).await, Ok(Some(SECOND)));
    let soon = Deadline::after(MS);
    assert_eq!(soon.scope(stack(SECOND, SECOND).oneshot(0)).await, Ok(Some(MS)));
    assert!(soon < Deadline::after(SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_request_says_how_long_its_caller_waits() {
    let by_request = |millis: &u32| (*millis > 0).then(|| *millis * MS);
    let stack = DeadlineLayer::from_request(by_request).layer(service_fn(look));
    assert_eq!(stack.oneshot(250).await, Ok(Some(250 * MS)));
    assert_eq!(stack.oneshot(0).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn endless_is_none_and_zero_is_over() {
    let stack = |limit| DeadlineLayer::new(limit).layer(service_fn(look));
    assert_eq!(stack(Duration::MAX).oneshot(0).await, Ok(None));
    assert_eq!(stack(Duration::ZERO).oneshot(0).await, Ok(Some(Duration::ZERO)));
    let far = stack(Duration::from_secs(u64::MAX / 10)).oneshot(0).await.unwrap();
    assert_eq!(far, None);
    assert!(Deadline::after(Duration::MAX).remaining() > 100 * 365 * 86_400 * SECOND);
}

/// The time a call has lain about before it is first polled is not its own; what it waits for is.
#[tokio::test(start_paused = true)]
async fn a_duration_becomes_an_instant_when_it_is_read_or_when_its_future_is_pending() {
    let late_look = |_: u32| async {
        sleep(400 * MS).await;
        Ok::<_, Infallible>(left())
    };
    let call = DeadlineLayer::new(SECOND).layer(service_fn(late_look)).oneshot(0);
    sleep(60 * SECOND).await;
    assert_eq!(call.await, Ok(Some(600 * MS)));

    // All spans that a poll goes through begin with one reading.
    let reads = |_: u32| async {
        let (first, began) = (left(), Instant::now());
        sleep(400 * MS).await;
        assert_eq!(began.elapsed(), 400 * MS);
        Ok::<_, Infallible>((first, left()))
    };
    let nested = ServiceBuilder::new()
        .layer(DeadlineLayer::new(3 * SECOND))
        .layer(DeadlineLayer::new(2 * SECOND))
        .layer(DeadlineLayer::new(SECOND))
        .service_fn(reads);
    assert_eq!(nested.oneshot(0).await, Ok((Some(SECOND), Some(600 * MS))));
}

/// Whoever reads first, and in whatever scope: those who come later in the same poll read the same instant.
#[tokio::test]
async fn a_reading_inside_holds_outside() {
    let busy = || {
        let began = Instant::now();
        while began.elapsed() < 3 * MS {}
    };
    let read = move |_: u32| async move {
        let ready =
            DeadlineLayer::new(5 * SECOND).layer(service_fn(|_: u32| ready(Ok::<_, Infallible>(Deadline::current()))));
        let first = ready.oneshot(0).await.unwrap();
        busy();
        let fixed = Deadline::after(9 * SECOND).scope(async { Deadline::current() }).await;
        busy();
        Ok::<_, Infallible>([first, fixed, Deadline::current()])
    };
    let stack = DeadlineLayer::new(SECOND).layer(service_fn(read));
    let read = stack.oneshot(0).await.unwrap();
    assert!(read[0].is_some() && read.iter().all(|deadline| *deadline == read[0]), "{read:?}");

    // The fixed scope comes first.
    let read = move |_: u32| async move {
        let fixed = Deadline::after(9 * SECOND).scope(async { Deadline::current() }).await;
        busy();
        Ok::<_, Infallible>([fixed, Deadline::current()])
    };
    let read = DeadlineLayer::new(SECOND).layer(service_fn(read)).oneshot(0).await.unwrap();
    assert_eq!(read[0], read[1]);
}

#[tokio::test(start_paused = true)]
async fn a_task_has_none_unless_it_is_handed_over() {
    let deadline = Deadline::after(SECOND);
    let (without, with) = deadline
        .scope(async {
            let without = tokio::spawn(async { left() }).await.unwrap();
            let handed = Deadline::current().unwrap();
            (without, tokio::spawn(handed.scope(async { left() })).await.unwrap())
        })
        .await;
    assert_eq!((without, with), (None, Some(SECOND)));
}

/// A worker calls the inner service, but the caller polls the answer.
#[tokio::test(start_paused = true)]
async fn it_is_there_in_the_future_also_behind_a_buffer() {
    let stack = ServiceBuilder::new().layer(DeadlineLayer::new(SECOND)).service(Buffer::new(service_fn(look), 4));
    assert_eq!(stack.oneshot(0).await.unwrap(), Some(SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_panic_inside_leaves_the_one_outside_in_force() {
    let outer = Deadline::after(2 * SECOND);
    let caught = outer
        .scope(async {
            let inner = Deadline::after(SECOND).scope(async { panic!("inside") });
            let caught = AssertUnwindSafe(inner).catch_unwind().await;
            (caught.is_err(), left())
        })
        .await;
    assert_eq!(caught, (true, Some(2 * SECOND)));
    assert_eq!(left(), None);
    let scoped = catch_unwind(AssertUnwindSafe(|| {
        let mut scoped = Box::pin(outer.scope(async { panic!("inside") }));
        let _: Poll<()> = scoped.as_mut().poll(&mut Context::from_waker(noop_waker_ref()));
    }));
    assert!(scoped.is_err());
    assert_eq!(left(), None);
}

#[test]
fn it_goes_with_its_future_from_thread_to_thread() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_time().build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (1..50_u32)
            .map(|n| {
                tokio::spawn(Deadline::after(n * 3600 * SECOND).scope(async move {
                    for _ in 0..50 {
                        tokio::task::yield_now().await;
                        let hours = left().unwrap().as_secs() / 3600;
                        assert_eq!(hours, u64::from(n) - 1);
                    }
                }))
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// Two callers of one future, each with its own deadline.
#[tokio::test(start_paused = true)]
async fn a_shared_future_sees_the_deadline_of_who_polls_it() {
    let mut seen = Vec::new();
    let mut shared = Box::pin(poll_fn(|_| {
        seen.push(left());
        Poll::<()>::Pending
    }));
    for seconds in [1, 5] {
        let scoped = Deadline::after(seconds * SECOND).scope(shared.as_mut());
        assert!(scoped.now_or_never().is_none());
    }
    drop(shared);
    assert_eq!(seen, [Some(SECOND), Some(5 * SECOND)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_is_stamped_when_the_request_goes_out() {
    let stamp = |request: &mut Option<Duration>, left| *request = Some(left);
    let echo = |request: Option<Duration>| ready(Ok::<_, Infallible>(request));
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(SECOND))
        .layer_fn(|inner| {
            service_fn(move |request| {
                let call = StampDeadlineLayer::new(stamp).layer(inner).oneshot(request);
                async move {
                    sleep(250 * MS).await;
                    call.await
                }
            })
        })
        .service_fn(echo);
    assert_eq!(stack.oneshot(None).await, Ok(Some(750 * MS)));
    let without = StampDeadlineLayer::new(stamp).layer(service_fn(echo));
    assert_eq!(without.oneshot(None).await, Ok(None));
    assert_eq!(Deadline::after(Duration::ZERO).scope(without.oneshot(None)).await, Ok(Some(Duration::ZERO)));
}

/// It waits for the inner readiness itself, and stamps after that.
#[tokio::test(start_paused = true)]
async fn a_stamp_waits_for_readiness_first() {
    let (probe, control) = support::Probe::new();
    control.ready(support::Ready::Never);
    let stamp = |request: &mut u32, left: Duration| *request = left.as_millis() as u32;
    let stack = ServiceBuilder::new().layer(StampDeadlineLayer::new(stamp)).layer(LateLayer).service(probe);
    let call = tokio::spawn(Deadline::after(SECOND).scope(stack.oneshot(0)));
    sleep(100 * MS).await;
    control.ready(support::Ready::Yes);
    assert!(call.await.unwrap().unwrap() >= 900);

    let (probe, control) = support::Probe::new();
    control.ready(support::Ready::Never);
    let stack = StampDeadlineLayer::new(stamp).layer(probe);
    let call = tokio::spawn(Deadline::after(SECOND).scope(stack.oneshot(0)));
    sleep(100 * MS).await;
    control.ready(support::Ready::Yes);
    assert_eq!(call.await.unwrap().unwrap(), 900);
}

#[test]
fn it_allocates_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let deadline = Deadline::after(SECOND);
    let counted = allocation_counter::measure(|| {
        let mut scoped = std::pin::pin!(deadline.scope(async {
            let _ = left();
            pending::<()>().await;
        }));
        assert!(scoped.as_mut().poll(&mut Context::from_waker(noop_waker_ref())).is_pending());
        let stack = DeadlineLayer::new(SECOND).layer(service_fn(|_: u32| ready(Ok::<_, Infallible>(left()))));
        let mut call = std::pin::pin!(stack.oneshot(7));
        assert!(call.as_mut().poll(&mut Context::from_waker(noop_waker_ref())).is_ready());
    });
    assert_eq!(counted.count_total, 0);
}
