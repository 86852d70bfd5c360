//! The course of one call: its time, its attempts, and what the next one costs.

use std::{pin::Pin, task::Poll, time::Duration};

use tokio::time::Sleep;

use super::{backoff::Backoff, decision::Plan, recipe::Checked, state::Shared};
use crate::{
    address::Link,
    budget::{BudgetAddress, Cost, Withdrawal},
    deadline::{self, Span},
    event::{EventKind, Events, GaveUp, Pattern},
    outcome::Outcome,
    time::{self, Instant, Now},
};

/// A call's time and its attempts.
pub(super) struct Course<I, B> {
    /// `None` when they are in what is shared, which is kept then.
    settings: Option<&'static Checked>,
    shared: Link<Shared>,
    budget: Option<BudgetAddress>,
    /// When the call was first pending, or first failed; `NEVER` before that.
    began: Instant,
    /// Boxed, because most calls never fail: all that only those need which do.
    failed: Option<Box<Failed<I, B>>>,
}

struct Failed<I, B> {
    /// What the future keeps between two attempts.
    between: Option<B>,
    delays: I,
    attempts: u32,
    /// How the last attempt ended.
    outcome: Outcome,
    /// When all time is over, and whose time that is.
    end: (Instant, GaveUp),
    /// The price of the next attempt, until it begins: dropping it gives it back.
    withdrawal: Option<Withdrawal>,
}

/// A further attempt.
struct Next {
    sleep: Pin<Box<Sleep>>,
    delay: Duration,
    end: (Instant, GaveUp),
    withdrawal: Option<Withdrawal>,
}

/// What the budget and the request have to say about another attempt. Asked in this order, and only when it comes to that.
pub(super) struct Asks<D, R, K> {
    pub(super) can_resend: R,
    /// Only the first time.
    pub(super) delays: D,
    pub(super) cost: K,
}

impl<I: Iterator<Item = Duration>, B> Course<I, B> {
    #[inline]
    pub(super) const fn new(
        settings: Option<&'static Checked>,
        shared: Link<Shared>,
        budget: Option<BudgetAddress>,
    ) -> Self {
        Self { settings, shared, budget, began: Instant::NEVER, failed: None }
    }

    /// The budget's number, for what retries inside on the same one.
    #[inline]
    pub(super) fn budget_id(&self) -> Option<u64> {
        self.budget.map(BudgetAddress::id)
    }

    /// Looks at the settings, wherever they are.
    fn settings<T>(&self, look: impl FnOnce(&Checked) -> T) -> T {
        match (self.settings, self.shared.find()) {
            (Some(settings), _) => look(settings),
            (None, Some(shared)) => look(&shared.checked),
            (None, None) => unreachable!("a call keeps what is shared if it has no settings of its own"),
        }
    }

    fn plan(&self) -> Plan {
        match self.settings {
            Some(settings) => settings.plan,
            None => self.settings(|settings| settings.plan),
        }
    }

    /// Polls with the total time, if there is one, as the deadline.
    pub(super) fn poll<T>(&mut self, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
        if self.plan().within == u64::MAX {
            return poll();
        }
        if self.began != Instant::NEVER {
            return Span::until(self.ends()).poll(poll);
        }
        let polled = Span::within_nanos(self.plan().within).poll(poll);
        if polled.is_pending() {
            self.began = deadline::last_reading();
        }
        polled
    }

    /// The end of the total time, once it has begun.
    fn ends(&self) -> Instant {
        self.began.saturating_add(Duration::from_nanos(self.plan().within))
    }

    /// Keeps this between two attempts, after one has failed.
    pub(super) fn keep(&mut self, between: B) {
        if let Some(failed) = &mut self.failed {
            failed.between = Some(between);
        }
    }

    /// What was kept last, unless it was taken.
    pub(super) fn take(&mut self) -> Option<B> {
        self.failed.as_mut()?.between.take()
    }

    #[inline]
    pub(super) fn pending(&mut self) {
        if self.began == Instant::NEVER {
            self.began = begin();
        }
    }

    /// Whether there may be an attempt after the next one.
    pub(super) fn goes_on(&self) -> bool {
        self.attempts() + 1 < self.plan().attempts
    }

    /// The number of the attempt that is being prepared.
    pub(super) fn next_attempt(&self) -> u32 {
        self.attempts() + 1
    }

