//! What an operator does to a circuit, and what they see of it.

use super::*;

impl Machine {
    /// Changes who decides. Leaving a forced or disabled mode begins afresh; between enforced and shadow nothing is lost.
    pub(in crate::circuit_breaker) fn set_mode(&mut self, mode: CircuitMode, transitions: &mut Transitions) {
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
        self.trip = None;
        if mode.is_automatic() {
            self.forget();
        }
        self.renew();
        let opening = matches!(mode, CircuitMode::ForcedOpen).then(|| {
            self.trip = Some(Trip::Forced);
            Opening { cycle: self.cycle, trip: Trip::Forced, outcome: None }
        });
        self.left(from, opening, transitions);
    }

    /// Closed, enforced, and nothing counted.
    pub(in crate::circuit_breaker) fn reset(&mut self, transitions: &mut Transitions) {
        let from = self.state();
        self.mode = CircuitMode::Enforced;
        self.forget();
        self.phase = Phase::Closed;
        self.renew();
        self.left(from, None, transitions);
    }

    /// New limits for the same circuit: state, run and window stay, as far as the new window holds them.
    pub(in crate::circuit_breaker) fn set_limits(
        &mut self,
        limits: Limits,
        now: Instant,
        transitions: &mut Transitions,
    ) {
        self.window = match (self.window.take(), limits.window) {
            (Some(counts), Some(window)) => Some(counts.resized(window, now)),
            (None, window) => window.map(Counts::new),
            (_, None) => None,
        };
        self.limits = limits;
        // What has been counted may decide under the new limits, and no call may be left to ask.
        self.judge(None, &mut now.into(), transitions);
    }

    pub(in crate::circuit_breaker) fn snapshot(&mut self, now: Instant) -> CircuitBreakerSnapshot {
        let tally = self.tally(&mut now.into());
        let failures = self.tally_for_failures(&mut now.into());
        let (probes_in_flight, probes_succeeded) = match self.phase {
            Phase::HalfOpen { probes, .. } => (probes.out(), probes.succeeded()),
            Phase::Closed | Phase::Open { .. } => (0, 0),
        };
        CircuitBreakerSnapshot {
            state: self.state(),
            mode: self.mode,
            generation: self.generation,
            trip: self.trip,
            failed_cycles: self.cycle,
            calls: tally.calls,
            failed: failures.failed,
            slow: tally.slow,
            failure_rate: ratio(failures.failed, failures.calls),
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
