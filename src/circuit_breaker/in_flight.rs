//! Calls that are pending, oldest first, so that one that has grown too old counts before it ends.
//!
//! A linked list in a slab: every step is O(1), and memory grows with the calls in flight and with nothing else.

use std::time::Duration;

use crate::time::Instant;

const NONE: u32 = u32::MAX;

/// A call's place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u32);

#[derive(Clone, Debug)]
pub(super) struct InFlight {
    entries: Vec<Entry>,
    free: u32,
    oldest: u32,
    youngest: u32,
    /// The oldest that is not overdue yet.
    next: u32,
    overdue: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    started: Instant,
    overdue: bool,
    older: u32,
    younger: u32,
}

impl InFlight {
    pub(super) const fn new() -> Self {
        Self { entries: Vec::new(), free: NONE, oldest: NONE, youngest: NONE, next: NONE, overdue: 0 }
    }

    /// How many are overdue and still pending.
    pub(super) const fn overdue(&self) -> u64 {
        self.overdue
    }

    /// Forgets all of them, and keeps the memory.
    pub(super) fn clear(&mut self) {
        *self = Self { entries: std::mem::take(&mut self.entries), ..Self::new() };
        self.entries.clear();
    }

    /// Adds a call that has just begun. `None` when 2^32 - 1 are pending: that one is not watched.
    pub(super) fn push(&mut self, now: Instant) -> Option<Slot> {
        let younger_than = self.youngest;
        let entry = Entry {
            // Two threads may come in another order than they read the clock.
            started: match self.get(younger_than) {
                Some(youngest) => now.max(youngest.started),
                None => now,
            },
            overdue: false,
            older: younger_than,
            younger: NONE,
        };
        let index = match self.get(self.free) {
            Some(free) => {
                let index = self.free;
                self.free = free.younger;
                self.entries[index as usize] = entry;
                index
            }
            None => {
                let index = u32::try_from(self.entries.len()).ok().filter(|i| *i != NONE)?;
                self.entries.push(entry);
                index
            }
        };
        match self.entries.get_mut(younger_than as usize) {
            Some(older) => older.younger = index,
            None => self.oldest = index,
        }
        self.youngest = index;
        if self.next == NONE {
            self.next = index;
        }
        Some(Slot(index))
    }

    /// Takes a call out. Returns whether it was overdue.
    pub(super) fn remove(&mut self, Slot(index): Slot) -> bool {
        let entry = self.entries[index as usize];
        match self.entries.get_mut(entry.older as usize) {
            Some(older) => older.younger = entry.younger,
            None => self.oldest = entry.younger,
        }
        match self.entries.get_mut(entry.younger as usize) {
            Some(younger) => younger.older = entry.older,
            None => self.youngest = entry.older,
        }
        if self.next == index {
            self.next = entry.younger;
        }
        self.overdue -= u64::from(entry.overdue);
        self.entries[index as usize].younger = self.free;
        self.free = index;
        entry.overdue
    }

    /// Marks the calls that are at least so old. Returns how many became overdue: each is looked at once in its life.
    pub(super) fn sweep(&mut self, now: Instant, threshold: Duration) -> u64 {
        let mut found = 0;
        while self.overdue_at(threshold).is_some_and(|at| at <= now) {
            let entry = &mut self.entries[self.next as usize];
            entry.overdue = true;
            self.next = entry.younger;
            found += 1;
        }
        self.overdue += found;
        found
    }

    /// When the next call becomes overdue.
    pub(super) fn overdue_at(&self, threshold: Duration) -> Option<Instant> {
        self.get(self.next).map(|entry| entry.started.saturating_add(threshold))
    }

    fn get(&self, index: u32) -> Option<Entry> {
        self.entries.get(index as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Remove(prop::sample::Index),
        Wait(u64),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => Just(Step::Push),
            6 => any::<prop::sample::Index>().prop_map(Step::Remove),
            4 => (0_u64..20).prop_map(Step::Wait),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #[test]
        fn the_list_agrees_with_a_plain_vector(steps in prop::collection::vec(step(), 0..400)) {
            let threshold = Duration::from_nanos(10);
            let mut list = InFlight::new();
            let mut model: Vec<(Slot, u64, bool)> = Vec::new();
            let (mut now, mut most) = (0, 0);
            for step in steps {
                match step {
                    Step::Push => {
                        let slot = list.push(Instant::from_nanos(now)).unwrap();
                        prop_assert!(model.iter().all(|(taken, ..)| *taken != slot));
                        model.push((slot, now, false));
                    }
                    Step::Remove(index) if !model.is_empty() => {
                        let (slot, _, overdue) = model.remove(index.index(model.len()));
                        prop_assert_eq!(list.remove(slot), overdue);
                    }
                    Step::Remove(_) => {}
                    Step::Wait(time) => {
                        now += time;
                        let mut found = 0;
                        for (_, started, overdue) in &mut model {
                            if !*overdue && *started + 10 <= now {
                                *overdue = true;
                                found += 1;
                            }
                        }
                        prop_assert_eq!(list.sweep(Instant::from_nanos(now), threshold), found);
                    }
                    Step::Clear => {
                        list.clear();
                        model.clear();
                    }
                }
                most = most.max(model.len());
                prop_assert_eq!(list.overdue(), model.iter().filter(|(.., overdue)| *overdue).count() as u64);
                let next = model.iter().filter(|(.., overdue)| !overdue).map(|(_, started, _)| started + 10).min();
                prop_assert_eq!(list.overdue_at(threshold).map(Instant::as_nanos), next);
                prop_assert!(list.entries.len() <= most);
            }
        }
    }
}
