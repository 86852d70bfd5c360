//! What clones share.

use super::recipe::Checked;
use crate::{address::Resident, budget::Budget, event::Events};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) events: Events,
    pub(super) budget: Option<Budget>,
    pub(super) checked: Checked,
    pub(super) known: Option<&'static Checked>,
}

impl Shared {
    pub(super) fn new(checked: Checked, events: Events, budget: Option<Budget>) -> Self {
        let known = checked.known();
        Self { events, budget, checked, known }
    }
}

impl Resident for Shared {
    /// A call without settings of its own needs those that are here.
    fn lasts(&self) -> bool {
        self.known.is_some() && !self.events.has_listeners()
    }
}

/// What decides about each call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<C, R, K> {
    pub(super) classify: C,
    pub(super) resend: R,
    pub(super) cost: K,
}
