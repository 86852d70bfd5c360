//! The retry budget by the clock and below tower's own retry; what it allows to the last call is tested in the crate.

#![cfg(feature = "retry")]

use std::{
    panic::{RefUnwindSafe, UnwindSafe},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use buttress::{
    Budget, BudgetSettings as Settings, Cost,
    budget::{BudgetSnapshot, Withdrawal},
};

const SECOND: Duration = Duration::from_secs(1);

fn take(budget: &Budget) -> bool {
    budget.withdraw(Cost::ONE).map(Withdrawal::spend).is_some()
}

fn numbers(balance: BudgetSnapshot) -> (u64, Cost, Cost) {
    (balance.calls, balance.spent, balance.available)
}

#[tokio::test(start_paused = true)]
async fn what_was_counted_ten_seconds_ago_counts_no_longer() {
    let budget = Budget::new(Settings::new().ratio(1.0).per_second(0));
    budget.deposit();
    tokio::time::advance(8 * SECOND).await;
    assert_eq!(budget.balance().calls, 1);
    budget.deposit();
    tokio::time::advance(2 * SECOND).await;
    assert_eq!(budget.balance().calls, 1);
    assert!(take(&budget) && !take(&budget));
}

/// tower's loop takes a step for each slot that has passed: here that would be 10^17, and this test would never end.
#[tokio::test(start_paused = true)]
async fn tower_budget_first_call_after_ten_idle_years_is_o1() {
    let budget = Budget::new(Settings::new().ratio(1.0).per_second(100_000_000).window(Duration::from_nanos(30)));
    budget.deposit();
    assert!((0..4).all(|_| take(&budget)));
    assert!(!take(&budget));
    tokio::time::advance(10 * 365 * 86_400 * SECOND).await;
    assert_eq!(numbers(budget.balance()), (0, Cost::ZERO, Cost::retries(3)));
    budget.deposit();
    assert!((0..4).all(|_| take(&budget)));
    assert!(!take(&budget));
}

#[test]
fn it_goes_wherever_a_future_goes() {
    fn check<T: Send + Sync + UnwindSafe + RefUnwindSafe + Unpin + 'static>() {}
    check::<Budget>();
    check::<Withdrawal>();
}

#[tokio::test]
async fn towers_own_retry_runs_with_it() {
    let budget = Budget::new(Settings::new().ratio(0.5).per_second(0));
    let attempts = AtomicU64::new(0);
    let dependency = tower::service_fn(async |fails: bool| {
        attempts.fetch_add(1, Ordering::Relaxed);
        if fails { Err("down") } else { Ok(()) }
    });
    let service = tower::retry::Retry::new(TowerPolicy(budget.clone()), dependency);
    let call = async |fails| tower::ServiceExt::oneshot(&mut service.clone(), fails).await;
    for _ in 0..4 {
        call(false).await.unwrap();
    }
    call(true).await.unwrap_err();
    // Four that succeed, one that fails, and its two retries.
    assert_eq!(attempts.load(Ordering::Relaxed), 7);
    assert_eq!(numbers(budget.balance()), (4, Cost::retries(2), Cost::ZERO));
}

#[derive(Clone)]
struct TowerPolicy(Budget);

impl<Req: Clone, Res, E> tower::retry::Policy<Req, Res, E> for TowerPolicy {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Req, result: &mut Result<Res, E>) -> Option<Self::Future> {
        use tower::retry::budget::Budget;
        let budget: &dyn Budget = &self.0;
        match result {
            Ok(_) => budget.deposit(),
            Err(_) => return budget.withdraw().then(|| std::future::ready(())),
        }
        None
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}
