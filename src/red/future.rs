//! The response future: the permit is a field, so a dropped future counts as cancelled.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::permit::{OnUnwind, Permit};
use crate::outcome::Classify;

pin_project! {
    /// The answer of a [`Red`](super::Red).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C> {
        // Dropped before the permit, so that the inner call is over when it is counted.
        #[pin]
        inner: F,
        permit: Permit,
        classify: C,
    }
}

impl<F, C> ResponseFuture<F, C> {
    #[inline]
    pub(super) const fn new(inner: F, permit: Permit, classify: C) -> Self {
        Self { inner, permit, classify }
    }
}

impl<F, C, Res, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<Res, E>>,
    C: Classify<Res, E>,
{
    type Output = Result<Res, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let on_unwind = OnUnwind(this.permit);
        // Each arm owns its part: a reference to the whole would keep the whole in memory, and move it there and back.
        match this.inner.poll(cx) {
            Poll::Pending => {
                mem::forget(on_unwind);
                Poll::Pending
            }
            Poll::Ready(Ok(response)) => {
                let outcome = this.classify.classify(Ok(&response));
                mem::forget(on_unwind);
                this.permit.settle(outcome);
                Poll::Ready(Ok(response))
            }
            Poll::Ready(Err(error)) => {
                let outcome = this.classify.classify(Err(&error));
                mem::forget(on_unwind);
                this.permit.settle_apart(outcome);
                Poll::Ready(Err(error))
            }
        }
    }
}

impl<F, C> fmt::Debug for ResponseFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
