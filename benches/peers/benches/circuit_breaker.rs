//! Our circuit breaker beside its peers, in one run: what a call costs in each, healthy, refused, and pending once. What skews it: each reads
//! the clock it comes with (ours is the time stamp counter here, theirs is std's), because that is what a user gets; peers that are no tower
//! layers do without a service and mostly without a future, and ours is held to their figure all the same.
//!
//! ```text
//! cargo bench -p buttress-peers [-- [--short] [FILTER]]
//! ```
//!
//! Only with `-p`: a build of the whole workspace turns tokio's `test-util` on, and with it slower clocks.

#[path = "../../harness/mod.rs"]
mod harness;

use std::{
    future::ready,
    rc::Rc,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use buttress::circuit_breaker::{CircuitBreaker, CircuitBreakerLayer, CircuitBreakerSettings, Window};
use circuitbreaker_rs as cbrs;
use failsafe::{backoff, failure_policy};
use recloser::{AsyncRecloser, Recloser};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, limit::ConcurrencyLimit, load_shed::LoadShed, service_fn};
use tower_resilience_circuitbreaker as tr;

use harness::{
    Bench, Bound, Case,
    drive::{
        PendingOnce, awaited, batch_by_hand, batch_of_clones_by_hand, by_hand, clones_by_hand, futures_awaited,
        futures_by_hand, one_by_hand, plain,
    },
};

/// Long enough for a circuit to stay what it is.
const HOUR: Duration = Duration::from_secs(3600);
/// failsafe's default.
const WINDOW: Duration = Duration::from_secs(30);

/// The client's own error: the same below every breaker.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("down")]
struct Down;

fn main() {
    let runtime = Rc::new(Builder::new_current_thread().enable_all().build().expect("a runtime"));
    // Services are polled by hand where they are polled: inside a runtime.
    let _entered = runtime.enter();
    let mut bench = Bench::from_args("circuit_breaker_peers");
    run_of_failures(&mut bench);
    last_100_calls(&mut bench);
    last_seconds(&mut bench);
    refusal(&mut bench, &runtime);
    pending_once(&mut bench, &runtime);
    bench.gate_allocations();
    failures_to_open(&mut bench);
    bench.run();
}

/// Opens on 5 failures in a row; there are none.
fn run_of_failures(bench: &mut Bench) {
    bench.section("closed, 5 failures in a row");
    let service = ours(CircuitBreakerSettings::consecutive_failures(5));
    long_lived(bench, "buttress", &service).ours().on_two_threads(|| batch_by_hand(service.clone()));
    let buttress = bench.last();
    a_clone_per_call(bench, "buttress, a clone per call", &service)
        .ours()
        .on_two_threads(|| batch_of_clones_by_hand(service.clone()));

    // The bare service shares nothing: with two threads it is the control, and what it lacks to 2.00 is the machine's doing.
    long_lived(bench, "bare service", &client()).on_two_threads(|| batch_by_hand(client()));
    long_lived(bench, "tower LoadShed", &LoadShed::new(client()));
    long_lived(bench, "tower ConcurrencyLimit", &ConcurrencyLimit::new(client(), 100));

    let breaker = failsafe_on_run();
    let shared = breaker.clone();
    bench.case("failsafe call", move |calls| plain(calls, |n| failsafe_call(&breaker, n))).on_two_threads(|| {
        let breaker = shared.clone();
        Box::new(move |calls| plain(calls, |n| failsafe_call(&breaker, n)))
    });
    let failsafe = bench.last();
    let breaker = failsafe_on_run();
    bench.case("failsafe async call", move |calls| {
        futures_by_hand(calls, |n| failsafe::futures::CircuitBreaker::call(&breaker, ready(Ok::<u64, Down>(n))));
    });

    let service = tr::CircuitBreakerLayer::builder().consecutive_failures(5).build().expect("a layer").layer(client());
    long_lived(bench, "tower-resilience", &service).on_two_threads(|| batch_by_hand(service.clone()));
    let tower_resilience = bench.last();
    a_clone_per_call(bench, "tower-resilience, a clone per call", &service);

    bench.gate("consecutive: of failsafe's call", buttress, failsafe, Bound::AtMost(0.5));
    bench.gate("consecutive: of tower-resilience's", buttress, tower_resilience, Bound::AtMost(1.0 / 35.0));
    bench.gate_two_threads("consecutive: two threads of one", buttress, Bound::AtLeast(1.9));
}

