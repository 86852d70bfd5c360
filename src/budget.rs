//! A budget for extra load: at most so large a part of the calls, and a few per second.
//!
//! Retries help against failures that are rare. When everything fails they multiply the load on what is down already: three attempts are
//! three times the load, and three of them nested are 27 times. A limit of attempts per call cannot see that; a budget does, for it is
//! shared by all calls: by every clone, by several layers, by retries and hedges.
//!
//! Each call pays in the [ratio](BudgetSettings::ratio), each retry takes its [`Cost`], and both count for the length of the
//! [window](BudgetSettings::window). With the defaults, and in whole numbers:
//!
//! ```text
//! retries of the last 10 s  ≤  20 % of the calls of the last 10 s  +  3 per second
//! ```
//!
//! A retry is paid before the wait that precedes it, and paid back if it is never sent: that is what a [`Withdrawal`] is for.
//!
//! ```
//! # use std::time::Duration;
//! use buttress::{Budget, BudgetSettings, Cost};
//!
//! let budget = Budget::new(BudgetSettings::new().ratio(0.5).per_second(0));
//! budget.deposit();
//! budget.deposit();
//!
//! let retry = budget.withdraw(Cost::ONE).expect("two calls pay for one retry");
//! assert!(budget.withdraw(Cost::ONE).is_none());
//! drop(retry); // It was cancelled.
//! budget.withdraw(Cost::ONE).expect("it was given back").spend();
//! ```
//!
//! The window is ten slots, the present one included, so it reaches back nine to ten tenths of its length, for calls and retries alike:
//! at the edge of a slot, what was taken nine tenths ago may be taken again. There is one clock: runtimes whose paused clocks stand apart count
//! for one another only roughly.
//!
//! It also is a [`tower::retry::budget::Budget`], for those who use tower's own retry.

mod cost;
mod deposits;
mod entered;
#[cfg(all(test, buttress_loom))]
mod loom_models;
mod settings;
mod spent;

use std::{fmt, sync::Arc};

pub(crate) use self::entered::{enter, is_entered};
pub use self::{cost::Cost, settings::BudgetSettings};

use self::{
    deposits::{Apart, Deposits},
    settings::Limits,
    spent::Spent,
};
use crate::{
    address::{Address, Home, Resident},
    error::ConfigError,
    sync::Mutex,
    thread_slot,
    time::{self, Instant},
};

/// How many retries there may be; see [the module](self).
///
/// Clones share it. A call that is counted costs a reading of the clock and a few loads and stores, on up to 64 threads at a time, and a lock on
/// others; a retry costs a lock.
#[derive(Clone)]
pub struct Budget {
    account: Home<Account>,
}

/// What a call has of a budget: a way back to it.
pub(crate) type BudgetAddress = Address<Account>;

pub(crate) struct Account {
    limits: Limits,
    deposits: Deposits,
    spent: Apart<Mutex<Spent>>,
}

/// A retry that has been paid. Dropping it gives the cost back.
#[must_use = "dropping it gives the cost back"]
pub struct Withdrawal {
    account: Arc<Account>,
    slot: u64,
    cost: Cost,
}

/// What a budget looks like at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BudgetSnapshot {
    /// Calls in the window.
    pub calls: u64,
    /// What was taken in the window and not given back.
    pub spent: Cost,
    /// What can be taken now.
    pub available: Cost,
}

// ===== impl Budget =====

