//! The settings of the lanes, and of what happens without them.

use std::time::Duration;

use crate::{circuit_breaker::CircuitBreakerSettings, error::ConfigError};

/// How Redis is asked.
///
/// # Defaults
///
/// | setting | default |
/// |---|---|
/// | [`deadline`](Self::deadline) | 50 ms: ten times what a busy Redis in the same data centre takes |
/// | [`connect_timeout`](Self::connect_timeout) | 1 s, as in redis-rs |
/// | [`lanes`](Self::lanes) | 2: more do not help |
/// | [`breaker`](Self::breaker) | opens after 5 failures in a row, for 1 s, one probe, one success |
#[derive(Clone, Copy, Debug)]
pub struct LaneSettings {
    pub(super) deadline: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) lanes: usize,
    pub(super) breaker: CircuitBreakerSettings,
}

/// What decides while Redis gives no answer.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Unavailable {
    /// A limiter in this process, with this share of every quota: n processes together admit n times the share.
    ///
    /// It takes part in every decision before, so that no process begins an outage with a burst that it has had already.
    #[non_exhaustive]
    Local {
        /// Above 0 and at most 1.
        share: f64,
    },
    /// Everything passes.
    Open,
    /// Nothing passes.
    Closed,
}

impl LaneSettings {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        let breaker = CircuitBreakerSettings::consecutive_failures(5)
            .name("redis")
            .open_for(Duration::from_secs(1))
            .probes(1)
            .successes(1)
            .half_open_timeout(Duration::from_secs(2));
        Self { deadline: Duration::from_millis(50), connect_timeout: Duration::from_secs(1), lanes: 2, breaker }
    }

    /// How long an operation may take in all, a connection that is missing included. Defaults to 50 ms.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long a connection may take. It is made in a task of its own, so that it may take longer than an operation. Defaults to 1 s.
    #[must_use]
    pub const fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// How many connections are shared by all operations. Defaults to 2.
    #[must_use]
    pub const fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = lanes;
        self
    }

    /// The breaker around every operation. Defaults to one that opens after 5 failures in a row, for 1 s.
    #[must_use]
    pub const fn breaker(mut self, breaker: CircuitBreakerSettings) -> Self {
        self.breaker = breaker;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.deadline.is_zero() {
            return Err(ConfigError::new("deadline", "must be longer than zero"));
        }
        if self.connect_timeout.is_zero() {
            return Err(ConfigError::new("connect_timeout", "must be longer than zero"));
        }
        if self.lanes == 0 || self.lanes > MOST_LANES {
            return Err(ConfigError::new("lanes", "must be at least 1 and at most 64"));
        }
        Ok(())
    }
}

const MOST_LANES: usize = 64;

impl Default for LaneSettings {
    fn default() -> Self {
        Self::new()
    }
}

impl Unavailable {
    /// A limiter in this process, with this share of every quota.
    #[must_use]
    pub const fn local(share: f64) -> Self {
        Self::Local { share }
    }

    pub(super) fn check(self) -> Result<(), ConfigError> {
        match self {
            Self::Local { share } if !(share > 0.0 && share <= 1.0) => {
                Err(ConfigError::new("share", "must be above 0 and at most 1"))
            }
            _ => Ok(()),
        }
    }
}

impl Default for Unavailable {
    /// [`Local`](Self::Local) with a quarter: four processes admit the quota, n of them n quarters of it.
    fn default() -> Self {
        Self::local(0.25)
    }
}
