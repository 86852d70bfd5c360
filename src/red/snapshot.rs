//! What the figures are at one moment.

use std::time::Duration;

use super::{buckets::quantile, stripe::Total};
use crate::{
    error::Reason,
    event::{ENDINGS, Ending},
};

/// What the figures are at one moment. With the feature `serde` it is JSON.
///
/// ```text
/// total = ok + error + permanent + ignored + cancelled + rejected + in_flight
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RedSnapshot {
    /// The name of the layer.
    pub name: &'static str,
    /// How many calls there were.
    pub requests: Requests,
    /// How long they took.
    pub duration: Durations,
}

/// How many calls there were.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Requests {
    /// All that have begun.
    pub total: u64,
    /// Those that have not ended.
    pub in_flight: u64,
    /// Those that succeeded.
    pub ok: u64,
    /// Those that failed and might succeed later, and those that panicked.
    pub error: u64,
    /// Those that were at fault themselves.
    pub permanent: u64,
    /// Those that say nothing about the dependency.
    pub ignored: u64,
    /// Those whose future was dropped before its answer.
    pub cancelled: u64,
    /// Those that a layer inside refused.
    pub rejected: u64,
    rejected_by: [u64; Reason::NAMES.len()],
    /// Calls in the last whole second.
    pub last_second: u64,
    /// Calls per second in the last 60 whole seconds, or in those since the layer was made.
    pub per_second: f64,
    /// `error / (ok + error + permanent)`: the share of failures in what was answered. 0 of nothing.
    pub error_ratio: f64,
}

/// How long calls took, until the answer's head: those that were answered, cancelled, or refused after they may have reached the inner service.
/// A refusal on the spot takes no time, and would make the dependency look fast.
///
/// Quantiles are off by at most 1.6 % of themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Durations {
    /// How many are in it.
    pub count: u64,
    /// The mean.
    pub mean: Duration,
    /// Half of the calls took at most so long.
    pub p50: Duration,
    /// 95 of 100 did.
    pub p95: Duration,
    /// 99 of 100 did.
    pub p99: Duration,
    /// 999 of 1000 did.
    pub p999: Duration,
    /// The longest, exactly.
    pub max: Duration,
}

impl Requests {
    /// The calls that were refused, by the reason as metrics have it; only reasons there were.
    pub fn rejected_by(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Reason::NAMES.into_iter().zip(self.rejected_by).filter(|(_, count)| *count > 0)
    }

    /// Those that have ended.
    #[must_use]
    pub const fn finished(&self) -> u64 {
        self.ok + self.error + self.permanent + self.ignored + self.cancelled + self.rejected
    }

    pub(super) fn of(total: &Total, last_second: u64, per_second: f64) -> Self {
        let of = |ending: Ending| total.ended[ending.index()];
        let rejected_by = std::array::from_fn(|reason| of(Ending::rejected(reason)));
        let (ok, error, permanent) = (of(Ending::OK), of(Ending::ERROR), of(Ending::PERMANENT));
        let answered = ok + error + permanent;
        let ended: u64 = (total.ended as [u64; ENDINGS]).iter().sum();
        Self {
            total: total.begun,
            in_flight: total.begun.saturating_sub(ended),
            ok,
            error,
            permanent,
            ignored: of(Ending::IGNORED),
            cancelled: of(Ending::CANCELLED),
            rejected: rejected_by.iter().sum(),
            rejected_by,
            last_second,
            per_second,
            error_ratio: if answered == 0 { 0.0 } else { error as f64 / answered as f64 },
        }
    }
}

impl Durations {
    pub(super) fn of(total: &Total) -> Self {
        let count: u64 = total.buckets.iter().sum();
        let mean = total.nanos / u128::from(count.max(1));
        let quantile = |per_mille| Duration::from_nanos(quantile(&total.buckets, per_mille, total.longest));
        Self {
            count,
            mean: Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX)),
            p50: quantile(500),
            p95: quantile(950),
            p99: quantile(990),
            p999: quantile(999),
            max: Duration::from_nanos(total.longest),
        }
    }
}
