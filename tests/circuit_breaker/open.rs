//! How long a circuit stays open, and what it does meanwhile.

use buttress::{
    Outcome,
    circuit_breaker::{OpenTime, Opening},
};

use super::*;

#[tokio::test(start_paused = true)]
async fn it_refuses_for_sixty_seconds_and_says_when_to_come_back() {
    let mut rig = Rig::new(Settings::new().name("payments"));
    rig.fail(5).await;
    pass(20 * SECOND).await;
    let rejected = rig.refusal().await;
    assert_eq!(rejected.policy(), "payments");
    assert_eq!(rejected.retry_after(), Some(40 * SECOND));
    assert!(!rejected.reached_inner());
    pass(40 * SECOND - Duration::from_nanos(1)).await;
    assert_eq!(rig.refusal().await.retry_after(), Some(Duration::from_nanos(1)));
    pass(Duration::from_nanos(1)).await;
    assert_eq!(rig.call().await, Ok(1));
}

/// polly_219, openab_969: late failures must not keep a circuit open.
#[tokio::test(start_paused = true)]
async fn polly_219_failures_that_arrive_while_open_change_nothing() {
    let mut rig = Rig::new(Settings::consecutive_failures(1).open_for(10 * SECOND));
    let late: Vec<_> = (0..3).map(|_| rig.handle.try_acquire().unwrap()).collect();
    rig.fail(1).await;
    let opened = rig.handle.snapshot();
    pass(5 * SECOND).await;
    late.into_iter().for_each(buttress::circuit_breaker::Permit::failure);
    let snapshot = rig.handle.snapshot();
    assert_eq!(snapshot.time_to_half_open, Some(5 * SECOND));
    assert_eq!((snapshot.generation, snapshot.consecutive_failures), (opened.generation, opened.consecutive_failures));
    assert_eq!(rig.log(), ["closed -> open #2 (1 failure)", "stale #1 in #2", "stale #1 in #2", "stale #1 in #2"]);
}

/// Fails every probe, and lists how long the circuit stayed open each time.
async fn open_times(time: OpenTime, cycles: usize) -> Vec<Duration> {
    let mut rig = Rig::open(Settings::new().open_time(time)).await;
    let mut times = Vec::new();
    for _ in 0..cycles {
        let wait = rig.handle.snapshot().time_to_half_open.unwrap();
        times.push(wait);
        pass(wait).await;
        rig.fail(1).await;
        assert!(rig.is_open());
    }
    times
}

#[tokio::test(start_paused = true)]
async fn the_open_time_grows_with_each_failed_cycle_up_to_its_cap() {
    let exact = OpenTime::exponential(SECOND, 5 * SECOND).jitter(0.0);
    assert_eq!(open_times(exact, 5).await, [1, 2, 4, 5, 5].map(Duration::from_secs));
}

#[tokio::test(start_paused = true)]
async fn the_open_time_starts_again_once_the_circuit_has_closed() {
    let time = OpenTime::exponential(SECOND, 60 * SECOND).jitter(0.0);
    let mut rig = Rig::open(Settings::new().open_time(time)).await;
    pass(SECOND).await;
    rig.fail(1).await;
    assert_eq!(rig.handle.snapshot().time_to_half_open, Some(2 * SECOND));
    pass(2 * SECOND).await;
    rig.ok(2).await;
    assert_eq!(rig.state(), CircuitState::Closed);
    rig.fail(1).await;
    assert_eq!(rig.handle.snapshot().time_to_half_open, Some(SECOND));
}

