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
        let polled = this.inner.poll(cx);
        let outcome = match &polled {
            Poll::Pending => None,
            Poll::Ready(result) => Some(this.classify.classify(result.as_ref())),
        };
        mem::forget(on_unwind);
        if let Some(outcome) = outcome {
            this.permit.settle(outcome);
        }
        polled
    }
}

impl<F, C> fmt::Debug for ResponseFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
