//! Many tasks, much time.

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;

/// hystrix_236: never closes or opens under contention. Sixty-four tasks with seeded random outcomes for ten virtual minutes.
async fn ten_minutes(seed: u64) -> Vec<(CircuitState, CircuitState, u64)> {
    const TASKS: u64 = 64;
    let settings = Settings::failure_rate(0.5)
        .window(buttress::circuit_breaker::Window::Time(10 * SECOND))
        .or_consecutive_failures(8)
        .slow_calls(2 * SECOND)
        .open_for(5 * SECOND)
        .probes(3);
    let layer = CircuitBreakerLayer::new(settings);
    let handle = layer.handle();
    let edges = Arc::new(Mutex::new(Vec::new()));
    handle.on_event({
        let edges = Arc::clone(&edges);
        move |event| {
            if let EventKind::Transition { from, to, generation, .. } = event.kind {
                edges.lock().unwrap().push((from, to, generation));
            }
        }
    });
    let end = tokio::time::Instant::now() + 600 * SECOND;
    let started = tokio::time::Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            // The dependency is well in even minutes and ill in odd ones.
            let service = layer.layer(tower::service_fn(move |mut rng: SmallRng| async move {
                let ill = started.elapsed().as_secs() / 60 % 2 == 1;
                let time = rng.random_range(1..if ill { 3_000 } else { 300 });
                tokio::time::sleep(Duration::from_millis(time)).await;
                match rng.random_range(0..100) {
                    0 => panic!("told so"),
                    n if n < if ill { 80 } else { 3 } => Err(AppError::Down),
                    _ => Ok(()),
                }
            }));
            tokio::spawn(async move {
                let mut rng = SmallRng::seed_from_u64(seed ^ task << 8);
                while tokio::time::Instant::now() < end {
                    let call = tokio::spawn(service.clone().oneshot(SmallRng::seed_from_u64(rng.random())));
                    if rng.random_ratio(1, 10) {
                        tokio::time::sleep(Duration::from_millis(rng.random_range(0..500))).await;
                        call.abort();
                    }
                    let _ = call.await;
                    tokio::time::sleep(Duration::from_millis(rng.random_range(1..200))).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.probes_in_flight, snapshot.overdue_in_flight), (0, 0), "everything came back");
    std::mem::take(&mut edges.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn sixty_four_tasks_for_ten_virtual_minutes_make_only_legal_edges() {
    use CircuitState::{Closed, HalfOpen, Open};
    for seed in 0..3 {
        let edges = ten_minutes(seed).await;
        let mut expected = Closed;
        for (position, (from, to, generation)) in edges.iter().enumerate() {
            assert_eq!(*from, expected, "edges follow one another");
            assert!(matches!((from, to), (Closed | HalfOpen, Open) | (Open, HalfOpen) | (HalfOpen, Closed)));
            assert_eq!(*generation, position as u64 + 2);
            expected = *to;
        }
        let closings = edges.iter().filter(|(_, to, _)| *to == Closed).count();
        assert!(closings >= 4, "it opened in the bad minutes and closed in the good ones: {edges:?}");
    }
}

/// The same circuit hammered by real threads: every admitted call is accounted for.
#[test]
fn real_threads_lose_no_count() {
    let settings = Settings::failure_rate(1.0).window(buttress::circuit_breaker::Window::Calls(1 << 20));
    let handle = CircuitBreakerHandle::try_new(settings.minimum_calls(1 << 20)).unwrap();
    const EACH: u64 = 20_000;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let handle = &handle;
            scope.spawn(move || {
                for call in 0..EACH {
                    let permit = handle.try_acquire().unwrap();
                    match (call + thread) % 4 {
                        0 => permit.failure(),
                        1 => permit.ignore(),
                        2 => drop(permit),
                        _ => permit.success(),
                    }
                }
            });
        }
    });
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.calls, snapshot.failed), (4 * EACH / 2, 4 * EACH / 4));
}
