use std::{
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::thread_slot::THREADS;

type S = BudgetSettings;

const SECOND: Duration = Duration::from_secs(1);
const START: u64 = 1 << 62;

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(START + nanos)
}

fn take(budget: &Budget) -> bool {
    budget.withdraw(Cost::ONE).map(Withdrawal::spend).is_some()
}

// ----- how much -----

/// The ratio in thousandths, so that what is expected is exact as well.
const RATIOS: [u64; 7] = [50, 100, 200, 600, 700, 1_000, 1_500];

/// tower rounds `1 / 0.6` down to 1, and then a ratio of 0.6 is one of 1.
#[test]
fn tower_857_a_ratio_of_0_6_allows_60_percent() {
    for (per_mille, floor) in RATIOS.into_iter().flat_map(|ratio| [(ratio, 0), (ratio, 30)]) {
        let budget = Budget::new(S::new().ratio(per_mille as f64 / 1e3).per_second(floor));
        let mut retries = 0;
        for calls in 1..=2_000 {
            budget.deposit_at(Some(0), at(0));
            while budget.withdraw_at(Cost::ONE, at(0)).map(Withdrawal::spend).is_some() {
                retries += 1;
            }
            assert_eq!(retries, calls * per_mille / 1_000 + u64::from(floor) * 10, "{per_mille} {calls}");
        }
    }
}

/// The short way counts only where the long one would do nothing else.
#[test]
fn a_call_is_counted_the_short_way_only_while_its_threads_slot_goes_on() {
    let deposits = Deposits::new(10);
    assert!(!deposits.count_on(0, at(0)), "this thread has not counted yet");
    deposits.count(Some(0), at(0));
    assert!(deposits.count_on(0, at(0)));
    assert!(!deposits.count_on(0, at(1)), "the next slot has begun");
    assert!(!deposits.count_on(1, at(0)) && !deposits.count_on(usize::MAX, at(0)), "others have not");
    deposits.count(None, at(0));
    assert!(!deposits.count_on(THREADS, at(0)), "that one is for who holds its lock");
    assert_eq!(deposits.calls(deposits.present(at(0))), 3);
}

#[test]
fn tower_857_a_ratio_of_0_6_allows_60_percent_of_the_calls_of_many_tasks() {
    const TASKS: u64 = 32;
    const CALLS: u64 = 500;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    for per_mille in RATIOS {
        let budget = Budget::new(S::new().ratio(per_mille as f64 / 1e3).per_second(1).window(1_000 * SECOND));
        let calls = async |budget: Budget| {
            let mut retries = 0;
            for _ in 0..CALLS {
                budget.deposit();
                retries += (0..3).filter(|_| take(&budget)).count() as u64;
                tokio::task::yield_now().await;
            }
            retries
        };
        let retries: u64 = runtime.block_on(async {
            let tasks: Vec<_> = (0..TASKS).map(|_| tokio::spawn(calls(budget.clone()))).collect();
            futures::future::join_all(tasks).await.into_iter().map(Result::unwrap).sum()
        });
        let allowed = TASKS * CALLS * per_mille / 1_000 + 1_000;
        assert!(retries <= allowed && retries * 100 >= allowed * 99, "{per_mille}: {retries} of {allowed}");
        let rest = std::iter::repeat_with(|| take(&budget)).take_while(|taken| *taken).count() as u64;
        assert_eq!(retries + rest, allowed, "{per_mille}");
    }
}

#[test]
fn costs_add_up_in_hundredths_of_a_retry() {
    let budget = Budget::new(S::new().ratio(1.0).per_second(0));
    budget.deposit_at(None, at(0));
    let percent = |n| budget.withdraw_at(Cost::percent(n), at(0)).map(Withdrawal::spend).is_some();
    assert_eq!([percent(35), percent(35), percent(35), percent(30), percent(1)], [true, true, false, true, false]);
    assert!(budget.withdraw_at(Cost::ZERO, at(0)).is_some());
    assert_eq!(budget.balance_at(at(0)), BudgetSnapshot { calls: 1, spent: Cost::ONE, available: Cost::ZERO });
}

#[test]
fn a_cost_of_zero_is_granted_even_when_too_much_has_been_spent() {
    let budget = Budget::new(S::new().ratio(1.0).per_second(0).window(10 * SECOND));
    budget.deposit_at(None, at(0));
    budget.withdraw_at(Cost::ONE, at(5_000_000_000)).unwrap().spend();
    // The call has left, its retry has not.
    let now = at(12_000_000_000);
    assert_eq!(budget.balance_at(now), BudgetSnapshot { calls: 0, spent: Cost::ONE, available: Cost::ZERO });
    assert!(budget.withdraw_at(Cost::percent(1), now).is_none());
    assert!(budget.withdraw_at(Cost::ZERO, now).is_some());
}

