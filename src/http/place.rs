//! Where the attempts to send a body meet.
//!
//! The tape lies in the [`Place`] but for the length of one poll, whose attempt has it then. So the lock guards a move,
//! and never a poll, a waker or what a body drops.

use std::{mem, task::Waker};

use http_body::SizeHint;

use super::{
    replay_error::ReplayError,
    tape::{Tape, plus},
};
use crate::sync::Mutex;

pub(super) struct Place<B> {
    pub(super) limit: u64,
    state: Mutex<State<B>>,
}

struct State<B> {
    slot: Slot<B>,
    /// The attempt that began last. Every other one is over.
    latest: u64,
    /// Whether it still reads.
    reads: bool,
    /// Its own, while it waits: for the body, or for the tape.
    waker: Option<Waker>,
}

enum Slot<B> {
    Free(Tape<B>),
    /// It is being polled. The hint is that of the whole.
    Taken(SizeHint),
    Lost(ReplayError),
}

pub(super) enum Take<B> {
    Tape(Tape<B>),
    /// An earlier attempt is in the middle of a poll.
    Wait,
    Error(ReplayError),
}

impl<B> Place<B> {
    pub(super) fn new(limit: usize, tape: Tape<B>) -> Self {
        Self::with(limit, Slot::Free(tape))
    }

    pub(super) fn lost(limit: usize, why: ReplayError) -> Self {
        Self::with(limit, Slot::Lost(why))
    }

    fn with(limit: usize, slot: Slot<B>) -> Self {
        Self { limit: limit as u64, state: Mutex::new(State { slot, latest: 0, reads: false, waker: None }) }
    }

    /// The number of an attempt that begins, and the hint of the whole. It supersedes the earlier ones, which are
    /// woken to hear of it; only the original supersedes none that still reads, for it was meant to be sent first.
    pub(super) fn begin(&self, original: bool) -> Result<(u64, SizeHint), ReplayError> {
        let mut state = self.state.lock();
        let hint = match &state.slot {
            Slot::Free(tape) => tape.size_hint(),
            Slot::Taken(hint) => plus(0, hint),
            Slot::Lost(why) => return Err(*why),
        };
        if original && state.reads {
            return Err(ReplayError::Superseded);
        }
        state.latest += 1;
        state.reads = true;
        let (number, earlier) = (state.latest, state.waker.take());
        drop(state);
        wake(earlier);
        Ok((number, hint))
    }

    /// ## Free => Taken
    pub(super) fn take(&self, number: u64) -> Take<B> {
        let mut state = self.state.lock();
        if state.latest != number {
            return Take::Error(ReplayError::Superseded);
        }
        let (slot, take) = match mem::replace(&mut state.slot, Slot::Taken(SizeHint::default())) {
            Slot::Free(tape) => (Slot::Taken(tape.size_hint()), Take::Tape(tape)),
            Slot::Taken(hint) => (Slot::Taken(hint), Take::Wait),
            Slot::Lost(why) => (Slot::Lost(why), Take::Error(why)),
        };
        state.slot = slot;
        take
    }

    /// Whether there still is a tape to wait for.
    pub(super) fn wait(&self, number: u64, waker: Waker) -> bool {
        let mut state = self.state.lock();
        let waits = state.latest == number && matches!(state.slot, Slot::Taken(_));
        let unused = if waits { state.waker.replace(waker) } else { Some(waker) };
        drop(state);
        drop(unused);
        waits
    }

    /// ## Taken => Free
    ///
    /// The waker is for one that waits for the body. Whether this attempt is still the latest.
    pub(super) fn put_back(&self, number: u64, tape: Tape<B>, waker: Option<Waker>) -> bool {
        let mut state = self.state.lock();
        let is_latest = state.latest == number;
        let other = if is_latest { mem::replace(&mut state.waker, waker) } else { state.waker.take() };
        state.slot = Slot::Free(tape);
        drop(state);
        wake(other.filter(|_| !is_latest));
        is_latest
    }

    /// ## Taken => Lost
    pub(super) fn lose(&self, number: u64, why: ReplayError) {
        let mut state = self.state.lock();
        let is_latest = state.latest == number;
        let waker = state.waker.take();
        state.slot = Slot::Lost(why);
        drop(state);
        wake(waker.filter(|_| !is_latest));
    }

    /// ## Taken => Lost
    ///
    /// Unless a later attempt waits for the tape. Whether it is lost.
    pub(super) fn lose_if_latest(&self, number: u64, why: ReplayError) -> bool {
        let mut state = self.state.lock();
        let is_latest = state.latest == number;
        if is_latest {
            state.slot = Slot::Lost(why);
        }
        is_latest
    }

    /// Ends an attempt.
    pub(super) fn leave(&self, number: u64) {
        let mut state = self.state.lock();
        if state.latest == number {
            state.reads = false;
            let waker = state.waker.take();
            drop(state);
            drop(waker);
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(self.state.lock().slot, Slot::Lost(_))
    }

    /// Whether a copy would yield nothing. One that would yield an error does not: it must not pass for an empty body.
    pub(super) fn is_empty(&self) -> bool {
        match &self.state.lock().slot {
            Slot::Free(tape) => tape.is_empty(),
            Slot::Taken(_) | Slot::Lost(_) => false,
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match &self.state.lock().slot {
            Slot::Free(tape) => tape.size_hint(),
            Slot::Taken(hint) => plus(0, hint),
            Slot::Lost(_) => SizeHint::default(),
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
