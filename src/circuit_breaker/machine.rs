//! The circuit itself, as a value: it takes `now` and an ending, and answers with a decision and the transitions that followed.
//!
//! It knows no lock, no clock, no future. `state.rs` holds the lock around it.

use std::time::Duration;

use super::{
    consecutive::Consecutive,
    in_flight::{InFlight, Slot},
    policy::{Limits, Opening, Window},
    ring::Ring,
    snapshot::{CircuitBreakerSnapshot, CircuitMode},
    tally::{Call, Tally, at_least, percent, ratio},
    time_window::TimeWindow,
};
use crate::{
    error::Trip,
    event::CircuitState,
    outcome::Outcome,
    time::{Instant, Now},
};

/// One circuit.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    limits: Limits,
    mode: CircuitMode,
    phase: Phase,
    /// The number of the present state period. A call counts only in the period that admitted it.
    generation: u64,
    /// How many half-open periods have failed since the circuit was last closed.
    cycle: u32,
    trip: Option<Trip>,
    consecutive: Consecutive,
    window: Option<Counted>,
    in_flight: InFlight,
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open {
        until: Instant,
    },
    HalfOpen {
        gives_up: Instant,
        /// Probes that are out, the overdue among them included.
        out: u32,
        /// Probes that are out and have already counted as failed, because they are too slow.
        overdue: u32,
        succeeded: u32,
        failed: u32,
    },
}

#[derive(Clone, Debug)]
enum Counted {
    Calls(Ring),
    Time(TimeWindow),
}

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
}

/// The transitions of one step, in order. No step makes more than four.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transitions([Option<Transition>; 4]);

// ===== impl Transitions =====

impl Transitions {
    fn push(&mut self, transition: Transition) {
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

// ===== impl Machine =====

impl Machine {
    pub(super) fn new(limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            mode: CircuitMode::Enforced,
            phase: Phase::Closed,
            generation: 1,
            cycle: 0,
            trip: None,
            consecutive: Consecutive::default(),
            window: limits.window.map(Counted::new),
            in_flight: InFlight::new(),
            seed,
        }
    }

    // ----- what the shell publishes, so that most calls need no lock -----

    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) const fn mode(&self) -> CircuitMode {
        self.mode
    }

