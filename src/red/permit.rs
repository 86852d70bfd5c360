//! What a call holds while it is in flight.

use super::state::State;
use crate::{
    event::{self, Ending},
    outcome::Outcome,
    shared::Shared,
    time::{self, Instant},
};

/// A call in flight. Dropping it unsettled means that the call was cancelled.
#[must_use]
pub(super) struct Permit {
    state: Shared<State>,
    began: Instant,
    /// The place of its series, and in the lowest bit whether a recorder has noted its beginning; or [`SETTLED`].
    word: usize,
}

const SETTLED: usize = usize::MAX;

/// Settles a permit as an error, unless it is forgotten: a panic passes.
pub(super) struct OnUnwind<'a>(pub(super) &'a mut Permit);

impl Permit {
    /// A call begins, in the series of this place.
    #[inline]
    pub(super) fn begin(state: &Shared<State>, place: usize) -> Self {
        let (series, began) = (state.series(place), time::now());
        series.stripes.begin(began);
        let noted = series.meter.begin();
        Self { state: state.clone(), began, word: place << 1 | usize::from(noted) }
    }

    /// As [`settle`](Self::settle), for what is not the way of most calls.
    #[cold]
    #[inline(never)]
    pub(super) fn settle_apart(&mut self, outcome: Outcome) {
        self.settle(outcome);
    }

    /// The call has ended; a second time says nothing.
    #[inline(always)]
    pub(super) fn settle(&mut self, outcome: Outcome) {
        let on_the_spot = matches!(outcome, Outcome::Rejected { reason, .. } if !reason.reached_inner());
        self.end(Ending::of(outcome), on_the_spot);
    }

    #[inline(always)]
    fn end(&mut self, ending: Ending, on_the_spot: bool) {
        let word = std::mem::replace(&mut self.word, SETTLED);
        if word == SETTLED {
            return;
        }
        let took = time::now().as_nanos().saturating_sub(self.began.as_nanos());
        let series = self.state.series(word >> 1);
        event::note(ending);
        series.meter.end(word & 1 == 1, ending, Some(took));
        series.stripes.end(ending, (!on_the_spot).then_some(took));
    }

    #[cold]
    #[inline(never)]
    fn panicked(&mut self) {
        self.end(Ending::ERROR, false);
    }

    #[cold]
    #[inline(never)]
    fn cancel(&mut self) {
        self.end(Ending::CANCELLED, false);
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if self.word != SETTLED {
            self.cancel();
        }
    }
}

impl Drop for OnUnwind<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.panicked();
    }
}
