//! What clones share, and the course of a call that has failed once.

use std::{sync::Arc, task::Poll, time::Duration};

use super::decision::Plan;
use crate::{
    address::{Home, Link},
    budget::{Budget, Cost, Withdrawal},
    deadline::{self, Span},
    event::{EventKind, Events, GaveUp, Pattern},
    outcome::Outcome,
    time::{self, Instant, Now},
};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) events: Arc<Events>,
    pub(super) budget: Option<Budget>,
}

impl Shared {
    pub(super) fn new(name: &'static str, budget: Option<Budget>) -> Self {
        Self { events: Arc::new(Events::named(Pattern::Retry, name)), budget }
    }

    /// What a call has left that outlives its layer, its services and its handles, and had no listeners: recorders, but no budget.
    fn orphan(name: &'static str) -> Self {
        Self::new(name, None)
    }

    /// What a call takes along.
    #[inline]
    pub(super) fn link(home: &Home<Self>) -> Link<Self> {
        home.link(home.events.has_listeners())
    }
}

/// What decides about each call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<C, R, K> {
    pub(super) classify: C,
    pub(super) resend: R,
    pub(super) cost: K,
}

/// A call's time and its attempts.
pub(super) struct Course {
    plan: Plan,
    shared: Link<Shared>,
    /// When the call was first pending, or first failed; `NEVER` before that.
    began: Instant,
    /// Boxed, because most calls never fail.
    failed: Option<Box<Failed>>,
}

struct Failed {
    attempts: u32,
    /// The price of the next attempt, until it begins: dropping it gives it back.
    withdrawal: Option<Withdrawal>,
}

/// What the budget and the request have to say about another attempt. Asked in this order, and only when it comes to that.
pub(super) struct Asks<D, R, K> {
    pub(super) can_resend: R,
    pub(super) delay: D,
    pub(super) cost: K,
}

impl Course {
    #[inline]
    pub(super) const fn new(plan: Plan, shared: Link<Shared>) -> Self {
        Self { plan, shared, began: Instant::NEVER, failed: None }
    }

    #[inline]
    pub(super) const fn has_limit(&self) -> bool {
        self.plan.within != u64::MAX
    }

    /// Polls with the total time, if there is one, as the deadline.
    pub(super) fn poll<T>(&mut self, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
        if !self.has_limit() {
            return poll();
        }
        if self.began != Instant::NEVER {
            return Span::until(self.ends()).poll(poll);
        }
        let polled = Span::within_nanos(self.plan.within).poll(poll);
        if polled.is_pending() {
            self.began = deadline::last_reading();
        }
        polled
    }

    /// The end of the total time, once it has begun.
    fn ends(&self) -> Instant {
        self.began.saturating_add(Duration::from_nanos(self.plan.within))
    }

    /// Whether the call has never failed.
    #[inline]
    pub(super) const fn is_fresh(&self) -> bool {
        self.failed.is_none()
    }

    #[inline]
    pub(super) fn pending(&mut self) {
        if self.began == Instant::NEVER {
            self.began = begin();
        }
    }

    /// Whether there may be an attempt after the next one.
    pub(super) fn goes_on(&self) -> bool {
        self.attempts() + 1 < self.plan.attempts
    }

    /// Another attempt begins: its price is paid. Answers its number.
    pub(super) fn begin_attempt(&mut self) -> u32 {
        match &mut self.failed {
            None => 1,
            Some(failed) => {
                if let Some(withdrawal) = failed.withdrawal.take() {
                    withdrawal.spend();
                }
                failed.attempts += 1;
                failed.attempts
            }
        }
    }

    fn attempts(&self) -> u32 {
        self.failed.as_ref().map_or(1, |failed| failed.attempts)
    }

    /// An attempt has ended like this: how long to wait for the next one, or `None` if it was the last.
    #[cold]
    #[inline(never)]
    pub(super) fn end_attempt(
        &mut self,
        outcome: Outcome,
        asks: Asks<impl FnOnce() -> Option<Duration>, impl FnOnce() -> bool, impl FnOnce() -> Cost>,
    ) -> Option<Duration> {
        let mut now = Now::when_asked();
        let decided = match self.plan.wants(outcome) {
            None => Err(None),
            Some(_) if self.plan.attempts == 1 => Err(None),
            Some(wait) => self.decide(wait, asks, &mut now).map_err(Some),
        };
        let attempts = self.attempts();
        // Nothing to tell, and so nobody to look for: a call that was never worth a retry.
        if attempts == 1 && matches!(decided, Err(None)) {
            return None;
        }
        let shared = self.shared.find().unwrap_or_else(|| Arc::new(Shared::orphan(self.plan.name)));
        let events = &shared.events;
        match decided {
            Ok((delay, withdrawal)) => {
                self.failed.get_or_insert_with(|| Box::new(Failed { attempts, withdrawal: None })).withdrawal =
                    withdrawal;
                events.emit(|| EventKind::Retry { attempt: attempts, outcome, delay });
                Some(delay)
            }
            Err(gave_up) => {
                events.emit(|| {
                    let elapsed = now.get().saturating_since(self.began);
                    EventKind::Retried { attempts, outcome, elapsed, gave_up }
                });
                None
            }
        }
    }

    fn decide(
        &mut self,
        wait: Duration,
        asks: Asks<impl FnOnce() -> Option<Duration>, impl FnOnce() -> bool, impl FnOnce() -> Cost>,
        now: &mut Now,
    ) -> Result<(Duration, Option<Withdrawal>), GaveUp> {
        if self.attempts() >= self.plan.attempts {
            return Err(GaveUp::Attempts);
        }
        if !(asks.can_resend)() {
            return Err(GaveUp::Request);
        }
        // On top of what the failure asked for, so that those who were told the same do not come back together.
        let delay = wait.saturating_add((asks.delay)().ok_or(GaveUp::Delays)?);
        // A timer of nothing is over when it is first polled. Whoever retries at once lets others have a turn in between.
        let delay = delay.max(Duration::from_nanos(1));
        if self.began == Instant::NEVER {
            self.began = now.get();
        }
        Plan::fits(delay, now.get(), self.ends(), deadline::current(now))?;
        let withdrawal = match self.shared.find().and_then(budget) {
            None => None,
            Some(budget) => Some(budget.withdraw((asks.cost)()).ok_or(GaveUp::Budget)?),
        };
        Ok((delay, withdrawal))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what an address finds is a reference of its own")]
fn budget(shared: Arc<Shared>) -> Option<Budget> {
    shared.budget.clone()
}

#[cold]
#[inline(never)]
fn begin() -> Instant {
    time::now()
}
