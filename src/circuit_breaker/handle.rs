//! Inspect and control, and admission for code without tower.

use std::fmt;

use tokio::sync::watch;

use super::{
    permit::Permit as Inner,
    policy::CircuitBreakerSettings,
    snapshot::{CircuitBreakerSnapshot, CircuitMode},
    state::Circuit,
    step::Ending,
};
use crate::{
    error::{ConfigError, Rejected},
    event::{CircuitState, Event},
    outcome::Outcome,
};

/// A circuit to look at, to control, and to use without tower. Clones are handles of the same circuit.
///
/// See the [module docs](crate::circuit_breaker).
#[derive(Clone, Debug)]
pub struct CircuitBreakerHandle {
    pub(super) circuit: Circuit,
}

/// A call's place in a circuit, for code without tower: how it ends is what the circuit counts.
///
/// Dropping it unsettled means that the call was cancelled.
#[must_use = "dropping a permit means that the call was cancelled"]
pub struct Permit {
    inner: Inner,
    /// Keeps the circuit: a keyed one that has a permit out must not be forgotten.
    circuit: Circuit,
}

impl CircuitBreakerHandle {
    /// A circuit of these settings.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_new(settings: CircuitBreakerSettings) -> Result<Self, ConfigError> {
        Circuit::try_new(settings).map(|circuit| Self { circuit })
    }

    /// The name in errors, events and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.circuit.events().name()
    }

    /// Where the circuit stands now. An open circuit whose time is over is half-open, and looking makes it so.
    #[must_use]
    pub fn state(&self) -> CircuitState {
        self.circuit.state()
    }

    /// The figures behind it.
    #[must_use]
    pub fn snapshot(&self) -> CircuitBreakerSnapshot {
        self.circuit.snapshot()
    }

    /// The state, to wait for a change of it.
    ///
    /// A watch shows the latest state; the sequence of transitions is for [events](Self::on_event). It moves with the next call or look,
    /// because no timer runs for it.
    ///
    /// Copy the state out, `*watch.borrow_and_update()` in a statement of its own: whoever holds the borrow holds up the call that is about
    /// to change the state, and deadlocks with a look at the circuit on the same thread.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<CircuitState> {
        self.circuit.watch()
    }

    /// Tells `listener` of every [`Event`] from now on, under no lock.
    pub fn on_event(&self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        self.circuit.events().listen(listener);
    }

    /// Admits a call, for code without tower. Its time runs from here.
    ///
    /// # Errors
    ///
    /// The refusal of a circuit that is open, or half-open with all its probes out.
    ///
    /// # Cancel safety
    ///
    /// Dropping the permit means that the call was cancelled.
    pub fn try_acquire(&self) -> Result<Permit, Rejected> {
        let mut inner = self.circuit.admit().map_err(|refusal| self.circuit.refuse(refusal).rejected())?;
        inner.pending();
        Ok(Permit { inner, circuit: self.circuit.clone() })
    }

    /// Refuses everything until [`reset`](Self::reset) or another mode.
    pub fn force_open(&self) {
        self.circuit.set_mode(CircuitMode::ForcedOpen);
    }

    /// Admits everything and counts it, and opens for nothing, until [`reset`](Self::reset) or another mode.
    pub fn force_closed(&self) {
        self.circuit.set_mode(CircuitMode::ForcedClosed);
    }

    /// Admits everything and counts nothing, until [`reset`](Self::reset) or another mode.
    pub fn disable(&self) {
        self.circuit.set_mode(CircuitMode::Disabled);
    }

    /// Counts, changes state and reports as ever, and refuses nothing. Nothing counted is lost on the way in or out.
    pub fn shadow(&self) {
        self.circuit.set_mode(CircuitMode::Shadow);
    }

    /// Lets the circuit decide again: with all it has counted when it comes from shadow, afresh otherwise.
    pub fn enforce(&self) {
        self.circuit.set_mode(CircuitMode::Enforced);
    }

    /// Closed, enforced, nothing counted. Calls that are under way no longer count.
    pub fn reset(&self) {
        self.circuit.reset();
    }

    /// Changes the settings of the living circuit. Its state, run and window stay; a window that changes from calls to time or back starts
    /// empty. An opening and a half-open time-out under way keep their time, calls that are pending already are watched for slowness only if
    /// they were before, and the name and `max_keys` stay.
    ///
    /// # Errors
    ///
    /// Settings that cannot work; the old ones then stay.
    pub fn update(&self, settings: CircuitBreakerSettings) -> Result<(), ConfigError> {
        self.circuit.set_limits(settings.check()?);
        Ok(())
    }
}

impl PartialEq for CircuitBreakerHandle {
    /// Whether both are handles of the same circuit.
    fn eq(&self, other: &Self) -> bool {
        self.circuit.same(&other.circuit)
    }
}

impl Eq for CircuitBreakerHandle {}

// ===== impl Permit =====

impl Permit {
    /// The call succeeded.
    pub fn success(self) {
        self.record(Outcome::Success);
    }

    /// The call failed.
    pub fn failure(self) {
        self.record(Outcome::TRANSIENT);
    }

    /// The call says nothing about the dependency.
    pub fn ignore(self) {
        self.record(Outcome::Ignored);
    }

    /// The call ended like this.
    pub fn record(mut self, outcome: Outcome) {
        self.inner.settle(Ending::Answered(outcome));
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("circuit", &self.circuit).finish_non_exhaustive()
    }
}
