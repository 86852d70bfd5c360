//! What a retry costs.

use std::fmt;

/// What a retry takes from a [`Budget`](super::Budget), in hundredths of a retry.
///
/// A kind of failure that says the dependency is overloaded can be given a higher cost, and one that costs it nothing a lower one, as in
/// the token bucket of the AWS SDKs, where a time-out was twice as dear as any other failure.
///
/// ```
/// # use buttress::Cost;
/// const TIMED_OUT: Cost = Cost::retries(2);
/// const THROTTLED: Cost = Cost::percent(35);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(u64);

impl Cost {
    /// Nothing: always granted.
    pub const ZERO: Self = Self(0);
    /// One retry.
    pub const ONE: Self = Self::retries(1);

    /// So many retries.
    #[must_use]
    pub const fn retries(n: u32) -> Self {
        Self(n as u64 * 100)
    }

    /// So many hundredths of a retry.
    #[must_use]
    pub const fn percent(n: u32) -> Self {
        Self(n as u64)
    }

    /// In hundredths of a retry.
    #[must_use]
    pub const fn as_percent(self) -> u64 {
        self.0
    }

    pub(super) const fn new(hundredths: u64) -> Self {
        Self(hundredths)
    }
}

impl fmt::Display for Cost {
    /// As a number of retries: `2`, `0.35`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, part) => write!(f, "{whole}.{part:02}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_reads_as_a_number_of_retries() {
        let read = [Cost::ZERO, Cost::ONE, Cost::percent(35), Cost::percent(205)].map(|cost| cost.to_string());
        assert_eq!(read, ["0", "1", "0.35", "2.05"]);
    }
}