/// Opens at 50 % of the last 100 calls; the window is full and good, or 5 % of it failed.
fn last_100_calls(bench: &mut Bench) {
    bench.section("closed, 50 % of the last 100 calls");
    let settings = CircuitBreakerSettings::failure_rate(0.5).window(Window::Calls(100));
    let service = ours(settings);
    long_lived(bench, "buttress", &service).ours().on_two_threads(|| batch_by_hand(service.clone()));
    let buttress = bench.last();
    a_clone_per_call(bench, "buttress, a clone per call", &service).ours();
    let service = CircuitBreakerLayer::new(settings)
        .layer(service_fn(|n| ready(seldom_fails(n).map_err(buttress::Error::Service))));
    long_lived(bench, "buttress, 5 % fail", &service).ours();

    // Its builder's defaults, but for the wait.
    let recloser = || Recloser::custom().error_rate(0.5).closed_len(100).half_open_len(10).open_wait(HOUR).build();
    let breaker = Arc::new(recloser());
    let shared = breaker.clone();
    bench.case("recloser call", move |calls| plain(calls, |n| breaker.call(|| Ok::<u64, Down>(n)))).on_two_threads(
        || {
            let breaker = shared.clone();
            Box::new(move |calls| plain(calls, |n| breaker.call(|| Ok::<u64, Down>(n))))
        },
    );
    let recloser_call = bench.last();
    let breaker = recloser();
    bench.case("recloser call, 5 % fail", move |calls| plain(calls, |n| breaker.call(|| seldom_fails(n))));
    let breaker = AsyncRecloser::from(recloser());
    bench.case("recloser async call", move |calls| {
        futures_by_hand(calls, |n| breaker.call(ready(Ok::<u64, Down>(n))));
    });

    // It has no window: its rate is over all calls since it closed. The nearest that it has.
    let breaker = circuitbreaker_rs();
    let shared = breaker.clone();
    bench.case("circuitbreaker-rs call", move |calls| plain(calls, |n| breaker.call(|| Ok(n)))).on_two_threads(|| {
        let breaker = shared.clone();
        Box::new(move |calls| plain(calls, |n| breaker.call(|| Ok(n))))
    });

    long_lived(bench, "tower-resilience", &tower_resilience_on_rate().layer(client()));
    bench.gate("last 100 calls: of recloser's call", buttress, recloser_call, Bound::AtMost(0.5));
}

/// Opens at 50 % of the calls of some time. The first rows keep what the run itself puts into the window.
fn last_seconds(bench: &mut Bench) {
    bench.section("closed, 50 % of the last 30 s");
    let rate = |time| ours(CircuitBreakerSettings::failure_rate(0.5).window(Window::Time(time)));
    let service = rate(WINDOW);
    long_lived(bench, "buttress", &service).ours().on_two_threads(|| batch_by_hand(service.clone()));
    let buttress = bench.last();
    a_clone_per_call(bench, "buttress, a clone per call", &service).ours();

    // An hour, so that what is put in stays in.
    let mut service = rate(HOUR);
    let handle = service.handle();
    bench
        .case_with("buttress, none in it at first", move || handle.reset(), move |(), n| by_hand(&mut service, n))
        .ours();
    let empty = bench.last();
    let mut service = rate(HOUR);
    by_hand(&mut service, 1_000_000);
    long_lived(bench, "buttress, a million in it", &service).ours();
    let full = bench.last();

    let breaker = failsafe::Config::new()
        .failure_policy(failure_policy::success_rate_over_time_window(0.5, 20, WINDOW, backoff::constant(HOUR)))
        .build();
    bench.case("failsafe is_call_permitted + on_success", move |calls| {
        plain(calls, |n| {
            let permitted = breaker.is_call_permitted();
            breaker.on_success();
            (permitted, n)
        });
    });
    let failsafe = bench.last();

    // Each call is a record, and each call walks over all of them, so how many there are must be said.
    let prefilled = |calls| {
        move || {
            let layer = tr::CircuitBreakerLayer::builder()
                .failure_rate_threshold(0.5)
                .sliding_window_type(tr::SlidingWindowType::TimeBased)
                .sliding_window_duration(WINDOW)
                .minimum_number_of_calls(20)
                .build();
            let mut service = layer.expect("a layer").layer(client());
            by_hand(&mut service, calls);
            service
        }
    };
    // Its window grows by the buffer that holds the records: that is in the figure too.
    bench.case_with("tower-resilience, none in it at first", prefilled(0), by_hand);
    bench.case_with("tower-resilience, 10,000 in it at first", prefilled(10_000), by_hand);

    bench.gate("last 30 s: of failsafe's rate window", buttress, failsafe, Bound::AtMost(0.35));
    bench.gate("time window: a million calls in it of none", full, empty, Bound::Between(0.9, 1.1));
}

