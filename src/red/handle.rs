//! Look, and use without tower.

use std::fmt;

use super::{permit::Permit, policy::RedSettings, snapshot::RedSnapshot, state::State};
use crate::{error::ConfigError, outcome::Outcome, shared::Shared};

/// The figures of all calls, to look at, and to count calls without tower. Clones are handles of the same ones.
///
/// See the [module docs](crate::red).
#[derive(Clone)]
pub struct RedHandle {
    pub(super) state: Shared<State>,
}

/// A call in flight, for code without tower. Dropping it unsettled means that the call was cancelled.
#[must_use = "dropping it means that the call was cancelled"]
pub struct Call(Permit);

impl RedHandle {
    /// Figures of these settings.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_new(settings: impl Into<RedSettings>) -> Result<Self, ConfigError> {
        State::share(&settings.into()).map(|state| Self { state })
    }

    /// The name in metrics and snapshots.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.state.name
    }

    /// What the figures are now.
    ///
    /// While calls come and go, they are added up one after the other, so a call may be in one of them and not yet in another. There are never more
    /// that ended than began.
    #[must_use]
    pub fn snapshot(&self) -> RedSnapshot {
        self.state.snapshot()
    }

    /// The same for each value of the label, the declared ones in order and `"other"`. Nothing without a label.
    #[must_use]
    pub fn snapshot_by_label(&self) -> Vec<(&'static str, RedSnapshot)> {
        self.state.snapshot_by_label()
    }

    /// Counts a call from here on, for code without tower.
    pub fn begin(&self) -> Call {
        Call(Permit::begin(&self.state, self.state.place(None)))
    }

    /// As [`begin`](Self::begin), with this label.
    pub fn begin_labelled(&self, label: &str) -> Call {
        Call(Permit::begin(&self.state, self.state.place(Some(label))))
    }
}

impl fmt::Debug for RedHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedHandle").field(&*self.state).finish()
    }
}

impl Call {
    /// The call ended like this.
    pub fn record(mut self, outcome: Outcome) {
        self.0.settle(outcome);
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}