#[tokio::test(start_paused = true)]
async fn jitter_shortens_and_differs() {
    let jittered = OpenTime::fixed(100 * SECOND).jitter(0.5);
    let mut times = open_times(jittered, 20).await;
    assert!(times.iter().all(|time| (50 * SECOND..=100 * SECOND).contains(time)), "{times:?}");
    times.dedup();
    assert!(times.len() > 10, "{times:?}");
    assert_eq!(open_times(OpenTime::fixed(SECOND), 3).await, [SECOND; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_function_sees_cycle_reason_and_outcome() {
    fn by_circumstance(opening: &Opening) -> Duration {
        match (opening.cycle, opening.trip, opening.outcome) {
            (0, Trip::ConsecutiveFailures(1), Some(Outcome::Transient { retry_after: None })) => 3 * SECOND,
            (cycle, Trip::ProbesFailed, Some(_)) => (10 * cycle) * SECOND,
            _ => panic!("{opening:?}"),
        }
    }
    assert_eq!(open_times(OpenTime::function(by_circumstance), 3).await, [3, 10, 20].map(Duration::from_secs));
}

#[tokio::test(start_paused = true)]
async fn an_opening_is_reported_with_its_time() {
    let function = OpenTime::function(|_| 7 * SECOND);
    for (time, seconds) in [(OpenTime::fixed(3 * SECOND), 3), (function, 7)] {
        let times = Arc::new(Mutex::new(Vec::new()));
        let handle = CircuitBreakerHandle::try_new(Settings::consecutive_failures(1).open_time(time)).unwrap();
        handle.on_event({
            let times = Arc::clone(&times);
            move |event| {
                if let EventKind::Transition { open_for, .. } = event.kind {
                    times.lock().unwrap().push(open_for);
                }
            }
        });
        handle.try_acquire().unwrap().failure();
        handle.reset();
        handle.force_open();
        assert_eq!(*times.lock().unwrap(), [Some(Duration::from_secs(seconds)), None, None]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_function_that_panics_leaves_the_default_and_one_that_calls_back_does_not_deadlock() {
    assert_eq!(open_times(OpenTime::function(|_| panic!("function")), 1).await, [60 * SECOND]);
    static HANDLE: std::sync::OnceLock<CircuitBreakerHandle> = std::sync::OnceLock::new();
    let settings = Settings::consecutive_failures(1).open_time(OpenTime::function(|_| {
        assert_eq!(HANDLE.get().unwrap().state(), CircuitState::Open);
        SECOND
    }));
    let handle = HANDLE.get_or_init(|| CircuitBreakerHandle::try_new(settings).unwrap());
    handle.try_acquire().unwrap().failure();
    assert_eq!(handle.snapshot().time_to_half_open, Some(SECOND));
}

#[tokio::test(start_paused = true)]
async fn the_failure_that_opened_it_may_say_for_how_long() {
    let settings = Settings::consecutive_failures(1).open_time(OpenTime::fixed(SECOND).or_retry_after(30 * SECOND));
    for (said, time) in [(Some(7 * SECOND), 7), (Some(Duration::MAX), 30), (Some(Duration::ZERO), 1), (None, 1)] {
        let rig = Rig::new(settings);
        rig.handle.try_acquire().unwrap().record(Outcome::Transient { retry_after: said });
        assert_eq!(rig.handle.snapshot().time_to_half_open, Some(Duration::from_secs(time)), "{said:?}");
    }
}

/// polly_break_duration_not_overflow, tokio_2667_instant_plus_max
#[tokio::test(start_paused = true)]
async fn polly_overflow_an_endless_open_time_stays_open() {
    for time in [Duration::MAX, Duration::from_secs(u64::MAX / 10)] {
        let mut rig = Rig::open(Settings::new().open_for(time)).await;
        pass(Duration::from_secs(100 * 365 * 86_400)).await;
        assert_eq!(rig.refusal().await.retry_after(), None, "open for good is no time to come back");
        assert!(rig.is_open());
    }
}

/// resilience4j_2038: re-checking must not recurse or loop over the periods slept.
#[tokio::test(start_paused = true)]
async fn resilience4j_2038_a_century_asleep_is_one_step() {
    let rig = Rig::open(Settings::new().open_for(Duration::from_nanos(1))).await;
    pass(Duration::from_secs(100 * 365 * 86_400)).await;
    assert_eq!(rig.state(), CircuitState::HalfOpen);
    assert_eq!(rig.log().len(), 2);
}
