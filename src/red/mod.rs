//! Middleware that counts and times every call, and changes nothing.
//!
//! Rate, errors, duration: what every service is asked first, when it is well and when it is not. The other layers report what is rare; this
//! one counts what is not. Its figures go to the [`metrics`](https://docs.rs/metrics) facade once a recorder is installed, and are there in the
//! process without any.
//!
//! # Where it goes
//!
//! Outermost, so that it sees what callers see: one request, however many attempts it had. A second one of another name, below the retry, counts
//! the attempts.
//!
//! It only looks, and asks nothing of the error but a [`Classify`](crate::Classify). So it wraps a bare client, and a router whose error is
//! [`Infallible`](std::convert::Infallible).
//!
//! # Example
//!
//! ```
//! use buttress::red::RedLayer;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let layer = RedLayer::new("greeter");
//! let figures = layer.handle();
//! let mut stack = ServiceBuilder::new()
//!     .layer(layer)
//!     .map_err(buttress::Error::Service) // So that refusals are told from failures, if there are layers that refuse.
//!     .service(service_fn(async |name: &str| match name {
//!         "" => Err(std::io::Error::other("nobody")),
//!         name => Ok(format!("hello {name}")),
//!     }));
//! buttress::check::<&str, _>(&stack);
//!
//! for name in ["you", "me", ""] {
//!     let _ = stack.ready().await.unwrap().call(name).await;
//! }
//! let requests = figures.snapshot().requests;
//! assert_eq!((requests.total, requests.ok, requests.error, requests.in_flight), (3, 2, 1, 0));
//! # }
//! ```
//!
//! # Customising
//!
//! ```
//! use buttress::{Outcome, red::{RedLayer, RedSettings}};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! struct Request { path: String }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let settings = RedSettings::new("api").label("route", &["/users", "/orders"]);
//! let layer = RedLayer::new(settings)
//!     .label_by(|request: &Request| &request.path)
//!     .classify(|status: Result<&u16, &std::convert::Infallible>| match status {
//!         Ok(500..) => Outcome::TRANSIENT,
//!         Ok(400..) => Outcome::Permanent,
//!         _ => Outcome::Success,
//!     });
//! let figures = layer.handle();
//! let router = service_fn(async |request: Request| Ok(if request.path == "/users" { 200 } else { 404 }));
//! let stack = ServiceBuilder::new().layer(layer).service(router);
//!
//! for path in ["/users", "/wp-admin", "/wp-login"] {
//!     let _ = stack.clone().oneshot(Request { path: path.into() }).await;
//! }
//! let by_route: Vec<_> = figures.snapshot_by_label().into_iter().map(|(route, red)| (route, red.requests.total)).collect();
//! assert_eq!(by_route, [("/orders", 0), ("/users", 1), ("other", 2)]);
//! # }
//! ```
//!
//! # What counts
//!
//! A call begins when it is made, polled or not, and ends once:
//!
//! | outcome | when |
//! |---|---|
//! | `ok` | [`Outcome::Success`](crate::Outcome::Success) |
//! | `error` | [`Outcome::Transient`](crate::Outcome::Transient), and a panic that passes |
//! | `permanent` | [`Outcome::Permanent`](crate::Outcome::Permanent): the request was at fault |
//! | `rejected` | [`Outcome::Rejected`](crate::Outcome::Rejected), by the reason |
//! | `ignored` | [`Outcome::Ignored`](crate::Outcome::Ignored) |
//! | `cancelled` | the future was dropped before its answer, or never polled |
//!
//! `total = ok + error + permanent + rejected + ignored + cancelled + in flight`, exactly, as soon as nothing is on its way. A service whose readiness
//! fails has failed a call, which took no time. The wait for readiness belongs to no call: with a [`LateLayer`](crate::LateLayer) inside, it does.
//!
//! The duration ends with the answer's head; what a body takes is not seen here.
//!
//! # Snapshot
//!
//! [`RedHandle::snapshot`] has the [counts](Requests), the rate of the last second and of the last minute, the error ratio, and the
//! [durations](Durations): mean, quantiles that are off by at most 1.6 %, and the longest. It needs no exporter. With the feature `serde` it is JSON.
//!
//! Each thread counts on memory of its own, up to 64 threads at a time; others share one place, one at a time. That is 11 KiB for each thread that
//! makes calls, and for each value of the label.
//!
//! # Errors
//!
//! None but the inner service's.
//!
//! # Metrics
//!
//! There are no events. With the feature `metrics`, and once a recorder is installed, all with the label `name` and the declared one if there is
//! one:
//!
//! | metric | kind |
//! |---|---|
//! | `buttress_red_requests_total` | counter by `outcome`, those that were refused by `reason` as well |
//! | `buttress_red_in_flight` | gauge: of the calls that began since the recorder was there |
//! | `buttress_red_duration_seconds` | histogram by `outcome` |
//!
//! Handles are registered with the first call that finds the recorder, and keep to it. A label whose values come from requests is safe: what is not declared is `other`.
//!
//! With the feature `tracing`, the span that the call runs in is told how it ended, if it has declared the [attributes](crate::event::SPAN_ATTRIBUTES).
//!
//! # What it costs
//!
//! Two readings of the clock, some ten loads and stores on the thread's own memory, a reference that is counted on the thread's own stripe, and
//! no allocation; and what the recorder's handles cost.
//!
//! # Clone
//!
//! The figures are made by the layer, and shared by its clones, the services they build, and every handle.
//!
//! # Cancel safety
//!
//! A dropped future is counted as cancelled, with the time it took.
//!
//! # Panics
//!
//! Never by itself. A recorder's panic is caught. The function that says the label runs before the call counts, so its panic counts nothing.
//!
//! # Differences from tower
//!
//! It has nothing like it. `tower_http`'s trace layer tells of single requests; this one adds them up.

mod buckets;
mod future;
mod handle;
mod layer;
#[cfg(all(test, buttress_loom))]
mod loom_models;
mod permit;
mod policy;
mod seconds;
mod service;
mod snapshot;
mod state;
mod stripe;

pub use self::{
    future::ResponseFuture,
    handle::{Call, RedHandle},
    layer::RedLayer,
    policy::RedSettings,
    service::{LabelBy, Red, Unlabelled},
    snapshot::{Durations, RedSnapshot, Requests},
};