#[test]
fn extreme_settings_and_costs_neither_panic_nor_wrap() {
    let most = Cost::retries(u32::MAX);
    let budget = Budget::new(S::new().ratio(1000.0).per_second(u32::MAX).window(Duration::MAX));
    for now in [at(0), Instant::NEVER, Instant::NEVER] {
        budget.deposit_at(Some(0), now);
        budget.deposit_at(None, now);
        budget.withdraw_at(most, now).unwrap().spend();
    }
    assert_eq!(budget.balance_at(Instant::NEVER).calls, 6);
    assert_eq!(budget.balance_at(Instant::NEVER).spent.as_percent(), 3 * most.as_percent());

    // A slot is a nanosecond long, and the floor of the window less than a retry.
    let budget = Budget::new(S::new().ratio(1000.0).per_second(1).window(Duration::from_nanos(10)));
    assert!(budget.withdraw_at(Cost::percent(1), Instant::NEVER).is_none());
    budget.deposit_at(Some(0), Instant::NEVER);
    budget.deposit_at(Some(0), Instant::NEVER);
    assert!(budget.withdraw_at(most, Instant::NEVER).is_none());
    budget.withdraw_at(Cost::retries(2_000), Instant::NEVER).unwrap().spend();
    assert!(budget.withdraw_at(Cost::ONE, Instant::NEVER).is_none());
}

#[test]
#[should_panic(expected = "invalid `window`")]
fn settings_that_cannot_work_panic_in_new() {
    let _ = Budget::new(S::new().window(Duration::ZERO));
}

// ----- when -----

#[test]
fn a_call_pays_for_ten_slots_and_no_longer() {
    let budget = Budget::new(S::new().ratio(1.0).per_second(0).window(10 * SECOND));
    // The clock's origin is no slot's beginning.
    let begins = (START / 1_000_000_000 + 1) * 1_000_000_000 - START;
    let second = |n: u64| at(begins + n * 1_000_000_000);
    for n in 0..10 {
        budget.deposit_at(Some(0), second(n));
        budget.deposit_at(None, second(n));
    }
    for n in 0..12 {
        assert_eq!(budget.balance_at(second(9 + n)).calls, 2 * 10_u64.saturating_sub(n));
    }
}

#[test]
fn a_clock_that_stands_earlier_counts_to_the_present_slot() {
    const HOUR: u64 = 3_600_000_000_000;
    let budget = Budget::new(S::new().ratio(1.0).per_second(0));
    budget.deposit_at(Some(0), at(HOUR));
    budget.deposit_at(Some(0), at(0));
    budget.deposit_at(Some(1), at(0));
    assert_eq!(budget.balance_at(at(0)).calls, 3);
    budget.withdraw_at(Cost::retries(2), at(0)).unwrap().spend();
    // Nor does the other clock forget it all, as its own ten seconds pass.
    assert_eq!(budget.balance_at(at(HOUR / 2)).available, Cost::ONE);
    assert_eq!(budget.balance_at(at(HOUR)).available, Cost::ONE);
    assert_eq!(budget.balance_at(at(2 * HOUR)).calls, 0);
}

// ----- giving back -----

#[test]
fn a_dropped_withdrawal_is_given_back() {
    let budget = Budget::new(S::new().ratio(1.0).per_second(0));
    budget.deposit_at(None, at(0));
    let held = budget.withdraw_at(Cost::ONE, at(0)).unwrap();
    assert!(budget.withdraw_at(Cost::percent(1), at(0)).is_none());
    drop(held);
    assert_eq!(budget.balance_at(at(0)), BudgetSnapshot { calls: 1, spent: Cost::ZERO, available: Cost::ONE });
}

#[test]
fn a_withdrawal_goes_back_to_its_own_slot_and_nowhere_once_that_is_gone() {
    const SLOT: u64 = 1_000_000_000;
    let budget = Budget::new(S::new().ratio(0.0).per_second(1));
    let spent = |now| budget.balance_at(at(now)).spent.as_percent();
    let early = budget.withdraw_at(Cost::retries(2), at(0)).unwrap();
    let late = budget.withdraw_at(Cost::retries(3), at(9 * SLOT)).unwrap();
    let kept = budget.withdraw_at(Cost::ONE, at(9 * SLOT)).unwrap();
    assert_eq!(spent(9 * SLOT), 600);
    drop(late);
    assert_eq!(spent(9 * SLOT), 300);
    kept.spend();
    // Where the first was taken, the eleventh slot has begun.
    budget.withdraw_at(Cost::retries(4), at(10 * SLOT)).unwrap().spend();
    drop(early);
    assert_eq!(spent(10 * SLOT), 500);
}

#[test]
fn a_withdrawal_outlives_the_budget_and_may_end_on_another_thread() {
    let budget = Budget::default();
    let (other, held) = (budget.clone(), budget.withdraw(Cost::ONE).unwrap());
    drop(budget);
    std::thread::spawn(move || drop(held)).join().unwrap();
    assert_eq!(other.balance().spent, Cost::ZERO);
}

// ----- against a model -----

