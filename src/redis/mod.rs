//! Limits and answers that a whole fleet shares, kept in Redis, and calm when Redis is not.
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
//! A cache of all processes, with memory in front of it:
//!
//! ```no_run
//! use std::{sync::Arc, time::Duration};
//! use buttress::{
//!     BoxError,
//!     cache::{CacheHandle, CacheKey, CacheSettings, MemoryStore},
//!     redis::{Bytes, LaneSettings, Lanes, RedisStore, RedisStoreSettings, TierSettings, TieredStore},
//! };
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! type Page = Arc<[u8]>; // Cheap to clone, and bytes. `Json` and `Postcard` are for what is not.
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let lanes = Lanes::try_from_url("redis://127.0.0.1/", LaneSettings::new())?;
//! let settings = CacheSettings::new().name("pages").ttl(Duration::from_secs(300)).stale_if_error(Duration::from_secs(3600));
//! let far = RedisStore::try_new(&lanes, RedisStoreSettings::new().name("pages").prefix("shop:pages"), Bytes)?;
//! let near = MemoryStore::weighed(settings, |key: &CacheKey, page: &Page| (key.weight() + page.len()) as u64)?;
//! let store = TieredStore::try_new(near, far, TierSettings::new().near_ttl(Duration::from_secs(30)))?;
//! let handle = CacheHandle::with_store(settings, store)?;
//! let stack = ServiceBuilder::new()
//!     .layer(handle.layer(|path: &String| Some(CacheKey::new("pages", 1).str(path))))
//!     .service(service_fn(async |path: String| Ok::<_, BoxError>(Page::from(path.into_bytes()))));
//! buttress::check::<String, _>(&stack);
//! stack.oneshot("/index".into()).await?;
//! handle.invalidate_tag("tenant-7").await?; // In every process.
//! # Ok(())
//! # }
//! ```
//!
//! # Lanes
//!
//! Operations share a few connections, on which many are under way at a time: a checkout of a pool for each of them would cost a `PING` each. A lane is
//! made with the first operation that needs it, in a task of its own, and all who come meanwhile wait for that one. It is replaced when it breaks, and the others with it, because an
//! idle one does not know that its server has gone (one to a cluster replaces what breaks of it, node by node). It is kept on a time-out, because a server that hung goes on where it was;
//! only when a probe of the breaker is not answered either is the next one sent on a new connection.
//!
//! Every operation has one [`deadline`](LaneSettings::deadline), which includes the connection that it may have to wait for, and one breaker around all of them.
//! Nothing is tried twice, except a script that Redis says it does not know, or a question whose slot has moved or is on its way, which have not run.
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
//! | a slot that has moved, or is on its way | | | is followed |
//!
//! A replica that goes on knows what it had heard of: what was paid in the last moments before may be paid again. Give
//! [`try_from_cluster_urls`](Lanes::try_from_cluster_urls) several nodes, because a lane that is made while the only one is down is not made.
//!
//! While a slot is on its way to another node, a question whose key is there already, or is new, is asked there (`ASK`), and the slot is still looked for where it was. A question
//! of several keys that are not all on the same node, or of which one is new, is not executed by Redis until the slot has come (`TRYAGAIN`): that is [`RedisFailure::Moving`], which opens no breaker. So
//! several limits of such a key are decided by the policy for so long, and with a single load each process loads for itself.
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
//! A refusal is remembered until it would be none, or this process gives something back, for at most 10,000 keys, so that a flood that is refused anyhow does not
//! reach Redis. Of a limit that is leased it is remembered for the life of a lease at most, because by then others may have given back what they did not use.
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
//! # A cache
//!
//! [`RedisStore`] keeps the entries of a [`cache`](crate::cache) in Redis; [`TieredStore`] has memory in front of it, and a hit there never leaves the process. What is not
//! near is asked for once for all who wait, before the dependency is; what is found there is near from then on.
//!
//! An entry is under `<prefix>:{<SHA-256 of its key>}`: an envelope with a version, who wrote it, and its times by the clock of Redis, so that the clocks of the processes do
//! not matter; its tags; and the bytes of a [`Codec`]. Every key has a time to live. What nobody of this version wrote, or is no value, is a miss, counted, and overwritten.
//! What is larger than [`max_bytes`](RedisStoreSettings::max_bytes) stays in the process, and so does what failed for good.
//!
//! | | fresh for | then |
//! |---|---|---|
//! | near | the [`near_ttl`](TierSettings::near_ttl), and never longer than far | it is looked for in Redis |
//! | far | the ttl of the cache | it is loaded; stale as the cache's settings say, near and far |
//!
//! **Writes.** A load notes what was there when it began. Redis takes its entry only if nothing has changed since: what another process put there
//! meanwhile stays, and an invalidation leaves a grave for the [`longest_load`](RedisStoreSettings::longest_load). What was put by hand is always taken. Of the writes of one process the one
//! that was decided on last stays, however they overtake one another. With [`write_behind`](TierSettings::write_behind) they wait in a bounded queue.
//!
//! **Invalidations** by key, by tag and of all hold in Redis when their future has ended, and reach the memory of other processes a moment later. A tag, and
//! all, is one mark: what began to be loaded before it is gone. Nothing is walked through. One that fails says so, and is not tried again. A mark that Redis evicts for want of memory is forgotten, so its policy should be
//! `noeviction`, or one of the `volatile` ones that evict what ends soonest.
//!
//! | [`Invalidation`] | how others hear of it |
//! |---|---|
//! | [`Tracking`](Invalidation::Tracking), the default | Redis tells of every key of the prefix, whoever changed it, on one connection of its own: RESP3, Redis 6. Not in a cluster, where each master tells only of its own keys |
//! | [`PubSub`](Invalidation::PubSub) | who writes says so on a channel. All who share the cache must, and what others write is not heard |
//! | [`None`](Invalidation::None) | they do not: the near ttl is the bound |
//!
//! The connection is to the server of the URL that the lanes come from, or to a node of the cluster. For lanes of a pool it is said where: [at these servers](Lanes::try_listening_at), or
//! [at the master that Sentinel names](Lanes::try_listening_by_sentinel).
//!
//! When that connection is lost, or does not answer its [`heartbeat`](TierSettings::heartbeat), what is near ages at once: it is as stale as if its time had come, so it is asked for in Redis, or
//! served as far as the settings allow it. It ages once more when there is a new connection, because nobody knows what was missed. In between memory works as it does alone. Redis tells a process of its own writes too,
//! so it looks once, in the background, whether what is there is what it wrote. What is told while a key is loaded keeps that answer out of memory.
//!
//! **One load for the fleet.** With [`single_load`](RedisStoreSettings::single_load) one process holds a lease while it loads, and gives it back when the load ends, however that is; the others look whether there is an
//! entry, for so long, and then load too. It spares the dependency, and is no lock.
//!
//! **Without Redis** there is only what is near, and each process loads for itself. [`RedisStoreStats`] counts an error as an error, and never as a miss.
//!
//! **In a cluster** entries are where their hashes lead. A tag and an entry may be on two masters, so their clocks are compared: what is loaded within the difference after an
//! invalidation may be void, or, in the other direction, outlive one.
//!
//! # When Redis is away
//!
//! The cache goes on with what is near. For limits it is a choice:
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
//! A call whose answer was lost may have been paid in Redis, and is decided here: it is paid there at most once, and what it gives back afterwards stays here. A call
//! that costs more than the local limiter ever has at once takes all that it has, and the rest is a debt.
//!
//! # Errors
//!
//! Those of [`rate_limit`](crate::rate_limit), and [`RedisFailure`] of [`Lanes::query`] and of what invalidates. A cache's call fails only as its dependency does. Neither says anything of addresses, passwords, commands or replies.
//!
//! # Events and metrics
//!
//! Those of [`rate_limit`](crate::rate_limit), under the limiter's name, `StoreFailed` and `StoreSwitched` among them, and those of the [`breaker`](Lanes::breaker). A
//! cache's `StoreFailed`, `StoreForeign` and `StoreSwitched` come under its store's name, to the listeners [of the store](RedisStore::on_event).
//!
//! # Clone
//!
//! Clones of [`Lanes`] share connections and breaker, clones of [`RedisLimits`], [`RedisStore`] and [`TieredStore`] all they have. Only [`Lanes`] are shared with other stores and limits.
//!
//! # Cancel safety
//!
//! A call that is dropped while Redis is asked may have been paid. Its answer is dropped with it, and confuses nobody. What puts or invalidates does what is near
//! at once, and the rest while its future is polled: dropped, it may be done or not.
//!
//! # Panics
//!
//! When a lane is to be made outside a tokio runtime.

