//! The loops that call a service: what is measured is what stands between `for` and the closing brace. Inputs and answers go through
//! `black_box`, the answer by reference, because moving it there would be measured too.

use std::{
    future::poll_fn,
    hint::black_box,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::runtime::Runtime;
use tower::{Service, ServiceExt};

use super::Batch;

/// One long-lived service, polled by hand: nothing but the service is measured. For answers that are ready at once.
pub(crate) fn by_hand<S: Service<u64>>(service: &mut S, calls: u64) {
    let cx = &mut Context::from_waker(Waker::noop());
    for n in 0..calls {
        one_by_hand(service, n, cx, |answer| {
            black_box(answer);
        });
    }
}

/// A clone per call, as hyper-util, axum and `oneshot` make it.
pub(crate) fn clones_by_hand<S: Service<u64> + Clone>(service: &S, calls: u64) {
    let cx = &mut Context::from_waker(Waker::noop());
    for n in 0..calls {
        one_by_hand(&mut black_box(service).clone(), n, cx, |answer| {
            black_box(answer);
        });
    }
}

/// One call, whose answer is ready at once: only where two threads meet in a peer's async lock is it polled again, and elsewhere, as in
/// [`futures_by_hand`], the poll that is measured stands in no loop. The context is one for the whole batch, as it is there: services and futures are polled
/// alike, and figures from before that do not compare.
#[inline(always)]
pub(crate) fn one_by_hand<S, T>(
    service: &mut S,
    n: u64,
    cx: &mut Context<'_>,
    look: impl Fn(&Result<S::Response, S::Error>) -> T,
) -> T
where
    S: Service<u64>,
{
    assert!(matches!(service.poll_ready(cx), Poll::Ready(Ok(()))), "it is ready");
    let mut future = pin!(service.call(black_box(n)));
    match &future.as_mut().poll(cx) {
        Poll::Ready(answer) => look(answer),
        Poll::Pending => look(&poll_to_end(future, cx)),
    }
}

#[cold]
#[inline(never)]
fn poll_to_end<F: Future>(mut future: Pin<&mut F>, cx: &mut Context<'_>) -> F::Output {
    loop {
        if let Poll::Ready(answer) = future.as_mut().poll(cx) {
            return answer;
        }
    }
}

/// A future per call, polled by hand, from what is no service.
pub(crate) fn futures_by_hand<F: Future>(calls: u64, mut call: impl FnMut(u64) -> F) {
    let cx = &mut Context::from_waker(Waker::noop());
    for n in 0..calls {
        let answer = pin!(call(black_box(n))).poll(cx);
        black_box(&answer);
    }
}

/// A plain call, from what is no future either.
pub(crate) fn plain<T>(calls: u64, mut call: impl FnMut(u64) -> T) {
    for n in 0..calls {
        let answer = call(black_box(n));
        black_box(&answer);
    }
}

/// One long-lived service, awaited: for answers that are pending first.
pub(crate) async fn awaited<S: Service<u64>>(service: &mut S, calls: u64) {
    for n in 0..calls {
        // As tower's `Oneshot` and `Buffer` do it. `ServiceExt::ready` would move an error about, whose size is not what is measured.
        assert!(poll_fn(|cx| service.poll_ready(cx)).await.is_ok(), "it becomes ready");
        let answer = service.call(black_box(n)).await;
        black_box(&answer);
    }
}

/// A clone per call, awaited.
pub(crate) async fn clones_awaited<S: Service<u64> + Clone>(service: &S, calls: u64) {
    for n in 0..calls {
        let answer = black_box(service).clone().oneshot(black_box(n)).await;
        black_box(&answer);
    }
}

/// A future per call, awaited, from what is no service.
pub(crate) async fn futures_awaited<F: Future>(calls: u64, mut call: impl FnMut(u64) -> F) {
    for n in 0..calls {
        let answer = call(black_box(n)).await;
        black_box(&answer);
    }
}

/// A service on cache lines of its own: it writes into itself, and those of two threads are made side by side.
#[repr(align(128))]
struct Apart<S>(S);

/// [`by_hand`] on a service of its own, for a thread of its own.
pub(crate) fn batch_by_hand<S: Service<u64> + Send + 'static>(service: S) -> Batch {
    let mut service = Apart(service);
    Box::new(move |calls| {
        let Apart(service) = &mut service;
        by_hand(service, calls);
    })
}

/// [`clones_by_hand`] of a service of its own, for a thread of its own.
pub(crate) fn batch_of_clones_by_hand<S: Service<u64> + Clone + Send + 'static>(service: S) -> Batch {
    let service = Apart(service);
    Box::new(move |calls| {
        let Apart(service) = &service;
        clones_by_hand(service, calls);
    })
}

/// [`awaited`] on a service and in a runtime of its own.
pub(crate) fn batch_awaited<S: Service<u64> + Send + 'static>(runtime: Runtime, service: S) -> Batch {
    let mut service = Apart(service);
    Box::new(move |calls| {
        let Apart(service) = &mut service;
        runtime.block_on(awaited(service, calls));
    })
}

/// [`clones_awaited`] of a service and in a runtime of its own.
pub(crate) fn batch_of_clones_awaited<S: Service<u64> + Clone + Send + 'static>(runtime: Runtime, service: S) -> Batch {
    let service = Apart(service);
    Box::new(move |calls| {
        let Apart(service) = &service;
        runtime.block_on(clones_awaited(service, calls));
    })
}

/// An answer that is pending when it is first polled, and wakes its task at once.
pub(crate) struct PendingOnce<T> {
    answer: Option<T>,
    polled: bool,
}

impl<T> PendingOnce<T> {
    pub(crate) const fn new(answer: T) -> Self {
        Self { answer: Some(answer), polled: false }
    }
}

impl<T: Unpin> Future for PendingOnce<T> {
    type Output = T;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if self.polled {
            Poll::Ready(self.answer.take().expect("it is polled to its end once"))
        } else {
            self.polled = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }
}

/// A service with a destructor, as most that one would put layers around: a clone of it counts a reference.
#[derive(Clone)]
pub(crate) struct Holding<S> {
    inner: S,
    _held: Arc<()>,
}

impl<S> Holding<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, _held: Arc::new(()) }
    }
}

impl<S: Service<u64>> Service<u64> for Holding<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, n: u64) -> S::Future {
        self.inner.call(n)
    }
}
