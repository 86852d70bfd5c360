//! What windows count.

/// How a call ended, for a window. The default is a good call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) failed: bool,
    pub(super) slow: bool,
}

/// Calls, and how many of them failed or were slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) slow: u64,
}

impl Tally {
    #[inline]
    pub(super) fn add(&mut self, call: Call) {
        self.calls = self.calls.saturating_add(1);
        self.failed = self.failed.saturating_add(u64::from(call.failed));
        self.slow = self.slow.saturating_add(u64::from(call.slow));
    }

    #[inline]
    pub(super) fn remove(&mut self, call: Call) {
        self.calls -= 1;
        self.failed -= u64::from(call.failed);
        self.slow -= u64::from(call.slow);
    }

    /// Whether no call failed or was slow.
    pub(super) const fn is_good(&self) -> bool {
        self.failed == 0 && self.slow == 0
    }

    pub(super) const fn merge(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.failed = self.failed.saturating_add(other.failed);
        self.slow = self.slow.saturating_add(other.slow);
    }

    pub(super) const fn subtract(&mut self, other: Self) {
        self.calls = self.calls.saturating_sub(other.calls);
        self.failed = self.failed.saturating_sub(other.failed);
        self.slow = self.slow.saturating_sub(other.slow);
    }
}

/// Whether `part` of `whole` is at least so many millionths: exact, and false of nothing.
pub(super) fn at_least(part: u64, whole: u64, ppm: u32) -> bool {
    whole > 0 && u128::from(part) * 1_000_000 >= u128::from(whole) * u128::from(ppm)
}

/// `part` of `whole` as a ratio, or `None` of nothing.
pub(super) fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// `part` of `whole` in per cent, rounded down, but not to nothing.
pub(super) fn percent(part: u64, whole: u64) -> u8 {
    // At most 100, because a part is no larger than its whole.
    let percent = (u128::from(part) * 100 / u128::from(whole.max(1))).min(100) as u8;
    percent.max(u8::from(part > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_reached_exactly_at_its_boundary() {
        assert!(at_least(50, 100, 500_000));
        assert!(!at_least(49, 100, 500_000));
        assert!(at_least(1, 3, 333_333));
        assert!(!at_least(1, 3, 333_334));
        assert!(at_least(u64::MAX, u64::MAX, 1_000_000));
        assert!(!at_least(0, 0, 1));
    }

    #[test]
    fn nothing_has_no_rate() {
        assert_eq!((ratio(0, 0), percent(0, 0)), (None, 0));
        assert_eq!((percent(1, 1_000), percent(999, 1_000)), (1, 99));
        assert_eq!((ratio(1, 4), percent(u64::MAX, u64::MAX)), (Some(0.25), 100));
    }
}
