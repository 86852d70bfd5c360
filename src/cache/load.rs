//! The load of an entry, in a task of its own: a caller that goes away harms nobody.

use std::{
    any::{Any, TypeId},
    future::poll_fn,
    hash::Hash,
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use tower::{Service, util::Oneshot};

use super::{
    entry::{Content, Entry, Failure, Seen},
    flight::{Caught, Flight, Landed, Place},
    hooks::{Failures, KeepBy, KeepOf, Shareable, failure},
    keep::{Keep, Span},
    life::{self, Life, Times},
    state::{State, uniform},
    stats::add,
    store::{Done, Fetched, Store},
};
use crate::{
    error::{LoadFailure, Reason, Rejected},
    event::{EventKind, guarded},
    outcome::{Classify, Outcome},
    shared::Shared,
    sync::Mutex,
    time::{self, Instant},
};

/// What only the caller gets that began the load.
pub(super) struct Slot<E>(Mutex<Option<End<E>>>);

pub(super) enum End<E> {
    Error(E),
    Panic(Box<dyn Any + Send>),
}

/// The end of a load, whatever happens to its task.
pub(super) struct Landing<K, V, St>
where
    K: Hash + Eq + Clone,
    St: Store<K, V>,
{
    state: Shared<State<K, V, St>>,
    key: K,
    flight: Arc<Flight<V>>,
    /// The stale answer in hand.
    at_hand: Option<Entry<V>>,
    place: Option<Place>,
    has_landed: bool,
    has_failed: bool,
}

/// What the far half said, and outlasts the work.
#[derive(Default)]
struct Far {
    seen: Option<Seen>,
    hold: Option<Box<dyn Any + Send>>,
}

/// How the inner service answered, before anything is made of it.
enum Work<V, E> {
    /// Far away there was a fresh one.
    Found(Entry<V>),
    Answer {
        response: V,
        outcome: Outcome,
        keep: Keep,
        began: Instant,
    },
    Error {
        error: E,
        outcome: Outcome,
        refusal: Option<Rejected>,
        shared: Option<Shareable>,
        began: Instant,
    },
}

impl<E> Slot<E> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(super) fn take(&self) -> Option<End<E>> {
        self.0.lock().take()
    }

    fn fill(&self, end: End<E>) {
        let before = self.0.lock().replace(end);
        drop(before);
    }
}

