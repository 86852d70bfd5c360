//! The service.

use std::{
    fmt,
    task::{Context, Poll},
};

use tower::Service;

use super::{future::ResponseFuture, handle::RateLimitHandle, state::Limiter};
use crate::{error::CanReject, shared::Shared};

/// See the [module docs](crate::rate_limit).
pub struct RateLimit<S, K = OneUnit> {
    inner: S,
    cost: K,
    limiter: Shared<Limiter>,
    /// `poll_ready` has answered because the next call is refused; the inner service is perhaps not ready.
    refuses: bool,
}

/// What a request takes of the quota, in units. A closure wants its argument spelled out, `|request: &Request| ..`.
pub trait RequestCost<Req> {
    /// What this request costs. A cost of zero always passes.
    fn cost(&self, request: &Req) -> u64;
}

/// Every request costs one unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OneUnit;

impl<Req> RequestCost<Req> for OneUnit {
    #[inline]
    fn cost(&self, _: &Req) -> u64 {
        1
    }
}

impl<Req, F: Fn(&Req) -> u64> RequestCost<Req> for F {
    #[inline]
    fn cost(&self, request: &Req) -> u64 {
        self(request)
    }
}

impl<S, K> RateLimit<S, K> {
    pub(super) const fn new(inner: S, cost: K, limiter: Shared<Limiter>) -> Self {
        Self { inner, cost, limiter, refuses: false }
    }

    /// The limiter's handle.
    #[must_use]
    pub fn handle(&self) -> RateLimitHandle {
        RateLimitHandle { limiter: self.limiter.clone() }
    }
}

crate::macros::inner_accessors!(RateLimit<S, K>);

impl<S, K, Req> Service<Req> for RateLimit<S, K>
where
    S: Service<Req>,
    S::Error: CanReject,
    K: RequestCost<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    /// The inner readiness; but while nothing is left of the quota, the service is ready at once, and the refusal is the answer of the call.
    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let ready = self.inner.poll_ready(cx);
        self.refuses = ready.is_pending() && self.limiter.is_used_up();
        if self.refuses { Poll::Ready(Ok(())) } else { ready }
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let cost = self.cost.cost(&request);
        if self.refuses {
            self.refuses = false;
            // What has come back in between is not taken: nobody is ready to use it.
            return ResponseFuture::refused(self.limiter.refuse(self.limiter.look(cost)));
        }
        match self.limiter.take(cost) {
            Ok(()) => ResponseFuture::called(self.inner.call(request)),
            Err(refused) => ResponseFuture::refused(self.limiter.refuse(refused)),
        }
    }
}

impl<S: Clone, K: Clone> Clone for RateLimit<S, K> {
    /// Shares the quota. Readiness stays with the original.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.cost.clone(), self.limiter.clone())
    }
}

impl<S: fmt::Debug, K> fmt::Debug for RateLimit<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").field("inner", &self.inner).field("limiter", &*self.limiter).finish_non_exhaustive()
    }
}
