//! A place in line, given up when it is dropped.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::line::{self, Gate, Joined, Patience, Settled};
use crate::time::{self, Instant};

pub(super) struct Ticket<G: Gate> {
    gate: Arc<G>,
    number: u64,
    cost: u64,
    since: Instant,
    is_told: bool,
}

/// How a call that comes is received.
pub(super) enum Received<G: Gate> {
    Granted(Instant),
    Waits(Ticket<G>),
    /// How long it would have to wait.
    Refused(u64),
}

impl<G: Gate> Ticket<G> {
    pub(super) fn draw(gate: &Arc<G>, now: Instant, cost: u64, patience: Patience, cx: &Context<'_>) -> Received<G> {
        match line::join(gate, now, cost, patience, cx.waker()) {
            Joined::Granted => Received::Granted(now),
            Joined::Waits(number) => {
                Received::Waits(Self { gate: Arc::clone(gate), number, cost, since: now, is_told: false })
            }
            Joined::Refused(wait) => Received::Refused(wait),
        }
    }

    /// Since when it has what it waited for, or how long it would have to wait more. Not to be polled again after that.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Instant, u64>> {
        let settled = ready!(line::poll(&self.gate, self.number, cx));
        self.is_told = true;
        Poll::Ready(match settled {
            Settled::Granted(at) => Ok(at),
            Settled::Refused(wait) => Err(wait),
        })
    }
}

impl<G: Gate> Drop for Ticket<G> {
    fn drop(&mut self) {
        self.gate.waited(self.since);
        if !self.is_told
            && let Some(taken_at) = line::leave(&self.gate, self.number)
        {
            give_back(&self.gate, self.cost, taken_at);
        }
    }
}

/// Gives back what was granted and not used; those in line move up.
pub(super) fn give_back<G: Gate>(gate: &Arc<G>, cost: u64, taken_at: Instant) {
    gate.give_back(time::now(), cost, taken_at);
    if !gate.line().is_empty() {
        line::turn(gate);
    }
}

impl<G: Gate> fmt::Debug for Ticket<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("number", &self.number).field("cost", &self.cost).finish_non_exhaustive()
    }
}
