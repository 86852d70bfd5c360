//! Events and calls as metrics: exactly the names, kinds and labels that the table of all metrics promises, and the chapter's.

#![cfg(feature = "full")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use buttress::{
    BudgetSettings, Deadline, Error, Outcome,
    cache::{CacheHandle, CacheSettings},
    circuit_breaker::{CircuitBreakerHandle, CircuitBreakerSettings as Settings, KeyedCircuitBreakerLayer},
    event::{METRICS, MetricKind},
    rate_limit::{KeyedRateLimitHandle, Quota, RateLimitHandle, RateLimitLayer, RateLimitSettings},
    red::{RedHandle, RedLayer, RedSettings},
    retry::{Backoff, Jitter, RetryLayer, RetrySettings},
    timeout::{TimeoutLayer, TimeoutSettings},
};
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tower::{Layer, ServiceExt, service_fn};

/// Keeps every series in a map, the labels there were, and the last samples.
#[derive(Default)]
struct Kept(Mutex<BTreeMap<String, Arc<AtomicU64>>>, Mutex<Vec<String>>, Arc<Mutex<[f64; 3]>>);

/// Counts what is recorded, and keeps it.
struct Samples(Arc<AtomicU64>, Arc<Mutex<[f64; 3]>>);

impl HistogramFn for Samples {
    fn record(&self, seconds: f64) {
        assert!((0.0..1e9).contains(&seconds));
        self.0.fetch_add(1, Ordering::SeqCst);
        let [_, second, third] = *self.1.lock().unwrap();
        *self.1.lock().unwrap() = [second, third, seconds];
    }
}

impl Kept {
    fn cell(&self, kind: MetricKind, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let row = METRICS.iter().find(|row| row.name == key.name()).expect("a row of its own in the table");
        assert_eq!(row.kind, kind, "{}", row.name);
        let promised = |label: &metrics::Label| row.labels.contains(&label.key()) || label.key() == DECLARED;
        assert!(key.labels().all(promised), "{labels:?} of {}", row.name);
        self.1.lock().unwrap().extend(key.labels().map(|label| format!("{}/{}", row.name, label.key())));
        let series = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(self.0.lock().unwrap().entry(series).or_default())
    }

    fn values(&self, part: &str) -> BTreeMap<String, u64> {
        let series = self.0.lock().unwrap();
        let value = |cell: &Arc<AtomicU64>| match cell.load(Ordering::SeqCst) {
            bits if f64::from_bits(bits) == 1.0 => 1,
            value => value,
        };
        series.iter().filter(|(name, _)| name.contains(part)).map(|(name, cell)| (name.clone(), value(cell))).collect()
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, meaning: SharedString) {
        assert_described(MetricKind::Counter, &name, &meaning);
    }
    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, meaning: SharedString) {
        assert_described(MetricKind::Gauge, &name, &meaning);
    }
    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        assert_eq!(unit, Some(Unit::Seconds));
        assert_described(MetricKind::Histogram, &name, &meaning);
    }
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(MetricKind::Counter, key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(MetricKind::Gauge, key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Samples(self.cell(MetricKind::Histogram, key), Arc::clone(&self.2))))
    }
}

fn assert_described(kind: MetricKind, name: &KeyName, meaning: &str) {
    let row = METRICS.iter().find(|row| row.name == name.as_str()).expect("a row of the table");
    assert_eq!((row.kind, row.meaning), (kind, meaning));
}

