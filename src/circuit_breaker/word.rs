//! What `state.rs` publishes of the machine in one word, and of a trip in another.

use super::machine::Machine;
use crate::error::Trip;

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

/// The machine in one word.
#[inline]
pub(super) fn of(machine: &Machine) -> u64 {
    let flag = |flag, on: bool| if on { flag } else { 0 };
    flag(CLOSED, machine.is_closed())
        | flag(QUIET, machine.is_quiet())
        | flag(TIMED, machine.is_timed())
        | flag(OPEN, machine.refuses_until().is_some())
        | machine.generation() << GENERATION
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
