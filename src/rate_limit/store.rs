//! Where limits are kept: in this process, or somewhere that answers later.

use std::{convert::Infallible, time::Duration};

use super::decision::Decisions;
use crate::error::Rejected;

/// What a call is told: at once, or later.
#[derive(Debug)]
pub enum Taken<F> {
    /// Whether it may pass.
    Now(Result<(), Rejected>),
    /// It may pass and has paid nothing, because what would be refused is only reported.
    Unpaid,
    /// Whether it may pass will be known.
    Later(F),
}

/// A place where the limits of all keys are kept, all or nothing of each call.
///
/// A store that answers later decides for itself what happens when it cannot answer: its future always ends, with a verdict. It is dropped
/// when the caller goes away; what it has taken by then is used.
pub trait LimitStore<K>: Send + Sync + 'static {
    /// An answer that is not there at once.
    type Later: Future<Output = Taken<Infallible>>;

    /// Takes so many units of this key, if they are there.
    fn take(&self, key: &K, cost: u64) -> Taken<Self::Later>;

    /// What the limits of this key say by now, as far as that is known here.
    fn decisions(&self, key: &K) -> Option<Decisions>;

    /// Takes what was used already, whether it is there or not: now or soon.
    fn charge(&self, key: &K, units: u64);

    /// Gives back what was taken `ago` and not used: now or soon.
    fn refund(&self, key: &K, units: u64, ago: Duration);

    /// Lets nothing of this key pass for so long: from now on, or soon.
    fn pause(&self, key: &K, wait: Duration);
}
