//! What the limiter adds to a call: every algorithm, calls that pass and calls that are refused, one limit for all and one per key, several limits
//! at once, and the line when nobody stands in it. A call that has to wait is not timed. What skews it: the clock is tokio's with `test-util` in it
//! (31 ns a reading), because the tests of this package need that, and every decision reads it once; the package `buttress-peers` compares them by
//! like clocks.
//!
//! ```text
//! cargo bench --bench rate_limit [-- [--short] [FILTER]]
//! ```

mod harness;

use std::{future::ready, time::Duration};

use buttress::{
    Error,
    rate_limit::{KeyedRateLimitLayer, Quota, RateLimitLayer, RateLimitSettings},
};
use tower::{Layer, service_fn};

use harness::{
    Bench, Bound, CaseId,
    usage::{Use, runtime},
};

/// A foreign client's error, wrapped as a stack wants it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("down")]
struct Down;

type Answer = Result<u64, Error<Down>>;

/// More than any machine calls.
const ENDLESS: Quota = Quota::per_second(1_000_000_000);
/// As many as a counter counts, in a time in which no machine makes as many calls.
const ENDLESS_COUNT: Quota = Quota::new(16_000_000, Duration::from_millis(16));
/// So many that a log is in use: each call comes and one goes, and all pass.
const IN_USE: Quota = Quota::new(100, Duration::from_micros(2));
/// One, and that one is taken before.
const NONE: Quota = Quota::per_day(1);

fn main() {
    let runtime = runtime();
    // Polling by hand happens inside a runtime too: that is where tokio's clock costs what it costs.
    let _entered = runtime.enter();
    let mut bench = Bench::from_args("rate_limit");
    let rows = [false, true].map(|a_clone_per_call| {
        bench.section(if a_clone_per_call { "a clone per call" } else { "long-lived" });
        rows(&mut bench, &Use { a_clone_per_call, runtime: None })
    });
    for (usage, (passes, refuses)) in ["long-lived", "a clone per call"].into_iter().zip(rows) {
        bench.gate(&format!("refused of allowed, {usage}"), refuses, passes, Bound::AtMost(2.0));
    }
    bench.gate_allocations();
    bench.run();
}

fn rows(bench: &mut Bench, usage: &Use) -> (CaseId, CaseId) {
    let client = service_fn(|n| ready(Answer::Ok(n)));
    // The floor, and the control of two threads: it shares nothing, so what it lacks to 2.00 is the machine's doing.
    usage.case(bench, "bare service", &client).on_two_threads(usage.batch(&client));

    let bucket = RateLimitSettings::token_bucket(ENDLESS);
    let service = RateLimitLayer::new(bucket).layer(client);
    usage.case(bench, "token bucket", &service).ours().on_two_threads(usage.batch(&service));
    let passes = bench.last();
    let layer = RateLimitLayer::new(RateLimitSettings::token_bucket(NONE));
    layer.handle().try_acquire(1).expect("the one");
    usage.case(bench, "token bucket, refused", &layer.layer(client)).ours();
    let refuses = bench.last();
    let service = RateLimitLayer::new(RateLimitSettings::sliding_counter(ENDLESS_COUNT)).layer(client);
    usage.case(bench, "sliding counter", &service).ours();
    let service = RateLimitLayer::new(RateLimitSettings::sliding_log(IN_USE)).layer(client);
    usage.case(bench, "sliding log of 100", &service).ours();
    let service = RateLimitLayer::new(bucket.and(bucket.name("per day"))).layer(client);
    usage.case(bench, "two token buckets", &service).ours();
    let service = RateLimitLayer::new(bucket).waiting().layer(client);
    usage.case(bench, "token bucket with a line, nobody in it", &service).ours();
    let service = KeyedRateLimitLayer::new(bucket, |n: &u64| n % 1_000).layer(client);
    usage.case(bench, "token bucket per key, of a thousand", &service).ours().on_two_threads(usage.batch(&service));
    (passes, refuses)
}
