//! A store with a far half, as Redis will have.

use std::{collections::HashMap, future::Future, pin::Pin};

use buttress::{
    BoxError, Outcome,
    cache::{Cache, Early, Entry, Envelope, Fetched, Keep, MemoryStore, Put, Store, Usage},
};

use super::*;

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What is kept far away: values with their envelopes, in lengths of time.
type Far = Arc<Mutex<HashMap<u32, (u32, Envelope, tokio::time::Instant)>>>;

/// Memory in front of something slow.
struct Tiered {
    near: MemoryStore<u32, u32>,
    far: Far,
    takes: Duration,
    near_ttl: Option<Duration>,
    fetches: Arc<AtomicU32>,
}

impl Store<u32, u32> for Tiered {
    type Fetch = Later<Fetched<u32>>;
    type Writing = Later<Result<(), BoxError>>;

    fn get(&self, key: &u32) -> Option<Entry<u32>> {
        self.near.get(key)
    }

    fn fetch(&self, key: &u32) -> Self::Fetch {
        let (far, key, takes) = (Arc::clone(&self.far), *key, self.takes);
        self.fetches.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            tokio::time::sleep(takes).await;
            let found = far.lock().unwrap().get(&key).cloned().map(|(value, mut envelope, stored)| {
                envelope.age += stored.elapsed();
                Entry::new(value, envelope)
            });
            found.into()
        })
    }

    fn put(&self, key: u32, entry: Entry<u32>) -> Put<Self::Writing> {
        let Put { evicted, expired, too_large, .. } = self.near.put(key, entry.clone());
        let (far, takes) = (Arc::clone(&self.far), self.takes);
        let writing = Box::pin(async move {
            tokio::time::sleep(takes).await;
            if let Some(value) = entry.value() {
                far.lock().unwrap().insert(key, (*value, entry.envelope(), tokio::time::Instant::now()));
            }
            Ok(())
        });
        Put { writing, evicted, expired, too_large }
    }

    fn expire(&self, key: &u32, entry: &Entry<u32>) {
        self.near.expire(key, entry);
    }

    fn remove(&self, key: &u32) -> Self::Writing {
        self.near.remove(key);
        let (far, key) = (Arc::clone(&self.far), *key);
        Box::pin(async move {
            far.lock().unwrap().remove(&key);
            Ok(())
        })
    }

    fn remove_tag(&self, tag: &str) -> Self::Writing {
        let (far, tag) = (Arc::clone(&self.far), Box::<str>::from(tag));
        Box::pin(async move {
            far.lock().unwrap().retain(|_, (_, envelope, _)| !envelope.tags.contains(&tag));
            Ok(())
        })
    }

    fn clear(&self) -> Self::Writing {
        self.near.clear();
        let far = Arc::clone(&self.far);
        Box::pin(async move {
            far.lock().unwrap().clear();
            Ok(())
        })
    }

    fn usage(&self) -> Usage {
        self.near.usage()
    }

    fn near_ttl(&self) -> Option<Duration> {
        self.near_ttl
    }
}

/// Until all that is on its way has arrived.
async fn arrive() {
    for _ in 0..4 {
        pass(Duration::from_millis(10)).await;
        settle().await;
    }
}

/// One of a fleet: memory of its own, and the far half of all.
struct Node {
    handle: CacheHandle<u32, u32, Tiered>,
    fetches: Arc<AtomicU32>,
    dependency: Dependency,
}

impl Node {
    fn new(settings: CacheSettings, far: &Far, dependency: &Dependency) -> Self {
        Self::near_for(None, settings, far, dependency)
    }

    fn near_for(near_ttl: Option<Duration>, settings: CacheSettings, far: &Far, dependency: &Dependency) -> Self {
        let fetches = Arc::new(AtomicU32::new(0));
        let near = MemoryStore::try_new(settings).unwrap();
        let takes = Duration::from_millis(10);
        let store = Tiered { near, far: Arc::clone(far), takes, near_ttl, fetches: Arc::clone(&fetches) };
        Self { handle: CacheHandle::with_store(settings, store).unwrap(), fetches, dependency: dependency.clone() }
    }

    async fn says(&self, key: u32) -> (u32, &'static str) {
        let layer = self.handle.layer(|ask: &Ask| Some(ask.0)).tell(|answer, status| (answer, name(status)));
        let service: Cache<_, _, _, _, _> = layer.layer(self.dependency.client());
        service.oneshot(Ask(key)).await.unwrap()
    }
}

