//! What a recorder is told while passwords are right and wrong.

use std::sync::{Arc, Mutex};

use buttress::{
    cache::{CacheKey, MemoryStore},
    rate_limit::{Quota, RateLimitSettings as Settings},
    redis::{RedisLimits, TieredStore, Unavailable},
};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use crate::{
    QUICK,
    cache::{CACHE, Dependency, Node, Page, STORE, key, store},
    lanes, leases,
    server::Server,
    take,
    tiered::TIER,
};

/// All names and labels that a recorder hears.
#[derive(Clone, Default)]
pub(crate) struct Recorded(Arc<Mutex<String>>);

impl Recorded {
    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    fn hear(&self, key: &Key) {
        self.0.lock().unwrap().push_str(&format!("{key}\n"));
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.hear(key);
        Counter::noop()
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.hear(key);
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.hear(key);
        Histogram::noop()
    }
}

/// lettuce_1405_password_in_debug: here in a label.
#[tokio::test]
async fn no_password_is_in_any_label_or_event_whether_it_is_right_or_wrong() {
    let recorded = Recorded::default();
    // For this thread, and the test runs on one.
    let _guard = metrics::set_default_local_recorder(&recorded);
    let mut server = Server::start().await;
    let told = Arc::new(Mutex::new(String::new()));
    let listener = || {
        let told = Arc::clone(&told);
        move |event: &buttress::Event<'_>| told.lock().unwrap().push_str(&format!("{event:?}\n"))
    };
    let _: String = server.ask("CONFIG", ("SET", "requirepass", "s3cret")).await;
    for (password, is_right) in [("s3cret", true), ("wr0ng", false)] {
        let lanes = lanes(&format!("redis://:{password}@127.0.0.1:{}/", server.port), QUICK);
        let settings = Settings::token_bucket(Quota::per_day(1_000)).name("limited");
        let limits = RedisLimits::<String>::try_new(&lanes, settings, Unavailable::Open).unwrap();
        let near = MemoryStore::<CacheKey, Page>::try_new(CACHE).unwrap();
        let tiered = TieredStore::try_new(near, store(&lanes, STORE), TIER).unwrap();
        let node = Node::new(CACHE.name("pages"), tiered, &Dependency::new());
        lanes.breaker().on_event(listener());
        limits.on_event(listener());
        node.cache.on_event(listener());
        node.cache.store().on_event(listener());
        leases::until("it decides", async || take(&limits, "user", 1).await.is_ok() && limits.is_away() != is_right)
            .await;
        node.is("a", 1, "loaded").await;
        node.is("a", 1, "fresh").await;
        if is_right {
            server.kill();
        }
        for n in 0..5 {
            assert!(take(&limits, "user", 1).await.is_ok());
            node.says(&n.to_string()).await;
        }
        assert!(limits.is_away() && node.cache.store().is_away() && node.cache.get(&key("0")).is_some());
        if is_right {
            server.restart().await;
            let _: String = server.ask("CONFIG", ("SET", "requirepass", "s3cret")).await;
        }
    }
    let (recorded, told) = (recorded.text(), told.lock().unwrap().clone());
    for (said, of) in [
        (&recorded, ["limited", "pages", "circuit_breaker_state"]),
        (&told, ["StoreFailed", "StoreSwitched", "Transition"]),
    ] {
        for of in of {
            assert!(said.contains(of) || (said.is_empty() && !cfg!(feature = "metrics")), "{of} in {said}");
        }
        assert!(!said.contains("s3cret") && !said.contains("wr0ng"), "{said}");
    }
}
