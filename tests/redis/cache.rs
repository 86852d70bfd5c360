//! One process of a fleet that shares a cache, and what it depends on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use buttress::{
    Rejected,
    cache::{CacheHandle, CacheKey, CacheSettings, CacheStatus, Keep, Store},
    redis::{Bytes, Lanes, RedisStore, RedisStoreSettings},
};
use tokio::sync::Semaphore;
use tower::{Layer, ServiceExt, service_fn};

use crate::LONG;

pub(crate) type Page = Vec<u8>;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// Without jitter, so that tests know the ttl.
pub(crate) const CACHE: CacheSettings = CacheSettings::new().ttl(MINUTE).jitter(0.0);
pub(crate) const STORE: RedisStoreSettings = RedisStoreSettings::new().prefix("t");

/// Answers with the number of the call; while it is held, calls wait.
#[derive(Clone)]
pub(crate) struct Dependency {
    calls: Arc<AtomicU32>,
    gate: Arc<Semaphore>,
}

impl Dependency {
    pub(crate) fn new() -> Self {
        Self { calls: Arc::default(), gate: Arc::new(Semaphore::new(1 << 20)) }
    }

    pub(crate) fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn hold(&self) {
        self.gate.forget_permits(1 << 20);
    }

    pub(crate) fn let_go(&self) {
        self.gate.add_permits(1 << 20);
    }

    async fn answer(&self) -> Page {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        self.gate.acquire().await.unwrap().forget();
        self.gate.add_permits(1);
        call.to_string().into_bytes()
    }
}

/// A request.
struct Ask(String);

pub(crate) struct Node<St> {
    pub(crate) cache: CacheHandle<CacheKey, Page, St>,
    pub(crate) dependency: Dependency,
}

pub(crate) fn key(name: &str) -> CacheKey {
    CacheKey::new("test", 1).str(name)
}

fn origin(status: CacheStatus) -> &'static str {
    match status {
        CacheStatus::Fresh { .. } => "fresh",
        CacheStatus::Stale { .. } => "stale",
        CacheStatus::Loaded { collapsed: false, .. } => "loaded",
        _ => "other",
    }
}

/// What the entry of this key is called in Redis.
pub(crate) fn name(key: &str) -> String {
    format!("t:{{{}}}", self::key(key).hex())
}

pub(crate) fn store(lanes: &Lanes, settings: RedisStoreSettings) -> RedisStore<Page> {
    RedisStore::try_new(lanes, settings, Bytes).unwrap()
}

impl<St: Store<CacheKey, Page>> Node<St> {
    pub(crate) fn new(settings: CacheSettings, store: St, dependency: &Dependency) -> Arc<Self> {
        let cache = CacheHandle::with_store(settings, store).unwrap();
        Arc::new(Self { cache, dependency: dependency.clone() })
    }

    /// The answer, and where it came from.
    pub(crate) async fn says(&self, key: &str) -> (String, &'static str) {
        let dependency = self.dependency.clone();
        let client = service_fn(move |_: Ask| {
            let dependency = dependency.clone();
            async move { Ok::<_, Rejected>(dependency.answer().await) }
        });
        let layer = self
            .cache
            .layer(|ask: &Ask| Some(self::key(&ask.0)))
            .keep(|_: &Page| Keep::default().tag("every"))
            .tell(|page: Page, status| (page, origin(status)));
        let answer = tokio::time::timeout(LONG, layer.layer(client).oneshot(Ask(key.to_owned()))).await;
        let (page, origin) = answer.expect("it answers").unwrap();
        (String::from_utf8(page).unwrap(), origin)
    }

    /// How long the answer is still fresh.
    pub(crate) async fn fresh_for(&self, key: &str) -> Duration {
        let dependency = self.dependency.clone();
        let client = service_fn(move |_: Ask| {
            let dependency = dependency.clone();
            async move { Ok::<_, Rejected>(dependency.answer().await) }
        });
        let layer = self.cache.layer(|ask: &Ask| Some(self::key(&ask.0))).tell(|_: Page, status| status);
        match layer.layer(client).oneshot(Ask(key.to_owned())).await {
            Ok(CacheStatus::Fresh { ttl, .. }) => ttl,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn is(&self, key: &str, answer: u32, from: &'static str) {
        assert_eq!(self.says(key).await, (answer.to_string(), from), "{key}");
    }
}

/// Until it is so.
pub(crate) async fn until<T>(what: &str, mut is: impl AsyncFnMut() -> Option<T>) -> T {
    let began = tokio::time::Instant::now();
    loop {
        if let Some(it) = is().await {
            return it;
        }
        assert!(began.elapsed() < LONG, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