    /// It begins: its price is paid.
    pub(super) fn begin_attempt(&mut self) {
        if let Some(failed) = &mut self.failed {
            if let Some(withdrawal) = failed.withdrawal.take() {
                withdrawal.spend();
            }
            failed.attempts += 1;
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
        asks: Asks<impl FnOnce(&Backoff) -> I, impl FnOnce() -> bool, impl FnOnce() -> Cost>,
    ) -> Option<Pin<Box<Sleep>>> {
        let mut now = Now::when_asked();
        let decided = match self.plan().wants(outcome) {
            None => Err(None),
            Some(_) if self.plan().attempts == 1 => Err(None),
            Some(wait) => self.decide(wait, asks, &mut now).map_err(Some),
        };
        let attempt = self.attempts();
        match decided {
            Ok(Next { sleep, delay, end, withdrawal }) => {
                if let Some(failed) = &mut self.failed {
                    (failed.outcome, failed.end, failed.withdrawal) = (outcome, end, withdrawal);
                }
                self.tell(EventKind::Retry { attempt, outcome, delay });
                Some(sleep)
            }
            // Nothing to tell: a call that was never worth a retry.
            Err(None) if attempt == 1 => None,
            Err(gave_up) => {
                self.end(outcome, gave_up, &mut now);
                None
            }
        }
    }

    fn decide(
        &mut self,
        wait: Duration,
        asks: Asks<impl FnOnce(&Backoff) -> I, impl FnOnce() -> bool, impl FnOnce() -> Cost>,
        now: &mut Now,
    ) -> Result<Next, GaveUp> {
        if self.attempts() >= self.plan().attempts {
            return Err(GaveUp::Attempts);
        }
        if !(asks.can_resend)() {
            return Err(GaveUp::Request);
        }
        if self.failed.is_none() {
            let (delays, end) =
                (self.settings(|settings| (asks.delays)(&settings.backoff)), (Instant::NEVER, GaveUp::Within));
            let outcome = Outcome::TRANSIENT;
            let failed = Failed { between: None, delays, attempts: 1, outcome, end, withdrawal: None };
            self.failed = Some(Box::new(failed));
        }
        let delay = self.failed.as_mut().and_then(|failed| failed.delays.next());
        // On top of what the failure asked for, so that those who were told the same do not come back together.
        let delay = wait.saturating_add(delay.ok_or(GaveUp::Delays)?);
        // A timer of nothing is over when it is first polled. Whoever retries at once lets others have a turn in between.
        let delay = delay.max(Duration::from_nanos(1));
        if self.began == Instant::NEVER {
            self.began = now.get();
        }
        let end = Plan::end(self.ends(), deadline::current(now));
        Plan::fits(delay, now.get(), end)?;
        let withdrawal = match self.budget.and_then(BudgetAddress::find) {
            None => None,
            Some(budget) => Some(budget.withdraw((asks.cost)(), now.get()).ok_or(GaveUp::Budget)?),
        };
        // Without a timer nobody could wake the caller.
        let sleep = time::sleep(delay).ok_or(GaveUp::Delays)?;
        Ok(Next { sleep, delay, end, withdrawal })
    }

    /// Whether the attempt that was to follow is not to be: its request cannot be sent any more, or it is too late, because its timer or the inner
    /// readiness has taken too long.
    pub(super) fn is_over(&mut self, can_resend: bool) -> bool {
        let Some(Failed { end: (at, why), outcome, .. }) = self.failed.as_deref() else {
            return false;
        };
        if !can_resend {
            let outcome = *outcome;
            self.end(outcome, Some(GaveUp::Request), &mut Now::when_asked());
            return true;
        }
        // Most calls have no end, and read no clock for it.
        if *at == Instant::NEVER {
            return false;
        }
        let (outcome, why, now) = (*outcome, *why, time::now());
        if now >= *at {
            self.end(outcome, Some(why), &mut now.into());
            return true;
        }
        false
    }

    /// A timer for the end of all time, while the next attempt waits for its service.
    pub(super) fn until_end(&self) -> Option<Pin<Box<Sleep>>> {
        let (end, _) = self.failed.as_ref()?.end;
        if end == Instant::NEVER { None } else { time::sleep_until(end, time::now()) }
    }

    /// The call ends.
    fn end(&mut self, outcome: Outcome, gave_up: Option<GaveUp>, now: &mut Now) {
        let attempts = self.attempts();
        // An attempt that will not be costs nothing.
        if let Some(failed) = &mut self.failed {
            failed.withdrawal = None;
        }
        let elapsed = now.get().saturating_since(self.began);
        self.tell(EventKind::Retried { attempts, outcome, elapsed, gave_up });
    }

    fn tell(&self, event: EventKind<'_>) {
        match self.shared.find() {
            Some(shared) => shared.events.emit(|| event),
            // A call that outlives its layer, its services and its handles, and had no listeners, has recorders left to tell.
            None => Events::named(Pattern::Retry, self.plan().name).emit(|| event),
        }
    }
}

#[cold]
#[inline(never)]
fn begin() -> Instant {
    time::now()
}
