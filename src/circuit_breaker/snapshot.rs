//! What a circuit looks like at one moment.

use std::time::Duration;

use crate::{error::Trip, event::CircuitState};

/// What a circuit looks like at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct CircuitBreakerSnapshot {
    /// Where the circuit stands: closed when forced closed or disabled, open when forced open.
    pub state: CircuitState,
    /// Who decides.
    pub mode: CircuitMode,
    /// The number of this state period.
    pub generation: u64,
    /// What opened the circuit last; `None` once it has closed.
    pub trip: Option<Trip>,
    /// How many half-open periods have failed since it was last closed.
    pub failed_cycles: u32,
    /// Calls in the window, those that are overdue in flight included, for which the oldest make room. 0 when no rate is watched.
    pub calls: u64,
    /// How many of them failed. With a slow call rate, those that are overdue have not, and push none out.
    pub failed: u64,
    /// How many of them were slow.
    pub slow: u64,
    /// The failure rate as it is judged, or `None` of no calls.
    pub failure_rate: Option<f64>,
    /// `slow / calls`, or `None` of no calls.
    pub slow_call_rate: Option<f64>,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Pending calls of this period that are older than the slow threshold.
    pub overdue_in_flight: u64,
    /// Probes that are out.
    pub probes_in_flight: u32,
    /// Probes that have succeeded in this half-open period.
    pub probes_succeeded: u32,
    /// How long an open circuit stays open. `None` when it is not open, forced open, or open for good.
    pub time_to_half_open: Option<Duration>,
}

/// Who decides whether calls pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CircuitMode {
    /// The circuit does.
    #[default]
    Enforced,
    /// The circuit counts, changes its state and reports, and refuses nothing.
    Shadow,
    /// Everything is refused until somebody says otherwise.
    ForcedOpen,
    /// Everything passes and is counted, and nothing opens the circuit.
    ForcedClosed,
    /// Everything passes, and nothing is counted.
    Disabled,
}

impl CircuitMode {
    /// Whether the circuit changes its state by itself.
    pub(super) const fn is_automatic(self) -> bool {
        matches!(self, Self::Enforced | Self::Shadow)
    }
}
