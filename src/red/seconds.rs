//! How many calls one thread had begun when each of the last seconds began.
//!
//! A call only compares its time with the end of the present second. With the first call of another one, the count is written down; calls of
//! a window are then the difference of two counts.

use crate::{
    sync::{AtomicU64, Ordering},
    time::Instant,
};

/// The longest window, in whole seconds.
pub(super) const WINDOW: u64 = 60;

/// The ring is longer than that, so that what is read is not overwritten at that moment.
const MARKS: usize = 64;

const SECOND: u64 = 1_000_000_000;

pub(super) struct Seconds<const LENGTH: usize = MARKS> {
    /// When the present second ends. A reading before it began counts into it, too.
    ends: AtomicU64,
    marks: [Mark; LENGTH],
}

struct Mark {
    /// The number of the second, from 1, and all of it, so that it never comes round again. 0 says that there is none.
    number: AtomicU64,
    begun: AtomicU64,
}

/// The number of the second that `now` is in.
pub(super) const fn second(now: Instant) -> u64 {
    now.as_nanos() / SECOND + 1
}

impl<const LENGTH: usize> Seconds<LENGTH> {
    pub(super) fn new() -> Self {
        let mark = |_| Mark { number: AtomicU64::new(0), begun: AtomicU64::new(0) };
        Self { ends: AtomicU64::new(0), marks: std::array::from_fn(mark) }
    }

    /// The owner is about to begin a call, and has begun so many before.
    #[inline]
    pub(super) fn see(&self, now: Instant, begun: u64) {
        if now.as_nanos() >= self.ends.load(Ordering::Relaxed) {
            self.turn(now, begun);
        }
    }

    #[cold]
    #[inline(never)]
    fn turn(&self, now: Instant, begun: u64) {
        let number = second(now);
        let mark = &self.marks[(number % LENGTH as u64) as usize];
        // In this order: who reads the new count no longer finds the old number, and who reads the new number finds the new count.
        mark.number.store(0, Ordering::Relaxed);
        mark.begun.store(begun, Ordering::Release);
        mark.number.store(number, Ordering::Release);
        self.ends.store(number.saturating_mul(SECOND), Ordering::Relaxed);
    }

    /// How many calls its owner had begun when this second began, one of the last [`WINDOW`] or the present one. `begun` is how many it has
    /// begun by now.
    pub(super) fn begun_before(&self, second: u64, begun: u64) -> u64 {
        let first_since = self.read().filter(|(number, _)| *number >= second).min();
        // Without a call since, the count was what it is.
        first_since.map_or(begun, |(_, begun)| begun)
    }

    /// The seconds that it knows of, and what had begun before each.
    pub(super) fn read(&self) -> impl Iterator<Item = (u64, u64)> {
        self.marks.iter().filter_map(Mark::read)
    }
}

impl Mark {
    fn read(&self) -> Option<(u64, u64)> {
        let number = self.number.load(Ordering::Acquire);
        let begun = self.begun.load(Ordering::Acquire);
        // The count may be that of a newer second. Then `Acquire` of it makes the change of the number visible here.
        (number != 0 && self.number.load(Ordering::Relaxed) == number).then_some((number, begun))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        /// Beside a list of all calls.
        #[test]
        fn the_counts_are_those_of_a_list(pauses in vec(prop_oneof![0..SECOND / 3, 0..200 * SECOND], 0..300)) {
            let seconds = Seconds::<MARKS>::new();
            let mut calls = Vec::new();
            let mut now = 5 * SECOND;
            for pause in pauses {
                now += pause;
                seconds.see(Instant::from_nanos(now), calls.len() as u64);
                calls.push(second(Instant::from_nanos(now)));
                let present = *calls.last().unwrap();
                for since in present.saturating_sub(WINDOW)..=present {
                    let expected = calls.iter().filter(|call| **call < since).count() as u64;
                    prop_assert_eq!(seconds.begun_before(since, calls.len() as u64), expected);
                }
            }
        }
    }
}
