//! The settings in layer form.

use std::time::Duration;

use tower::Layer;

use super::{
    handle::TimeoutHandle,
    policy::TimeoutSettings,
    service::{Fixed, Timeout},
    state::Shared,
};
use crate::{address::Home, deadline::FromRequest, event::Event};

/// Builds [`Timeout`]s: the layer, its clones and all services they build share the limit.
///
/// See the [module docs](crate::timeout).
#[derive(Clone, Debug)]
pub struct TimeoutLayer<L = Fixed> {
    limit: L,
    shared: Home<Shared>,
}

impl TimeoutLayer {
    /// A time-out of these settings, or of this [`Duration`].
    #[must_use]
    pub fn new(settings: impl Into<TimeoutSettings>) -> Self {
        TimeoutHandle::new(settings).layer()
    }
}

impl<L> TimeoutLayer<L> {
    /// The limit that the function finds in the request, and that of the settings where it finds `None`.
    #[must_use]
    pub fn from_request<Req, F>(self, limit: F) -> TimeoutLayer<FromRequest<F>>
    where
        F: Fn(&Req) -> Option<Duration>,
    {
        TimeoutLayer { limit: FromRequest(limit), shared: self.shared }
    }

    /// Tells `listener` of every [`Event`], under no lock.
    #[must_use]
    pub fn on_event(self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.shared.change(|shared| shared.events.listen(listener));
        self
    }

    /// The handle of what all clones share.
    #[must_use]
    pub fn handle(&self) -> TimeoutHandle {
        TimeoutHandle { shared: self.shared.clone() }
    }
}

impl<S, L: Clone> Layer<S> for TimeoutLayer<L> {
    type Service = Timeout<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Timeout::new(inner, self.limit.clone(), self.shared.clone())
    }
}

impl TimeoutHandle {
    /// A further layer that shares the limit.
    #[must_use]
    pub fn layer(&self) -> TimeoutLayer {
        TimeoutLayer { limit: Fixed, shared: self.shared.clone() }
    }
}