mod asker;
mod away;
mod behind;
mod book;
mod code;
mod codec;
mod envelope;
mod failure;
mod far;
mod far_read;
mod far_write;
mod follow;
mod key;
mod lane;
mod lanes;
mod lease;
mod limit_policy;
mod limiter;
mod limits;
mod listener;
mod names;
mod policy;
mod script;
mod source;
mod store;
mod store_policy;
mod store_stats;
mod tiered;
mod told;
mod watch;

pub use deadpool_redis;

#[cfg(feature = "json")]
pub use self::codec::Json;
#[cfg(feature = "postcard")]
pub use self::codec::Postcard;
pub use self::{
    codec::{Bytes, Codec},
    failure::RedisFailure,
    lanes::Lanes,
    lease::LeaseSettings,
    limit_policy::RedisLimitSettings,
    limiter::Verdict,
    limits::RedisLimits,
    policy::{LaneSettings, Unavailable},
    store::{Fetching, RedisStore, Writing},
    store_policy::{Invalidation, RedisStoreSettings, SingleLoad, TierSettings},
    store_stats::RedisStoreStats,
    tiered::TieredStore,
};

/// The pure parser, for the target in `fuzz/`.
#[doc(hidden)]
pub mod fuzzing {
    pub use super::envelope::{FRONT, Lengths, Opened, Sealed, Stamp, back, front, front_of, open, size};
}
