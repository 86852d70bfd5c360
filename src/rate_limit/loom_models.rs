//! The compare-and-swap of a bucket and of a counter, in every order: `RUSTFLAGS="--cfg buttress_loom" cargo test --lib loom`.

use loom::thread;

use super::{policy::RateLimitSettings, quota::Quota, state::Limiter};
use crate::{shared::Shared, time::Instant};

const SECOND: u64 = 1_000_000_000;

fn bucket() -> Shared<Limiter> {
    Limiter::share(RateLimitSettings::token_bucket(Quota::per_second(2))).unwrap()
}

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

/// How many of two threads' calls pass, one call each at these times.
fn passed(limiter: &Shared<Limiter>, times: [u64; 2]) -> usize {
    let threads = times.map(|now| {
        let limiter = limiter.clone();
        thread::spawn(move || limiter.take_at(at(now), 1).is_ok())
    });
    threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
}

#[test]
fn the_last_unit_is_taken_once() {
    loom::model(|| {
        let limiter = bucket();
        assert!(limiter.take_at(at(10 * SECOND), 1).is_ok());
        assert_eq!(passed(&limiter, [10 * SECOND, 10 * SECOND]), 1);
        assert!(limiter.take_at(at(10 * SECOND), 1).is_err());
    });
}

/// Two threads find that the clock was put back, one of them a little later: the bucket is empty then, and fills at its rate.
#[test]
fn a_clock_that_was_put_back_gives_nothing_away() {
    loom::model(|| {
        let limiter = bucket();
        assert!(limiter.take_at(at(1_000 * SECOND), 2).is_ok());
        assert_eq!(passed(&limiter, [5 * SECOND, 5 * SECOND + 7]), 0);
        assert_eq!(passed(&limiter, [5 * SECOND + SECOND / 2 + 7; 2]), 1);
    });
}

/// A reservation against a refund: what is left is what would be left one after the other.
#[test]
fn a_reservation_and_a_refund_lose_nothing_to_one_another() {
    loom::model(|| {
        let limiter = bucket();
        let now = at(10 * SECOND);
        assert!(limiter.take_at(now, 2).is_ok());
        let refunds = thread::spawn({
            let limiter = limiter.clone();
            move || limiter.refund_at(now, 1, now)
        });
        let reserved = limiter.reserve_at(now, 1).unwrap().unwrap();
        refunds.join().unwrap();
        // Half a second for a unit: it waits for one, unless the refund came first.
        assert!(reserved.wait == 0 || reserved.wait == SECOND / 2);
        assert_eq!(limiter.look_at(now, 1).wait, SECOND / 2);
    });
}

/// Two bookings, of which the first is cancelled: the second keeps its time.
#[test]
fn a_cancelled_booking_takes_nothing_of_a_later_one() {
    loom::model(|| {
        let limiter = bucket();
        let now = at(10 * SECOND);
        assert!(limiter.take_at(now, 2).is_ok());
        let first = limiter.reserve_at(now, 1).unwrap().unwrap();
        let cancels = thread::spawn({
            let limiter = limiter.clone();
            move || limiter.unreserve_at(now, first)
        });
        let second = limiter.reserve_at(now, 1).unwrap().unwrap();
        cancels.join().unwrap();
        let next = limiter.look_at(now, 1).wait;
        assert_eq!(next, second.wait + SECOND / 2);
        assert!(second.wait == SECOND / 2 || second.wait == SECOND);
    });
}

/// The first attempt of one against that of the other, within a window and over its edge.
#[test]
fn the_last_unit_of_a_counter_is_taken_once() {
    for now in [10 * SECOND, 11 * SECOND + SECOND / 2] {
        loom::model(move || {
            let settings = RateLimitSettings::sliding_counter(Quota::per_second(2));
            let limiter = Limiter::share(settings).unwrap();
            assert!(limiter.take_at(at(10 * SECOND), 1).is_ok());
            // Half of the window before counts for half a unit.
            assert_eq!(passed(&limiter, [now, now]), 1);
            assert!(limiter.take_at(at(now), 1).is_err());
        });
    }
}
