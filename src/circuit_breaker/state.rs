//! A circuit, as its services and handles hold it.

use std::{fmt, sync::Arc, task::Waker};

use tokio::sync::watch;

use super::{
    machine::Machine,
    place::Place,
    policy::{CircuitBreakerSettings, Limits},
    snapshot::{CircuitBreakerSnapshot, CircuitMode},
};
use crate::{
    error::ConfigError,
    event::{CircuitState, Events, Pattern},
    keyed::Leave,
    random::seed,
    shared::Shared,
    time::{self, Instant},
};

/// Clones share the circuit, and the last one takes it along.
#[derive(Clone)]
pub(super) struct Circuit {
    pub(super) place: &'static Place,
    tenancy: Shared<Tenancy>,
}

/// What keeps a circuit. With the last clone its place is free for another.
struct Tenancy {
    place: &'static Place,
    events: Arc<Events>,
}

/// A caller's seat in the waiting room. Dropping it gives it back.
pub(super) struct Seat {
    circuit: Circuit,
    index: usize,
}

// ===== impl Circuit =====

impl Circuit {
    pub(super) fn try_new(settings: CircuitBreakerSettings) -> Result<Self, ConfigError> {
        let limits = settings.check()?;
        Ok(Self::new(limits, Arc::new(Events::named(Pattern::CircuitBreaker, settings.name))))
    }

    pub(super) fn new(limits: Limits, events: Arc<Events>) -> Self {
        let place = Place::let_to(Machine::new(limits, seed()), Arc::clone(&events));
        Self { place, tenancy: Shared::new(Tenancy { place, events }) }
    }

    #[inline]
    pub(super) fn events(&self) -> &Arc<Events> {
        &self.tenancy.events
    }

    // ----- a caller that waits -----

    /// Leaves a caller's waker, so that from now on a trip wakes it.
    pub(super) fn park(&self, seat: &mut Option<Seat>, waker: &Waker) {
        let index = self.place.parked.enter(seat.as_ref().map(|seat| seat.index), waker);
        seat.get_or_insert_with(|| Seat { circuit: self.clone(), index });
    }

    /// When a caller that waits had better look again.
    pub(super) fn changes_at(&self, now: Instant) -> Option<Instant> {
        self.place.look(|machine| machine.changes_at(now))
    }

    // ----- looking and control -----

    pub(super) fn state(&self) -> CircuitState {
        let now = time::now();
        self.place.step(|machine, transitions| {
            machine.tick(now, transitions);
            machine.state()
        })
    }

    pub(super) fn snapshot(&self) -> CircuitBreakerSnapshot {
        let now = time::now();
        self.place.step(|machine, transitions| {
            machine.tick(now, transitions);
            machine.snapshot(now)
        })
    }

    pub(super) fn set_mode(&self, mode: CircuitMode) {
        self.place.step(|machine, transitions| machine.set_mode(mode, transitions));
        // Between shadow and enforced the state stays, and yet callers that wait may be refused now.
        self.place.parked.wake_all();
    }

    pub(super) fn reset(&self) {
        self.place.step(Machine::reset);
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        let now = time::now();
        self.place.step(|machine, transitions| machine.set_limits(limits, now, transitions));
        // Those who wait have set their clocks by the old limits.
        self.place.parked.wake_all();
    }

    pub(super) fn watch(&self) -> watch::Receiver<CircuitState> {
        self.state();
        self.place.watch()
    }

    /// Whether this circuit may be forgotten, if nobody else holds it.
    pub(super) fn may_leave(&self) -> Leave {
        if !self.tenancy.is_unique() {
            return Leave::No;
        }
        let now = time::now();
        self.place.look(|machine| match machine.is_idle() {
            true => Leave::Gladly,
            false if machine.is_over(now) => Leave::IfNeedBe,
            false => Leave::No,
        })
    }

    pub(super) fn same(&self, other: &Self) -> bool {
        self.tenancy.same(&other.tenancy)
    }
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.events().name())
    }
}

impl Drop for Tenancy {
    fn drop(&mut self) {
        self.place.vacate();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.circuit.place.parked.leave(self.index);
    }
}
