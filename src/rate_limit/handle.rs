//! Use without tower, a look, and control.

use std::{fmt, time::Duration};

use super::{
    account,
    bucket::Reserved,
    decision::{Decision, Decisions},
    policy::RateLimitSettings,
    quota::Quota,
    state::Limiter,
};
use crate::{
    error::{ConfigError, Rejected},
    event::Event,
    shared::Shared,
    time::{self, Instant},
};

/// A limiter to ask, to look at, to control, and to use without tower. Clones are handles of the same one.
///
/// See the [module docs](crate::rate_limit).
#[derive(Clone)]
pub struct RateLimitHandle {
    pub(super) limiter: Shared<Limiter>,
}

/// Where a limiter stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitSnapshot {
    /// Its name.
    pub name: &'static str,
    /// What each of its limits would say to a call of one unit.
    pub decisions: Decisions,
    /// How many calls wait in line.
    pub waiting: usize,
    /// Whether what would be refused passes.
    pub shadow: bool,
}

/// Units that are booked ahead, for a use after [`wait`](Self::wait). Dropped before that, they are given back as far as nobody has booked after them.
#[must_use = "dropped, it is given back"]
pub struct Reservation {
    limiter: Shared<Limiter>,
    cost: u64,
    /// `None` where nothing can be booked ahead: then it was taken at once.
    reserved: Option<Reserved>,
    made_at: Instant,
    is_kept: bool,
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
}

/// # Use without tower
impl RateLimitHandle {
    /// Takes so many units, if they are there, and says what is left: of several limits, by the one that decides.
    /// In shadow mode the call may always pass. Nothing is reported.
    #[must_use = "it says whether the call may pass"]
    pub fn check(&self, cost: u64) -> Decision {
        match self.limiter.take(cost) {
            Ok(()) => self.limiter.decisions(0).admitted(),
            Err(_) if self.limiter.is_shadow() => self.limiter.decisions(0).admitted(),
            Err(refused) => self.limiter.decisions(0).refused(refused.limit, refused.wait()),
        }
    }

    /// What is left, without taking anything: what a call of one unit would be told.
    #[must_use]
    pub fn peek(&self) -> Decision {
        self.limiter.decisions(1).tightest()
    }

    /// Takes so many units. What was taken is used, whatever becomes of it. In shadow mode it always succeeds.
    ///
    /// # Errors
    ///
    /// The refusal: rate limited, with the time to come back, or too costly for the limiter at any time.
    #[inline]
    pub fn try_acquire(&self, cost: u64) -> Result<(), Rejected> {
        match self.limiter.take(cost) {
            Ok(()) => Ok(()),
            Err(refused) => self.limiter.refuse(refused),
        }
    }

    /// Books so many units ahead, behind all that are booked already. Only a single token bucket can; other limiters take the units now, or refuse.
    ///
    /// Calls in line do not see a booking that is made while they wait, and go after it.
    ///
    /// # Errors
    ///
    /// The refusal: too costly for the limiter at any time; where nothing can be booked, also rate limited.
    pub fn reserve(&self, cost: u64) -> Result<Reservation, Rejected> {
        let made_at = time::now();
        let reserved = self.limiter.reserve_at(made_at, cost).map_err(|refused| self.limiter.rejected(refused))?;
        Ok(Reservation { limiter: self.limiter.clone(), cost, reserved, made_at, is_kept: false })
    }
}

/// # Control
impl RateLimitHandle {
    /// Takes what was used already, whether it is there or not: the calls to come wait for what is not.
    pub fn charge(&self, units: u64) {
        account::charge(&self.limiter, units);
    }

    /// Gives units back that were taken just now and not used.
    pub fn refund(&self, units: u64) {
        account::refund(&self.limiter, units, time::now());
    }

    /// Lets nothing pass for so long, unless a longer pause is on. After it a bucket has one unit, and a window what it would have had.
    pub fn pause(&self, wait: Duration) {
        account::pause(&self.limiter, wait);
    }

    /// Leaves nothing for now: the limiter fills again from here.
    pub fn drain(&self) {
        self.limiter.drain_at(time::now());
        account::review(&self.limiter);
    }

    /// Makes the limiter as a new one: all of it is there, and no pause is on.
    pub fn reset(&self) {
        self.limiter.refill();
        account::review(&self.limiter);
    }

    /// Another quota from now on, of several limits for the first. What has been used stays used: a bucket is full when it would have been, or one
    /// burst of the new quota from now, whatever is sooner; a window keeps the calls it knows of.
    ///
    /// A call at this very moment is judged by the old quota, the new one, or something between.
    ///
    /// # Errors
    ///
    /// A quota that cannot work. Nothing is changed then.
    pub fn set_quota(&self, quota: Quota) -> Result<(), ConfigError> {
        self.set(None, quota)
    }

    /// Another quota for the limit of this name.
    ///
    /// # Errors
    ///
    /// A quota that cannot work, or a name that no limit has. Nothing is changed then.
    pub fn set_quota_of(&self, name: &str, quota: Quota) -> Result<(), ConfigError> {
        self.set(Some(name), quota)
    }

    fn set(&self, name: Option<&str>, quota: Quota) -> Result<(), ConfigError> {
        self.limiter.set_quota(name, quota)?;
        account::review(&self.limiter);
        Ok(())
    }

    /// With `true` what would be refused passes, and is only reported. It takes nothing then. Who waits in line is let go.
    pub fn shadow(&self, shadow: bool) {
        self.limiter.set_shadow(shadow);
        account::review(&self.limiter);
    }

    /// Where it stands.
    #[must_use]
    pub fn snapshot(&self) -> RateLimitSnapshot {
        RateLimitSnapshot {
            name: self.name(),
            decisions: self.limiter.decisions(1),
            waiting: self.limiter.line.len(),
            shadow: self.limiter.is_shadow(),
        }
    }

    /// Tells `listener` of every [`Event`] from now on, under no lock.
    pub fn on_event(&self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        self.limiter.events.listen(listener);
    }
}

impl Reservation {
    /// How long until the units may be used.
    #[must_use]
    pub fn wait(&self) -> Duration {
        let wait = self.reserved.map_or(0, |reserved| reserved.wait);
        Duration::from_nanos(wait).saturating_sub(time::now().saturating_since(self.made_at))
    }

    /// Keeps the units: they are used.
    pub fn keep(mut self) {
        self.is_kept = true;
    }

    /// Gives the units back, as far as nobody has booked after them; those of a booking whose time has come are used. The same as to drop it.
    pub fn cancel(self) {}
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let now = time::now();
        match self.reserved {
            Some(reserved) if now > self.made_at.saturating_add(Duration::from_nanos(reserved.wait)) => return,
            Some(reserved) => self.limiter.unreserve_at(now, reserved),
            None => self.limiter.refund_at(now, self.cost, self.made_at),
        }
        account::review(&self.limiter);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("cost", &self.cost).field("wait", &self.wait()).finish_non_exhaustive()
    }
}

impl fmt::Debug for RateLimitHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RateLimitHandle").field(&*self.limiter).finish()
    }
}