fn some(series: &[(&str, u64)]) -> BTreeMap<String, u64> {
    series.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_comes_after_the_layer_sees_counters_and_exactly_one_state() {
    let handle = CircuitBreakerHandle::try_new(
        Settings::consecutive_failures(1).open_for(Duration::from_secs(1)).successes(1).name("payments"),
    )
    .unwrap();
    // Nobody records: nothing may be registered with the recorder that stands in for none.
    handle.try_acquire().unwrap().failure();
    handle.reset();
    let recorder = Kept::default();
    // Local recorders are for this thread, and this test runs on one.
    let guard = metrics::set_default_local_recorder(&recorder);
    handle.try_acquire().unwrap().failure();
    let stale = handle.try_acquire().unwrap_err();
    assert_eq!(stale.policy(), "payments");
    let states = |closed, open, half_open| {
        some(&[
            ("buttress_circuit_breaker_state{name=payments,state=closed}", closed),
            ("buttress_circuit_breaker_state{name=payments,state=half_open}", half_open),
            ("buttress_circuit_breaker_state{name=payments,state=open}", open),
        ])
    };
    assert_eq!(recorder.values("_state{"), states(0, 1, 0));
    tokio::time::advance(Duration::from_secs(1)).await;
    let probe = handle.try_acquire().unwrap();
    assert_eq!(recorder.values("_state{"), states(0, 0, 1));
    handle.reset();
    assert_eq!(recorder.values("_state{"), states(1, 0, 0));
    probe.success();
    handle.shadow();
    handle.try_acquire().unwrap().failure();
    handle.try_acquire().unwrap().success();
    assert_eq!(
        recorder.values("_total{"),
        some(&[
            ("buttress_circuit_breaker_keys_exhausted_total{name=payments}", 0),
            ("buttress_circuit_breaker_rejected_total{name=payments}", 1),
            ("buttress_circuit_breaker_shadow_rejected_total{name=payments}", 1),
            ("buttress_circuit_breaker_stale_total{name=payments}", 1),
            ("buttress_circuit_breaker_transitions_total{name=payments,to=closed}", 1),
            ("buttress_circuit_breaker_transitions_total{name=payments,to=half_open}", 1),
            ("buttress_circuit_breaker_transitions_total{name=payments,to=open}", 2),
        ])
    );
    // A refusal costs no allocation with a recorder either.
    handle.force_open();
    let refusals = allocation_counter::measure(|| {
        for _ in 0..10 {
            assert!(handle.try_acquire().is_err());
        }
    });
    assert_eq!(refusals.count_total, 0);
    drop(guard);
    exactly_the_table_is_emitted(&recorder, "circuit_breaker", include_str!("../src/circuit_breaker/mod.rs"));
}

/// A service that is used once is gone when its call fails: what it counts is counted all the same.
#[tokio::test(start_paused = true)]
async fn retries_and_why_they_ended_are_counted() {
    let recorder = Kept::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let settings = RetrySettings::new().name("orders").backoff(Backoff::constant(SECOND).jitter(Jitter::None));
    let answer = |fails: u32| {
        let calls = AtomicU64::new(0);
        let calls = Arc::new(calls);
        service_fn(move |_: ()| {
            let failed = calls.fetch_add(1, Ordering::SeqCst) < u64::from(fails);
            std::future::ready(if failed { Err(Error::Service(std::fmt::Error)) } else { Ok(()) })
        })
    };
    let call = |settings: RetrySettings, fails| RetryLayer::new(settings).layer(answer(fails)).oneshot(());
    let none = BudgetSettings::new().ratio(0.000_001).per_second(0);
    assert!(call(settings.clone(), 0).await.is_ok());
    assert!(call(settings.clone(), 2).await.is_ok());
    assert!(call(settings.clone(), 3).await.is_err());
    assert!(call(settings.clone().within(SECOND), 1).await.is_err());
    let late = Deadline::after(SECOND).scope(call(settings.clone(), 1));
    assert!(late.await.is_err());
    let layer = RetryLayer::new(settings.clone()).delays(std::iter::empty());
    assert!(layer.layer(answer(1)).oneshot(()).await.is_err());
    let layer = RetryLayer::new(settings.clone()).resend(|(): &()| None);
    assert!(layer.layer(answer(1)).oneshot(()).await.is_err());
    let layer = RetryLayer::new(settings.budget(none));
    assert!(layer.layer(answer(1)).oneshot(()).await.is_err());
    assert_eq!(
        recorder.values("_total{"),
        some(&[
            ("buttress_retry_gave_up_total{name=orders,why=attempts}", 1),
            ("buttress_retry_gave_up_total{name=orders,why=budget}", 1),
            ("buttress_retry_gave_up_total{name=orders,why=deadline}", 1),
            ("buttress_retry_gave_up_total{name=orders,why=delays}", 1),
            ("buttress_retry_gave_up_total{name=orders,why=request}", 1),
            ("buttress_retry_gave_up_total{name=orders,why=within}", 1),
            ("buttress_retry_recovered_total{name=orders}", 1),
            ("buttress_retry_retries_total{name=orders}", 4),
        ])
    );
    exactly_the_table_is_emitted(&recorder, "retry", include_str!("../src/retry/mod.rs"));
}

#[tokio::test(start_paused = true)]
async fn time_outs_are_counted_by_their_reason() {
    let recorder = Kept::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let hangs = || service_fn(|(): ()| std::future::pending::<Result<(), Error<std::fmt::Error>>>());
    let settings = TimeoutSettings::new(SECOND).name("orders");
    for _ in 0..3 {
        assert!(TimeoutLayer::new(settings).layer(hangs()).oneshot(()).await.is_err());
    }
    let late = Deadline::after(SECOND / 2).scope(TimeoutLayer::new(settings).layer(hangs()).oneshot(()));
    assert!(late.await.is_err());
    assert_eq!(
        recorder.values("_total{"),
        some(&[
            ("buttress_timeout_rejected_total{name=orders,reason=deadline_exceeded}", 1),
            ("buttress_timeout_rejected_total{name=orders,reason=timed_out}", 3),
        ])
    );
    exactly_the_table_is_emitted(&recorder, "timeout", include_str!("../src/timeout/mod.rs"));
}

#[tokio::test(start_paused = true)]
async fn what_befalls_a_cache_is_counted() {
    let recorder = Kept::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let settings = CacheSettings::new().name("orders").ttl(SECOND).jitter(0.0).max_entries(2).max_bytes(8).max_loads(1);
    let settings = settings.stale_if_error(SECOND).throttle(Duration::ZERO).soft_timeout(SECOND / 2);
    let store = buttress::cache::MemoryStore::weighed(settings, |key: &u32, (): &()| u64::from(*key)).unwrap();
    let cache = CacheHandle::with_store(settings, store).unwrap();
    let fails = service_fn(async |_: u32| Err::<(), _>(Error::Service(std::fmt::Error)));
    let hangs = service_fn(|_: u32| std::future::pending::<Result<(), Error<std::fmt::Error>>>());
    let layer = cache.layer(|key: &u32| Some(*key));
    cache.put(1, ());
    tokio::time::advance(SECOND).await;
    assert!(layer.layer(fails).oneshot(1).await.is_ok());
    assert!(layer.layer(hangs).oneshot(1).await.is_ok());
    // The load goes on, and takes the only place.
    assert!(layer.layer(fails).oneshot(2).await.is_err());
    cache.invalidate(&1);
    for key in [2, 3, 4, 9] {
        cache.put(key, ());
    }
    tokio::time::advance(2 * SECOND).await;
    assert_eq!(cache.get(&9), None);
    cache.put(2, ());
    assert_eq!(recorder.values("calls_total{name=orders,result=hit}").into_values().sum::<u64>(), 0);
    assert!(layer.layer(fails).oneshot(2).await.is_ok());
    // Nobody is told a thing twice.
    for _ in 0..2 {
        assert_eq!((cache.stats().calls(), cache.stats().hit_rate()), (4, 0.25));
    }
    assert_eq!(
        recorder.values("_total{"),
        some(&[
            ("buttress_cache_calls_total{name=orders,result=hit}", 1),
            ("buttress_cache_calls_total{name=orders,result=miss}", 3),
            ("buttress_cache_evicted_total{name=orders}", 1),
            ("buttress_cache_expired_total{name=orders}", 2),
            ("buttress_cache_loads_failed_total{name=orders}", 1),
            ("buttress_cache_loads_total{name=orders}", 2),
            ("buttress_cache_loads_voided_total{name=orders}", 0),
            ("buttress_cache_rejected_total{name=orders}", 1),
            ("buttress_cache_stale_served_total{name=orders,why=failed}", 1),
            ("buttress_cache_stale_served_total{name=orders,why=revalidating}", 0),
            ("buttress_cache_stale_served_total{name=orders,why=slow}", 1),
            ("buttress_cache_too_large_total{name=orders}", 1),
        ])
    );
    exactly_the_table_is_emitted(&recorder, "cache", include_str!("../src/cache/mod.rs"));
}

#[tokio::test(start_paused = true)]
async fn refusals_of_a_limiter_are_counted() {
    let recorder = Kept::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let settings = RateLimitSettings::token_bucket(Quota::per_second(2)).name("orders").near_limit(1.0);
    let limiter = RateLimitHandle::try_new(settings).unwrap();
    assert_eq!((0..5).filter(|_| limiter.try_acquire(1).is_err()).count(), 3);
    limiter.shadow(true);
    assert!((0..2).all(|_| limiter.try_acquire(1).is_ok()));
    let keyed = KeyedRateLimitHandle::try_new(settings.max_keys(1)).unwrap();
    assert_eq!((0..3).filter(|key| keyed.try_acquire(key, 1).is_ok()).count(), 3);
    assert_eq!(
        recorder.values("_total{"),
        some(&[
            ("buttress_rate_limit_keys_exhausted_total{name=orders}", 2),
            ("buttress_rate_limit_near_limit_total{name=orders}", 2),
            ("buttress_rate_limit_rejected_total{name=orders}", 3),
            ("buttress_rate_limit_shadow_rejected_total{name=orders}", 2),
        ])
    );
    let line =
        RateLimitLayer::new(settings).waiting().layer(service_fn(async |()| Ok::<_, Error<std::fmt::Error>>(())));
    let waits = (0..3).filter(|_| tokio_test::task::spawn(line.clone().oneshot(())).poll().is_pending());
    assert_eq!(waits.count(), 1);
    exactly_the_table_is_emitted(&recorder, "rate_limit", include_str!("../src/rate_limit/mod.rs"));
}

#[tokio::test(start_paused = true)]
async fn whoever_stood_in_line_is_timed_whatever_became_of_it() {
    let recorder = Kept::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let settings = RateLimitSettings::token_bucket(Quota::per_second(1).burst(1)).name("orders");
    let service =
        RateLimitLayer::new(settings).waiting().layer(service_fn(async |(): ()| Ok::<_, Error<std::fmt::Error>>(())));
    assert!(service.clone().oneshot(()).await.is_ok());
    let timed = || recorder.values("buttress_rate_limit_wait_seconds{name=orders}").into_values().sum::<u64>();
    assert_eq!(timed(), 0, "it did not wait");
    assert!(service.clone().oneshot(()).await.is_ok());
    assert_eq!(timed(), 1);
    let mut leaves = tokio_test::task::spawn(service.clone().oneshot(()));
    assert!(leaves.poll().is_pending());
    assert_eq!(timed(), 1, "it waits");
    drop(leaves);
    assert_eq!(timed(), 2);
}

#[tokio::test(start_paused = true)]
async fn how_long_something_took_is_told_in_seconds() {
    let recorder = Kept::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let client = service_fn(async |()| {
        tokio::time::sleep(Duration::from_millis(250)).await;
        Ok::<_, Error<std::fmt::Error>>(())
    });
    let limit = RateLimitLayer::new(RateLimitSettings::token_bucket(Quota::per_second(1).burst(1))).waiting();
    let service = limit.layer(RedLayer::new("orders").layer(client));
    let (first, second) = tokio::join!(service.clone().oneshot(()), service.clone().oneshot(()));
    assert!(first.is_ok() && second.is_ok());
    // A call, a wait, and a call; a timer may be a tick late.
    let samples = *recorder.2.lock().unwrap();
    assert!(samples.iter().zip([0.25, 1.0, 0.25]).all(|(is, wanted)| (is - wanted).abs() < 0.01), "{samples:?}");
}

/// What was served before a recorder came is not lost to it, and caches of one name add up.
#[tokio::test(start_paused = true)]
async fn the_calls_of_caches_add_up_by_name() {
    let caches: Vec<_> = (0..2).map(|_| CacheHandle::<u32, ()>::new(CacheSettings::new().name("orders"))).collect();
    let ask = async |cache: &CacheHandle<u32, ()>| {
        let answer = service_fn(async |_: u32| Ok::<_, Error<std::fmt::Error>>(()));
        assert!(cache.layer(|key: &u32| Some(*key)).layer(answer).oneshot(1).await.is_ok());
    };
    ask(&caches[0]).await;
    let recorder = Kept::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    ask(&caches[0]).await;
    ask(&caches[1]).await;
    assert_eq!(caches.iter().map(|cache| cache.stats().loads).sum::<u64>(), 2);
    assert_eq!(
        recorder.values("_cache_calls_total{"),
        some(&[
            ("buttress_cache_calls_total{name=orders,result=hit}", 1),
            ("buttress_cache_calls_total{name=orders,result=miss}", 2),
        ])
    );
}

const SECOND: Duration = Duration::from_secs(1);

/// The key of a label that a test declares.
const DECLARED: &str = "route";

/// The patterns that are compared with the table below.
const COMPARED: [&str; 8] =
    ["cache", "cache_store", "circuit_breaker", "rate_limit", "rate_limit_store", "red", "retry", "timeout"];

/// Everything that the tables promise for a pattern, and nothing else.
fn exactly_the_table_is_emitted(recorder: &Kept, pattern: &str, chapter: &str) {
    assert!(COMPARED.contains(&pattern));
    let prefix = format!("buttress_{pattern}_");
    // A store that is kept elsewhere is observed by itself.
    let is_of = |name: &str| name.starts_with(&prefix) && (pattern.ends_with("_store") || !name.contains("_store_"));
    let rows = || METRICS.iter().filter(|row| is_of(row.name));
    let promised: BTreeSet<String> =
        rows().flat_map(|row| row.labels.iter().map(move |label| format!("{}/{label}", row.name))).collect();
    let emitted = recorder.1.lock().unwrap();
    let emitted = emitted.iter().filter(|label| is_of(label) && !label.ends_with(DECLARED));
    assert_eq!(promised, emitted.cloned().collect());
    for row in rows() {
        assert!(chapter.contains(&format!("`{}`", row.name)), "{} is not in the chapter", row.name);
    }
}

#[test]
fn no_row_of_the_table_is_left_out_of_the_comparison() {
    for row in METRICS {
        let compared = |pattern: &&str| row.name.starts_with(&format!("buttress_{pattern}_"));
        assert!(COMPARED.iter().any(compared), "{}", row.name);
        assert_eq!(METRICS.iter().filter(|other| other.name == row.name).count(), 1, "{} twice", row.name);
        let unit = match row.kind {
            MetricKind::Counter => "_total",
            MetricKind::Histogram => "_seconds",
            _ => "",
        };
        assert!(row.name.ends_with(unit) && row.labels[0] == "name", "{}", row.name);
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_is_counted_and_timed_also_by_a_recorder_that_comes_late() {
    let recorder = Kept::default();
    let layer = RedLayer::new("orders");
    let quota = RateLimitLayer::new(RateLimitSettings::token_bucket(Quota::per_day(2)));
    let answer = |fails: bool| std::future::ready(if fails { Err(Error::Service(std::fmt::Error)) } else { Ok(()) });
    let service = layer.layer(quota.layer(service_fn(answer)));
    let hangs = layer.layer(service_fn(|(): ()| std::future::pending::<Result<(), Error<std::fmt::Error>>>()));
    // One that nobody has noted must not be noted when it ends, either: the gauge would fall below zero.
    let before = hangs.clone().oneshot(());
    let mut before = tokio_test::task::spawn(before);
    assert!(before.poll().is_pending());
    let _guard = metrics::set_default_local_recorder(&recorder);
    drop(before);
    assert!(service.clone().oneshot(false).await.is_ok());
    assert!(service.clone().oneshot(true).await.is_err());
    assert!(service.clone().oneshot(false).await.is_err(), "refused");
    for outcome in [Outcome::Permanent, Outcome::Ignored] {
        layer.handle().begin().record(outcome);
    }
    let mut held = tokio_test::task::spawn(hangs.clone().oneshot(()));
    assert!(held.poll().is_pending());
    let in_flight =
        || f64::from_bits(recorder.0.lock().unwrap()["buttress_red_in_flight{name=orders}"].load(Ordering::SeqCst));
    assert_eq!(in_flight(), 1.0);
    drop(held);
    assert_eq!(in_flight(), 0.0);
    assert_eq!(
        recorder.values("_red_requests_total{"),
        some(&[
            ("buttress_red_requests_total{name=orders,outcome=cancelled}", 2),
            ("buttress_red_requests_total{name=orders,outcome=error}", 1),
            ("buttress_red_requests_total{name=orders,outcome=ignored}", 1),
            ("buttress_red_requests_total{name=orders,outcome=ok}", 1),
            ("buttress_red_requests_total{name=orders,outcome=permanent}", 1),
            ("buttress_red_requests_total{name=orders,outcome=rejected,reason=rate_limited}", 1),
        ])
    );
    let timed: u64 = recorder.values("_seconds{").into_values().sum();
    assert_eq!(timed, 7);
    assert_eq!(recorder.values("_seconds{").len(), 6);
    exactly_the_table_is_emitted(&recorder, "red", include_str!("../src/red/mod.rs"));
    // With handles registered, a call allocates nothing.
    let call = || drop(layer.handle().begin());
    let calls = allocation_counter::measure(|| (0..10).for_each(|_| call()));
    assert_eq!(calls.count_total, 0);
}

/// cve_2023_45142_label_cardinality, sigstore_timestamp_authority_1374
#[test]
fn a_hundred_thousand_paths_make_no_new_series() {
    let recorder = Kept::default();
    metrics::with_local_recorder(&recorder, || {
        let settings = RedSettings::new("api").label(DECLARED, &["/users", "/orders"]);
        let layer = RedLayer::new(settings).label_by(|path: &String| path);
        let service = layer.layer(service_fn(|_: String| std::future::ready(Ok::<_, std::convert::Infallible>(()))));
        let call = |path: String| futures::executor::block_on(service.clone().oneshot(path)).unwrap();
        ["/users", "/orders", "other", ""].iter().for_each(|path| call((*path).into()));
        let series = recorder.values("").len();
        (0..100_000).for_each(|n| call(format!("/users/{n}")));
        assert_eq!(recorder.values("").len(), series);
        let by_label = layer.handle().snapshot_by_label();
        let totals: Vec<_> = by_label.iter().map(|(label, red)| (*label, red.requests.ok)).collect();
        assert_eq!(totals, [("/orders", 1), ("/users", 1), ("other", 100_002)]);
        let series = recorder.values("outcome=ok").into_iter().filter(|(name, _)| name.contains("_total{"));
        assert_eq!(series.map(|(_, count)| count).collect::<Vec<_>>(), [1, 1, 100_002]);
    });
}

/// A recorder is somebody's code, and what it does not survive must not cost the call.
#[test]
fn a_recorder_that_panics_costs_no_call_and_no_count() {
    struct Panics;
    impl HistogramFn for Panics {
        fn record(&self, _: f64) {
            panic!("histogram")
        }
    }
    // One without a size is taken for none.
    struct Fragile(#[allow(dead_code, reason = "for its size")] u8);
    impl Recorder for Fragile {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::noop()
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::from_arc(Arc::new(Panics))
        }
    }
    metrics::with_local_recorder(&Fragile(0), || {
        let figures = RedHandle::try_new("fragile").unwrap();
        figures.begin().record(Outcome::Success);
        drop(figures.begin());
        let requests = figures.snapshot().requests;
        assert_eq!((requests.total, requests.ok, requests.cancelled, requests.in_flight), (2, 1, 1, 0));
    });
}

/// CVE-2023-45142: request data as a label.
#[test]
fn cve_2023_45142_keys_make_no_series() {
    let recorder = Kept::default();
    metrics::with_local_recorder(&recorder, || {
        let layer = KeyedCircuitBreakerLayer::new(Settings::consecutive_failures(1).name("hosts"), |key: &u32| *key);
        for key in 0..1_000 {
            layer.handle().circuit(key).unwrap().try_acquire().unwrap().failure();
        }
    });
    assert_eq!(recorder.values("to=open").into_values().collect::<Vec<_>>(), [1_000]);
    assert_eq!(recorder.values("").len(), 7, "one of each");
    assert!(recorder.values("_state{").is_empty(), "no circuit is the state of all");
}

/// A recorder's gauge is somebody's code, and may look at the circuit.
#[test]
fn a_gauge_that_looks_at_the_circuit_does_not_deadlock() {
    struct Looks(std::sync::OnceLock<CircuitBreakerHandle>);
    impl metrics::GaugeFn for Looks {
        fn increment(&self, _: f64) {}
        fn decrement(&self, _: f64) {}
        fn set(&self, _: f64) {
            let _ = self.0.get().map(CircuitBreakerHandle::force_closed);
        }
    }
    struct Gauges(Arc<Looks>);
    impl Recorder for Gauges {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::noop()
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(Arc::clone(&self.0))
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }
    let looks = Arc::new(Looks(std::sync::OnceLock::new()));
    metrics::with_local_recorder(&Gauges(Arc::clone(&looks)), || {
        let handle = CircuitBreakerHandle::try_new(Settings::new()).unwrap();
        let _ = looks.0.set(handle.clone());
        handle.force_open();
        assert_eq!(handle.state(), buttress::CircuitState::Closed, "the gauge has closed it again");
    });
}

/// twenty_23100_store_errors_counted_as_rate_limited
#[tokio::test]
async fn a_store_that_is_away_is_no_refusal() {
    use buttress::{
        rate_limit::{LimitStore, Taken},
        redis::{LaneSettings, Lanes, RedisLimits, Unavailable},
    };
    let recorder = Kept::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    // Nobody listens there.
    let lanes = Lanes::try_from_url("redis://127.0.0.1:1/", LaneSettings::new()).unwrap();
    let settings = RateLimitSettings::token_bucket(Quota::per_hour(100)).name("users");
    let limits = RedisLimits::try_new(&lanes, settings, Unavailable::Open).unwrap();
    for _ in 0..10 {
        if let Taken::Later(verdict) = limits.take(&7, 1) {
            assert!(matches!(verdict.await, Taken::Now(Ok(()))));
        }
    }
    assert_eq!(
        recorder.values("buttress_rate_limit"),
        some(&[
            ("buttress_rate_limit_keys_exhausted_total{name=users}", 0),
            ("buttress_rate_limit_near_limit_total{name=users}", 0),
            ("buttress_rate_limit_rejected_total{name=users}", 0),
            ("buttress_rate_limit_shadow_rejected_total{name=users}", 0),
            ("buttress_rate_limit_store_failed_total{name=users}", 5),
            ("buttress_rate_limit_store_switches_total{name=users,to=away}", 1),
            ("buttress_rate_limit_store_switches_total{name=users,to=shared}", 0),
        ])
    );
    exactly_the_table_is_emitted(&recorder, "rate_limit_store", include_str!("../src/rate_limit/mod.rs"));
    let opened = recorder.values("buttress_circuit_breaker_transitions_total{name=redis,to=open}");
    assert_eq!(opened.values().sum::<u64>(), 1);
}

/// worldmonitor_3527_redis_error_looks_like_a_miss
#[tokio::test]
async fn a_cache_whose_store_is_away_says_so() {
    use buttress::{
        cache::{CacheKey, Store},
        redis::{Bytes, LaneSettings, Lanes, RedisStore, RedisStoreSettings},
    };
    let recorder = Kept::default();
    let _guard = metrics::set_default_local_recorder(&recorder);
    // Nobody listens there.
    let lanes = Lanes::try_from_url("redis://127.0.0.1:1/", LaneSettings::new()).unwrap();
    let store: RedisStore<Vec<u8>> =
        RedisStore::try_new(&lanes, RedisStoreSettings::new().name("pages"), Bytes).unwrap();
    for _ in 0..10 {
        assert!(store.fetch(&CacheKey::new("page", 1)).await.entry.is_none());
    }
    assert_eq!(
        recorder.values("buttress_cache_store"),
        some(&[
            ("buttress_cache_store_failed_total{name=pages}", 5),
            ("buttress_cache_store_foreign_total{name=pages}", 0),
            ("buttress_cache_store_switches_total{name=pages,to=away}", 1),
            ("buttress_cache_store_switches_total{name=pages,to=shared}", 0),
        ])
    );
    exactly_the_table_is_emitted(&recorder, "cache_store", include_str!("../src/cache/mod.rs"));
    assert_eq!((store.stats().errors, store.stats().misses), (10, 0));
}