/// Loads, and lands.
pub(super) async fn load<S, Req, K, St, C, H, M>(
    mut landing: Landing<K, S::Response, St>,
    slot: Arc<Slot<S::Error>>,
    (service, request): (S, Req),
    (classify, keep, failures): (C, H, M),
) where
    S: Service<Req>,
    K: Hash + Eq + Clone,
    St: Store<K, S::Response>,
    C: Classify<S::Response, S::Error>,
    H: KeepBy<Req, S::Response>,
    M: Failures<S::Error>,
{
    let state = landing.state.clone();
    let fetch = state.store.fetch(&landing.key);
    let far = Arc::new(Mutex::new(Far::default()));
    let (flight, settings, fetched) = (Arc::clone(&landing.flight), state.settings, Arc::clone(&far));
    let is_refresh = landing.at_hand.is_some();
    let work = async move {
        let Fetched { entry, seen, hold } = fetch.await;
        if let Some(entry) = entry {
            let entry = entry.of_generation(flight.generation);
            match entry.times().life(time::now(), &settings, uniform) {
                // Early is early for who has it in hand too: somebody has to begin.
                Life::Due if is_refresh => {}
                Life::Fresh | Life::Due => {
                    fetched.lock().hold = hold;
                    return Work::Found(entry);
                }
                Life::Revalidate | Life::IfError => flight.offer(entry),
                Life::Gone => {}
            }
        }
        *fetched.lock() = Far { seen, hold };
        let began = time::now();
        let of = keep.of(&request);
        let result = Oneshot::new(service, request).await;
        let outcome = classify.classify(result.as_ref());
        match result {
            Ok(response) => {
                let stores = matches!(outcome, Outcome::Success | Outcome::Permanent);
                let keep = if stores { of.keep(&response) } else { Keep::never() };
                Work::Answer { response, outcome, keep, began }
            }
            Err(error) => {
                let (refusal, shared) = (failures.refusal(&error), failures.share(&error));
                Work::Error { error, outcome, refusal, shared, began }
            }
        }
    };
    let mut work = Caught(Box::pin(work));
    let mut timer = time::sleep(settings.hard_timeout);
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut work).poll(cx) {
            return Poll::Ready(Some(ended));
        }
        match &mut timer {
            Some(timer) => timer.as_mut().poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await;
    // The inner call is over before anybody hears of it.
    guarded(|| drop(work));
    drop(timer);
    let Far { seen, hold } = std::mem::take(&mut *far.lock());
    let writing = match ended {
        Some(Ok(Work::Found(entry))) => landing.found(entry),
        Some(Ok(Work::Answer { response, outcome, keep, began })) => {
            landing.answered(response, outcome, keep, (began, seen))
        }
        Some(Ok(Work::Error { error, outcome, refusal, shared, began })) => {
            let rejected = refusal.unwrap_or_else(|| landing.failed(outcome));
            slot.fill(End::Error(error));
            landing.refused(failure(rejected, shared), outcome, began)
        }
        Some(Err(payload)) => {
            slot.fill(End::Panic(payload));
            let rejected = landing.rejected(Reason::LoadFailed(LoadFailure::Panicked));
            landing.refused(failure(rejected, None), Outcome::TRANSIENT, time::now())
        }
        None => {
            let rejected = landing.rejected(Reason::TimedOut);
            landing.refused(failure(rejected, None), Outcome::TRANSIENT, time::now())
        }
    };
    drop(slot);
    if let Some(writing) = writing {
        // The far half reports its own errors.
        let _ = writing.await;
    }
    drop(hold);
}

