//! The behaviour of the cache, on paused time.

#![cfg(feature = "cache")]
#![allow(clippy::duplicate_mod, reason = "what holds of every store is tested of each")]

#[path = "../support/mod.rs"]
mod support;

mod early;
mod entries;
mod handle;
mod invalidation;
mod life;
mod load;
mod memory;
mod model;
#[cfg(feature = "scan-resistant")]
mod scan_resistant;
mod stale;
mod store;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use buttress::cache::{CacheHandle, CacheSettings, CacheStatus, WhyStale};
use support::AppError;
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneService};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const NANO: Duration = Duration::from_nanos(1);

/// Fresh for ten seconds to the nanosecond.
const BASE: CacheSettings = CacheSettings::new().ttl(Duration::from_secs(10)).jitter(0.0).name("test");

/// A request that cannot be cloned.
#[derive(Debug)]
struct Ask(u32);

/// What the dependency does next.
#[derive(Clone, Debug)]
enum Then {
    /// Answers with the number of the call.
    Answer,
    Fail(AppError),
    Panic,
    PanicInCall,
    Hang,
}

/// A dependency that does as it is told.
#[derive(Clone)]
struct Dependency(Arc<Script>);

struct Script {
    calls: AtomicU32,
    then: Mutex<Then>,
    takes: Mutex<Duration>,
}

type Client = BoxCloneService<Ask, u32, AppError>;

impl Dependency {
    fn new() -> Self {
        let script = Script { calls: AtomicU32::new(0), then: Mutex::new(Then::Answer), takes: Mutex::default() };
        Self(Arc::new(script))
    }

    fn calls(&self) -> u32 {
        self.0.calls.load(Ordering::SeqCst)
    }

    fn then(&self, then: Then) {
        *self.0.then.lock().unwrap() = then;
    }

    fn takes(&self, takes: Duration) {
        *self.0.takes.lock().unwrap() = takes;
    }

    /// Boxed, so that it is not `Sync`.
    fn client(&self) -> Client {
        let script = Arc::clone(&self.0);
        BoxCloneService::new(service_fn(move |_: Ask| {
            let call = script.calls.fetch_add(1, Ordering::SeqCst) + 1;
            let (then, takes) = (script.then.lock().unwrap().clone(), *script.takes.lock().unwrap());
            assert!(!matches!(then, Then::PanicInCall), "told so");
            async move {
                if !takes.is_zero() {
                    tokio::time::sleep(takes).await;
                }
                match then {
                    Then::Answer => Ok(call),
                    Then::Fail(error) => Err(error),
                    Then::Panic | Then::PanicInCall => panic!("told so"),
                    Then::Hang => std::future::pending().await,
                }
            }
        }))
    }
}

/// An answer and where it comes from.
type Told = (u32, CacheStatus);

/// A cache over a dependency, whose answers come with their status.
struct Bench {
    dependency: Dependency,
    handle: CacheHandle<u32, u32>,
}

impl Bench {
    fn new(settings: CacheSettings) -> Self {
        Self { dependency: Dependency::new(), handle: CacheHandle::new(settings) }
    }

    fn service(
        &self,
    ) -> impl Service<Ask, Response = Told, Error = AppError, Future: Send + 'static> + Clone + Send + use<> {
        let layer =
            self.handle.layer(|ask: &Ask| (ask.0 != 0).then_some(ask.0)).tell(|answer, status| (answer, status));
        layer.layer(self.dependency.client())
    }

    async fn ask(&self, key: u32) -> Result<Told, AppError> {
        self.service().oneshot(Ask(key)).await
    }

    /// What it answers and whether that came out of the cache.
    async fn says(&self, key: u32) -> (u32, &'static str) {
        let (answer, status) = self.ask(key).await.unwrap();
        (answer, name(status))
    }
}

fn name(status: CacheStatus) -> &'static str {
    match status {
        CacheStatus::Bypassed => "bypassed",
        CacheStatus::Fresh { .. } => "fresh",
        CacheStatus::Stale { why: WhyStale::Failed, .. } => "stale: failed",
        CacheStatus::Stale { why: WhyStale::Slow, .. } => "stale: slow",
        CacheStatus::Stale { .. } => "stale: revalidating",
        CacheStatus::Loaded { collapsed: true, .. } => "collapsed",
        CacheStatus::Loaded { stored: true, .. } => "stored",
        CacheStatus::Loaded { .. } => "loaded",
        _ => "?",
    }
}

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

/// Lets every task go on until it waits.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}
