//! The line in which calls wait: first come, first served, with one timer for its head.
//!
//! When the timer fires, whoever may go is let go, by whoever hears it: no task of the waiters has to run for that, so one that is polled once and
//! then never again holds up nobody. A waiter is woken once, when it may go or has to give up.
//!
//! Lock order: the line, then the book of the limiter. Wakers run, and timers are set and dropped, under no lock.

use std::{
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, ThreadId},
};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::unconstrained,
    time::Sleep,
};

use crate::{
    event::guarded,
    sync::Mutex,
    time::{self, Instant},
};

pub(super) struct Line {
    most: usize,
    /// How many wait, to be asked without the lock.
    waiting: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By ascending number.
    waiters: VecDeque<Waiter>,
    /// What they cost together.
    units: u64,
    next: u64,
    /// What became of those who have left and have not been told yet.
    settled: Vec<(u64, Settled)>,
    timer: Option<Timer>,
    /// Counts the turns: a timer that was made for an earlier one is not wanted any more.
    turn: u64,
    /// Nobody gives up before.
    soonest: Option<Instant>,
}

struct Timer {
    /// To keep it going.
    _sleep: Pin<Box<Sleep>>,
    /// That of its runtime, if that has but one: it may be driven no more when this thread has what it waited for.
    thread: Option<ThreadId>,
}

struct Waiter {
    number: u64,
    cost: u64,
    gives_up: Instant,
    waker: Waker,
    /// Where it was polled last.
    thread: ThreadId,
}

/// What became of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It has what it waited for, since then.
    Granted(Instant),
    /// It would have to wait for so long, or for ever.
    Refused(u64),
}

/// What the line asks of a limiter.
pub(super) trait Gate: Send + Sync + 'static {
    fn line(&self) -> &Line;
    /// Somebody has left the line, who joined it then.
    fn waited(&self, since: Instant);
    /// Takes so many units, or says how long to wait, or [`u64::MAX`] when there are never so many at once.
    fn take(&self, now: Instant, cost: u64) -> Result<(), u64>;
    /// Whether there are ever so many units at once.
    fn fits(&self, cost: u64) -> bool;
    /// Whether what would be refused passes, so that nobody need wait.
    fn lets_all_pass(&self) -> bool;
    /// How long so many units would have to wait.
    fn ahead(&self, now: Instant, units: u64) -> u64;
    /// Takes back what was granted and not used.
    fn give_back(&self, now: Instant, cost: u64, taken_at: Instant);
}

/// How a call that comes is received.
pub(super) enum Joined {
    Granted,
    /// It stands in line under this number.
    Waits(u64),
    Refused(u64),
}

/// When a waiter gives up.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    pub(super) max_wait: Instant,
    pub(super) deadline: Instant,
}

impl Patience {
    pub(super) const ENDLESS: Self = Self { max_wait: Instant::NEVER, deadline: Instant::NEVER };

    fn gives_up(self) -> Instant {
        self.max_wait.min(self.deadline)
    }

    /// When to come back, if it would have to wait for so long. A place in line comes earlier than the turn.
    fn come_back(self, now: Instant, wait: u64) -> u64 {
        let go = now.as_nanos().saturating_add(wait);
        if go > self.deadline.as_nanos() || wait == u64::MAX {
            return wait;
        }
        go.saturating_sub(self.max_wait.as_nanos()).max(1)
    }
}

