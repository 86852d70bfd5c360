//! Every interleaving of counting and looking: `RUSTFLAGS="--cfg buttress_loom" cargo test --lib loom`.
//!
//! The models say which index a thread has: loom runs all of them on one.

use loom::{
    model,
    sync::{Arc, Mutex},
    thread,
};

use super::{
    seconds::Seconds,
    stripe::{Stripes, Total},
};
use crate::{event::Ending, time::Instant};

const SECOND: u64 = 1_000_000_000;

fn at(second: u64) -> Instant {
    Instant::from_nanos(second * SECOND)
}

fn counts(stripes: &Stripes) -> (u64, u64) {
    let mut total = Total::new();
    stripes.add_to(&mut total);
    (total.begun, total.ended.iter().sum())
}

/// rapina_516_in_flight_gauge_leaks: here it could also fall below nothing.
#[test]
fn a_call_that_ends_on_another_thread_has_begun_for_whoever_looks() {
    model(|| {
        let stripes = Arc::new(Stripes::new());
        // The future, on its way from one thread to the other.
        let moved = Arc::new(Mutex::new(0));
        let begins = {
            let (stripes, moved) = (Arc::clone(&stripes), Arc::clone(&moved));
            thread::spawn(move || {
                stripes.begin_as(Some(0), at(1));
                *moved.lock().unwrap() += 1;
            })
        };
        let ends = {
            let (stripes, moved) = (Arc::clone(&stripes), Arc::clone(&moved));
            thread::spawn(move || {
                if *moved.lock().unwrap() == 1 {
                    stripes.end_as(Some(1), Ending::OK, None);
                }
            })
        };
        let (begun, ended) = counts(&stripes);
        assert!(begun >= ended, "{ended} of {begun} have ended");
        begins.join().unwrap();
        ends.join().unwrap();
        assert_eq!(counts(&stripes).0, 1);
    });
}

#[test]
fn threads_without_an_index_lose_no_call() {
    model(|| {
        let stripes = Arc::new(Stripes::new());
        let call = || {
            let stripes = Arc::clone(&stripes);
            thread::spawn(move || {
                stripes.begin_as(None, at(1));
                stripes.end_as(None, Ending::OK, None);
            })
        };
        call().join().unwrap();
        let both = [call(), call()];
        both.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(counts(&stripes), (3, 3));
    });
}

/// In a ring of two, second 8 is written where second 6 was.
#[test]
fn a_mark_that_is_overwritten_is_read_whole_or_not_at_all() {
    model(|| {
        let seconds = Arc::new(Seconds::<2>::new());
        seconds.see(at(5), 1);
        let owner = {
            let seconds = Arc::clone(&seconds);
            thread::spawn(move || seconds.see(at(7), 3))
        };
        for mark in seconds.read() {
            assert!([(6, 1), (8, 3)].contains(&mark), "{mark:?}");
        }
        owner.join().unwrap();
        assert_eq!(seconds.read().collect::<Vec<_>>(), [(8, 3)]);
    });
}
