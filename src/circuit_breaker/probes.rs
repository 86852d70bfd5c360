//! The calls of a half-open period: how many may go, and what they prove.
//!
//! A period tries `max(probes, successes)` calls. Every place that is given out comes back exactly once, with a verdict or without.

use super::policy::Limits;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probes {
    /// Probes that are out, the overdue among them included.
    out: u32,
    /// Probes that are out and have failed already, because they are too slow.
    overdue: u32,
    succeeded: u32,
    failed: u32,
}

impl Probes {
    /// Gives a place out, if there is one.
    pub(super) const fn admit(&mut self, limits: &Limits) -> bool {
        // A probe that is overdue is both out and failed: it was one trial.
        let tried = self.succeeded.saturating_add(self.failed).saturating_add(self.out - self.overdue);
        let admits = self.out < limits.probes && tried < limits.trials();
        if admits {
            self.out += 1;
        }
        admits
    }

    /// Takes a place back. `verdict` is `None` when the call proved nothing.
    pub(super) const fn settle(&mut self, verdict: Option<bool>, was_overdue: bool) {
        self.out -= 1;
        match verdict {
            _ if was_overdue => self.overdue -= 1,
            None => {}
            Some(true) => self.succeeded = self.succeeded.saturating_add(1),
            Some(false) => self.failed = self.failed.saturating_add(1),
        }
    }

    /// So many probes have grown too slow: they have failed, and are still out.
    pub(super) fn grew_too_slow(&mut self, probes: u64) {
        // Nobody but probes is in flight in a half-open period.
        let probes = u32::try_from(probes).unwrap_or(u32::MAX).min(self.out - self.overdue);
        self.overdue += probes;
        self.failed = self.failed.saturating_add(probes);
    }

    /// Whether the dependency is well again, as soon as that is certain.
    pub(super) const fn verdict(&self, limits: &Limits) -> Option<bool> {
        if self.succeeded >= limits.successes {
            Some(true)
        } else if self.failed > limits.trials() - limits.successes {
            Some(false)
        } else {
            None
        }
    }

    pub(super) const fn out(&self) -> u32 {
        self.out
    }

    pub(super) const fn succeeded(&self) -> u32 {
        self.succeeded
    }
}
