//! The settings: small values, checked once.

use std::time::Duration;

use super::{backoff::Backoff, decision::Plan, recipe::Checked};
use crate::{budget::BudgetSettings, error::ConfigError, time::nanos};

/// How often, after what delays and for how long a call is tried again.
///
/// # Defaults
///
/// | setting | default | from |
/// |---|---|---|
/// | [`name`](Self::name) | `"retry"` | |
/// | [`attempts`](Self::attempts), the first included | 3 | AWS SDKs, Polly, resilience4j |
/// | [`backoff`](Self::backoff) | 100 ms, doubled each time, at most 20 s, full jitter | AWS SDKs |
/// | [`within`](Self::within) | no total time but the caller's [deadline](crate::Deadline) | |
/// | [`retry_after_cap`](Self::retry_after_cap) | 20 s | |
/// | [`retry_rejections`](Self::retry_rejections) | no | |
/// | [`budget`](Self::budget) | 20 % of the calls of the last 10 s, and 3 per second | finagle, Envoy |
#[derive(Clone, Debug)]
pub struct RetrySettings {
    name: &'static str,
    attempts: u32,
    backoff: Backoff,
    within: Option<Duration>,
    retry_after_cap: Duration,
    retry_rejections: bool,
    pub(super) budget: Option<BudgetSettings>,
}

impl RetrySettings {
    /// Three attempts.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            name: "retry",
            attempts: 3,
            backoff: Backoff::exponential(Duration::from_millis(100)),
            within: None,
            retry_after_cap: Duration::from_secs(20),
            retry_rejections: false,
            budget: Some(BudgetSettings::new()),
        }
    }

    /// The name in events and metrics. Defaults to `"retry"`.
    #[must_use]
    pub const fn name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// At most so many attempts, the first included. Defaults to 3.
    #[must_use]
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// How long to wait before each retry. Defaults to 100 ms, doubled each time, at most 20 s, with full jitter.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// No attempt begins later than this after the first; and it is the [deadline](crate::Deadline) of every attempt, so that a time-out inside ends the last one
    /// with it. Defaults to none.
    #[must_use]
    pub const fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    /// When a failure says when to come back, then not before that, but no longer than this. Defaults to 20 s.
    #[must_use]
    pub const fn retry_after_cap(mut self, cap: Duration) -> Self {
        self.retry_after_cap = cap;
        self
    }

    /// A refusal of a layer inside that says when it would admit the call is tried again then, if that is no longer than the
    /// [cap](Self::retry_after_cap) and there is time left. Defaults to never: a refusal is an answer.
    #[must_use]
    pub const fn retry_rejections(mut self) -> Self {
        self.retry_rejections = true;
        self
    }

    /// How many retries all calls together may cause. Defaults to 20 % of the calls of the last 10 s and 3 per second.
    ///
    /// To share one with others, see [`RetryLayer::budget`](super::RetryLayer::budget).
    #[must_use]
    pub const fn budget(mut self, budget: BudgetSettings) -> Self {
        self.budget = Some(budget);
        self
    }

    /// As many retries as there are failures: in an outage, the dependency gets its load times the attempts.
    #[must_use]
    pub const fn without_budget(mut self) -> Self {
        self.budget = None;
        self
    }

    pub(super) fn check(self) -> Result<Checked, ConfigError> {
        if self.attempts == 0 {
            return Err(ConfigError::new("attempts", "must be at least 1: the first one counts"));
        }
        self.backoff.check()?;
        if self.within == Some(Duration::ZERO) {
            return Err(ConfigError::new("within", "must be longer than zero"));
        }
        let plan = Plan {
            name: self.name,
            attempts: self.attempts,
            retry_rejections: self.retry_rejections,
            within: self.within.map_or(u64::MAX, nanos),
            retry_after_cap: nanos(self.retry_after_cap),
        };
        Ok(Checked { plan, backoff: self.backoff })
    }
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_name_the_field() {
        type S = RetrySettings;
        let rows = [
            ("attempts", S::new().attempts(0)),
            ("backoff", S::new().backoff(Backoff::exponential(Duration::ZERO))),
            ("within", S::new().within(Duration::ZERO)),
        ];
        for (field, settings) in rows {
            assert_eq!(settings.clone().check().unwrap_err().field(), field, "{settings:?}");
        }
        let extreme = S::new().attempts(u32::MAX).within(Duration::MAX).retry_after_cap(Duration::MAX);
        assert_eq!(extreme.check().unwrap().plan.within, u64::MAX);
    }
}
