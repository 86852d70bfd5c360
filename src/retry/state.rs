//! What clones share.

use super::recipe::Checked;
use crate::{
    address::{Home, Link, Resident},
    budget::Budget,
    event::Events,
};

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

    /// What a call takes along.
    #[inline]
    pub(super) fn link(home: &Home<Self>) -> Link<Self> {
        home.link(home.known.is_none() || home.events.has_listeners())
    }
}

impl Resident for Shared {
    fn lasts(&self) -> bool {
        !self.events.has_listeners()
    }
}

/// What decides about each call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<C, R, K> {
    pub(super) classify: C,
    pub(super) resend: R,
    pub(super) cost: K,
}
