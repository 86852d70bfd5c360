//! The machine in one word, a trip in another, and a refusal in two.

use std::time::Duration;

use super::machine::Machine;
use crate::{
    error::{Reason, Rejected, Trip},
    time,
};

/// Every call passes and is counted.
pub(super) const CLOSED: u64 = 1;
/// One more good and quick call would change nothing.
pub(super) const QUIET: u64 = 1 << 1;
/// Calls say when they began to wait.
pub(super) const TIMED: u64 = 1 << 2;
/// Every call is refused until `until`.
pub(super) const OPEN: u64 = 1 << 3;
/// The call is a probe: only in a permit's own word.
pub(super) const PROBE: u64 = 1 << 4;
/// The generation is above the flags.
pub(super) const GENERATION: u32 = 8;

/// A [`Rejected`] without what the circuit knows anyway: two words, which travel in registers where 32 bytes do not.
#[derive(Clone, Copy)]
pub(super) struct Refusal {
    trip: u64,
    /// In nanoseconds, `u64::MAX` when nobody knows.
    retry_after: u64,
}

/// A [`Rejected`] that is made when its call is polled.
#[derive(Clone, Copy)]
pub(super) struct Refused {
    policy: &'static str,
    refusal: Refusal,
}

impl Refusal {
    #[inline]
    pub(super) const fn new(trip: u64, retry_after: Option<Duration>) -> Self {
        let retry_after = match retry_after {
            Some(wait) => time::nanos(wait),
            None => u64::MAX,
        };
        Self { trip, retry_after }
    }

    #[inline]
    pub(super) const fn by(self, policy: &'static str) -> Refused {
        Refused { policy, refusal: self }
    }
}

impl Refused {
    #[inline]
    pub(super) fn rejected(self) -> Rejected {
        let rejected = Rejected::new(self.policy, Reason::CircuitOpen(decode(self.refusal.trip)));
        match self.refusal.retry_after {
            u64::MAX => rejected,
            nanos => rejected.with_retry_after(Duration::from_nanos(nanos)),
        }
    }
}

/// The machine in one word. `before` is added to the generation.
#[inline]
pub(super) fn of(machine: &Machine, before: u64) -> u64 {
    let flag = |flag, on: bool| if on { flag } else { 0 };
    flag(CLOSED, machine.is_closed())
        | flag(QUIET, machine.is_quiet())
        | flag(TIMED, machine.is_timed())
        | flag(OPEN, machine.refuses_until().is_some())
        | before.wrapping_add(machine.generation()) << GENERATION
}

pub(super) fn encode(trip: Trip) -> u64 {
    let (tag, value) = match trip {
        Trip::Forced => (0, 0),
        Trip::ConsecutiveFailures(n) => (1, n),
        Trip::FailureRate(percent) => (2, u32::from(percent)),
        Trip::SlowCallRate(percent) => (3, u32::from(percent)),
        Trip::ProbesFailed => (4, 0),
        Trip::ProbesTimedOut => (5, 0),
    };
    tag << 32 | u64::from(value)
}

#[inline]
pub(super) fn decode(bits: u64) -> Trip {
    let value = bits as u32;
    match bits >> 32 {
        1 => Trip::ConsecutiveFailures(value),
        2 => Trip::FailureRate(value as u8),
        3 => Trip::SlowCallRate(value as u8),
        4 => Trip::ProbesFailed,
        5 => Trip::ProbesTimedOut,
        _ => Trip::Forced,
    }
}
