//! The service.

use std::{
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use tower::{Service, load::Load};

use super::{
    backoff::Backoff,
    cost::{FlatCost, RetryCost},
    decision::Plan,
    future::ResponseFuture,
    handle::RetryHandle,
    resend::{CloneRequest, Resend},
    spare::Spares,
    state::{Course, Rules, Shared},
};
use crate::{
    address::Home,
    budget,
    outcome::{Classify, ErrorsAreTransient},
};

/// See the [module docs](crate::retry).
pub struct Retry<S, C = ErrorsAreTransient, R = CloneRequest, K = FlatCost, B = Backoff> {
    inner: S,
    spares: Spares<S>,
    rules: Rules<C, R, K>,
    delays: B,
    plan: Plan,
    shared: Home<Shared>,
}

impl<S, C, R, K, B> Retry<S, C, R, K, B> {
    pub(super) fn new(inner: S, rules: Rules<C, R, K>, delays: B, plan: Plan, shared: Home<Shared>) -> Self {
        Self { inner, spares: Spares::new(), rules, delays, plan, shared }
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

impl<S: Load, C, R, K, B> Load for Retry<S, C, R, K, B> {
    type Metric = S::Metric;

    fn load(&self) -> S::Metric {
        self.inner.load()
    }
}

impl<S, C, R, K, B, Req> Service<Req> for Retry<S, C, R, K, B>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error> + Clone,
    R: Resend<Req> + Clone,
    K: RetryCost<S::Response, S::Error> + Clone,
    B: Iterator<Item = Duration> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, Req, C, R, K, B>;

    /// The readiness of the first attempt, which goes to the very service that is asked here. Each further one has its own.
    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let copy = if self.plan.attempts > 1 { self.rules.resend.copy(&request) } else { None };
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
        let course = Course::new(self.plan, Shared::link(&self.shared), budget);
        ResponseFuture::new(inner, copy, spare, self.rules.clone(), self.delays.clone(), course)
    }
}

impl<S: Clone, C: Clone, R: Clone, K: Clone, B: Clone> Clone for Retry<S, C, R, K, B> {
    /// Shares the budget and the listeners. Readiness stays with the original.
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            spares: self.spares.clone(),
            rules: self.rules.clone(),
            delays: self.delays.clone(),
            plan: self.plan,
            shared: self.shared.clone(),
        }
    }
}

impl<S: fmt::Debug, C, R, K, B> fmt::Debug for Retry<S, C, R, K, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("inner", &self.inner)
            .field("plan", &self.plan)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
