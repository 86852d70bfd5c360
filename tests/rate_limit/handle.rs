//! What can be done with a limiter while it works.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::{
    EventKind, Reason,
    rate_limit::{KeyedRateLimitHandle, Quota, RateLimitHandle, RateLimitLayer, RateLimitSettings as Settings},
};
use tokio::time::advance;
use tower::{Layer, ServiceExt};

use crate::{ALGORITHMS, NS, SECOND, admitted, support::Probe};

fn limiter(settings: Settings) -> RateLimitHandle {
    RateLimitHandle::try_new(settings).unwrap()
}

/// governor_39_governor_273_a_new_quota_is_a_new_limiter
#[tokio::test(start_paused = true)]
async fn a_new_quota_keeps_what_has_been_used() {
    for algorithm in ALGORITHMS {
        let handle = limiter(algorithm(Quota::per_second(10)));
        assert_eq!(admitted(&handle), 10);
        handle.set_quota(Quota::per_second(20)).unwrap();
        assert!(handle.peek().remaining <= 10, "{handle:?}");
        advance(10 * SECOND).await;
        assert_eq!(admitted(&handle), 20, "{handle:?}");
        // Less from now on: nothing of the old burst is left.
        handle.set_quota(Quota::per_second(2)).unwrap();
        assert_eq!(admitted(&handle), 0, "{handle:?}");
        advance(10 * SECOND).await;
        assert_eq!((admitted(&handle), handle.peek().limit), (2, 2), "{handle:?}");
        let error = handle.set_quota(Quota::per_second(0)).unwrap_err();
        assert_eq!((error.field(), handle.peek().limit), ("units", 2));
        assert_eq!(handle.set_quota_of("nobody", Quota::per_second(1)).unwrap_err().field(), "name");
        handle.set_quota_of("rate_limit", Quota::per_second(3)).unwrap();
        assert_eq!(handle.peek().limit, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_passes_during_a_pause_and_its_end_is_exact() {
    for algorithm in ALGORITHMS {
        let handle = limiter(algorithm(Quota::per_second(10)));
        handle.pause(60 * SECOND);
        // A shorter one changes nothing.
        handle.pause(SECOND);
        let refused = handle.try_acquire(1).unwrap_err();
        assert_eq!((refused.reason(), refused.retry_after()), (Reason::RateLimited, Some(60 * SECOND)), "{handle:?}");
        advance(60 * SECOND - NS).await;
        assert!(handle.try_acquire(1).is_err(), "{handle:?}");
        advance(NS).await;
        assert!(handle.try_acquire(1).is_ok(), "{handle:?}");
        handle.pause(Duration::MAX);
        assert!(handle.try_acquire(1).is_err());
        handle.reset();
        assert_eq!(admitted(&handle), 10, "{handle:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drained_limiter_fills_again() {
    for algorithm in ALGORITHMS {
        let handle = limiter(algorithm(Quota::per_second(10)));
        assert!(handle.try_acquire(3).is_ok());
        handle.drain();
        assert_eq!((admitted(&handle), handle.peek().remaining), (0, 0), "{handle:?}");
        advance(2 * SECOND).await;
        assert_eq!(admitted(&handle), 10, "{handle:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_is_there_again_and_never_more_than_there_is() {
    for algorithm in ALGORITHMS {
        let handle = limiter(algorithm(Quota::per_second(10)));
        assert!(handle.try_acquire(8).is_ok());
        handle.refund(5);
        assert_eq!(handle.peek().remaining, 7, "{handle:?}");
        handle.refund(1_000);
        assert_eq!(admitted(&handle), 10, "{handle:?}");
    }
}

/// praxis_121_tokens_are_known_afterwards
#[tokio::test(start_paused = true)]
async fn a_debt_is_paid_before_anything_passes() {
    for algorithm in [Settings::token_bucket, Settings::sliding_log] {
        let handle = limiter(algorithm(Quota::per_second(10)));
        handle.charge(15);
        assert_eq!(handle.peek().remaining, 0);
        let wait = handle.try_acquire(1).unwrap_err().retry_after().unwrap();
        assert!(wait >= 600 * Duration::from_millis(1), "{handle:?}: {wait:?}");
        advance(wait - NS).await;
        assert!(handle.try_acquire(1).is_err(), "{handle:?}");
        advance(NS).await;
        assert!(handle.try_acquire(1).is_ok(), "{handle:?}");
    }
    // A counter forgets it with its windows.
    let handle = limiter(Settings::sliding_counter(Quota::per_second(10)));
    handle.charge(15);
    assert!(handle.try_acquire(1).is_err());
    advance(2 * SECOND).await;
    assert!(handle.try_acquire(1).is_ok());
    // perry_6514_a_counter_wraps_to_allow
    for algorithm in ALGORITHMS {
        let handle = limiter(algorithm(Quota::per_second(10)));
        for _ in 0..3 {
            handle.charge(u64::MAX);
        }
        assert!(handle.try_acquire(1).is_err(), "{handle:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_shadow_mode_everything_passes_and_is_reported() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&heard);
    let layer = RateLimitLayer::new(Settings::token_bucket(Quota::per_second(2)).shadow()).on_event(move |event| {
        if let EventKind::Rejected { shadow, .. } = event.kind {
            told.lock().unwrap().push(shadow);
        }
    });
    let service = layer.layer(Probe::new().0);
    for _ in 0..4 {
        assert!(service.clone().oneshot(7).await.is_ok());
    }
    assert!(layer.handle().try_acquire(1).is_ok());
    assert!(layer.handle().snapshot().shadow);
    layer.handle().shadow(false);
    assert!(service.oneshot(7).await.is_err());
    assert_eq!(*heard.lock().unwrap(), [true, true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn the_call_that_crosses_the_chosen_part_of_the_limit_is_reported_and_no_other() {
    for algorithm in ALGORITHMS {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&heard);
        let handle = limiter(algorithm(Quota::per_second(10)).near_limit(0.8).name("near"));
        handle.on_event(move |event| {
            if let EventKind::NearLimit { limit_name, used, limit, .. } = event.kind {
                told.lock().unwrap().push((limit_name.to_owned(), used, limit));
            }
        });
        assert_eq!(admitted(&handle), 10);
        advance(10 * SECOND).await;
        assert_eq!(admitted(&handle), 10);
        let once = ("near".to_owned(), 8, 10);
        assert_eq!(*heard.lock().unwrap(), [once.clone(), once], "{handle:?}");
    }
    let field = |ratio| RateLimitHandle::try_new(Settings::token_bucket(Quota::per_second(1)).near_limit(ratio));
    for ratio in [0.0, -1.0, 1.1, f64::NAN, f64::INFINITY] {
        assert_eq!(field(ratio).unwrap_err().field(), "near_limit");
    }
}

// ===== reservations =====

/// Ten a second, one at a time.
const STEADY: Settings = Settings::token_bucket(Quota::per_second(10).burst(1));
const STEP: Duration = Duration::from_millis(100);

/// tower_governor_until_ready_wakes_a_herd
#[tokio::test(start_paused = true)]
async fn each_reservation_has_a_time_of_its_own() {
    let handle = limiter(STEADY);
    let reserved: Vec<_> = (0..5).map(|_| handle.reserve(1).unwrap()).collect();
    let waits: Vec<_> = reserved.iter().map(|reserved| reserved.wait()).collect();
    assert_eq!(waits, (0..5).map(|n| n * STEP).collect::<Vec<_>>());
    assert_eq!(handle.try_acquire(1).unwrap_err().retry_after(), Some(5 * STEP));
    advance(STEP).await;
    assert_eq!(reserved[3].wait(), 2 * STEP);
    reserved.into_iter().for_each(|reserved| reserved.keep());
    assert_eq!(handle.try_acquire(1).unwrap_err().retry_after(), Some(4 * STEP));
    assert_eq!(handle.reserve(2).unwrap_err().reason(), Reason::CostTooHigh);
}

/// Go's `CancelAt`.
#[tokio::test(start_paused = true)]
async fn a_reservation_is_given_back_as_far_as_nobody_has_reserved_after_it() {
    let wait = |handle: &RateLimitHandle| handle.try_acquire(1).map_err(|refused| refused.retry_after());
    // The last of all: whole.
    let handle = limiter(STEADY);
    let first = handle.reserve(1).unwrap();
    let second = handle.reserve(1).unwrap();
    second.cancel();
    assert_eq!(wait(&handle), Err(Some(STEP)));
    first.cancel();
    assert_eq!(wait(&handle), Ok(()));
    // One that others have reserved after: they wait for what was there then, so nothing of it.
    let handle = limiter(STEADY);
    let (_first, second, third) = (handle.reserve(1).unwrap(), handle.reserve(1).unwrap(), handle.reserve(1).unwrap());
    drop(second);
    assert_eq!((third.wait(), wait(&handle)), (2 * STEP, Err(Some(3 * STEP))));
    // In part.
    let handle = limiter(Settings::token_bucket(Quota::per_second(10)));
    assert!(handle.try_acquire(10).is_ok());
    let (large, small) = (handle.reserve(5).unwrap(), handle.reserve(2).unwrap());
    large.cancel();
    assert_eq!(wait(&handle), Err(Some(5 * STEP)));
    small.keep();
    // What could have been used is used.
    let handle = limiter(STEADY);
    assert!(handle.try_acquire(1).is_ok());
    let reserved = handle.reserve(1).unwrap();
    advance(STEP + NS).await;
    drop(reserved);
    assert_eq!(wait(&handle), Err(Some(STEP - NS)));
}

#[tokio::test(start_paused = true)]
async fn a_window_cannot_be_booked_ahead_but_gives_back() {
    for algorithm in [Settings::sliding_log, Settings::sliding_counter] {
        let handle = limiter(algorithm(Quota::per_second(3)));
        let reserved = handle.reserve(2).unwrap();
        assert_eq!((reserved.wait(), handle.peek().remaining), (Duration::ZERO, 1));
        assert_eq!(handle.reserve(2).unwrap_err().reason(), Reason::RateLimited);
        drop(reserved);
        assert_eq!(handle.peek().remaining, 3);
    }
}

/// Eight threads for one real second: inside burst and rate, however the machine schedules them. (resilience4j_822, governor_16)
#[test]
fn threads_on_real_time_keep_to_burst_and_rate() {
    for settings in
        [Settings::token_bucket(Quota::per_second(1_000).burst(100)), Settings::sliding_log(Quota::per_second(1_000))]
    {
        let handle = limiter(settings);
        let begin = tokio::time::Instant::now();
        let passed: u64 = std::thread::scope(|scope| {
            let count = || {
                let mut passed = 0;
                while begin.elapsed() < SECOND {
                    passed += u64::from(handle.check(1).allowed);
                    std::thread::yield_now();
                }
                passed
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let most = 1_000.0 * begin.elapsed().as_secs_f64() + handle.peek().limit as f64;
        assert!(passed as f64 <= most, "{passed} of {most}");
        assert!(passed >= handle.peek().limit);
    }
}

/// What the old quota left is no more than a burst of the new one, from the change on and not only once somebody looks.
#[tokio::test(start_paused = true)]
async fn a_bucket_is_full_a_burst_of_the_new_quota_after_the_change_at_the_latest() {
    let settings = Settings::token_bucket(Quota::per_second(2).burst(8));
    let new = Quota::per_second(50).burst(50);
    let handle = limiter(settings);
    assert!((0..5).all(|_| handle.check(1).allowed));
    let keyed = buttress::rate_limit::KeyedRateLimitHandle::<u64>::try_new(settings).unwrap();
    assert!((0..5).all(|_| keyed.check(&1, 1).allowed));
    handle.set_quota(new).unwrap();
    keyed.set_quota(new).unwrap();
    for decision in [handle.peek(), keyed.peek(&1)] {
        assert_eq!((decision.retry_after, decision.reset_after), (Some(SECOND / 50), SECOND));
    }
    advance(SECOND).await;
    for decision in [handle.peek(), keyed.peek(&1)] {
        assert_eq!((decision.allowed, decision.remaining, decision.reset_after), (true, 50, Duration::ZERO));
    }
    // A debt and a pause are kept.
    let (owes, paused) = (limiter(settings), limiter(settings));
    owes.charge(100);
    paused.pause(60 * SECOND);
    for handle in [owes, paused] {
        handle.set_quota(new).unwrap();
        assert!(handle.peek().retry_after > Some(40 * SECOND), "{handle:?}");
    }
}

/// However large the cost of each call, a burst is a burst, also where a unit takes less than a nanosecond.
#[tokio::test(start_paused = true)]
async fn large_costs_get_no_more_than_a_burst() {
    const BILLION: u64 = 1_000_000_000;
    for (units, burst, cost) in
        [(1000 * BILLION, 1000 * BILLION, 1000 * BILLION), (3 * BILLION, 3 * BILLION, BILLION), (7, 700_007, 7)]
    {
        let handle = limiter(Settings::token_bucket(Quota::per_second(units).burst(burst)));
        let passed = (0..200_000).take_while(|_| handle.check(cost).allowed).count() as u64;
        assert_eq!(passed, burst / cost);
    }
}

/// Of several limits, a bucket is brought forward as one alone is.
#[tokio::test(start_paused = true)]
async fn a_bucket_among_several_is_full_a_burst_of_the_new_quota_after_the_change_at_the_latest() {
    let settings = Settings::token_bucket(Quota::per_second(2).burst(8))
        .and(Settings::sliding_log(Quota::per_day(100)).name("day"));
    let (handle, keyed) = (limiter(settings), KeyedRateLimitHandle::<u64>::try_new(settings).unwrap());
    assert!((0..5).all(|_| handle.check(1).allowed && keyed.check(&1, 1).allowed));
    let new = Quota::per_second(50).burst(50);
    handle.set_quota(new).unwrap();
    keyed.set_quota(new).unwrap();
    for decision in [handle.snapshot().decisions[0], keyed.peek(&1)] {
        assert_eq!((decision.retry_after, decision.reset_after), (Some(SECOND / 50), SECOND));
    }
    handle.pause(60 * SECOND);
    handle.set_quota(Quota::per_second(100)).unwrap();
    assert_eq!(handle.peek().retry_after, Some(60 * SECOND));
}

/// The pause of one key does not keep the others from what a new quota gives them.
#[tokio::test(start_paused = true)]
async fn a_new_quota_is_for_every_key_whoever_is_paused() {
    let keyed = KeyedRateLimitHandle::<u64>::try_new(Settings::token_bucket(Quota::per_hour(1).burst(10))).unwrap();
    keyed.drain(&1);
    keyed.pause(&2, 24 * 3600 * SECOND);
    keyed.set_quota(Quota::per_second(1)).unwrap();
    assert_eq!(keyed.peek(&1).retry_after, Some(SECOND));
    assert!(keyed.peek(&2).retry_after >= Some(24 * 3600 * SECOND), "{:?}", keyed.peek(&2));
    // A pause that was taken back leaves nothing behind.
    let handle = limiter(Settings::token_bucket(Quota::per_hour(1).burst(10)));
    handle.pause(24 * 3600 * SECOND);
    handle.reset();
    handle.drain();
    handle.set_quota(Quota::per_second(1)).unwrap();
    assert_eq!(handle.peek().retry_after, Some(SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_charge_of_nothing_changes_nothing() {
    for algorithm in ALGORITHMS {
        let handle = limiter(algorithm(Quota::per_second(2)));
        handle.charge(0);
        assert_eq!(handle.peek().reset_after, Duration::ZERO, "{handle:?}");
        assert!(handle.check(2).allowed);
        let wait = handle.peek().retry_after;
        advance(SECOND / 4).await;
        handle.charge(0);
        assert_eq!(handle.peek().retry_after, wait.map(|wait| wait - SECOND / 4), "{handle:?}");
    }
}
