//! How long a circuit stays open: a small value, and a pure function of the circumstances.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    error::{ConfigError, Trip},
    outcome::Outcome,
    time::nanos,
};

/// How long a circuit stays open.
///
/// ```
/// # use std::time::Duration;
/// # use buttress::circuit_breaker::OpenTime;
/// const PATIENT: OpenTime =
///     OpenTime::exponential(Duration::from_secs(1), Duration::from_secs(300)).or_retry_after(Duration::from_secs(600));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OpenTime {
    length: Length,
    jitter: f64,
    retry_after_cap: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
enum Length {
    Fixed(Duration),
    Exponential { first: Duration, cap: Duration },
    Function(fn(&Opening) -> Duration),
}

/// The circumstances in which a circuit opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opening {
    /// How many half-open periods have failed since the circuit was last closed: 0 when it opens for the first time.
    pub cycle: u32,
    /// What opened it.
    pub trip: Trip,
    /// How the call ended that opened it, or `None` when none did (a call in flight grew too slow, was cancelled, or panicked).
    pub outcome: Option<Outcome>,
}

pub(super) const OPEN_TIME: Duration = Duration::from_secs(60);

// ===== impl OpenTime =====

impl OpenTime {
    /// Always the same.
    #[must_use]
    pub const fn fixed(time: Duration) -> Self {
        Self::new(Length::Fixed(time))
    }

    /// `first`, then twice as long after each half-open period that failed, up to `cap`; back to `first` once the circuit has closed.
    ///
    /// With a [jitter](Self::jitter) of 0.1.
    #[must_use]
    pub const fn exponential(first: Duration, cap: Duration) -> Self {
        Self::new(Length::Exponential { first, cap }).jitter(0.1)
    }

    /// Whatever the function answers. It runs under no lock; if it panics, the circuit stays open for 60 s.
    #[must_use]
    pub const fn function(time: fn(&Opening) -> Duration) -> Self {
        Self::new(Length::Function(time))
    }

    const fn new(length: Length) -> Self {
        Self { length, jitter: 0.0, retry_after_cap: None }
    }

    /// Shortens each time by a random part of up to this ratio, so that a fleet does not probe in step. Defaults to 0, exponential to 0.1.
    #[must_use]
    pub const fn jitter(mut self, ratio: f64) -> Self {
        self.jitter = ratio;
        self
    }

    /// When the failure that opened the circuit said when to come back, then that, but no longer than `cap`; it is not jittered.
    #[must_use]
    pub const fn or_retry_after(mut self, cap: Duration) -> Self {
        self.retry_after_cap = Some(cap);
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let err = |problem| Err(ConfigError::new("open_time", problem));
        match self.length {
            Length::Fixed(Duration::ZERO) => return err("must be longer than zero"),
            Length::Exponential { first, .. } if first.is_zero() => {
                return err("must be longer than zero");
            }
            Length::Exponential { first, cap } if cap < first => {
                return err("must not have a cap below its first time");
            }
            _ => {}
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return err("must have a jitter from 0 to 1");
        }
        if self.retry_after_cap == Some(Duration::ZERO) {
            return err("must have a retry_after cap longer than zero");
        }
        Ok(())
    }

    /// The user's function, which must not run under the lock.
    pub(super) const fn user_function(&self) -> Option<fn(&Opening) -> Duration> {
        match self.length {
            Length::Function(function) => Some(function),
            Length::Fixed(_) | Length::Exponential { .. } => None,
        }
    }

    /// How long to stay open. `asked` is what the user's function answered.
    pub(super) fn length(&self, opening: &Opening, asked: Option<Duration>, seed: u64) -> Duration {
        let retry_after = opening.outcome.and_then(|outcome| outcome.retry_after());
        if let (Some(cap), Some(retry_after)) = (self.retry_after_cap, retry_after)
            && !retry_after.is_zero()
        {
            return retry_after.min(cap);
        }
        let length = match self.length {
            Length::Fixed(time) => time,
            Length::Exponential { first, cap } => {
                // At most 2^64 times 2^64: it fits.
                let nanos = (u128::from(nanos(first)) << opening.cycle.min(63)).min(u128::from(u64::MAX));
                Duration::from_nanos(nanos as u64).min(cap)
            }
            Length::Function(_) => asked.unwrap_or(OPEN_TIME),
        };
        if self.jitter == 0.0 {
            return length;
        }
        let part = SmallRng::seed_from_u64(seed).random::<f64>() * self.jitter;
        // At most the whole of it is taken off, so this can neither overflow nor be negative.
        length.saturating_sub(Duration::try_from_secs_f64(length.as_secs_f64() * part).unwrap_or(Duration::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn opening(cycle: u32) -> Opening {
        Opening { cycle, trip: Trip::ProbesFailed, outcome: None }
    }

    #[test]
    fn an_exponential_time_doubles_up_to_its_cap_and_starts_again() {
        let time = OpenTime::exponential(SECOND, 10 * SECOND).jitter(0.0);
        let seconds = [0, 1, 2, 3, 4, 31, 32, u32::MAX].map(|cycle| time.length(&opening(cycle), None, 0).as_secs());
        assert_eq!(seconds, [1, 2, 4, 8, 10, 10, 10, 10]);
        let tiny = OpenTime::exponential(Duration::from_nanos(1), 60 * SECOND).jitter(0.0);
        assert_eq!(tiny.length(&opening(u32::MAX), None, 0), 60 * SECOND);
    }

    #[test]
    fn the_failures_own_word_wins_up_to_its_cap() {
        let time = OpenTime::fixed(SECOND).jitter(1.0).or_retry_after(60 * SECOND);
        let said = |retry_after| Opening {
            outcome: Some(Outcome::Transient { retry_after: Some(retry_after) }),
            ..opening(0)
        };
        assert_eq!(time.length(&said(7 * SECOND), None, 1), 7 * SECOND);
        assert_eq!(time.length(&said(Duration::MAX), None, 1), 60 * SECOND);
        assert!(time.length(&said(Duration::ZERO), None, 1) <= SECOND);
        assert!(OpenTime::fixed(SECOND).length(&said(7 * SECOND), None, 1) == SECOND);
    }

    proptest! {
        #[test]
        fn a_jittered_time_stays_between_its_bounds(
            first in 1_u64..u64::MAX, cap in 1_u64..u64::MAX, jitter in 0.0..=1.0, cycle: u32, seed: u64,
        ) {
            let (first, cap) = (Duration::from_nanos(first.min(cap)), Duration::from_nanos(cap));
            let exact = OpenTime::exponential(first, cap).jitter(0.0).length(&opening(cycle), None, seed);
            let jittered = OpenTime::exponential(first, cap).jitter(jitter).length(&opening(cycle), None, seed);
            prop_assert!(exact <= cap);
            prop_assert!(jittered <= exact);
            prop_assert!(jittered.as_secs_f64() >= exact.as_secs_f64() * (1.0 - jitter) * 0.999_999);
        }
    }
}