    pub(super) const fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) const fn trip(&self) -> Option<Trip> {
        self.trip
    }

    /// The state as it stands; `tick` brings it up to date.
    pub(super) const fn state(&self) -> CircuitState {
        match (self.mode, self.phase) {
            (CircuitMode::ForcedOpen, _) => CircuitState::Open,
            (CircuitMode::ForcedClosed | CircuitMode::Disabled, _) | (_, Phase::Closed) => CircuitState::Closed,
            (_, Phase::Open { .. }) => CircuitState::Open,
            (_, Phase::HalfOpen { .. }) => CircuitState::HalfOpen,
        }
    }

    /// Until when every call is refused, if that is so.
    pub(super) const fn refuses_until(&self) -> Option<Instant> {
        match (self.mode, self.phase) {
            (CircuitMode::ForcedOpen, _) => Some(Instant::NEVER),
            (CircuitMode::Enforced, Phase::Open { until }) => Some(until),
            _ => None,
        }
    }

    /// Whether every call is admitted and counted alike.
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.state(), CircuitState::Closed)
    }

    /// Whether one more good and quick call would change nothing.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_closed()
            && (matches!(self.mode, CircuitMode::Disabled)
                || (self.consecutive.run() == 0 && self.window.as_ref().is_none_or(Counted::is_quiet)))
    }

    #[cfg(all(test, not(buttress_loom)))]
    pub(super) const fn has_window(&self) -> bool {
        self.window.is_some()
    }

    /// Whether calls must say when they began to wait.
    pub(super) const fn is_timed(&self) -> bool {
        self.limits.slow_threshold.is_some() && !matches!(self.mode, CircuitMode::Disabled)
    }

    /// When a pending call becomes overdue, if nothing happens before.
    pub(super) fn overdue_at(&self) -> Option<Instant> {
        self.in_flight.overdue_at(self.limits.slow_threshold?)
    }

    // ----- steps -----

    /// Brings the state up to date: what the passing of time alone has changed.
    pub(super) fn tick(&mut self, now: Instant, transitions: &mut Transitions) {
        self.sweep(now, transitions);
        if !self.mode.is_automatic() {
            return;
        }
        // ## HalfOpen => (HalfOpen | Open)
        let timeout = self.half_open_timeout();
        if let Phase::HalfOpen { gives_up, out, .. } = &mut self.phase
            && now >= *gives_up
        {
            if *out == 0 {
                // Nobody is probing, so there is nothing to give up on: without this, traffic rarer than the time-out would never
                // bring the successes together.
                *gives_up = now.saturating_add(timeout);
            } else {
                let since = *gives_up;
                self.cycle = self.cycle.saturating_add(1);
                self.open(Trip::ProbesTimedOut, None, since, transitions);
            }
        }
        // ## Open => HalfOpen
        if let Phase::Open { until } = self.phase
            && now >= until
        {
            self.enter(
                Phase::HalfOpen { gives_up: now.saturating_add(timeout), out: 0, overdue: 0, succeeded: 0, failed: 0 },
                None,
                transitions,
            );
        }
    }

    /// Decides whether a call may go. `tick` comes first.
    pub(super) fn admit(&mut self) -> Admission {
        if self.is_closed() {
            return Admission::Counted;
        }
        if let Some(until) = self.refuses_until() {
            return Admission::Refused { retry_at: (until != Instant::NEVER).then_some(until) };
        }
        let trials = self.limits.trials();
        match &mut self.phase {
            Phase::HalfOpen { out, overdue, succeeded, failed, .. } => {
                // A probe that is overdue is both out and failed: it was one trial.
                let tried = succeeded.saturating_add(*failed).saturating_add(*out - *overdue);
                if *out < self.limits.probes && tried < trials {
                    *out += 1;
                    Admission::Probe
                } else {
                    Admission::Refused { retry_at: None }
                }
            }
            // Only in shadow mode, where the shell lets the call pass all the same.
            Phase::Open { until } => Admission::Refused { retry_at: Some(*until) },
            Phase::Closed => Admission::Counted,
        }
    }

    /// A call's first poll was pending.
    pub(super) fn wait(&mut self, generation: u64, now: Instant) -> Option<Slot> {
        (generation == self.generation && self.is_timed()).then(|| self.in_flight.push(now)).flatten()
    }

    /// A call ended. Returns whether it was of this generation: what is stale changes nothing.
    pub(super) fn settle(
        &mut self,
        admitted: Admitted,
        ending: Ending,
        now: &mut Now,
        transitions: &mut Transitions,
    ) -> bool {
        if admitted.generation != self.generation {
            return false;
        }
        if matches!(self.mode, CircuitMode::Disabled) {
            return true;
        }
        let was_overdue = match admitted.pending {
            Some((_, Some(slot))) => self.in_flight.remove(slot),
            _ => false,
        };
        let slow = match (admitted.pending, self.limits.slow_threshold) {
            (Some((started, _)), Some(threshold)) => was_overdue || now.get().saturating_since(started) >= threshold,
            _ => false,
        };
        let outcome = match ending {
            Ending::Answered(outcome) => Some(outcome),
            Ending::Cancelled | Ending::Panicked => None,
        };
        let failed = match ending {
            Ending::Answered(Outcome::Success | Outcome::Permanent) => Some(false),
            Ending::Answered(Outcome::Transient { .. }) | Ending::Panicked => Some(true),
            Ending::Answered(Outcome::Rejected { .. } | Outcome::Ignored) => None,
            Ending::Cancelled if self.limits.count_cancelled => Some(true),
            Ending::Cancelled => slow.then_some(false),
        };
        if admitted.probe {
            self.settle_probe(failed, slow, was_overdue, outcome, now, transitions);
        } else if let Some(failed) = failed {
            let call = Call { failed: failed || (slow && self.limits.slow_is_failure()), slow };
            // A call that grew too slow was one failure in the row already, when it did.
            if !(was_overdue && self.limits.slow_is_failure()) {
                if call.failed {
                    self.consecutive.failure();
                } else {
                    self.consecutive.success();
                }
            }
            if let Some(window) = &mut self.window {
                window.record(call, now);
            }
            self.judge(outcome, now, transitions);
        }
        true
    }

    /// ## HalfOpen => (HalfOpen | Open | Closed)
    fn settle_probe(
        &mut self,
        ended: Option<bool>,
        slow: bool,
        was_overdue: bool,
        outcome: Option<Outcome>,
        now: &mut Now,
        transitions: &mut Transitions,
    ) {
        let Phase::HalfOpen { out, overdue, succeeded, failed, .. } = &mut self.phase else {
            return;
        };
        *out -= 1;
        if was_overdue {
            *overdue -= 1;
            return;
        }
        match ended {
            None => {}
            // A circuit that opened on slowness must not close on it.
            Some(true) => *failed = failed.saturating_add(1),
            Some(false) if slow => *failed = failed.saturating_add(1),
            Some(false) => *succeeded = succeeded.saturating_add(1),
        }
        self.judge(outcome, now, transitions);
    }

    /// Calls that have grown too slow count now, not when they end.
    fn sweep(&mut self, now: Instant, transitions: &mut Transitions) {
        let Some(threshold) = self.limits.slow_threshold else {
            return;
        };
        let found = self.in_flight.sweep(now, threshold);
        if found == 0 {
            return;
        }
        if let Phase::HalfOpen { overdue, failed, .. } = &mut self.phase {
            // Only probes are in flight here, and there are at most u32::MAX of them.
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            *overdue = overdue.saturating_add(found);
            *failed = failed.saturating_add(found);
        } else if self.limits.slow_is_failure() {
            for _ in 0..found {
                self.consecutive.failure();
            }
        }
        self.judge(None, &mut now.into(), transitions);
    }

    /// Draws the consequence of what has been counted.
    fn judge(&mut self, outcome: Option<Outcome>, now: &mut Now, transitions: &mut Transitions) {
        if !self.mode.is_automatic() {
            return;
        }
        match self.phase {
            // ## Closed => (Closed | Open)
            Phase::Closed => {
                if let Some(trip) = self.tripped(now) {
                    self.cycle = 0;
                    self.open(trip, outcome, now.get(), transitions);
                }
            }
            // ## HalfOpen => (HalfOpen | Open | Closed)
            Phase::HalfOpen { succeeded, failed, .. } => {
                if succeeded >= self.limits.successes {
                    self.forget();
                    self.enter(Phase::Closed, None, transitions);
                } else if failed > self.limits.trials() - self.limits.successes {
                    self.cycle = self.cycle.saturating_add(1);
                    self.open(Trip::ProbesFailed, outcome, now.get(), transitions);
                }
            }
            Phase::Open { .. } => {}
        }
    }

    fn tripped(&mut self, now: &mut Now) -> Option<Trip> {
        let run = self.consecutive.run();
        if self.limits.consecutive.is_some_and(|n| run >= n) {
            return Some(Trip::ConsecutiveFailures(run));
        }
        self.window.as_ref()?;
        let tally = self.tally(now);
        if tally.calls < self.limits.minimum_calls {
            return None;
        }
        let reached = |part, ppm: Option<u32>| {
            ppm.is_some_and(|ppm| at_least(part, tally.calls, ppm)).then(|| percent(part, tally.calls))
        };
        if let Some(percent) = reached(tally.failed, self.limits.failure_ppm) {
            return Some(Trip::FailureRate(percent));
        }
        reached(tally.slow, self.limits.slow_ppm).map(Trip::SlowCallRate)
    }

    /// The window, with the calls that are overdue in flight: they will be in it when they end.
    fn tally(&mut self, now: &mut Now) -> Tally {
        let mut tally = match &mut self.window {
            None => Tally::default(),
            Some(Counted::Calls(ring)) => ring.tally(),
            Some(Counted::Time(window)) => window.tally(now.get()),
        };
        if matches!(self.phase, Phase::Closed) {
            let overdue = self.in_flight.overdue();
            tally.merge(Tally {
                calls: overdue,
                failed: if self.limits.slow_is_failure() { overdue } else { 0 },
                slow: overdue,
            });
        }
        tally
    }

    /// ## (Closed | HalfOpen) => Open
    fn open(&mut self, trip: Trip, outcome: Option<Outcome>, since: Instant, transitions: &mut Transitions) {
        self.trip = Some(trip);
        let opening = Opening { cycle: self.cycle, trip, outcome };
        let until = since.saturating_add(self.open_time(&opening, None));
        self.enter(Phase::Open { until }, Some(opening), transitions);
    }

    /// The user's function has answered, outside the lock, how long this opening lasts.
    pub(super) fn set_open_time(&mut self, generation: u64, opening: &Opening, asked: Duration, now: Instant) {
        if let Phase::Open { until } = &mut self.phase
            && generation == self.generation
        {
            *until = now.saturating_add(self.limits.open.length(opening, Some(asked), self.seed ^ generation));
        }
    }

    fn open_time(&self, opening: &Opening, asked: Option<Duration>) -> Duration {
        // The generation the opening is going to have, so that `set_open_time` draws the same jitter.
        let seed = self.seed ^ self.generation.wrapping_add(1);
        self.limits.open.length(opening, asked, seed)
    }

    fn half_open_timeout(&self) -> Duration {
        self.limits.half_open_timeout.unwrap_or_else(|| {
            let opening = Opening { cycle: self.cycle, trip: Trip::ProbesTimedOut, outcome: None };
            self.open_time(&opening, None)
        })
    }

    fn enter(&mut self, phase: Phase, opening: Option<Opening>, transitions: &mut Transitions) {
        let from = self.state();
        self.phase = phase;
        self.renew();
        transitions.push(Transition { from, to: self.state(), generation: self.generation, opening });
    }

    /// Begins a generation: whoever is still out is stale.
    fn renew(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.in_flight.clear();
    }

    fn forget(&mut self) {
        self.cycle = 0;
        self.trip = None;
        self.consecutive = Consecutive::default();
        self.window = self.limits.window.map(Counted::new);
    }

    // ----- control -----

    /// Changes who decides. Leaving a forced or disabled mode begins afresh; between enforced and shadow nothing is lost.
    pub(super) fn set_mode(&mut self, mode: CircuitMode, transitions: &mut Transitions) {
        if mode == self.mode {
            return;
        }
        let from = self.state();
        let keeps = self.mode.is_automatic() && mode.is_automatic();
        self.mode = mode;
        if keeps {
            return;
        }
        self.phase = Phase::Closed;
        if mode.is_automatic() {
            self.forget();
        }
        self.renew();
        let opening = matches!(mode, CircuitMode::ForcedOpen).then(|| {
            self.trip = Some(Trip::Forced);
            Opening { cycle: self.cycle, trip: Trip::Forced, outcome: None }
        });
        if from != self.state() {
            transitions.push(Transition { from, to: self.state(), generation: self.generation, opening });
        }
    }

    /// Closed, enforced, and nothing counted.
    pub(super) fn reset(&mut self, transitions: &mut Transitions) {
        let from = self.state();
        self.mode = CircuitMode::Enforced;
        self.forget();
        self.phase = Phase::Closed;
        self.renew();
        if from != CircuitState::Closed {
            transitions.push(Transition { from, to: CircuitState::Closed, generation: self.generation, opening: None });
        }
    }

    /// New limits for the same circuit: state, run and window stay, as far as the new window holds them.
    pub(super) fn set_limits(&mut self, limits: Limits, now: Instant, transitions: &mut Transitions) {
        self.window = match (self.window.take(), limits.window) {
            (_, None) => None,
            (Some(Counted::Calls(ring)), Some(Window::Calls(n))) => Some(Counted::Calls(ring.resized(n))),
            (Some(Counted::Time(mut window)), Some(Window::Time(length))) => {
                Some(Counted::Time(window.resized(length, now)))
            }
            (_, Some(window)) => Some(Counted::new(window)),
        };
        self.limits = limits;
        // What has been counted may decide under the new limits, and no call may be left to ask.
        self.judge(None, &mut now.into(), transitions);
    }

    /// When the passing of time alone will change the state for callers that wait.
    pub(super) fn changes_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::HalfOpen { gives_up, .. } => Some(gives_up),
            Phase::Closed | Phase::Open { .. } => self.overdue_at(),
        }
    }

    /// Whether a new circuit would do as well, or nearly: closed, or open for long enough, and nobody's hand on it.
    pub(super) fn may_be_forgotten(&self, now: Instant) -> bool {
        match (self.mode, self.phase) {
            (CircuitMode::Enforced | CircuitMode::Shadow, Phase::Open { until }) => now >= until,
            (mode, _) => mode.is_automatic(),
        }
    }

    pub(super) fn snapshot(&mut self, now: Instant) -> CircuitBreakerSnapshot {
        let tally = self.tally(&mut now.into());
        let (probes_in_flight, probes_succeeded) = match self.phase {
            Phase::HalfOpen { out, succeeded, .. } => (out, succeeded),
            Phase::Closed | Phase::Open { .. } => (0, 0),
        };
        CircuitBreakerSnapshot {
            state: self.state(),
            mode: self.mode,
            generation: self.generation,
            trip: self.trip,
            failed_cycles: self.cycle,
            calls: tally.calls,
            failed: tally.failed,
            slow: tally.slow,
            failure_rate: ratio(tally.failed, tally.calls),
            slow_call_rate: ratio(tally.slow, tally.calls),
            consecutive_failures: self.consecutive.run(),
            overdue_in_flight: self.in_flight.overdue(),
            probes_in_flight,
            probes_succeeded,
            time_to_half_open: match (self.mode.is_automatic(), self.phase) {
                (true, Phase::Open { until }) if until != Instant::NEVER => Some(until.saturating_since(now)),
                _ => None,
            },
        }
    }
}

impl Counted {
    fn new(window: Window) -> Self {
        match window {
            Window::Calls(n) => Self::Calls(Ring::new(n)),
            Window::Time(length) => Self::Time(TimeWindow::new(length)),
        }
    }

    #[inline]
    fn record(&mut self, call: Call, now: &mut Now) {
        match self {
            Self::Calls(ring) => ring.record(call),
            Self::Time(window) => window.record(call, now.get()),
        }
    }

    const fn is_quiet(&self) -> bool {
        match self {
            Self::Calls(ring) => ring.is_saturated_with_good(),
            // Every call counts for its time.
            Self::Time(_) => false,
        }
    }
}
