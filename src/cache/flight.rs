//! One load, and those who wait for it.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use super::entry::{Entry, Failure};
use crate::{event::guarded, sync::Mutex};

/// The load of one key.
pub(super) struct Flight<V> {
    /// Taken when it began.
    pub(super) generation: u64,
    inside: Mutex<Inside<V>>,
}

struct Inside<V> {
    landed: Option<Arc<Landed<V>>>,
    /// A stale answer that was found far away: those who may have it at once need not wait.
    meanwhile: Option<Entry<V>>,
    wakers: BTreeMap<u64, Waker>,
    next: u64,
}

/// How a load ended.
pub(super) enum Landed<V> {
    /// With an answer.
    Answer {
        entry: Entry<V>,
        /// Whether it is a failure that a stale answer stands in for.
        gives_way: bool,
        stored: bool,
    },
    /// It was there already: another load had just stored it, or it was found far away.
    Found(Entry<V>),
    /// With an error.
    Failure { failure: Failure, gives_way: bool },
}

/// What one who waits hears.
pub(super) enum News<V> {
    Landed(Arc<Landed<V>>),
    Meanwhile(Entry<V>),
}

/// One who waits for a load, once it has been polled.
pub(super) struct Seat<V> {
    flight: Arc<Flight<V>>,
    number: Option<u64>,
    has_heard_of_meanwhile: bool,
    /// Counted among the waiters, but for who began the load.
    _place: Option<Place>,
}

/// A place among so many.
pub(super) struct Place(Arc<AtomicUsize>);

impl<V> Flight<V> {
    pub(super) fn new(generation: u64) -> Self {
        let inside = Inside { landed: None, meanwhile: None, wakers: BTreeMap::new(), next: 0 };
        Self { generation, inside: Mutex::new(inside) }
    }

    /// Tells everybody, each once. The first landing counts.
    pub(super) fn land(&self, landed: Landed<V>) {
        let landed = Arc::new(landed);
        let mut inside = self.inside.lock();
        let is_first = inside.landed.is_none();
        if is_first {
            inside.landed = Some(Arc::clone(&landed));
        }
        let wakers = std::mem::take(&mut inside.wakers);
        drop(inside);
        wake(wakers);
    }

    pub(super) fn has_landed(&self) -> bool {
        self.inside.lock().landed.is_some()
    }

    /// The stale answer that was offered.
    pub(super) fn meanwhile(&self) -> Option<Entry<V>> {
        self.inside.lock().meanwhile.clone()
    }

    /// Offers a stale answer to those who may have it.
    pub(super) fn offer(&self, entry: Entry<V>) {
        let mut inside = self.inside.lock();
        let before = inside.meanwhile.replace(entry);
        let wakers = std::mem::take(&mut inside.wakers);
        drop(inside);
        drop(before);
        wake(wakers);
    }
}

/// The panic of one's executor is nothing to the others.
fn wake(wakers: BTreeMap<u64, Waker>) {
    wakers.into_values().for_each(|waker| guarded(|| waker.wake()));
}

impl<V> Seat<V> {
    pub(super) const fn new(flight: Arc<Flight<V>>, place: Option<Place>) -> Self {
        Self { flight, number: None, has_heard_of_meanwhile: false, _place: place }
    }

    pub(super) fn meanwhile(&self) -> Option<Entry<V>> {
        self.flight.meanwhile()
    }

    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<News<V>> {
        // User code runs under no lock, and a waker is somebody's.
        let waker = cx.waker().clone();
        let mut inside = self.flight.inside.lock();
        if let Some(landed) = &inside.landed {
            let landed = Arc::clone(landed);
            drop(inside);
            return Poll::Ready(News::Landed(landed));
        }
        if !self.has_heard_of_meanwhile
            && let Some(entry) = &inside.meanwhile
        {
            let entry = entry.clone();
            drop(inside);
            self.has_heard_of_meanwhile = true;
            return Poll::Ready(News::Meanwhile(entry));
        }
        let number = *self.number.get_or_insert_with(|| {
            inside.next += 1;
            inside.next
        });
        let before = inside.wakers.insert(number, waker);
        drop(inside);
        drop(before);
        Poll::Pending
    }
}

impl<V> Drop for Seat<V> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = self.flight.inside.lock().wakers.remove(&number);
            drop(waker);
        }
    }
}

impl Place {
    /// One of so many places, if there is one left.
    pub(super) fn take(taken: &Arc<AtomicUsize>, of: usize) -> Option<Self> {
        let more = |taken: usize| (taken < of).then_some(taken + 1);
        taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).ok()?;
        Some(Self(Arc::clone(taken)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<V> fmt::Debug for Flight<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// A future whose panic is an answer.
pub(super) struct Caught<F>(pub(super) Pin<Box<F>>);

impl<F: Future> Future for Caught<F> {
    type Output = std::thread::Result<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let poll = std::panic::AssertUnwindSafe(|| self.0.as_mut().poll(cx));
        match std::panic::catch_unwind(poll) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(payload) => Poll::Ready(Err(payload)),
        }
    }
}
