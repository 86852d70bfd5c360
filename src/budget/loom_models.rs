//! Every interleaving of counting and withdrawing: `RUSTFLAGS="--cfg buttress_loom" cargo test --lib loom`.
//!
//! The models say which index a thread has: loom runs all of them on one.

use std::time::Duration;

use loom::{model, thread};

use super::{Budget, BudgetSettings, Cost};
use crate::time::Instant;

/// One retry per call, in slots of 10 ns.
fn budget() -> Budget {
    Budget::new(BudgetSettings::new().ratio(1.0).per_second(0).window(Duration::from_nanos(100)))
}

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

fn take(budget: &Budget, cost: Cost, nanos: u64) -> bool {
    budget.withdraw_at(cost, at(nanos)).map(super::Withdrawal::spend).is_some()
}

/// Slot 10 lives where slot 0 did, whose three calls have left the window when it begins.
#[test]
fn never_more_is_admitted_than_the_window_allows_while_its_owner_turns_it() {
    model(|| {
        let budget = budget();
        (0..3).for_each(|_| budget.deposit_at(Some(0), at(5)));
        let owner = {
            let budget = budget.clone();
            thread::spawn(move || {
                budget.deposit_at(Some(0), at(105));
                budget.deposit_at(Some(0), at(106));
            })
        };
        // Slot 10 alone: two calls at the most.
        assert!(!take(&budget, Cost::retries(3), 105), "an old slot's calls, or both slots' together");
        let taken = u64::from(take(&budget, Cost::ONE, 105)) + u64::from(take(&budget, Cost::ONE, 105));
        owner.join().unwrap();
        let balance = budget.balance_at(at(109));
        assert_eq!((balance.calls, balance.spent.as_percent()), (2, taken * 100));
        assert_eq!(balance.available.as_percent(), (2 - taken) * 100);
    });
}

/// A reader whose clock stands earlier still expects slot 0 where slot 10 begins.
#[test]
fn a_reader_that_lags_never_counts_a_new_slots_calls_as_an_old_ones() {
    model(|| {
        let budget = budget();
        budget.deposit_at(Some(0), at(5));
        let owner = {
            let budget = budget.clone();
            thread::spawn(move || (0..2).for_each(|_| budget.deposit_at(Some(0), at(105))))
        };
        let balance = budget.balance_at(at(95));
        assert!(balance.calls <= 2, "{balance:?}");
        // While the reader stands in slot 9, only slot 0 can be seen: with its call, or empty.
        let in_slot_9 = budget.account.deposits.calls(9);
        assert!(in_slot_9 <= 1, "{in_slot_9}");
        owner.join().unwrap();
        assert_eq!(budget.balance_at(at(95)).calls, 2);
    });
}

#[test]
fn threads_without_an_index_lose_no_deposit_and_withdraw_no_more_than_it() {
    model(|| {
        let budget = budget();
        let counts = || {
            let budget = budget.clone();
            thread::spawn(move || {
                budget.deposit_at(None, at(5));
                take(&budget, Cost::ONE, 5)
            })
        };
        let threads = [counts(), counts()];
        // Whoever has counted a call sees it, so the first to withdraw can, and so can the other.
        assert_eq!(threads.map(|thread| thread.join().unwrap()), [true, true]);
        let balance = budget.balance_at(at(5));
        assert_eq!((balance.calls, balance.available), (2, Cost::ZERO));
    });
}

#[test]
fn what_is_given_back_is_taken_once() {
    model(|| {
        let budget = budget();
        budget.deposit_at(Some(0), at(5));
        let cancelled = budget.withdraw_at(Cost::ONE, at(5)).unwrap();
        let other = budget.clone();
        let takes = thread::spawn(move || take(&other, Cost::ONE, 5));
        drop(cancelled);
        let here = take(&budget, Cost::ONE, 5);
        let there = takes.join().unwrap();
        assert!(here ^ there, "given back before we asked, so one of us has it: {here} {there}");
    });
}
