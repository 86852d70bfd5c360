//! The time of one call, and its way back to what the layer shares. Nothing is read and no timer made before a poll is pending.

use std::{
    cell::Cell,
    mem::ManuallyDrop,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::state::Shared;
use crate::{
    address::{Address, Kept, Link},
    deadline::{self, Entered},
    error::Reason,
    time::{self, Instant, Now},
};

/// Each variant has one thing to drop at most, and the usual one has none: so the drop is small enough to be inlined.
pub(super) enum Timer {
    /// No poll was pending: the limit, in nanoseconds.
    Unarmed(u64, Address<Shared>),
    /// As well, where somebody listens.
    UnarmedKept(u64, Kept<Shared>),
    Armed(Armed),
}

pub(super) enum Own {
    Within(u64),
    Until(Instant),
}

/// A box that is there until the drop, which takes it. So there is nothing else to drop, and the compiler need not look for it on the way of every call.
pub(super) struct Armed(ManuallyDrop<Option<Pin<Box<Alarm>>>>);

pin_project! {
    struct Alarm {
        // `None` if the limit and the deadline are too far away, or nobody could wake the caller.
        #[pin]
        sleep: Option<Sleep>,
        // The limit, which is an instant now: the deadline of what is inside.
        own: Instant,
        // Why the call is over when the time is.
        reason: Reason,
        // `None` in a spare box.
        shared: Option<Link<Shared>>,
    }
}

thread_local! {
    /// The box of the last alarm, for the next: most calls that wait do so one after the other.
    static SPARE: Cell<Option<Pin<Box<Alarm>>>> = const { Cell::new(None) };
}

impl Timer {
    #[inline]
    pub(super) fn new(limit: u64, shared: Link<Shared>) -> Self {
        match shared {
            Link::Address(shared) => Self::Unarmed(limit, shared),
            Link::Kept(shared) => Self::UnarmedKept(limit, shared),
        }
    }

    /// The deadline of what is inside, as a length until a poll was pending.
    #[inline]
    pub(super) fn own(&self) -> Own {
        match self {
            Self::Unarmed(limit, _) | Self::UnarmedKept(limit, _) => Own::Within(*limit),
            Self::Armed(armed) => Own::Until(armed.alarm().own),
        }
    }

    #[inline]
    pub(super) fn shared(&self) -> Link<Shared> {
        match self {
            Self::Unarmed(_, shared) => Link::Address(*shared),
            Self::UnarmedKept(_, shared) => Link::Kept(shared.clone()),
            Self::Armed(armed) => armed.alarm().shared.clone().expect("only a spare box has none"),
        }
    }

    /// The first poll was pending, under this limit. Why the answer will not be waited for, if it is not.
    #[inline(never)]
    pub(super) fn arm(&mut self, limit: Entered, cx: &mut Context<'_>) -> Poll<Reason> {
        let own = limit.leave_pending().at();
        // A limit has just become an instant, by this reading.
        let mut now = if own == Instant::NEVER { Now::when_asked() } else { Now::from(deadline::last_reading()) };
        let deadline = deadline::current(&mut now);
        let (until, reason) =
            if own <= deadline { (own, Reason::TimedOut) } else { (deadline, Reason::DeadlineExceeded) };
        let armed = |sleep| Armed::new(sleep, own, reason, self.shared());
        let sleeping = if until == Instant::NEVER {
            None
        } else if until <= now.get() {
            // A timer would come a tick late.
            return Poll::Ready(reason);
        } else {
            time::with_sleep_until(until, now.get(), |sleep| armed(Some(sleep)))
        };
        *self = Self::Armed(sleeping.unwrap_or_else(|| armed(None)));
        self.poll_expired(cx)
    }

    /// The answer is pending. Why it will not be waited for any longer, if it is not.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        match self {
            Self::Armed(armed) => armed.poll(cx),
            Self::Unarmed(..) | Self::UnarmedKept(..) => Poll::Pending,
        }
    }

    /// Whether an error has come after the limit. What is inside obeys the limit as its deadline, and so may find it over before this timer does:
    /// to the outside that is a time-out all the same.
    pub(super) fn has_run_out(&self) -> bool {
        let Self::Armed(armed) = self else { return false };
        armed.alarm().reason == Reason::TimedOut && armed.alarm().own <= time::now()
    }
}

// ===== impl Armed =====

impl Armed {
    #[inline]
    fn new(sleep: Option<Sleep>, own: Instant, reason: Reason, shared: Link<Shared>) -> Self {
        let shared = Some(shared);
        let Ok(Some(mut spare)) = SPARE.try_with(Cell::take) else {
            return Self::in_box(Box::pin(Alarm { sleep, own, reason, shared }));
        };
        let mut alarm = spare.as_mut().project();
        // One by one, so that the timer is moved once.
        alarm.sleep.set(sleep);
        *alarm.own = own;
        *alarm.reason = reason;
        *alarm.shared = shared;
        Self::in_box(spare)
    }

    const fn in_box(alarm: Pin<Box<Alarm>>) -> Self {
        Self(ManuallyDrop::new(Some(alarm)))
    }

    #[inline]
    fn alarm(&self) -> &Alarm {
        self.0.as_ref().expect("it is there until the drop")
    }

    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        let alarm = self.0.as_mut().expect("it is there until the drop").as_mut().project();
        match alarm.sleep.as_pin_mut() {
            Some(sleep) => sleep.poll(cx).map(|()| *alarm.reason),
            None => Poll::Pending,
        }
    }
}

impl Drop for Armed {
    #[inline(never)]
    fn drop(&mut self) {
        let Some(mut spare) = self.0.take() else { return };
        let mut alarm = spare.as_mut().project();
        alarm.sleep.set(None);
        *alarm.shared = None;
        // At the end of its thread there is no next.
        let _ = SPARE.try_with(|next| next.set(Some(spare)));
    }
}

/// Whether the caller's deadline has passed before the call began: then it is not to begin at all.
#[inline]
pub(super) fn is_too_late() -> bool {
    deadline::known() != Instant::NEVER && has_passed()
}

#[cold]
fn has_passed() -> bool {
    deadline::known() <= time::now()
}
