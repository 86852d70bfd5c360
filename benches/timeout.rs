//! What the time-out and the deadline add to a call that is in time: CPU time and allocations beside the bare service. What skews it: the clock
//! is tokio's with `test-util` in it (31 ns a reading), because the tests of this package need that, so rows that are pending look dear
//! here; the package `buttress-peers` compares them by like clocks. And most of a pending row is the runtime that comes back to it.
//!
//! ```text
//! cargo bench --bench timeout [-- [--short] [FILTER]]
//! ```

mod harness;

use std::{future::ready, rc::Rc, time::Duration};

use buttress::{DeadlineLayer, Error, timeout::TimeoutLayer};
use tower::{Layer, Service, service_fn};

use harness::{
    Bench, Bound, Case, CaseId,
    drive::PendingOnce,
    usage::{Use, runtime},
};

/// Longer than any call here takes, on however busy a machine.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("down")]
struct Down;

fn main() {
    let runtime = Rc::new(runtime());
    // Polling by hand happens inside a runtime too: that is where tokio's clock costs what it costs.
    let _entered = runtime.enter();
    let mut bench = Bench::from_args("timeout");

    for a_clone_per_call in [false, true] {
        bench.section(if a_clone_per_call { "ready at once, a clone per call" } else { "ready at once, long-lived" });
        let usage = Use { a_clone_per_call, runtime: None };
        rows(&mut bench, &usage, service_fn(|n| ready(Ok::<u64, Error<Down>>(n))));
    }
    for (a_clone_per_call, usage_name) in [(false, "long-lived"), (true, "a clone per call")] {
        bench.section(if a_clone_per_call { "pending once, a clone per call" } else { "pending once, long-lived" });
        let usage = Use { a_clone_per_call, runtime: Some(Rc::clone(&runtime)) };
        let timeout = rows(&mut bench, &usage, service_fn(|n| PendingOnce::new(Ok::<u64, Error<Down>>(n))));
        let name = format!("pending once, {usage_name}: allocations of a time-out");
        bench.gate_allocations_of(&name, timeout, Bound::AtMost(1.0));
    }
    bench.gate_allocations();
    bench.run();
}

/// The cases of a section; answers with the time-out's.
fn rows<S>(bench: &mut Bench, usage: &Use, client: S) -> CaseId
where
    S: Service<u64, Response = u64, Error = Error<Down>, Future: Send> + Clone + Send + 'static,
{
    // Who waits makes a timer, and that is an allocation.
    let waits = usage.runtime.is_some();
    let may_wait = |case: &mut Case| {
        case.ours();
        if waits {
            case.may_allocate();
        }
    };
    let (timeout, deadline) = (TimeoutLayer::new(LIMIT), DeadlineLayer::new(2 * LIMIT));

    // The floor, and the control of two threads: it shares nothing, so what it lacks to 2.00 is the machine's doing.
    usage.case(bench, "bare service", &client).on_two_threads(usage.batch(&client));

    let service = timeout.layer(client.clone());
    may_wait(usage.case(bench, "time-out", &service).on_two_threads(usage.batch(&service)));
    let timeout_row = bench.last();

    // Nobody inside reads it, and where the compiler sees that it leaves it out altogether.
    usage.case(bench, "deadline", &deadline.layer(client.clone())).ours();

    may_wait(usage.case(bench, "time-out in a deadline", &deadline.layer(timeout.layer(client.clone()))));

    // Each makes a timer of its own.
    let service = TimeoutLayer::new(2 * LIMIT).layer(timeout.layer(client));
    let service = TimeoutLayer::new(3 * LIMIT).layer(service);
    may_wait(usage.case(bench, "three time-outs in one another", &service));
    timeout_row
}
