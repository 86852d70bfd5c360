//! What happens after an admitted call: by its answer.

use std::{fmt, time::Duration};

use super::decision::Decisions;
use crate::outcome::{Classify, Outcome};

/// Looks at the answer of an admitted call, and may change it.
///
/// A closure wants its arguments spelled out, `|result: &mut Result<Reply, Failure>, paid: &Paid<'_>| ..`. Two of them in a tuple are one. It runs under no
/// lock, and its panic harms only its own call; what is cancelled is not settled.
pub trait Settle<Res, E> {
    /// Does what is to be done.
    fn settle(&self, result: &mut Result<Res, E>, paid: &Paid<'_>);
}

/// What a call has paid, and the limiter that it paid to.
pub struct Paid<'a> {
    account: &'a dyn Account,
    /// `None` if it has passed without paying.
    cost: Option<u64>,
}

/// A limiter as its key has it.
pub(super) trait Account {
    fn decisions(&self) -> Option<Decisions>;
    fn charge(&self, units: u64);
    fn refund(&self, units: u64);
    fn pause(&self, wait: Duration);
}

impl<'a> Paid<'a> {
    pub(super) fn new(account: &'a dyn Account, cost: Option<u64>) -> Self {
        Self { account, cost }
    }

    /// What the call has cost so far: nothing if it passed only because the limiter is in shadow mode.
    #[must_use]
    pub const fn cost(&self) -> u64 {
        match self.cost {
            Some(cost) => cost,
            None => 0,
        }
    }

    /// What the limits say by now. `None` where they are kept elsewhere and nothing is known here.
    #[must_use]
    pub fn decisions(&self) -> Option<Decisions> {
        self.account.decisions()
    }

    /// Takes so many units more, whether they are there or not: the calls to come wait for what is not. A call that passed only in shadow mode pays
    /// nothing: without that it would not have been made.
    pub fn charge(&self, units: u64) {
        if self.cost.is_some() {
            self.account.charge(units);
        }
    }

    /// Gives so many units back: to a window as far as they still count. A call that passed only in shadow mode has nothing to give back.
    pub fn refund(&self, units: u64) {
        if self.cost.is_some() {
            self.account.refund(units);
        }
    }

    /// Lets nothing pass for so long.
    pub fn pause(&self, wait: Duration) {
        self.account.pause(wait);
    }
}

impl fmt::Debug for Paid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paid").field("cost", &self.cost).finish_non_exhaustive()
    }
}

impl<Res, E, F: Fn(&mut Result<Res, E>, &Paid<'_>)> Settle<Res, E> for F {
    fn settle(&self, result: &mut Result<Res, E>, paid: &Paid<'_>) {
        self(result, paid);
    }
}

impl<Res, E, A: Settle<Res, E>, B: Settle<Res, E>> Settle<Res, E> for (A, B) {
    fn settle(&self, result: &mut Result<Res, E>, paid: &Paid<'_>) {
        self.0.settle(result, paid);
        self.1.settle(result, paid);
    }
}

/// Charges what the answer says that the call has cost, in place of what the request was thought to cost: the tokens of a language model. A closure wants
/// its argument spelled out, `|reply: &Reply| ..`. A call that fails has cost what was thought.
#[derive(Clone, Copy)]
pub struct ActualCost<F>(pub F);

impl<Res, E, F: Fn(&Res) -> u64> Settle<Res, E> for ActualCost<F> {
    fn settle(&self, result: &mut Result<Res, E>, paid: &Paid<'_>) {
        let Ok(response) = result else { return };
        let (actual, cost) = ((self.0)(response), paid.cost());
        if actual > cost {
            paid.charge(actual - cost);
        } else if actual < cost {
            paid.refund(cost - actual);
        }
    }
}

impl<F> fmt::Debug for ActualCost<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ActualCost")
    }
}

/// Pauses the limiter for as long as a failure asks for, as `Retry-After` of a dependency's own limit does, and at most for so long.
#[derive(Clone, Copy, Debug)]
pub struct PauseWhenAsked<C> {
    classifier: C,
    at_most: Duration,
}

impl<C> PauseWhenAsked<C> {
    /// Whether an answer asks for a pause, and for which, says the classifier: [`Outcome::Transient`](crate::Outcome::Transient) with a `retry_after`.
    #[must_use]
    pub const fn new(classifier: C, at_most: Duration) -> Self {
        Self { classifier, at_most }
    }
}

impl<Res, E, C: Classify<Res, E>> Settle<Res, E> for PauseWhenAsked<C> {
    fn settle(&self, result: &mut Result<Res, E>, paid: &Paid<'_>) {
        let outcome = self.classifier.classify(result.as_ref());
        if let Outcome::Transient { retry_after: Some(wait) } = outcome {
            paid.pause(wait.min(self.at_most));
        }
    }
}

/// Nothing is to be done after a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

/// Something is to be done after a call, by a [`Settle`].
#[derive(Clone, Copy, Debug)]
pub struct Afterwards<T>(pub(super) T);

/// Makes what a call keeps for afterwards: [`Nothing`] or [`Afterwards`].
pub trait After: sealed::After {}

/// What a call keeps for afterwards.
pub trait Bill<Res, E>: sealed::Bill<Res, E> {}

pub(super) mod sealed {
    pub trait After {
        type Bill<A>;
        #[doc(hidden)]
        fn bill<A>(&self, account: impl FnOnce() -> A, cost: Option<u64>) -> Self::Bill<A>;
    }

    pub trait Bill<Res, E> {
        /// Nothing was paid.
        #[doc(hidden)]
        fn waive(&mut self);
        #[doc(hidden)]
        fn end(&mut self, result: &mut Result<Res, E>);
    }
}

/// What is to be done, and to whose account.
pub struct Due<T, A> {
    todo: T,
    account: A,
    cost: Option<u64>,
}

impl sealed::After for Nothing {
    type Bill<A> = ();

    #[inline]
    fn bill<A>(&self, _: impl FnOnce() -> A, _: Option<u64>) {}
}

impl<T: Clone> sealed::After for Afterwards<T> {
    type Bill<A> = Due<T, A>;

    fn bill<A>(&self, account: impl FnOnce() -> A, cost: Option<u64>) -> Due<T, A> {
        Due { todo: self.0.clone(), account: account(), cost }
    }
}

impl<X: sealed::After> After for X {}

impl<Res, E> sealed::Bill<Res, E> for () {
    #[inline]
    fn waive(&mut self) {}

    #[inline]
    fn end(&mut self, _: &mut Result<Res, E>) {}
}

impl<Res, E, T: Settle<Res, E>, A: Account> sealed::Bill<Res, E> for Due<T, A> {
    fn waive(&mut self) {
        self.cost = None;
    }

    fn end(&mut self, result: &mut Result<Res, E>) {
        self.todo.settle(result, &Paid::new(&self.account, self.cost));
    }
}

impl<Res, E, X: sealed::Bill<Res, E>> Bill<Res, E> for X {}

impl<T, A> fmt::Debug for Due<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Due").field("cost", &self.cost).finish_non_exhaustive()
    }
}
