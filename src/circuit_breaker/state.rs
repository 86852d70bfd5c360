//! What the clones of a circuit share, and the permit that a call holds while it counts.
//!
//! The machine is behind a lock. Beside it stands a summary in atomics, written under the lock after every step, so that the calls that
//! change nothing never take it:
//!
//! * admission to a closed circuit reads `word`;
//! * refusal by an open one reads `word`, then `until` and `trip`, and the clock;
//! * a good call that leaves a healthy circuit as it was reads `word` a second time.
//!
//! Memory ordering: `until` and `trip` are stored before the `word` (release) that makes them meaningful, and loaded after it (acquire). They
//! are overwritten only by a later opening, so whoever reads them beside an older `word` refuses by the newer opening, which is as true.
//!
//! Lock order: `machine` and `parked` are never held together. Events, wakers and the user's functions run under neither.

use std::{
    fmt,
    panic::catch_unwind,
    sync::{Arc, OnceLock},
    task::Waker,
    time::Duration,
};

use tokio::sync::watch;

use super::{
    machine::Machine,
    parked::Parked,
    policy::{CircuitBreakerSettings, Limits, Opening},
    snapshot::{CircuitBreakerSnapshot, CircuitMode},
    step::{Admitted, Ending, Transition, Transitions},
    word::{self, CLOSED, OPEN, TIMED},
};
use crate::{
    error::{ConfigError, Reason, Rejected, Trip},
    event::{CircuitState, EventKind, Events},
    shared::Shared,
    sync::{AtomicU64, Mutex, Ordering},
    time::{self, Instant, Now},
};

/// A circuit, as its services, handles and permits hold it.
#[derive(Clone)]
pub(super) struct Circuit(Shared<State>);

#[repr(align(64))]
struct State {
    word: AtomicU64,
    until: AtomicU64,
    trip: AtomicU64,
    /// When the next pending call grows too slow; `NEVER` when none does.
    overdue_at: AtomicU64,
    machine: Mutex<Machine>,
    parked: Parked,
    /// Made when somebody first asks for it: most circuits of a keyed layer have no watcher.
    watch: OnceLock<watch::Sender<CircuitState>>,
    /// The generation that the watch shows, so that a transition overtaken on its way does not move it back.
    watched: std::sync::atomic::AtomicU64,
    events: Arc<Events>,
}

/// A caller's place among those that wait. Dropping it gives its place back.
pub(super) struct Place {
    circuit: Circuit,
    index: usize,
}

// ===== impl Circuit =====

impl Circuit {
    pub(super) fn try_new(settings: CircuitBreakerSettings) -> Result<Self, ConfigError> {
        let limits = settings.check()?;
        Ok(Self::new(limits, Arc::new(Events::named(settings.name))))
    }

    pub(super) fn new(limits: Limits, events: Arc<Events>) -> Self {
        let machine = Machine::new(limits, seed());
        let state = State {
            word: AtomicU64::new(word::of(&machine)),
            until: AtomicU64::new(Instant::NEVER.as_nanos()),
            trip: AtomicU64::new(0),
            overdue_at: AtomicU64::new(Instant::NEVER.as_nanos()),
            machine: Mutex::new(machine),
            parked: Parked::default(),
            watch: OnceLock::new(),
            watched: std::sync::atomic::AtomicU64::new(0),
            events,
        };
        Self(Shared::new(state))
    }

    pub(super) fn events(&self) -> &Arc<Events> {
        &self.0.events
    }

    // ----- a call -----

    /// The state and what follows from it.
    #[inline]
    pub(super) fn word(&self) -> u64 {
        self.0.word.load(Ordering::Acquire)
    }

    /// Whether the circuit is closed and nothing suggests that it should not be.
    #[inline]
    pub(super) fn is_passing(&self, word: u64) -> bool {
        word & CLOSED != 0 && (word & TIMED == 0 || !self.0.is_overdue())
    }

    /// The refusal of an open circuit whose time is not over.
    #[inline]
    pub(super) fn refuses(&self, word: u64) -> Option<Rejected> {
        if word & OPEN == 0 {
            return None;
        }
        let until = Instant::from_nanos(self.0.until.load(Ordering::Relaxed));
        if until == Instant::NEVER {
            return Some(self.refusal(None));
        }
        let now = time::now();
        (now < until).then(|| self.refusal(Some(until.saturating_since(now))))
    }

    #[inline]
    pub(super) fn refusal(&self, retry_after: Option<Duration>) -> Rejected {
        let trip = word::decode(self.0.trip.load(Ordering::Relaxed));
        let rejected = Rejected::new(self.events().name(), Reason::CircuitOpen(trip));
        match retry_after {
            Some(wait) => rejected.with_retry_after(wait),
            None => rejected,
        }
    }

    /// A step of the machine, with all that follows from it.
    pub(super) fn step<R>(&self, decide: impl FnOnce(&mut Machine, &mut Transitions) -> R) -> R {
        self.0.step(decide)
    }

    /// A call has ended.
    #[cold]
    #[inline(never)]
    pub(super) fn settle(&self, admitted: Admitted, ending: Ending) {
        let mut now = Now::when_asked();
        let (current, generation) = self.step(|machine, transitions| {
            let current = machine.settle(admitted, ending, &mut now, transitions);
            (current, machine.generation())
        });
        if !current {
            self.events().emit(|| EventKind::Stale {
                admitted_in: admitted.generation,
                generation,
                outcome: match ending {
                    Ending::Answered(outcome) => Some(outcome),
                    Ending::Cancelled | Ending::Panicked => None,
                },
            });
        }
    }

