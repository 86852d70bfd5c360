//! How long to wait before each retry: a small value, and a pure function of the attempt and a seed.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{error::ConfigError, random, time::nanos};

/// How long to wait before each retry: an endless iterator of delays.
///
/// # Defaults
///
/// | setting | default | from |
/// |---|---|---|
/// | [`first`](Self::exponential) | 100 ms | |
/// | [`factor`](Self::factor) of the exponential | 2 | everybody |
/// | [`cap`](Self::cap) | 20 s | AWS SDKs |
/// | [`jitter`](Self::jitter) | [full](Jitter::Full) | AWS SDKs |
/// | [`seed`](Self::seed) | differs between calls and processes | |
///
/// ```
/// # use std::time::Duration;
/// use buttress::retry::{Backoff, Jitter};
/// let seconds = Backoff::exponential(Duration::from_secs(1)).jitter(Jitter::None).take(4).map(|delay| delay.as_secs());
/// assert_eq!(seconds.collect::<Vec<_>>(), [1, 2, 4, 8]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    growth: Growth,
    /// All lengths are in nanoseconds, 584 years at most.
    cap: u64,
    jitter: Jitter,
    /// 0 stands for none.
    seed: u64,
    /// How many delays there were, and the last of them.
    retries: u32,
    previous: u64,
}

/// How much chance there is in a delay, so that callers who failed together do not come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    /// Anything from nothing to the whole delay: spreads the load best.
    Full,
    /// Anything from half the delay to the whole.
    Equal,
    /// Anything from the first delay to three times the previous one, however the delays would grow otherwise.
    Decorrelated,
    /// No chance.
    None,
}

#[derive(Clone, Copy, Debug)]
enum Growth {
    Exponential { first: u64, factor: f64 },
    Linear { first: u64, step: u64 },
    Constant(u64),
    Custom(fn(u32) -> Duration),
}

impl PartialEq for Growth {
    /// To the bit: settings that are equal give equal delays.
    fn eq(&self, other: &Self) -> bool {
        match (*self, *other) {
            (Self::Exponential { first: a, factor: x }, Self::Exponential { first: b, factor: y }) => {
                a == b && x.to_bits() == y.to_bits()
            }
            (Self::Linear { first: a, step: x }, Self::Linear { first: b, step: y }) => a == b && x == y,
            (Self::Constant(a), Self::Constant(b)) => a == b,
            (Self::Custom(a), Self::Custom(b)) => std::ptr::fn_addr_eq(a, b),
            _ => false,
        }
    }
}

// ===== impl Backoff =====

impl Backoff {
    /// `first`, then twice as long each time.
    #[must_use]
    pub const fn exponential(first: Duration) -> Self {
        Self::new(Growth::Exponential { first: nanos(first), factor: 2.0 })
    }

    /// `first`, then `step` longer each time.
    #[must_use]
    pub const fn linear(first: Duration, step: Duration) -> Self {
        Self::new(Growth::Linear { first: nanos(first), step: nanos(step) })
    }

    /// Always the same.
    #[must_use]
    pub const fn constant(delay: Duration) -> Self {
        Self::new(Growth::Constant(nanos(delay)))
    }

    /// Whatever the function answers for the number of the retry, from 0.
    #[must_use]
    pub const fn custom(delay: fn(u32) -> Duration) -> Self {
        Self::new(Growth::Custom(delay))
    }

    const fn new(growth: Growth) -> Self {
        let cap = nanos(Duration::from_secs(20));
        // What is the same each time, and what was asked for by itself, is not cut short.
        let cap = match growth {
            Growth::Constant(_) | Growth::Custom(_) => u64::MAX,
            Growth::Exponential { .. } | Growth::Linear { .. } => cap,
        };
        Self { growth, cap, jitter: Jitter::Full, seed: 0, retries: 0, previous: 0 }
    }

    /// By what an exponential delay grows, at least 1; the others do not care. Defaults to 2.
    #[must_use]
    pub const fn factor(mut self, factor: f64) -> Self {
        if let Growth::Exponential { first, .. } = self.growth {
            self.growth = Growth::Exponential { first, factor };
        }
        self
    }

    /// No delay is longer; it is applied last. Defaults to 20 s for those that grow, and none for the others.
    #[must_use]
    pub const fn cap(mut self, cap: Duration) -> Self {
        self.cap = nanos(cap);
        self
    }

