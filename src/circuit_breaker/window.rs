//! What the rates are counted over: the last calls, or the last time.

use super::{
    policy::Window,
    ring::Ring,
    tally::{Call, Tally},
    time_window::TimeWindow,
};
use crate::time::{Instant, Now};

#[derive(Clone, Debug)]
pub(super) enum Counts {
    Calls(Ring),
    /// Boxed, so that a circuit without a window, one of many keys perhaps, stays small.
    Time(Box<TimeWindow>),
}

impl Counts {
    pub(super) fn new(window: Window) -> Self {
        match window {
            Window::Calls(n) => Self::Calls(Ring::new(n)),
            Window::Time(length) => Self::Time(Box::new(TimeWindow::new(length))),
        }
    }

    #[inline]
    pub(super) fn record(&mut self, call: Call, now: &mut Now) {
        match self {
            Self::Calls(ring) => ring.record(call),
            Self::Time(window) => window.record(call, now.get()),
        }
    }

    /// What it holds, and what it still holds beside so many calls that are in flight and will be in it when they end.
    pub(super) fn tally(&mut self, beside: u64, now: &mut Now) -> Tally {
        match self {
            Self::Calls(ring) if beside == 0 => ring.tally(),
            Self::Calls(ring) => ring.tally_before(beside),
            Self::Time(window) => window.tally(now.get()),
        }
    }

    /// How many calls in flight it can hold.
    pub(super) const fn holds(&self, calls: u64) -> u64 {
        match self {
            Self::Calls(ring) if ring.size() < calls => ring.size(),
            Self::Calls(_) | Self::Time(_) => calls,
        }
    }

    /// When time alone changes what it holds.
    pub(super) fn turns_at(&self) -> Option<Instant> {
        match self {
            Self::Calls(_) => None,
            Self::Time(window) => window.turns_at(),
        }
    }

    /// Whether no call in it failed or was slow.
    pub(super) const fn is_good(&self) -> bool {
        match self {
            Self::Calls(ring) => ring.is_good(),
            Self::Time(window) => window.is_good(),
        }
    }

    /// Whether one more good call would change nothing.
    pub(super) const fn is_quiet(&self) -> bool {
        match self {
            Self::Calls(ring) => ring.is_saturated_with_good(),
            // Every call counts for its time.
            Self::Time(_) => false,
        }
    }

    /// Another window with what it holds of this one: nothing, when calls become time or time becomes calls.
    pub(super) fn resized(self, window: Window, now: Instant) -> Self {
        match (self, window) {
            (Self::Calls(ring), Window::Calls(n)) => Self::Calls(ring.resized(n)),
            (Self::Time(mut counts), Window::Time(length)) => Self::Time(Box::new(counts.resized(length, now))),
            (_, window) => Self::new(window),
        }
    }
}
