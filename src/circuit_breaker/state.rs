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
    in_flight::Slot,
    machine::Machine,
    policy::{CircuitBreakerSettings, Limits, Opening},
    snapshot::{CircuitBreakerSnapshot, CircuitMode},
    step::{Admission, Admitted, Ending, Transition, Transitions},
};
use crate::{
    error::{ConfigError, Reason, Rejected, Trip},
    event::{CircuitState, EventKind, Events},
    outcome::Outcome,
    shared::Shared,
    sync::{AtomicU64, Mutex, Ordering},
    time::{self, Instant, Now},
};

/// Every call passes and is counted.
const CLOSED: u64 = 1;
/// One more good and quick call would change nothing.
const QUIET: u64 = 1 << 1;
/// Calls say when they began to wait.
const TIMED: u64 = 1 << 2;
/// Every call is refused until `until`.
const OPEN: u64 = 1 << 3;
/// The call is a probe: only in a permit's own word.
const PROBE: u64 = 1 << 4;
/// The generation is above the flags.
const GENERATION: u32 = 8;

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
    parked: Mutex<Parked>,
    /// Made when somebody first asks for it: most circuits of a keyed layer have no watcher.
    watch: OnceLock<watch::Sender<CircuitState>>,
    /// The generation that the watch shows, so that a transition overtaken on its way does not move it back.
    watched: std::sync::atomic::AtomicU64,
    events: Arc<Events>,
}

/// A call's place in a circuit: how it ends is what the circuit counts.
///
/// Dropping it unsettled means that the call was cancelled.
#[must_use = "dropping a permit means that the call was cancelled"]
pub struct Permit {
    circuit: Circuit,
    /// The circuit's word when the call was admitted, or 0 when it no longer counts.
    word: u64,
    /// When the call began to wait, in nanoseconds, or 0 when it has not or nobody asks.
    started: u64,
    slot: Option<Slot>,
}

/// What the gate answers.
pub(super) enum Gate {
    /// The call gets its permit when it is made, unless the word has changed by then.
    Pass {
        word: u64,
    },
    /// The call has a probe's place already.
    Probe(Permit),
    Refused(Rejected),
}

/// What the circuit answers when it is not simply closed.
enum Answer {
    Counted {
        word: u64,
    },
    Probe(Permit),
    Refused(Rejected),
    /// In shadow mode: to be reported, and let through.
    Shadowed {
        rejected: Rejected,
        word: u64,
    },
}

/// Callers that wait for the readiness of the inner service and must hear of a trip.
#[derive(Default)]
struct Parked {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// One of them. Dropping it gives its place back.
pub(super) struct Place {
    circuit: Circuit,
    index: usize,
}

/// Settles a permit as panicked, unless it is forgotten.
pub(super) struct OnUnwind<'a>(pub(super) &'a mut Permit);

// ===== impl Circuit =====

impl Circuit {
    pub(super) fn try_new(settings: CircuitBreakerSettings) -> Result<Self, ConfigError> {
        let limits = settings.check()?;
        Ok(Self::new(limits, Arc::new(Events::named(settings.name))))
    }

