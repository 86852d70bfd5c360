//! The layer that writes what is left of the time on a request that goes out.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::Deadline;

/// Tells the next service how much time is left, by a function that changes the request. See the [module docs](crate::deadline).
///
/// It stamps when the request goes out, so it is ready at once and takes the inner readiness inside the future, with a clone, as
/// [`Late`](crate::Late) does. A call without a deadline goes out as it is.
#[derive(Clone, Copy)]
pub struct StampDeadlineLayer<F> {
    stamp: F,
}

/// See [`StampDeadlineLayer`].
#[derive(Clone, Copy)]
pub struct StampDeadline<S, F> {
    inner: S,
    stamp: F,
}

pin_project! {
    /// The answer of a [`StampDeadline`].
    #[must_use = "futures do nothing unless polled"]
    pub struct StampFuture<S, F, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, F, Req>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, Req>
    where
        S: Service<Req>,
    {
        Waiting { service: S, stamp: F, request: Option<Req> },
        Called { #[pin] inner: S::Future },
    }
}

impl<F> StampDeadlineLayer<F> {
    /// Stamps by this function of the request and what is left, which is zero when the deadline has passed.
    pub const fn new<Req>(stamp: F) -> Self
    where
        F: Fn(&mut Req, Duration),
    {
        Self { stamp }
    }
}

impl<S, F: Clone> Layer<S> for StampDeadlineLayer<F> {
    type Service = StampDeadline<S, F>;

    fn layer(&self, inner: S) -> Self::Service {
        StampDeadline { inner, stamp: self.stamp.clone() }
    }
}

crate::macros::inner_accessors!(StampDeadline<S, F>);

impl<S, F, Req> Service<Req> for StampDeadline<S, F>
where
    S: Service<Req> + Clone,
    F: Fn(&mut Req, Duration) + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = StampFuture<S, F, Req>;

    /// Always ready: the deadline is known, and the inner service called, inside the future only.
    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let (service, stamp, request) = (self.inner.clone(), self.stamp.clone(), Some(request));
        StampFuture { state: State::Waiting { service, stamp, request } }
    }
}

impl<S, F, Req> Future for StampFuture<S, F, Req>
where
    S: Service<Req>,
    F: Fn(&mut Req, Duration),
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let inner = match state.as_mut().project() {
                StateProj::Called { inner } => return inner.poll(cx),
                StateProj::Waiting { service, stamp, request } => {
                    std::task::ready!(service.poll_ready(cx))?;
                    let mut request = mem::take(request).expect("polled after it was ready");
                    if let Some(deadline) = Deadline::current() {
                        stamp(&mut request, deadline.remaining());
                    }
                    service.call(request)
                }
            };
            state.set(State::Called { inner });
        }
    }
}

impl<F> fmt::Debug for StampDeadlineLayer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StampDeadlineLayer")
    }
}

impl<S: fmt::Debug, F> fmt::Debug for StampDeadline<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StampDeadline").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S: Service<Req>, F, Req> fmt::Debug for StampFuture<S, F, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StampFuture").finish_non_exhaustive()
    }
}
