//! Where a duration is counted: buckets that double in width with every doubling of the duration, 32 to each.
//!
//! Up to 64 ns a bucket is one nanosecond wide, from there on at most 1/32 of what is in it. Its middle is off by at most half of that: 1.6 %.

/// So many buckets to a doubling, as a power of two.
const BITS: u32 = 5;

/// What takes longer, from 73 minutes, is counted in one last bucket.
const LONGEST: u64 = (1 << 42) - 1;

/// How many there are: 9.5 KiB of counters.
pub(super) const BUCKETS: usize = index(LONGEST) + 2;

/// The bucket of so many nanoseconds.
#[inline]
pub(super) const fn index(nanos: u64) -> usize {
    let nanos = if nanos > LONGEST { LONGEST + 1 } else { nanos };
    // All bits but the six highest that are set, the first of which says only where they are.
    let shift = (u64::BITS - (nanos | 1).leading_zeros()).saturating_sub(BITS + 1);
    ((shift as u64) << BITS) as usize + (nanos >> shift) as usize
}

/// The shortest and the longest duration in a bucket.
const fn bounds(index: usize) -> (u64, u64) {
    let (row, column) = (index as u64 >> BITS, index as u64 & ((1 << BITS) - 1));
    if index == BUCKETS - 1 {
        return (LONGEST + 1, u64::MAX);
    }
    if row < 2 {
        return (index as u64, index as u64);
    }
    let shift = row - 1;
    let low = ((1 << BITS) + column) << shift;
    (low, low + (1 << shift) - 1)
}

/// The duration that so many per mille of those counted do not exceed, if it were the middle of its bucket; never more than the longest.
pub(super) fn quantile(counts: &[u64], per_mille: u64, longest: u64) -> u64 {
    let total: u128 = counts.iter().map(|count| u128::from(*count)).sum();
    let rank = (total * u128::from(per_mille)).div_ceil(1000).max(1);
    let mut seen = 0;
    for (index, count) in counts.iter().enumerate() {
        seen += u128::from(*count);
        if seen >= rank {
            let (low, high) = bounds(index);
            return (low + (high - low) / 2).min(longest);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn the_buckets_leave_no_gap() {
        let mut next = 0;
        for bucket in 0..BUCKETS {
            let (low, high) = bounds(bucket);
            assert_eq!((low, index(low), index(high)), (next, bucket, bucket));
            assert!(bucket == BUCKETS - 1 || high - low <= low / 32, "{low}..={high}");
            next = high.wrapping_add(1);
        }
        assert_eq!(next, 0, "and none is left out");
    }

    #[test]
    fn of_nothing_every_quantile_is_zero() {
        assert_eq!(quantile(&[0; BUCKETS], 999, 0), 0);
    }

    proptest! {
        #[test]
        fn a_quantile_is_off_by_at_most_a_64th(
            mut durations in vec(prop_oneof![0..100_u64, 0..1_u64 << 30, 0..=LONGEST], 1..500),
            per_mille in 0..=1000_u64,
        ) {
            let mut counts = vec![0; BUCKETS];
            durations.iter().for_each(|nanos| counts[index(*nanos)] += 1);
            durations.sort_unstable();
            let rank = (durations.len() * per_mille as usize).div_ceil(1000).max(1);
            let exact = durations[rank - 1];
            let found = quantile(&counts, per_mille, *durations.last().unwrap());
            prop_assert!(found.abs_diff(exact) <= exact / 64 + 1, "{found} for {exact}");
        }

        #[test]
        fn what_is_too_long_for_the_buckets_counts_as_the_longest(nanos in LONGEST + 1..=u64::MAX) {
            let mut counts = vec![0; BUCKETS];
            counts[index(nanos)] += 1;
            prop_assert!((LONGEST..=nanos).contains(&quantile(&counts, 500, nanos)));
        }
    }
}