impl<K, V, St> Landing<K, V, St>
where
    K: Hash + Eq + Clone,
    St: Store<K, V>,
{
    pub(super) fn new(
        state: Shared<State<K, V, St>>,
        key: K,
        flight: Arc<Flight<V>>,
        at_hand: Option<Entry<V>>,
        place: Place,
    ) -> Self {
        if let Some(entry) = &at_hand {
            entry.refreshes();
        }
        add(&state.counts.here().loads, 1);
        Self { state, key, flight, at_hand, place: Some(place), has_landed: false, has_failed: false }
    }

    fn rejected(&self, reason: Reason) -> Rejected {
        Rejected::new(self.state.settings.name, reason)
    }

    /// The refusal of those who waited.
    fn failed(&self, outcome: Outcome) -> Rejected {
        let reason = match outcome {
            Outcome::Rejected { reason, .. } => reason,
            Outcome::Transient { .. } => Reason::LoadFailed(LoadFailure::Transient),
            Outcome::Permanent => Reason::LoadFailed(LoadFailure::Permanent),
            Outcome::Success | Outcome::Ignored => Reason::LoadFailed(LoadFailure::Ignored),
        };
        let rejected = self.rejected(reason);
        outcome.retry_after().map_or(rejected, |wait| rejected.with_retry_after(wait))
    }

    fn found(&mut self, entry: Entry<V>) -> Option<St::Writing> {
        self.settle();
        // It is there already.
        drop(self.state.store(&self.key, &self.flight, &entry));
        self.flight.land(Landed::Found(entry));
        None
    }

    fn answered(
        &mut self,
        response: V,
        outcome: Outcome,
        keep: Keep,
        (began, seen): (Instant, Option<Seen>),
    ) -> Option<St::Writing> {
        let gives_way = life::gives_way(outcome);
        let ttl = life::ttl(outcome, keep.span, &self.state.settings, uniform());
        let max_stale = if outcome == Outcome::Success && keep.span != Span::Negative {
            self.state.max_stale()
        } else {
            std::time::Duration::ZERO
        };
        let now = time::now();
        let times = Times::new(began, now, ttl.unwrap_or_default(), max_stale);
        let entry = Entry::provisional(Content::Value(response), times, self.flight.generation, keep.tags).with_far(
            seen,
            self.state.store.near_ttl(),
            now,
        );
        if gives_way {
            self.pause();
            self.report(self.failed(outcome));
        }
        self.settle();
        let put = match ttl {
            Some(_) => self.state.store(&self.key, &self.flight, &entry),
            None => {
                self.keep_meanwhile(gives_way);
                None
            }
        };
        // What is too large to be near may be far, where that is.
        let is_near_only = TypeId::of::<St::Writing>() == TypeId::of::<Done>();
        let stored = put.as_ref().is_some_and(|put| !(put.too_large && is_near_only));
        self.state.land(&self.key, &self.flight, Landed::Answer { entry, gives_way, stored });
        put.map(|put| put.writing)
    }

    fn refused(&mut self, failure: Failure, outcome: Outcome, began: Instant) -> Option<St::Writing> {
        let gives_way = life::gives_way(outcome);
        if gives_way {
            self.pause();
        }
        self.report(failure.rejected);
        self.settle();
        self.keep_meanwhile(gives_way);
        if let Some(ttl) = life::ttl(outcome, Span::OfSettings, &self.state.settings, uniform()) {
            let times = Times::new(began, time::now(), ttl, std::time::Duration::ZERO);
            let content = Content::Failure(Box::new(failure.clone()));
            let entry = Entry::provisional(content, times, self.flight.generation, []);
            // Failures stay in this process.
            drop(self.state.store(&self.key, &self.flight, &entry));
        }
        self.state.land(&self.key, &self.flight, Landed::Failure { failure, gives_way });
        None
    }

    /// What is stale far away is kept near while it stands in for a failure, or the next call would ask again.
    fn keep_meanwhile(&self, gives_way: bool) {
        if let Some(entry) = self.flight.meanwhile().filter(|_| gives_way) {
            // It is far away already.
            drop(self.state.store(&self.key, &self.flight, &entry));
        }
    }

    /// Who has a stale answer asks no more for a while.
    fn pause(&self) {
        let until = time::now().saturating_add(self.state.settings.throttle);
        for entry in self.at_hand.iter().chain(&self.flight.meanwhile()) {
            entry.throttle(until);
        }
    }

    fn report(&mut self, rejected: Rejected) {
        self.has_failed = true;
        add(&self.state.counts.here().errors, 1);
        self.state.events.emit(|| EventKind::LoadFailed { rejected: &rejected });
    }

    /// Before anybody hears of the end: who hears of it may begin the next load.
    fn settle(&mut self) {
        self.has_landed = true;
        self.place = None;
        if let Some(entry) = &self.at_hand {
            entry.rests();
        }
    }
}

impl<K, V, St> Drop for Landing<K, V, St>
where
    K: Hash + Eq + Clone,
    St: Store<K, V>,
{
    /// Cancelled, or a weigher panicked, or the code of a key or a value.
    fn drop(&mut self) {
        let is_lost = !self.flight.has_landed();
        let rejected = self.rejected(Reason::LoadFailed(LoadFailure::Cancelled));
        if is_lost && !self.has_failed {
            self.report(rejected);
        }
        if !self.has_landed {
            self.settle();
        }
        self.state.tell_of_calls();
        if is_lost {
            let landed = Landed::Failure { failure: failure(rejected, None), gives_way: true };
            guarded(|| self.state.land(&self.key, &self.flight, landed));
        }
        if !self.flight.has_landed() {
            self.state.abandon(&self.flight);
        }
    }
}
