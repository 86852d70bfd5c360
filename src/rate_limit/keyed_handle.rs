//! The limiter of every key: use without tower, a look, and control.

use std::{convert::Infallible, fmt, future::Ready, hash::Hash, time::Duration};

use super::{
    account,
    decision::{Decision, Decisions},
    handle::RateLimitHandle,
    keyed_state::KeyedLimiter,
    ledger::Refused,
    policy::RateLimitSettings,
    quota::Quota,
    store::{LimitStore, Taken},
};
use crate::{
    error::{ConfigError, Rejected},
    event::Event,
    shared::Shared,
    time::{self, Instant},
};

/// The limits of every key. Clones are handles of the same ones.
///
/// See the [module docs](crate::rate_limit).
pub struct KeyedRateLimitHandle<K> {
    limiter: Shared<KeyedLimiter<K>>,
    /// What the calls of all keys pay too.
    all: Option<RateLimitHandle>,
}

impl<K: Hash + Eq + Clone> KeyedRateLimitHandle<K> {
    /// The same limits for every key.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_new(settings: RateLimitSettings) -> Result<Self, ConfigError> {
        Ok(Self { limiter: Shared::new(KeyedLimiter::new(settings)?), all: None })
    }

    /// The same limits with one more for the calls of all keys together: a call passes both or takes nothing of either.
    ///
    /// Both are asked before either is taken. Where another call takes the last of the second in between, what was taken of the first is given back at
    /// once; a call of the same key that comes in that moment, less than a microsecond, may be refused although there would have been a unit for it.
    #[must_use]
    pub fn and_all(&self, all: &RateLimitHandle) -> Self {
        Self { limiter: self.limiter.clone(), all: Some(all.clone()) }
    }

    /// The name in errors, events and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.limiter.events.name()
    }

    /// How many keys are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.limiter.len()
    }

    /// Whether no key is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys are remembered at most.
    #[must_use]
    pub fn max_keys(&self) -> usize {
        self.limiter.max_keys()
    }
}

/// # Use without tower
impl<K: Hash + Eq + Clone> KeyedRateLimitHandle<K> {
    /// Takes so many units of this key, if they are there, and says what is left: of several limits, by the one that decides.
    /// In shadow mode the call may always pass. Nothing is reported.
    #[must_use = "it says whether the call may pass"]
    pub fn check(&self, key: &K, cost: u64) -> Decision {
        match self.take(key, cost) {
            Ok(()) => self.decisions(key, 0).admitted(),
            Err(refused) => self.told(key, refused),
        }
    }

    #[cold]
    fn told(&self, key: &K, refused: By) -> Decision {
        let (of_key, of_all) = refused.each();
        if let (Some(refused), Some(all)) = (of_all, &self.all)
            && !all.limiter.is_shadow()
        {
            return all.limiter.decisions(0).refused(refused.limit, refused.wait());
        }
        match of_key {
            Some(refused) if !self.limiter.is_shadow() => {
                self.limiter.decisions(key, 0).refused(refused.limit, refused.wait())
            }
            _ => self.decisions(key, 0).admitted(),
        }
    }

    /// What is left, without taking anything: what a call of one unit would be told.
    #[must_use]
    pub fn peek(&self, key: &K) -> Decision {
        self.decisions(key, 1).tightest()
    }

    /// Takes so many units of this key. What was taken is used, whatever becomes of it. In shadow mode it always succeeds.
    ///
    /// # Errors
    ///
    /// The refusal: rate limited, with the time to come back, or too costly for the limiter at any time.
    #[inline]
    pub fn try_acquire(&self, key: &K, cost: u64) -> Result<(), Rejected> {
        match self.take(key, cost) {
            Ok(()) => Ok(()),
            Err(refused) => self.refuse(refused),
        }
    }

    /// As far as it is there, and without a word.
    #[allow(dead_code, reason = "only backends let it count along")]
    #[inline]
    pub(crate) fn take_along(&self, key: &K, cost: u64) {
        let _ = self.take(key, cost);
    }

    #[inline]
    fn take(&self, key: &K, cost: u64) -> Result<(), By> {
        let now = time::now();
        match &self.all {
            None => self.limiter.take_at(key, now, cost).map_err(By::Key),
            Some(all) => self.take_both(all, key, now, cost),
        }
    }

    fn take_both(&self, all: &RateLimitHandle, key: &K, now: Instant, cost: u64) -> Result<(), By> {
        let of_all = all.limiter.would_at(now, cost);
        // What is in shadow keeps nothing from the other.
        let is_shadow = all.limiter.is_shadow();
        if of_all.wait > 0 && !is_shadow {
            return Err(By::All(of_all));
        }
        let of_key = self.limiter.take_at(key, now, cost);
        if let Err(refused) = of_key
            && !self.limiter.is_shadow()
        {
            return Err(By::Key(refused));
        }
        match (of_key, all.limiter.take_at(now, cost)) {
            (of_key, Ok(())) => of_key.map_err(By::Key),
            (Ok(()), Err(refused)) => {
                if !is_shadow {
                    self.limiter.give_back(key, cost, now);
                }
                Err(By::All(refused))
            }
            (Err(of_key), Err(of_all)) => Err(By::Both(of_key, of_all)),
        }
    }

