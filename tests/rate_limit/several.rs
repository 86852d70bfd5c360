//! Several limits at once: all or nothing.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use buttress::{
    EventKind, Reason,
    rate_limit::{KeyedRateLimitHandle, KeyedRateLimitLayer, Quota, RateLimitHandle, RateLimitSettings as Settings},
};
use tokio::time::advance;
use tower::{Layer, ServiceExt};

use crate::{ALGORITHMS, SECOND, admitted, support::Probe};

/// governor_117_pubky_573_the_first_is_used_up_although_the_second_refuses
#[tokio::test(start_paused = true)]
async fn a_refusal_by_one_takes_nothing_of_the_others() {
    for per_second in ALGORITHMS {
        for per_day in ALGORITHMS {
            let settings = per_second(Quota::per_second(5)).name("second").and(per_day(Quota::per_day(8)).name("day"));
            let handle = RateLimitHandle::try_new(settings).unwrap();
            assert_eq!(admitted(&handle), 5);
            let refused = handle.try_acquire(1).unwrap_err();
            assert_eq!((refused.policy(), refused.reason()), ("second", Reason::RateLimited), "{handle:?}");
            // The day has not paid for what the second refused.
            assert_eq!(handle.snapshot().decisions.iter().map(|limit| limit.remaining).collect::<Vec<_>>(), [0, 3]);
            advance(2 * SECOND).await;
            assert_eq!(admitted(&handle), 3);
            assert_eq!(handle.try_acquire(1).unwrap_err().policy(), "day");
            assert_eq!(handle.peek().policy, "day");
            // And the other way round.
            assert_eq!(handle.snapshot().decisions[0].remaining, 2, "{handle:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_wait_of_all_is_exact() {
    let settings =
        Settings::token_bucket(Quota::per_second(10)).and(Settings::sliding_log(Quota::per_minute(15)).name("minute"));
    let handle = RateLimitHandle::try_new(settings).unwrap();
    assert_eq!(admitted(&handle), 10);
    advance(SECOND).await;
    assert_eq!(admitted(&handle), 5);
    let wait = handle.try_acquire(1).unwrap_err().retry_after().unwrap();
    assert_eq!(wait, 59 * SECOND);
    advance(wait).await;
    assert!(handle.try_acquire(1).is_ok());
    assert_eq!(handle.try_acquire(11).unwrap_err().reason(), Reason::CostTooHigh);
}

#[test]
fn four_limits_are_the_most() {
    let one = Settings::token_bucket(Quota::per_second(1));
    let four = one.and(one).and(one).and(one);
    assert_eq!(RateLimitHandle::try_new(four).unwrap().snapshot().decisions.len(), 4);
    assert_eq!(RateLimitHandle::try_new(four.and(one)).unwrap_err().field(), "limits");
    assert_eq!(RateLimitHandle::try_new(one.and(four)).unwrap_err().field(), "limits");
    let wrong = one.and(Settings::sliding_log(Quota::per_second(0)));
    assert_eq!(RateLimitHandle::try_new(wrong).unwrap_err().field(), "units");
}

/// The seeds' pair: each user 5 per second, all users 2 per second.
#[tokio::test(start_paused = true)]
async fn per_user_and_all_users() {
    let all = RateLimitHandle::try_new(Settings::token_bucket(Quota::per_second(2)).name("all")).unwrap();
    let layer = KeyedRateLimitLayer::new(Settings::token_bucket(Quota::per_second(5)).name("user"), |user: &u32| *user)
        .and_all(&all);
    let handle = layer.handle();
    let service = layer.layer(Probe::new().0);
    assert!(service.clone().oneshot(1).await.is_ok());
    assert!(service.clone().oneshot(2).await.is_ok());
    for user in [1, 2, 3] {
        let refused = buttress::AsRejected::as_rejected(&service.clone().oneshot(user).await.unwrap_err()).unwrap();
        assert_eq!(refused.policy(), "all");
    }
    // The users have not paid for that.
    assert_eq!([1, 2, 3].map(|user| handle.peek(&user).policy), ["all"; 3]);
    all.reset();
    assert_eq!([1, 2, 3].map(|user| handle.peek(&user).remaining), [4, 4, 5]);
    // Nor all for what a user is refused.
    handle.drain(&1);
    assert_eq!(handle.try_acquire(&1, 1).unwrap_err().policy(), "user");
    assert_eq!(all.peek().remaining, 2);
    // Of a cost that all can never pay, the user pays nothing.
    assert_eq!(handle.try_acquire(&2, 3).unwrap_err().reason(), Reason::CostTooHigh);
    all.shadow(true);
    assert_eq!((0..5).filter(|_| handle.try_acquire(&4, 1).is_ok()).count(), 5);
    assert_eq!(handle.try_acquire(&4, 1).unwrap_err().policy(), "user");
}

/// Threads race for the last units of all; what is taken of a key for nothing is given back, and nothing is lost or made.
#[test]
fn racing_threads_leave_each_limit_as_used_as_it_was() {
    let all = RateLimitHandle::try_new(Settings::token_bucket(Quota::per_day(5_000)).name("all")).unwrap();
    let users = KeyedRateLimitHandle::try_new(Settings::token_bucket(Quota::per_day(4_000))).unwrap().and_all(&all);
    let passed = [const { AtomicU64::new(0) }; 2];
    let transient = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..10_000_u64 {
                    let user = n % 2;
                    match users.try_acquire(&user, 1) {
                        Ok(()) => drop(passed[user as usize].fetch_add(1, Ordering::Relaxed)),
                        // A key that has units left may be refused only while another call holds one of them for nothing: once all are used up.
                        Err(refused) if refused.policy() != "all" => {
                            transient.fetch_add(u64::from(all.peek().remaining > 0), Ordering::Relaxed);
                        }
                        Err(_) => (),
                    }
                }
            });
        }
    });
    let passed = passed.map(|count| count.load(Ordering::Relaxed));
    assert_eq!((passed[0] + passed[1], transient.load(Ordering::Relaxed)), (5_000, 0));
    all.reset();
    for user in [0, 1] {
        assert_eq!(users.peek(&user).remaining, 4_000 - passed[user as usize]);
    }
}

