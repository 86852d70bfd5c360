//! Where a circuit lives: the machine behind a lock, and beside it a summary in atomics.
//!
//! The summary is written under the lock after every step, so that the calls that change nothing never take it:
//!
//! * admission to a closed circuit reads `word`;
//! * refusal by an open one reads `word`, then `until` and `trip`, and the clock;
//! * a good call that leaves a healthy circuit as it was reads `word` a second time.
//!
//! A place is never freed but let again, so that a permit may refer to it without counting references: two atomic steps a call would cost
//! more than all the rest of it. There are as many places as there ever were circuits at a time.
//!
//! Memory ordering: `until` and `trip` are stored before the `word` (release) that makes them meaningful, and loaded after it (acquire). They
//! are overwritten only by a later opening, so whoever reads them beside an older `word` refuses by the newer opening, which is as true.
//!
//! Lock order: `tenants` and the waiting room's are never held together. Events, wakers and the user's functions run under neither.

use std::{
    panic::catch_unwind,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::{
    in_flight::Slot,
    machine::Machine,
    open_time::Opening,
    parked::Parked,
    step::{Admitted, Ending, Transition, Transitions},
    word::{self, CLOSED, GENERATION, OPEN, PROBE, Refusal, TIMED},
};
use crate::{
    error::Trip,
    event::{CircuitState, EventKind, Events},
    sync::{AtomicU64, Mutex, MutexGuard, Ordering},
    time::{self, Instant, Now},
};

pub(super) struct Place {
    summary: Summary,
    tenants: Mutex<Tenants>,
    pub(super) parked: Parked,
}

/// On a cache line of its own, so that who locks does not disturb who only reads.
#[repr(align(64))]
struct Summary {
    word: AtomicU64,
    until: AtomicU64,
    trip: AtomicU64,
    /// When the next pending call grows too slow; `NEVER` when none does.
    overdue_at: AtomicU64,
}

/// The circuit that lives here, and the trace of those that did.
pub(super) struct Tenants {
    /// How many generations the former tenants had. The number in a word goes on where theirs ended, so that a permit of theirs is known.
    before: u64,
    /// Boxed, so that a place that nobody lives in is small.
    present: Option<Box<Tenant>>,
}

pub(super) struct Tenant {
    pub(super) machine: Machine,
    audience: Audience,
}

/// Who hears of transitions, outside the lock.
#[derive(Clone)]
struct Audience {
    events: Arc<Events>,
    /// Made when somebody first asks for it: most circuits of a keyed layer have no watcher.
    watch: Option<Arc<Watch>>,
}

struct Watch {
    sender: watch::Sender<CircuitState>,
    /// The generation that it shows, so that a transition overtaken on its way does not move it back.
    shown: std::sync::atomic::AtomicU64,
}

/// Places without a circuit.
static VACANT: std::sync::Mutex<Vec<&'static Place>> = std::sync::Mutex::new(Vec::new());

// ===== impl Place =====

impl Place {
    /// A place for this circuit.
    pub(super) fn let_to(machine: Machine, events: Arc<Events>) -> &'static Self {
        let vacant = VACANT.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let place = vacant.unwrap_or_else(|| Box::leak(Box::new(Self::empty())));
        let mut tenants = place.tenants.lock();
        tenants.present = Some(Box::new(Tenant { machine, audience: Audience { events, watch: None } }));
        place.summary.publish(&tenants);
        drop(tenants);
        place
    }

    fn empty() -> Self {
        Self {
            summary: Summary {
                word: AtomicU64::new(0),
                until: AtomicU64::new(Instant::NEVER.as_nanos()),
                trip: AtomicU64::new(0),
                overdue_at: AtomicU64::new(Instant::NEVER.as_nanos()),
            },
            tenants: Mutex::new(Tenants { before: 0, present: None }),
            parked: Parked::default(),
        }
    }

    /// The circuit is gone. Who is still out finds another word, now and under every later tenant.
    pub(super) fn vacate(&'static self) {
        let mut tenants = self.tenants.lock();
        let left = tenants.present.take();
        let generations = left.as_ref().map_or(0, |left| left.machine.generation());
        tenants.before = tenants.before.wrapping_add(generations);
        self.summary.word.store(tenants.before << GENERATION, Ordering::Release);
        drop(tenants);
        // Listeners run their destructors here, under no lock.
        drop(left);
        // A model of loom's ends with its run, and so do its places.
        if cfg!(not(buttress_loom)) {
            VACANT.lock().unwrap_or_else(PoisonError::into_inner).push(self);
        }
    }

    /// The state and what follows from it.
    #[inline]
    pub(super) fn word(&self) -> u64 {
        self.summary.word.load(Ordering::Acquire)
    }

    /// Whether the circuit is closed and nothing suggests that it should not be.
    #[inline]
    pub(super) fn is_passing(&self, word: u64) -> bool {
        word & CLOSED != 0 && (word & TIMED == 0 || !self.summary.is_overdue())
    }

    /// The refusal of a circuit that is open and stays so for now.
    #[inline]
    pub(super) fn refusal(&self, word: u64) -> Option<Refusal> {
        if word & OPEN == 0 {
            return None;
        }
        let until = Instant::from_nanos(self.summary.until.load(Ordering::Relaxed));
        if until == Instant::NEVER {
            return Some(self.refusal_until(None));
        }
        let now = time::now();
        (now < until).then(|| self.refusal_until(Some(until.saturating_since(now))))
    }

    #[inline]
    pub(super) fn refusal_until(&self, retry_after: Option<Duration>) -> Refusal {
        Refusal::new(self.summary.trip.load(Ordering::Relaxed), retry_after)
    }

    // ----- steps -----

    /// Lock, decide, publish, unlock; then tell.
    #[inline]
    pub(super) fn step<R>(&self, decide: impl FnOnce(&mut Machine, &mut Transitions) -> R) -> R {
        self.step_in(self.tenants.lock(), decide).0
    }

    /// As [`step`](Self::step), and the word that follows from it.
    pub(super) fn step_to_word<R>(&self, decide: impl FnOnce(&mut Machine, &mut Transitions) -> R) -> (R, u64) {
        self.step_in(self.tenants.lock(), decide)
    }

    #[inline]
    fn step_in<R>(
        &self,
        mut tenants: MutexGuard<'_, Tenants>,
        decide: impl FnOnce(&mut Machine, &mut Transitions) -> R,
    ) -> (R, u64) {
        let mut transitions = Transitions::default();
        let answer = decide(&mut tenants.present().machine, &mut transitions);
        let word = self.summary.publish(&tenants);
        if transitions.is_empty() {
            drop(tenants);
        } else {
            self.announce(tenants, &transitions);
        }
        (answer, word)
    }

    #[cold]
    #[inline(never)]
    fn announce(&self, mut tenants: MutexGuard<'_, Tenants>, transitions: &Transitions) {
        let before = tenants.before;
        let audience = tenants.present().audience.clone();
        drop(tenants);
        // First those who wait: nobody knows how long the user's code takes.
        if transitions.iter().any(|transition| transition.to == CircuitState::Open) {
            self.parked.wake_all();
        }
        for Transition { from, to, generation, opening, open_for } in transitions.iter() {
            let open_for = opening.and_then(|opening| self.ask_open_time(before, generation, &opening)).or(open_for);
            let trip = opening.map(|opening| opening.trip);
            audience.events.emit(|| EventKind::Transition { from, to, generation, trip, open_for });
            if let Some(watch) = &audience.watch {
                watch.tell(to, generation);
            }
        }
    }

    /// The user's function runs under no lock. Until it has answered, and if it panics, the circuit is open for the default time.
    fn ask_open_time(&self, before: u64, generation: u64, opening: &Opening) -> Option<Duration> {
        // Forced open has no time.
        if opening.trip == Trip::Forced {
            return None;
        }
        let function = self.tenants.lock().of(before)?.machine.limits().open.user_function()?;
        let asked = catch_unwind(|| function(opening)).ok()?;
        let now = time::now();
        let mut tenants = self.tenants.lock();
        tenants.of(before)?;
        Some(self.step_in(tenants, |machine, _| machine.set_open_time(generation, opening, asked, now)).0)
    }

    /// A call is pending. Returns when it began to wait, and where.
    #[cold]
    #[inline(never)]
    pub(super) fn wait(&self, word: u64) -> (u64, Option<Slot>) {
        let now = time::now();
        let tenants = self.tenants.lock();
        let slot = tenants
            .generation(word)
            .and_then(|generation| self.step_in(tenants, |machine, _| machine.wait(generation, now)).0);
        (now.as_nanos(), slot)
    }

    /// A call has ended. It gets values and no reference: a permit whose address goes nowhere lives in registers.
    #[inline(never)]
    pub(super) fn settle(&self, word: u64, started: u64, slot: Option<Slot>, ending: Ending) {
        let tenants = self.tenants.lock();
        // Nobody is left who could ask about the circuit of a former tenant.
        let Some(generation) = tenants.generation(word) else {
            return;
        };
        let pending = (started != 0).then(|| (Instant::from_nanos(started), slot));
        let admitted = Admitted { generation, probe: word & PROBE != 0, pending };
        let mut now = Now::when_asked();
        let current =
            self.step_in(tenants, |machine, transitions| machine.settle(admitted, ending, &mut now, transitions)).0;
        if !current {
            self.report_stale(word, ending);
        }
    }

    #[cold]
    #[inline(never)]
    fn report_stale(&self, word: u64, ending: Ending) {
        let mut tenants = self.tenants.lock();
        let Some(admitted_in) = tenants.generation(word) else {
            return;
        };
        let Tenant { machine, audience } = tenants.present();
        let (generation, events) = (machine.generation(), Arc::clone(&audience.events));
        drop(tenants);
        events.emit(|| EventKind::Stale {
            admitted_in,
            generation,
            outcome: match ending {
                Ending::Answered(outcome) => Some(outcome),
                Ending::Cancelled | Ending::Panicked => None,
            },
        });
    }

    pub(super) fn look<R>(&self, look: impl FnOnce(&Machine) -> R) -> R {
        look(&self.tenants.lock().present().machine)
    }

    pub(super) fn watch(&self) -> watch::Receiver<CircuitState> {
        let mut tenants = self.tenants.lock();
        let Tenant { machine, audience } = tenants.present();
        let watch = audience.watch.get_or_insert_with(|| {
            Arc::new(Watch { sender: watch::Sender::new(machine.state()), shown: machine.generation().into() })
        });
        watch.sender.subscribe()
    }
}

