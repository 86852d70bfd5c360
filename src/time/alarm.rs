//! [`Alarm`]: a timer that is set again and again.
//!
//! Each timer of tokio's goes under the lock of its runtime's timers twice, to be registered and to be taken out. One that is registered can be
//! put off without that. So an alarm that has been let go stays registered for a while, for whoever gets it next: most calls are over long before
//! their limit, and their timers never go off.
//!
//! For that while it keeps the waker of who waited last, and if nobody sets it again it wakes that one for nothing, once.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    runtime::{self, Handle},
    time::Sleep,
};

use super::{Instant, in_tokios_time, timer};

pin_project! {
    pub(crate) struct Alarm {
        // `None` where no time is to be had: outside a runtime, and in one whose time is not enabled.
        #[pin]
        sleep: Option<Sleep>,
        // Where it is registered: a runtime that is not driven wakes nobody.
        runtime: Option<runtime::Id>,
        // Whether it may stay registered when it is let go.
        stays: bool,
    }
}

/// What is set for longer does not stay registered, so that nobody's waker is kept for longer.
const STAYS: Duration = Duration::from_secs(60);

impl Alarm {
    pub(crate) const fn new() -> Self {
        Self { sleep: None, runtime: None, stays: false }
    }

    /// To go off at an instant after the present one.
    pub(crate) fn set(self: Pin<&mut Self>, at: Instant, now: Instant) {
        let mut this = self.project();
        let wait = at.saturating_since(now);
        *this.stays = wait <= STAYS;
        let runtime = Handle::try_current().ok().map(|runtime| runtime.id());
        let until = in_tokios_time(at, now);
        if let (Some(sleep), Some(until)) = (this.sleep.as_mut().as_pin_mut(), until) {
            // One that has gone off would have to be registered all the same; and a runtime that was shut down, whose number may be
            // another's now, has set off all that it had.
            if runtime.is_some() && *this.runtime == runtime && !sleep.is_elapsed() {
                sleep.reset(until);
                return;
            }
        }
        let sleep = || until.map_or_else(|| tokio::time::sleep(wait), tokio::time::sleep_until);
        this.sleep.set(runtime.and_then(|_| timer(sleep)));
        *this.runtime = runtime;
    }

    /// It is not wanted any longer.
    pub(crate) fn let_go(self: Pin<&mut Self>) {
        let mut this = self.project();
        if !*this.stays || this.sleep.as_ref().as_pin_ref().is_some_and(|sleep| sleep.is_elapsed()) {
            this.sleep.set(None);
        }
    }

    /// As one that was never set.
    pub(crate) fn clear(self: Pin<&mut Self>) {
        self.project().sleep.set(None);
    }

    /// Whether it has gone off.
    #[inline]
    pub(crate) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.project().sleep.as_pin_mut() {
            Some(sleep) => sleep.poll(cx),
            None => Poll::Pending,
        }
    }
}
