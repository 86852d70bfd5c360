//! Middleware that lets only so many calls pass in a time, and says when to come back.
//!
//! A dependency with a quota of its own punishes those who exceed it, and a server that takes every call serves none of them well. A limiter
//! refuses what is too much, at once, and each refusal says how long to wait: refused a nanosecond earlier, admitted then.
//!
//! This chapter has what there is so far: one quota for all calls, and refusals. Waiting in a queue, a quota per key, and several quotas at once are to
//! come.
//!
//! # Where it goes
//!
//! Around a client, inside the breaker: an open circuit then spends no quota. Around a server, outside the bulkhead.
//!
//! # Example
//!
//! ```
//! use buttress::rate_limit::{Quota, RateLimitLayer, RateLimitSettings};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let mut stack = ServiceBuilder::new()
//!     .layer(RateLimitLayer::new(RateLimitSettings::token_bucket(Quota::per_second(2))))
//!     .map_err(buttress::Error::Service) // The client's error is not ours to extend.
//!     .service(service_fn(async |_: &str| Ok::<_, std::io::Error>(())));
//! buttress::check::<&str, _>(&stack);
//!
//! assert!(stack.ready().await.unwrap().call("one").await.is_ok());
//! assert!(stack.ready().await.unwrap().call("two").await.is_ok());
//! let refused = stack.ready().await.unwrap().call("three").await.unwrap_err();
//! assert_eq!(refused.to_string(), "rejected by `rate_limit`: rate limited, retry after 500ms");
//! # }
//! ```
//!
//! # Customising
//!
//! ```
//! use std::time::Duration;
//! use buttress::rate_limit::{Quota, RateLimitHandle, RateLimitSettings};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! const TOKENS: RateLimitSettings = RateLimitSettings::sliding_log(Quota::new(1_000, Duration::from_secs(60))).name("model");
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), buttress::BoxError> {
//! let limiter = RateLimitHandle::try_new(TOKENS)?;
//! let stack = ServiceBuilder::new()
//!     .layer(limiter.layer().cost(|prompt: &String| prompt.len() as u64).on_event(|event| println!("{event:?}")))
//!     .service(service_fn(async |_: String| Ok::<_, buttress::BoxError>(())));
//! stack.clone().oneshot("x".repeat(600)).await?;
//! assert_eq!(limiter.peek().remaining, 400);
//! assert!(stack.clone().oneshot("x".repeat(600)).await.is_err());
//! tokio::time::advance(limiter.check(600).retry_after.unwrap()).await;
//! stack.oneshot("x".repeat(600)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Algorithms
//!
//! | | in any stretch of a period | state | a call |
//! |---|---|---|---|
//! | [token bucket](RateLimitSettings::token_bucket) | at most a burst and the units of the period | one integer | a compare-and-swap |
//! | [sliding log](RateLimitSettings::sliding_log) | never more than the units | 16 bytes for each call in the window | a short lock |
//! | [sliding counter](RateLimitSettings::sliding_counter) | the units where calls come evenly, less than twice as many at worst | three integers | a short lock |
//!
//! A unit of a bucket takes a whole number of nanoseconds, rounded up: what is lost is less than a nanosecond a unit. Clocks that step back make nobody
//! wait for them.
//!
//! # Errors
//!
//! [`Rejected`](crate::Rejected) with [`Reason::RateLimited`](crate::Reason::RateLimited) and the time to come back, or, for a cost above the burst, which can never pass, with
//! [`Reason::CostTooHigh`](crate::Reason::CostTooHigh). The inner service was not called.
//!
//! # Events and metrics
//!
//! | [`EventKind`](crate::EventKind) | when | metric (feature `metrics`), all with the label `name` |
//! |---|---|---|
//! | `Rejected` | a call was refused | counter `buttress_rate_limit_rejected_total` |
//!
//! # Clone
//!
//! The quota is made by the layer, and shared by its clones, the services they build, and every handle.
//!
//! # Cancel safety
//!
//! What a call took is used, also when its future is dropped: the dependency may have seen it. Readiness takes nothing.
//!
//! # Panics
//!
//! Only from the plain constructor, on settings that cannot work.
//!
//! # Differences from tower
//!
//! [`RateLimit`](https://docs.rs/tower/latest/tower/limit/struct.RateLimit.html) is not `Clone`, counts by fixed windows, so that twice the number can pass around the edge of one, and makes its callers wait.

mod decision;
mod future;
mod handle;
mod layer;
#[cfg(all(test, buttress_loom))]
mod loom_models;
mod policy;
mod quota;
mod service;
mod settle;
mod sliding_counter;
mod sliding_log;
mod state;
mod token_bucket;

pub use self::{
    decision::Decision,
    future::ResponseFuture,
    handle::RateLimitHandle,
    layer::RateLimitLayer,
    policy::RateLimitSettings,
    quota::Quota,
    service::{OneUnit, RateLimit, RequestCost},
    settle::{Decisions, Paid, Settle},
};
