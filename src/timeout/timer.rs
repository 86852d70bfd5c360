//! The time of one call, and its way back to what the layer shares. Nothing is read and no timer made before a poll is pending.

use std::{
    cell::Cell,
    mem::ManuallyDrop,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::state::Shared;
use crate::{
    address::{Address, Kept, Link},
    deadline::{self, Entered},
    error::Reason,
    time::{self, Alarm, Instant, Now},
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
pub(super) struct Armed(ManuallyDrop<Option<Pin<Box<Watch>>>>);

pin_project! {
    struct Watch {
        // Not set if the limit and the deadline are too far away.
        #[pin]
        alarm: Alarm,
        // The limit, which is an instant now: the deadline of what is inside.
        own: Instant,
        // Why the call is over when the time is.
        reason: Reason,
        // `None` in a spare box.
        shared: Option<Link<Shared>>,
        // In a spare box: those below it, and how many there are with it.
        below: Option<Pin<Box<Watch>>>,
        spares: u8,
    }
}

thread_local! {
    /// The boxes of the last calls, for the next.
    static SPARES: Cell<Option<Pin<Box<Watch>>>> = const { Cell::new(None) };
}

/// A thread keeps so many: of the calls that begin and end there in any order, most find one.
const MAX_SPARES: u8 = 16;

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
            Self::Armed(armed) => Own::Until(armed.watch().own),
        }
    }

    #[inline]
    pub(super) fn shared(&self) -> Link<Shared> {
        match self {
            Self::Unarmed(_, shared) => Link::Address(*shared),
            Self::UnarmedKept(_, shared) => Link::Kept(shared.clone()),
            Self::Armed(armed) => armed.watch().shared.clone().expect("only a spare box has none"),
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
        let mut watch = Watch::begin(own, reason, self.shared());
        let alarm = watch.as_mut().project().alarm;
        if until == Instant::NEVER {
            alarm.clear();
        } else if until <= now.get() {
            // A timer would come a tick late.
            return Poll::Ready(reason);
        } else {
            alarm.set(until, now.get());
        }
        *self = Self::Armed(Armed(ManuallyDrop::new(Some(watch))));
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
        armed.watch().reason == Reason::TimedOut && armed.watch().own <= time::now()
    }
}

// ===== impl Armed =====

impl Armed {
    #[inline]
    fn watch(&self) -> &Watch {
        self.0.as_ref().expect("it is there until the drop")
    }

    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        let watch = self.0.as_mut().expect("it is there until the drop").as_mut().project();
        watch.alarm.poll(cx).map(|()| *watch.reason)
    }
}

impl Drop for Armed {
    #[inline(never)]
    fn drop(&mut self) {
        if let Some(watch) = self.0.take() {
            Watch::end(watch);
        }
    }
}

// ===== impl Watch =====

impl Watch {
    #[inline]
    fn begin(own: Instant, reason: Reason, shared: Link<Shared>) -> Pin<Box<Self>> {
        let shared = Some(shared);
        let Ok(Some(mut spare)) = SPARES.try_with(Cell::take) else {
            return Box::pin(Self { alarm: Alarm::new(), own, reason, shared, below: None, spares: 0 });
        };
        let watch = spare.as_mut().project();
        *watch.own = own;
        *watch.reason = reason;
        *watch.shared = shared;
        let below = watch.below.take();
        if below.is_some() {
            SPARES.set(below);
        }
        spare
    }

    /// At the end of its thread there is no next call, and it goes with the closure.
    #[inline]
    fn end(mut ended: Pin<Box<Self>>) {
        let _ = SPARES.try_with(|spares| {
            let below = spares.take();
            let others = below.as_ref().map_or(0, |watch| watch.spares);
            if others == MAX_SPARES {
                spares.set(below);
                return;
            }
            let watch = ended.as_mut().project();
            watch.alarm.let_go();
            *watch.shared = None;
            *watch.below = below;
            *watch.spares = others + 1;
            spares.set(Some(ended));
        });
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
