//! The last so much time: ten buckets, whatever the traffic.
//!
//! A bucket is forgotten whole, so the window reaches back between nine and ten tenths of its length.

use std::time::Duration;

use super::tally::{Call, Tally};
use crate::time::{Instant, nanos};

const BUCKETS: usize = 10;

#[derive(Clone, Debug)]
pub(super) struct TimeWindow {
    /// Length of a bucket in nanoseconds, at least 1.
    width: u64,
    buckets: [Tally; BUCKETS],
    tally: Tally,
    /// The bucket that counts now, numbered since the clock's origin; it lives at this number modulo ten.
    current: u64,
    /// When the current bucket ends, so that most records need no division.
    ends: u64,
}

impl TimeWindow {
    pub(super) fn new(length: Duration) -> Self {
        Self {
            width: (nanos(length) / BUCKETS as u64).max(1),
            buckets: [Tally::default(); BUCKETS],
            tally: Tally::default(),
            current: 0,
            ends: 0,
        }
    }

    #[inline]
    pub(super) fn record(&mut self, call: Call, now: Instant) {
        self.advance(now);
        self.buckets[(self.current % BUCKETS as u64) as usize].add(call);
        self.tally.add(call);
    }

    pub(super) fn tally(&mut self, now: Instant) -> Tally {
        self.advance(now);
        self.tally
    }

    /// When the next bucket leaves, unless the window is empty.
    pub(super) fn turns_at(&self) -> Option<Instant> {
        (self.tally.calls > 0).then(|| Instant::from_nanos(self.ends))
    }

    /// Whether no call in it failed or was slow, as far as it has been looked through.
    pub(super) const fn is_good(&self) -> bool {
        self.tally.is_good()
    }

    /// Forgets what has grown too old: at most ten steps, however long nobody looked.
    ///
    /// A reading that steps back counts into the current bucket.
    #[inline]
    fn advance(&mut self, now: Instant) {
        if now.as_nanos() >= self.ends {
            self.turn(now.as_nanos() / self.width);
        }
    }

    #[cold]
    #[inline(never)]
    fn turn(&mut self, number: u64) {
        let passed = number.saturating_sub(self.current);
        if passed >= BUCKETS as u64 {
            self.buckets = [Tally::default(); BUCKETS];
            self.tally = Tally::default();
        } else {
            for step in 1..=passed {
                let bucket = &mut self.buckets[((self.current + step) % BUCKETS as u64) as usize];
                self.tally.subtract(*bucket);
                *bucket = Tally::default();
            }
        }
        self.current = number;
        self.ends = number.saturating_add(1).saturating_mul(self.width);
    }

    /// A window of another length. What fits it is kept, each bucket in the new one its end falls into.
    pub(super) fn resized(&mut self, length: Duration, now: Instant) -> Self {
        self.advance(now);
        let mut resized = Self::new(length);
        for age in (0..BUCKETS as u64).rev() {
            let Some(number) = self.current.checked_sub(age) else {
                continue;
            };
            let bucket = self.buckets[(number % BUCKETS as u64) as usize];
            let end = number.saturating_add(1).saturating_mul(self.width).saturating_sub(1).min(now.as_nanos());
            resized.advance(Instant::from_nanos(end));
            resized.buckets[(resized.current % BUCKETS as u64) as usize].merge(bucket);
            resized.tally.merge(bucket);
        }
        resized.advance(now);
        resized
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BAD: Call = Call { failed: true, slow: false };
    const START: u64 = 1 << 62;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(START + nanos)
    }

    /// The calls of the last ten buckets, counted anew.
    fn recount(history: &[(u64, Call)], now: u64, width: u64) -> Tally {
        let mut tally = Tally::default();
        history
            .iter()
            .filter(|(then, _)| now / width - then / width < BUCKETS as u64)
            .for_each(|(_, call)| tally.add(*call));
        tally
    }

    proptest! {
        #[test]
        fn the_window_counts_exactly_its_ten_buckets(
            width in 1_u64..50,
            steps in prop::collection::vec((0_u64..120, any::<bool>(), any::<bool>()), 0..300),
        ) {
            let mut window = TimeWindow::new(Duration::from_nanos(width * 10));
            let mut history = Vec::new();
            let mut now = START;
            for (step, failed, slow) in steps {
                now += step;
                let call = Call { failed, slow };
                window.record(call, Instant::from_nanos(now));
                history.push((now, call));
                prop_assert_eq!(window.tally(Instant::from_nanos(now)), recount(&history, now, width));
            }
        }
    }

    #[test]
    fn a_gap_clears_it_without_counting_the_time_slept() {
        let mut window = TimeWindow::new(Duration::from_nanos(10));
        window.record(BAD, at(0));
        let ten_years = 10 * 365 * 86_400 * 1_000_000_000;
        assert_eq!(window.tally(at(ten_years)), Tally::default());
    }

    #[test]
    fn a_clock_that_steps_back_counts_into_the_present_bucket() {
        let mut window = TimeWindow::new(Duration::from_secs(10));
        let hour = 3_600_000_000_000;
        window.record(BAD, at(hour));
        window.record(BAD, at(0));
        assert_eq!(window.tally(at(0)).failed, 2);
        assert_eq!(window.tally(at(hour)).failed, 2);
    }

    #[test]
    fn a_window_of_another_length_keeps_what_fits() {
        let mut window = TimeWindow::new(Duration::from_secs(10));
        for second in 0..10 {
            window.record(BAD, at(second * 1_000_000_000));
        }
        let now = at(9_000_000_000);
        assert_eq!(window.clone().resized(Duration::from_secs(100), now).tally(now).failed, 10);
        let short = window.resized(Duration::from_secs(5), now).tally(now).failed;
        assert!((4..=6).contains(&short), "{short}");
    }

    /// The figure in the docs of `Window::Time`.
    #[test]
    fn it_is_300_bytes_however_many_calls_there_are() {
        assert!(size_of::<TimeWindow>() <= 300);
    }

    #[test]
    fn the_longest_window_and_the_end_of_time_are_harmless() {
        let mut window = TimeWindow::new(Duration::MAX);
        window.record(BAD, Instant::NEVER);
        assert_eq!(window.tally(Instant::NEVER).calls, 1);
    }
}
