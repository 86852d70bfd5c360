//! Admission, and the permit that a call holds while it counts.

use std::mem::{self, ManuallyDrop};

use super::{
    in_flight::Slot,
    place::Place,
    snapshot::CircuitMode,
    state::Circuit,
    step::{Admission, Ending},
    word::{GENERATION, PROBE, QUIET, Refusal, Refused, TIMED},
};
use crate::{event::EventKind, outcome::Outcome, time};

/// A call's place in a circuit: how it ends is what the circuit counts. Dropping it unsettled means that the call was cancelled.
///
/// It does not keep the circuit: once its layer, services and handles are gone, so is the circuit, and nothing is left to count for.
#[must_use]
pub(super) struct Permit {
    place: &'static Place,
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
    Refused(Refusal),
}

/// What the circuit answers when it is not simply closed.
enum Answer {
    Counted {
        word: u64,
    },
    Probe(Permit),
    Refused(Refusal),
    /// In shadow mode: to be reported, and let through.
    Shadowed {
        refusal: Refusal,
        word: u64,
    },
}

/// Settles a permit as panicked, unless it is forgotten.
pub(super) struct OnUnwind<'a>(pub(super) &'a mut Permit);

/// A permit while its call is made, which a panic settles.
pub(super) struct Calling(pub(super) Permit);

// ===== impl Circuit =====

impl Circuit {
    /// Whether the circuit is simply closed.
    #[inline]
    pub(super) fn is_passing(&self) -> bool {
        self.place.is_passing(self.place.word())
    }

    /// The word of a circuit that is simply closed.
    #[inline]
    pub(super) fn pass(&self) -> Option<u64> {
        let word = self.place.word();
        self.place.is_passing(word).then_some(word)
    }

    /// Answers for `poll_ready`, where a probe takes its place and nobody else does.
    pub(super) fn gate(&self) -> Gate {
        match self.answer() {
            Answer::Probe(permit) => Gate::Probe(permit),
            Answer::Refused(refusal) => Gate::Refused(refusal),
            // The permit is made, and the refusal that is none reported, with the call.
            Answer::Counted { word } | Answer::Shadowed { word, .. } => Gate::Pass { word },
        }
    }

    /// Answers for `call`.
    #[inline]
    pub(super) fn admit(&self) -> Result<Permit, Refusal> {
        match self.pass() {
            Some(word) => Ok(self.permit(word)),
            None => self.admit_by_answer(),
        }
    }

    fn admit_by_answer(&self) -> Result<Permit, Refusal> {
        match self.answer() {
            Answer::Probe(permit) => Ok(permit),
            Answer::Counted { word } => Ok(self.permit(word)),
            Answer::Refused(refusal) => Err(refusal),
            Answer::Shadowed { refusal, .. } => {
                self.report(refusal, true);
                Ok(self.uncounted())
            }
        }
    }

    /// Delivers a refusal, and reports it.
    #[inline]
    pub(super) fn refuse(&self, refusal: Refusal) -> Refused {
        let events = self.events();
        if events.is_heard() {
            self.report(refusal, false);
        }
        refusal.by(events.name())
    }

    #[cold]
    #[inline(never)]
    fn report(&self, refusal: Refusal, shadow: bool) {
        let rejected = refusal.by(self.events().name()).rejected();
        self.events().emit(|| EventKind::Rejected { rejected: &rejected, shadow });
    }

    /// A permit that counts nowhere.
    pub(super) fn uncounted(&self) -> Permit {
        self.permit(0)
    }

    /// The permit of a call that was let through under this word.
    #[inline]
    pub(super) fn permit(&self, word: u64) -> Permit {
        Permit { place: self.place, word, started: 0, slot: None }
    }

    #[inline]
    fn answer(&self) -> Answer {
        let word = self.place.word();
        if self.place.is_passing(word) {
            return Answer::Counted { word };
        }
        match self.place.refusal(word) {
            Some(refusal) => Answer::Refused(refusal),
            None => self.ask(),
        }
    }

    /// Asks the machine itself.
    #[cold]
    #[inline(never)]
    fn ask(&self) -> Answer {
        let now = time::now();
        let ((admission, shadow), word) = self.place.step_to_word(|machine, transitions| {
            machine.tick(now, transitions);
            (machine.admit(now), machine.mode() == CircuitMode::Shadow)
        });
        match admission {
            Admission::Counted => Answer::Counted { word },
            Admission::Probe => Answer::Probe(self.permit(word | PROBE)),
            Admission::Refused { retry_at } => {
                let refusal = self.place.refusal_until(retry_at.map(|at| at.saturating_since(now)));
                if shadow { Answer::Shadowed { refusal, word } } else { Answer::Refused(refusal) }
            }
        }
    }
}

