//! Use without tower, and a look.

use std::fmt;

use super::{decision::Decision, policy::RateLimitSettings, state::Limiter};
use crate::{
    error::{ConfigError, Rejected},
    event::Event,
    shared::Shared,
};

/// A limiter to ask, to look at, and to use without tower. Clones are handles of the same one.
///
/// See the [module docs](crate::rate_limit).
#[derive(Clone)]
pub struct RateLimitHandle {
    pub(super) limiter: Shared<Limiter>,
}

impl RateLimitHandle {
    /// A limiter of these settings.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_new(settings: RateLimitSettings) -> Result<Self, ConfigError> {
        Limiter::share(settings).map(|limiter| Self { limiter })
    }

    /// The name in errors, events and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.limiter.events.name()
    }

    /// Takes so many units, if they are there, and says what is left.
    #[must_use = "it says whether the call may pass"]
    pub fn check(&self, cost: u64) -> Decision {
        let refused = self.limiter.take(cost).err();
        self.limiter.decision(refused)
    }

    /// What is left, without taking anything.
    #[must_use]
    pub fn peek(&self) -> Decision {
        self.limiter.decision(None)
    }

    /// Takes so many units. What was taken is used, whatever becomes of it.
    ///
    /// # Errors
    ///
    /// The refusal: rate limited, with the time to come back, or too costly for the limiter at any time.
    pub fn try_acquire(&self, cost: u64) -> Result<(), Rejected> {
        self.limiter.take(cost).map_err(|refused| self.limiter.refuse(refused))
    }

    /// Tells `listener` of every [`Event`] from now on, under no lock.
    pub fn on_event(&self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        self.limiter.events.listen(listener);
    }
}

impl fmt::Debug for RateLimitHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RateLimitHandle").field(&*self.limiter).finish()
    }
}
