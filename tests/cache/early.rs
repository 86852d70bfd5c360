//! What is loaded anew before its time is over.

use buttress::cache::Early;

use super::*;

/// fusioncache_eager_refresh_does_not_break_stampede_protection
#[tokio::test(start_paused = true)]
async fn after_its_part_of_the_ttl_the_first_call_has_it_loaded_anew_and_nobody_waits() {
    let bench = Bench::new(BASE.early(Early::Ratio(0.8)));
    bench.says(1).await;
    bench.dependency.takes(SECOND);
    pass(8 * SECOND - NANO).await;
    bench.says(1).await;
    settle().await;
    assert_eq!(bench.dependency.calls(), 1);
    pass(NANO).await;
    for _ in 0..10 {
        assert_eq!(bench.says(1).await, (1, "fresh"));
        settle().await;
    }
    assert_eq!(bench.dependency.calls(), 2);
    pass(SECOND).await;
    settle().await;
    assert_eq!(bench.says(1).await, (2, "fresh"));
    let stats = bench.handle.stats();
    assert_eq!((stats.hits, stats.misses, stats.loads), (12, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn an_early_load_that_fails_is_throttled_and_the_answer_stays_fresh() {
    let bench = Bench::new(BASE.early(Early::Ratio(0.5)).throttle(3 * SECOND));
    bench.says(1).await;
    bench.dependency.then(Then::Fail(AppError::Down));
    pass(5 * SECOND).await;
    for _ in 0..10 {
        assert_eq!(bench.says(1).await, (1, "fresh"));
        settle().await;
    }
    assert_eq!(bench.dependency.calls(), 2);
    pass(3 * SECOND).await;
    assert_eq!(bench.says(1).await, (1, "fresh"));
    settle().await;
    assert_eq!(bench.dependency.calls(), 3);
}

/// Made before another one's load failed, and polled after it.
#[tokio::test(start_paused = true)]
async fn an_answer_stays_fresh_for_a_call_that_was_to_load_it_anew_and_came_late() {
    let bench = Bench::new(BASE.early(Early::Ratio(0.5)).throttle(3 * SECOND));
    bench.says(1).await;
    bench.dependency.then(Then::Fail(AppError::Down));
    pass(5 * SECOND).await;
    let late = bench.service().call(Ask(1));
    assert_eq!(bench.says(1).await, (1, "fresh"));
    settle().await;
    assert_eq!(bench.dependency.calls(), 2);
    let (answer, status) = late.await.unwrap();
    assert_eq!((answer, name(status)), (1, "fresh"));
    settle().await;
    assert_eq!(bench.dependency.calls(), 2, "it was throttled");
}

/// The chance is e^(-left/(beta * cost)), of Vattani's paper, and not what a popular tutorial says.
#[tokio::test(start_paused = true)]
async fn xfetch_draws_by_what_the_load_took_and_what_is_left() {
    for (left, chance) in [(SECOND, 0.368), (2 * SECOND, 0.135), (5 * SECOND, 0.0067)] {
        let bench = Bench::new(BASE.early(Early::XFetch(1.0)).max_entries(5_000));
        bench.dependency.takes(SECOND);
        let calls: Vec<_> = (1..=4_000).map(|key| tokio::spawn(bench.service().oneshot(Ask(key)))).collect();
        // Loads at a time are bounded: each batch ends before the next.
        for call in calls {
            let _ = call.await.unwrap();
        }
        let stored = bench.handle.stats().entries as f64;
        assert!(stored > 900.0, "{stored}");
        bench.dependency.takes(Duration::ZERO);
        pass(10 * SECOND - left).await;
        let before = bench.dependency.calls();
        for key in 1..=4_000 {
            if bench.handle.get(&key).is_some() {
                bench.says(key).await;
            }
        }
        settle().await;
        let drawn = f64::from(bench.dependency.calls() - before) / stored;
        assert!((drawn - chance).abs() < 0.06, "{left:?}: {drawn} and not {chance}");
    }
}

#[tokio::test(start_paused = true)]
async fn xfetch_of_a_load_that_took_no_time_loads_nothing_early() {
    let bench = Bench::new(BASE.early(Early::XFetch(1.0)));
    bench.says(1).await;
    pass(10 * SECOND - NANO).await;
    for _ in 0..1000 {
        assert_eq!(bench.says(1).await, (1, "fresh"));
    }
    settle().await;
    assert_eq!(bench.dependency.calls(), 1);
}