/// The same, as a list of everything that ever happened.
#[derive(Default)]
struct Model {
    width: u64,
    calls: Vec<u64>,
    spent: Vec<(u64, u64)>,
}

impl Model {
    fn counts(&self, then: u64, now: u64) -> bool {
        now / self.width - then / self.width < 10
    }

    fn calls(&self, now: u64) -> u64 {
        self.calls.iter().filter(|then| self.counts(**then, now)).count() as u64
    }

    fn spent(&self, now: u64) -> u64 {
        self.spent.iter().filter(|(then, _)| self.counts(*then, now)).map(|(_, cost)| cost).sum()
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Deposit(Option<usize>),
    Withdraw { percent: u32, spends: bool },
    GiveBack(usize),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::option::of(0_usize..3).prop_map(Step::Deposit),
        4 => (0_u32..250, any::<bool>()).prop_map(|(percent, spends)| Step::Withdraw { percent, spends }),
        2 => any::<usize>().prop_map(Step::GiveBack),
        3 => (0_u64..120).prop_map(Step::Advance),
    ]
}

proptest! {
    #[test]
    fn it_allows_what_a_list_of_everything_allows(
        width in 1_u64..50,
        ppm in 0_u64..2_000_000,
        per_second in 1_u64..5_000_000,
        steps in prop::collection::vec(step(), 0..300),
    ) {
        let window = Duration::from_nanos(10 * width);
        let budget = Budget::new(S::new().ratio(ppm as f64 / 1e6).per_second(per_second as u32).window(window));
        let mut model = Model { width, ..Model::default() };
        let mut held = Vec::new();
        let mut now = START;
        for step in steps {
            let reading = Instant::from_nanos(now);
            match step {
                Step::Deposit(index) => {
                    budget.deposit_at(index, reading);
                    model.calls.push(now);
                }
                Step::Withdraw { percent, spends } => {
                    let taken = budget.withdraw_at(Cost::percent(percent), reading);
                    let total = model.spent(now) + u64::from(percent);
                    // In hundred-millionths of a retry, and the floor in thousands of them: it is checked against other units, too.
                    let allowed = model.calls(now) * ppm * 1_000 + per_second * 10 * width;
                    prop_assert_eq!(taken.is_some(), percent == 0 || total * 10_000_000 <= allowed);
                    if let Some(taken) = taken {
                        model.spent.push((now, u64::from(percent)));
                        if spends { taken.spend() } else { held.push((model.spent.len() - 1, taken)) }
                    }
                }
                Step::GiveBack(which) if !held.is_empty() => {
                    let (entry, taken) = held.swap_remove(which % held.len());
                    drop(taken);
                    model.spent[entry].1 = 0;
                }
                Step::GiveBack(_) => {}
                Step::Advance(nanos) => now += nanos,
            }
            let balance = budget.balance_at(Instant::from_nanos(now));
            prop_assert_eq!((balance.calls, balance.spent.as_percent()), (model.calls(now), model.spent(now)));
        }
    }
}

// ----- threads -----

#[test]
fn more_threads_than_there_are_indices_lose_no_deposit() {
    const MANY: usize = 80;
    let budget = Budget::new(S::new().window(1_000 * SECOND));
    let (together, without) = (Barrier::new(MANY), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..MANY {
            scope.spawn(|| {
                without.fetch_add(thread_slot::index().is_none().into(), Ordering::Relaxed);
                together.wait();
                (0..1_000).for_each(|_| budget.deposit());
                together.wait();
            });
        }
    });
    assert!(without.into_inner() >= 16);
    assert_eq!(budget.balance().calls, 80_000);
}

#[test]
fn threads_that_come_and_go_lose_no_deposit() {
    let budget = Budget::new(S::new().window(1_000 * SECOND));
    for _ in 0..200 {
        std::thread::scope(|scope| {
            scope.spawn(|| budget.deposit());
            scope.spawn(|| budget.deposit());
        });
    }
    assert_eq!(budget.balance().calls, 400);
}

#[test]
fn a_deposit_allocates_nothing_once_its_thread_has_made_one() {
    let budget = Budget::default();
    budget.deposit();
    let again = allocation_counter::measure(|| (0..1_000).for_each(|_| budget.deposit()));
    assert_eq!(again.count_total, 0);
    budget.withdraw(Cost::ONE).unwrap().spend();
    let again = allocation_counter::measure(|| drop(budget.withdraw(Cost::ONE).unwrap()));
    assert_eq!(again.count_total, 0);
}

#[test]
fn clones_share_what_other_budgets_do_not() {
    let (one, other) = (Budget::default(), Budget::default());
    one.clone().deposit();
    assert_eq!([one.balance().calls, other.balance().calls], [1, 0]);
    assert_eq!(one.address().id(), one.clone().address().id());
    assert_ne!(one.address().id(), other.address().id());
    let _here = enter(one.address().id());
    assert!(is_entered(one.clone().address().id()) && !is_entered(other.address().id()));
    assert!(format!("{one:?}").starts_with("Budget { calls: 1,"));
}
