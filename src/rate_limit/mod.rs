//! Middleware that lets only so many calls pass in a time, and says when to come back.
//!
//! A dependency with a quota of its own punishes those who exceed it, and a server that takes every call serves none of them well. A limiter
//! refuses what is too much, at once, and each refusal says how long to wait: refused a nanosecond earlier, admitted then. Or it has its callers wait, in a
//! line that is bounded and fair.
//!
//! | layer | what is too much | for |
//! |---|---|---|
//! | [`RateLimitLayer`] | is refused at once | servers, and clients with something better to do |
//! | [`.waiting()`](RateLimitLayer::waiting) | waits in line, in the response future | clients that share a quota |
//! | [`.backpressure()`](RateLimitLayer::backpressure) | waits in line, in `poll_ready` | one client that paces itself |
//! | [`KeyedRateLimitLayer`] | of a key is refused at once | a limit per user, tenant or address |
//! | [`KeyedWaitingLayer`] | of a key waits in its line | a client of many hosts |
//!
//! # Where it goes
//!
//! Around a client, one that refuses inside the breaker, so that an open circuit spends no quota, and one that waits outside it, so that our own line never
//! looks like the dependency's slowness. Around a server, outside the bulkhead.
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
//! A user may ask five questions a second and fifty a minute, all users together two a second; what a question has cost is known when it is answered:
//!
//! ```
//! use buttress::rate_limit::{ActualCost, KeyedRateLimitLayer, Quota, RateLimitHandle, RateLimitSettings};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! const USER: RateLimitSettings = RateLimitSettings::token_bucket(Quota::per_second(5)).name("user")
//!     .and(RateLimitSettings::sliding_log(Quota::per_minute(50)).name("user_minute"));
//! const ALL: RateLimitSettings = RateLimitSettings::token_bucket(Quota::per_second(2)).name("all");
//!
//! struct Question { user: u64 }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), buttress::BoxError> {
//! let all = RateLimitHandle::try_new(ALL)?;
//! let layer = KeyedRateLimitLayer::new(USER, |question: &Question| question.user)
//!     .and_all(&all)
//!     .after(ActualCost(|tokens: &u64| *tokens));
//! let users = layer.handle();
//! let stack = ServiceBuilder::new().layer(layer).service(service_fn(async |_: Question| Ok::<_, buttress::BoxError>(3)));
//! buttress::check::<Question, _>(&stack);
//!
//! assert!(stack.clone().oneshot(Question { user: 1 }).await.is_ok());
//! assert_eq!(users.peek(&2).remaining, 0, "all have used up what there was");
//! let refused = stack.oneshot(Question { user: 2 }).await.unwrap_err();
//! assert!(refused.to_string().starts_with("rejected by `all`"));
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
//! | [sliding counter](RateLimitSettings::sliding_counter) | the units where calls come evenly, less than twice as many at worst | three integers | a compare-and-swap |
//! | [several](RateLimitSettings::and) | the bound of each | that of each | a short lock |
//!
//! A unit of a bucket takes a whole number of nanoseconds, rounded up: what is lost is less than a nanosecond a unit, so that a quota of more than 10^9 a second
//! admits 10^9. Clocks that step back make nobody wait for them.
//!
//! # In line
//!
//! First come, first served; a large cost at the head is not passed by. A call is refused at once when it would have to wait longer than
//! [`max_wait`](RateLimitSettings::max_wait), or past its [deadline](crate::deadline), and when [`max_waiters`](RateLimitSettings::max_waiters) wait
//! already. Of a refusal `retry_after` says when there is a place in line again. One timer serves the line, and each waiter is woken once. Who leaves lets the others move up, and
//! when a pause, a debt or a lesser quota comes in between, who cannot be served in time any more is told so at once. Calls that do not wait, through the handle or a layer
//! that refuses, do not stand in line: what they take is gone.
//!
//! How long a call would wait is exact for a bucket, and for a log where calls cost one unit; for several windows of a counter it is an estimate.
//!
//! # Keys
//!
//! At most [`max_keys`](RateLimitSettings::max_keys) are remembered. A key whose limits are full again is as a new one, so it leaves without loss: two to four places of
//! the table are looked at with each new key, and up to 128 when there is no room. No other key ever leaves, so no flood of fresh keys gives a used-up key its burst back. Keys that
//! find no place share one among them, which is reported. Keys are hashed by SipHash-1-3 with a random seed.
//!
//! Where one token bucket is all, a key is known by its hash alone and not kept: it takes 16 bytes in a table that is a third full or more, whatever it is. So keys are told apart by
//! what their [`Hash`](std::hash::Hash) says of them: one that leaves out what `Eq` looks at makes one key of several. A fresh key shares the bucket of another with a chance of one in 2^64 for each key that is remembered. A call of a key that is known takes no lock.
//! A key that is one integer of up to eight bytes is not hashed by SipHash there, but multiplied by a secret number; nobody who has not seen such hashes, which stay in here, can tell which
//! integers meet.
//!
//! Limits may be [kept elsewhere](LimitStore), and answer later.
//!
//! # Errors
//!
//! [`Rejected`](crate::Rejected) with [`Reason::RateLimited`](crate::Reason::RateLimited) and the time to come back, or, for a cost above the burst, which can never pass, with
//! [`Reason::CostTooHigh`](crate::Reason::CostTooHigh). Of several limits the one with the longest wait refuses, under its name. The inner service was not called.
//!
//! # Events and metrics
//!
//! | [`EventKind`](crate::EventKind) | when | metric (feature `metrics`), all with the label `name` |
//! |---|---|---|
//! | `Rejected` | a call was refused | counter `buttress_rate_limit_rejected_total` |
//! | `Rejected` with `shadow` | it would have been | counter `buttress_rate_limit_shadow_rejected_total` |
//! | `NearLimit` | a call took what is used past [`near_limit`](RateLimitSettings::near_limit) | counter `buttress_rate_limit_near_limit_total` |
//! | `KeysExhausted` | a key found no place, the first time and every [`max_keys`](RateLimitSettings::max_keys) times after | counter `buttress_rate_limit_keys_exhausted_total` |
//! | `StoreFailed` | a [store](LimitStore) that is kept elsewhere gave no answer | counter `buttress_rate_limit_store_failed_total` |
//! | `StoreSwitched` | calls are decided without the store, or by it again | counter `buttress_rate_limit_store_switches_total` by `to`, `away` or `shared` |
//!
//! Histogram `buttress_rate_limit_wait_seconds` has how long calls stood in line, whatever became of them. What it grows by in a second, in seconds, is how many stood
//! there at a time. It is no event, because it is nothing rare.
//!
//! # Clone
//!
//! The quota, and the line, are made by the layer, and shared by its clones, the services they build, and every handle. Readiness, and a place in line, stay with
//! the service that has them.
//!
//! # Cancel safety
//!
//! What a call took is used, also when its future is dropped: the dependency may have seen it. A call that leaves the line, or that was let go and
//! never knew, gives back what it took, and so does a [backpressure](RateLimitLayer::backpressure) service that is dropped ready. Otherwise readiness takes nothing.
//!
//! # Panics
//!
//! Only from the plain constructors, on settings that cannot work, and from a backpressure service that is called without being ready.
//!
//! # Differences from tower
//!
//! [`RateLimit`](https://docs.rs/tower/latest/tower/limit/struct.RateLimit.html) is not `Clone`, counts by fixed windows, so that twice the number can pass around the edge of one, and makes its callers wait.

