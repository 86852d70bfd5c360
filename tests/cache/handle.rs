//! Inspect, control, and use without tower.

use buttress::{
    Deadline, EventKind,
    cache::{CacheLayer, Keep, MemoryStore},
};

use super::*;

#[tokio::test(start_paused = true)]
async fn what_is_put_is_got_for_its_ttl() {
    let bench = Bench::new(BASE.negative_ttl(2 * SECOND));
    let handle = &bench.handle;
    handle.put(1, 11);
    handle.put_for(2, 22, 20 * SECOND);
    handle.put_for(3, 33, Keep::negative());
    handle.put_for(4, 44, Keep::never());
    let found = || [1, 2, 3, 4].map(|key| handle.get(&key));
    assert_eq!(found(), [Some(11), Some(22), Some(33), None]);
    pass(2 * SECOND).await;
    assert_eq!(found(), [Some(11), Some(22), None, None]);
    pass(8 * SECOND).await;
    assert_eq!(found(), [None, Some(22), None, None]);
    handle.put_for(2, 23, Keep::never());
    assert_eq!(found(), [None; 4], "what is not to be kept leaves nothing behind");
    assert_eq!(handle.name(), "test");
}

#[tokio::test(start_paused = true)]
async fn stats_add_up() {
    let bench = Bench::new(BASE.max_entries(2).stale_while_revalidate(MINUTE));
    assert_eq!(bench.handle.stats().hit_rate(), 0.0, "no NaN");
    for key in [1, 2, 1, 3] {
        bench.says(key).await;
    }
    pass(10 * SECOND).await;
    bench.dependency.then(Then::Fail(AppError::Down));
    bench.says(3).await;
    settle().await;
    let stats = bench.handle.stats();
    assert_eq!((stats.hits, stats.stale, stats.misses), (1, 1, 3));
    assert_eq!((stats.loads, stats.errors, stats.evictions, stats.entries), (4, 1, 1, 2));
    assert_eq!(stats.bytes, 2 * 8);
    assert_eq!((stats.hit_rate(), stats.calls_saved()), (0.4, 1));
}

#[tokio::test(start_paused = true)]
async fn clearing_forgets_all() {
    let bench = Bench::new(BASE);
    for key in 1..=3 {
        bench.says(key).await;
    }
    bench.handle.clear();
    let stats = bench.handle.stats();
    assert_eq!((stats.entries, stats.bytes, stats.loads), (0, 0, 3));
    assert_eq!(bench.says(1).await, (4, "stored"));
}

#[tokio::test(start_paused = true)]
async fn rare_things_are_reported_under_the_name() {
    let bench = Bench::new(BASE.max_entries(1).max_loads(1).stale_if_error(MINUTE).throttle(Duration::ZERO));
    let heard = Arc::new(Mutex::new(Vec::new()));
    bench.handle.on_event({
        let heard = Arc::clone(&heard);
        move |event| {
            assert_eq!((event.policy, event.pattern.as_str()), ("test", "cache"));
            heard.lock().unwrap().push(match event.kind {
                EventKind::StaleServed { why, .. } => why.as_str().to_owned(),
                EventKind::LoadFailed { rejected, .. } => rejected.reason().to_string(),
                EventKind::LoadVoided => "voided".into(),
                EventKind::Evicted { live, expired, .. } => format!("{live} evicted, {expired} expired"),
                EventKind::Rejected { rejected, .. } => rejected.reason().to_string(),
                other => format!("{other:?}"),
            });
        }
    });
    let heard = || std::mem::take(&mut *heard.lock().unwrap());
    bench.says(1).await;
    bench.says(1).await;
    assert!(heard().is_empty(), "a load and a hit are nothing rare");
    pass(10 * SECOND).await;
    bench.dependency.then(Then::Fail(AppError::Down));
    bench.says(1).await;
    assert_eq!(heard(), ["load failed (transient)", "failed"]);
    bench.dependency.then(Then::Answer);
    bench.says(2).await;
    assert_eq!(heard(), ["1 evicted, 0 expired"]);
    pass(MINUTE + 10 * SECOND).await;
    bench.says(3).await;
    assert_eq!(heard(), ["0 evicted, 1 expired"]);
    bench.dependency.takes(SECOND);
    let load = tokio::spawn(bench.service().oneshot(Ask(4)));
    settle().await;
    assert!(bench.ask(5).await.is_err());
    bench.handle.invalidate(&4);
    assert_eq!(load.await.unwrap().unwrap().0, 5);
    assert_eq!(heard(), ["bulkhead full", "1 evicted, 0 expired", "voided"]);
}

