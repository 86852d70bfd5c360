//! The time of one call. Nothing is read and no timer made before a poll is pending.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::Sleep;

use crate::{
    deadline::{self, Span},
    error::Reason,
    time::{self, Instant, Now},
};

pub(super) struct Timer {
    /// The limit: the deadline of what is inside.
    own: Span,
    armed: Armed,
}

enum Armed {
    /// No poll was pending.
    Not,
    /// The limit and the deadline are too far away, or nobody could wake the caller.
    ForNothing,
    ForLimit(Pin<Box<Sleep>>),
    ForDeadline(Pin<Box<Sleep>>),
}

impl Timer {
    #[inline]
    pub(super) const fn new(limit: u64) -> Self {
        Self { own: Span::within_nanos(limit), armed: Armed::Not }
    }

    /// Whether the caller's deadline has passed before the call began: then it is not to begin at all.
    #[inline]
    pub(super) fn is_too_late(&self) -> bool {
        matches!(self.armed, Armed::Not) && deadline::known() != Instant::NEVER && has_passed()
    }

    /// Polls what is timed, with the limit as its deadline.
    #[inline]
    pub(super) fn poll<T>(&mut self, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
        self.own.poll(poll)
    }

    /// The answer is pending. Why it will not be waited for any longer, if it is not.
    #[inline(never)]
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        if let Armed::Not = self.armed
            && let Some(reason) = self.arm()
        {
            return Poll::Ready(reason);
        }
        match &mut self.armed {
            Armed::ForLimit(sleep) => sleep.as_mut().poll(cx).map(|()| Reason::TimedOut),
            Armed::ForDeadline(sleep) => sleep.as_mut().poll(cx).map(|()| Reason::DeadlineExceeded),
            Armed::Not | Armed::ForNothing => Poll::Pending,
        }
    }

    /// Why it is over at once, if it is: a timer would come a tick late.
    fn arm(&mut self) -> Option<Reason> {
        // A limit has just become an instant, by this reading.
        let mut now =
            if self.own.at() == Instant::NEVER { Now::when_asked() } else { Now::from(deadline::last_reading()) };
        let deadline = deadline::current(&mut now);
        let (until, reason) = if self.own.at() <= deadline {
            (self.own.at(), Reason::TimedOut)
        } else {
            (deadline, Reason::DeadlineExceeded)
        };
        if until == Instant::NEVER {
            self.armed = Armed::ForNothing;
            return None;
        }
        if until <= now.get() {
            return Some(reason);
        }
        self.armed = match (time::sleep_until(until, now.get()), reason) {
            (None, _) => Armed::ForNothing,
            (Some(sleep), Reason::TimedOut) => Armed::ForLimit(sleep),
            (Some(sleep), _) => Armed::ForDeadline(sleep),
        };
        None
    }

    /// Whether an error has come after the limit. What is inside obeys the limit as its deadline, and so may find it over before this timer does:
    /// to the outside that is a time-out all the same.
    pub(super) fn has_run_out(&self) -> bool {
        matches!(self.armed, Armed::ForLimit(_)) && self.own.at() <= time::now()
    }
}

#[cold]
fn has_passed() -> bool {
    deadline::known() <= time::now()
}
