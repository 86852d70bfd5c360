//! The response future.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::{
    state::{Shared, refuse_from},
    timer::{self, Own, Timer},
};
use crate::{
    address::Link,
    deadline::Span,
    error::{CanReject, Reason, Rejected},
};

pin_project! {
    /// The answer of a [`Timeout`](super::Timeout).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Called {
            #[pin]
            inner: F,
            timer: Timer,
        },
        Refused {
            rejected: Rejected,
        },
        // The inner future is gone.
        Over,
    }
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn called(inner: F, limit: u64, shared: Link<Shared>) -> Self {
        Self { state: State::Called { inner, timer: Timer::new(limit, shared) } }
    }

    pub(super) const fn refused(rejected: Rejected) -> Self {
        Self { state: State::Refused { rejected } }
    }
}

impl<F, Res, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Res, E>>,
    E: CanReject,
{
    type Output = Result<Res, E>;

    /// The inner future is polled first, so an answer that is there wins.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let rejected = match state.as_mut().project() {
            StateProj::Called { inner, timer } => {
                // Two ways, the first for answers that are ready at once, and each tells them apart by itself: what meets in one variable is moved about.
                let over = match timer.own() {
                    Own::Within(_) if timer::is_too_late() => Poll::Ready(Reason::DeadlineExceeded),
                    Own::Within(limit) => {
                        let limit = Span::within_nanos(limit).enter();
                        match inner.poll(cx) {
                            Poll::Ready(Ok(response)) => {
                                limit.leave();
                                return Poll::Ready(Ok(response));
                            }
                            Poll::Ready(Err(error)) => {
                                limit.leave();
                                return Poll::Ready(Err(error));
                            }
                            Poll::Pending => timer.arm(limit, cx),
                        }
                    }
                    Own::Until(end) => {
                        let limit = Span::until(end).enter();
                        match inner.poll(cx) {
                            Poll::Ready(Ok(response)) => {
                                limit.leave();
                                return Poll::Ready(Ok(response));
                            }
                            Poll::Ready(Err(error)) => {
                                limit.leave();
                                if !timer.has_run_out() {
                                    return Poll::Ready(Err(error));
                                }
                                Poll::Ready(Reason::TimedOut)
                            }
                            Poll::Pending => {
                                limit.leave_pending();
                                timer.poll_expired(cx)
                            }
                        }
                    }
                };
                refuse_from(&timer.shared(), ready!(over))
            }
            StateProj::Refused { rejected } => return Poll::Ready(Err(E::reject(*rejected))),
            StateProj::Over => panic!("polled after it was ready"),
        };
        // The inner call is over before the caller hears of it.
        state.set(State::Over);
        Poll::Ready(Err(E::reject(rejected)))
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
