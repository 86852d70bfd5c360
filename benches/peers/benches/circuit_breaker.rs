//! Our circuit breaker beside its peers, in one run: what a call costs in each, healthy and refused. What skews it: the sync peers are called
//! and not awaited, which spares them a service and a future, and we are held to that; clocks are each one's own (ours is the time stamp
//! counter, theirs is std's), because that is what a user gets.
//!
//! ```text
//! cargo bench -p buttress-peers [-- [--short] [FILTER]]
//! ```
//!
//! Only with `-p`: a build of the whole workspace turns tokio's `test-util` on, and with it slower clocks.

#[path = "../../harness/mod.rs"]
mod harness;

use std::{future::ready, hint::black_box, pin::pin, task::Context, task::Waker, time::Duration};

use buttress::{
    Error,
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings, CircuitState, Window},
};
use failsafe::{CircuitBreaker as _, backoff, failure_policy, futures::CircuitBreaker as _};
use recloser::{AsyncRecloser, Recloser};
use tokio::runtime::Builder;
use tower::{Layer, Service, limit::ConcurrencyLimit, load_shed::LoadShed, service_fn};
use tower_resilience_circuitbreaker as tr;

use harness::{
    Batch, Bench, Bound,
    drive::{PendingOnce, awaited, by_hand, clones_by_hand},
};

const HOUR: Duration = Duration::from_secs(3600);
const WINDOW: Duration = Duration::from_secs(30);

/// The client's own error, the same for all.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("down")]
struct Down;

fn main() {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    let mut bench = Bench::from_args("circuit_breaker_peers");
    consecutive(&mut bench);
    bench.run();
}

fn consecutive(bench: &mut Bench) {
    bench.section("closed, 5 consecutive failures");
    let ours = CircuitBreakerLayer::new(CircuitBreakerSettings::consecutive_failures(5)).layer(service());
    let failsafe = failsafe::Config::new()
        .failure_policy(failure_policy::consecutive_failures(5, backoff::constant(HOUR)))
        .build();
    let mut svc = ours.clone();
    bench.case("buttress", move |calls| by_hand(&mut svc, calls)).ours();
    bench.case("failsafe call", move |calls| {
        for n in 0..calls {
            let answer = failsafe::CircuitBreaker::call(&failsafe, || Ok::<u64, Down>(black_box(n)));
            black_box(&answer);
        }
    });
    let mut svc = tr::CircuitBreakerLayer::builder().consecutive_failures(5).build().unwrap().layer(bare());
    bench.case("tower-resilience", move |calls| by_hand(&mut svc, calls));
    let rec = Recloser::custom().error_rate(0.5).closed_len(100).build();
    bench.case("recloser", move |calls| {
        for n in 0..calls {
            let answer = rec.call(|| Ok::<u64, Down>(black_box(n)));
            black_box(&answer);
        }
    });
    let mut svc = CircuitBreakerLayer::new(CircuitBreakerSettings::failure_rate(0.5).window(Window::Time(WINDOW)))
        .layer(service());
    bench.case("buttress time", move |calls| by_hand(&mut svc, calls));
    let f = failsafe::Config::new()
        .failure_policy(failure_policy::success_rate_over_time_window(0.5, 100, WINDOW, backoff::constant(HOUR)))
        .build();
    bench.case("failsafe time", move |calls| {
        for n in 0..calls {
            let answer = failsafe::CircuitBreaker::call(&f, || Ok::<u64, Down>(black_box(n)));
            black_box(&answer);
        }
    });
    let mut svc = CircuitBreakerLayer::new(CircuitBreakerSettings::consecutive_failures(5)).layer(service());
    let h = svc.handle();
    (0..5).for_each(|_| h.try_acquire().unwrap().failure());
    bench.case("buttress open", move |calls| by_hand(&mut svc, calls));
    let failsafe = failsafe::Config::new()
        .failure_policy(failure_policy::consecutive_failures(5, backoff::constant(HOUR)))
        .build();
    (0..5).for_each(|_| failsafe.on_error());
    bench.case("failsafe open", move |calls| {
        for n in 0..calls {
            let answer = failsafe::CircuitBreaker::call(&failsafe, || Ok::<u64, Down>(black_box(n)));
            black_box(&answer);
        }
    });
}

fn bare() -> impl Service<u64, Response = u64, Error = Down, Future: Send> + Clone + Send + 'static {
    service_fn(|n| ready(Ok::<u64, Down>(n)))
}

fn service() -> impl Service<u64, Response = u64, Error = Error<Down>, Future: Send> + Clone + Send + 'static {
    service_fn(|n| ready(Ok::<u64, Error<Down>>(n)))
}