    /// How much chance there is in a delay. Defaults to [`Jitter::Full`].
    #[must_use]
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// Makes the delays the same in each run, for tests. Defaults to another seed for each call.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        // Zero is as good as any other number, but taken.
        self.seed = if seed == 0 { u64::MAX } else { seed };
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let err = |problem| Err(ConfigError::new("backoff", problem));
        match self.growth {
            Growth::Exponential { first: 0, .. } | Growth::Linear { first: 0, step: 0 } => {
                return err("must not stay at zero: a constant delay can be zero");
            }
            Growth::Exponential { factor, .. } if !(factor.is_finite() && factor >= 1.0) => {
                return err("must have a factor of at least 1");
            }
            Growth::Exponential { first, .. } | Growth::Linear { first, .. } | Growth::Constant(first)
                if self.cap < first =>
            {
                return err("must not have a cap below its first delay");
            }
            _ => {}
        }
        if self.cap == 0 && !matches!(self.growth, Growth::Constant(0)) {
            return err("must have a cap longer than zero");
        }
        Ok(())
    }

    /// The delay without chance, and without the cap.
    fn grown(&self, retry: u32) -> u64 {
        match self.growth {
            Growth::Exponential { first, factor } => {
                // At most infinity, which is saturated like every number that is too large; a factor that is none counts as 1.
                let power = factor.max(1.0).powi(i32::try_from(retry).unwrap_or(i32::MAX));
                (first as f64 * power) as u64
            }
            Growth::Linear { first, step } => first.saturating_add(step.saturating_mul(u64::from(retry))),
            Growth::Constant(delay) => delay,
            Growth::Custom(delay) => nanos(delay(retry)),
        }
    }

    /// The delay before this retry, from 0: a pure function.
    fn delay(&self, retry: u32, previous: u64, seed: u64) -> u64 {
        let mut rng = SmallRng::seed_from_u64(seed ^ u64::from(retry));
        // Never nothing of something: a chance of zero is no delay at all.
        let mut from_to = |low: u64, high: u64| if high == 0 { 0 } else { rng.random_range(low.clamp(1, high)..=high) };
        let capped = |retry| self.grown(retry).min(self.cap);
        match self.jitter {
            Jitter::None => capped(retry),
            Jitter::Full => from_to(1, capped(retry)),
            Jitter::Equal => {
                let whole = capped(retry);
                from_to(whole - whole / 2, whole)
            }
            Jitter::Decorrelated => {
                let first = capped(0);
                from_to(first, previous.max(first).saturating_mul(3)).min(self.cap)
            }
        }
    }
}