#[tokio::test(start_paused = true)]
async fn an_entry_larger_than_all_the_room_is_passed_on_and_reported() {
    let settings = BASE.max_bytes(100);
    let store = MemoryStore::weighed(settings, |_: &u32, value: &u32| u64::from(*value)).unwrap();
    let handle = CacheHandle::with_store(settings, store).unwrap();
    let reported = Arc::new(AtomicU32::new(0));
    handle.on_event({
        let reported = Arc::clone(&reported);
        move |event| {
            assert_eq!(event.kind, EventKind::EntryTooLarge);
            reported.fetch_add(1, Ordering::SeqCst);
        }
    });
    handle.put(1, 50);
    let layer = handle.layer(|key: &u32| Some(*key)).tell(|answer, status| (answer, name(status)));
    let service = layer.layer(service_fn(async |_: u32| Ok::<_, AppError>(101)));
    assert_eq!(service.oneshot(2).await, Ok((101, "loaded")), "and does not say that it was stored");
    assert_eq!([handle.get(&1), handle.get(&2)], [Some(50), None], "nobody else had to leave");
    assert_eq!((reported.load(Ordering::SeqCst), handle.stats().bytes), (1, 50));
}

#[test]
fn settings_that_cannot_work_are_errors_of_the_constructors() {
    assert_eq!(CacheHandle::<u32, u32>::try_new(BASE.max_entries(0)).unwrap_err().field(), "max_entries");
    let layer = CacheLayer::<u32, u32, _>::try_new(BASE.ttl(Duration::ZERO), |key: &u32| Some(*key));
    assert_eq!(layer.unwrap_err().field(), "ttl");
    assert_eq!(MemoryStore::<u32, u32>::try_new(BASE.max_bytes(0)).unwrap_err().field(), "max_bytes");
}

#[test]
#[should_panic(expected = "invalid `jitter`")]
fn the_plain_constructor_panics_and_says_why() {
    let _ = CacheHandle::<u32, u32>::new(BASE.jitter(2.0));
}

#[tokio::test(start_paused = true)]
async fn each_call_is_counted_once_however_often_it_waits() {
    let bench = Bench::new(BASE.in_turn());
    bench.dependency.then(Then::Fail(AppError::Down));
    bench.dependency.takes(SECOND);
    let answers = futures::future::join_all((0..10).map(|_| bench.ask(1))).await;
    assert!(answers.into_iter().all(|answer| answer.is_err()));
    let stats = bench.handle.stats();
    assert_eq!((stats.misses, stats.loads, stats.errors, stats.collapsed), (10, 10, 10, 9));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_after_its_deadline_is_a_miss_all_the_same() {
    let bench = Bench::new(BASE);
    let late = Deadline::after(Duration::ZERO).scope(bench.ask(1));
    assert!(late.await.is_err());
    assert_eq!((bench.handle.stats().misses, bench.handle.stats().calls()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_put_as_negative_is_not_served_past_its_time() {
    let bench = Bench::new(BASE.negative_ttl(SECOND).stale_while_revalidate(MINUTE));
    bench.handle.put_for(1, 99, Keep::negative());
    assert_eq!(bench.says(1).await, (99, "fresh"));
    pass(SECOND).await;
    assert_eq!(bench.says(1).await, (1, "stored"));
}
