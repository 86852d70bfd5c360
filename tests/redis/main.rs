//! Against servers that these tests start themselves, in real time.

mod all;
mod away;
mod cache;
mod cluster;
mod cluster_cache;
mod lanes;
mod leases;
mod limits;
mod moving;
mod nodes;
mod proxy;
mod script;
mod secrets;
mod sentinel;
mod server;
mod store;
mod tiered;

use std::time::Duration;

use buttress::{
    Rejected,
    circuit_breaker::CircuitBreakerSettings,
    rate_limit::{LimitStore, Taken},
    redis::{LaneSettings, Lanes, RedisLimits},
};

/// Nothing here takes so long, on the busiest of machines.
pub(crate) const LONG: Duration = Duration::from_secs(10);

/// For tests in which no operation is to fail.
pub(crate) const PATIENT: LaneSettings = LaneSettings::new().deadline(LONG);

/// For those in which some do: a failed probe is followed by the next one soon.
pub(crate) const QUICK: LaneSettings = LaneSettings::new().deadline(Duration::from_millis(200)).breaker(
    CircuitBreakerSettings::consecutive_failures(3).open_for(Duration::from_millis(100)).probes(1).successes(1),
);

pub(crate) fn lanes(url: &str, settings: LaneSettings) -> Lanes {
    Lanes::try_from_url(url, settings).unwrap()
}

pub(crate) async fn take(limits: &RedisLimits<String>, key: &str, cost: u64) -> Result<(), Rejected> {
    match limits.take(&key.to_owned(), cost) {
        Taken::Now(verdict) => verdict,
        Taken::Unpaid => Ok(()),
        Taken::Later(verdict) => match verdict.await {
            Taken::Now(verdict) => verdict,
            Taken::Unpaid => Ok(()),
        },
    }
}

/// How many of so many calls, one after the other, pass.
pub(crate) async fn admitted(limits: &RedisLimits<String>, key: &str, calls: usize) -> usize {
    let mut passed = 0;
    for _ in 0..calls {
        passed += usize::from(take(limits, key, 1).await.is_ok());
    }
    passed
}
