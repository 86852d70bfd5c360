//! The service.

use std::{
    fmt,
    task::{Context, Poll},
};

use tower::{Service, load::Load};

use super::{
    cost::{FlatCost, RetryCost},
    course::Course,
    delays::{Delays, OfSettings},
    future::ResponseFuture,
    handle::RetryHandle,
    recipe::Checked,
    resend::{CloneRequest, Resend},
    spare::Spares,
    state::{Rules, Shared},
};
use crate::{
    address::Home,
    budget,
    outcome::{Classify, ErrorsAreTransient},
};

/// See the [module docs](crate::retry).
pub struct Retry<S, C = ErrorsAreTransient, R = CloneRequest, K = FlatCost, D = OfSettings> {
    inner: S,
    spares: Spares<S>,
    rules: Rules<C, R, K>,
    delays: D,
    shared: Home<Shared>,
    /// Beside what is shared, because each step on the way there costs.
    known: Option<&'static Checked>,
}

impl<S, C, R, K, D> Retry<S, C, R, K, D> {
    pub(super) fn new(inner: S, rules: Rules<C, R, K>, delays: D, shared: Home<Shared>) -> Self {
        let known = shared.known;
        Self { inner, spares: Spares::new(), rules, delays, shared, known }
    }

    #[inline]
    fn may_retry(&self) -> bool {
        self.known.is_none_or(|checked| checked.plan.attempts > 1)
    }

    /// The handle of what all clones share.
    #[must_use]
    pub fn handle(&self) -> RetryHandle {
        RetryHandle { shared: self.shared.clone() }
    }

    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to change it: for this instance and the clones to come, further attempts included.
    pub fn get_mut(&mut self) -> &mut S {
        self.spares = Spares::new();
        &mut self.inner
    }

    /// Gives the inner service back.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Load, C, R, K, D> Load for Retry<S, C, R, K, D> {
    type Metric = S::Metric;

    fn load(&self) -> S::Metric {
        self.inner.load()
    }
}

impl<S, C, R, K, D, Req> Service<Req> for Retry<S, C, R, K, D>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error> + Clone,
    R: Resend<Req> + Clone,
    K: RetryCost<S::Response, S::Error> + Clone,
    D: Delays + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, Req, C, R, K, D>;

    /// The readiness of the first attempt, which goes to the very service that is asked here. Each further one has its own.
    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let copy = if self.may_retry() { self.rules.resend.copy(&request) } else { None };
        let spare = self.spares.take(&self.inner);
        let budget = self.shared.budget.as_ref().map(|budget| {
            let address = budget.address();
            if !budget::is_entered(address.id()) {
                budget.deposit();
            }
            address
        });
        let entered = budget.map(|budget| budget::enter(budget.id()));
        let inner = self.inner.call(request);
        drop(entered);
        let course = Course::new(self.known, Shared::link(&self.shared), budget);
        ResponseFuture::new(inner, copy, spare, self.rules.clone(), self.delays.clone(), course)
    }
}

impl<S: Clone, C: Clone, R: Clone, K: Clone, D: Clone> Clone for Retry<S, C, R, K, D> {
    /// Shares the budget and the listeners. Readiness stays with the original.
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            spares: self.spares.clone(),
            rules: self.rules.clone(),
            delays: self.delays.clone(),
            shared: self.shared.clone(),
            known: self.known,
        }
    }
}

impl<S: fmt::Debug, C, R, K, D> fmt::Debug for Retry<S, C, R, K, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("inner", &self.inner).field("shared", &self.shared).finish_non_exhaustive()
    }
}
