//! The response future.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use crate::error::{CanReject, Rejected};

pin_project! {
    /// The answer of a [`RateLimit`](super::RateLimit).
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
        },
        Refused {
            rejected: Rejected,
        },
    }
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) const fn called(inner: F) -> Self {
        Self { state: State::Called { inner } }
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

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Called { inner } => inner.poll(cx),
            StateProj::Refused { rejected } => Poll::Ready(Err(E::reject(*rejected))),
        }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
