//! What the cache costs: hits through the whole layer, fresh and stale, calls without a key, the store alone, and misses. What skews it: the clock is
//! tokio's with `test-util` in it (31 ns a reading), because the tests of this package need that, and every hit reads it once; the package
//! `buttress-peers` compares them by like clocks. A miss is a task of its own, and its row has what a runtime takes for that.
//!
//! ```text
//! cargo bench --bench cache [-- [--short] [FILTER]]
//! ```

mod harness;

use std::{future::ready, hint::black_box, rc::Rc, sync::Arc, time::Duration};

use buttress::{
    Error, Outcome,
    cache::{CacheHandle, CacheKey, CacheLayer, CacheSettings, Keep},
};
use tower::{Layer, service_fn};

use harness::{
    Batch, Bench,
    usage::{Use, runtime},
};

const HOUR: Duration = Duration::from_secs(3600);
const SETTINGS: CacheSettings = CacheSettings::new().ttl(HOUR).max_entries(1_000);

/// A foreign client's error, wrapped as a stack wants it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("down")]
struct Down;

type Page = Arc<[u8]>;
type Answer = Result<Page, Error<Down>>;

fn main() {
    let runtime = Rc::new(runtime());
    // Polling by hand happens inside a runtime too: that is where tokio's clock costs what it costs.
    let _entered = runtime.enter();
    let mut bench = Bench::from_args("cache");
    for a_clone_per_call in [false, true] {
        bench.section(if a_clone_per_call { "a clone per call" } else { "long-lived" });
        rows(&mut bench, &Use { a_clone_per_call, runtime: None });
    }
    bench.section("the store alone");
    store(&mut bench);
    bench.section("misses");
    misses(&mut bench, &Use { a_clone_per_call: false, runtime: Some(Rc::clone(&runtime)) });
    bench.gate_allocations();
    bench.run();
}

/// None of them asks the inner service, but for the one that has no key.
fn rows(bench: &mut Bench, usage: &Use) {
    let page = Page::from([7; 64]);
    let answer = page.clone();
    let client = service_fn(move |_: u64| ready(Answer::Ok(answer.clone())));
    usage.case(bench, "bare service", &client).on_two_threads(usage.batch(&client));

    let layer = CacheLayer::new(SETTINGS, |key: &u64| Some(key % 100));
    (0..100).for_each(|key| _ = layer.handle().put(key, page.clone()));
    let service = layer.layer(client.clone());
    usage.case(bench, "hit", &service).ours().on_two_threads(usage.batch(&service));

    let layer = CacheLayer::new(SETTINGS, |_: &u64| Some(1));
    layer.handle().put(1, page.clone());
    let service = layer.layer(client.clone());
    usage.case(bench, "hit, one hot key", &service).ours().on_two_threads(usage.batch(&service));

    let layer = CacheLayer::new(SETTINGS, |key: &u64| Some(CacheKey::new("pages", 1).u64(key % 100)));
    (0..100).for_each(|key| _ = layer.handle().put(CacheKey::new("pages", 1).u64(key), page.clone()));
    // The key is built with each call.
    usage.case(bench, "hit, a framed key", &layer.layer(client.clone())).ours().may_allocate();

    // A load that failed a moment ago: nobody asks again.
    let settings = SETTINGS.stale_if_error(24 * HOUR).throttle(24 * HOUR);
    let layer =
        CacheLayer::new(settings, |_: &u64| Some(1)).classify(|_: Result<&Page, &Error<Down>>| Outcome::TRANSIENT);
    layer.handle().put_for(1, page, Keep::from(Duration::from_nanos(1)));
    let stale = layer.layer(client.clone());
    let runtime = runtime();
    runtime.block_on(async {
        use tower::ServiceExt;
        stale.clone().oneshot(1).await.expect("a stale answer");
    });
    usage.case(bench, "stale answer of a dead dependency", &stale).ours();

    let layer = CacheLayer::new(SETTINGS, |_: &u64| None::<u64>);
    usage.case(bench, "no key", &layer.layer(client)).ours();
}

fn store(bench: &mut Bench) {
    let handle = CacheHandle::<u64, u64>::new(SETTINGS);
    (0..100).for_each(|key| _ = handle.put(key, key));
    let batch = {
        let handle = handle.clone();
        move || {
            let handle = handle.clone();
            Box::new(move |calls| (0..calls).for_each(|n| _ = black_box(handle.get(&(n % 100))))) as Batch
        }
    };
    bench.case("get", batch()).ours().on_two_threads(batch);
    let absent = handle.clone();
    bench.case("get, absent", move |calls| (0..calls).for_each(|n| _ = black_box(absent.get(&(1_000 + n))))).ours();
    // Each takes the place of one that is there.
    bench.case("put", move |calls| (0..calls).for_each(|n| _ = handle.put(n % 100, n))).ours().may_allocate();
}

/// Each is loaded, and nothing is kept.
fn misses(bench: &mut Bench, usage: &Use) {
    let page = Page::from([7; 64]);
    let client = service_fn(move |_: u64| ready(Answer::Ok(page.clone())));
    usage.case(bench, "bare service", &client);
    let layer = CacheLayer::new(SETTINGS, |key: &u64| Some(*key)).keep(|_: &Page| Keep::never());
    usage.case(bench, "miss, loaded", &layer.layer(client)).ours().may_allocate();
}
