//! Middleware that stops calling a dependency that is known to be down.
//!
//! A dependency that fails or hangs costs its callers twice: each call waits for an answer that does not come, and each call is load that
//! keeps the dependency from getting up again. A circuit breaker watches how calls end. When too many fail it *opens*: calls are refused at
//! once, without touching the dependency. After a while it is *half-open*: a few probes pass, and what they find closes it or opens it again.
//!
//! ```text
//!              a trip                        the open time is over
//!   Closed ─────────────> Open ─────────────────────────────────────> HalfOpen
//!     ▲                     ▲    failed probes, or no answer in time      │ │
//!     │                     └─────────────────────────────────────────────┘ │
//!     └─────────────────────────────────────────────────────────────────────┘
//!                             enough successes
//! ```
//!
//! # Where it goes
//!
//! Around a client, inside the retry (so that it sees every attempt, and its refusals end the retrying) and outside the time-out of the
//! attempt (so that a time-out is a failure). What waits in a queue of its own goes outside, what refuses by a quota goes inside.
//!
//! A call that its caller gives up on counts for nothing by default. So a time-out belongs inside the breaker; where the only time-out is the
//! caller's, set [`slow_calls`](CircuitBreakerSettings::slow_calls) or [`count_cancelled`](CircuitBreakerSettings::count_cancelled), or a hang stays unseen.
//!
//! # Example
//!
//! ```
//! use buttress::circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let client = service_fn(async |_: &str| Err::<(), _>(std::io::Error::other("connection refused")));
//! let mut stack = ServiceBuilder::new()
//!     .layer(CircuitBreakerLayer::new(CircuitBreakerSettings::new()))
//!     .map_err(buttress::Error::Service) // The client's error is not ours to extend.
//!     .service(client);
//! buttress::check::<&str, _>(&stack);
//!
//! for _ in 0..5 {
//!     assert!(matches!(stack.ready().await.unwrap().call("hello").await, Err(buttress::Error::Service(_))));
//! }
//! let refused = stack.ready().await.unwrap().call("hello").await.unwrap_err();
//! assert!(refused.to_string().starts_with("rejected by `circuit_breaker`: circuit open (5 consecutive failures), retry after 59."));
//! # }
//! ```
//!
//! # Customising
//!
//! [`CircuitBreakerSettings`] lists every setting with its default. A classifier says what is a failure.
//!
//! ```
//! use std::{io, time::Duration};
//! use buttress::{
//!     CircuitState, Outcome,
//!     circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings, OpenTime, Window},
//! };
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! const PAYMENTS: CircuitBreakerSettings = CircuitBreakerSettings::failure_rate(0.5)
//!     .window(Window::Time(Duration::from_secs(30)))
//!     .or_consecutive_failures(10)
//!     .slow_calls(Duration::from_secs(2)) // A hang opens the circuit, although no call ends.
//!     .open_time(OpenTime::exponential(Duration::from_secs(1), Duration::from_secs(60)))
//!     .name("payments");
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let layer = CircuitBreakerLayer::new(PAYMENTS)
//!     .classify(|result: Result<&u16, &buttress::Error<io::Error>>| match result {
//!         Ok(500..) => Outcome::TRANSIENT,
//!         Ok(_) => Outcome::Success,
//!         Err(_) => Outcome::TRANSIENT,
//!     })
//!     .on_event(|event| println!("{event:?}"));
//! let handle = layer.handle();
//! let stack = ServiceBuilder::new()
//!     .layer(layer)
//!     .map_err(buttress::Error::Service)
//!     .service(service_fn(async |status: u16| Ok(status)));
//!
//! for _ in 0..10 {
//!     stack.clone().oneshot(503).await.unwrap();
//! }
//! assert_eq!(handle.state(), CircuitState::Open);
//! handle.reset();
//! assert_eq!(stack.oneshot(200).await.unwrap(), 200);
//! # }
//! ```
//!
//! # Errors
//!
//! [`Rejected`](crate::Rejected) with [`Reason::CircuitOpen`](crate::Reason::CircuitOpen) and, in it, the [`Trip`](crate::Trip) that opened the circuit. `retry_after` is the rest of
//! the open time; it is missing when no time is known: half-open, forced open, or open for good. The inner service was not called.
//!
//! # What counts
//!
//! | a call | counts as |
//! |---|---|
//! | succeeds, or fails by its own fault ([`Permanent`](crate::Outcome::Permanent)) | success |
//! | fails ([`Transient`](crate::Outcome::Transient)), a time-out of the attempt included | failure |
//! | panics inside, in `call` or in a poll | failure |
//! | finds the inner service unable to become ready | by its outcome |
//! | is refused by a layer inside, or ignored | nothing |
//! | is cancelled | nothing, unless it was slow or [`count_cancelled`](CircuitBreakerSettings::count_cancelled) is set |
//! | is slow ([`slow_calls`](CircuitBreakerSettings::slow_calls)) | failure, or by the slow call rate if there is one; in half-open a failure |
//! | ends in another period than it began in | nothing: it is stale |
//!
//! Calls in flight that are older than the slow threshold count from that moment: in the row of failures once, in a rate as long as they
//! are in flight, where the oldest in the window make room for them, and then as they end. The next call or look notices, and so does a
//! caller that waits for the readiness of the inner service.
//!
//! The outcome is known at the response's head; a body that breaks off later is not seen.
//!
//! # What it costs
//!
//! A healthy closed circuit reads one word on the way in and one on the way out, and writes nothing that two threads share, unless it
//! counts over a time window, where each call takes a short lock. With a slow threshold a call that is pending takes two clock readings
//! and two short locks, and while calls are pending each admission reads the clock. `cargo bench` prints what all that comes to.
//!
//! # Events and metrics
//!
//! | [`EventKind`](crate::EventKind) | when | metric (feature `metrics`), all with the label `name` |
//! |---|---|---|
//! | `Transition` | the state changed | counter `buttress_circuit_breaker_transitions_total` by `to`; gauge `buttress_circuit_breaker_state` by `state`, exactly one of which is 1 (from the first transition on, and not for keyed circuits) |
//! | `Rejected` | a call was refused | counter `buttress_circuit_breaker_rejected_total` |
//! | `Rejected`, `shadow` | a call would have been refused | counter `buttress_circuit_breaker_shadow_rejected_total` |
//! | `Stale` | a call of an earlier period ended | counter `buttress_circuit_breaker_stale_total` |
//! | `KeysExhausted` | a key found no place | counter `buttress_circuit_breaker_keys_exhausted_total` |
//!
//! No timer runs for the state: an open circuit whose time is over moves on with the next call or look.
//!
//! # A circuit per key
//!
//! [`KeyedCircuitBreakerLayer`] keeps a circuit for each host, tenant or route that a function finds in the request, at most
//! [`max_keys`](CircuitBreakerSettings::max_keys) of them. To make room, the sixteen least recently used are asked: the first that is closed and idle leaves, or else the
//! first whose open time is over. One that is open, in use, in somebody's hand (a handle, a permit) or in another mode than enforced stays.
//! When all must stay, a new key is served without a circuit of its own, and reported: never refused for want of room. A key that comes
//! back after it left begins closed, with the layer's settings.
//!
//! It is always ready, because the key is in the request. An admitted call waits for the inner readiness inside its future, with a clone, so
//! the inner service must be `Clone`; a trip ends that wait, and it is no part of the call's time.
//!
//! ```
//! use buttress::circuit_breaker::{CircuitBreakerSettings, KeyedCircuitBreakerLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let layer = KeyedCircuitBreakerLayer::new(CircuitBreakerSettings::consecutive_failures(1), |host: &String| host.clone());
//! let stack = ServiceBuilder::new()
//!     .layer(layer)
//!     .map_err(buttress::Error::Service)
//!     .service(service_fn(async |host: String| if host == "sick" { Err(std::fmt::Error) } else { Ok(()) }));
//!
//! assert!(stack.clone().oneshot("sick".into()).await.is_err());
//! assert!(matches!(stack.clone().oneshot("sick".into()).await, Err(buttress::Error::Rejected(_))));
//! assert!(stack.oneshot("well".into()).await.is_ok());
//! # }
//! ```
//!
//! # Clone
//!
//! The circuit is made by the layer. Its clones, the services they build, the clones of these and every handle share it, and keep it: a call
//! that is under way when the last of them is dropped has nothing left to count for. Readiness, and the
//! place of a probe that comes with it, stays with the instance that was polled.
//!
//! # Cancel safety
//!
//! A future that is dropped, whether it was ever polled or not, gives its place back at once. So does readiness that is never used, when
//! the service is called, polled again or dropped; until then a place that is held idle is bounded by the half-open time-out.
//!
//! When the circuit opens between readiness and call, the call is refused, and what the inner service has reserved for it (a permit of
//! `ConcurrencyLimit`, say) stays with this instance until it is polled again or dropped, as in tower. Over [`LateLayer`](crate::LateLayer)
//! nothing is reserved before a call goes. Conversely, an instance that became ready only because the circuit refuses will refuse its next
//! call, with the `retry_after` of that moment.
//!
//! # Panics
//!
//! Only from the plain constructors, on settings that cannot work. A listener's or a classifier's panic harms nobody else.
//!
//! # Differences from tower
//!
//! tower has no circuit breaker. Its [`LoadShed`](tower::load_shed) refuses when the inner service is not ready; this refuses when calling it would be in vain.

mod consecutive;
mod future;
mod handle;
mod in_flight;
mod keyed;
mod keyed_future;
mod layer;
#[cfg(all(test, buttress_loom))]
mod loom_models;
mod machine;
#[cfg(test)]
mod model;
mod open_time;
mod parked;
mod permit;
mod place;
mod policy;
mod probes;
mod ring;
mod service;
mod snapshot;
mod state;
mod step;
mod tally;
mod time_window;
mod wait;
mod window;
mod word;

pub use self::{
    future::ResponseFuture,
    handle::{CircuitBreakerHandle, Permit},
    keyed::{KeyedCircuitBreaker, KeyedCircuitBreakerHandle, KeyedCircuitBreakerLayer},
    keyed_future::KeyedResponseFuture,
    layer::CircuitBreakerLayer,
    open_time::{OpenTime, Opening},
    policy::{CircuitBreakerSettings, Window},
    service::CircuitBreaker,
    snapshot::{CircuitBreakerSnapshot, CircuitMode},
};
pub use crate::event::CircuitState;