/// Open, and for long.
fn refusal(bench: &mut Bench, runtime: &Runtime) {
    bench.section("open, refuses");
    let settings = CircuitBreakerSettings::consecutive_failures(5).open_for(HOUR);
    let service = ours(settings);
    let handle = service.handle();
    (0..5).for_each(|_| handle.try_acquire().expect("it is closed").failure());
    long_lived(bench, "buttress", &service).ours().on_two_threads(|| batch_by_hand(service.clone()));
    let buttress = bench.last();
    a_clone_per_call(bench, "buttress, a clone per call", &service).ours();

    let breaker = failsafe_on_run();
    (0..5).for_each(|_| breaker.on_error());
    bench.case("failsafe call", move |calls| plain(calls, |n| failsafe_call(&breaker, n)));
    let failsafe = bench.last();

    let breaker = Recloser::custom().closed_len(1).open_wait(HOUR).build();
    (0..2).for_each(|_| drop(breaker.call(|| Err::<u64, Down>(Down))));
    bench.case("recloser call", move |calls| plain(calls, |n| breaker.call(|| Ok::<u64, Down>(n))));

    let breaker = circuitbreaker_rs();
    breaker.force_open();
    bench.case("circuitbreaker-rs call", move |calls| plain(calls, |n| breaker.call(|| Ok(n))));

    let layer = tr::CircuitBreakerLayer::builder().consecutive_failures(5).wait_duration_in_open(HOUR).build();
    let service = layer.expect("a layer").layer(client());
    runtime.block_on(service.force_open());
    long_lived(bench, "tower-resilience", &service);

    bench.gate("open: of failsafe's call", buttress, failsafe, Bound::AtMost(0.45));
}

/// As calls are in earnest: a runtime has to come back to them. What is not ours to change is most of it.
fn pending_once(bench: &mut Bench, runtime: &Rc<Runtime>) {
    bench.section("closed, answers pending once");
    let run = CircuitBreakerSettings::consecutive_failures(5);
    let rate = CircuitBreakerSettings::failure_rate(0.5);
    let wrapped = service_fn(|n| PendingOnce::new(Ok::<u64, buttress::Error<Down>>(n)));
    let layered = |settings| CircuitBreakerLayer::new(settings).layer(wrapped);
    let bare = service_fn(|n| PendingOnce::new(Ok::<u64, Down>(n)));

    in_runtime(bench, runtime, "buttress, 5 failures in a row", &layered(run)).ours();
    let on_run = bench.last();
    in_runtime(bench, runtime, "buttress, last 100 calls", &layered(rate)).ours();
    let on_calls = bench.last();
    in_runtime(bench, runtime, "buttress, last 30 s", &layered(rate.window(Window::Time(WINDOW)))).ours();
    // Two readings of the clock and two turns of the lock: what it costs to see a hang before it ends.
    in_runtime(bench, runtime, "buttress, 5 failures in a row, slow calls", &layered(run.slow_calls(HOUR))).ours();
    in_runtime(bench, runtime, "bare service", &bare);
    let floor = bench.last();
    in_runtime(bench, runtime, "bare service, its error wrapped", &wrapped);

    let (breaker, in_it) = (failsafe_on_run(), Rc::clone(runtime));
    bench.case("failsafe async call", move |calls| {
        in_it.block_on(futures_awaited(calls, |n| {
            failsafe::futures::CircuitBreaker::call(&breaker, PendingOnce::new(Ok::<u64, Down>(n)))
        }));
    });
    let (breaker, in_it) = (AsyncRecloser::from(Recloser::custom().closed_len(100).build()), Rc::clone(runtime));
    bench.case("recloser async call", move |calls| {
        in_it.block_on(futures_awaited(calls, |n| breaker.call(PendingOnce::new(Ok::<u64, Down>(n)))));
    });
    in_runtime(bench, runtime, "tower-resilience", &tower_resilience_on_rate().layer(bare));

    bench.gate("pending once, consecutive: of the bare service", on_run, floor, Bound::AtMost(1.1));
    bench.gate("pending once, last 100 calls: of the bare service", on_calls, floor, Bound::AtMost(1.1));
}

