//! Inspect, control, and use without tower.

use std::{fmt, time::Duration};

use super::{
    future::ResponseFuture,
    policy::TimeoutSettings,
    state::{Shared, share},
};
use crate::{address::Home, error::CanReject, event::Event};

/// A time-out to look at, to change, and to use without tower. Clones are handles of the same one.
///
/// See the [module docs](crate::timeout).
#[derive(Clone)]
pub struct TimeoutHandle {
    pub(super) shared: Home<Shared>,
}

impl TimeoutHandle {
    /// A time-out of these settings.
    #[must_use]
    pub fn new(settings: impl Into<TimeoutSettings>) -> Self {
        Self { shared: share(settings.into()) }
    }

    /// The name in errors, events and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shared.events.name()
    }

    /// The limit of the calls to come.
    #[must_use]
    pub fn limit(&self) -> Duration {
        Duration::from_nanos(self.shared.limit())
    }

    /// Changes the limit for the calls to come: at most 584 years, which is for ever.
    pub fn set_limit(&self, limit: Duration) {
        self.shared.set_limit(limit);
    }

    /// Tells `listener` of every [`Event`] from now on, under no lock.
    pub fn on_event(&self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        self.shared.change(|shared| shared.events.listen(listener));
    }

    /// The future with the limit on it, for code without tower. The time runs from its first poll that is pending.
    pub fn run<F, T, E>(&self, future: F) -> ResponseFuture<F>
    where
        F: Future<Output = Result<T, E>>,
        E: CanReject,
    {
        ResponseFuture::called(future, self.shared.limit(), self.shared.link())
    }
}

impl fmt::Debug for TimeoutHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutHandle").field("limit", &self.limit()).field("shared", &self.shared).finish()
    }
}
