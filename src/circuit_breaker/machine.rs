//! The circuit itself, as a value: it takes `now` and an ending, and answers with a decision and the transitions that followed.
//!
//! It knows no lock, no clock, no future. `place.rs` holds the lock around it.

mod control;

use std::time::Duration;

use super::{
    consecutive::Consecutive,
    in_flight::{InFlight, Slot},
    open_time::{OPEN_TIME, Opening},
    policy::Limits,
    probes::Probes,
    snapshot::{CircuitBreakerSnapshot, CircuitMode},
    step::{Admission, Admitted, Ending, Transition, Transitions},
    tally::{Call, Tally, at_least, percent, ratio},
    window::Counts,
};
use crate::{
    error::Trip,
    event::CircuitState,
    outcome::Outcome,
    time::{Instant, Now},
};

/// The least half-open time-out that follows from an open time.
const LEAST_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// How long the last opening was to last.
    open_for: Duration,
    consecutive: Consecutive,
    window: Option<Counts>,
    in_flight: InFlight,
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen { gives_up: Instant, probes: Probes },
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
            open_for: OPEN_TIME,
            consecutive: Consecutive::default(),
            window: limits.window.map(Counts::new),
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
                || (self.consecutive.run() == 0 && self.window.as_ref().is_none_or(Counts::is_quiet)))
    }

    /// Whether calls must say when they began to wait.
    pub(super) const fn is_timed(&self) -> bool {
        self.limits.slow_threshold.is_some() && !matches!(self.mode, CircuitMode::Disabled)
    }

    /// When calls in flight will count for more than they do now, if nothing happens before.
    pub(super) fn overdue_at(&self) -> Option<Instant> {
        let next = self.in_flight.overdue_at(self.limits.slow_threshold?);
        // While calls hang, what else is in a window of time leaves it, and they weigh more.
        let turns = match (&self.window, self.phase) {
            (Some(window), Phase::Closed) if self.in_flight.overdue() > 0 && self.mode.is_automatic() => {
                window.turns_at()
            }
            _ => None,
        };
        next.into_iter().chain(turns).min()
    }

    // ----- steps -----

    /// Brings the state up to date: what the passing of time alone has changed.
    pub(super) fn tick(&mut self, now: Instant, transitions: &mut Transitions) {
        self.sweep(now, transitions);
        if !self.mode.is_automatic() {
            return;
        }
        // ## HalfOpen => (HalfOpen | Open)
        if let Phase::HalfOpen { gives_up, probes } = self.phase
            && probes.out() > 0
            && now >= gives_up
        {
            self.cycle = self.cycle.saturating_add(1);
            self.open(Trip::ProbesTimedOut, None, gives_up, transitions);
        }
        // ## Open => HalfOpen
        if let Phase::Open { until } = self.phase
            && now >= until
        {
            self.enter(Phase::HalfOpen { gives_up: Instant::NEVER, probes: Probes::default() }, None, transitions);
        }
    }

    /// Decides whether a call may go. `tick` comes first.
    pub(super) fn admit(&mut self, now: Instant) -> Admission {
        if self.is_closed() {
            return Admission::Counted;
        }
        if let Some(until) = self.refuses_until() {
            return Admission::Refused { retry_at: (until != Instant::NEVER).then_some(until) };
        }
        let timeout = self.half_open_timeout();
        match &mut self.phase {
            Phase::HalfOpen { probes, gives_up } => {
                let first = probes.out() == 0;
                if probes.admit(&self.limits) {
                    // Time runs while probes are out. From the beginning of the period, traffic rarer than the time-out would never
                    // bring the successes together.
                    if first {
                        *gives_up = now.saturating_add(timeout);
                    }
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
        // Others may have grown too slow before this one ended: they come first in the row, and may decide.
        if self.in_flight.overdue() > 0 || self.overdue_at().is_some() {
            self.sweep(now.get(), transitions);
            if admitted.generation != self.generation {
                return false;
            }
        }
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
            // ## HalfOpen => (HalfOpen | Open | Closed)
            if let Phase::HalfOpen { probes, .. } = &mut self.phase {
                // A circuit that opened on slowness must not close on it.
                probes.settle(failed.map(|failed| !failed && !slow), was_overdue);
            }
            self.judge(outcome, now, transitions);
        } else if let Some(failed) = failed {
            // ## Closed => (Closed | Open)
            let call = Call { failed: failed || (slow && self.limits.slow_is_failure()), slow };
            // A call that grew too slow was one failure in the row already, when it did.
            // And one that was given up without an answer is no success that could end the row.
            let known = was_overdue && self.limits.slow_is_failure();
            if !known && (call.failed || ending != Ending::Cancelled) {
                self.consecutive.record(call.failed);
            }
            if let Some(window) = &mut self.window {
                window.record(call, now);
            }
            self.judge(outcome, now, transitions);
        }
        true
    }

    /// Calls that have grown too slow count now, not when they end.
    fn sweep(&mut self, now: Instant, transitions: &mut Transitions) {
        let Some(threshold) = self.limits.slow_threshold else {
            return;
        };
        let found = self.in_flight.sweep(now, threshold);
        if found > 0 {
            if let Phase::HalfOpen { probes, .. } = &mut self.phase {
                probes.grew_too_slow(found);
            } else if self.limits.slow_is_failure() {
                self.consecutive.add(found);
            }
        }
        if self.in_flight.overdue() > 0 {
            self.judge(None, &mut now.into(), transitions);
        }
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
            Phase::HalfOpen { probes, .. } => match probes.verdict(&self.limits) {
                Some(true) => {
                    self.forget();
                    self.enter(Phase::Closed, None, transitions);
                }
                Some(false) => {
                    self.cycle = self.cycle.saturating_add(1);
                    self.open(Trip::ProbesFailed, outcome, now.get(), transitions);
                }
                None => {}
            },
            Phase::Open { .. } => {}
        }
    }

    fn tripped(&mut self, now: &mut Now) -> Option<Trip> {
        let run = self.consecutive.run();
        if self.limits.consecutive.is_some_and(|n| run >= n) {
            return Some(Trip::ConsecutiveFailures(run));
        }
        // Of good calls no rate opens anything: most calls need not know it.
        if self.in_flight.overdue() == 0 && self.window.as_ref()?.is_good() {
            return None;
        }
        let minimum = self.limits.minimum_calls;
        let reached = |part, calls, ppm: Option<u32>| {
            (calls >= minimum && ppm.is_some_and(|ppm| at_least(part, calls, ppm))).then(|| percent(part, calls))
        };
        let failures = self.tally_for_failures(now);
        if let Some(percent) = reached(failures.failed, failures.calls, self.limits.failure_ppm) {
            return Some(Trip::FailureRate(percent));
        }
        let all = self.tally(now);
        reached(all.slow, all.calls, self.limits.slow_ppm).map(Trip::SlowCallRate)
    }

    /// The window, with the calls that are overdue in flight: they will be in it when they end.
    fn tally(&mut self, now: &mut Now) -> Tally {
        let overdue = match self.phase {
            Phase::Closed if self.limits.slow_threshold.is_some() => self.in_flight.overdue(),
            _ => 0,
        };
        let Some(window) = &mut self.window else {
            return Tally::default();
        };
        let overdue = window.holds(overdue);
        let mut tally = window.tally(overdue, now);
        let failed = if self.limits.slow_is_failure() { overdue } else { 0 };
        tally.merge(Tally { calls: overdue, failed, slow: overdue });
        tally
    }

    /// The same for the failure rate: where slow calls are no failures, nobody knows yet whether those that are overdue will be.
    fn tally_for_failures(&mut self, now: &mut Now) -> Tally {
        match &mut self.window {
            Some(window) if !self.limits.slow_is_failure() => window.tally(0, now),
            _ => self.tally(now),
        }
    }

    /// ## (Closed | HalfOpen) => Open
    fn open(&mut self, trip: Trip, outcome: Option<Outcome>, since: Instant, transitions: &mut Transitions) {
        self.trip = Some(trip);
        let opening = Opening { cycle: self.cycle, trip, outcome };
        self.open_for = self.limits.open.length(&opening, None, self.seed ^ self.generation);
        let until = since.saturating_add(self.open_for);
        self.enter(Phase::Open { until }, Some(opening), transitions);
    }

    /// The user's function has answered, outside the lock, how long this opening lasts. Returns how long that is.
    pub(super) fn set_open_time(
        &mut self,
        generation: u64,
        opening: &Opening,
        asked: Duration,
        now: Instant,
    ) -> Duration {
        let open_for = self.limits.open.length(opening, Some(asked), self.seed ^ generation);
        if let Phase::Open { until } = &mut self.phase
            && generation == self.generation
        {
            *until = now.saturating_add(open_for);
            self.open_for = open_for;
        }
        open_for
    }

    fn half_open_timeout(&self) -> Duration {
        // However short the circuit was open, an answer takes its time.
        self.limits.half_open_timeout.unwrap_or(self.open_for.max(LEAST_TIMEOUT))
    }

    fn enter(&mut self, phase: Phase, opening: Option<Opening>, transitions: &mut Transitions) {
        let from = self.state();
        self.phase = phase;
        self.renew();
        self.left(from, opening, transitions);
    }

    /// Reports the state as new, if it is. Forced open has no time.
    fn left(&self, from: CircuitState, opening: Option<Opening>, transitions: &mut Transitions) {
        let (to, generation) = (self.state(), self.generation);
        if from != to {
            let open_for = opening.filter(|opening| opening.trip != Trip::Forced).map(|_| self.open_for);
            transitions.push(Transition { from, to, generation, opening, open_for });
        }
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
        self.window = self.limits.window.map(Counts::new);
    }

    /// When a caller that waits had better look again, because the passing of time alone may have changed the state.
    ///
    /// A call that begins to wait after it cannot be too slow before a whole threshold has passed, so nobody need be woken for that.
    pub(super) fn changes_at(&self, now: Instant) -> Option<Instant> {
        let gives_up = match self.phase {
            Phase::HalfOpen { gives_up, probes } if probes.out() > 0 => Some(gives_up),
            Phase::HalfOpen { .. } | Phase::Closed | Phase::Open { .. } => None,
        };
        let slow =
            self.limits.slow_threshold.filter(|_| self.is_timed()).map(|threshold| now.saturating_add(threshold));
        gives_up.into_iter().chain(self.overdue_at()).chain(slow).min()
    }

    /// Whether a new circuit would do as well: closed, and nobody's order on it.
    pub(super) const fn is_idle(&self) -> bool {
        matches!((self.mode, self.phase), (CircuitMode::Enforced, Phase::Closed))
    }

    /// Whether a new circuit would do nearly as well: its open time is over, and nobody's order on it.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        match self.phase {
            _ if self.mode != CircuitMode::Enforced => false,
            Phase::Open { until } => now >= until,
            Phase::HalfOpen { .. } | Phase::Closed => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuit_breaker::{CircuitBreakerSettings, Window};

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos((1 << 62) + seconds * 1_000_000_000)
    }

    /// tower_633, hyper_2746, moka_119, governor_299: no panic, no early half-open, no circuit that stays open for good.
    #[test]
    fn tower_633_a_clock_that_steps_back_an_hour_only_waits() {
        let settings = CircuitBreakerSettings::failure_rate(1.0)
            .window(Window::Time(10 * SECOND))
            .minimum_calls(1)
            .slow_calls(SECOND)
            .open_for(60 * SECOND);
        let mut machine = Machine::new(settings.check().unwrap(), 0);
        let mut transitions = Transitions::default();
        let (now, back) = (at(3_600), at(0));
        let pending = machine.wait(1, now);
        let call = Admitted { generation: 1, probe: false, pending: Some((now, pending)) };
        machine.tick(back, &mut transitions);
        assert!(transitions.is_empty(), "nothing is overdue");
        machine.settle(call, Ending::Answered(Outcome::TRANSIENT), &mut back.into(), &mut transitions);
        assert_eq!(machine.state(), CircuitState::Open);
        // Opened at the earlier reading; from then on time is what passes.
        for (seconds, state) in [(0, CircuitState::Open), (59, CircuitState::Open), (60, CircuitState::HalfOpen)] {
            machine.tick(at(seconds), &mut Transitions::default());
            assert_eq!(machine.state(), state, "{seconds}");
        }
        let probe = Admitted { generation: machine.generation(), probe: true, pending: None };
        assert_eq!(machine.admit(at(60)), Admission::Probe);
        machine.tick(back, &mut Transitions::default());
        assert_eq!(machine.state(), CircuitState::HalfOpen);
        machine.settle(probe, Ending::Answered(Outcome::Success), &mut back.into(), &mut Transitions::default());
        assert_eq!(machine.snapshot(back).probes_succeeded, 1);
    }
}