    // ----- a caller that waits -----

    /// Leaves a caller's waker, so that from now on a trip wakes it.
    pub(super) fn park(&self, place: &mut Option<Place>, waker: &Waker) {
        let index = self.0.parked.enter(place.as_ref().map(|place| place.index), waker);
        place.get_or_insert_with(|| Place { circuit: self.clone(), index });
    }

    /// When the passing of time alone will change the answer for a caller that waits.
    pub(super) fn changes_at(&self) -> Option<Instant> {
        self.0.machine.lock().changes_at()
    }

    // ----- looking and control -----

    pub(super) fn state(&self) -> CircuitState {
        let now = time::now();
        self.0.step(|machine, transitions| {
            machine.tick(now, transitions);
            machine.state()
        })
    }

    pub(super) fn snapshot(&self) -> CircuitBreakerSnapshot {
        let now = time::now();
        self.0.step(|machine, transitions| {
            machine.tick(now, transitions);
            machine.snapshot(now)
        })
    }

    pub(super) fn set_mode(&self, mode: CircuitMode) {
        self.0.step(|machine, transitions| machine.set_mode(mode, transitions));
        // Between shadow and enforced the state stays, and yet callers that wait may be refused now.
        self.0.parked.wake_all();
    }

    pub(super) fn reset(&self) {
        self.0.step(Machine::reset);
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        let now = time::now();
        self.0.step(|machine, transitions| machine.set_limits(limits, now, transitions));
    }

    pub(super) fn watch(&self) -> watch::Receiver<CircuitState> {
        self.state();
        let state = &*self.0;
        state
            .watch
            .get_or_init(|| {
                let machine = state.machine.lock();
                state.watched.store(machine.generation(), std::sync::atomic::Ordering::Relaxed);
                watch::Sender::new(machine.state())
            })
            .subscribe()
    }

    /// Whether nothing would be lost if this circuit, which nobody else holds, were made anew.
    pub(super) fn may_be_forgotten(&self, now: Instant) -> bool {
        self.0.is_unique() && self.0.machine.lock().may_be_forgotten(now)
    }

    pub(super) fn same(&self, other: &Self) -> bool {
        self.0.same(&other.0)
    }
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.events.name())
    }
}

// ===== impl State =====

impl State {
    /// Lock, decide, publish, unlock; then tell.
    fn step<R>(&self, decide: impl FnOnce(&mut Machine, &mut Transitions) -> R) -> R {
        let mut transitions = Transitions::default();
        let answer = {
            let mut machine = self.machine.lock();
            let answer = decide(&mut machine, &mut transitions);
            self.publish(&machine);
            answer
        };
        if !transitions.is_empty() {
            self.announce(&transitions);
        }
        answer
    }

    /// Brings the summary up to date. Runs under the lock, and writes only what has changed, so that readers keep their cache lines.
    #[inline]
    fn publish(&self, machine: &Machine) {
        let overdue_at = machine.overdue_at().unwrap_or(Instant::NEVER).as_nanos();
        if self.overdue_at.load(Ordering::Relaxed) != overdue_at {
            self.overdue_at.store(overdue_at, Ordering::Relaxed);
        }
        if let Some(trip) = machine.trip() {
            self.trip.store(word::encode(trip), Ordering::Relaxed);
        }
        if let Some(until) = machine.refuses_until() {
            self.until.store(until.as_nanos(), Ordering::Relaxed);
        }
        let word = word::of(machine);
        if self.word.load(Ordering::Relaxed) != word {
            self.word.store(word, Ordering::Release);
        }
    }

    #[inline]
    fn is_overdue(&self) -> bool {
        let at = Instant::from_nanos(self.overdue_at.load(Ordering::Relaxed));
        at != Instant::NEVER && at <= time::now()
    }

    #[cold]
    #[inline(never)]
    fn announce(&self, transitions: &Transitions) {
        for Transition { from, to, generation, opening, open_for } in transitions.iter() {
            let open_for = opening.and_then(|opening| self.ask_open_time(generation, &opening)).or(open_for);
            let trip = opening.map(|opening| opening.trip);
            self.events.emit(|| EventKind::Transition { from, to, generation, trip, open_for });
            self.tell_watch(to, generation);
            if to == CircuitState::Open {
                self.parked.wake_all();
            }
        }
    }

    /// The user's function runs under no lock. Until it has answered, and if it panics, the circuit is open for the default time.
    fn ask_open_time(&self, generation: u64, opening: &Opening) -> Option<Duration> {
        // Forced open has no time.
        if opening.trip == Trip::Forced {
            return None;
        }
        let function = self.machine.lock().limits().open.user_function()?;
        let asked = catch_unwind(|| function(opening)).ok()?;
        let now = time::now();
        Some(self.step(|machine, _| machine.set_open_time(generation, opening, asked, now)))
    }

    fn tell_watch(&self, state: CircuitState, generation: u64) {
        use std::sync::atomic::Ordering::Relaxed;
        if let Some(watch) = self.watch.get() {
            // The closure runs under the watch's own lock, which orders the two statements.
            watch.send_if_modified(|shown| {
                let newer = generation > self.watched.load(Relaxed);
                if newer {
                    self.watched.store(generation, Relaxed);
                    *shown = state;
                }
                newer
            });
        }
    }
}

/// Jitter differs between circuits and processes.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

impl Drop for Place {
    fn drop(&mut self) {
        self.circuit.0.parked.leave(self.index);
    }
}
