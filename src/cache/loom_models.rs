//! Every interleaving of loads, invalidations and waits: `RUSTFLAGS="--cfg buttress_loom" cargo test --lib loom`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use loom::{model, thread};

use super::{
    entry::{Content, Entry},
    flight::{Flight, Landed, News, Seat},
    life::Times,
    memory::MemoryStore,
    policy::CacheSettings,
    state::{Join, State},
};
use crate::time;

type Tested = State<u32, u32, MemoryStore<u32, u32>>;

const TTL: Duration = Duration::from_secs(3600);

fn state() -> Arc<Tested> {
    // One shard, because a key is in another one each time, and loom wants all times alike.
    let settings = CacheSettings::new().max_entries(10);
    Arc::new(State::try_new(settings, MemoryStore::try_new(settings).unwrap()).unwrap())
}

fn begin(state: &Tested) -> Arc<Flight<u32>> {
    match state.join(&1) {
        Join::Lead(flight) => flight,
        Join::Wait(_) => panic!("it is under way"),
    }
}

fn loaded(value: u32, flight: &Flight<u32>, tag: Option<&str>) -> Entry<u32> {
    let now = time::now();
    let tags: Vec<Box<str>> = tag.into_iter().map(Box::from).collect();
    Entry::provisional(Content::Value(value), Times::new(now, now, TTL, TTL), flight.generation, tags)
}

fn end(state: &Tested, flight: &Arc<Flight<u32>>, value: u32, tag: Option<&str>) {
    let entry = loaded(value, flight, tag);
    let _ = state.store(&1, flight, &entry);
    flight.land(Landed::Answer { entry, gives_way: false, stored: true });
}

fn seen(state: &Tested) -> Option<u32> {
    state.peek(&1).and_then(|entry| entry.value().copied())
}

#[test]
fn whoever_comes_after_an_invalidation_sees_nothing_that_was_loaded_before() {
    model(|| {
        let state = state();
        let flight = begin(&state);
        let loads = {
            let state = Arc::clone(&state);
            thread::spawn(move || end(&state, &flight, 7, None))
        };
        state.invalidate(&1);
        assert_eq!(seen(&state), None);
        loads.join().unwrap();
        assert_eq!(seen(&state), None);
    });
}

/// Such a call begins a load, and finds that another one has just stored it.
#[test]
fn nor_what_a_call_had_found_before() {
    for invalidate in [(|state| drop(state.invalidate(&1))) as fn(&Tested), |state| drop(state.clear())] {
        model(move || {
            let state = state();
            state.put(1, 7, (TTL, TTL), [].into());
            let finds = {
                let state = Arc::clone(&state);
                thread::spawn(move || {
                    if let Join::Lead(flight) = state.join(&1) {
                        match state.peek(&1) {
                            Some(entry) => state.land(&1, &flight, Landed::Found(entry)),
                            None => end(&state, &flight, 8, None),
                        }
                    }
                })
            };
            invalidate(&state);
            if let Join::Wait(flight) = state.join(&1) {
                finds.join().unwrap();
                let mut seat = Seat::new(flight, None);
                let Poll::Ready(News::Landed(landed)) = seat.poll(&Context::from_waker(Waker::noop())) else {
                    panic!("it has landed")
                };
                assert!(!matches!(*landed, Landed::Found(_)));
            } else {
                finds.join().unwrap();
            }
        });
    }
}

#[test]
fn nor_after_one_by_tag() {
    model(|| {
        let state = state();
        let flight = begin(&state);
        let loads = {
            let state = Arc::clone(&state);
            thread::spawn(move || end(&state, &flight, 7, Some("tag")))
        };
        state.invalidate_tag("tag");
        assert_eq!(seen(&state), None);
        loads.join().unwrap();
        assert_eq!(seen(&state), None);
    });
}

#[test]
fn a_load_that_began_after_an_invalidation_is_never_hidden_by_an_older_one() {
    model(|| {
        let state = state();
        let old = begin(&state);
        let loads = {
            let state = Arc::clone(&state);
            thread::spawn(move || end(&state, &old, 7, None))
        };
        state.invalidate(&1);
        let new = begin(&state);
        end(&state, &new, 8, None);
        assert_eq!(seen(&state), Some(8));
        loads.join().unwrap();
        assert_eq!(seen(&state), Some(8));
    });
}

#[test]
fn what_is_put_stays_whatever_is_loaded() {
    model(|| {
        let state = state();
        let flight = begin(&state);
        let loads = {
            let state = Arc::clone(&state);
            thread::spawn(move || end(&state, &flight, 7, None))
        };
        state.put(1, 8, (TTL, TTL), [].into());
        assert_eq!(seen(&state), Some(8));
        loads.join().unwrap();
        assert_eq!(seen(&state), Some(8));
    });
}

struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn who_waits_hears_of_the_landing_or_is_woken() {
    model(|| {
        let flight = Arc::new(Flight::new(1));
        let lands = {
            let flight = Arc::clone(&flight);
            thread::spawn(move || flight.land(Landed::Found(loaded(7, &flight, None))))
        };
        let woken = Arc::new(Woken(AtomicU32::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut seat = Seat::new(flight, None);
        let first = seat.poll(&Context::from_waker(&waker));
        lands.join().unwrap();
        if first.is_pending() {
            assert_eq!(woken.0.load(SeqCst), 1);
        }
        assert!(matches!(seat.poll(&Context::from_waker(&waker)), Poll::Ready(_)));
    });
}

/// What another process has changed is told at any time.
#[test]
fn what_is_void_or_aged_while_it_is_stored_or_refreshed_is_never_answered_with_as_fresh_again() {
    for take_back in [Entry::void as fn(&Entry<u32>), Entry::age] {
        model(move || {
            let state = state();
            let flight = begin(&state);
            let entry = loaded(7, &flight, None);
            let stores = {
                let (state, entry) = (Arc::clone(&state), entry.clone());
                thread::spawn(move || {
                    let _ = state.store(&1, &flight, &entry);
                    entry.refreshes();
                    entry.rests();
                })
            };
            take_back(&entry);
            assert_eq!(seen(&state), None);
            stores.join().unwrap();
            assert_eq!(seen(&state), None);
        });
    }
}