mod account;
mod bucket;
mod counter;
mod decision;
mod future;
mod handle;
mod homeless;
mod keyed;
mod keyed_buckets;
mod keyed_future;
mod keyed_handle;
mod keyed_ledgers;
mod keyed_state;
mod keyed_waiting;
mod layer;
mod ledger;
mod line;
#[cfg(all(test, buttress_loom))]
mod loom_models;
mod policy;
mod quota;
mod service;
mod settle;
mod sliding_counter;
mod sliding_log;
mod state;
mod store;
mod ticket;
mod token_bucket;

pub use self::{
    decision::{Decision, Decisions},
    future::{ResponseFuture, WaitingFuture},
    handle::{RateLimitHandle, RateLimitSnapshot, Reservation},
    keyed::{KeyedRateLimit, KeyedRateLimitLayer},
    keyed_future::{Kept, KeyedResponseFuture},
    keyed_handle::KeyedRateLimitHandle,
    keyed_waiting::{KeyedWaiting, KeyedWaitingHandle, KeyedWaitingLayer},
    layer::RateLimitLayer,
    policy::{Algorithm, LimitSettings, RateLimitSettings},
    quota::Quota,
    service::{Backpressure, OneUnit, RateLimit, Refusing, RequestCost, Waiting},
    settle::{ActualCost, After, Afterwards, Bill, Nothing, Paid, PauseWhenAsked, Settle},
    store::{LimitStore, Taken},
};
