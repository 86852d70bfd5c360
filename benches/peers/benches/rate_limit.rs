//! Our rate limiter beside its peers, in one run: one quota for all calls and one per key, calls that pass and calls that are refused. What skews
//! it: ours and governor's read the time stamp counter, tower's and tower-resilience's the clock of tokio or std; tower's makes its callers wait, so
//! it has no row for refusals, and it is no `Clone`; governor's map of keys has no bound. Of a million keys most calls find their memory in no cache.
//!
//! ```text
//! cargo bench -p buttress-peers --bench rate_limit [-- [--short] [FILTER]]
//! ```
//!
//! Only with `-p`: a build of the whole workspace turns tokio's `test-util` on, and with it slower clocks.

#[path = "../../harness/mod.rs"]
mod harness;

use std::{
    future::ready,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use buttress::rate_limit::{
    KeyedRateLimitHandle, KeyedRateLimitLayer, Quota, RateLimitHandle, RateLimitLayer, RateLimitSettings,
};
use governor::{DefaultKeyedRateLimiter, RateLimiter};
use tower::{Layer, limit::RateLimitLayer as TowerLayer, service_fn};
use tower_resilience_ratelimiter::{RateLimiterConfigBuilder, WindowType};

use harness::{
    Batch, Bench, Bound, CaseId,
    drive::{by_hand, plain},
    usage::{Use, runtime},
};

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("down")]
struct Down;

type Answer = Result<u64, buttress::Error<Down>>;

/// More than any machine calls.
const ENDLESS: Quota = Quota::per_second(1_000_000_000);
/// As many as a counter counts, in a time in which no machine makes as many calls.
const ENDLESS_COUNT: Quota = Quota::new(16_000_000, Duration::from_millis(16));
/// So many that a log is in use: each call comes and one goes, and all pass.
const IN_USE: Quota = Quota::new(100, Duration::from_micros(2));
/// One, and that one is taken before.
const NONE: Quota = Quota::per_day(1);
const HUNDRED: Quota = Quota::per_day(100);

const LONG_LIVED: Use = Use { a_clone_per_call: false, runtime: None };
const CLONED: Use = Use { a_clone_per_call: true, runtime: None };

fn main() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut bench = Bench::from_args("rate_limit_peers");

    bench.section("token bucket, allowed");
    let (layer, direct) = ours(&mut bench, RateLimitSettings::token_bucket(ENDLESS));
    let most = governor::Quota::per_second(NonZeroU32::MAX);
    let limiter = Arc::new(RateLimiter::direct(most));
    let check = || {
        let limiter = Arc::clone(&limiter);
        Box::new(move |calls| plain(calls, |_| limiter.check().is_ok())) as Batch
    };
    let batch = check();
    bench.case("governor check", batch).on_two_threads(check);
    let governor = bench.last();
    let hour = Duration::from_secs(3600);
    let mut service = TowerLayer::new(u64::MAX / 2, hour).layer(service_fn(|n| ready(Answer::Ok(n))));
    bench.case("tower RateLimit", move |calls| by_hand(&mut service, calls));
    let tower = bench.last();
    let fixed = tower_resilience(&mut bench, WindowType::Fixed, usize::MAX / 2, hour);
    let floor = floor(&mut bench);

    bench.section("token bucket, refused");
    let (_, refused) = ours(&mut bench, RateLimitSettings::token_bucket(NONE));
    let one = governor::Quota::with_period(hour).expect("an hour is longer than zero");
    let limiter = RateLimiter::direct(one);
    bench.case("governor check", move |calls| plain(calls, |_| limiter.check().is_ok()));
    tower_resilience(&mut bench, WindowType::Fixed, 1, hour);

    bench.section("sliding counter, allowed");
    let (counter, _) = ours(&mut bench, RateLimitSettings::sliding_counter(ENDLESS_COUNT));
    let their_counter = tower_resilience(&mut bench, WindowType::SlidingCounter, 16_000_000, Duration::from_millis(16));
    bench.section("sliding log of 100, all of which pass");
    let (log, _) = ours(&mut bench, RateLimitSettings::sliding_log(IN_USE));
    let their_log = tower_resilience(&mut bench, WindowType::SlidingLog, 100, IN_USE.period());
    bench.section("sliding log of 100, refused");
    let (full_log, _) = ours(&mut bench, RateLimitSettings::sliding_log(HUNDRED));
    let their_full_log = tower_resilience(&mut bench, WindowType::SlidingLog, 100, HUNDRED.period());
    bench.section("two limits at once, allowed");
    let two = RateLimitSettings::token_bucket(ENDLESS).and(RateLimitSettings::sliding_counter(ENDLESS_COUNT));
    ours(&mut bench, two);

    let keyed = [
        keyed(&mut bench, "per key, 1 key", 1),
        keyed(&mut bench, "per key, 10,000 keys", 10_000),
        keyed(&mut bench, "per key, 1,000,000 keys", 1_000_000),
    ];
    bytes_per_key(&mut bench);
    longest_wait(&mut bench);

    bench.gate("token bucket: of governor's", direct, governor, Bound::AtMost(1.05));
    bench.gate("token bucket, the whole layer: of tower's", layer, tower, Bound::AtMost(1.0));
    bench.gate("token bucket, the whole layer: of tower-resilience's", layer, fixed, Bound::AtMost(0.1));
    bench.gate("token bucket, the whole layer: of a clock and an exchange alone", layer, floor, Bound::AtMost(1.25));
    bench.gate("token bucket, refused: of allowed", refused, direct, Bound::AtMost(1.0));
    bench.gate("sliding counter: of tower-resilience's", counter, their_counter, Bound::AtMost(0.1));
    bench.gate("sliding log of 100: of tower-resilience's", log, their_log, Bound::AtMost(0.5));
    bench.gate("sliding log of 100, refused: of tower-resilience's", full_log, their_full_log, Bound::AtMost(0.5));
    for (keys, (buttress, governor)) in ["1 key", "10,000 keys", "1,000,000 keys"].into_iter().zip(keyed) {
        bench.gate(&format!("per key, {keys}: of governor's"), buttress, governor, Bound::AtMost(0.75));
    }
    bench.gate_allocations();
    bench.run();
}

