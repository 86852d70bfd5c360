//! What a retry takes from the budget, by the failure that it follows.

use crate::{
    budget::Cost,
    error::{AsRejected, Reason},
};

/// What a retry takes from the [budget](crate::Budget), by the failure that it follows.
///
/// A retry of a call that timed out is more likely to time out as well, and dearer when it does: the AWS SDKs charge it double. A closure
/// `Fn(Result<&Res, &E>) -> Cost` charges as it likes.
pub trait RetryCost<Res, E> {
    /// What a retry of a call that ended like this costs.
    fn cost(&self, result: Result<&Res, &E>) -> Cost;
}

/// Every retry costs one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlatCost;

/// A retry of an attempt that timed out costs two, every other costs one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeoutsCostDouble;

impl<Res, E> RetryCost<Res, E> for FlatCost {
    fn cost(&self, _: Result<&Res, &E>) -> Cost {
        Cost::ONE
    }
}

impl<Res, E: AsRejected> RetryCost<Res, E> for TimeoutsCostDouble {
    fn cost(&self, result: Result<&Res, &E>) -> Cost {
        let timed_out = |error: &E| error.as_rejected().is_some_and(|rejected| rejected.reason() == Reason::TimedOut);
        if result.is_err_and(timed_out) { Cost::retries(2) } else { Cost::ONE }
    }
}

impl<Res, E, F: Fn(Result<&Res, &E>) -> Cost> RetryCost<Res, E> for F {
    fn cost(&self, result: Result<&Res, &E>) -> Cost {
        self(result)
    }
}
