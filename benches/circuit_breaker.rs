//! What the circuit breaker adds to a call: CPU time and allocations of each trip beside the bare service and tower's cheapest layers. What
//! skews it: the clock is tokio's with `test-util` in it (31 ns a reading), because the tests of this package need that, so rows that read
//! the clock look dear here; the package `buttress-peers` compares them by like clocks.
//!
//! ```text
//! cargo bench --bench circuit_breaker [-- [--short] [FILTER]]
//! ```

mod harness;

use std::{future::ready, rc::Rc, time::Duration};

use buttress::{
    Error,
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings, Window},
};
use tower::{Layer, Service, limit::ConcurrencyLimit, load_shed::LoadShed, service_fn};

use harness::{
    Bench, Bound, CaseId,
    drive::PendingOnce,
    usage::{Use, runtime},
};

const HOUR: Duration = Duration::from_secs(3600);

/// A foreign client's error, wrapped as a stack wants it.
type Answer = Result<u64, Error<Down>>;

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("down")]
struct Down;

/// The services below the breaker.
struct Inner<Never, Seldom, Always> {
    never_fails: Never,
    /// One call in twenty does.
    seldom_fails: Seldom,
    always_fails: Always,
}

/// What the gates speak of.
struct Rows {
    bare: CaseId,
    consecutive: CaseId,
    last_calls: CaseId,
    empty_window: CaseId,
    full_window: CaseId,
}

fn main() {
    let runtime = Rc::new(runtime());
    // Polling by hand happens inside a runtime too: that is where tokio's clock costs what it costs.
    let _entered = runtime.enter();
    let mut bench = Bench::from_args("circuit_breaker");

    let [ready, ready_cloned] = [false, true].map(|a_clone_per_call| {
        bench.section(if a_clone_per_call { "ready at once, a clone per call" } else { "ready at once, long-lived" });
        let inner = Inner {
            never_fails: service_fn(|n| ready(never_fails(n))),
            seldom_fails: service_fn(|n| ready(seldom_fails(n))),
            always_fails: service_fn(|n| ready(always_fails(n))),
        };
        rows(&mut bench, &Use { a_clone_per_call, runtime: None }, inner)
    });
    let [pending, pending_cloned] = [false, true].map(|a_clone_per_call| {
        bench.section(if a_clone_per_call { "pending once, a clone per call" } else { "pending once, long-lived" });
        let inner = Inner {
            never_fails: service_fn(|n| PendingOnce::new(never_fails(n))),
            seldom_fails: service_fn(|n| PendingOnce::new(seldom_fails(n))),
            always_fails: service_fn(|n| PendingOnce::new(always_fails(n))),
        };
        rows(&mut bench, &Use { a_clone_per_call, runtime: Some(Rc::clone(&runtime)) }, inner)
    });

    for (usage, rows) in [("long-lived", &ready), ("a clone per call", &ready_cloned)] {
        bench.gate_two_threads(
            &format!("consecutive, {usage}: two threads of one"),
            rows.consecutive,
            Bound::AtLeast(1.9),
        );
        let name = format!("time window, {usage}: a million calls in it of none");
        bench.gate(&name, rows.full_window, rows.empty_window, Bound::Between(0.9, 1.1));
    }
    for (usage, rows) in [("long-lived", &pending), ("a clone per call", &pending_cloned)] {
        for (trip, case) in [("consecutive", rows.consecutive), ("last 100 calls", rows.last_calls)] {
            let name = format!("{trip}, pending once, {usage}: of the bare service");
            bench.gate(&name, case, rows.bare, Bound::AtMost(1.1));
        }
    }
    bench.gate_allocations();
    bench.run();
}

/// The cases of a section.
fn rows<N, S, A>(bench: &mut Bench, usage: &Use, inner: Inner<N, S, A>) -> Rows
where
    N: Service<u64, Response = u64, Error = Error<Down>, Future: Send> + Clone + Send + 'static,
    S: Service<u64, Response = u64, Error = Error<Down>, Future: Send> + Clone + Send + 'static,
    A: Service<u64, Response = u64, Error = Error<Down>, Future: Send> + Clone + Send + 'static,
{
    let Inner { never_fails, seldom_fails, always_fails } = inner;
    let consecutive = |n| CircuitBreakerSettings::consecutive_failures(n).open_for(HOUR);
    let last_100 = CircuitBreakerSettings::failure_rate(0.5);
    let last_hour = last_100.window(Window::Time(HOUR));

    // The floor, and the control of two threads: it shares nothing, so what it lacks to 2.00 is the machine's doing.
    usage.case(bench, "bare service", &never_fails).on_two_threads(usage.batch(&never_fails));
    let bare = bench.last();
    usage.case(bench, "tower LoadShed", &LoadShed::new(never_fails.clone()));
    usage.case(bench, "tower ConcurrencyLimit", &ConcurrencyLimit::new(never_fails.clone(), 100));

    let service = CircuitBreakerLayer::new(consecutive(5)).layer(never_fails.clone());
    usage.case(bench, "consecutive", &service).ours().on_two_threads(usage.batch(&service));
    let consecutive_row = bench.last();

    // The run never gets there, so each failure takes the lock and is counted.
    let service = CircuitBreakerLayer::new(consecutive(u32::MAX)).layer(always_fails);
    usage.case(bench, "consecutive, every call fails", &service).ours();

    let service = CircuitBreakerLayer::new(last_100).layer(never_fails.clone());
    usage.case(bench, "last 100 calls", &service).ours().on_two_threads(usage.batch(&service));
    let last_calls = bench.last();

    // With a failure among the last 100 at all times, no success leaves the circuit as it was.
    let service = CircuitBreakerLayer::new(last_100).layer(seldom_fails);
    usage.case(bench, "last 100 calls, 5 % fail", &service).ours();

    let service = CircuitBreakerLayer::new(last_hour).layer(never_fails.clone());
    let handle = service.handle();
    usage.case_with(bench, "time window, none in it at first", &service, move || handle.reset()).ours();
    let empty_window = bench.last();

    let service = CircuitBreakerLayer::new(last_hour).layer(never_fails.clone());
    let handle = service.handle();
    (0..1_000_000).for_each(|_| handle.try_acquire().expect("it is closed").success());
    usage.case(bench, "time window, a million in it", &service).ours();
    let full_window = bench.last();

    // Only calls that wait pay for it.
    let service = CircuitBreakerLayer::new(consecutive(5).slow_calls(HOUR)).layer(never_fails.clone());
    usage.case(bench, "consecutive, with slow calls", &service).ours();

    let service = CircuitBreakerLayer::new(consecutive(5)).layer(never_fails);
    let handle = service.handle();
    (0..5).for_each(|_| handle.try_acquire().expect("it is closed").failure());
    usage.case(bench, "open, refuses", &service).ours();

    Rows { bare, consecutive: consecutive_row, last_calls, empty_window, full_window }
}

fn never_fails(n: u64) -> Answer {
    Ok(n)
}

fn seldom_fails(n: u64) -> Answer {
    if n.is_multiple_of(20) { Err(Error::Service(Down)) } else { Ok(n) }
}

fn always_fails(_: u64) -> Answer {
    Err(Error::Service(Down))
}
