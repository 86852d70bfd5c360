//! What a deadline is while nobody has read it, and how it is in force.

use std::{
    cell::Cell,
    fmt, mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;

use crate::time::{self, Instant, Now};

/// An instant, or a length of time that becomes one when somebody reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    at: Instant,
    /// In nanoseconds from the first reading, or [`UNLIMITED`].
    within: u64,
}

const UNLIMITED: u64 = u64::MAX;

thread_local! {
    /// The span in force, for as long as the future that carries it is polled. Two cells, because most calls change but one of them.
    static AT: Cell<Instant> = const { Cell::new(Instant::NEVER) };
    static WITHIN: Cell<u64> = const { Cell::new(UNLIMITED) };
    /// The last reading that made an instant of a length: one serves all the spans that a poll goes through.
    static READ: Cell<Instant> = const { Cell::new(Instant::NEVER) };
}

/// Puts back what was in force, also when the inner future panics.
struct Restore(Span);

/// A span that is in force until this is dropped.
pub(crate) struct Entered {
    own: Span,
    outer: Restore,
}

pin_project! {
    /// A future with a deadline in force while it is polled: [`Deadline::scope`](super::Deadline::scope).
    #[must_use = "futures do nothing unless polled"]
    pub struct Scope<F> {
        #[pin]
        future: F,
        span: Span,
    }
}

// ===== impl Span =====

impl Span {
    pub(crate) const NONE: Self = Self { at: Instant::NEVER, within: UNLIMITED };

    pub(crate) const fn until(at: Instant) -> Self {
        Self { at, ..Self::NONE }
    }

    pub(crate) const fn within(limit: Duration) -> Self {
        Self::within_nanos(time::nanos(limit))
    }

    pub(crate) const fn within_nanos(within: u64) -> Self {
        Self { within, ..Self::NONE }
    }

    /// When it ends, if that is known.
    pub(crate) const fn at(&self) -> Instant {
        self.at
    }

    /// Polls with this span in force, within the one that is. A length becomes an instant if the poll is pending.
    #[inline]
    pub(crate) fn poll<T>(&mut self, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
        let entered = self.enter();
        let polled = poll();
        if polled.is_pending() {
            *self = entered.leave_pending();
        } else {
            entered.leave();
        }
        polled
    }

    /// For a poll with this span in force, within the one that is. Only what has to change is written: this stands on the path of every call.
    #[inline]
    pub(crate) fn enter(self) -> Entered {
        let outer = in_force();
        if self.at != Instant::NEVER {
            AT.set(outer.at.min(self.at));
        }
        WITHIN.set(outer.within.min(self.within));
        Entered { own: self, outer: Restore(outer) }
    }

    fn fix(&mut self, outer: &mut Self) {
        let now = if is_read() { READ.get() } else { time::now() };
        READ.set(now);
        for span in [self, outer] {
            if span.within != UNLIMITED {
                *span = span.read_at(now);
            }
        }
    }

    const fn and(self, other: Self) -> Self {
        let at = if other.at.as_nanos() < self.at.as_nanos() { other.at } else { self.at };
        let within = if other.within < self.within { other.within } else { self.within };
        Self { at, within }
    }

    const fn read_at(self, now: Instant) -> Self {
        let at = Instant::from_nanos(now.as_nanos().saturating_add(self.within));
        Self::until(self.at).and(Self::until(at))
    }
}

/// Whether what is in force was a length and has been read, in this very poll: it was no longer than those that it was made of.
#[inline]
fn is_read() -> bool {
    WITHIN.get() == UNLIMITED
}

#[inline]
fn in_force() -> Span {
    Span { at: AT.get(), within: WITHIN.get() }
}

#[inline]
fn put_in_force(span: Span) {
    AT.set(span.at);
    WITHIN.set(span.within);
}

impl Drop for Restore {
    #[inline]
    fn drop(&mut self) {
        put_in_force(self.0);
    }
}

// ===== impl Entered =====

impl Entered {
    /// The poll was ready.
    #[inline]
    pub(crate) fn leave(mut self) {
        if self.own.at == Instant::NEVER && !is_read() {
            // The instant in force has not been touched.
            WITHIN.set(self.outer.0.within);
            mem::forget(self.outer);
            return;
        }
        // Who comes later in the same poll of what is outside is to read the same instant.
        let outer = &mut self.outer.0;
        if outer.within != UNLIMITED && is_read() {
            *outer = outer.read_at(READ.get());
        }
    }

    /// The poll was pending: what the span is from now on.
    #[inline]
    pub(crate) fn leave_pending(mut self) -> Span {
        let outer = &mut self.outer.0;
        if self.own.within != UNLIMITED || (outer.within != UNLIMITED && is_read()) {
            self.own.fix(outer);
        }
        self.own
    }
}

/// The deadline in force, or [`Instant::NEVER`]. A length becomes an instant here, by a reading that the caller may have taken already.
#[inline]
pub(crate) fn current(now: &mut Now) -> Instant {
    let span = in_force();
    if span.within == UNLIMITED { span.at } else { read(span, now.get()) }
}

#[cold]
fn read(span: Span, now: Instant) -> Instant {
    let span = span.read_at(now);
    READ.set(now);
    put_in_force(span);
    span.at
}

/// When the poll that has just made an instant of a length did so.
pub(crate) fn last_reading() -> Instant {
    READ.get()
}

/// The deadline in force, if it is an instant already. Only what has waited can be late, and then it is one.
#[inline]
pub(crate) fn known() -> Instant {
    AT.get()
}

// ===== impl Scope =====

impl<F> Scope<F> {
    pub(crate) const fn new(span: Span, future: F) -> Self {
        Self { future, span }
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.span.poll(|| this.future.poll(cx))
    }
}

impl<F> fmt::Debug for Scope<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("span", &self.span).finish_non_exhaustive()
    }
}
