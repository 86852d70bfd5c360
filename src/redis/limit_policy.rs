//! The settings of limits in Redis.

use super::{lease::LeaseSettings, policy::Unavailable};
use crate::{
    error::ConfigError,
    rate_limit::{Algorithm, RateLimitSettings},
};

/// What is limited, for each key and for all, and what is decided without Redis.
///
/// # Defaults
///
/// | setting | default |
/// |---|---|
/// | the limits of each key | none: they are the constructor |
/// | [`prefix`](Self::prefix) | `buttress` |
/// | [`unavailable`](Self::unavailable) | a limiter in this process with a quarter of every quota |
/// | [`lease`](Self::lease) | none: every call is asked for |
/// | [`and_all`](Self::and_all), [`and_all_leased`](Self::and_all_leased) | no limit of all keys together |
#[derive(Clone, Copy, Debug)]
pub struct RedisLimitSettings {
    pub(super) each: RateLimitSettings,
    pub(super) all: Option<RateLimitSettings>,
    pub(super) lease: Option<LeaseSettings>,
    pub(super) lease_of_all: Option<LeaseSettings>,
    pub(super) prefix: &'static str,
    pub(super) unavailable: Unavailable,
}

impl RedisLimitSettings {
    /// The limits of every key. What they say of waiting and of a near limit is not for limits in Redis.
    #[must_use]
    pub const fn new(each: RateLimitSettings) -> Self {
        Self {
            each,
            all: None,
            lease: None,
            lease_of_all: None,
            prefix: "buttress",
            unavailable: Unavailable::Local { share: 0.25 },
        }
    }

    /// What the keys in Redis begin with. Who has the same prefix and the same names shares the limits. Defaults to `buttress`.
    #[must_use]
    pub const fn prefix(mut self, prefix: &'static str) -> Self {
        self.prefix = prefix;
        self
    }

    /// What decides while Redis gives no answer. Defaults to [`Unavailable::default`].
    #[must_use]
    pub const fn unavailable(mut self, unavailable: Unavailable) -> Self {
        self.unavailable = unavailable;
        self
    }

    /// Each key's quota in batches. Not with a sliding log: a unit that is paid before it is spent would be in another window. Defaults to none.
    #[must_use]
    pub const fn lease(mut self, lease: LeaseSettings) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Limits for the calls of all keys together too, in the same script: a call passes both or takes nothing of either. Of these settings only limits and
    /// names count. Not in a cluster, where they are in another slot. Defaults to none.
    #[must_use]
    pub const fn and_all(mut self, all: RateLimitSettings) -> Self {
        self.all = Some(all);
        self.lease_of_all = None;
        self
    }

    /// As [`and_all`](Self::and_all), in a script of their own and in batches, so that in a cluster too a call asks one slot alone. A call that its key's
    /// limits refuse gives back what it took of these. Not with a sliding log. Defaults to none.
    #[must_use]
    pub const fn and_all_leased(mut self, all: RateLimitSettings, lease: LeaseSettings) -> Self {
        self.all = Some(all);
        self.lease_of_all = Some(lease);
        self
    }

    /// What the shape of the settings rules out; the limits themselves are checked where they are made.
    pub(super) fn check(&self, is_cluster: bool) -> Result<(), ConfigError> {
        self.unavailable.check()?;
        let with_key = self.all.filter(|_| self.lease_of_all.is_none());
        if is_cluster && with_key.is_some() {
            return Err(ConfigError::new(
                "all",
                "must be leased in a cluster, where it is in another slot than the key",
            ));
        }
        // A batch of a key pays what is in the same script too.
        if let Some(lease) = self.lease {
            check_lease(lease, [Some(self.each), with_key])?;
        }
        self.lease_of_all.map_or(Ok(()), |lease| check_lease(lease, [self.all, None]))
    }
}

fn check_lease(lease: LeaseSettings, of: [Option<RateLimitSettings>; 2]) -> Result<(), ConfigError> {
    let limits = || of.iter().flatten().flat_map(RateLimitSettings::limits);
    if limits().any(|limit| limit.algorithm == Algorithm::SlidingLog) {
        return Err(ConfigError::new("lease", "is not for a sliding log"));
    }
    lease.check(limits().map(|limit| limit.quota.at_once()).min().unwrap_or(0))
}

impl From<RateLimitSettings> for RedisLimitSettings {
    fn from(each: RateLimitSettings) -> Self {
        Self::new(each)
    }
}
