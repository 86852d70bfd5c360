//! The settings: a small value.

use std::time::Duration;

/// How long an attempt may take.
///
/// # Defaults
///
/// | setting | default |
/// |---|---|
/// | [`new`](Self::new): the limit | none: it is the one thing to think about |
/// | [`name`](Self::name) | `"timeout"` |
/// | [`cover_readiness`](Self::cover_readiness) | no, as in tower |
///
/// A [`Duration`] is these settings with their defaults.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutSettings {
    pub(super) limit: Duration,
    pub(super) name: &'static str,
    pub(super) covers_readiness: bool,
}

pub(super) const NAME: &str = "timeout";

impl TimeoutSettings {
    /// This long at most, from the first poll that is pending. Any length will do: zero for answers that are ready at once, and [`Duration::MAX`]
    /// where only the caller's [deadline](crate::Deadline) ends a call.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self { limit, name: NAME, covers_readiness: false }
    }

    /// The name in errors, events and metrics. Defaults to `"timeout"`.
    #[must_use]
    pub const fn name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// The wait for the readiness of the inner service counts too. Defaults to the call alone.
    ///
    /// An instance that was refused may still stand in the inner service's queue: it is to be polled again, or dropped.
    #[must_use]
    pub const fn cover_readiness(mut self) -> Self {
        self.covers_readiness = true;
        self
    }
}

impl From<Duration> for TimeoutSettings {
    fn from(limit: Duration) -> Self {
        Self::new(limit)
    }
}
