//! The response future: the permit is a field, so a dropped future gives it back.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::{
    permit::{OnUnwind, Permit},
    step::Ending,
    word::Refused,
};
use crate::{error::CanReject, outcome::Classify};

pin_project! {
    /// The answer of a [`CircuitBreaker`](super::CircuitBreaker).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C> {
        #[pin]
        kind: Kind<F>,
        classify: C,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F> {
        Called {
            // Dropped before the permit, so that the inner call is over when the circuit hears of it.
            #[pin]
            inner: F,
            permit: Permit,
        },
        Refused {
            refused: Refused,
        },
    }
}

impl<F, C> ResponseFuture<F, C> {
    #[inline]
    pub(super) const fn called(inner: F, permit: Permit, classify: C) -> Self {
        Self { kind: Kind::Called { inner, permit }, classify }
    }

    #[inline]
    pub(super) const fn refused(refused: Refused, classify: C) -> Self {
        Self { kind: Kind::Refused { refused }, classify }
    }
}

impl<F, C, Res, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<Res, E>>,
    E: CanReject,
    C: Classify<Res, E>,
{
    type Output = Result<Res, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.kind.project() {
            KindProj::Called { inner, permit } => {
                let on_unwind = OnUnwind(permit);
                let polled = inner.poll(cx);
                mem::forget(on_unwind);
                // Each arm owns its part: a reference to the whole would keep the whole in memory, and move it there and back.
                match polled {
                    Poll::Pending => {
                        permit.pending();
                        Poll::Pending
                    }
                    Poll::Ready(Ok(response)) => {
                        permit.settle(Ending::Answered(this.classify.classify(Ok(&response))));
                        Poll::Ready(Ok(response))
                    }
                    Poll::Ready(Err(error)) => {
                        permit.settle(Ending::Answered(this.classify.classify(Err(&error))));
                        Poll::Ready(Err(error))
                    }
                }
            }
            KindProj::Refused { refused } => Poll::Ready(Err(E::reject(refused.rejected()))),
        }
    }
}

impl<F, C> fmt::Debug for ResponseFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
