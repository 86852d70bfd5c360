//! The settings in layer form.

use tower::Layer;

use super::{
    handle::RateLimitHandle,
    policy::RateLimitSettings,
    service::{OneUnit, RateLimit},
};
use crate::{error::ConfigError, event::Event};

/// Builds [`RateLimit`]s on one quota: the layer, its clones and all services they build share it.
///
/// See the [module docs](crate::rate_limit).
#[derive(Clone, Debug)]
pub struct RateLimitLayer<K = OneUnit> {
    handle: RateLimitHandle,
    cost: K,
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

impl<K> RateLimitLayer<K> {
    /// What each request takes of the quota. Defaults to one unit.
    #[must_use]
    pub fn cost<T>(self, cost: T) -> RateLimitLayer<T> {
        RateLimitLayer { handle: self.handle, cost }
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
}

impl<S, K: Clone> Layer<S> for RateLimitLayer<K> {
    type Service = RateLimit<S, K>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit::new(inner, self.cost.clone(), self.handle.limiter.clone())
    }
}

impl RateLimitHandle {
    /// A further layer on the same quota, with a cost of one unit a request.
    #[must_use]
    pub fn layer(&self) -> RateLimitLayer {
        RateLimitLayer { handle: self.clone(), cost: OneUnit }
    }
}
