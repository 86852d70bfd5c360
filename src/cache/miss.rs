//! A call that found nothing to answer with at once: it begins the load of its key, or waits for the one that is under way.

use std::{
    any::Any,
    fmt,
    hash::Hash,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{runtime::Handle, time::Sleep};
use tower::Service;

use super::{
    entry::{Entry, Failure},
    flight::{Flight, Landed, News, Seat},
    hooks::{Failures, KeepBy, error_of},
    life::Life,
    load::{End, Landing, Slot, load},
    state::{Join, State, uniform},
    stats::add,
    status::{CacheStatus, WhyStale},
    store::Store,
};
use crate::{
    deadline,
    error::{LoadFailure, Reason, Rejected},
    outcome::Classify,
    shared::Shared,
    time::{self, Instant, Now},
};

pub(super) struct Miss<S, Req, K, St, C, H, M>
where
    S: Service<Req>,
{
    pub(super) state: Shared<State<K, S::Response, St>>,
    pub(super) key: K,
    /// Gone once it has begun a load.
    pub(super) call: Option<(S, Req)>,
    /// For the load.
    pub(super) hooks: Option<(C, H)>,
    pub(super) failures: M,
    /// The stale answer in hand.
    pub(super) at_hand: Option<Entry<S::Response>>,
    /// It is answered with the one in hand, and only sees to it that it is loaded anew.
    pub(super) at_once: Option<CacheStatus>,
    pub(super) waiting: Option<Waiting<S::Response, S::Error>>,
    pub(super) is_counted: bool,
    pub(super) has_waited: bool,
}

pub(super) struct Waiting<V, E> {
    seat: Seat<V>,
    /// Of the caller that began the load.
    slot: Option<Arc<Slot<E>>>,
    /// The number of the next load, when it came.
    joined: u64,
    timer: Timer,
}

enum Timer {
    Unset,
    Never,
    Until(Pin<Box<Sleep>>, Ends),
}

#[derive(Clone, Copy)]
enum Ends {
    Patience,
    Deadline,
}

const CANCELLED: Reason = Reason::LoadFailed(LoadFailure::Cancelled);

/// What is to be done.
pub(super) enum Step<V, E, S, Req> {
    Answer(Entry<V>, CacheStatus),
    Error(E),
    Panic(Box<dyn Any + Send>),
    /// Outside a runtime: call the inner service oneself.
    Pass(S, Req),
}

type StepOf<S, Req> = Step<<S as Service<Req>>::Response, <S as Service<Req>>::Error, S, Req>;

impl<S, Req, K, St, C, H, M> Miss<S, Req, K, St, C, H, M>
where
    S: Service<Req, Response: Send + Sync + 'static, Error: Send + 'static, Future: Send + 'static> + Send + 'static,
    Req: Send + 'static,
    K: Hash + Eq + Clone + Send + Sync + 'static,
    St: Store<K, S::Response>,
    C: Classify<S::Response, S::Error> + Send + 'static,
    H: KeepBy<Req, S::Response> + Send + 'static,
    M: Failures<S::Error> + Clone + Send + 'static,
{
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<StepOf<S, Req>> {
        loop {
            let Some(waiting) = &mut self.waiting else {
                match self.begin() {
                    Some(step) => return Poll::Ready(step),
                    None => continue,
                }
            };
            match waiting.seat.poll(cx) {
                Poll::Ready(News::Landed(landed)) => {
                    if let Some(step) = self.landed(&landed) {
                        self.waiting = None;
                        return Poll::Ready(step);
                    }
                    self.waiting = None;
                }
                Poll::Ready(News::Meanwhile(entry)) => {
                    if let Some(step) = self.meanwhile(entry) {
                        return Poll::Ready(step);
                    }
                }
                Poll::Pending => match self.poll_timer(cx) {
                    Poll::Ready(Some(step)) => return Poll::Ready(step),
                    Poll::Ready(None) => {}
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }

    /// Begins the load, or to wait. `None` if there is something to wait for.
    fn begin(&mut self) -> Option<StepOf<S, Req>> {
        if let Some(step) = self.look_again() {
            return Some(step);
        }
        if self.at_once.is_none() && !std::mem::replace(&mut self.is_counted, true) {
            add(&self.state.counts.here().misses, 1);
        }
        if deadline::known() != Instant::NEVER && deadline::known() <= time::now() {
            return Some(self.refuse(Reason::DeadlineExceeded));
        }
        let joined = self.state.generation();
        let (seat, slot) = match self.state.join(&self.key) {
            Join::Wait(flight) => {
                if let Some(step) = self.at_once() {
                    return Some(step);
                }
                let Some(place) = self.state.place_for_a_waiter() else {
                    return Some(self.refuse(Reason::BulkheadFull));
                };
                if !std::mem::replace(&mut self.has_waited, true) {
                    add(&self.state.counts.here().collapsed, 1);
                }
                (Seat::new(flight, Some(place)), None)
            }
            Join::Lead(flight) => match self.lead(&flight) {
                Ok(slot) => {
                    if let Some(step) = self.at_once() {
                        return Some(step);
                    }
                    (Seat::new(flight, None), Some(slot))
                }
                Err(step) => return Some(step),
            },
        };
        self.waiting = Some(Waiting { seat, slot, joined, timer: Timer::Unset });
        None
    }

    /// The call may be polled long after it was made: what it had in hand may have passed its time, or another one's load may have failed.
    fn look_again(&mut self) -> Option<StepOf<S, Req>> {
        let entry = self.at_hand.as_ref()?;
        let now = time::now();
        if let Some(status) = self.at_once {
            self.at_once = match entry.times().life(now, &self.state.settings, uniform) {
                Life::Fresh | Life::Due => Some(status),
                Life::Revalidate => {
                    let stale_for = entry.times().stale_for(now);
                    Some(CacheStatus::Stale { stale_for, why: WhyStale::Revalidating })
                }
                Life::IfError | Life::Gone => None,
            };
        }
        if !entry.is_throttled(now) {
            return None;
        }
        match self.at_once {
            Some(CacheStatus::Fresh { .. }) => self.at_once(),
            _ => self.stale(WhyStale::Failed),
        }
    }

    /// The panic of a key or of a value leaves nobody waiting for what never begins.
    fn lead(&mut self, flight: &Arc<Flight<S::Response>>) -> Result<Arc<Slot<S::Error>>, StepOf<S, Req>> {
        let unled = Unled { state: &self.state, flight };
        // Whoever landed between this call's look and its turn has stored it.
        if let Some(entry) =
            self.state.peek(&self.key).filter(|entry| !self.at_hand.as_ref().is_some_and(|old| old.is(entry)))
        {
            self.state.land(&self.key, flight, Landed::Found(entry.clone()));
            return Err(self.fresh(entry));
        }
        let Some(place) = self.state.place_for_a_load() else {
            let rejected = Rejected::new(self.state.settings.name, Reason::BulkheadFull);
            self.give_up(flight, rejected);
            return Err(self.at_once().unwrap_or_else(|| self.refuse(Reason::BulkheadFull)));
        };
        let (Some((service, request)), Some((classify, keep))) = (self.call.take(), self.hooks.take()) else {
            // It has led before: it does not wait for another one.
            self.give_up(flight, Rejected::new(self.state.settings.name, CANCELLED));
            return Err(self.refuse(CANCELLED));
        };
        let Ok(runtime) = Handle::try_current() else {
            self.give_up(flight, Rejected::new(self.state.settings.name, CANCELLED));
            return Err(self.at_once().unwrap_or(Step::Pass(service, request)));
        };
        let slot = Arc::new(Slot::new());
        let landing =
            Landing::new(self.state.clone(), self.key.clone(), Arc::clone(flight), self.at_hand.clone(), place);
        // From here on that is the task's to see to.
        std::mem::forget(unled);
        let hooks = (classify, keep, self.failures.clone());
        runtime.spawn(load(landing, Arc::clone(&slot), (service, request), hooks));
        Ok(slot)
    }

    /// Nobody loads.
    fn give_up(&self, flight: &Arc<Flight<S::Response>>, rejected: Rejected) {
        let failure = Failure { rejected, error: None };
        self.state.land(&self.key, flight, Landed::Failure { failure, gives_way: true });
    }

    /// What is stale far away is an answer at once, or in hand from now on.
    fn meanwhile(&mut self, entry: Entry<S::Response>) -> Option<StepOf<S, Req>> {
        let waiting = self.waiting.as_mut()?;
        if self.state.is_void_for(&entry, waiting.joined) {
            return None;
        }
        // Who has something in hand waits less long.
        waiting.timer = Timer::Unset;
        let life = entry.times().life(time::now(), &self.state.settings, uniform);
        self.at_hand = Some(entry);
        if life == Life::Revalidate { self.stale(WhyStale::Revalidating) } else { None }
    }

    fn landed(&mut self, landed: &Landed<S::Response>) -> Option<StepOf<S, Req>> {
        let (slot, joined) = self.waiting.as_ref().map(|waiting| (waiting.slot.clone(), waiting.joined))?;
        let in_turn = self.state.settings.in_turn && slot.is_none();
        match landed {
            Landed::Answer { entry, .. } | Landed::Found(entry)
                if slot.is_none() && self.state.is_void_for(entry, joined) =>
            {
                None
            }
            Landed::Answer { entry, gives_way, stored } => {
                if *gives_way {
                    self.take_meanwhile();
                }
                if *gives_way && let Some(step) = self.stale(WhyStale::Failed) {
                    return Some(step);
                }
                if *gives_way && in_turn {
                    return None;
                }
                let status = CacheStatus::Loaded { stored: *stored, collapsed: slot.is_none() };
                Some(Step::Answer(entry.clone(), status))
            }
            Landed::Found(entry) => Some(self.fresh(entry.clone())),
            Landed::Failure { failure, gives_way } => {
                if *gives_way {
                    self.take_meanwhile();
                    if let Some(step) = self.stale(WhyStale::Failed) {
                        return Some(step);
                    }
                }
                if in_turn {
                    return None;
                }
                Some(match slot.and_then(|slot| slot.take()) {
                    Some(End::Error(error)) => Step::Error(error),
                    Some(End::Panic(payload)) => Step::Panic(payload),
                    None => Step::Error(error_of(&self.failures, failure)),
                })
            }
        }
    }

    /// It may have landed before this call heard of what is stale far away.
    fn take_meanwhile(&mut self) {
        let Some(waiting) = &self.waiting else { return };
        let meanwhile = waiting.seat.meanwhile().filter(|entry| !self.state.is_void_for(entry, waiting.joined));
        if meanwhile.is_some() {
            self.at_hand = meanwhile;
        }
    }

    pub(super) fn count(&self, status: CacheStatus) {
        if self.is_counted && matches!(status, CacheStatus::Fresh { .. } | CacheStatus::Stale { .. }) {
            add(&self.state.counts.here().covered, 1);
        }
        self.state.count(status);
    }

    /// `None` within when the wait goes on.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Option<StepOf<S, Req>>> {
        let Some(waiting) = &mut self.waiting else { return Poll::Pending };
        if let Timer::Unset = waiting.timer {
            let mut now = Now::when_asked();
            let deadline = deadline::current(&mut now);
            let patience = match (&self.at_hand, self.state.settings.soft_timeout) {
                (Some(_), Some(limit)) => now.get().saturating_add(limit),
                _ => Instant::NEVER,
            };
            let (until, ends) =
                if patience < deadline { (patience, Ends::Patience) } else { (deadline, Ends::Deadline) };
            waiting.timer = if until == Instant::NEVER {
                Timer::Never
            } else if until <= now.get() {
                return Poll::Ready(self.ends(ends));
            } else {
                time::sleep_until(until, now.get()).map_or(Timer::Never, |sleep| Timer::Until(sleep, ends))
            };
        }
        let ends = match &mut waiting.timer {
            Timer::Until(sleep, ends) => {
                let ends = *ends;
                std::task::ready!(sleep.as_mut().poll(cx));
                ends
            }
            Timer::Unset | Timer::Never => return Poll::Pending,
        };
        Poll::Ready(self.ends(ends))
    }

    fn ends(&mut self, ends: Ends) -> Option<StepOf<S, Req>> {
        if let Some(step) = self.stale(WhyStale::Slow) {
            return Some(step);
        }
        match ends {
            Ends::Deadline => Some(self.refuse(Reason::DeadlineExceeded)),
            Ends::Patience => {
                // It has passed its last moment meanwhile.
                self.at_hand = None;
                if let Some(waiting) = &mut self.waiting {
                    waiting.timer = Timer::Unset;
                }
                None
            }
        }
    }

    /// The answer in hand, where it is one.
    fn stale(&self, why: WhyStale) -> Option<StepOf<S, Req>> {
        let entry = self.at_hand.as_ref()?;
        let now = time::now();
        entry.times().is_servable(now, &self.state.settings).then(|| {
            let status = CacheStatus::Stale { stale_for: entry.times().stale_for(now), why };
            Step::Answer(entry.clone(), status)
        })
    }

    fn at_once(&self) -> Option<StepOf<S, Req>> {
        let (entry, status) = (self.at_hand.clone()?, self.at_once?);
        Some(Step::Answer(entry, status))
    }

    fn fresh(&self, entry: Entry<S::Response>) -> StepOf<S, Req> {
        let ttl = entry.times().fresh_until.saturating_since(time::now());
        Step::Answer(entry, CacheStatus::Fresh { ttl })
    }

    /// The answer in hand, or else the refusal.
    fn refuse(&self, reason: Reason) -> StepOf<S, Req> {
        let why = if matches!(reason, Reason::DeadlineExceeded) { WhyStale::Slow } else { WhyStale::Failed };
        if let Some(step) = self.at_once().or_else(|| self.stale(why)) {
            return step;
        }
        Step::Error(self.failures.answer(self.state.refuse(reason), None))
    }
}

/// A load between its announcement and its task.
struct Unled<'a, K: Hash + Eq + Clone, V, St: Store<K, V>> {
    state: &'a State<K, V, St>,
    flight: &'a Arc<Flight<V>>,
}

impl<K: Hash + Eq + Clone, V, St: Store<K, V>> Drop for Unled<'_, K, V, St> {
    fn drop(&mut self) {
        if !self.flight.has_landed() {
            self.state.abandon(self.flight);
        }
    }
}

impl<S: Service<Req>, Req, K, St, C, H, M> fmt::Debug for Miss<S, Req, K, St, C, H, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Miss").finish_non_exhaustive()
    }
}
