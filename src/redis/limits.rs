//! Limits that a whole fleet shares.

use std::{fmt, hash::Hash, sync::Arc, time::Duration};

use super::{
    asker::Asker,
    book::{Book, Everyone},
    lanes::Lanes,
    limit_policy::RedisLimitSettings,
    limiter::{Limiter, Verdict},
    policy::Unavailable,
    script::{Asked, What},
};
use crate::{
    error::ConfigError,
    event::{Event, Events, Pattern},
    rate_limit::{Decisions, KeyedRateLimitHandle, LimitStore, RateLimitHandle, RateLimitSettings, Taken},
};

/// Limits per key that are kept in Redis, for [`KeyedRateLimitLayer::over`](crate::rate_limit::KeyedRateLimitLayer::over). Clones share them.
///
/// See the [module docs](crate::redis).
pub struct RedisLimits<K> {
    limiter: Arc<Limiter<K>>,
    /// Of the limiter in this process the part that all keys pay to.
    local_of_all: Option<RateLimitHandle>,
}

impl<K: Hash + Eq + Clone + fmt::Display> RedisLimits<K> {
    /// The same limits for every key, under keys in Redis that begin with `buttress`.
    ///
    /// # Errors
    ///
    /// Settings that cannot work, or not in Redis.
    pub fn try_new(lanes: &Lanes, settings: RateLimitSettings, unavailable: Unavailable) -> Result<Self, ConfigError> {
        Self::try_with(lanes, RedisLimitSettings::new(settings).unavailable(unavailable))
    }

    /// Limits of these settings.
    ///
    /// # Errors
    ///
    /// Settings that cannot work, or not in Redis, or not over these lanes.
    pub fn try_with(lanes: &Lanes, settings: RedisLimitSettings) -> Result<Self, ConfigError> {
        settings.check(lanes.is_cluster())?;
        let RedisLimitSettings { each, all, lease, lease_of_all, prefix, unavailable } = settings;
        // Settings that cannot work here cannot work there.
        let name = KeyedRateLimitHandle::<K>::try_new(each)?.name();
        let share = if let Unavailable::Local { share } = unavailable { share } else { 1.0 };
        let parts =
            [Some(each), all].into_iter().flatten().map(|settings| settings.map_quotas(|quota| quota.share(share)));
        let at_once = |settings: RateLimitSettings| settings.limits().map(|limit| limit.quota.at_once()).min();
        let local_at_once = parts.filter_map(at_once).min().unwrap_or(u64::MAX);
        all.map(RateLimitHandle::try_new).transpose()?;
        let local_of_all = match (unavailable, all) {
            (Unavailable::Local { share }, Some(all)) => {
                let handle = RateLimitHandle::try_new(all.map_quotas(|quota| quota.share(share)))?;
                handle.shadow(each.is_shadow());
                Some(handle)
            }
            _ => None,
        };
        let local = match unavailable {
            Unavailable::Local { share } => {
                let own = KeyedRateLimitHandle::try_new(each.map_quotas(|quota| quota.share(share)))?;
                Some(local_of_all.as_ref().map(|all| own.and_all(all)).unwrap_or(own))
            }
            Unavailable::Open | Unavailable::Closed => None,
        };
        let events = Events::keyed(Pattern::RateLimit, name);
        let asker = Arc::new(Asker::new(lanes.clone(), prefix, each.is_shadow(), events));
        let mut limits = Asked::of_key(&each)?;
        let own = limits.len();
        let mut of_all = all.as_ref().map_or(Ok(Vec::new()), Asked::of_all)?;
        let all = lease_of_all.map(|lease| {
            let of_all = std::mem::take(&mut of_all);
            Arc::new(Book::<Everyone>::new(Arc::clone(&asker), of_all, 0, Some(lease)))
        });
        limits.append(&mut of_all);
        let own = Arc::new(Book::new(asker, limits, own, lease));
        Ok(Self { limiter: Arc::new(Limiter { own, all, unavailable, local, local_at_once }), local_of_all })
    }

    /// Tells `listener` of every [`Event`] from now on, under no lock.
    pub fn on_event(&self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        let listener = Arc::new(listener);
        if let Some(local) = &self.limiter.local {
            let listener = Arc::clone(&listener);
            local.on_event(move |event| listener(event));
        }
        if let Some(local) = &self.local_of_all {
            let listener = Arc::clone(&listener);
            local.on_event(move |event| listener(event));
        }
        self.limiter.own.asker.events.listen(move |event| listener(event));
    }

    /// Whether calls are decided without Redis, as of the last one.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.limiter.own.asker.away.is()
    }
}

impl<K: Hash + Eq + Clone + fmt::Display + Send + Sync + 'static> LimitStore<K> for RedisLimits<K> {
    type Later = Verdict;

    /// At once where Redis need not be asked: with leases, when it is known to be away or to refuse, and for a cost that never passes.
    fn take(&self, key: &K, cost: u64) -> Taken<Verdict> {
        self.limiter.take(key, cost)
    }

    /// What Redis said last of this key, for ten seconds and of at most 16,384 keys; without Redis what the limiter in this process says.
    fn decisions(&self, key: &K) -> Option<Decisions> {
        let Limiter { own, all, local, .. } = &*self.limiter;
        if own.asker.away.is() {
            return local.as_ref().and_then(|local| LimitStore::decisions(local, key));
        }
        let of_all = all.as_ref().and_then(|all| all.decisions(&Everyone));
        match (own.decisions(key), of_all) {
            (Some(own), Some(all)) => Some(own.and(&all)),
            (own, all) => own.or(all),
        }
    }

    /// In a task of its own, and once: what is charged while Redis gives no answer holds in this process alone.
    fn charge(&self, key: &K, units: u64) {
        let Limiter { own, all, local, .. } = &*self.limiter;
        if let Some(local) = local {
            LimitStore::charge(local, key, units);
        }
        own.tell(What::Charge, key, units, Duration::ZERO);
        if let Some(all) = all {
            all.tell(What::Charge, &Everyone, units, Duration::ZERO);
        }
    }

    /// In a task of its own, and once: what is given back while Redis gives no answer is not given back there, and neither is what was taken then.
    fn refund(&self, key: &K, units: u64, ago: Duration) {
        let Limiter { own, all, local, .. } = &*self.limiter;
        if let Some(local) = local {
            LimitStore::refund(local, key, units, ago);
        }
        if own.asker.away.was_at(ago) {
            return;
        }
        own.tell(What::Refund, key, units, ago);
        if let Some(all) = all {
            all.tell(What::Refund, &Everyone, units, ago);
        }
    }

    /// Of this process only, and while Redis is away.
    fn pause(&self, key: &K, wait: Duration) {
        if let Some(local) = &self.limiter.local {
            local.pause(key, wait);
        }
    }
}

impl<K> Clone for RedisLimits<K> {
    fn clone(&self) -> Self {
        Self { limiter: Arc::clone(&self.limiter), local_of_all: self.local_of_all.clone() }
    }
}

impl<K> fmt::Debug for RedisLimits<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asker = &self.limiter.own.asker;
        f.debug_struct("RedisLimits")
            .field("events", &asker.events)
            .field("lanes", &asker.lanes)
            .finish_non_exhaustive()
    }
}
