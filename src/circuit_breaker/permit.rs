//! Admission, and the permit that a call holds while it counts.

use std::{fmt, mem};

use super::{
    in_flight::Slot,
    snapshot::CircuitMode,
    state::Circuit,
    step::{Admission, Admitted, Ending},
    word::{self, GENERATION, PROBE, QUIET, TIMED},
};
use crate::{
    error::Rejected,
    event::EventKind,
    outcome::Outcome,
    time::{self, Instant},
};

/// A call's place in a circuit: how it ends is what the circuit counts.
///
/// Dropping it unsettled means that the call was cancelled.
#[must_use = "dropping a permit means that the call was cancelled"]
pub struct Permit {
    circuit: Circuit,
    /// The circuit's word when the call was admitted, or 0 when it no longer counts.
    word: u64,
    /// When the call began to wait, in nanoseconds, or 0 when it has not or nobody asks.
    started: u64,
    slot: Option<Slot>,
}

/// What the gate answers.
pub(super) enum Gate {
    /// The call gets its permit when it is made, unless the word has changed by then.
    Pass {
        word: u64,
    },
    /// The call has a probe's place already.
    Probe(Permit),
    Refused(Rejected),
}

/// What the circuit answers when it is not simply closed.
enum Answer {
    Counted {
        word: u64,
    },
    Probe(Permit),
    Refused(Rejected),
    /// In shadow mode: to be reported, and let through.
    Shadowed {
        rejected: Rejected,
        word: u64,
    },
}

/// Settles a permit as panicked, unless it is forgotten.
pub(super) struct OnUnwind<'a>(pub(super) &'a mut Permit);

// ===== impl Circuit =====

impl Circuit {
    /// Answers for `poll_ready`, where a probe takes its place and nobody else does.
    #[inline]
    pub(super) fn gate(&self) -> Gate {
        let word = self.word();
        if self.is_passing(word) {
            return Gate::Pass { word };
        }
        match self.not_passing(word) {
            Answer::Probe(permit) => Gate::Probe(permit),
            Answer::Refused(rejected) => Gate::Refused(rejected),
            // The permit is made, and the refusal that is none reported, with the call.
            Answer::Counted { word } | Answer::Shadowed { word, .. } => Gate::Pass { word },
        }
    }

    /// Answers for `call`.
    #[inline]
    pub(super) fn admit(&self) -> Result<Permit, Rejected> {
        let word = self.word();
        if self.is_passing(word) {
            return Ok(self.permit(word));
        }
        match self.not_passing(word) {
            Answer::Probe(permit) => Ok(permit),
            Answer::Counted { word } => Ok(self.permit(word)),
            Answer::Refused(rejected) => Err(rejected),
            Answer::Shadowed { rejected, .. } => {
                self.events().emit(|| EventKind::Rejected { rejected: &rejected, shadow: true });
                Ok(self.uncounted())
            }
        }
    }

    /// Reports a refusal that is being delivered.
    #[inline]
    pub(super) fn report(&self, rejected: &Rejected) {
        self.events().emit(|| EventKind::Rejected { rejected, shadow: false });
    }

    /// A permit that counts nowhere.
    pub(super) fn uncounted(&self) -> Permit {
        self.permit(0)
    }

    #[inline]
    fn permit(&self, word: u64) -> Permit {
        Permit { circuit: self.clone(), word, started: 0, slot: None }
    }

    #[inline]
    fn not_passing(&self, word: u64) -> Answer {
        match self.refuses(word) {
            Some(rejected) => Answer::Refused(rejected),
            None => self.ask(),
        }
    }

    /// Asks the machine itself.
    #[cold]
    #[inline(never)]
    fn ask(&self) -> Answer {
        let now = time::now();
        let (admission, word, shadow) = self.step(|machine, transitions| {
            machine.tick(now, transitions);
            let admission = machine.admit();
            (admission, word::of(machine), machine.mode() == CircuitMode::Shadow)
        });
        match admission {
            Admission::Counted => Answer::Counted { word },
            Admission::Probe => Answer::Probe(self.permit(word | PROBE)),
            Admission::Refused { retry_at } => {
                let rejected = self.refusal(retry_at.map(|at| at.saturating_since(now)));
                if shadow { Answer::Shadowed { rejected, word } } else { Answer::Refused(rejected) }
            }
        }
    }
}

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
        self.settle(Ending::Answered(outcome));
    }

    /// Whether the call would still count.
    pub(super) fn is_current(&self) -> bool {
        self.circuit.word() >> GENERATION == self.word >> GENERATION
    }

    /// The call is pending: from here on its time runs, if anybody asks. Later polls change nothing.
    #[inline]
    pub(super) fn pending(&mut self) {
        if self.word & TIMED != 0 && self.started == 0 {
            self.start();
        }
    }

    #[cold]
    #[inline(never)]
    fn start(&mut self) {
        let now = time::now();
        self.started = now.as_nanos();
        let generation = self.word >> GENERATION;
        self.slot = self.circuit.step(|machine, _| machine.wait(generation, now));
    }

    #[inline]
    pub(super) fn settle(&mut self, ending: Ending) {
        let word = mem::take(&mut self.word);
        let changes_nothing = word & QUIET != 0
            && self.started == 0
            && matches!(ending, Ending::Answered(Outcome::Success | Outcome::Permanent))
            && self.circuit.word() == word;
        if word != 0 && !changes_nothing {
            self.settle_with(word, ending);
        }
    }

    #[inline(never)]
    fn settle_with(&self, word: u64, ending: Ending) {
        let admitted = Admitted {
            generation: word >> GENERATION,
            probe: word & PROBE != 0,
            pending: (self.started != 0).then(|| (Instant::from_nanos(self.started), self.slot)),
        };
        self.circuit.settle(admitted, ending);
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if self.word != 0 {
            self.settle(Ending::Cancelled);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("circuit", &self.circuit)
            .field("generation", &(self.word >> GENERATION))
            .field("probe", &(self.word & PROBE != 0))
            .finish_non_exhaustive()
    }
}

impl Drop for OnUnwind<'_> {
    fn drop(&mut self) {
        self.0.settle(Ending::Panicked);
    }
}