impl Budget {
    /// A budget of these settings.
    ///
    /// # Panics
    ///
    /// If the settings cannot work; [`try_new`](Self::try_new) returns the error instead.
    #[must_use]
    #[track_caller]
    pub fn new(settings: BudgetSettings) -> Self {
        Self::try_new(settings).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A budget of these settings, or what is wrong with them.
    pub fn try_new(settings: BudgetSettings) -> Result<Self, ConfigError> {
        let limits = settings.check()?;
        let (deposits, spent) = (Deposits::new(limits.window), Apart(Mutex::new(Spent::default())));
        Ok(Self { account: Home::new(Account { limits, deposits, spent }) })
    }

    /// Counts a call: once for each call, however often it is retried.
    #[inline]
    pub fn deposit(&self) {
        self.deposit_at(thread_slot::index(), time::now());
    }

    #[inline]
    fn deposit_at(&self, index: Option<usize>, now: Instant) {
        self.account.deposits.count(index, now);
    }

    #[inline]
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// Pays for a retry, or `None` if it is not to be sent. A cost of zero is always granted.
    #[must_use = "dropping a withdrawal gives the cost back"]
    pub fn withdraw(&self, cost: Cost) -> Option<Withdrawal> {
        self.withdraw_at(cost, time::now())
    }

    fn withdraw_at(&self, cost: Cost, now: Instant) -> Option<Withdrawal> {
        Account::withdraw(Arc::clone(self.account.value()), cost, now)
    }

    /// The numbers of the window.
    #[must_use]
    pub fn balance(&self) -> BudgetSnapshot {
        self.balance_at(time::now())
    }

    fn balance_at(&self, now: Instant) -> BudgetSnapshot {
        let account = &*self.account;
        account.look(now, |calls, spent| BudgetSnapshot {
            calls,
            spent: Cost::new(spent.total()),
            available: account.limits.available(calls, spent.total()),
        })
    }

    /// The same for all clones. Its [`id`](Address::id) is no other budget's.
    #[inline]
    pub(crate) fn address(&self) -> BudgetAddress {
        self.account.address()
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(BudgetSettings::new())
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BudgetSnapshot { calls, spent, available } = self.balance();
        let mut f = f.debug_struct("Budget");
        f.field("calls", &calls).field("spent", &spent).field("available", &available).finish()
    }
}

impl tower::retry::budget::Budget for Budget {
    fn deposit(&self) {
        Self::deposit(self);
    }

    fn withdraw(&self) -> bool {
        Self::withdraw(self, Cost::ONE).map(Withdrawal::spend).is_some()
    }
}

// ===== impl Account =====

impl Resident for Account {
    /// A call that outlives all that shared its budget is to find it all the same: after a shutdown, with calls under way, all fail at once.
    fn lasts(&self) -> bool {
        true
    }
}

impl Account {
    /// Counts a call that is being made, by a reading of this call if there is one.
    #[inline]
    pub(crate) fn deposit_about_now(&self) {
        let now = time::noted_or_now();
        if !self.deposits.count_on(thread_slot::known(), now) {
            self.deposit_apart(now.as_nanos());
        }
    }

    /// Has no way out but its end (nothing in it panics; if it did, the process would end), so that who calls it while it holds a future need not keep that in
    /// memory for another way out.
    #[cold]
    #[inline(never)]
    extern "C" fn deposit_apart(&self, now: u64) {
        self.deposits.count(thread_slot::index(), Instant::from_nanos(now));
    }

    /// See [`Budget::withdraw`].
    pub(crate) fn withdraw(self: Arc<Self>, cost: Cost, now: Instant) -> Option<Withdrawal> {
        let slot = if cost == Cost::ZERO { 0 } else { self.take(cost, now)? };
        Some(Withdrawal { account: self, slot, cost })
    }

    /// Takes the cost if there is enough, and says in which slot.
    fn take(&self, cost: Cost, now: Instant) -> Option<u64> {
        self.look(now, |calls, spent| {
            let total = spent.total().checked_add(cost.as_percent())?;
            self.limits.allow(calls, total).then(|| spent.take(cost.as_percent()))
        })
    }

    fn look<T>(&self, now: Instant, f: impl FnOnce(u64, &mut Spent) -> T) -> T {
        let mut spent = self.spent.0.lock();
        // Under the lock, so that calls and costs are of the same ten slots.
        let present = self.deposits.present(now);
        spent.advance(present);
        f(self.deposits.calls(present), &mut spent)
    }
}

// ===== impl Withdrawal =====

impl Withdrawal {
    /// The retry is sent: its cost stays in the window for as long as that lasts.
    pub fn spend(mut self) {
        self.cost = Cost::ZERO;
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if self.cost != Cost::ZERO {
            self.account.spent.0.lock().give_back(self.slot, self.cost.as_percent());
        }
    }
}

impl fmt::Debug for Withdrawal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Withdrawal").field("cost", &self.cost).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
