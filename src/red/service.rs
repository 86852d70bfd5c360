//! The service.

use std::{
    fmt, mem,
    task::{Context, Poll, ready},
};

use tower::Service;

use super::{
    future::ResponseFuture,
    handle::RedHandle,
    permit::{OnUnwind, Permit},
    state::State,
};
use crate::{
    event::Ending,
    outcome::{Classify, ErrorsAreTransient},
    shared::Shared,
};

/// See the [module docs](crate::red).
pub struct Red<S, C = ErrorsAreTransient, L = Unlabelled> {
    inner: S,
    classify: C,
    label: L,
    state: Shared<State>,
}

/// Which of the declared values of the label a request has. A closure wants its argument spelled out, `|request: &Request| ..`.
pub trait LabelBy<Req> {
    /// The value. What is not declared, and `None`, is `"other"`.
    fn label<'a>(&self, request: &'a Req) -> Option<&'a str>;
}

/// No request has a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unlabelled;

impl<Req> LabelBy<Req> for Unlabelled {
    #[inline]
    fn label<'a>(&self, _: &'a Req) -> Option<&'a str> {
        None
    }
}

impl<Req, F: Fn(&Req) -> &str> LabelBy<Req> for F {
    #[inline]
    fn label<'a>(&self, request: &'a Req) -> Option<&'a str> {
        Some(self(request))
    }
}

impl<S, C, L> Red<S, C, L> {
    pub(super) const fn new(inner: S, classify: C, label: L, state: Shared<State>) -> Self {
        Self { inner, classify, label, state }
    }

    /// The handle of what all clones share.
    #[must_use]
    pub fn handle(&self) -> RedHandle {
        RedHandle { state: self.state.clone() }
    }

    /// A service that cannot become ready has failed a call.
    #[cold]
    fn fail<Res, E>(&self, error: &E)
    where
        C: Classify<Res, E>,
    {
        self.state.fail(Ending::of(self.classify.classify(Err(error))));
    }
}

crate::macros::inner_accessors!(Red<S, C, L>);

impl<S, C, L, Req> Service<Req> for Red<S, C, L>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error> + Clone,
    L: LabelBy<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, C>;

    /// The inner readiness. The wait for it belongs to no call yet, and is not timed.
    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let ready = ready!(self.inner.poll_ready(cx));
        if let Err(error) = &ready {
            self.fail(error);
        }
        Poll::Ready(ready)
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let place = self.state.place(self.label.label(&request));
        let mut permit = Permit::begin(&self.state, place);
        let on_unwind = OnUnwind(&mut permit);
        let inner = self.inner.call(request);
        let classify = self.classify.clone();
        mem::forget(on_unwind);
        ResponseFuture::new(inner, permit, classify)
    }
}

impl<S: Clone, C: Clone, L: Clone> Clone for Red<S, C, L> {
    /// Shares the figures.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.classify.clone(), self.label.clone(), self.state.clone())
    }
}

impl<S: fmt::Debug, C, L> fmt::Debug for Red<S, C, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Red").field("inner", &self.inner).field("state", &*self.state).finish_non_exhaustive()
    }
}
