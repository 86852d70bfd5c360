//! What has been read of a body, and what has not.
//!
//! A [`Tape`] lies in the [`Shared`] place until somebody reads, who then owns it. So the lock guards a move and never
//! a poll.

use std::mem;

use bytes::Bytes;
use http::HeaderMap;
use http_body::SizeHint;

use super::replay_error::ReplayError;
use crate::sync::Mutex;

pub(super) struct Tape<B> {
    pub(super) kept: Vec<Kept>,
    /// Of data, in `kept`.
    pub(super) bytes: u64,
    /// `None` once it is over.
    pub(super) rest: Option<B>,
    /// Of the whole: what is kept and the rest.
    pub(super) hint: SizeHint,
}

#[derive(Clone)]
pub(super) enum Kept {
    Data(Bytes),
    // Boxed because there is one among many.
    Trailers(Box<HeaderMap>),
}

/// Where the copies of a body meet.
pub(super) struct Shared<B> {
    pub(super) limit: u64,
    place: Mutex<Place<B>>,
}

enum Place<B> {
    Free(Tape<B>),
    /// Somebody reads. The hint is that of the whole.
    Taken(SizeHint),
    Lost(ReplayError),
}

// ===== impl Tape =====

impl<B> Tape<B> {
    pub(super) const fn new(body: B, hint: SizeHint) -> Self {
        Self { kept: Vec::new(), bytes: 0, rest: Some(body), hint }
    }
}

// ===== impl Shared =====

impl<B> Shared<B> {
    pub(super) fn new(limit: usize, tape: Tape<B>) -> Self {
        Self { limit: limit as u64, place: Mutex::new(Place::Free(tape)) }
    }

    pub(super) fn lost(limit: usize, why: ReplayError) -> Self {
        Self { limit: limit as u64, place: Mutex::new(Place::Lost(why)) }
    }

    /// ## Free => Taken
    pub(super) fn take(&self) -> Result<Tape<B>, ReplayError> {
        let mut place = self.place.lock();
        let (now, taken) = match mem::replace(&mut *place, Place::Taken(SizeHint::default())) {
            Place::Free(tape) => (Place::Taken(plus(0, &tape.hint)), Ok(tape)),
            Place::Taken(hint) => (Place::Taken(hint), Err(ReplayError::Busy)),
            Place::Lost(why) => (Place::Lost(why), Err(why)),
        };
        *place = now;
        taken
    }

    /// ## Taken => Free
    pub(super) fn give_back(&self, tape: Tape<B>) {
        *self.place.lock() = Place::Free(tape);
    }

    /// ## Taken => Lost
    pub(super) fn lose(&self, why: ReplayError) {
        *self.place.lock() = Place::Lost(why);
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(*self.place.lock(), Place::Lost(_))
    }

    /// Whether a copy would yield nothing. One that would yield an error does not: it must not pass for an empty body.
    pub(super) fn is_empty(&self) -> bool {
        match &*self.place.lock() {
            Place::Free(tape) => tape.kept.is_empty() && tape.rest.is_none(),
            Place::Taken(_) | Place::Lost(_) => false,
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match &*self.place.lock() {
            Place::Free(Tape { hint, .. }) | Place::Taken(hint) => plus(0, hint),
            Place::Lost(_) => SizeHint::default(),
        }
    }
}

// Also where a copy would do: `SizeHint` is not `Copy` before http-body 1.1.
pub(super) fn plus(bytes: u64, rest: &SizeHint) -> SizeHint {
    let mut sum = SizeHint::new();
    sum.set_lower(rest.lower().saturating_add(bytes));
    if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(bytes)) {
        sum.set_upper(upper);
    }
    sum
}
