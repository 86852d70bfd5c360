//! The calls of the window: each thread counts its own, and who withdraws adds them up.
//!
//! An atomic addition costs several times what a load and a store do, and far more when two threads share the word. So every thread has a
//! counter of which it is the only writer.
//!
//! ```text
//! Deposits ──> Counter (thread 0) ──> 10 slots: number, calls
//!         │ made on first use
//!         ├──> Counter (thread 1) ──> 10 slots
//!         └──> Counter (all threads without an index, one at a time)
//! ```

use std::{array, sync::OnceLock};

use crate::{
    sync::{AtomicU64, Mutex, Ordering},
    thread_slot::THREADS,
    time::Instant,
};

/// Slots of a window. One is forgotten whole.
pub(super) const SLOTS: usize = 10;

pub(super) struct Deposits {
    /// Length of a slot in nanoseconds, at least 1.
    width: u64,
    /// The latest slot that anybody has come to, numbered since the clock's origin.
    ///
    /// It makes one window of clocks that stand far apart, as those of two paused runtimes do.
    latest: Apart<AtomicU64>,
    counters: [OnceLock<Box<Counter>>; THREADS + 1],
    /// Makes its holder the one writer of the last counter.
    last: Apart<Mutex<()>>,
}

/// What one thread has counted, on cache lines of its own. Only that thread writes.
#[repr(align(64))]
struct Counter {
    /// When the present slot ends, so that most deposits need no division. A reading before it began counts into it, too.
    ends: AtomicU64,
    /// Where the present slot lives: its number modulo ten.
    place: AtomicU64,
    slots: [Slot; SLOTS],
}

struct Slot {
    /// All of it, so that it never comes round again.
    number: AtomicU64,
    calls: AtomicU64,
}

/// On a cache line of its own: what is often written would slow down the reading of what is not.
#[repr(align(64))]
pub(super) struct Apart<T>(pub(super) T);

// ===== impl Deposits =====

impl Deposits {
    pub(super) fn new(window: u64) -> Self {
        Self {
            width: (window / SLOTS as u64).max(1),
            latest: Apart(AtomicU64::new(0)),
            counters: [const { OnceLock::new() }; THREADS + 1],
            last: Apart(Mutex::new(())),
        }
    }

    /// Counts a call, for the thread that has this index.
    #[inline]
    pub(super) fn count(&self, index: Option<usize>, now: Instant) {
        match index {
            Some(index) => self.count_as(index, now),
            None => {
                let _writer = self.last.0.lock();
                self.count_as(THREADS, now);
            }
        }
    }

    /// As [`count`](Self::count), where the present slot of this thread goes on. Whether it does.
    #[inline]
    pub(super) fn count_on(&self, index: usize, now: Instant) -> bool {
        index < THREADS && self.count_on_as(index, now)
    }

    #[inline]
    fn count_as(&self, index: usize, now: Instant) {
        if !self.count_on_as(index, now) {
            self.count_anew(index, now);
        }
    }

    #[inline]
    fn count_on_as(&self, index: usize, now: Instant) -> bool {
        if let Some(counter) = self.counters.get(index).and_then(OnceLock::get)
            && now.as_nanos() < counter.ends.load(Ordering::Relaxed)
            && let Some(slot) = counter.slots.get(counter.place.load(Ordering::Relaxed) as usize)
        {
            slot.count();
            return true;
        }
        false
    }

    /// The first call of a thread, or of a slot.
    #[cold]
    #[inline(never)]
    fn count_anew(&self, index: usize, now: Instant) {
        let counter = self.counters[index].get_or_init(|| Box::new(Counter::new()));
        self.turn(counter, now);
        counter.slots[counter.place.load(Ordering::Relaxed) as usize].count();
    }

    fn turn(&self, counter: &Counter, now: Instant) {
        let number = self.present(now);
        let place = number % SLOTS as u64;
        counter.slots[place as usize].become_slot(number);
        counter.place.store(place, Ordering::Relaxed);
        // By the writer's own clock, which may be behind that of others.
        let own = now.as_nanos() / self.width;
        counter.ends.store(own.saturating_add(1).saturating_mul(self.width), Ordering::Relaxed);
    }

    /// The number of the present slot: it never falls.
    ///
    /// `Relaxed`: it carries no news but itself. Whoever knows of a deposit or a withdrawal finds a number here that is at least its slot's.
    pub(super) fn present(&self, now: Instant) -> u64 {
        let number = now.as_nanos() / self.width;
        self.latest.0.fetch_max(number, Ordering::Relaxed).max(number)
    }

    /// The calls in the ten slots up to this one: at most those that have been counted there, and all that the caller knows of.
    pub(super) fn calls(&self, present: u64) -> u64 {
        let counters = self.counters.iter().filter_map(OnceLock::get);
        counters
            .flat_map(|counter| &counter.slots)
            .fold(0, |calls, slot| slot.calls_within(present).saturating_add(calls))
    }
}

// ===== impl Counter =====

impl Counter {
    fn new() -> Self {
        let slot = |_| Slot { number: AtomicU64::new(0), calls: AtomicU64::new(0) };
        Self { ends: AtomicU64::new(0), place: AtomicU64::new(0), slots: array::from_fn(slot) }
    }
}

impl Slot {
    /// The owner counts a call.
    #[inline]
    fn count(&self) {
        // Nobody else writes, so nothing is lost between the two. `Release`: see the second reading of the number.
        self.calls.store(self.calls.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// The owner starts this slot, unless it is in it already.
    fn become_slot(&self, number: u64) {
        if self.number.load(Ordering::Relaxed) != number {
            // In this order, and `Release`: who reads the new number sees none of the old slot's calls. In between it is empty, and so was
            // the old one as far as the window goes, which it leaves when this one begins.
            self.calls.store(0, Ordering::Relaxed);
            self.number.store(number, Ordering::Release);
        }
    }

    /// The calls, if this is one of the ten slots up to `present`.
    fn calls_within(&self, present: u64) -> u64 {
        let number = self.number.load(Ordering::Acquire);
        if number > present || present - number >= SLOTS as u64 {
            return 0;
        }
        let calls = self.calls.load(Ordering::Acquire);
        // The calls may be those of a newer slot. Then `Acquire` of one of its counts makes its number visible here, and numbers never come
        // back, so an unchanged number means that they are of this one.
        if self.number.load(Ordering::Relaxed) == number { calls } else { 0 }
    }
}