    #[cold]
    fn refuse(&self, refused: By) -> Result<(), Rejected> {
        let (of_key, of_all) = refused.each();
        let of_key = of_key.and_then(|refused| self.limiter.refuse(refused).err());
        let of_all = of_all.zip(self.all.as_ref()).and_then(|(refused, all)| all.limiter.refuse(refused).err());
        of_all.or(of_key).map_or(Ok(()), Err)
    }

    fn decisions(&self, key: &K, cost: u64) -> Decisions {
        let own = self.limiter.decisions(key, cost);
        match &self.all {
            None => own,
            Some(all) => own.and(&all.limiter.decisions(cost)),
        }
    }
}

/// Who refuses.
#[derive(Clone, Copy)]
enum By {
    Key(Refused),
    All(Refused),
    Both(Refused, Refused),
}

impl By {
    const fn each(self) -> (Option<Refused>, Option<Refused>) {
        match self {
            Self::Key(refused) => (Some(refused), None),
            Self::All(refused) => (None, Some(refused)),
            Self::Both(of_key, of_all) => (Some(of_key), Some(of_all)),
        }
    }
}

/// # Control
///
/// What is said of a key holds for that key, and not for the limit of all.
impl<K: Hash + Eq + Clone> KeyedRateLimitHandle<K> {
    /// Takes what was used already, whether it is there or not: the calls to come wait for what is not.
    pub fn charge(&self, key: &K, units: u64) {
        self.limiter.charge(key, units);
    }

    /// Gives units back that were taken just now and not used.
    pub fn refund(&self, key: &K, units: u64) {
        self.limiter.refund(key, units, time::now());
    }

    /// Lets nothing of this key pass for so long, unless a longer pause is on. After it a bucket has one unit, and a window what it would have had.
    pub fn pause(&self, key: &K, wait: Duration) {
        self.limiter.pause(key, wait);
    }

    /// Leaves this key nothing for now.
    pub fn drain(&self, key: &K) {
        self.limiter.drain(key);
    }

    /// Makes the limits of this key as new.
    pub fn reset(&self, key: &K) {
        self.limiter.reset(key);
    }

    /// Another quota for every key from now on, of several limits for the first. What has been used stays used, as for
    /// [one limiter](RateLimitHandle::set_quota). Every key is visited, so this takes time in proportion to their number.
    /// Of a pause or a debt, what is left may be cut short if it is less than a burst of the old quota takes.
    ///
    /// # Errors
    ///
    /// A quota that cannot work. Nothing is changed then.
    pub fn set_quota(&self, quota: Quota) -> Result<(), ConfigError> {
        self.limiter.set_quota(None, quota)
    }

    /// Another quota for the limit of this name.
    ///
    /// # Errors
    ///
    /// A quota that cannot work, or a name that no limit has. Nothing is changed then.
    pub fn set_quota_of(&self, name: &str, quota: Quota) -> Result<(), ConfigError> {
        self.limiter.set_quota(Some(name), quota)
    }

    /// With `true` what would be refused passes, and is only reported. It takes nothing then.
    pub fn shadow(&self, shadow: bool) {
        self.limiter.set_shadow(shadow);
    }

    /// Tells `listener` of every [`Event`] from now on, under no lock.
    pub fn on_event(&self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        self.limiter.events.listen(listener);
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> LimitStore<K> for KeyedRateLimitHandle<K> {
    type Later = Ready<Taken<Infallible>>;

    #[inline]
    fn take(&self, key: &K, cost: u64) -> Taken<Self::Later> {
        match self.take(key, cost) {
            Ok(()) => Taken::Now(Ok(())),
            Err(refused) => match self.refuse(refused) {
                // One of both has been paid. What is given back to the one in shadow too makes its figures a little too good, and harms no call.
                Ok(()) if self.all.is_some() && !matches!(refused, By::Both(..)) => Taken::Now(Ok(())),
                Ok(()) => Taken::Unpaid,
                Err(rejected) => Taken::Now(Err(rejected)),
            },
        }
    }

    fn decisions(&self, key: &K) -> Option<Decisions> {
        Some(self.decisions(key, 0))
    }

    fn charge(&self, key: &K, units: u64) {
        self.limiter.charge(key, units);
        if let Some(all) = &self.all {
            account::charge(&all.limiter, units);
        }
    }

    fn refund(&self, key: &K, units: u64, ago: Duration) {
        let taken_at = Instant::from_nanos(time::now().as_nanos().saturating_sub(time::nanos(ago)));
        self.limiter.refund(key, units, taken_at);
        if let Some(all) = &self.all {
            account::refund(&all.limiter, units, taken_at);
        }
    }

    fn pause(&self, key: &K, wait: Duration) {
        self.limiter.pause(key, wait);
    }
}

impl<K> Clone for KeyedRateLimitHandle<K> {
    fn clone(&self) -> Self {
        Self { limiter: self.limiter.clone(), all: self.all.clone() }
    }
}

impl<K> fmt::Debug for KeyedRateLimitHandle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimitHandle").field("events", &self.limiter.events).finish_non_exhaustive()
    }
}
