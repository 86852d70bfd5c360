//! Our rate limiter beside its peers, in one run: one quota for all calls, which lets each of them pass, and one that refuses each. What skews
//! it: ours and governor's read the time stamp counter, tower's the clock of tokio; tower's makes its callers wait, so it has no row for
//! refusals, and it is no `Clone`.
//!
//! ```text
//! cargo bench -p buttress-peers --bench rate_limit [-- [--short] [FILTER]]
//! ```
//!
//! Only with `-p`: a build of the whole workspace turns tokio's `test-util` on, and with it slower clocks.

#[path = "../../harness/mod.rs"]
mod harness;

use std::{future::ready, num::NonZeroU32, time::Duration};

use buttress::rate_limit::{Quota, RateLimitHandle, RateLimitLayer, RateLimitSettings};
use governor::RateLimiter;
use tower::{Layer, limit::RateLimitLayer as TowerLayer, service_fn};

use harness::{
    Bench, Bound, CaseId,
    drive::{by_hand, plain},
    usage::{Use, runtime},
};

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("down")]
struct Down;

type Answer = Result<u64, buttress::Error<Down>>;

/// More than any machine calls.
const ENDLESS: Quota = Quota::per_second(1_000_000_000);
/// One, and that one is taken before.
const NONE: Quota = Quota::per_day(1);

fn main() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut bench = Bench::from_args("rate_limit_peers");

    bench.section("token bucket, allowed");
    let (layer, direct) = ours(&mut bench, RateLimitSettings::token_bucket(ENDLESS));
    let most = governor::Quota::per_second(NonZeroU32::MAX);
    let governor = RateLimiter::direct(most);
    bench.case("governor check", move |calls| plain(calls, |_| governor.check().is_ok()));
    let governor = bench.last();
    let hour = Duration::from_secs(3600);
    let mut service = TowerLayer::new(u64::MAX / 2, hour).layer(service_fn(|n| ready(Answer::Ok(n))));
    bench.case("tower RateLimit", move |calls| by_hand(&mut service, calls));
    let tower = bench.last();

    bench.section("token bucket, refused");
    let (_, refused) = ours(&mut bench, RateLimitSettings::token_bucket(NONE));
    let one = governor::Quota::with_period(hour).expect("an hour is longer than zero");
    let limiter = RateLimiter::direct(one);
    bench.case("governor check", move |calls| plain(calls, |_| limiter.check().is_ok()));

    bench.section("sliding counter, allowed");
    ours(&mut bench, RateLimitSettings::sliding_counter(ENDLESS));
    bench.section("sliding log of 100, refused");
    ours(&mut bench, RateLimitSettings::sliding_log(Quota::per_day(100)));

    bench.gate("token bucket: of governor's", direct, governor, Bound::AtMost(1.05));
    bench.gate("token bucket, the whole layer: of tower's", layer, tower, Bound::AtMost(1.0));
    bench.gate("token bucket, refused: of allowed", refused, direct, Bound::AtMost(1.0));
    bench.gate_allocations();
    bench.run();
}

/// The layer in both ways of use, and the handle alone. Answers the first and the last.
fn ours(bench: &mut Bench, settings: RateLimitSettings) -> (CaseId, CaseId) {
    let [long_lived, cloned] = [false, true].map(|a_clone_per_call| Use { a_clone_per_call, runtime: None });
    let service = RateLimitLayer::new(settings).layer(service_fn(|n| ready(Answer::Ok(n))));
    let handle = service.handle();
    if settings.quota() != ENDLESS {
        while handle.check(1).allowed {}
    }
    long_lived.case(bench, "buttress", &service).on_two_threads(long_lived.batch(&service)).ours();
    let layer = bench.last();
    cloned.case(bench, "buttress, a clone per call", &service).ours();
    let handle: RateLimitHandle = handle.clone();
    bench.case("buttress try_acquire", move |calls| plain(calls, |_| handle.try_acquire(1).is_ok())).ours();
    (layer, bench.last())
}