#[tokio::test(start_paused = true)]
async fn each_limit_that_is_nearly_used_up_is_reported_by_its_name() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&heard);
    let settings = Settings::token_bucket(Quota::per_second(10)).name("second");
    let settings = settings.and(Settings::sliding_log(Quota::per_day(20)).name("day")).near_limit(0.5);
    let handle = RateLimitHandle::try_new(settings).unwrap();
    handle.on_event(move |event| {
        if let EventKind::NearLimit { limit_name, .. } = event.kind {
            told.lock().unwrap().push(limit_name.to_owned());
        }
    });
    assert!(handle.try_acquire(5).is_ok());
    assert!(handle.try_acquire(5).is_ok());
    assert_eq!(*heard.lock().unwrap(), ["second", "day"]);
}

/// A limit of each key that is only watched takes nothing away from the one of all, nor the other way round.
#[tokio::test(start_paused = true)]
async fn what_is_in_shadow_opens_no_way_past_the_other() {
    let settings = |name| Settings::token_bucket(Quota::per_day(3)).name(name);
    let (all, watched) = (RateLimitHandle::try_new(settings("all")).unwrap(), settings("user").shadow());
    let users = KeyedRateLimitHandle::try_new(watched).unwrap().and_all(&all);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listen = || {
        let heard = Arc::clone(&heard);
        move |event: &buttress::Event<'_>| {
            if let EventKind::Rejected { rejected, shadow, .. } = event.kind {
                heard.lock().unwrap().push((rejected.policy().to_owned(), shadow));
            }
        }
    };
    all.on_event(listen());
    users.on_event(listen());
    users.drain(&1);
    assert_eq!((0..10).filter(|_| users.try_acquire(&1, 1).is_ok()).count(), 3, "all have paid");
    assert_eq!(users.try_acquire(&1, 1).unwrap_err().policy(), "all");
    assert_eq!(all.peek().remaining, 0);
    // Each tells what it would have refused.
    all.shadow(true);
    heard.lock().unwrap().clear();
    assert!(users.try_acquire(&1, 1).is_ok());
    assert_eq!(*heard.lock().unwrap(), [("user".to_owned(), true), ("all".to_owned(), true)]);
    assert!(users.check(&1, 1).allowed && all.check(1).allowed);
    users.shadow(false);
    users.reset(&1);
    assert_eq!((0..10).filter(|_| users.check(&1, 1).allowed).count(), 3, "who pays is told so");
    users.shadow(true);
    all.shadow(false);
    all.reset();
    assert_eq!((0..10).filter(|_| users.check(&1, 1).allowed).count(), 3);
}
