//! Callers that wait for the readiness of the inner service and must hear of a trip.

use std::{mem, task::Waker};

use crate::{event::guarded, sync::Mutex};

/// A waiting room: each caller has a place for its waker. Wakers are the executor's code, so they are cloned, woken and dropped unlocked.
#[derive(Default)]
pub(super) struct Parked(Mutex<Places>);

#[derive(Default)]
struct Places {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Parked {
    /// Leaves a waker at a place, a new one if the caller has none yet.
    pub(super) fn enter(&self, place: Option<usize>, waker: &Waker) -> usize {
        let waker = Some(waker.clone());
        let mut places = self.0.lock();
        let index = place.or_else(|| places.free.pop()).unwrap_or(places.wakers.len());
        let old = if index == places.wakers.len() {
            places.wakers.push(waker);
            None
        } else {
            mem::replace(&mut places.wakers[index], waker)
        };
        drop(places);
        drop(old);
        index
    }

    /// Gives a place back. The last one to leave takes the furniture along: a crowd must not cost those who come after it.
    pub(super) fn leave(&self, place: usize) {
        let mut places = self.0.lock();
        let waker = places.wakers[place].take();
        places.free.push(place);
        let empty = (places.free.len() == places.wakers.len()).then(|| mem::take(&mut *places));
        drop(places);
        drop((waker, empty));
    }

    /// Wakes all of them. They keep their places until they leave.
    pub(super) fn wake_all(&self) {
        let wakers: Vec<_> = self.0.lock().wakers.iter_mut().filter_map(Option::take).collect();
        // One that panics must not keep the others asleep.
        wakers.into_iter().for_each(|waker| guarded(|| waker.wake()));
    }
}
