//! `respond`: a stack around a handler that has no errors.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use pin_project_lite::pin_project;
use tower::{Layer, Service, util::MapErr};

use super::refusal::{Problem, RespondWith};
use crate::error::{Error, Rejected};

/// Puts layers around a handler whose error is [`Infallible`], and makes a response of each refusal.
///
/// Inside, the error is [`Error<Infallible>`](Error), which has a place for refusals; outside it is [`Infallible`] again.
/// See the [module docs](super#refusals).
#[must_use]
pub const fn respond<L>(layers: L) -> RespondLayer<L> {
    RespondLayer { layers, with: Problem }
}

/// Builds [`Respond`]s. See [`respond`].
#[derive(Clone, Copy, Debug)]
pub struct RespondLayer<L, W = Problem> {
    layers: L,
    with: W,
}

/// A stack whose refusals are responses. See [`respond`].
pub struct Respond<S, W = Problem> {
    inner: S,
    with: W,
    /// What the readiness of the stack failed with: the answer of the next call.
    refused: Option<Rejected>,
}

/// The handler as the layers of [`respond`] see it.
pub type Fallible<S> = MapErr<S, fn(Infallible) -> Error<Infallible>>;

pin_project! {
    /// The answer of a [`Respond`].
    #[must_use = "futures do nothing unless polled"]
    pub struct RespondFuture<F, W = Problem> {
        #[pin]
        state: State<F>,
        with: W,
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

// ===== impl RespondLayer =====

impl<L, W> RespondLayer<L, W> {
    /// Makes the responses in another way: [`NoBody`](super::NoBody), or a closure. It is cloned for each call. Defaults to
    /// [`Problem`].
    #[must_use]
    pub fn with<T>(self, with: T) -> RespondLayer<L, T> {
        RespondLayer { layers: self.layers, with }
    }
}

impl<S, L, W> Layer<S> for RespondLayer<L, W>
where
    L: Layer<Fallible<S>>,
    W: Clone,
{
    type Service = Respond<L::Service, W>;

    fn layer(&self, inner: S) -> Self::Service {
        let inner = self.layers.layer(MapErr::new(inner, Error::Service as fn(_) -> _));
        Respond { inner, with: self.with.clone(), refused: None }
    }
}

// ===== impl Respond =====

crate::macros::inner_accessors!(Respond<S, W>);

impl<S, W, Req, B> Service<Req> for Respond<S, W>
where
    S: Service<Req, Response = Response<B>, Error = Error<Infallible>>,
    W: RespondWith<B> + Clone,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = RespondFuture<S::Future, W>;

    /// The stack's readiness. Where that is a refusal, the service is ready, and the refusal is the answer of the call.
    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx).map(|ready| {
            self.refused = ready.err().map(refusal);
            Ok(())
        })
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let state = match self.refused {
            None => State::Called { inner: self.inner.call(request) },
            Some(rejected) => State::Refused { rejected },
        };
        RespondFuture { state, with: self.with.clone() }
    }
}

fn refusal(error: Error<Infallible>) -> Rejected {
    match error {
        Error::Rejected(rejected) => rejected,
        Error::Service(never) => match never {},
    }
}

impl<S: Clone, W: Clone> Clone for Respond<S, W> {
    /// Readiness stays with the original.
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), with: self.with.clone(), refused: None }
    }
}

impl<S: fmt::Debug, W> fmt::Debug for Respond<S, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Respond").field("inner", &self.inner).finish_non_exhaustive()
    }
}

// ===== impl RespondFuture =====

impl<F, W, B> Future for RespondFuture<F, W>
where
    F: Future<Output = Result<Response<B>, Error<Infallible>>>,
    W: RespondWith<B>,
{
    type Output = Result<Response<B>, Infallible>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let rejected = match this.state.project() {
            StateProj::Called { inner } => match std::task::ready!(inner.poll(cx)) {
                Ok(response) => return Poll::Ready(Ok(response)),
                Err(error) => refusal(error),
            },
            StateProj::Refused { rejected } => *rejected,
        };
        Poll::Ready(Ok(this.with.response(rejected)))
    }
}

impl<F, W> fmt::Debug for RespondFuture<F, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RespondFuture").finish_non_exhaustive()
    }
}
