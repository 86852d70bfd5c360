//! Our RED beside the macros of the `metrics` facade, and a whole stack with RED beside tower-resilience's, in one run. What skews it: ours reads
//! the time stamp counter, the macros' layer and tower-resilience tokio's and std's clocks, because that is what a user gets; the rows with a recorder write to
//! that of Prometheus, whose histograms keep every sample until somebody asks, so it is asked between the batches. The stack is retry,
//! circuit breaker, rate limit and time-out.
//!
//! ```text
//! cargo bench -p buttress-peers --bench red [--features metered] [-- [--short] [FILTER]]
//! ```
//!
//! `metered` turns tower-resilience's own metrics on. Features are those of a whole build, so without and with are two runs, each with its gate.
//!
//! Only with `-p`: a build of the whole workspace turns tokio's `test-util` on, and with it slower clocks.

#[path = "../../harness/mod.rs"]
mod harness;

use std::{
    future::{Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use buttress::{
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings},
    rate_limit::{Quota, RateLimitLayer, RateLimitSettings},
    red::{RedLayer, RedSettings},
    retry::{RetryLayer, RetrySettings},
    timeout::TimeoutLayer,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_resilience_circuitbreaker as tr_breaker;
use tower_resilience_ratelimiter as tr_limiter;
use tower_resilience_retry as tr_retry;
use tower_resilience_timelimiter as tr_timeout;

use harness::{
    Bench, Bound, Case, CaseId,
    drive::{by_hand, clones_by_hand, plain},
    usage::{Use, runtime},
};

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("down")]
struct Down;

type Answer = Result<u64, buttress::Error<Down>>;

/// More than any machine calls.
const ENDLESS: u32 = 1_000_000_000;
/// Longer than any call here takes.
const LIMIT: Duration = Duration::from_secs(30);

fn call(n: u64) -> Ready<Answer> {
    ready(Answer::Ok(n))
}

fn main() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut bench = Bench::from_args("red_peers");
    let recorder = Arc::new(PrometheusBuilder::new().build_recorder());

    let unrecorded = without_recorder(&mut bench);
    with_recorder(&mut bench, &recorder);
    stacks(&mut bench, &recorder);

    bench.gate_two_threads("no recorder: two threads of one", unrecorded, Bound::AtLeast(1.8));
    bench.gate_allocations();
    bench.run();
}

/// The snapshot alone.
fn without_recorder(bench: &mut Bench) -> CaseId {
    bench.section("one call, no recorder");
    let [long_lived, cloned] = [false, true].map(|a_clone_per_call| Use { a_clone_per_call, runtime: None });
    let client = service_fn(call);
    let service = RedLayer::new("bench").layer(client);
    long_lived.case(bench, "buttress", &service).ours().on_two_threads(long_lived.batch(&service));
    let ours = bench.last();
    cloned.case(bench, "buttress, a clone per call", &service).ours().on_two_threads(cloned.batch(&service));
    long_lived.case(bench, "bare service", &client).on_two_threads(long_lived.batch(&client));
    let service = Macros(client);
    long_lived.case(bench, "a layer of macros", &service);
    ours
}

fn with_recorder(bench: &mut Bench, recorder: &Arc<PrometheusRecorder>) {
    bench.section("one call, Prometheus");
    let client = service_fn(call);
    let service = RedLayer::new("bench").layer(client);
    recorded(bench, "buttress", recorder, &service).may_allocate();
    let ours = bench.last();
    recorded_clones(bench, "buttress, a clone per call", recorder, &service).may_allocate();
    let labelled = RedLayer::new(RedSettings::new("labelled").label("route", &["/a", "/b", "/c", "/d", "/e", "/f"]));
    let service = labelled.label_by(|_: &u64| "/e").layer(client);
    recorded(bench, "buttress, a label of six", recorder, &service).may_allocate();

    recorded(bench, "a layer of macros", recorder, &Macros(client));
    let layer = bench.last();
    let (kept, handle) = (Arc::clone(recorder), recorder.handle());
    bench.case_with(
        "the macros alone",
        move || handle.run_upkeep(),
        move |(), calls| {
            metrics::with_local_recorder(&*kept, || {
                plain(calls, |_| {
                    begin();
                    constant_end(Duration::from_micros(5));
                });
            });
        },
    );
    let macros = bench.last();
    floor(bench, recorder);
    bench.gate("Prometheus: of the macros alone", ours, macros, Bound::AtMost(0.2));
    bench.gate("Prometheus: of a layer of them", ours, layer, Bound::AtMost(0.2));
    // Those of the recorder: blocks of samples.
    bench.gate_allocations_of("Prometheus: allocations of ours", ours, Bound::AtMost(0.02));
}

/// What none can do without who tells this recorder the same: its own handles, and two readings of the clock.
fn floor(bench: &mut Bench, recorder: &Arc<PrometheusRecorder>) {
    let (in_flight, requests, took) = metrics::with_local_recorder(&**recorder, || {
        let labels = [("name", "floor"), ("outcome", "ok")];
        let (gauge, counter) = (metrics::gauge!("in_flight", &labels), metrics::counter!("requests_total", &labels));
        (gauge, counter, metrics::histogram!("duration_seconds", &labels))
    });
    let clock = quanta::Clock::new();
    recorded_batch(bench, "handles and a clock alone", recorder, move |calls| {
        plain(calls, |_| {
            in_flight.increment(1.0);
            let began = clock.raw();
            let took_nanos = clock.delta_as_nanos(began, clock.raw());
            in_flight.decrement(1.0);
            requests.increment(1);
            took.record(took_nanos as f64 / 1e9);
        });
    });
}

