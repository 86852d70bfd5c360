//! What clones share: the limit, and who listens.

use std::time::Duration;

use super::policy::{NAME, TimeoutSettings};
use crate::{
    address::{Home, Link, Resident},
    error::{Reason, Rejected},
    event::{EventKind, Events, Pattern},
    time::nanos,
};

/// The limit itself is at hand in its [`Home`], in nanoseconds.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) covers_readiness: bool,
    pub(super) events: Events,
}

pub(super) fn share(settings: TimeoutSettings) -> Home<Shared> {
    let TimeoutSettings { limit, name, covers_readiness } = settings;
    let events = Events::named(Pattern::Timeout, name);
    let home = Home::new(Shared { covers_readiness, events });
    home.set_limit(limit);
    home
}

impl Home<Shared> {
    #[inline]
    pub(super) fn limit(&self) -> u64 {
        self.at_hand()
    }

    pub(super) fn set_limit(&self, limit: Duration) {
        self.put_at_hand(nanos(limit));
    }
}

/// The refusal of a call that took too long.
#[cold]
#[inline(never)]
pub(super) fn refuse(events: &Events, reason: Reason) -> Rejected {
    let rejected = Rejected::new(events.name(), reason);
    events.emit(|| EventKind::Rejected { rejected: &rejected, shadow: false });
    rejected
}

/// As [`refuse`], from inside a call. One that outlives its layer, its services and its handles, and had no listeners, finds them for a while.
#[cold]
#[inline(never)]
pub(super) fn refuse_from(shared: &Link<Shared>, reason: Reason) -> Rejected {
    match shared.find() {
        Some(shared) => refuse(&shared.events, reason),
        None => refuse(&Events::named(Pattern::Timeout, NAME), reason),
    }
}

impl Resident for Shared {
    fn lasts(&self) -> bool {
        !self.events.has_listeners()
    }
}
