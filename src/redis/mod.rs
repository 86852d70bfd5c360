//! Limits that a whole fleet shares, kept in Redis, and calm when Redis is not.
//!
//! A limit of this process is n times the limit when n processes run. [`RedisLimits`] keeps it in Redis, for
//! [`KeyedRateLimitLayer::over`](crate::rate_limit::KeyedRateLimitLayer::over): the same layer, one question to Redis for each call, and one script that answers it.
//!
//! # Example
//!
//! ```no_run
//! use buttress::{
//!     rate_limit::{KeyedRateLimitLayer, Quota, RateLimitSettings},
//!     redis::{LaneSettings, Lanes, RedisLimits, Unavailable},
//! };
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), buttress::BoxError> {
//! let lanes = Lanes::try_from_url("redis://127.0.0.1/", LaneSettings::new())?; // Connects with the first call.
//! let users = RateLimitSettings::token_bucket(Quota::per_second(5).burst(20)).name("user");
//! let limits = RedisLimits::try_new(&lanes, users, Unavailable::default())?;
//! let stack = ServiceBuilder::new()
//!     .layer(KeyedRateLimitLayer::over(limits, |user: &u64| *user))
//!     .service(service_fn(async |_: u64| Ok::<_, buttress::BoxError>(())));
//! buttress::check::<u64, _>(&stack);
//! stack.oneshot(7).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Customising
//!
//! ```
//! use std::time::Duration;
//! use buttress::{
//!     circuit_breaker::CircuitBreakerSettings,
//!     rate_limit::{Quota, RateLimitSettings},
//!     redis::{LaneSettings, Lanes, LeaseSettings, RedisLimitSettings, RedisLimits, Unavailable},
//! };
//!
//! const NEAR: LaneSettings = LaneSettings::new()
//!     .deadline(Duration::from_millis(10))
//!     .breaker(CircuitBreakerSettings::consecutive_failures(3).open_for(Duration::from_millis(500)).name("limits"));
//! const LOGIN: RateLimitSettings = RateLimitSettings::sliding_log(Quota::per_minute(5)).name("login")
//!     .and(RateLimitSettings::sliding_counter(Quota::per_day(100)).name("login_day"));
//! const LOGINS: RedisLimitSettings = RedisLimitSettings::new(LOGIN)
//!     .and_all_leased(RateLimitSettings::token_bucket(Quota::per_second(1_000)).name("logins"), LeaseSettings::new(20))
//!     .prefix("shop")
//!     .unavailable(Unavailable::Closed);
//!
//! # fn main() -> Result<(), buttress::BoxError> {
//! let lanes = Lanes::try_from_url("redis://:secret@127.0.0.1/", NEAR)?;
//! let limits: RedisLimits<String> = RedisLimits::try_with(&lanes, LOGINS)?;
//! limits.on_event(|event| println!("{event:?}"));
//! assert!(!format!("{limits:?}").contains("secret"));
//! # Ok(())
//! # }
//! ```
//!
//! # Lanes
//!
//! Operations share a few connections, on which many are under way at a time: a checkout of a pool for each of them would cost a `PING` each. A lane is
//! made with the first operation that needs it, in a task of its own, and all who come meanwhile wait for that one. It is replaced when it breaks (one to a cluster replaces what breaks of it), and kept on a time-out, because
//! a server that hung goes on where it was; only when a probe of the breaker is not answered either is the next one sent on a new connection.
//!
//! Every operation has one [`deadline`](LaneSettings::deadline), which includes the connection that it may have to wait for, and one breaker around all of them.
//! Nothing is tried twice, except a script that Redis says it does not know, or a question whose slot has moved, which have not run.
//!
//! Lanes come from a URL, from a pool, from a pool over Sentinel, or from the URLs or a pool of a cluster. A lane is taken out of the pool for good, so the pool's own places stay for those who need a connection of their own, to
//! block or to subscribe: [`Lanes::pool`].
//!
//! # Sentinel and Cluster
//!
//! | | single | Sentinel | Cluster |
//! |---|---|---|---|
//! | all limits of a key, exact, all or nothing | yes | yes | yes, by a hash tag |
//! | limits of all keys in the same script | yes | yes | refused when it is built |
//! | limits of all keys in leases | yes | yes | yes |
//! | a master that dies | | the next lane leads to the new one | the calls of its slots are decided by the policy until its replica goes on |
//! | a slot that has moved | | | is followed |
//!
//! A replica that goes on knows what it had heard of: what was paid in the last moments before may be paid again. While a slot is on its way to another node, its keys are decided by the policy. Give
//! [`try_from_cluster_urls`](Lanes::try_from_cluster_urls) several nodes, because a lane that is made while the only one is down is not made.
//!
//! # Limits
//!
//! One script decides on all limits of a key, all or nothing, by the clock of Redis in whole microseconds; the clocks of the processes do not matter. A bucket
//! is one integer (with a second one where a unit takes no whole number of microseconds), a counter three, a log a sorted set with a member for each unit, of at most 10,000. What
//! is refused is not recorded. Every key has a time to live, and one that has lost it gets it back with the next decision; what somebody else has put there
//! counts as nothing, and is overwritten.
//!
//! The keys are `<prefix>:{.<key>}:<number>:<kind>:<name>`, so that all of one key are in one slot. The key is what its `Display` says: keys that are not equal must not
//! look equal. Of one that says more than 200 bytes the SHA-256 is taken instead, as `{#<hash>}`.
//!
//! What Redis said last of a key is known here for ten seconds, for [headers](crate::rate_limit::Paid::decisions). What is charged or given back after a call is sent once, soon, in a task of
//! its own: it counts at most once, and not at all in Redis while Redis is away.
//!
//! A refusal is remembered until it would be none, for at most 10,000 keys, so that a flood that is refused anyhow does not reach Redis.
//!
//! # Each and all
//!
//! [`and_all`](RedisLimitSettings::and_all) puts limits of all keys together into the script of each call: exact, all or nothing, and not in a cluster, where
//! the two are in different slots; building it over lanes to a cluster is an error. A proxy that looks like one server and spreads the keys over several answers such a script with an error too.
//! [`and_all_leased`](RedisLimitSettings::and_all_leased) is for those: the limits of a key stay exact, those of all are paid in batches. A call that its key's limits refuse, or that is dropped before they have decided, gives back what it had of
//! a batch at once. When no batch is left, a call asks for both, one after the other.
//!
//! # Leases
//!
//! With a [`lease`](RedisLimitSettings::lease) a process pays a batch in advance, decides on it without asking, fetches the next one when half of it is spent, and gives back what is
//! left when it ends. While there is none, each call is asked for by itself, so nobody waits for a batch. Never more is paid than the quota; [`LeaseSettings`] says what a window can see.
//!
//! # When Redis is away
//!
//! | [`Unavailable`] | |
//! |---|---|
//! | [`Local`](Unavailable::Local), the default, with a quarter | a limiter in this process decides, with this share of every quota: n processes together admit n times the share, so with a quarter 4 admit the quota and 10 two and a half times as much |
//! | [`Open`](Unavailable::Open) | everything passes |
//! | [`Closed`](Unavailable::Closed) | nothing passes: [`Reason::LimitUnknown`](crate::Reason::LimitUnknown) |
//!
//! The local limiter takes part in every decision of Redis as far as it has units, so it is warm. The first calls that get no answer wait for the deadline, five of them with the
//! default breaker and all that are under way with them; from then on calls are decided at once, and one probe a second asks whether Redis is back. The first that is answered
//! brings the limits back.
//!
//! A call whose answer was lost may have been paid in Redis, and is decided here: it is paid there at most once.
//!
//! # Errors
//!
//! Those of [`rate_limit`](crate::rate_limit), and [`RedisFailure`] of [`Lanes::query`]. Neither says anything of addresses, passwords, commands or replies.
//!
//! # Events and metrics
//!
//! Those of [`rate_limit`](crate::rate_limit), under the limiter's name, `StoreFailed` and `StoreSwitched` among them, and those of the [`breaker`](Lanes::breaker).
//!
//! # Clone
//!
//! Clones of [`Lanes`] share connections and breaker, clones of [`RedisLimits`] all they have.
//!
//! # Cancel safety
//!
//! A call that is dropped while Redis is asked may have been paid. Its answer is dropped with it, and confuses nobody.
//!
//! # Panics
//!
//! When a lane is to be made outside a tokio runtime.

mod asker;
mod book;
mod failure;
mod key;
mod lane;
mod lanes;
mod lease;
mod limit_policy;
mod limiter;
mod limits;
mod policy;
mod script;
mod source;
mod told;

pub use deadpool_redis;

pub use self::{
    failure::RedisFailure,
    lanes::Lanes,
    lease::LeaseSettings,
    limit_policy::RedisLimitSettings,
    limiter::Verdict,
    limits::RedisLimits,
    policy::{LaneSettings, Unavailable},
};
