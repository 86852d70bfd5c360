//! What goes into a step of the machine, and what comes out.

use std::time::Duration;

use super::{in_flight::Slot, open_time::Opening};
use crate::{event::CircuitState, outcome::Outcome, time::Instant};

/// What the gate answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Go, and count.
    Counted,
    /// Go, as a probe of the half-open circuit.
    Probe,
    /// Stay out. Half-open has no time to name: it is over as soon as its probes say so.
    Refused { retry_at: Option<Instant> },
}

/// What admitted a call, as it comes back at its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admitted {
    pub(super) generation: u64,
    pub(super) probe: bool,
    /// When its first poll was pending, and where it waits in the list. Only with a slow threshold.
    pub(super) pending: Option<(Instant, Option<Slot>)>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Answered(Outcome),
    Cancelled,
    Panicked,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) from: CircuitState,
    pub(super) to: CircuitState,
    pub(super) generation: u64,
    /// Why it opened.
    pub(super) opening: Option<Opening>,
    /// For how long, if that is known.
    pub(super) open_for: Option<Duration>,
}

/// The transitions of one step, in order. No step makes more than four.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transitions([Option<Transition>; 4]);

// ===== impl Transitions =====

impl Transitions {
    pub(super) fn push(&mut self, transition: Transition) {
        match self.0.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(transition),
            None => debug_assert!(false, "a step made five transitions"),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Transition> {
        self.0.into_iter().flatten()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0[0].is_none()
    }
}
