//! Our time-out beside its peers, in one run: what a call costs that is in time, ready at once and pending once. What skews it: each reads the
//! clock it comes with (ours is the time stamp counter here, theirs are tokio's and std's), because that is what a user gets; ours still
//! asks tokio's to make a timer. Ours answers with the client's own error, so all of them get one that has a place for a refusal: ours
//! wrapped around the client's, which is larger, and then a box, as tower's answers with. And most of a pending row is the runtime that
//! comes back to it, the same in all of them.
//!
//! ```text
//! cargo bench -p buttress-peers --bench timeout [-- [--short] [FILTER]]
//! ```
//!
//! Only with `-p`: a build of the whole workspace turns tokio's `test-util` on, and with it slower clocks.

#[path = "../../harness/mod.rs"]
mod harness;

use std::{future::ready, rc::Rc, time::Duration};

use buttress::{BoxError, CanReject, timeout::TimeoutLayer};
use tokio::runtime::Runtime;
use tower::{Layer, service_fn, timeout::Timeout};
use tower_resilience_timelimiter::TimeLimiterLayer;

use harness::{
    Bench, Bound, Case, CaseId,
    drive::PendingOnce,
    usage::{Use, runtime},
};

/// Longer than any call here takes, on however busy a machine.
const LIMIT: Duration = Duration::from_secs(30);

/// The client's own error.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("down")]
struct Down;

/// What the client below every time-out answers with.
type Wrapped = Result<u64, buttress::Error<Down>>;
type Boxed = Result<u64, BoxError>;

/// What the gates speak of.
struct Rows {
    buttress: CaseId,
    tower: CaseId,
    tower_resilience: CaseId,
}

fn main() {
    let runtime = Rc::new(runtime());
    // Services are polled by hand where they are polled: inside a runtime. Without one, theirs cannot make their timers.
    let _entered = runtime.enter();
    let mut bench = Bench::from_args("timeout_peers");

    bench.section("ready at once");
    let at_once = rows(&mut bench, None, |n| ready(Wrapped::Ok(n)));
    bench.section("ready at once, a boxed error");
    rows(&mut bench, None, |n| ready(Boxed::Ok(n)));
    bench.section("pending once");
    let pending = rows(&mut bench, Some(&runtime), |n| PendingOnce::new(Wrapped::Ok(n)));
    bench.section("pending once, a boxed error");
    rows(&mut bench, Some(&runtime), |n| PendingOnce::new(Boxed::Ok(n)));

    bench.gate("ready at once: of tower's", at_once.buttress, at_once.tower, Bound::AtMost(0.15));
    bench.gate("pending once: of tower's", pending.buttress, pending.tower, Bound::AtMost(1.05));
    let name = "pending once: of tower-resilience's";
    bench.gate(name, pending.buttress, pending.tower_resilience, Bound::AtMost(0.75));
    bench.gate_allocations();
    bench.gate_allocations_of("pending once: allocations of ours", pending.buttress, Bound::AtMost(1.0));
    bench.run();
}

/// The cases of a section, in both ways of use.
fn rows<F, E>(bench: &mut Bench, runtime: Option<&Rc<Runtime>>, call: impl Fn(u64) -> F + Copy + Send + 'static) -> Rows
where
    F: Future<Output = Result<u64, E>> + Send + 'static,
    E: CanReject + Into<BoxError> + Send + 'static,
{
    let [long_lived, cloned] =
        [false, true].map(|a_clone_per_call| Use { a_clone_per_call, runtime: runtime.cloned() });
    let client = service_fn(call);
    // Who waits makes a timer, and with us that is an allocation: the others have a place for it in each call.
    let may_wait = |case: &mut Case| {
        case.ours();
        if runtime.is_some() {
            case.may_allocate();
        }
    };

    let service = TimeoutLayer::new(LIMIT).layer(client);
    may_wait(long_lived.case(bench, "buttress", &service).on_two_threads(long_lived.batch(&service)));
    let buttress = bench.last();
    may_wait(cloned.case(bench, "buttress, a clone per call", &service).on_two_threads(cloned.batch(&service)));

    // The bare service shares nothing: with two threads it is the control, and what it lacks to 2.00 is the machine's doing.
    long_lived.case(bench, "bare service", &client).on_two_threads(long_lived.batch(&client));

    let service = Timeout::new(client, LIMIT);
    long_lived.case(bench, "tower Timeout", &service).on_two_threads(long_lived.batch(&service));
    let tower = bench.last();
    cloned.case(bench, "tower Timeout, a clone per call", &service);

    // No service, and so nothing to clone.
    long_lived.futures(bench, "tokio timeout", move |n| tokio::time::timeout(LIMIT, call(n)));

    // It ends the call when the time is over, as the others do: its default.
    let service = TimeLimiterLayer::builder().timeout_duration(LIMIT).build().layer(client);
    long_lived.case(bench, "tower-resilience", &service).on_two_threads(long_lived.batch(&service));
    let tower_resilience = bench.last();
    cloned.case(bench, "tower-resilience, a clone per call", &service);

    Rows { buttress, tower, tower_resilience }
}