/// Not a time, but what one may have been saved on: a window that forgets nothing is none.
fn failures_to_open(bench: &mut Bench) {
    let cx = &mut Context::from_waker(Waker::noop());
    let layer = CircuitBreakerLayer::new(CircuitBreakerSettings::failure_rate(0.5).window(Window::Calls(100)));
    let mut service = layer.layer(service_fn(|n| ready(late_failures(n).map_err(buttress::Error::Service))));
    failures_before_refusal(bench, "buttress", |n| {
        one_by_hand(&mut service, n, cx, |answer| matches!(answer, Err(buttress::Error::Rejected(_))))
    });

    let breaker = Recloser::custom().error_rate(0.5).closed_len(100).build();
    failures_before_refusal(bench, "recloser", |n| {
        matches!(breaker.call(|| late_failures(n)), Err(recloser::Error::Rejected))
    });

    let mut service = tower_resilience_on_rate().layer(service_fn(|n| ready(late_failures(n))));
    failures_before_refusal(bench, "tower-resilience", |n| {
        one_by_hand(&mut service, n, cx, |answer| matches!(answer, Err(tr::CircuitBreakerError::OpenCircuit)))
    });
}

const SUCCESSES: u64 = 10_000;

fn late_failures(n: u64) -> Result<u64, Down> {
    if n < SUCCESSES { Ok(n) } else { Err(Down) }
}

fn failures_before_refusal(bench: &mut Bench, name: &str, mut is_refused: impl FnMut(u64) -> bool) {
    let calls = (0..).find(|n| is_refused(*n)).expect("it opens in the end");
    let name = format!("{name}: failures that open 50 % of 100 calls after 10,000 successes");
    bench.remark(name, (calls - SUCCESSES).to_string());
}

// ===== the services and breakers =====

/// What is called, without a breaker.
fn client() -> impl Service<u64, Response = u64, Error = Down, Future: Send> + Clone + Send + 'static {
    service_fn(|n| ready(Ok(n)))
}

/// Our breaker around the same, with its error wrapped: ours answers with the inner service's error, so that must have a place for a refusal.
fn ours(
    settings: CircuitBreakerSettings,
) -> CircuitBreaker<
    impl Service<u64, Response = u64, Error = buttress::Error<Down>, Future: Send> + Clone + Send + 'static,
> {
    CircuitBreakerLayer::new(settings).layer(service_fn(|n| ready(Ok(n))))
}

fn seldom_fails(n: u64) -> Result<u64, Down> {
    if n.is_multiple_of(20) { Err(Down) } else { Ok(n) }
}

type OnRun = failsafe::StateMachine<failure_policy::ConsecutiveFailures<backoff::Constant>, ()>;

fn failsafe_on_run() -> OnRun {
    failsafe::Config::new().failure_policy(failure_policy::consecutive_failures(5, backoff::constant(HOUR))).build()
}

#[inline]
fn failsafe_call(breaker: &OnRun, n: u64) -> Result<u64, failsafe::Error<Down>> {
    failsafe::CircuitBreaker::call(breaker, || Ok(n))
}

/// As its docs begin, and without the trip on a run, which the others have not got in this section.
fn circuitbreaker_rs() -> cbrs::CircuitBreaker<cbrs::DefaultPolicy, Down> {
    cbrs::BreakerBuilder::new()
        .failure_threshold(0.5)
        .min_throughput(100)
        .consecutive_failures(u64::MAX)
        .cooldown(HOUR)
        .build()
}

fn tower_resilience_on_rate() -> tr::CircuitBreakerLayer {
    tr::CircuitBreakerLayer::builder()
        .failure_rate_threshold(0.5)
        .sliding_window_size(100)
        .minimum_number_of_calls(100)
        .build()
        .expect("a layer")
}

// ===== the ways to use them =====

fn long_lived<'a, S>(bench: &'a mut Bench, name: &str, service: &S) -> &'a mut Case
where
    S: Service<u64> + Clone + 'static,
{
    let mut service = service.clone();
    bench.case(name, move |calls| by_hand(&mut service, calls))
}

fn a_clone_per_call<'a, S>(bench: &'a mut Bench, name: &str, service: &S) -> &'a mut Case
where
    S: Service<u64> + Clone + 'static,
{
    let service = service.clone();
    bench.case(name, move |calls| clones_by_hand(&service, calls))
}

fn in_runtime<'a, S>(bench: &'a mut Bench, runtime: &Rc<Runtime>, name: &str, service: &S) -> &'a mut Case
where
    S: Service<u64> + Clone + 'static,
{
    let (mut service, runtime) = (service.clone(), Rc::clone(runtime));
    bench.case(name, move |calls| runtime.block_on(awaited(&mut service, calls)))
}
