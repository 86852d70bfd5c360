//! Whoever comes after an invalidation gets nothing that is older.

use buttress::cache::Keep;
use tokio_test::task::spawn;

use super::*;

#[tokio::test(start_paused = true)]
async fn an_invalidated_entry_is_loaded_anew_and_the_others_stay() {
    let bench = Bench::new(BASE.stale_if_error(MINUTE).stale_while_revalidate(MINUTE));
    for key in 1..=3 {
        bench.says(key).await;
    }
    bench.handle.invalidate(&2);
    assert_eq!((bench.handle.get(&2), bench.handle.stats().entries), (None, 2));
    assert_eq!((bench.says(1).await, bench.says(2).await), ((1, "fresh"), (4, "stored")));
    // It is not served as stale either.
    bench.handle.invalidate(&2);
    bench.dependency.then(Then::Fail(AppError::Down));
    assert_eq!(bench.ask(2).await, Err(AppError::Down));
}

/// caffeine_refresh_discarded_by_a_removal, moka_574_lost_update
#[tokio::test(start_paused = true)]
async fn what_is_loaded_across_an_invalidation_is_not_stored_and_goes_only_to_who_had_come_before() {
    type Invalidate = fn(&CacheHandle<u32, u32>);
    let key: Invalidate = |handle| {
        handle.invalidate(&1);
    };
    let all: Invalidate = |handle| {
        handle.clear();
    };
    for invalidate in [key, all] {
        let bench = Bench::new(BASE);
        bench.dependency.takes(SECOND);
        let mut before = spawn(bench.service().oneshot(Ask(1)));
        let mut waits = spawn(bench.service().oneshot(Ask(1)));
        assert!(before.poll().is_pending() && waits.poll().is_pending());
        settle().await;
        pass(SECOND / 2).await;
        invalidate(&bench.handle);
        let mut after = spawn(bench.service().oneshot(Ask(1)));
        assert!(after.poll().is_pending());
        settle().await;
        assert_eq!(bench.dependency.calls(), 2, "a load of its own");
        pass(SECOND / 2).await;
        settle().await;
        assert_eq!([before.await.unwrap().0, waits.await.unwrap().0], [1, 1]);
        assert_eq!(bench.handle.get(&1), None);
        assert!(after.poll().is_pending());
        pass(SECOND / 2).await;
        assert_eq!(after.await.unwrap().0, 2);
        assert_eq!(bench.handle.get(&1), Some(2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_across_an_invalidation_is_not_stored() {
    let bench = Bench::new(BASE.stale_while_revalidate(MINUTE));
    bench.says(1).await;
    pass(10 * SECOND).await;
    bench.dependency.takes(SECOND);
    assert_eq!(bench.says(1).await, (1, "stale: revalidating"));
    settle().await;
    bench.handle.invalidate(&1);
    pass(SECOND).await;
    settle().await;
    assert_eq!((bench.dependency.calls(), bench.handle.get(&1), bench.handle.stats().entries), (2, None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_load_is_not_stored_over_what_was_put_meanwhile() {
    let bench = Bench::new(BASE);
    bench.dependency.takes(SECOND);
    let mut loads = spawn(bench.service().oneshot(Ask(1)));
    assert!(loads.poll().is_pending());
    settle().await;
    bench.handle.put(1, 99);
    assert_eq!(bench.says(1).await, (99, "fresh"));
    pass(SECOND).await;
    assert_eq!(loads.await.unwrap().0, 1, "its own answer");
    assert_eq!(bench.says(1).await, (99, "fresh"));
}

/// A service whose answers have the tags `even` or `odd`, and all of them `all`.
fn tagging(bench: &Bench) -> impl Service<Ask, Response = u32, Error = AppError, Future: Send> + Clone + use<> {
    let layer = bench.handle.layer(|ask: &Ask| Some(ask.0)).keep_by_request(|ask: &Ask| {
        let tag = if ask.0.is_multiple_of(2) { "even" } else { "odd" };
        move |_: &u32| Keep::default().tag(tag).tag("all")
    });
    layer.layer(bench.dependency.client())
}

#[tokio::test(start_paused = true)]
async fn a_tag_is_invalidated_whole_and_the_others_stay() {
    let bench = Bench::new(BASE);
    let service = tagging(&bench);
    for key in 1..=4 {
        service.clone().oneshot(Ask(key)).await.unwrap();
    }
    bench.handle.put(9, 99);
    bench.handle.put_for(10, 100, Keep::default().tag("even"));
    bench.handle.invalidate_tag("even");
    let found = [1, 2, 3, 4, 9, 10].map(|key| bench.handle.get(&key));
    assert_eq!(found, [Some(1), None, Some(3), None, Some(99), None]);
    assert_eq!(service.clone().oneshot(Ask(2)).await, Ok(5));
    assert_eq!(bench.handle.get(&2), Some(5), "what is loaded afterwards stays");
    bench.handle.invalidate_tag("unknown");
    assert_eq!(bench.handle.get(&2), Some(5));
    bench.handle.invalidate_tag("all");
    assert_eq!([1, 2, 3, 9].map(|key| bench.handle.get(&key)), [None, None, None, Some(99)]);
}

#[tokio::test(start_paused = true)]
async fn a_tag_invalidated_during_a_load_voids_it_for_the_store_and_for_who_comes_later() {
    let bench = Bench::new(BASE);
    let service = tagging(&bench);
    bench.dependency.takes(SECOND);
    let mut before = spawn(service.clone().oneshot(Ask(2)));
    assert!(before.poll().is_pending());
    settle().await;
    bench.handle.invalidate_tag("even");
    let mut after = spawn(service.clone().oneshot(Ask(2)));
    assert!(after.poll().is_pending());
    pass(SECOND).await;
    settle().await;
    assert_eq!(before.await, Ok(1));
    assert_eq!(bench.handle.get(&2), None);
    assert!(after.poll().is_pending(), "it loads by itself");
    settle().await;
    pass(SECOND).await;
    settle().await;
    assert_eq!(after.await, Ok(2));
    assert_eq!(bench.handle.get(&2), Some(2));
}

/// More tags than are remembered: then too much is forgotten, and never too little.
#[tokio::test(start_paused = true)]
async fn no_number_of_tags_makes_an_invalidation_be_forgotten() {
    let bench = Bench::new(BASE);
    bench.handle.put_for(1, 1, Keep::default().tag("first"));
    bench.handle.put(2, 2);
    for tag in 0..10_000 {
        if tag == 1 {
            bench.handle.invalidate_tag("first");
        }
        bench.handle.invalidate_tag(&tag.to_string());
    }
    assert_eq!([bench.handle.get(&1), bench.handle.get(&2)], [None, Some(2)]);
    bench.handle.put_for(1, 3, Keep::default().tag("first"));
    assert_eq!(bench.handle.get(&1), Some(3));
}
