//! The settings in layer form.

use std::time::Duration;

use tower::Layer;

use super::{
    cost::FlatCost,
    delays::{Each, OfSettings},
    handle::RetryHandle,
    policy::RetrySettings,
    resend::{CloneRequest, Prepared},
    service::Retry,
    state::{Rules, Shared},
};
use crate::{
    address::Home,
    budget::Budget,
    error::ConfigError,
    event::{Event, Events, Pattern},
    outcome::ErrorsAreTransient,
};

/// Builds [`Retry`]s on one budget: the layer, its clones and all services they build share it.
///
/// See the [module docs](crate::retry).
#[derive(Clone, Debug)]
pub struct RetryLayer<C = ErrorsAreTransient, R = CloneRequest, K = FlatCost, D = OfSettings> {
    rules: Rules<C, R, K>,
    delays: D,
    shared: Home<Shared>,
}

impl RetryLayer {
    /// A retry of these settings.
    ///
    /// # Panics
    ///
    /// If the settings cannot work; [`try_new`](Self::try_new) says so instead.
    #[must_use]
    #[track_caller]
    pub fn new(settings: RetrySettings) -> Self {
        match Self::try_new(settings) {
            Ok(layer) => layer,
            Err(error) => panic!("{error}"),
        }
    }

    /// A retry of these settings.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_new(settings: RetrySettings) -> Result<Self, ConfigError> {
        let budget = settings.budget.map(Budget::try_new).transpose()?;
        let checked = settings.check()?;
        let rules = Rules { classify: ErrorsAreTransient, resend: CloneRequest, cost: FlatCost };
        let events = Events::named(Pattern::Retry, checked.plan.name);
        Ok(Self { rules, delays: OfSettings, shared: Home::new(Shared::new(checked, events, budget)) })
    }
}

impl<C, R, K, D> RetryLayer<C, R, K, D> {
    /// Decides what is worth another attempt. Defaults to [`ErrorsAreTransient`].
    #[must_use]
    pub fn classify<T>(self, classify: T) -> RetryLayer<T, R, K, D> {
        let Rules { resend, cost, .. } = self.rules;
        RetryLayer { rules: Rules { classify, resend, cost }, delays: self.delays, shared: self.shared }
    }

    /// Copies a request for another attempt, or does not: see [`Resend`](super::Resend). Defaults to [`CloneRequest`].
    ///
    /// A closure wants its argument spelled out, `|request: &Request| ..`.
    #[must_use]
    pub fn resend<T>(self, resend: T) -> RetryLayer<C, T, K, D> {
        let Rules { classify, cost, .. } = self.rules;
        RetryLayer { rules: Rules { classify, resend, cost }, delays: self.delays, shared: self.shared }
    }

    /// Changes the request before it is sent again: the number of the attempt, from 2, in a header, another endpoint. Defaults to nothing.
    #[must_use]
    pub fn prepare<Req, F: Fn(&mut Req, u32)>(self, prepare: F) -> RetryLayer<C, Prepared<R, F>, K, D> {
        let Rules { classify, resend, cost } = self.rules;
        let rules = Rules { classify, resend: Prepared::new(resend, prepare), cost };
        RetryLayer { rules, delays: self.delays, shared: self.shared }
    }

    /// What a retry takes from the budget: see [`RetryCost`](super::RetryCost). Defaults to one for each.
    #[must_use]
    pub fn cost<T>(self, cost: T) -> RetryLayer<C, R, T, D> {
        let Rules { classify, resend, .. } = self.rules;
        RetryLayer { rules: Rules { classify, resend, cost }, delays: self.delays, shared: self.shared }
    }

    /// Any iterator of delays, in place of the settings' [`Backoff`](super::Backoff). A call begins with a clone of it, and gives up when it ends.
    #[must_use]
    pub fn delays<I: Iterator<Item = Duration> + Clone>(self, delays: I) -> RetryLayer<C, R, K, Each<I>> {
        RetryLayer { rules: self.rules, delays: Each(delays), shared: self.shared }
    }

    /// Draws on a budget that others draw on too, in place of one of its own. What was built from this layer before keeps its own.
    ///
    /// Of layers inside one another, the outermost alone counts the calls, so that nested retries together stay inside the budget; a
    /// `Buffer` between them hides one from the other.
    #[must_use]
    pub fn budget(self, budget: Budget) -> Self {
        let (checked, events) = (self.shared.checked.clone(), self.shared.events.again());
        Self { shared: Home::new(Shared::new(checked, events, Some(budget))), ..self }
    }

    /// Tells `listener` of every [`Event`], under no lock.
    #[must_use]
    pub fn on_event(self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.shared.change(|shared| shared.events.listen(listener));
        self
    }

    /// The handle of what all clones share.
    #[must_use]
    pub fn handle(&self) -> RetryHandle {
        RetryHandle { shared: self.shared.clone() }
    }
}

impl<S, C: Clone, R: Clone, K: Clone, D: Clone> Layer<S> for RetryLayer<C, R, K, D> {
    type Service = Retry<S, C, R, K, D>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry::new(inner, self.rules.clone(), self.delays.clone(), self.shared.clone())
    }
}
