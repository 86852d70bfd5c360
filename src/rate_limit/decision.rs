//! What a limiter says to a call.

use std::time::Duration;

/// Whether a call may pass, and what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// The limiter's name.
    pub policy: &'static str,
    /// How many units may come at once after a rest: the burst of a bucket, the units of a window.
    pub limit: u64,
    /// The time over which so many units come.
    pub period: Duration,
    /// How many of them are left now.
    pub remaining: u64,
    /// How long to wait before the same call passes: refused a nanosecond earlier, admitted then. `None` when it may pass now, or never can,
    /// because it costs more than the limit.
    pub retry_after: Option<Duration>,
    /// How long until all of it is there again.
    pub reset_after: Duration,
    /// Whether the call may pass.
    pub allowed: bool,
}
