//! The compare-and-swap of a bucket, in every order: `RUSTFLAGS="--cfg buttress_loom" cargo test --lib loom`.

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
