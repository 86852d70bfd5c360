//! Our circuit breaker beside its peers, in one run: what a call costs in each, healthy, refused, and pending once. What skews it: each reads
//! the clock it comes with (ours is the time stamp counter here, theirs is std's), because that is what a user gets; peers that are no tower
//! layers do without a service and mostly without a future, and ours is held to their figure all the same.
//!
//! ```text
//! cargo bench -p buttress-peers [-- [--short] [FILTER]]
//! ```
//!
//! Only with `-p`: a build of the whole workspace turns tokio's `test-util` on, and every clock of tokio's gets slower.

#[path = "../../harness/mod.rs"]
mod harness;

use std::{cell::Cell, error, fmt, future::ready, hint::black_box, rc::Rc, time::Duration};

use buttress::circuit_breaker::{CircuitBreaker, CircuitBreakerLayer, CircuitBreakerSettings, CircuitState, Window};
use circuitbreaker_rs as cbrs;
use failsafe::{backoff, failure_policy};
use recloser::{AsyncRecloser, Recloser};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, limit::ConcurrencyLimit, load_shed::LoadShed, service_fn};
use tower_resilience_circuitbreaker as tr;

use harness::{
    Batch, Bench, Bound, CaseId,
    drive::{PendingOnce, awaited, by_hand, clones_by_hand, futures_awaited, futures_by_hand, plain},
};

/// Long enough for no circuit to leave the state it was put into.
const HOUR: Duration = Duration::from_secs(3600);
/// failsafe's default.
const WINDOW: Duration = Duration::from_secs(30);

/// The client's own error, the same below every breaker.
#[derive(Clone, Copy, Debug)]
struct Down;

type Answer = Result<u64, Down>;
/// As it is wrapped for ours: our layers answer with the inner service's error, so it must have a place for a refusal.
type Wrapped = Result<u64, buttress::Error<Down>>;

fn main() {
    let runtime = Rc::new(Builder::new_current_thread().enable_all().build().expect("a runtime"));
    let _entered = runtime.enter();
    let mut bench = Bench::from_args("circuit_breaker_peers");
    run_of_failures(&mut bench);
    last_100_calls(&mut bench);
    last_seconds(&mut bench);
    refusal(&mut bench);
    pending_once(&mut bench, &runtime);
    bench.gate_allocations();
    for (name, calls) in failures_to_open() {
        bench.remark(&format!("failures that open a window of 100 calls at 50 % after 10,000 successes, {name}"), calls);
    }
    bench.run();
}

/// Opens on 5 failures in a row; healthy.
fn run_of_failures(bench: &mut Bench) {
    bench.section("closed, 5 failures in a row");
    let ours = CircuitBreakerLayer::new(CircuitBreakerSettings::consecutive_failures(5)).layer(wrapped());
    let mut service = ours.clone();
    bench
        .case("buttress", move |calls| by_hand(&mut service, calls))
        .ours()
        .on_two_threads(|| long_lived(&ours));
    let buttress = bench.last();
    bench
        .case("buttress, a clone per call", {
            let ours = ours.clone();
            move |calls| clones_by_hand(&ours, calls)
        })
        .ours()
        .on_two_threads(|| a_clone_per_call(&ours));

    // What any service costs that does something. The bare one shares nothing: with two threads it is the control.
    let mut service = bare();
    bench.case("bare service", move |calls| by_hand(&mut service, calls)).on_two_threads(|| long_lived(&bare()));
    let mut service = LoadShed::new(bare());
    bench.case("tower LoadShed", move |calls| by_hand(&mut service, calls));
    let mut service = ConcurrencyLimit::new(bare(), 100);
    bench.case("tower ConcurrencyLimit", move |calls| by_hand(&mut service, calls));

    let breaker = failsafe_run();
    let shared = breaker.clone();
    bench.case("failsafe call", move |calls| plain(calls, |n| failsafe_call(&breaker, n))).on_two_threads(|| {
        let breaker = shared.clone();
        Box::new(move |calls| plain(calls, |n| failsafe_call(&breaker, n)))
    });
    let failsafe = bench.last();
    let breaker = failsafe_run();
    bench.case("failsafe is_call_permitted + on_success", move |calls| {
        plain(calls, |n| {
            let permitted = breaker.is_call_permitted();
            breaker.on_success();
            (permitted, n)
        });
    });
    let breaker = failsafe_run();
    bench.case("failsafe async call", move |calls| {
        futures_by_hand(calls, |n| failsafe::futures::CircuitBreaker::call(&breaker, ready(never_fails(n))));
    });

    let service = tr_run();
    let mut service = 
}