impl Line {
    pub(super) fn new(most: usize) -> Self {
        Self { most, waiting: AtomicUsize::new(0), state: Mutex::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// Takes what a call costs, or a place in line, unless the wait would be too long.
pub(super) fn join<G: Gate>(gate: &Arc<G>, now: Instant, cost: u64, patience: Patience, waker: &Waker) -> Joined {
    let line = gate.line();
    let mut state = line.state.lock();
    let wait = if state.waiters.is_empty() {
        match gate.take(now, cost) {
            Ok(()) => return Joined::Granted,
            Err(wait) => wait,
        }
    } else if gate.fits(cost) {
        gate.ahead(now, state.units.saturating_add(cost))
    } else {
        u64::MAX
    };
    let gives_up = patience.gives_up();
    if wait == u64::MAX || now.as_nanos().saturating_add(wait) > gives_up.as_nanos() {
        return Joined::Refused(patience.come_back(now, wait));
    }
    let mut left = Vec::new();
    if state.waiters.len() >= line.most {
        // Who has given up leaves first.
        state.drop_expired(gate.as_ref(), now, &mut left);
    }
    let joined = if state.waiters.len() >= line.most {
        let head = state.waiters.front().map_or(0, |head| head.cost);
        Joined::Refused(gate.ahead(now, head).max(1))
    } else {
        let number = state.next;
        state.next += 1;
        state.push(Waiter { number, cost, gives_up, waker: waker.clone(), thread: thread::current().id() });
        Joined::Waits(number)
    };
    let is_armed = state.timer.is_some();
    line.waiting.store(state.waiters.len(), Ordering::Relaxed);
    drop(state);
    wake(left);
    if !is_armed && matches!(joined, Joined::Waits(_)) {
        turn_for(gate, Cause::Head);
    }
    joined
}

/// What has become of a waiter, or its place in line.
pub(super) fn poll<G: Gate>(gate: &Arc<G>, number: u64, cx: &mut Context<'_>) -> Poll<Settled> {
    let mut state = gate.line().state.lock();
    let Some(place) = state.place_of(number) else {
        let settled = state.take_settled(number);
        return Poll::Ready(settled.unwrap_or_else(|| unreachable!("a waiter waits or is settled")));
    };
    let here = thread::current().id();
    let is_kept_here = |timer: &Timer| !timer.is_of_another(here) || Handle::try_current().is_err();
    let is_alone = place == 0 && !state.timer.as_ref().is_some_and(is_kept_here);
    let waiter = &mut state.waiters[place];
    waiter.thread = here;
    let old = if waiter.waker.will_wake(cx.waker()) {
        None
    } else {
        Some(std::mem::replace(&mut waiter.waker, cx.waker().clone()))
    };
    drop(state);
    drop(old);
    // The head keeps the time where nobody else could, or may not do so for long.
    if is_alone {
        turn_for(gate, Cause::Head);
        let mut state = gate.line().state.lock();
        if state.place_of(number).is_none()
            && let Some(settled) = state.take_settled(number)
        {
            return Poll::Ready(settled);
        }
    }
    Poll::Pending
}

/// A waiter that has not been told goes away. Answers since when it has had what it waited for, if it has.
pub(super) fn leave<G: Gate>(gate: &Arc<G>, number: u64) -> Option<Instant> {
    let line = gate.line();
    let mut state = line.state.lock();
    let Some(place) = state.place_of(number) else {
        return match state.take_settled(number) {
            Some(Settled::Granted(at)) => Some(at),
            _ => None,
        };
    };
    let gone = state.remove(place);
    line.waiting.store(state.waiters.len(), Ordering::Relaxed);
    drop(state);
    drop(gone);
    if place == 0 {
        turn(gate);
    }
    None
}

/// Lets go whoever may, and sets the timer for the next.
pub(super) fn turn<G: Gate>(gate: &Arc<G>) {
    turn_for(gate, Cause::Any);
}

/// The same where what they wait for has changed: all are asked whether it still comes in time.
pub(super) fn review<G: Gate>(gate: &Arc<G>) {
    turn_for(gate, Cause::Change);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Any,
    Change,
    /// The head asks, so it need not be woken.
    Head,
}

fn turn_for<G: Gate>(gate: &Arc<G>, cause: Cause) {
    let line = gate.line();
    loop {
        let mut wakers = Vec::new();
        let mut state = line.state.lock();
        let now = time::now();
        state.turn += 1;
        let turn = state.turn;
        let wait = state.admit(gate.as_ref(), now, &mut wakers);
        if cause == Cause::Change {
            state.review(gate.as_ref(), now, &mut wakers);
        }
        let old = state.timer.take();
        let soonest = state.soonest.map_or(Instant::NEVER, |at| Instant::from_nanos(at.as_nanos().saturating_add(1)));
        let next = wait.map(|wait| Instant::from_nanos(now.as_nanos().saturating_add(wait)).min(soonest));
        line.waiting.store(state.waiters.len(), Ordering::Relaxed);
        drop(state);
        drop(old);
        wake(wakers);
        let Some(at) = next else { return };
        match arm(gate, at, now) {
            Armed::Fired => continue,
            Armed::Set(timer) => {
                let mut state = line.state.lock();
                // It takes the time over.
                let elsewhere = state.waiters.front().filter(|head| timer.is_of_another(head.thread));
                let head = elsewhere.map(|head| head.waker.clone());
                let unwanted = if state.turn == turn { state.timer.replace(timer) } else { Some(timer) };
                drop(state);
                drop(unwanted);
                wake(head);
            }
            Armed::Not if cause == Cause::Head => (),
            // Outside a runtime: the head sets one when it is polled, in its own.
            Armed::Not => {
                let state = line.state.lock();
                let head = state.waiters.front().map(|head| head.waker.clone());
                drop(state);
                wake(head);
            }
        }
        return;
    }
}

enum Armed {
    Set(Timer),
    Fired,
    Not,
}

fn arm<G: Gate>(gate: &Arc<G>, at: Instant, now: Instant) -> Armed {
    let Some(mut sleep) = time::sleep_until(at, now) else { return Armed::Not };
    let waker = Waker::from(Arc::new(Alarm(Arc::clone(gate))));
    // tokio panics where its runtime is about to end. A task that has used up its budget would be told to come back, by a call of the waker.
    let polled = catch_unwind(AssertUnwindSafe(|| {
        Pin::new(&mut unconstrained(sleep.as_mut())).poll(&mut Context::from_waker(&waker)).is_ready()
    }));
    match polled {
        Ok(true) => Armed::Fired,
        Ok(false) => {
            let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
            let thread = (flavor.ok() == Some(RuntimeFlavor::CurrentThread)).then(|| thread::current().id());
            Armed::Set(Timer { _sleep: sleep, thread })
        }
        Err(payload) => {
            std::mem::forget(payload);
            Armed::Not
        }
    }
}

/// What the timer wakes. It keeps the limiter only as long as somebody waits.
struct Alarm<G>(Arc<G>);

impl<G: Gate> Wake for Alarm<G> {
    fn wake(self: Arc<Self>) {
        turn(&self.0);
    }
}

fn wake(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        guarded(|| waker.wake());
    }
}

impl Timer {
    fn is_of_another(&self, thread: ThreadId) -> bool {
        self.thread.is_some_and(|keeper| keeper != thread)
    }
}

impl State {
    fn place_of(&self, number: u64) -> Option<usize> {
        self.waiters.binary_search_by_key(&number, |waiter| waiter.number).ok()
    }

    fn take_settled(&mut self, number: u64) -> Option<Settled> {
        let index = self.settled.iter().position(|(settled, _)| *settled == number)?;
        Some(self.settled.swap_remove(index).1)
    }

    fn remove(&mut self, place: usize) -> Option<Waiter> {
        let gone = self.waiters.remove(place)?;
        self.units = self.units.saturating_sub(gone.cost);
        if self.waiters.is_empty() {
            (self.units, self.soonest) = (0, None);
        }
        Some(gone)
    }

    fn settle(&mut self, place: usize, settled: Settled, wakers: &mut Vec<Waker>) {
        if let Some(gone) = self.remove(place) {
            self.settled.push((gone.number, settled));
            wakers.push(gone.waker);
        }
    }

    /// Answers how long the head has to wait, if there is one.
    fn admit<G: Gate>(&mut self, gate: &G, now: Instant, wakers: &mut Vec<Waker>) -> Option<u64> {
        if self.soonest.is_some_and(|soonest| soonest < now) {
            self.drop_expired(gate, now, wakers);
        }
        while let Some(head) = self.waiters.front() {
            let settled = match gate.take(now, head.cost) {
                Ok(()) => Settled::Granted(now),
                Err(wait) if wait == u64::MAX || now.as_nanos().saturating_add(wait) > head.gives_up.as_nanos() => {
                    Settled::Refused(wait)
                }
                Err(wait) => return Some(wait),
            };
            self.settle(0, settled, wakers);
        }
        None
    }

    fn drop_expired<G: Gate>(&mut self, gate: &G, now: Instant, wakers: &mut Vec<Waker>) {
        self.drop_where(wakers, |waiter| (waiter.gives_up < now).then(|| gate.ahead(now, waiter.cost)));
    }

    fn review<G: Gate>(&mut self, gate: &G, now: Instant, wakers: &mut Vec<Waker>) {
        let (mut units, lets_all_pass) = (0_u64, gate.lets_all_pass());
        self.drop_where(wakers, |waiter| {
            if !gate.fits(waiter.cost) {
                return Some(u64::MAX);
            }
            let wait = gate.ahead(now, units.saturating_add(waiter.cost));
            let too_late = lets_all_pass || now.as_nanos().saturating_add(wait) > waiter.gives_up.as_nanos();
            if !too_late {
                units = units.saturating_add(waiter.cost);
            }
            too_late.then_some(wait)
        });
    }

    /// Refuses those for whom `wait` has an answer.
    fn drop_where(&mut self, wakers: &mut Vec<Waker>, mut wait: impl FnMut(&Waiter) -> Option<u64>) {
        (self.units, self.soonest) = (0, None);
        for waiter in std::mem::take(&mut self.waiters) {
            match wait(&waiter) {
                Some(wait) => {
                    self.settled.push((waiter.number, Settled::Refused(wait)));
                    wakers.push(waiter.waker);
                }
                None => self.push(waiter),
            }
        }
    }

    fn push(&mut self, waiter: Waiter) {
        self.units = self.units.saturating_add(waiter.cost);
        if waiter.gives_up != Instant::NEVER {
            self.soonest = Some(self.soonest.map_or(waiter.gives_up, |soonest| soonest.min(waiter.gives_up)));
        }
        self.waiters.push_back(waiter);
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("waiting", &self.len()).field("most", &self.most).finish_non_exhaustive()
    }
}
