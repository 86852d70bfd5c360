//! The last N calls: a ring of two bits a call.

use super::tally::{Call, Tally};

const BITS: usize = u64::BITS as usize;

#[derive(Clone, Debug)]
pub(super) struct Ring {
    failed: Box<[u64]>,
    slow: Box<[u64]>,
    size: usize,
    next: usize,
    tally: Tally,
}

impl Ring {
    pub(super) fn new(size: u32) -> Self {
        let size = size as usize;
        let words = size.div_ceil(BITS);
        Self { failed: vec![0; words].into(), slow: vec![0; words].into(), size, next: 0, tally: Tally::default() }
    }

    pub(super) fn record(&mut self, call: Call) {
        if self.is_full() {
            let oldest = self.at(self.next);
            self.tally.remove(oldest);
        }
        let (word, bit) = (self.next / BITS, 1 << (self.next % BITS));
        set(&mut self.failed[word], bit, call.failed);
        set(&mut self.slow[word], bit, call.slow);
        self.tally.add(call);
        self.next += 1;
        if self.next == self.size {
            self.next = 0;
        }
    }

    pub(super) const fn size(&self) -> u64 {
        self.size as u64
    }

    pub(super) const fn tally(&self) -> Tally {
        self.tally
    }

    /// The tally once so many more calls have pushed the oldest out, without these calls themselves.
    pub(super) fn tally_before(&self, more: u64) -> Tally {
        let more = usize::try_from(more).unwrap_or(usize::MAX).min(self.size);
        let held = self.tally.calls as usize;
        let pushed_out = more.saturating_sub(self.size - held);
        let first = if self.is_full() { self.next } else { 0 };
        let mut tally = self.tally;
        tally.subtract(self.count(first, pushed_out));
        tally
    }

    /// Counts so many calls from this one on, around the end of the ring: a word at a time.
    fn count(&self, first: usize, calls: usize) -> Tally {
        let mut tally = Tally { calls: calls as u64, ..Tally::default() };
        let (mut at, mut left) = (first, calls);
        while left > 0 {
            let bit = at % BITS;
            let run = left.min(BITS - bit).min(self.size - at);
            let mask = (u64::MAX >> (BITS - run)) << bit;
            tally.failed += u64::from((self.failed[at / BITS] & mask).count_ones());
            tally.slow += u64::from((self.slow[at / BITS] & mask).count_ones());
            left -= run;
            at += run;
            if at == self.size {
                at = 0;
            }
        }
        tally
    }

    /// Whether no call in it failed or was slow.
    pub(super) const fn is_good(&self) -> bool {
        self.tally.is_good()
    }

    /// Whether one more good call would change nothing.
    pub(super) const fn is_saturated_with_good(&self) -> bool {
        self.is_full() && self.is_good()
    }

    /// A ring of another size with the calls that fit it, the youngest.
    pub(super) fn resized(&self, size: u32) -> Self {
        let mut resized = Self::new(size);
        let held = self.tally.calls as usize;
        let first = if self.is_full() { self.next } else { 0 };
        for age in held.saturating_sub(resized.size)..held {
            resized.record(self.at((first + age) % self.size));
        }
        resized
    }

    const fn is_full(&self) -> bool {
        self.tally.calls == self.size as u64
    }

    fn at(&self, index: usize) -> Call {
        let (word, bit) = (index / BITS, 1 << (index % BITS));
        Call { failed: self.failed[word] & bit != 0, slow: self.slow[word] & bit != 0 }
    }
}

const fn set(word: &mut u64, bit: u64, on: bool) {
    if on {
        *word |= bit;
    } else {
        *word &= !bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recount(calls: &[Call]) -> Tally {
        let mut tally = Tally::default();
        calls.iter().for_each(|call| tally.add(*call));
        tally
    }

    fn call() -> impl Strategy<Value = Call> {
        (any::<bool>(), any::<bool>()).prop_map(|(failed, slow)| Call { failed, slow })
    }

    proptest! {
        #[test]
        fn the_ring_counts_exactly_the_last_n(
            size in 1_u32..200,
            calls in prop::collection::vec(call(), 0..500),
            resize in 1_u32..200,
            more in prop::collection::vec(call(), 0..300),
        ) {
            let mut ring = Ring::new(size);
            let mut held = Vec::new();
            let last = |held: &[Call], n: u32| held[held.len().saturating_sub(n as usize)..].to_vec();
            for call in calls {
                ring.record(call);
                held.push(call);
                prop_assert_eq!(ring.tally(), recount(&last(&held, size)));
            }
            for more in [0, 1, size / 2, size, 2 * size] {
                let kept = last(&held, size.saturating_sub(more));
                prop_assert_eq!(ring.tally_before(u64::from(more)), recount(&kept));
            }
            held = last(&held, size);
            let mut ring = ring.resized(resize);
            held = last(&held, resize);
            prop_assert_eq!(ring.tally(), recount(&held));
            for call in more {
                let saturated = ring.is_saturated_with_good() && call == Call::default();
                let before = ring.tally();
                ring.record(call);
                held.push(call);
                prop_assert_eq!(ring.tally(), recount(&last(&held, resize)));
                prop_assert!(!saturated || before == ring.tally());
            }
        }
    }
}
