//! Middleware that tries again what may pass, and never makes an outage worse.
//!
//! Some failures are chance: a connection that was just closed, an instance that restarts. Trying again hides them. In an outage the same retries
//! multiply the load on a dependency that is on its knees, and three layers of three attempts make twenty-seven calls of one. So there is a
//! *budget* for all calls together: as long as few fail, every one of them is retried, and when all fail, hardly any is.
//!
//! # Where it goes
//!
//! Outside the breaker, so that every attempt is counted and a refusal ends the retrying, and outside the time-out of the attempt, whose
//! refusals are worth another one. Inside the cache. Limits that only wait go inside too: nothing is held while a call sleeps.
//!
//! Give it the same classifier as the breaker: to the default, an answer that says 503 is an answer.
//!
//! # Example
//!
//! ```
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use buttress::retry::{RetryLayer, RetrySettings};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! static CALLS: AtomicU32 = AtomicU32::new(1);
//! let client = service_fn(async |_: &str| match CALLS.fetch_add(1, Ordering::Relaxed) {
//!     call @ 3.. => Ok(call),
//!     _ => Err(std::io::Error::other("connection reset")),
//! });
//! let mut stack = ServiceBuilder::new()
//!     .layer(RetryLayer::new(RetrySettings::new())) // Three attempts, the first included.
//!     .map_err(buttress::Error::Service) // So that refusals of layers between are told from failures.
//!     .service(client);
//! buttress::check::<&str, _>(&stack);
//! assert_eq!(stack.ready().await.unwrap().call("hello?").await.unwrap(), 3);
//! # }
//! ```
//!
//! # Customising
//!
//! [`RetrySettings`] lists every setting with its default. What depends on the request is a function's business: whether it may be sent twice,
//! and how it changes when it is.
//!
//! ```
//! use std::time::Duration;
//! use buttress::{
//!     BudgetSettings, Classify, ErrorsAreTransient, Outcome,
//!     retry::{Backoff, Jitter, RetryLayer, RetrySettings, TimeoutsCostDouble},
//!     timeout::TimeoutLayer,
//! };
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! #[derive(Clone)]
//! struct Order { is_idempotent: bool, attempt: u32 }
//!
//! const ORDERS: RetrySettings = RetrySettings::new()
//!     .attempts(5)
//!     .backoff(Backoff::exponential(Duration::from_secs(1)).jitter(Jitter::Equal).cap(Duration::from_secs(8))) // 1, 2, 4, 8 s
//!     .within(Duration::from_secs(30))
//!     .budget(BudgetSettings::new().ratio(0.1).per_second(1))
//!     .name("orders");
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let layer = RetryLayer::new(ORDERS)
//!     .classify(|answer: Result<&u16, &buttress::Error<std::io::Error>>| match answer {
//!         Ok(503) => Outcome::Transient { retry_after: Some(Duration::from_secs(2)) },
//!         // The default knows which errors are refusals by a layer further in.
//!         _ => ErrorsAreTransient.classify(answer),
//!     })
//!     .resend(|order: &Order| order.is_idempotent.then(|| order.clone()))
//!     .prepare(|order: &mut Order, attempt| order.attempt = attempt)
//!     .cost(TimeoutsCostDouble)
//!     .on_event(|event| println!("{event:?}"));
//! let stack = ServiceBuilder::new()
//!     .layer(layer)
//!     .layer(TimeoutLayer::new(Duration::from_secs(2))) // Of each attempt.
//!     .map_err(buttress::Error::Service)
//!     .service(service_fn(async |order: Order| Ok(if order.attempt < 3 { 503 } else { 200 })));
//!
//! let order = Order { is_idempotent: true, attempt: 1 };
//! assert_eq!(stack.clone().oneshot(order.clone()).await.unwrap(), 200);
//! let once = Order { is_idempotent: false, ..order };
//! assert_eq!(stack.oneshot(once).await.unwrap(), 503);
//! # }
//! ```
//!
//! # What is tried again
//!
//! | an attempt | is followed by another one |
//! |---|---|
//! | fails ([`Transient`](crate::Outcome::Transient)), a time-out of the attempt included | yes |
//! | finds the inner service unable to become ready, the second or a later one | by its outcome |
//! | succeeds, or fails by the request's fault ([`Permanent`](crate::Outcome::Permanent)), or is ignored | no |
//! | is refused by a layer inside | no, unless [asked for](RetrySettings::retry_rejections) and the refusal says when to come back |
//! | panics | no |
//!
//! and only if all of this holds, asked in this order: there are [attempts](RetrySettings::attempts) left; the request [can be sent again](Resend); there is a delay; the next
//! attempt would begin before the [total time](RetrySettings::within) and the caller's [deadline](crate::Deadline) are over; and the [budget](crate::Budget) has something left. A call that failed may have
//! been executed all the same, so `resend` decides what may be executed twice. The default copies every request.
//!
//! A failure that says when to come back is obeyed, up to [a cap](RetrySettings::retry_after_cap), and the delay comes on top of it: with jitter, those who were told the same
//! do not come back together.
//!
//! The first attempt goes to the service that was polled ready. Each further one goes to a clone with a readiness of its own, a clone of the
//! service as it was at its first call. While a call sleeps it holds nothing of the attempt before: no permit, no place in a queue. It keeps the
//! last result, which is the answer if the time ends before another attempt begins; a response whose body holds a connection holds it until
//! then.
//!
//! # Errors
//!
//! None of its own: the last result is returned as it is. So it wraps services of any error type, with a classifier that knows it.
//!
//! What that result says is about the last attempt. When a refusal ends the retrying, [`reached_inner`](crate::Rejected::reached_inner) is false, and yet an earlier attempt may have been
//! executed: after a retry, only the request can say whether it is safe to send it once more.
//!
//! # What it costs
//!
//! A call that succeeds at once copies the request, reads the clock for the budget, and has one reference counted if the inner service is more than a
//! function, however many layers it has, and another one if there are listeners. Without a budget it reads no clock. `cargo bench` prints what that comes to. A call that fails allocates its
//! memory of that, and its timer.
//!
//! # Events and metrics
//!
//! | [`EventKind`](crate::EventKind) | when | metric (feature `metrics`), all with the label `name` |
//! |---|---|---|
//! | `Retry` | an attempt failed and another one follows | counter `buttress_retry_retries_total` |
//! | `Retried`, a success | a call succeeded after retries | counter `buttress_retry_recovered_total` |
//! | `Retried`, `gave_up` | a call failed, and the next attempt was not to be | counter `buttress_retry_gave_up_total` by `why`: `attempts`, `delays`, `within`, `deadline`, `budget`, `request` |
//!
//! # Clone
//!
//! The budget and the listeners are made by the layer, and shared by its clones, the services they build, and every handle. A call that
//! outlives all of these goes on, on the same budget. Delays begin anew with each call.
//!
//! # Cancel safety
//!
//! A call that is dropped tries no more. What it has taken from the budget for an attempt that has not begun is given back.
//!
//! # Panics
//!
//! Only from the plain constructor, on settings that cannot work. Outside a tokio runtime, or in one whose time is not enabled, nobody could wake a call that sleeps:
//! there is one attempt.
//!
//! # Differences from tower
//!
//! [`tower::retry`] leaves attempts, delays, classification and budget to a policy that you write, and takes the readiness of a further attempt from the clone that it
//! makes for every call. Its `TpsBudget` allows one retry a call at a ratio of 0.6; the [`Budget`](crate::Budget) here can take its place.

mod backoff;
mod cost;
mod course;
mod decision;
mod delays;
mod future;
mod handle;
mod layer;
mod policy;
mod recipe;
mod resend;
mod service;
mod spare;
mod state;

pub use self::{
    backoff::{Backoff, Jitter},
    cost::{FlatCost, RetryCost, TimeoutsCostDouble},
    delays::{Delays, Each, OfSettings},
    future::ResponseFuture,
    handle::RetryHandle,
    layer::RetryLayer,
    policy::RetrySettings,
    resend::{CloneRequest, Prepared, Resend},
    service::Retry,
};
