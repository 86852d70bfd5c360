//! What the retry adds to a call that needs none: CPU time and allocations with a budget and without, beside the bare service. A call that is
//! retried sleeps, so none is timed. What skews it: the clock is tokio's with `test-util` in it (31 ns a reading), because the tests of this
//! package need that, so rows that read the clock look dear here (those with a budget, and all that are pending); the package
//! `buttress-peers` compares them by like clocks. And the request is a number: what the copy of a larger one costs is its own.
//!
//! ```text
//! cargo bench --bench retry [-- [--short] [FILTER]]
//! ```

mod harness;

use std::{future::ready, rc::Rc, time::Duration};

use buttress::{
    Error, Outcome,
    retry::{RetryLayer, RetrySettings},
};
use tower::{Layer, Service, service_fn};

use harness::{
    Bench, Bound, CaseId,
    drive::{Holding, PendingOnce},
    usage::{Use, runtime},
};

const HOUR: Duration = Duration::from_secs(3600);

/// A foreign client's error, wrapped as a stack wants it.
type Answer = Result<u64, Error<Down>>;

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("down")]
struct Down;

/// What the gates speak of.
struct Rows {
    without_budget: CaseId,
    with_budget: CaseId,
}

fn main() {
    let runtime = Rc::new(runtime());
    // Polling by hand happens inside a runtime too: that is where tokio's clock costs what it costs.
    let _entered = runtime.enter();
    let mut bench = Bench::from_args("retry");

    let [ready, ready_cloned] = [false, true].map(|a_clone_per_call| {
        bench.section(if a_clone_per_call { "ready at once, a clone per call" } else { "ready at once, long-lived" });
        let usage = Use { a_clone_per_call, runtime: None };
        let (never_fails, always_fails) =
            (service_fn(|n| ready(never_fails(n))), service_fn(|n| ready(always_fails(n))));
        rows(&mut bench, &usage, never_fails, always_fails)
    });
    for a_clone_per_call in [false, true] {
        bench.section(if a_clone_per_call { "pending once, a clone per call" } else { "pending once, long-lived" });
        let usage = Use { a_clone_per_call, runtime: Some(Rc::clone(&runtime)) };
        let never_fails = service_fn(|n| PendingOnce::new(never_fails(n)));
        let always_fails = service_fn(|n| PendingOnce::new(always_fails(n)));
        rows(&mut bench, &usage, never_fails, always_fails);
    }

    for (usage, rows) in [("long-lived", &ready), ("a clone per call", &ready_cloned)] {
        for (budget, case) in [("without budget", rows.without_budget), ("with budget", rows.with_budget)] {
            bench.gate_two_threads(&format!("{budget}, {usage}: two threads of one"), case, Bound::AtLeast(1.9));
        }
    }
    bench.gate_allocations();
    bench.run();
}

/// The cases of a section. None of them ever tries again.
fn rows<N, A>(bench: &mut Bench, usage: &Use, never_fails: N, always_fails: A) -> Rows
where
    N: Service<u64, Response = u64, Error = Error<Down>, Future: Send> + Clone + Send + 'static,
    A: Service<u64, Response = u64, Error = Error<Down>, Future: Send> + Clone + Send + 'static,
{
    let settings = RetrySettings::new();
    let without_budget = settings.clone().without_budget();

    // The floor, and the control of two threads: it shares nothing, so what it lacks to 2.00 is the machine's doing.
    usage.case(bench, "bare service", &never_fails).on_two_threads(usage.batch(&never_fails));

    let service = RetryLayer::new(without_budget.clone()).layer(never_fails.clone());
    usage.case(bench, "without budget", &service).ours().on_two_threads(usage.batch(&service));
    let without_budget_row = bench.last();

    let service = RetryLayer::new(settings.clone()).layer(never_fails.clone());
    usage.case(bench, "with budget", &service).ours().on_two_threads(usage.batch(&service));
    let with_budget = bench.last();

    // The spare for another attempt is a counted reference then, and two threads count on the same word.
    let holding = Holding::new(never_fails.clone());
    usage.case(bench, "bare service with a destructor", &holding).on_two_threads(usage.batch(&holding));
    let service = RetryLayer::new(without_budget).layer(holding.clone());
    usage.case(bench, "without budget, over a destructor", &service).ours().on_two_threads(usage.batch(&service));
    let service = RetryLayer::new(settings.clone()).layer(holding);
    usage.case(bench, "with budget, over a destructor", &service).ours().on_two_threads(usage.batch(&service));

    // Its total time is a deadline, and nobody inside reads that.
    let service = RetryLayer::new(settings.clone().within(HOUR)).layer(never_fails);
    usage.case(bench, "with budget, within an hour", &service).ours();

    let service = RetryLayer::new(settings).classify(request_is_at_fault).layer(always_fails);
    usage.case(bench, "with budget, every call fails for good", &service).ours();

    Rows { without_budget: without_budget_row, with_budget }
}

fn request_is_at_fault(answer: Result<&u64, &Error<Down>>) -> Outcome {
    if answer.is_ok() { Outcome::Success } else { Outcome::Permanent }
}

fn never_fails(n: u64) -> Answer {
    Ok(n)
}

fn always_fails(_: u64) -> Answer {
    Err(Error::Service(Down))
}