    pub(super) fn new(limits: Limits, events: Arc<Events>) -> Self {
        let machine = Machine::new(limits, seed());
        let state = State {
            word: AtomicU64::new(word(&machine)),
            until: AtomicU64::new(Instant::NEVER.as_nanos()),
            trip: AtomicU64::new(0),
            overdue_at: AtomicU64::new(Instant::NEVER.as_nanos()),
            machine: Mutex::new(machine),
            parked: Mutex::default(),
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

    /// The state and what follows from it, to see whether it has changed.
    #[inline]
    pub(super) fn word(&self) -> u64 {
        self.0.word.load(Ordering::Acquire)
    }

    /// Answers for `poll_ready`, where a probe takes its place and nobody else does.
    #[inline]
    pub(super) fn gate(&self) -> Gate {
        let word = self.word();
        if self.0.is_passing(word) {
            return Gate::Pass { word };
        }
        match self.not_passing(word) {
            Answer::Probe(permit) => Gate::Probe(permit),
            Answer::Refused(rejected) => Gate::Refused(rejected),
            // The permit is made, and the refusal that is none reported, with the call.
            Answer::Counted { word } | Answer::Shadowed { word, .. } => Gate::Pass { word },
        }
    }

    /// Answers for `call`.
    #[inline]
    pub(super) fn admit(&self) -> Result<Permit, Rejected> {
        let word = self.word();
        if self.0.is_passing(word) {
            return Ok(self.permit(word));
        }
        match self.not_passing(word) {
            Answer::Probe(permit) => Ok(permit),
            Answer::Counted { word } => Ok(self.permit(word)),
            Answer::Refused(rejected) => Err(rejected),
            Answer::Shadowed { rejected, .. } => {
                self.0.events.emit(|| EventKind::Rejected { rejected: &rejected, shadow: true });
                Ok(self.uncounted())
            }
        }
    }

    /// A permit that counts nowhere.
    pub(super) fn uncounted(&self) -> Permit {
        self.permit(0)
    }

    #[inline]
    fn permit(&self, word: u64) -> Permit {
        Permit { circuit: self.clone(), word, started: 0, slot: None }
    }

    #[inline]
    fn not_passing(&self, word: u64) -> Answer {
        let state = &*self.0;
        if word & OPEN != 0 {
            let until = Instant::from_nanos(state.until.load(Ordering::Relaxed));
            if until == Instant::NEVER {
                return Answer::Refused(state.refusal(None));
            }
            let now = time::now();
            if now < until {
                return Answer::Refused(state.refusal(Some(until.saturating_since(now))));
            }
        }
        self.ask()
    }

    /// Asks the machine itself.
    #[cold]
    #[inline(never)]
    fn ask(&self) -> Answer {
        let state = &*self.0;
        let now = time::now();
        let (admission, word, shadow) = state.step(|machine, transitions| {
            machine.tick(now, transitions);
            let admission = machine.admit();
            (admission, word(machine), machine.mode() == CircuitMode::Shadow)
        });
        match admission {
            Admission::Counted => Answer::Counted { word },
            Admission::Probe => Answer::Probe(self.permit(word | PROBE)),
            Admission::Refused { retry_at } => {
                let rejected = state.refusal(retry_at.map(|at| at.saturating_since(now)));
                if shadow { Answer::Shadowed { rejected, word } } else { Answer::Refused(rejected) }
            }
        }
    }

    /// Reports a refusal that is being delivered.
    #[inline]
    pub(super) fn report(&self, rejected: &Rejected) {
        self.0.events.emit(|| EventKind::Rejected { rejected, shadow: false });
    }

    // ----- a caller that waits -----

    /// Whether a caller's waker is heard: from now on a trip wakes it.
    pub(super) fn park(&self, place: &mut Option<Place>, waker: &Waker) {
        let waker = Some(waker.clone());
        let mut parked = self.0.parked.lock();
        let old = match place {
            Some(place) => std::mem::replace(&mut parked.wakers[place.index], waker),
            None => {
                let index = parked.free.pop().unwrap_or(parked.wakers.len());
                if index == parked.wakers.len() {
                    parked.wakers.push(waker);
                } else {
                    parked.wakers[index] = waker;
                }
                *place = Some(Place { circuit: self.clone(), index });
                None
            }
        };
        drop(parked);
        drop(old);
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
        self.0.wake_parked();
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
            self.trip.store(encode(trip), Ordering::Relaxed);
        }
        if let Some(until) = machine.refuses_until() {
            self.until.store(until.as_nanos(), Ordering::Relaxed);
        }
        let word = word(machine);
        if self.word.load(Ordering::Relaxed) != word {
            self.word.store(word, Ordering::Release);
        }
    }

    /// Whether the circuit is closed and nothing suggests that it should not be.
    #[inline]
    fn is_passing(&self, word: u64) -> bool {
        word & CLOSED != 0 && (word & TIMED == 0 || !self.is_overdue())
    }

    #[inline]
    fn is_overdue(&self) -> bool {
        let at = Instant::from_nanos(self.overdue_at.load(Ordering::Relaxed));
        at != Instant::NEVER && at <= time::now()
    }

    #[inline]
    fn refusal(&self, retry_after: Option<Duration>) -> Rejected {
        let trip = decode(self.trip.load(Ordering::Relaxed));
        let rejected = Rejected::new(self.events.name(), Reason::CircuitOpen(trip));
        match retry_after {
            Some(wait) => rejected.with_retry_after(wait),
            None => rejected,
        }
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
                self.wake_parked();
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

    fn wake_parked(&self) {
        let wakers: Vec<_> = self.parked.lock().wakers.iter_mut().filter_map(Option::take).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    #[cold]
    #[inline(never)]
    fn settle(&self, admitted: Admitted, ending: Ending) {
        let mut now = Now::when_asked();
        let (current, generation) = self.step(|machine, transitions| {
            let current = machine.settle(admitted, ending, &mut now, transitions);
            (current, machine.generation())
        });
        if !current {
            self.events.emit(|| EventKind::Stale {
                admitted_in: admitted.generation,
                generation,
                outcome: match ending {
                    Ending::Answered(outcome) => Some(outcome),
                    Ending::Cancelled | Ending::Panicked => None,
                },
            });
        }
    }
}

/// The machine in one word.
#[inline]
fn word(machine: &Machine) -> u64 {
    let flag = |flag, on: bool| if on { flag } else { 0 };
    flag(CLOSED, machine.is_closed())
        | flag(QUIET, machine.is_quiet())
        | flag(TIMED, machine.is_timed())
        | flag(OPEN, machine.refuses_until().is_some())
        | machine.generation() << GENERATION
}

fn encode(trip: Trip) -> u64 {
    let (tag, value) = match trip {
        Trip::Forced => (0, 0),
        Trip::ConsecutiveFailures(n) => (1, n),
        Trip::FailureRate(percent) => (2, u32::from(percent)),
        Trip::SlowCallRate(percent) => (3, u32::from(percent)),
        Trip::ProbesFailed => (4, 0),
        Trip::ProbesTimedOut => (5, 0),
    };
    tag << 32 | u64::from(value)
}

#[inline]
fn decode(bits: u64) -> Trip {
    let value = bits as u32;
    match bits >> 32 {
        1 => Trip::ConsecutiveFailures(value),
        2 => Trip::FailureRate(value as u8),
        3 => Trip::SlowCallRate(value as u8),
        4 => Trip::ProbesFailed,
        5 => Trip::ProbesTimedOut,
        _ => Trip::Forced,
    }
}

/// Jitter differs between circuits and processes.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

// ===== impl Permit =====

impl Permit {
    /// The call succeeded.
    pub fn success(self) {
        self.record(Outcome::Success);
    }

    /// The call failed.
    pub fn failure(self) {
        self.record(Outcome::TRANSIENT);
    }

    /// The call says nothing about the dependency.
    pub fn ignore(self) {
        self.record(Outcome::Ignored);
    }

    /// The call ended like this.
    pub fn record(mut self, outcome: Outcome) {
        self.settle(Ending::Answered(outcome));
    }

    /// Whether the call would still count.
    pub(super) fn is_current(&self) -> bool {
        self.circuit.word() >> GENERATION == self.word >> GENERATION
    }

    /// The call is pending: from here on its time runs, if anybody asks. Later polls change nothing.
    #[inline]
    pub(super) fn pending(&mut self) {
        if self.word & TIMED != 0 && self.started == 0 {
            self.start();
        }
    }

    #[cold]
    #[inline(never)]
    fn start(&mut self) {
        let now = time::now();
        self.started = now.as_nanos();
        let generation = self.word >> GENERATION;
        self.slot = self.circuit.0.step(|machine, _| machine.wait(generation, now));
    }

    #[inline]
    pub(super) fn settle(&mut self, ending: Ending) {
        let word = std::mem::take(&mut self.word);
        let changes_nothing = word & QUIET != 0
            && self.started == 0
            && matches!(ending, Ending::Answered(Outcome::Success | Outcome::Permanent))
            && self.circuit.word() == word;
        if word != 0 && !changes_nothing {
            self.settle_with(word, ending);
        }
    }

    #[inline(never)]
    fn settle_with(&self, word: u64, ending: Ending) {
        let admitted = Admitted {
            generation: word >> GENERATION,
            probe: word & PROBE != 0,
            pending: (self.started != 0).then(|| (Instant::from_nanos(self.started), self.slot)),
        };
        self.circuit.0.settle(admitted, ending);
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if self.word != 0 {
            self.settle(Ending::Cancelled);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("circuit", &self.circuit)
            .field("generation", &(self.word >> GENERATION))
            .field("probe", &(self.word & PROBE != 0))
            .finish_non_exhaustive()
    }
}

impl Drop for OnUnwind<'_> {
    fn drop(&mut self) {
        self.0.settle(Ending::Panicked);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut parked = self.circuit.0.parked.lock();
        let waker = parked.wakers[self.index].take();
        parked.free.push(self.index);
        drop(parked);
        drop(waker);
    }
}

/// Every interleaving of admission, settlement and transition: `RUSTFLAGS="--cfg buttress_loom" cargo test --lib loom`.
#[cfg(all(test, buttress_loom))]
mod loom_models {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use loom::{model, thread};

    use super::*;

    const BASE: CircuitBreakerSettings =
        CircuitBreakerSettings::consecutive_failures(1).open_for(Duration::from_nanos(1));

    fn circuit(settings: CircuitBreakerSettings) -> Circuit {
        Circuit::try_new(settings).unwrap()
    }

    fn half_open() -> Circuit {
        let circuit = circuit(BASE.half_open_timeout(Duration::MAX));
        circuit.admit().unwrap().failure();
        while circuit.state() != CircuitState::HalfOpen {}
        circuit
    }

    #[test]
    fn no_failure_is_lost_whatever_else_goes_on() {
        model(|| {
            let circuit = circuit(CircuitBreakerSettings::consecutive_failures(2));
            let fails = || {
                let circuit = circuit.clone();
                thread::spawn(move || circuit.admit().map(Permit::failure).is_ok())
            };
            let threads = [fails(), fails()];
            let counted = threads.map(|thread| thread.join().unwrap());
            assert_eq!(counted, [true, true]);
            assert_eq!(circuit.snapshot().state, CircuitState::Open);
        });
    }

    #[test]
    fn a_success_that_skips_the_lock_hides_no_failure() {
        model(|| {
            let circuit = circuit(CircuitBreakerSettings::consecutive_failures(1));
            let other = circuit.clone();
            let succeeds = thread::spawn(move || {
                if let Ok(permit) = other.admit() {
                    permit.success();
                }
            });
            circuit.admit().unwrap().failure();
            succeeds.join().unwrap();
            assert_eq!(circuit.snapshot().state, CircuitState::Open);
        });
    }

    #[test]
    fn never_more_probes_than_places_and_every_place_comes_back() {
        model(|| {
            let circuit = half_open();
            let out = Arc::new(AtomicUsize::new(0));
            let probe = || {
                let (circuit, out) = (circuit.clone(), Arc::clone(&out));
                thread::spawn(move || {
                    if let Ok(permit) = circuit.admit() {
                        assert_eq!(out.fetch_add(1, SeqCst), 0, "one place");
                        thread::yield_now();
                        out.fetch_sub(1, SeqCst);
                        drop(permit);
                    }
                })
            };
            let threads = [probe(), probe()];
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(circuit.snapshot().probes_in_flight, 0);
        });
    }

    #[test]
    fn a_probe_that_ends_while_the_circuit_is_reset_changes_nothing_after_it() {
        model(|| {
            let circuit = half_open();
            let permit = circuit.admit().unwrap();
            let fails = thread::spawn(move || permit.failure());
            circuit.reset();
            let reset = circuit.snapshot();
            fails.join().unwrap();
            let after = circuit.snapshot();
            assert_eq!((after.state, after.generation), (CircuitState::Closed, reset.generation));
            assert_eq!((after.consecutive_failures, after.probes_in_flight), (0, 0));
        });
    }

    #[test]
    fn a_caller_that_parks_while_the_circuit_trips_is_woken_or_sees_it() {
        struct Wakes(AtomicUsize);
        impl std::task::Wake for Wakes {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        model(|| {
            let circuit = circuit(CircuitBreakerSettings::consecutive_failures(1));
            let permit = circuit.admit().unwrap();
            let trips = thread::spawn(move || permit.failure());
            let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
            let mut place = None;
            let word = circuit.word();
            let passes = word & CLOSED != 0;
            circuit.park(&mut place, &Waker::from(Arc::clone(&wakes)));
            let sees = !passes || circuit.word() != word;
            trips.join().unwrap();
            assert!(sees || wakes.0.load(SeqCst) == 1, "parked for ever");
            drop(place);
        });
    }
}
