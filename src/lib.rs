//! Composable [tower] layers for resilience: correct under cancellation and panic, free on the happy path.
//!
//! Stack them around a client, or in front of a handler. They share one error type ([`Error`], or your own with a place for
//! [`Rejected`]), one notion of failure ([`Outcome`], decided by a [`Classify`]), one clock (tokio's, so that `tokio::time::pause()` drives a
//! whole stack) and one way to report ([`Event`]).
//!
//! | module | what it does |
//! |---|---|
#![cfg_attr(
    feature = "cache",
    doc = "| [`cache`] | keeps answers, loads each once, and serves the old one while there is no new one |"
)]
#![cfg_attr(feature = "circuit-breaker", doc = "| [`circuit_breaker`] | stops calling what is known to be down |")]
#![cfg_attr(feature = "rate-limit", doc = "| [`rate_limit`] | lets only so many calls pass in a time |")]
#![cfg_attr(feature = "retry", doc = "| [`retry`] | tries again what may pass, on a budget |")]
#![cfg_attr(feature = "retry", doc = "| [`budget`] | how many retries all calls together may cause |")]
#![cfg_attr(feature = "timeout", doc = "| [`timeout`] | stops waiting for an answer |")]
//! | [`deadline`] | how long the caller waits, obeyed wherever a layer would wait |
#![cfg_attr(
    feature = "http",
    doc = "| [`http`] | what all this means for HTTP: statuses, `Retry-After`, idempotent requests, bodies that can be sent again, refusals as responses, clients behind proxies |"
)]
#![cfg_attr(
    feature = "redis",
    doc = "| [`redis`] | limits and cached answers that a whole fleet shares, and calm when Redis is away |"
)]
#![cfg_attr(
    feature = "health",
    doc = "| [`health`] | one report of named parts: liveness, readiness, a metrics page |"
)]
//! | [`Late`] | is ready at once and takes the inner readiness inside the future |
//!
//! # Order of layers
//!
//! Outermost first. A layer that waits goes outside the breaker, so that our own queue never looks like the dependency's slowness; one that
//! refuses goes inside, so that an open circuit spends no quota.
//!
//! ```text
//! client: red -> deadline -> cache -> retry -> [waiting limits] -> circuit_breaker -> [refusing limits] -> timeout -> client
//! server: red -> deadline from the request -> [limits] -> timeout -> handler
//! ```
//!
//! # Words
//!
//! * *outcome*: what a finished call means to every layer.
//! * *rejected*: the answer of a layer instead of the inner service's. [`Rejected::reached_inner`] says whether the call may have executed.
//! * *deadline*: the instant after which the caller no longer wants the answer.
//! * *permit*: what a call holds while it counts. Settling it records an outcome, dropping it means that the call was cancelled.
//! * *generation*: the number of a circuit's state period; what ends in another one than it began in is *stale* and changes nothing.
//! * *handle*: the owner of what all clones of a service share, to inspect it, to control it, and to use it without tower.
//!
//! # Errors
//!
//! The error of the inner service stays the error of the whole stack. A layer that refuses needs a place for its refusal in it:
//!
//! | the inner error is | what to do |
//! |---|---|
//! | your own enum | add a variant `#[error(transparent)] Rejected(#[from] buttress::Rejected)` and implement [`AsRejected`], one line |
//! | [`BoxError`] | nothing |
//! | a foreign client's | `.map_err(buttress::Error::Service)` below the stack |
//! | `Infallible`, an HTTP handler's | `buttress::http::respond(layers)` around it, with the feature `http` |
//!
//! [`check`] makes the compiler say which it is.
//!
//! # Features
//!
//! | feature | default | brings | cost |
//! |---|---|---|---|
//! | `cache` | yes | [`cache`](https://docs.rs/buttress/latest/buttress/cache) | `lru`, `sha2` |
//! | `circuit-breaker` | yes | [`circuit_breaker`](https://docs.rs/buttress/latest/buttress/circuit_breaker) | `lru`, `rand` without its generators |
//! | `rate-limit` | yes | [`rate_limit`](https://docs.rs/buttress/latest/buttress/rate_limit) | `lru`, `hashbrown` |
//! | `retry` | yes | [`retry`](https://docs.rs/buttress/latest/buttress/retry), [`budget`](https://docs.rs/buttress/latest/buttress/budget) | `rand` without its generators |
//! | `timeout` | yes | [`timeout`](https://docs.rs/buttress/latest/buttress/timeout) | nothing |
//! | `http` | no | [`http`](https://docs.rs/buttress/latest/buttress/http): what it all means for HTTP | `rate-limit`, `retry`, `http`, `http-body`, `bytes`, `httpdate` |
//! | `redis` | no | [`redis`](https://docs.rs/buttress/latest/buttress/redis): limits and answers that a whole fleet shares | `cache`, `circuit-breaker`, `rate-limit`, `deadpool-redis` |
//! | `red` | yes | [`red`](https://docs.rs/buttress/latest/buttress/red) | nothing |
//! | `health` | no | [`health`](https://docs.rs/buttress/latest/buttress/health): liveness, readiness and figures as JSON, with `http` as a service | `serde_json` |
//! | `metrics` | yes | events as counters and gauges of the [`metrics`](https://docs.rs/metrics) facade | one load per event while no recorder is installed |
//! | `serde` | no | snapshots as JSON | `serde` without its macros |
//! | `json` | no | [`redis`](https://docs.rs/buttress/latest/buttress/redis): cached values as JSON | `redis`, `serde_json` |
//! | `postcard` | no | [`redis`](https://docs.rs/buttress/latest/buttress/redis): cached values in the form of postcard | `redis`, `postcard` |
//! | `scan-resistant` | no | [`scan_resistant`](https://docs.rs/buttress/latest/buttress/scan_resistant): a cache in memory that a crawler does not empty | `cache`, `quick_cache` |
//! | `tracing` | no | events for `tracing` subscribers | one load per event while nobody subscribes |
//! | `full` | no | all of these | |
//! | `quanta` | no | the time stamp counter as the clock: the benchmarks beside the peers read it, those of the crate alone read tokio's | paused time no longer drives it, so keep it out of tests |
//!
//! MSRV 1.88. No `unsafe`.