// ===== impl Summary =====

impl Summary {
    /// Brings the summary up to date. Runs under the lock, and writes only what has changed, so that readers keep their cache lines.
    #[inline]
    fn publish(&self, tenants: &Tenants) -> u64 {
        let Some(Tenant { machine, .. }) = tenants.present.as_deref() else {
            return 0;
        };
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
        let word = word::of(machine, tenants.before);
        if self.word.load(Ordering::Relaxed) != word {
            self.word.store(word, Ordering::Release);
        }
        word
    }

    #[inline]
    fn is_overdue(&self) -> bool {
        let at = Instant::from_nanos(self.overdue_at.load(Ordering::Relaxed));
        at != Instant::NEVER && is_past(at)
    }
}

/// Apart, because a clock is too much to be inlined with what most calls need.
#[inline(never)]
fn is_past(at: Instant) -> bool {
    at <= time::now()
}

// ===== impl Tenants =====

impl Tenants {
    #[inline]
    fn present(&mut self) -> &mut Tenant {
        // `vacate` runs when nobody holds the circuit, and nobody else asks.
        self.present.as_mut().expect("a circuit lives here as long as somebody holds it")
    }

    /// The tenant that came after so many generations, if it is the present one.
    fn of(&mut self, before: u64) -> Option<&mut Tenant> {
        self.present.as_deref_mut().filter(|_| self.before == before)
    }

    /// The generation of the present tenant that this word speaks of, or `None` when it is a former one's.
    #[inline]
    fn generation(&self, word: u64) -> Option<u64> {
        self.present.as_ref()?;
        (word >> GENERATION).checked_sub(self.before).filter(|generation| *generation > 0)
    }
}

// ===== impl Watch =====

impl Watch {
    fn tell(&self, state: CircuitState, generation: u64) {
        use std::sync::atomic::Ordering::Relaxed;
        // The closure runs under the watch's own lock, which orders the two statements.
        self.sender.send_if_modified(|shown| {
            let newer = generation > self.shown.load(Relaxed);
            if newer {
                self.shown.store(generation, Relaxed);
                *shown = state;
            }
            newer
        });
    }
}