impl Default for Backoff {
    /// 100 ms, 200 ms, .. up to 20 s, with full jitter.
    fn default() -> Self {
        Self::exponential(Duration::from_millis(100))
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.seed == 0 {
            self.seed = random::seed();
        }
        self.previous = self.delay(self.retries, self.previous, self.seed);
        self.retries = self.retries.saturating_add(1);
        Some(Duration::from_nanos(self.previous))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const JITTERS: [Jitter; 4] = [Jitter::Full, Jitter::Equal, Jitter::Decorrelated, Jitter::None];

    fn seconds(backoff: Backoff, n: usize) -> Vec<f64> {
        backoff.jitter(Jitter::None).take(n).map(|delay| delay.as_secs_f64()).collect()
    }

    #[test]
    fn delays_grow_as_they_are_told() {
        assert_eq!(seconds(Backoff::exponential(SECOND), 6), [1.0, 2.0, 4.0, 8.0, 16.0, 20.0]);
        assert_eq!(seconds(Backoff::exponential(SECOND).factor(1.5).cap(3 * SECOND), 5), [1.0, 1.5, 2.25, 3.0, 3.0]);
        assert_eq!(seconds(Backoff::linear(SECOND, 2 * SECOND).cap(6 * SECOND), 4), [1.0, 3.0, 5.0, 6.0]);
        assert_eq!(seconds(Backoff::constant(60 * SECOND), 2), [60.0, 60.0]);
        assert_eq!(seconds(Backoff::custom(|retry| SECOND * (10 - retry)), 3), [10.0, 9.0, 8.0]);
        assert_eq!(seconds(Backoff::default(), 3), [0.1, 0.2, 0.4]);
    }

    /// Everything is at the end of its range, and a step further.
    #[test]
    fn polly_2163_delay_never_negative() {
        let growths = [
            Backoff::exponential(SECOND),
            Backoff::exponential(Duration::from_nanos(1)).factor(f64::MAX),
            Backoff::exponential(Duration::MAX).cap(Duration::MAX),
            Backoff::exponential(SECOND).factor(f64::NAN),
            Backoff::linear(Duration::ZERO, Duration::MAX).cap(Duration::MAX),
            Backoff::constant(SECOND),
            Backoff::custom(|_| Duration::MAX).cap(SECOND),
        ];
        for growth in growths {
            for jitter in JITTERS {
                let backoff = growth.clone().jitter(jitter);
                let mut longest = 0;
                for retry in (0..=2_000).chain([u32::MAX / 2, i32::MAX as u32, u32::MAX - 1, u32::MAX]) {
                    let delay = backoff.delay(retry, u64::MAX, 7);
                    assert!(delay <= backoff.cap, "{backoff:?} {retry}");
                    assert!(delay > 0 || backoff.grown(retry) == 0, "{backoff:?} {retry}");
                    let grown = backoff.grown(retry).min(backoff.cap);
                    assert!(grown >= longest, "{backoff:?} {retry}");
                    longest = grown;
                }
            }
        }
    }

    #[test]
    fn an_iterator_never_ends_and_never_panics() {
        let mut backoff = Backoff { retries: u32::MAX - 2, ..Backoff::exponential(SECOND) };
        assert!(backoff.by_ref().take(5).all(|delay| delay <= 20 * SECOND));
    }

    #[test]
    fn a_seed_makes_the_delays_the_same_and_none_does_not() {
        let five = |backoff: Backoff| backoff.take(5).collect::<Vec<_>>();
        assert_eq!(five(Backoff::default().seed(7)), five(Backoff::default().seed(7)));
        assert_ne!(five(Backoff::default().seed(7)), five(Backoff::default().seed(8)));
        assert_ne!(five(Backoff::default()), five(Backoff::default()));
    }

    /// The mean over many seeds tells the jitters apart.
    #[test]
    fn each_jitter_has_its_own_mean() {
        let mean = |jitter| {
            let backoff = Backoff::constant(SECOND).jitter(jitter);
            let sum: f64 = (0..4_000).map(|seed| backoff.delay(1, 1_000_000_000, seed) as f64 / 1e9).sum();
            sum / 4_000.0
        };
        for (jitter, expected) in
            [(Jitter::Full, 0.5), (Jitter::Equal, 0.75), (Jitter::Decorrelated, 2.0), (Jitter::None, 1.0)]
        {
            assert!((mean(jitter) - expected).abs() < 0.05, "{jitter:?}: {}", mean(jitter));
        }
    }

    #[test]
    fn polly_1866_the_cap_comes_last() {
        for jitter in JITTERS {
            let mut delays = Backoff::exponential(SECOND).cap(5 * SECOND).jitter(jitter).take(5_000);
            assert!(delays.all(|delay| delay <= 5 * SECOND && !delay.is_zero()), "{jitter:?}");
        }
    }

    /// tower_843_nan_and_negative_factors
    #[test]
    fn settings_that_cannot_work_are_errors() {
        for factor in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, -0.0, 0.0, 0.999] {
            assert!(Backoff::exponential(SECOND).factor(factor).check().is_err(), "{factor}");
        }
        for backoff in [
            Backoff::exponential(Duration::ZERO),
            Backoff::linear(Duration::ZERO, Duration::ZERO),
            Backoff::exponential(30 * SECOND),
            Backoff::custom(|_| SECOND).cap(Duration::ZERO),
            Backoff::constant(SECOND).cap(Duration::from_millis(1)),
        ] {
            assert_eq!(backoff.check().unwrap_err().field(), "backoff", "{backoff:?}");
        }
        assert!(Backoff::constant(Duration::ZERO).check().is_ok());
        assert!(Backoff::linear(Duration::ZERO, SECOND).check().is_ok());
        assert!(Backoff::exponential(Duration::MAX).cap(Duration::MAX).factor(f64::MAX).check().is_ok());
    }

    proptest! {
        #[test]
        fn delays_keep_their_law(
            first in 1_u64..u64::MAX, factor in 1.0_f64..1e6, cap in 1_u64..u64::MAX, seed: u64, start: u32,
        ) {
            let first = Duration::from_nanos(first.min(cap));
            for jitter in JITTERS {
                let backoff = Backoff::exponential(first).factor(factor).cap(Duration::from_nanos(cap)).jitter(jitter).seed(seed);
                let backoff = Backoff { retries: start, ..backoff };
                let mut previous = first;
                for (n, delay) in backoff.clone().take(50).enumerate() {
                    let whole = Duration::from_nanos(backoff.grown(start.saturating_add(n as u32)).min(cap));
                    let (low, high) = match jitter {
                        Jitter::None => (whole, whole),
                        Jitter::Full => (Duration::from_nanos(1), whole),
                        Jitter::Equal => (whole / 2, whole),
                        Jitter::Decorrelated => (first, previous.max(first).saturating_mul(3)),
                    };
                    prop_assert!(low <= delay && delay <= high && delay.as_nanos() <= u128::from(cap), "{low:?} {delay:?} {high:?}");
                    previous = delay;
                }
            }
        }
    }
}