/// The whole stack.
fn stacks(bench: &mut Bench, recorder: &Arc<PrometheusRecorder>) {
    bench.section("a stack, Prometheus");
    let quota = Quota::per_second(u64::from(ENDLESS));
    let rest = || {
        ServiceBuilder::new()
            .layer(RetryLayer::new(RetrySettings::new()))
            .layer(CircuitBreakerLayer::new(CircuitBreakerSettings::consecutive_failures(5)))
            .layer(RateLimitLayer::new(RateLimitSettings::token_bucket(quota)))
            .layer(TimeoutLayer::new(LIMIT))
            .service(service_fn(call))
    };
    let service = RedLayer::new("stack").layer(rest());
    recorded(bench, "buttress, with RED", recorder, &service).may_allocate();
    let ours = bench.last();
    recorded_clones(bench, "buttress, with RED, a clone per call", recorder, &service).may_allocate();
    let service = rest();
    recorded(bench, "buttress, without RED", recorder, &service).ours();
    let plain = bench.last();
    let mut service = rest();
    let future = size_of_val(&service.call(0));
    bench.remark("the stack's future without RED".into(), format!("{future} bytes"));
    let mut service = RedLayer::new("size").layer(rest());
    let future = size_of_val(&service.call(0));
    bench.remark("the stack's future with RED".into(), format!("{future} bytes"));

    let service = ServiceBuilder::new()
        .layer(tr_retry::RetryLayer::builder().max_attempts(3).build())
        .layer(tr_breaker::CircuitBreakerLayer::builder().consecutive_failures(5).build().expect("a layer"))
        .layer(
            tr_limiter::RateLimiterLayer::builder()
                .limit_for_period(ENDLESS as usize)
                .refresh_period(Duration::from_secs(1))
                .build()
                .expect("a layer"),
        )
        .layer(tr_timeout::TimeLimiterLayer::builder().timeout_duration(LIMIT).build())
        .service(service_fn(call));
    if cfg!(feature = "metered") {
        recorded(bench, "tower-resilience, with metrics", recorder, &service);
        bench.gate("a stack: of tower-resilience's with metrics", ours, bench.last(), Bound::AtMost(1.0 / 30.0));
    } else {
        recorded(bench, "tower-resilience, without metrics", recorder, &service);
        let name = "a stack without RED: of tower-resilience's without metrics";
        bench.gate(name, plain, bench.last(), Bound::AtMost(1.0 / 15.0));
    }
}

// ===== with a recorder =====

/// One long-lived service, on the thread of this recorder.
fn recorded<'a, S>(bench: &'a mut Bench, name: &str, recorder: &Arc<PrometheusRecorder>, service: &S) -> &'a mut Case
where
    S: Service<u64> + Clone + 'static,
{
    let mut service = service.clone();
    recorded_batch(bench, name, recorder, move |calls| by_hand(&mut service, calls))
}

fn recorded_clones<'a, S>(
    bench: &'a mut Bench,
    name: &str,
    recorder: &Arc<PrometheusRecorder>,
    service: &S,
) -> &'a mut Case
where
    S: Service<u64> + Clone + 'static,
{
    let service = service.clone();
    recorded_batch(bench, name, recorder, move |calls| clones_by_hand(&service, calls))
}

fn recorded_batch<'a>(
    bench: &'a mut Bench,
    name: &str,
    recorder: &Arc<PrometheusRecorder>,
    mut batch: impl FnMut(u64) + 'static,
) -> &'a mut Case {
    let (recorder, handle): (_, PrometheusHandle) = (Arc::clone(recorder), recorder.handle());
    bench.case_with(
        name,
        move || handle.run_upkeep(),
        move |(), calls| metrics::with_local_recorder(&*recorder, || batch(calls)),
    )
}

// ===== what one writes by hand =====

/// RED as it is mostly written: macros for each call.
#[derive(Clone)]
struct Macros<S>(S);

struct MacrosFuture<F> {
    inner: F,
    began: tokio::time::Instant,
}

fn begin() {
    metrics::gauge!("in_flight", "name" => "bench").increment(1.0);
}

fn end(outcome: &'static str, took: Duration) {
    metrics::gauge!("in_flight", "name" => "bench").decrement(1.0);
    metrics::counter!("requests_total", "name" => "bench", "outcome" => outcome).increment(1);
    metrics::histogram!("duration_seconds", "name" => "bench", "outcome" => outcome).record(took);
}

/// With labels that the compiler knows, which cost half the allocations.
fn constant_end(took: Duration) {
    metrics::gauge!("in_flight", "name" => "bench").decrement(1.0);
    metrics::counter!("requests_total", "name" => "bench", "outcome" => "ok").increment(1);
    metrics::histogram!("duration_seconds", "name" => "bench", "outcome" => "ok").record(took);
}

impl<S: Service<u64, Future: Unpin>> Service<u64> for Macros<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = MacrosFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: u64) -> Self::Future {
        begin();
        MacrosFuture { began: tokio::time::Instant::now(), inner: self.0.call(request) }
    }
}

impl<F: Future<Output = Result<T, E>> + Unpin, T, E> Future for MacrosFuture<F> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.inner).poll(cx);
        if let Poll::Ready(result) = &polled {
            end(if result.is_ok() { "ok" } else { "error" }, self.began.elapsed());
        }
        polled
    }
}
