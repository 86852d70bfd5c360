//! The layer that sets a deadline.

use std::{
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use tower::{Layer, Service};

use super::span::{Scope, Span};

/// How long the caller of a request waits: a [`Duration`] for all, or what [`FromRequest`] finds.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how long a `{Req}` may take",
    note = "a function answers with an option: `|request: &Req| -> Option<Duration> {{ .. }}`"
)]
pub trait Limit<Req> {
    /// The limit of this request, or `None` when it has none of its own.
    fn limit(&self, request: &Req) -> Option<Duration>;
}

/// A function that finds a limit in the request.
#[derive(Clone, Copy)]
pub struct FromRequest<F>(pub(crate) F);

/// Sets the [deadline](super::Deadline) of each call. See the [module docs](crate::deadline).
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer<L = Duration> {
    limit: L,
}

/// See the [module docs](crate::deadline).
#[derive(Clone, Copy, Debug)]
pub struct DeadlineService<S, L = Duration> {
    inner: S,
    limit: L,
}

/// The answer of a [`DeadlineService`].
pub type DeadlineFuture<F> = Scope<F>;

impl<Req> Limit<Req> for Duration {
    #[inline]
    fn limit(&self, _: &Req) -> Option<Duration> {
        Some(*self)
    }
}

impl<Req, F: Fn(&Req) -> Option<Duration>> Limit<Req> for FromRequest<F> {
    #[inline]
    fn limit(&self, request: &Req) -> Option<Duration> {
        (self.0)(request)
    }
}

impl<F> fmt::Debug for FromRequest<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromRequest")
    }
}

impl DeadlineLayer {
    /// This long for every call. Any length will do, zero included.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

impl<F> DeadlineLayer<FromRequest<F>> {
    /// As long as the function finds in the request; no deadline of its own where it finds `None`.
    pub const fn from_request<Req>(limit: F) -> Self
    where
        F: Fn(&Req) -> Option<Duration>,
    {
        Self { limit: FromRequest(limit) }
    }
}

impl<S, L: Clone> Layer<S> for DeadlineLayer<L> {
    type Service = DeadlineService<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService { inner, limit: self.limit.clone() }
    }
}

crate::macros::inner_accessors!(DeadlineService<S, L>);

impl<S, L, Req> Service<Req> for DeadlineService<S, L>
where
    S: Service<Req>,
    L: Limit<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let span = self.limit.limit(&request).map_or(Span::NONE, Span::within);
        Scope::new(span, self.inner.call(request))
    }
}