async fn fleet(settings: CacheSettings) -> (Node, Node) {
    let (far, dependency) = (Far::default(), Dependency::new());
    (Node::new(settings, &far, &dependency), Node::new(settings, &far, &dependency))
}

#[tokio::test(start_paused = true)]
async fn what_one_has_loaded_the_other_finds_and_keeps_for_what_is_left() {
    let (one, other) = fleet(BASE).await;
    assert_eq!(one.says(1).await, (1, "stored"));
    pass(4 * SECOND).await;
    settle().await;
    assert_eq!(other.says(1).await, (1, "fresh"));
    assert_eq!(other.says(1).await, (1, "fresh"));
    assert_eq!((other.fetches.load(Ordering::SeqCst), one.dependency.calls()), (1, 1), "the second is near");
    // fusioncache_MemoryExpirationAlignedWithDistributed
    pass(6 * SECOND).await;
    assert_eq!(other.says(1).await, (2, "stored"));
}

#[tokio::test(start_paused = true)]
async fn what_is_far_is_fetched_once_for_all_who_ask() {
    let (one, other) = fleet(BASE).await;
    one.says(1).await;
    settle().await;
    pass(SECOND).await;
    settle().await;
    let answers = futures::future::join_all((0..100).map(|_| other.says(1))).await;
    assert!(answers.into_iter().all(|answer| answer == (1, "fresh")));
    assert_eq!((other.fetches.load(Ordering::SeqCst), one.dependency.calls()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_stale_far_away_is_served_meanwhile_and_when_the_load_fails() {
    let (one, other) = fleet(BASE.stale_while_revalidate(MINUTE)).await;
    one.says(1).await;
    settle().await;
    pass(11 * SECOND).await;
    settle().await;
    one.dependency.takes(5 * SECOND);
    let started = tokio::time::Instant::now();
    assert_eq!(other.says(1).await, (1, "stale: revalidating"));
    assert!(started.elapsed() < SECOND);
    pass(6 * SECOND).await;
    settle().await;
    assert_eq!(other.says(1).await, (2, "fresh"));

    let (one, other) = fleet(BASE.stale_if_error(MINUTE)).await;
    one.says(1).await;
    settle().await;
    pass(11 * SECOND).await;
    settle().await;
    one.dependency.then(Then::Fail(AppError::Down));
    assert_eq!(other.says(1).await, (1, "stale: failed"));
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_that_was_awaited_holds_everywhere_but_in_others_memory() {
    let (one, other) = fleet(BASE).await;
    one.says(1).await;
    settle().await;
    pass(SECOND).await;
    settle().await;
    one.handle.invalidate(&1).await.unwrap();
    assert_eq!(other.says(1).await, (2, "stored"));
    other.handle.put_for(3, 33, Keep::default().tag("t")).await.unwrap();
    other.handle.invalidate_tag("t").await.unwrap();
    assert_eq!(one.says(3).await, (3, "stored"));
    one.handle.clear().await.unwrap();
    assert_eq!(one.says(1).await, (4, "stored"));
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_while_it_is_fetched_voids_what_is_found() {
    let (one, other) = fleet(BASE).await;
    one.says(1).await;
    settle().await;
    pass(SECOND).await;
    settle().await;
    let mut fetching = tokio_test::task::spawn(other.says(1));
    assert!(fetching.poll().is_pending());
    settle().await;
    drop(other.handle.invalidate(&1));
    assert_eq!(fetching.await, (1, "fresh"), "it had come before");
    assert_eq!(other.handle.get(&1), None);
}

#[test]
fn an_envelope_says_again_what_it_was_told() {
    let mut envelope = Envelope::new(10 * SECOND);
    envelope.age = 4 * SECOND;
    envelope.max_stale = MINUTE;
    envelope.cost = SECOND;
    envelope.tags = Arc::new(["a".into()]);
    let entry = Entry::new(7, envelope);
    let again = entry.envelope();
    assert_eq!((entry.value(), again.ttl, again.max_stale, again.cost), (Some(&7), 10 * SECOND, MINUTE, SECOND));
    assert!(again.age >= 4 * SECOND && !entry.has_expired());
    assert_eq!(&*again.tags, [Box::<str>::from("a")]);
}

#[tokio::test(start_paused = true)]
async fn near_it_is_fresh_for_less_than_far_away() {
    let (far, dependency) = (Far::default(), Dependency::new());
    let node = Node::near_for(Some(2 * SECOND), BASE, &far, &dependency);
    assert_eq!(node.says(1).await, (1, "stored"));
    settle().await;
    pass(SECOND).await;
    settle().await;
    assert_eq!(node.says(1).await, (1, "fresh"));
    assert_eq!(node.fetches.load(Ordering::SeqCst), 1, "near");
    pass(2 * SECOND).await;
    assert_eq!(node.says(1).await, (1, "fresh"));
    assert_eq!((node.fetches.load(Ordering::SeqCst), dependency.calls()), (2, 1), "far away");
    assert_eq!(far.lock().unwrap()[&1].1.ttl, 10 * SECOND, "what is far knows nothing of what is near");
    drop(node.handle.put(2, 22));
    assert_eq!(node.handle.get(&2), Some(22));
    pass(2 * SECOND).await;
    assert_eq!(node.handle.get(&2), None);
}

#[tokio::test(start_paused = true)]
async fn early_is_early_also_for_what_is_far() {
    let (one, _) = fleet(BASE.early(Early::Ratio(0.5))).await;
    one.says(1).await;
    settle().await;
    pass(6 * SECOND).await;
    settle().await;
    assert_eq!(one.says(1).await, (1, "fresh"));
    settle().await;
    pass(SECOND).await;
    settle().await;
    assert_eq!(one.says(1).await, (2, "fresh"));
    assert_eq!(one.dependency.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_void_is_gone_at_once_and_one_that_is_aged_is_stale() {
    let (far, dependency) = (Far::default(), Dependency::new());
    for (settings, says) in [
        (BASE, (2, "stored")),
        (BASE.stale_while_revalidate(MINUTE), (1, "stale: revalidating")),
        (BASE.stale_if_error(MINUTE), (2, "stored")),
    ] {
        let (one, _) = fleet(settings).await;
        one.says(1).await;
        arrive().await;
        // Only what is near is left.
        one.handle.store().far.lock().unwrap().clear();
        one.handle.store().get(&1).unwrap().age();
        assert_eq!(one.handle.get(&1), None);
        assert_eq!(one.says(1).await, says);
        arrive().await;
        assert_eq!(one.says(1).await, (2, "fresh"));
        one.handle.store().get(&1).unwrap().void();
        one.handle.store().far.lock().unwrap().clear();
        assert_eq!(one.says(1).await, (3, "stored"));
    }
    let one = Node::new(BASE.stale_if_error(MINUTE), &far, &dependency);
    one.says(1).await;
    settle().await;
    pass(SECOND).await;
    settle().await;
    far.lock().unwrap().clear();
    one.handle.store().get(&1).unwrap().age();
    dependency.then(Then::Fail(AppError::Down));
    assert_eq!(one.says(1).await, (1, "stale: failed"));
}

/// Fresh when one had loaded it, and past that by eleven seconds.
async fn stale_far_away(settings: CacheSettings) -> Node {
    let (one, other) = fleet(settings).await;
    one.says(1).await;
    arrive().await;
    pass(21 * SECOND).await;
    settle().await;
    other.dependency.takes(5 * SECOND);
    other
}

#[tokio::test(start_paused = true)]
async fn who_comes_when_what_is_stale_far_away_has_passed_its_last_moment_waits_for_the_load() {
    let node = stale_far_away(BASE.stale_while_revalidate(12 * SECOND)).await;
    assert_eq!(node.says(1).await, (1, "stale: revalidating"));
    pass(2 * SECOND).await;
    let started = tokio::time::Instant::now();
    assert_eq!(node.says(1).await, (2, "collapsed"));
    assert!(started.elapsed() < 5 * SECOND, "woken by the load");
}

#[tokio::test(start_paused = true)]
async fn what_is_stale_far_away_is_not_served_meanwhile_when_it_is_only_for_errors() {
    let node = stale_far_away(BASE.stale_while_revalidate(12 * SECOND).stale_if_error(MINUTE)).await;
    assert_eq!(node.says(1).await, (1, "stale: revalidating"));
    pass(2 * SECOND).await;
    assert_eq!(node.says(1).await, (2, "collapsed"));

    let node = stale_far_away(BASE.stale_while_revalidate(12 * SECOND).stale_if_error(MINUTE)).await;
    node.dependency.then(Then::Fail(AppError::Down));
    assert_eq!(node.says(1).await, (1, "stale: revalidating"));
    pass(2 * SECOND).await;
    assert_eq!(node.says(1).await, (1, "stale: failed"));
}

#[tokio::test(start_paused = true)]
async fn the_soft_time_out_holds_for_what_is_stale_far_away() {
    let settings = BASE.stale_while_revalidate(12 * SECOND).stale_if_error(MINUTE).soft_timeout(SECOND);
    let node = stale_far_away(settings).await;
    assert_eq!(node.says(1).await, (1, "stale: revalidating"));
    pass(2 * SECOND).await;
    let started = tokio::time::Instant::now();
    assert_eq!(node.says(1).await, (1, "stale: slow"));
    assert!(started.elapsed() < 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_its_tag_was_invalidated_is_not_answered_with_what_is_stale_far_away() {
    let (one, other) = fleet(BASE.stale_while_revalidate(MINUTE)).await;
    one.handle.put_for(1, 11, Keep::default().tag("t")).await.unwrap();
    pass(11 * SECOND).await;
    settle().await;
    other.dependency.takes(5 * SECOND);
    assert_eq!(other.says(1).await, (11, "stale: revalidating"));
    drop(other.handle.invalidate_tag("t"));
    assert_eq!(other.says(1).await, (1, "collapsed"));
}

/// A dead dependency is asked once in a throttle, also by who has nothing at hand but what is far away.
#[tokio::test(start_paused = true)]
async fn what_is_stale_far_away_is_throttled_too() {
    for settings in [BASE.stale_if_error(MINUTE), BASE.stale_while_revalidate(MINUTE)] {
        let node = stale_far_away(settings.throttle(20 * SECOND)).await;
        node.dependency.then(Then::Fail(AppError::Down));
        node.says(1).await;
        pass(6 * SECOND).await;
        settle().await;
        let calls = node.dependency.calls();
        for _ in 0..5 {
            assert_eq!(node.says(1).await, (1, "stale: failed"));
        }
        arrive().await;
        assert_eq!(node.dependency.calls(), calls);
        pass(20 * SECOND).await;
        node.says(1).await;
        arrive().await;
        assert_eq!(node.dependency.calls(), calls + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_aged_is_served_at_once_no_longer_than_any_that_is_stale() {
    let (one, _) = fleet(BASE.stale_while_revalidate(5 * SECOND).stale_if_error(MINUTE)).await;
    one.says(1).await;
    arrive().await;
    one.handle.store().far.lock().unwrap().clear();
    one.handle.store().get(&1).unwrap().age();
    pass(16 * SECOND).await;
    assert_eq!(one.says(1).await, (2, "stored"));
}

#[tokio::test(start_paused = true)]
async fn what_is_loaded_across_the_invalidation_of_its_tag_is_not_stored_far_away_either() {
    let node = fleet(BASE).await.0;
    let keep = |_: &u32| Keep::default().tag("t");
    let layer = node.handle.layer(|ask: &Ask| Some(ask.0)).keep(keep).tell(|answer, status| (answer, name(status)));
    node.dependency.takes(SECOND);
    let load = tokio::spawn(layer.layer(node.dependency.client()).oneshot(Ask(1)));
    arrive().await;
    node.handle.invalidate_tag("t").await.unwrap();
    assert_eq!(load.await.unwrap(), Ok((1, "loaded")));
    arrive().await;
    assert!(node.handle.store().far.lock().unwrap().is_empty());
    assert_eq!(node.handle.stats().entries, 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_a_failure_gives_way_to_what_is_stale_far_away() {
    let node = stale_far_away(BASE.stale_if_error(MINUTE)).await;
    let bad = |result: Result<&u32, &AppError>| {
        if result.is_ok() { Outcome::TRANSIENT } else { Outcome::Success }
    };
    let layer = node.handle.layer(|ask: &Ask| Some(ask.0)).classify(bad).tell(|answer, status| (answer, name(status)));
    let service: Cache<_, _, _, _, _> = layer.layer(node.dependency.client());
    let both = futures::future::join(service.clone().oneshot(Ask(1)), service.oneshot(Ask(1))).await;
    assert_eq!(both, (Ok((1, "stale: failed")), Ok((1, "stale: failed"))));
}
