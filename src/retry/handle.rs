//! What all clones share, to look at and to listen to.

use super::state::Shared;
use crate::{address::Home, budget::Budget, event::Event};

/// What all clones of a retrying service share. Clones are handles of the same.
///
/// See the [module docs](crate::retry).
#[derive(Clone, Debug)]
pub struct RetryHandle {
    pub(super) shared: Home<Shared>,
}

impl RetryHandle {
    /// The name in events and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shared.events.name()
    }

    /// The budget, to look at it and to share it.
    #[must_use]
    pub fn budget(&self) -> Option<&Budget> {
        self.shared.budget.as_ref()
    }

    /// Tells `listener` of every [`Event`] from now on, under no lock.
    pub fn on_event(&self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        self.shared.change(|shared| shared.events.listen(listener));
    }
}
