//! The service.

use std::{
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use tower::Service;

use super::{
    future::ResponseFuture,
    handle::TimeoutHandle,
    state::{Shared, refuse},
    wait::Wait,
};
use crate::{
    address::Home,
    deadline::Limit,
    error::{CanReject, Reason},
    time::nanos,
};

/// See the [module docs](crate::timeout).
pub struct Timeout<S, L = Fixed> {
    inner: S,
    limit: L,
    shared: Home<Shared>,
    /// `None` as long as the inner service is ready at once, or its readiness does not count.
    wait: Option<Box<Wait>>,
}

/// The limit of the layer, for every request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fixed;

impl<Req> Limit<Req> for Fixed {
    #[inline]
    fn limit(&self, _: &Req) -> Option<Duration> {
        None
    }
}

impl<S, L> Timeout<S, L> {
    pub(super) const fn new(inner: S, limit: L, shared: Home<Shared>) -> Self {
        Self { inner, limit, shared, wait: None }
    }

    /// The handle of what all clones share.
    #[must_use]
    pub fn handle(&self) -> TimeoutHandle {
        TimeoutHandle { shared: self.shared.clone() }
    }

    /// What a wait for readiness has left of the limit.
    #[cold]
    #[inline(never)]
    fn left(&mut self, limit: u64) -> Option<u64> {
        self.wait.take().map_or(Some(limit), |wait| wait.left(limit))
    }

    #[cold]
    #[inline(never)]
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.shared.limit();
        self.wait.get_or_insert_with(|| Box::new(Wait::begin(limit))).poll_spent(limit, cx)
    }
}

crate::macros::inner_accessors!(Timeout<S, L>);

impl<S, L, Req> Service<Req> for Timeout<S, L>
where
    S: Service<Req>,
    S::Error: CanReject,
    L: Limit<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    /// Where readiness counts and has taken too long, the service is ready at once, and the refusal is the answer of the call.
    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        match self.inner.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                if let Some(wait) = &mut self.wait {
                    wait.end();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                self.wait = None;
                Poll::Ready(Err(error))
            }
            Poll::Pending if self.shared.covers_readiness => self.poll_wait(cx).map(Ok),
            Poll::Pending => Poll::Pending,
        }
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let mut limit = self.limit.limit(&request).map_or_else(|| self.shared.limit(), nanos);
        if self.wait.is_some() {
            match self.left(limit) {
                Some(left) => limit = left,
                None => return ResponseFuture::refused(refuse(&self.shared.events, Reason::TimedOut)),
            }
        }
        // First, so that the inner future need not be kept anywhere in between.
        let shared = self.shared.link();
        ResponseFuture::called(self.inner.call(request), limit, shared)
    }
}

impl<S: Clone, L: Clone> Clone for Timeout<S, L> {
    /// Shares the limit and the listeners. A wait for readiness stays with the original.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.limit.clone(), self.shared.clone())
    }
}

impl<S: fmt::Debug, L> fmt::Debug for Timeout<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout").field("inner", &self.inner).field("shared", &self.shared).finish_non_exhaustive()
    }
}
