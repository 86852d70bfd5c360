//! Middleware that stops waiting for an answer.
//!
//! A dependency that hangs takes its callers with it: each holds a connection, memory and a caller of its own, until there are none left. A
//! time-out bounds that. It is also what makes a hang visible to the layers outside: the breaker counts it, the retry tries again.
//!
//! # Where it goes
//!
//! Innermost, around the client, so that it times one attempt and nothing of ours: queues, waits and sleeps go outside. A second one may go
//! around everything, for the caller's patience.
//!
//! The limit is also the [deadline](crate::deadline) of what is inside, and a deadline from outside shortens it.
//!
//! # Example
//!
//! ```
//! use std::{future::pending, time::Duration};
//! use buttress::{AsRejected, Reason, timeout::TimeoutLayer};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let client = service_fn(|_: &str| pending::<Result<(), std::io::Error>>());
//! let mut stack = ServiceBuilder::new()
//!     .layer(TimeoutLayer::new(Duration::from_secs(1)))
//!     .map_err(buttress::Error::Service) // The client's error is not ours to extend.
//!     .service(client);
//! buttress::check::<&str, _>(&stack);
//!
//! let error = stack.ready().await.unwrap().call("hello?").await.unwrap_err();
//! assert_eq!(error.to_string(), "rejected by `timeout`: timed out");
//! assert_eq!(error.as_rejected().unwrap().reason(), Reason::TimedOut);
//! # }
//! ```
//!
//! # Customising
//!
//! ```
//! use std::{future::pending, time::Duration};
//! use buttress::{AsRejected, Deadline, Reason, timeout::{TimeoutLayer, TimeoutSettings}};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! enum Query { Lookup, Report }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let settings = TimeoutSettings::new(Duration::from_millis(200)).cover_readiness().name("warehouse");
//! let layer = TimeoutLayer::new(settings)
//!     .from_request(|query: &Query| matches!(query, Query::Report).then_some(Duration::from_secs(30)))
//!     .on_event(|event| println!("{event:?}"));
//! let handle = layer.handle();
//! let stack = ServiceBuilder::new()
//!     .layer(layer)
//!     .map_err(buttress::Error::Service)
//!     .service(service_fn(|_: Query| pending::<Result<(), std::io::Error>>()));
//!
//! let reason = |error: buttress::Error<_>| error.as_rejected().unwrap().reason();
//! assert_eq!(stack.clone().oneshot(Query::Lookup).await.map_err(reason), Err(Reason::TimedOut));
//! // The caller waits for five seconds only, and that is not the dependency's failure.
//! let report = Deadline::after(Duration::from_secs(5)).scope(stack.oneshot(Query::Report));
//! assert_eq!(report.await.map_err(reason), Err(Reason::DeadlineExceeded));
//! handle.set_limit(Duration::from_millis(500));
//! # }
//! ```
//!
//! # What counts
//!
//! Time runs from the first poll that is pending: an answer that is ready at once is never too late, not even for a limit of zero. What is
//! pending under a limit of zero is refused at once. An answer that is there when the time is over wins. A call whose caller's deadline has
//! passed before its first poll is not begun. The answer is there at the response's head; a body has no time-out here.
//!
//! [`cover_readiness`](TimeoutSettings::cover_readiness) also counts the wait for the inner readiness, with the limit of the settings, because no request is known by then. The call
//! has what is left. A wait that was given up counts against the next one until a second after its limit. To cover it together with the caller's deadline, put a [`LateLayer`](crate::LateLayer) inside.
//!
//! # Errors
//!
//! [`Rejected`](crate::Rejected) with [`Reason::TimedOut`](crate::Reason::TimedOut), which the default classifier takes for a failure of the dependency, or, when the deadline of the caller came first,
//! with [`Reason::DeadlineExceeded`](crate::Reason::DeadlineExceeded), which it does not: hurried callers must not open a circuit for everyone. An error that comes after the limit is a
//! time-out. The inner service may have been called.
//!
//! # What it costs
//!
//! Nothing is allocated until a poll is pending, and no clock read but for a caller's deadline that is an instant already. A call that is pending
//! reads the clock and sets its timer. Each thread keeps the timers of its last calls for the next, sixteen at most, registered where they are:
//! to put one off takes no lock of the runtime's, and most calls are over long before their limit. So a timer that nobody takes goes off for
//! nothing once, at a limit of up to a minute, and until then keeps the waker of its last call; under paused time it is one more instant at which an idle runtime arrives.
//! What all of this comes to, beside tower's: `cargo bench -p buttress-peers --bench timeout`.
//!
//! # Events and metrics
//!
//! | [`EventKind`](crate::EventKind) | when | metric (feature `metrics`), all with the label `name` |
//! |---|---|---|
//! | `Rejected` | a call took too long | counter `buttress_timeout_rejected_total` by `reason`: `timed_out`, `deadline_exceeded` |
//!
//! # Clone
//!
//! The limit and the listeners are made by the layer, and shared by its clones, the services they build, and every handle.
//!
//! # Cancel safety
//!
//! The inner future is dropped when the time is over, before the caller hears of it, and together with this one. Readiness that took too long
//! leaves whatever the inner service has queued for it, a place in a semaphore's queue say, with the instance: drop it, or put a
//! [`LateLayer`](crate::LateLayer) inside, which queues in the call's own future.
//!
//! # Panics
//!
//! Never by itself. Outside a tokio runtime, or in one whose time is not enabled, there is nobody to wake the caller: the call goes on without a limit.
//!
//! # Differences from tower
//!
//! [`tower::timeout`] arms its timer with every call, boxes the error, covers no readiness, and knows no deadline.

mod future;
mod handle;
mod layer;
mod policy;
mod service;
mod state;
mod timer;
mod wait;

pub use self::{
    future::ResponseFuture,
    handle::TimeoutHandle,
    layer::TimeoutLayer,
    policy::TimeoutSettings,
    service::{Fixed, Timeout},
};
