//! The settings in layer form.

use std::{fmt, marker::PhantomData};

use tower::Layer;

use super::{
    handle::RateLimitHandle,
    policy::RateLimitSettings,
    service::{Backpressure, OneUnit, RateLimit, Refusing, Waiting},
    settle::{Afterwards, Nothing},
};
use crate::{error::ConfigError, event::Event};

/// Builds [`RateLimit`]s on one quota: the layer, its clones and all services they build share it.
///
/// See the [module docs](crate::rate_limit).
pub struct RateLimitLayer<C = OneUnit, M = Refusing, A = Nothing> {
    handle: RateLimitHandle,
    cost: C,
    after: A,
    mode: PhantomData<fn() -> M>,
}

impl RateLimitLayer {
    /// A limiter of these settings.
    ///
    /// # Panics
    ///
    /// If the settings cannot work; [`try_new`](Self::try_new) says so instead.
    #[must_use]
    #[track_caller]
    pub fn new(settings: RateLimitSettings) -> Self {
        match Self::try_new(settings) {
            Ok(layer) => layer,
            Err(error) => panic!("{error}"),
        }
    }

    /// A limiter of these settings.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_new(settings: RateLimitSettings) -> Result<Self, ConfigError> {
        RateLimitHandle::try_new(settings).map(|handle| handle.layer())
    }
}

impl<M, A> RateLimitLayer<OneUnit, M, A> {
    /// Calls that are too many wait in `poll_ready` until there is a unit for them: for a client that paces itself, with a cost of one unit a request.
    /// They wait as long as it takes, without a look at a deadline.
    #[must_use]
    pub fn backpressure(self) -> RateLimitLayer<OneUnit, Backpressure, A> {
        self.with_mode()
    }
}

impl<C, M, A> RateLimitLayer<C, M, A> {
    /// What each request takes of the quota. Defaults to one unit.
    #[must_use]
    pub fn cost<T>(self, cost: T) -> RateLimitLayer<T, M, A> {
        RateLimitLayer { handle: self.handle, cost, after: self.after, mode: self.mode }
    }

    /// Calls that are too many wait in line, in the response future, [as long](RateLimitSettings::max_wait) and
    /// [as many](RateLimitSettings::max_waiters) as the settings allow, and never past their deadline.
    #[must_use]
    pub fn waiting(self) -> RateLimitLayer<C, Waiting, A> {
        self.with_mode()
    }

    /// What is to be done after each admitted call: a [`Settle`](super::Settle), such as [`ActualCost`](super::ActualCost) or
    /// [`PauseWhenAsked`](super::PauseWhenAsked). Defaults to nothing.
    #[must_use]
    pub fn after<T>(self, after: T) -> RateLimitLayer<C, M, Afterwards<T>> {
        RateLimitLayer { handle: self.handle, cost: self.cost, after: Afterwards(after), mode: self.mode }
    }

    /// Tells `listener` of every [`Event`], under no lock.
    #[must_use]
    pub fn on_event(self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.handle.on_event(listener);
        self
    }

    /// The limiter's handle.
    #[must_use]
    pub fn handle(&self) -> RateLimitHandle {
        self.handle.clone()
    }

    fn with_mode<N>(self) -> RateLimitLayer<C, N, A> {
        RateLimitLayer { handle: self.handle, cost: self.cost, after: self.after, mode: PhantomData }
    }
}

impl<S, C: Clone, M: Default, A: Clone> Layer<S> for RateLimitLayer<C, M, A> {
    type Service = RateLimit<S, C, M, A>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit::new(inner, self.cost.clone(), self.after.clone(), self.handle.limiter.clone())
    }
}

impl<C: Clone, M, A: Clone> Clone for RateLimitLayer<C, M, A> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), cost: self.cost.clone(), after: self.after.clone(), mode: self.mode }
    }
}

impl<C, M, A> fmt::Debug for RateLimitLayer<C, M, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl RateLimitHandle {
    /// A further layer on the same quota, with a cost of one unit a request.
    #[must_use]
    pub fn layer(&self) -> RateLimitLayer {
        RateLimitLayer { handle: self.clone(), cost: OneUnit, after: Nothing, mode: PhantomData }
    }
}
