//! The service.

use std::{
    fmt,
    task::{Context, Poll},
};

use tower::{Service, load::Load};

use super::{
    cost::{FlatCost, RetryCost},
    course::Course,
    decision::Plan,
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
    budget::{self, Budget, BudgetAddress},
    outcome::{Classify, ErrorsAreTransient},
    time,
};

/// See the [module docs](crate::retry).
pub struct Retry<S, C = ErrorsAreTransient, R = CloneRequest, K = FlatCost, D = OfSettings> {
    inner: S,
    spares: Spares<S>,
    rules: Rules<C, R, K>,
    delays: D,
    shared: Home<Shared>,
    /// Beside what is shared, because each step on the way there costs: this and what follows.
    settings: Option<&'static Checked>,
    budget: Option<BudgetAddress>,
    may_retry: bool,
    has_limit: bool,
}

impl<S, C, R, K, D> Retry<S, C, R, K, D> {
    pub(super) fn new(inner: S, rules: Rules<C, R, K>, delays: D, shared: Home<Shared>) -> Self {
        let Plan { attempts, within, .. } = shared.checked.plan;
        Self {
            inner,
            spares: Spares::new(),
            rules,
            delays,
            settings: shared.known,
            budget: shared.budget.as_ref().map(Budget::address),
            may_retry: attempts > 1,
            has_limit: within != u64::MAX,
            shared,
        }
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
        let is_counted = self.budget.is_some_and(|budget| !budget::is_entered(budget.id()));
        // The way to the counter is long, so it begins before what is inside has anything to wait for.
        let account = if is_counted { self.shared.budget.as_ref().map(Budget::account) } else { None };
        if is_counted {
            time::forget_noted();
        }
        let copy = if self.may_retry { self.rules.resend.copy(&request) } else { None };
        let (rules, delays) = (self.rules.clone(), self.delays.clone());
        let course = Course::new(self.settings, self.shared.link(), self.budget);
        let entered = self.budget.map(|budget| budget::enter(budget.id()));
        let inner = self.inner.call(request);
        drop(entered);
        // Before it is polled, and once somebody inside may have read the clock.
        if let Some(account) = account {
            account.deposit_about_now();
        }
        // Last, because a counted reference that is taken before the atomic steps inside costs more.
        let spare = self.spares.take(&self.inner);
        ResponseFuture::new(inner, self.has_limit, copy, spare, rules, delays, course)
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
            settings: self.settings,
            budget: self.budget,
            may_retry: self.may_retry,
            has_limit: self.has_limit,
        }
    }
}

impl<S: fmt::Debug, C, R, K, D> fmt::Debug for Retry<S, C, R, K, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("inner", &self.inner).field("shared", &self.shared).finish_non_exhaustive()
    }
}