// ===== impl Permit =====

impl Permit {
    /// Whether the call would still count, or never did.
    pub(super) fn is_current(&self) -> bool {
        self.word == 0 || self.place.word() >> GENERATION == self.word >> GENERATION
    }

    /// Whether the call may still go: it counts, or it never did and the circuit stands as it did before the call was let through.
    pub(super) fn is_good_under(&self, word: u64, circuit: &Circuit) -> bool {
        let same_but_for_counts = |other: u64| (other ^ word) & !(QUIET | TIMED) == 0;
        self.is_current() && (self.word != 0 || same_but_for_counts(circuit.place.word()))
    }

    /// Moves the place on: what is left here counts nowhere.
    pub(super) const fn take(&mut self) -> Self {
        Self { place: self.place, word: mem::replace(&mut self.word, 0), started: self.started, slot: self.slot }
    }

    /// The place is given back unused. That is no end of a call, and nothing to report.
    pub(super) fn give_back(mut self) {
        if self.is_current() {
            self.settle(Ending::Answered(Outcome::Ignored));
        }
        self.word = 0;
    }

    /// The call is pending: from here on its time runs, if anybody asks. Later polls change nothing.
    #[inline]
    pub(super) fn pending(&mut self) {
        if self.word & TIMED != 0 && self.started == 0 {
            (self.started, self.slot) = self.place.wait(self.word);
        }
    }

    #[inline]
    pub(super) fn settle(&mut self, ending: Ending) {
        let word = mem::take(&mut self.word);
        let changes_nothing = word & QUIET != 0
            && self.started == 0
            && matches!(ending, Ending::Answered(Outcome::Success | Outcome::Permanent))
            // Calls that have grown too slow meanwhile come before this one.
            && self.place.word() == word
            && self.place.is_passing(word);
        if !changes_nothing && word != 0 {
            self.place.settle(word, self.started, self.slot, ending);
        }
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if self.word != 0 {
            self.place.settle(self.word, self.started, self.slot, Ending::Cancelled);
        }
    }
}

impl Calling {
    /// The call is made.
    #[inline]
    pub(super) fn end(self) -> Permit {
        ManuallyDrop::new(self).0.take()
    }

    /// The call is made, and its permit put together anew: what a panic would look at lies in memory, and need not be read back from there.
    #[inline]
    pub(super) fn end_anew(self, circuit: &Circuit, word: u64) -> Permit {
        mem::forget(self);
        circuit.permit(word)
    }
}

impl Drop for Calling {
    #[cold]
    fn drop(&mut self) {
        self.0.settle(Ending::Panicked);
    }
}

impl Drop for OnUnwind<'_> {
    fn drop(&mut self) {
        self.0.settle(Ending::Panicked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        circuit_breaker::CircuitBreakerSettings,
        event::{CircuitState, Events, Pattern},
    };
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    fn circuit(events: &Arc<Events>) -> Circuit {
        let limits = CircuitBreakerSettings::consecutive_failures(1).check().unwrap();
        Circuit::new(limits, Arc::clone(events))
    }

    #[test]
    fn a_permit_of_a_circuit_that_is_gone_changes_nothing_for_the_next_in_its_place() {
        let told = Arc::new(AtomicUsize::new(0));
        let events = Arc::new(Events::named(Pattern::CircuitBreaker, "next"));
        events.listen({
            let told = Arc::clone(&told);
            move |_| {
                told.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Other tests let places too, so the next circuit may find another one.
        for _ in 0..1_000 {
            let first = circuit(&events);
            let (mut late, never) = (first.admit().ok().unwrap(), first.admit().ok().unwrap());
            let place = first.place;
            drop(first);
            let next = circuit(&events);
            if std::ptr::eq(place, next.place) {
                late.settle(Ending::Answered(Outcome::TRANSIENT));
                drop(never);
                assert_eq!(next.state(), CircuitState::Closed);
                assert_eq!((next.snapshot().generation, next.snapshot().consecutive_failures), (1, 0));
                assert_eq!(told.load(Ordering::Relaxed), 0);
                return;
            }
        }
        panic!("a place is never let again");
    }
}
