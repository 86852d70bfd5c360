//! Middleware that keeps answers, loads each of them once, and has one in hand when there is no new one to be had.
//!
//! A dependency that is asked the same thing by many is asked once: the answer is kept, and while it is being loaded everybody waits for that one load. It
//! runs in a task of its own, so a caller that goes away, times out or panics harms nobody. And an answer that is past its time is better than none: it is
//! served while a new one is loaded, while the dependency is slow, and while it is down.
//!
//! # Where it goes
//!
//! Outermost but for the deadline and what only looks: a hit then touches neither retry nor limiter nor breaker nor client, and a refusal of any of
//! them is covered by the stale answer in hand.
//!
//! # Example
//!
//! ```
//! use buttress::cache::{CacheLayer, CacheSettings};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), buttress::Error<std::io::Error>> {
//! let client = service_fn(async |city: &'static str| Ok::<_, std::io::Error>(format!("sunny in {city}")));
//! let layer = CacheLayer::new(CacheSettings::new(), |city: &&'static str| Some(*city));
//! let handle = layer.handle();
//! let mut stack = ServiceBuilder::new()
//!     .layer(layer)
//!     .map_err(buttress::Error::Service) // The client's error is not ours to extend.
//!     .service(client);
//! buttress::check::<&str, _>(&stack);
//!
//! for _ in 0..2 {
//!     assert_eq!(stack.ready().await?.call("Oslo").await?, "sunny in Oslo");
//! }
//! assert_eq!((handle.stats().hits, handle.stats().loads), (1, 1));
//! # Ok(())
//! # }
//! ```
//!
//! # Customising
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use buttress::{BoxError, cache::{CacheHandle, CacheKey, CacheSettings, CacheStatus, Keep, MemoryStore}};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! struct Request { tenant: u64, method: &'static str, path: String }
//! type Page = Arc<[u8]>;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let settings = CacheSettings::new()
//!     .name("pages")
//!     .ttl(Duration::from_secs(300))
//!     .negative_ttl(Duration::from_secs(5))
//!     .stale_while_revalidate(Duration::from_secs(30))
//!     .stale_if_error(Duration::from_secs(3600))
//!     .soft_timeout(Duration::from_millis(50))
//!     .max_entries(100_000)
//!     .max_bytes(64 << 20);
//! let store = MemoryStore::weighed(settings, |key: &CacheKey, page: &Page| (key.weight() + page.len()) as u64)?;
//! let handle = CacheHandle::with_store(settings, store)?;
//! // There is no default key: what it leaves out is shared, so the tenant comes first.
//! let layer = handle
//!     .layer(|request: &Request| {
//!         let key = || CacheKey::new("pages", 1).u64(request.tenant).str(&request.path);
//!         (request.method == "GET").then(key)
//!     })
//!     .keep_by_request(|request: &Request| {
//!         let tag = format!("tenant-{}", request.tenant);
//!         move |page: &Page| if page.is_empty() { Keep::negative() } else { Keep::default().tag(tag) }
//!     })
//!     .tell(|page: Page, status: CacheStatus| (page, status))
//!     .on_event(|event| println!("{event:?}"));
//! let client = service_fn(async |request: Request| Ok::<_, BoxError>(Page::from(request.path.as_bytes())));
//! let mut stack = ServiceBuilder::new().layer(layer).service(client);
//!
//! let request = || Request { tenant: 7, method: "GET", path: "/index".into() };
//! assert!(matches!(stack.ready().await?.call(request()).await?.1, CacheStatus::Loaded { stored: true, .. }));
//! assert!(matches!(stack.ready().await?.call(request()).await?.1, CacheStatus::Fresh { .. }));
//! handle.invalidate_tag("tenant-7").await?;
//! assert!(matches!(stack.ready().await?.call(request()).await?.1, CacheStatus::Loaded { .. }));
//! # Ok(())
//! # }
//! ```
//!
//! # The life of an entry
//!
//! ```text
//!  stored          early          ttl     stale_while_revalidate      stale_if_error
//!    |--- fresh ----|---- fresh ---|--------- stale ---------|----- stale -----|  gone
//!    served         served,        served,                   served if the
//!                   one load in    one load in               load fails or
//!                   the background the background            is too slow
//! ```
//!
//! Both windows of staleness begin with the end of the ttl, as in RFC 5861, and are checked at the moment of the answer. After a load that failed, who has a
//! stale answer in hand gets it without asking for the [`throttle`](CacheSettings::throttle).
//!
//! | the load ends with ([`Outcome`](crate::Outcome)) | stored | who has a stale answer in hand gets |
//! |---|---|---|
//! | `Success` | yes, unless [`keep`](CacheLayer::keep) has a veto | the new one |
//! | `Permanent` | for the [`negative_ttl`](CacheSettings::negative_ttl), if there is one, also an error | the new one |
//! | `Transient`, `Rejected`, a panic, a time-out | no | the stale one |
//! | `Ignored` | no | the new one |
//!
//! # One load per key
//!
//! Who finds nothing to be served at once begins the load of the key, or waits for the one that is under way. The load has neither the caller's
//! deadline nor its fate; it ends at its [`hard_timeout`](CacheSettings::hard_timeout), or when the runtime does. Who waits obeys its own deadline, and is woken once.
//! Loads and waiters are bounded: who finds no place gets the stale answer in hand, or is refused.
//!
//! An invalidation while a key is loaded voids the load: its answer goes to those who had come before, is not stored, and who comes after begins
//! another one.
//!
//! # Where entries live
//!
//! In a [`MemoryStore`], unless the cache [has another one](CacheHandle::with_store). Where crawlers or nightly jobs walk through everything,
//! [`ScanResistantStore`](https://docs.rs/buttress/latest/buttress/scan_resistant) (feature `scan-resistant`) keeps what the others have in use.
//!
//! [`Store`] has a near half that answers at once, and a far half, which is asked in the task of the load and so once for all who wait: a hit in
//! memory pays nothing for it. [`Envelope`] is what it keeps beside the value, in lengths of time.
//!
//! # Errors
//!
//! Who began a load gets its error itself, or its panic. Who waited for it gets a [`Rejected`](crate::Rejected): the one of the layer below if it was
//! refused there, [`TimedOut`](crate::Reason::TimedOut) after the hard time-out, and otherwise [`LoadFailed`](crate::Reason::LoadFailed), which the default classifier
//! takes for what it was. With [`share_errors`](CacheLayer::share_errors) each gets a clone of the error; with [`in_turn`](CacheSettings::in_turn) each makes its own
//! attempt, one after another.
//!
//! The cache itself refuses with [`BulkheadFull`](crate::Reason::BulkheadFull) where there is no place to load or to wait, and with
//! [`DeadlineExceeded`](crate::Reason::DeadlineExceeded) who waits until its deadline.
//!
//! # What it costs
//!
//! A hit clones the answer, so make that cheap: an [`Arc`](std::sync::Arc), or `Bytes`. It reads the clock, takes one short lock, and allocates nothing. The key is hashed as it is; its
//! SHA-256 is only for where it leaves the process. A miss spawns a task, and allocates.
//!
//! # Events and metrics
//!
//! | [`EventKind`](crate::EventKind) | when | metric (feature `metrics`), all with the label `name` |
//! |---|---|---|
//! | `StaleServed` | an answer past its time was served | counter `buttress_cache_stale_served_total` by `why`: `revalidating`, `failed`, `slow` |
//! | `LoadFailed` | a load failed | counter `buttress_cache_loads_failed_total` |
//! | `LoadVoided` | a load was not stored, because of an invalidation | counter `buttress_cache_loads_voided_total` |
//! | `Evicted` | entries left for want of room, or after their time | counters `buttress_cache_evicted_total`, `buttress_cache_expired_total` |
//! | `EntryTooLarge` | an entry is larger than all the room | counter `buttress_cache_too_large_total` |
//! | `StoreFailed` | a [store](Store) that is kept elsewhere gave no answer, or a write to it was given up | counter `buttress_cache_store_failed_total` |
//! | `StoreForeign` | it has something else under a key | counter `buttress_cache_store_foreign_total` |
//! | `StoreSwitched` | only what is near is used, or the store again | counter `buttress_cache_store_switches_total` by `to`, `away` or `shared` |
//! | `Rejected` | no place to load or to wait, or a deadline | counter `buttress_cache_rejected_total` |
//!
//! Figures of every call are in [`CacheHandle::stats`]. Counters `buttress_cache_calls_total` by `result`, `hit` or `miss`, and `buttress_cache_loads_total`
//! follow them with the end of each load and with each look at the stats, so that they cost a hit nothing.
//!
//! With the feature `tracing`, the span that the call runs in is told its [`CacheStatus`], if it has declared the [attribute](crate::event::SPAN_ATTRIBUTES).
//!
//! # Clone
//!
//! The entries, the loads under way and the listeners are made by the layer, and shared by its clones, the services they build, and every handle. Layers
//! that are to share them are made by one handle.
//!
//! # Cancel safety
//!
//! A call that is dropped before its first poll has begun nothing. After that its load goes on without it. A load that ends with its runtime is an answer
//! for those who wait elsewhere.
//!
//! # Panics
//!
//! A panic of the inner service, or of a classifier or a function of this layer, in the load reaches the caller that began it; those who waited get
//! [`LoadFailed`](crate::Reason::LoadFailed). Outside a tokio runtime there is no task to load in: the call passes by, and nothing is kept. In a runtime whose time is not
//! enabled there are no time-outs.

mod entry;
mod flight;
mod future;
mod handle;
mod hashed;
mod hooks;
mod keep;
mod key;
mod layer;
mod least_recent;
mod life;
mod load;
#[cfg(all(test, buttress_loom))]
mod loom_models;
mod memory;
mod miss;
mod policy;
mod replacement;
mod service;
mod state;
mod stats;
mod status;
mod store;
mod tags;

pub use self::{
    entry::{Entry, Envelope, Seen, WeakEntry},
    future::ResponseFuture,
    handle::CacheHandle,
    hooks::{ByRequest, ByResponse, Failures, Hooks, KeepAll, KeepBy, KeepOf, OfResponse, RefuseWaiters, ShareErrors},
    keep::Keep,
    key::CacheKey,
    layer::CacheLayer,
    least_recent::LeastRecent,
    memory::{MemoryStore, ShardedStore},
    policy::{CacheSettings, Early},
    service::Cache,
    stats::CacheStats,
    status::{CacheStatus, Tell, Untold, WhyStale},
    store::{Done, Fetched, Nowhere, Put, Store, Usage},
};
// For the store that is scan-resistant, where there is one.
#[allow(unused_imports)]
pub(crate) use self::{
    hashed::{BuildAsItIs, Hashed, Look},
    policy::Room,
    replacement::{Held, Left, Replacement},
};