#![warn(missing_docs)]
// Without a pattern nobody uses the core.
#![cfg_attr(
    not(all(
        feature = "cache",
        feature = "circuit-breaker",
        feature = "rate-limit",
        feature = "red",
        feature = "retry",
        feature = "timeout"
    )),
    allow(dead_code, unused_imports)
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "retry", feature = "timeout"))]
mod address;
#[cfg(feature = "retry")]
pub mod budget;
pub mod deadline;
pub mod error;
pub mod event;
#[cfg(feature = "cache")]
mod hex;
#[cfg(any(feature = "circuit-breaker", feature = "rate-limit"))]
mod keyed;
pub mod late;
mod macros;
pub mod outcome;
#[cfg(any(feature = "cache", feature = "circuit-breaker", feature = "retry"))]
mod random;
mod shared;
mod sync;
#[cfg(any(feature = "cache", feature = "red", feature = "retry"))]
mod thread_slot;
mod time;

#[cfg(feature = "cache")]
pub mod cache;
#[cfg(feature = "circuit-breaker")]
pub mod circuit_breaker;
#[cfg(feature = "rate-limit")]
pub mod rate_limit;
#[cfg(feature = "red")]
pub mod red;
#[cfg(feature = "retry")]
pub mod retry;
#[cfg(feature = "timeout")]
pub mod timeout;

#[cfg(feature = "health")]
pub mod health;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "serde")]
mod json;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "scan-resistant")]
pub mod scan_resistant;

#[cfg(feature = "retry")]
pub use budget::{Budget, BudgetSettings, Cost};
pub use deadline::{Deadline, DeadlineLayer, StampDeadlineLayer};
pub use error::{AsRejected, BoxError, CanReject, ConfigError, Error, LoadFailure, Reason, Rejected, Trip};
pub use event::{CircuitState, Event, EventKind, GaveUp, Pattern, WhyStale, intern};
pub use late::{Late, LateLayer};
pub use outcome::{Classify, ErrorsAreTransient, EveryErrorIsTransient, Outcome};

/// Does nothing, for a stack that is a service. For one that is not, the compiler's message names what is missing.
///
/// Without it, `.oneshot()` on such a stack only says that there is no such method. Put it behind the stack's definition.
///
/// ```
/// # use buttress::circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings};
/// # use tower::{ServiceBuilder, service_fn};
/// let client = service_fn(async |_: u32| Err::<(), _>(std::io::Error::other("down")));
/// let stack = ServiceBuilder::new()
///     .layer(CircuitBreakerLayer::new(CircuitBreakerSettings::new()))
///     .map_err(buttress::Error::Service) // The line that the message asks for when it is missing.
///     .service(client);
/// buttress::check::<u32, _>(&stack);
/// ```
pub fn check<Req, S: tower::Service<Req>>(_stack: &S) {}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
