//! From the ticks of a counter to nanoseconds, in one multiplication.

/// How long a tick is: `whole` nanoseconds and `part` of 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    whole: u64,
    part: u64,
}

impl Scale {
    /// As a clock counts that is asked how long so many ticks are. It rounds down, so the scale is behind it, by a nanosecond in 73 years at most.
    pub(super) fn of(nanos: impl Fn(u64) -> u64) -> Self {
        let whole = nanos(1);
        // The largest power of two of ticks whose nanoseconds still have room.
        let shift = whole.saturating_add(1).leading_zeros().clamp(1, 63);
        let rest = nanos(1 << shift).saturating_sub(whole << shift);
        Self { whole, part: rest << (64 - shift) }
    }

    #[inline]
    pub(super) fn nanos(self, ticks: u64) -> u64 {
        let part = ((u128::from(ticks) * u128::from(self.part)) >> 64) as u64;
        // A counter that is worth the trouble ticks more often.
        if self.whole == 0 { part } else { ticks.saturating_mul(self.whole).saturating_add(part) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a clock counts that knows its rate as a fraction of a power of two.
    fn fraction(numerator: u64, shift: u32) -> impl Fn(u64) -> u64 {
        move |ticks| u64::try_from((u128::from(ticks) * u128::from(numerator)) >> shift).unwrap_or(u64::MAX)
    }

    #[test]
    fn a_tick_that_is_a_nanosecond_stays_one() {
        let scale = Scale::of(|ticks| ticks);
        assert_eq!(scale, Scale { whole: 1, part: 0 });
        assert_eq!((scale.nanos(0), scale.nanos(7), scale.nanos(u64::MAX)), (0, 7, u64::MAX));
    }

    #[test]
    fn a_slow_counter_has_whole_nanoseconds_to_a_tick() {
        // 24 MHz.
        let scale = Scale::of(|ticks| u64::try_from(u128::from(ticks) * 1_000 / 24).unwrap_or(u64::MAX));
        assert_eq!((scale.nanos(24), scale.nanos(24_000_000)), (999, 999_999_999));
        assert_eq!(scale.nanos(u64::MAX), u64::MAX, "it saturates");
    }

    proptest! {
        /// From 40 GHz down to 1 MHz, for 73 years.
        #[test]
        fn it_counts_as_the_clock_does(nanos in 0.025..1_000.0_f64, part in 0.0..1.0_f64) {
            let clock = fraction((nanos * f64::from(1 << 22)) as u64, 22);
            let most = (2.0_f64.powi(61) / nanos).min(2.0_f64.powi(63));
            let ticks = (most * part) as u64;
            let behind = clock(ticks) - Scale::of(&clock).nanos(ticks);
            prop_assert!(behind <= 1, "{behind}");
        }

        #[test]
        fn it_never_steps_back(nanos in 0.025..1_000.0_f64, ticks in 0..u64::MAX) {
            let scale = Scale::of(fraction((nanos * f64::from(1 << 22)) as u64, 22));
            prop_assert!(scale.nanos(ticks) <= scale.nanos(ticks + 1));
        }
    }
}
