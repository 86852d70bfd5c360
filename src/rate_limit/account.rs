//! Whose limiter a call paid to.

use std::{fmt, time::Duration};

use super::{decision::Decisions, line, settle::Account, state::Limiter};
use crate::{
    shared::Shared,
    time::{self, Instant},
};

/// The limiter of all calls of a layer.
pub struct Own {
    limiter: Shared<Limiter>,
    taken_at: Instant,
}

impl Own {
    pub(super) const fn new(limiter: Shared<Limiter>, taken_at: Instant) -> Self {
        Self { limiter, taken_at }
    }
}

impl Account for Own {
    fn decisions(&self) -> Option<Decisions> {
        Some(self.limiter.decisions(0))
    }

    fn charge(&self, units: u64) {
        charge(&self.limiter, units);
    }

    fn refund(&self, units: u64) {
        refund(&self.limiter, units, self.taken_at);
    }

    fn pause(&self, wait: Duration) {
        pause(&self.limiter, wait);
    }
}

// What moves those in line back or up has them asked, or let go.

pub(super) fn charge(limiter: &Shared<Limiter>, units: u64) {
    limiter.charge_at(time::now(), units);
    review(limiter);
}

pub(super) fn refund(limiter: &Shared<Limiter>, units: u64, taken_at: Instant) {
    limiter.refund_at(time::now(), units, taken_at);
    review(limiter);
}

pub(super) fn pause(limiter: &Shared<Limiter>, wait: Duration) {
    limiter.pause_at(time::now(), wait);
    review(limiter);
}

pub(super) fn review(limiter: &Shared<Limiter>) {
    if !limiter.line.is_empty() {
        line::review(limiter.value());
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own").finish_non_exhaustive()
    }
}