/// What no limiter that threads share can do without: a reading of the clock, and an exchange of one word.
fn floor(bench: &mut Bench) -> CaseId {
    let (clock, word) = (quanta::Clock::new(), AtomicU64::new(0));
    bench.case("a clock and an exchange alone", move |calls| {
        plain(calls, |_| {
            let (now, before) = (clock.raw(), word.load(Ordering::Relaxed));
            word.compare_exchange(before, before.max(now) + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        });
    });
    bench.last()
}

/// Keys in an order that no cache foresees.
fn scattered(n: u64, keys: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % keys
}

/// A check of a key that is known. Answers ours and governor's.
fn keyed(bench: &mut Bench, section: &'static str, keys: u64) -> (CaseId, CaseId) {
    bench.section(section);
    // A burst that no benchmark uses up, of units that take long to come back: a key that is full again would be forgotten.
    let settings = RateLimitSettings::token_bucket(Quota::per_second(1).burst(1_000_000_000)).max_keys(2_000_000);
    let handle = KeyedRateLimitHandle::try_new(settings).expect("the settings work");
    let limiter: Arc<DefaultKeyedRateLimiter<u64>> =
        Arc::new(RateLimiter::keyed(governor::Quota::per_second(NonZeroU32::MAX)));
    for key in 0..keys {
        assert!(handle.try_acquire(&key, 10_000).is_ok());
        assert!(limiter.check_key(&key).is_ok());
    }
    assert_eq!(handle.len() as u64, keys);
    let ours = {
        let handle = handle.clone();
        move || {
            let (handle, mut from) = (handle.clone(), 0);
            Box::new(move |calls| {
                plain(calls, |n| handle.try_acquire(&scattered(from + n, keys), 1).is_ok());
                from += calls;
            }) as Batch
        }
    };
    let batch = ours();
    bench.case("buttress try_acquire", batch).on_two_threads(ours).ours();
    let buttress = bench.last();
    let layer = KeyedRateLimitLayer::over(handle, move |n: &u64| scattered(*n, keys));
    let service = layer.layer(service_fn(|n| ready(Answer::Ok(n))));
    LONG_LIVED.case(bench, "buttress, the layer", &service).ours();
    let theirs = move || {
        let (limiter, mut from) = (Arc::clone(&limiter), 0);
        Box::new(move |calls| {
            plain(calls, |n| limiter.check_key(&scattered(from + n, keys)).is_ok());
            from += calls;
        }) as Batch
    };
    let batch = theirs();
    bench.case("governor check_key", batch).on_two_threads(theirs);
    (buttress, bench.last())
}

/// What a million keys keep.
fn bytes_per_key(bench: &mut Bench) {
    const KEYS: u64 = 1_000_000;
    let ours = allocation_counter::measure(|| {
        let settings = RateLimitSettings::token_bucket(Quota::per_day(5)).max_keys(2 * KEYS as usize);
        let handle = KeyedRateLimitHandle::try_new(settings).expect("the settings work");
        for key in 0..KEYS {
            assert!(handle.try_acquire(&key, 1).is_ok());
        }
        std::mem::forget(handle);
    });
    let theirs = allocation_counter::measure(|| {
        let limiter: DefaultKeyedRateLimiter<u64> = RateLimiter::keyed(governor::Quota::per_hour(NonZeroU32::MIN));
        for key in 0..KEYS {
            assert!(limiter.check_key(&key).is_ok());
        }
        std::mem::forget(limiter);
    });
    let each = |counted: allocation_counter::AllocationInfo| counted.bytes_current as f64 / KEYS as f64;
    let (ours, theirs) = (each(ours), each(theirs));
    bench.remark(
        "bytes a key, of a million keys of 8 bytes: ours, governor's, and the ratio, which is to be at most 1.5".into(),
        format!("{ours:.1}, {theirs:.1}, {:.2}", ours / theirs),
    );
}

/// How long the unluckiest of a million newcomers waits: for its table to grow.
fn longest_wait(bench: &mut Bench) {
    let longest = |come: &dyn Fn(u64) -> bool| {
        let waits = (0..1_000_000).map(|key| {
            let began = quanta::Instant::now();
            assert!(come(key));
            began.elapsed()
        });
        waits.max().unwrap_or_default()
    };
    let settings = RateLimitSettings::token_bucket(Quota::per_day(5)).max_keys(2_000_000);
    let handle = KeyedRateLimitHandle::try_new(settings).expect("the settings work");
    let ours = longest(&|key| handle.try_acquire(&key, 1).is_ok());
    let limiter: DefaultKeyedRateLimiter<u64> = RateLimiter::keyed(governor::Quota::per_hour(NonZeroU32::MIN));
    let theirs = longest(&|key| limiter.check_key(&key).is_ok());
    bench.remark(
        "the longest that one of a million new keys waits, while tables grow: ours, governor's".into(),
        format!("{ours:.1?}, {theirs:.1?}"),
    );
}

/// tower-resilience's, which refuses at once.
fn tower_resilience(bench: &mut Bench, window: WindowType, limit: usize, period: Duration) -> CaseId {
    let config = RateLimiterConfigBuilder::new()
        .limit_for_period(limit)
        .refresh_period(period)
        .timeout_duration(Duration::ZERO)
        .window_type(window);
    let layer = config.build().expect("the settings work");
    let service = layer.layer(service_fn(|n| ready(Ok::<u64, Down>(n))));
    LONG_LIVED.case(bench, "tower-resilience", &service).on_two_threads(LONG_LIVED.batch(&service));
    bench.last()
}

/// The layer in both ways of use, and the handle alone. Answers the first and the last.
fn ours(bench: &mut Bench, settings: RateLimitSettings) -> (CaseId, CaseId) {
    let service = RateLimitLayer::new(settings).layer(service_fn(|n| ready(Answer::Ok(n))));
    let handle = service.handle();
    if [NONE, HUNDRED].contains(&settings.quota()) {
        while handle.check(1).allowed {}
    }
    LONG_LIVED.case(bench, "buttress", &service).on_two_threads(LONG_LIVED.batch(&service)).ours();
    let layer = bench.last();
    CLONED.case(bench, "buttress, a clone per call", &service).ours();
    let handle: RateLimitHandle = handle.clone();
    bench.case("buttress try_acquire", move |calls| plain(calls, |_| handle.try_acquire(1).is_ok())).ours();
    (layer, bench.last())
}
