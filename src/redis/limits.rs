//! Limits that a whole fleet shares.

use std::{
    fmt,
    hash::Hash,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use deadpool_redis::redis::Script;

use super::{
    failure::RedisFailure,
    lanes::Lanes,
    lease::{Account, LeaseSettings, Spent},
    policy::Unavailable,
    script::{Answer, Asked, CODE, What},
};
use crate::{
    circuit_breaker::Permit,
    error::{ConfigError, Reason, Rejected},
    event::{Event, EventKind, Events, Pattern},
    keyed::cells::Cells,
    rate_limit::{Algorithm, Decisions, KeyedRateLimitHandle, LimitStore, Quota, RateLimitSettings, Taken},
    time::{self, nanos},
};

/// Limits per key that are kept in Redis, for [`KeyedRateLimitLayer::over`](crate::rate_limit::KeyedRateLimitLayer::over). Clones share them.
///
/// See the [module docs](crate::redis).
pub struct RedisLimits<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    lanes: Lanes,
    script: Script,
    limits: Vec<Asked>,
    prefix: &'static str,
    is_shadow: bool,
    unavailable: Unavailable,
    /// Counts along, to be warm when it is needed.
    local: Option<KeyedRateLimitHandle<K>>,
    events: Events,
    /// What Redis has refused lately, until it would not refuse it any more.
    denied: Cells<K, Denied>,
    leases: Option<(LeaseSettings, Cells<K, Account>)>,
    /// Whether the last decision was made without Redis.
    is_away: AtomicBool,
}

/// Calls of a key that cost as much or more have no chance before then.
#[derive(Clone, Copy, Debug)]
struct Denied {
    until: u64,
    cost: u64,
    limit: usize,
}

/// How many refusals are remembered.
const MOST_DENIED: usize = 10_000;
/// How many keys have leases.
const MOST_LEASED: usize = 10_000;

/// What Redis will say to a call, or what is decided without it. It always ends, within the deadline of the lanes.
#[must_use = "futures do nothing unless polled"]
pub struct Verdict(Pin<Box<dyn Future<Output = Result<(), Rejected>> + Send>>);

impl<K: Hash + Eq + Clone + fmt::Display> RedisLimits<K> {
    /// The same limits for every key, under keys in Redis that begin with `buttress`. What the settings say of waiting and of a near limit is not for
    /// limits in Redis.
    ///
    /// # Errors
    ///
    /// Settings that cannot work, or not in Redis.
    pub fn try_new(lanes: &Lanes, settings: RateLimitSettings, unavailable: Unavailable) -> Result<Self, ConfigError> {
        Self::try_with_prefix(lanes, "buttress", settings, unavailable)
    }

    /// As [`try_new`](Self::try_new), with leases.
    ///
    /// # Errors
    ///
    /// Settings that cannot work, or not in Redis, and a sliding log: a unit that is paid before it is spent would be in another window.
    pub fn try_leased(
        lanes: &Lanes,
        settings: RateLimitSettings,
        unavailable: Unavailable,
        lease: LeaseSettings,
    ) -> Result<Self, ConfigError> {
        if settings.limits().any(|limit| limit.algorithm == Algorithm::SlidingLog) {
            return Err(ConfigError::new("lease", "is not for a sliding log"));
        }
        let least = settings.limits().map(|limit| limit.quota.at_once()).min();
        lease.check(least.unwrap_or(0))?;
        Self::build(lanes, "buttress", settings, unavailable, Some(lease))
    }

    /// As [`try_new`](Self::try_new), under keys that begin with this.
    ///
    /// # Errors
    ///
    /// Settings that cannot work, or not in Redis.
    pub fn try_with_prefix(
        lanes: &Lanes,
        prefix: &'static str,
        settings: RateLimitSettings,
        unavailable: Unavailable,
    ) -> Result<Self, ConfigError> {
        Self::build(lanes, prefix, settings, unavailable, None)
    }

    fn build(
        lanes: &Lanes,
        prefix: &'static str,
        settings: RateLimitSettings,
        unavailable: Unavailable,
        lease: Option<LeaseSettings>,
    ) -> Result<Self, ConfigError> {
        unavailable.check()?;
        // Settings that cannot work here cannot work there.
        let whole = KeyedRateLimitHandle::<K>::try_new(settings)?;
        let name = whole.name();
        let local = match unavailable {
            Unavailable::Local { share } => {
                Some(KeyedRateLimitHandle::try_new(settings.map_quotas(|quota| part(quota, share)))?)
            }
            Unavailable::Open | Unavailable::Closed => None,
        };
        let shared = Shared {
            lanes: lanes.clone(),
            script: Script::new(CODE),
            limits: Asked::all(&settings)?,
            prefix,
            is_shadow: settings.is_shadow(),
            unavailable,
            local,
            events: Events::keyed(Pattern::RateLimit, name),
            denied: Cells::new(MOST_DENIED),
            leases: lease.map(|lease| (lease, Cells::new(MOST_LEASED))),
            is_away: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Tells `listener` of every [`Event`] from now on, under no lock.
    pub fn on_event(&self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        let listener = Arc::new(listener);
        if let Some(local) = &self.shared.local {
            let listener = Arc::clone(&listener);
            local.on_event(move |event| listener(event));
        }
        self.shared.events.listen(move |event| listener(event));
    }

    /// Whether calls are decided without Redis, as of the last one.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.shared.is_away.load(Ordering::Relaxed)
    }
}

/// The part of a quota: at least one unit, in a longer period if need be.
fn part(quota: Quota, share: f64) -> Quota {
    let of = |units: u64| units as f64 * share;
    let units = (of(quota.units()) as u64).max(1);
    let longer = (of(quota.units()) / units as f64).min(1.0);
    let period = Duration::try_from_secs_f64(quota.period().as_secs_f64() / longer).unwrap_or(quota.period());
    let part = Quota::new(units, period);
    if quota.at_once() == quota.units() { part } else { part.burst((of(quota.at_once()) as u64).max(1)) }
}

impl<K: Hash + Eq + Clone + fmt::Display + Send + Sync + 'static> Shared<K> {
    async fn ask(&self, permit: Permit, what: What, key: &K, cost: u64) -> Result<Answer, RedisFailure> {
        let mut call = self.script.prepare_invoke();
        call.arg(what.as_str()).arg(cost);
        for limit in &self.limits {
            let (kind, numbers) = limit.arguments(cost);
            call.key(limit.key(self.prefix, key)).arg(kind).arg(&numbers[..]);
        }
        let answer: Vec<i64> = self.lanes.run_admitted(permit, &call).await?;
        Answer::read(&answer, self.limits.len()).ok_or(RedisFailure::Answered)
    }

    async fn decide(&self, permit: Permit, key: &K, cost: u64) -> Result<(), Rejected> {
        match self.ask(permit, What::Take, key, cost).await {
            Ok(answer) => {
                self.switch(true);
                if let (Answer::Passes, Some(local)) = (answer, &self.local) {
                    // As far as it is there: what others take is no debt of this process.
                    let _ = local.check(key, cost);
                }
                self.answer(answer, key, cost)
            }
            Err(failure) => {
                self.events.emit(|| EventKind::StoreFailed { why: failure.as_str() });
                self.decide_alone(key, cost)
            }
        }
    }

    fn answer(&self, answer: Answer, key: &K, cost: u64) -> Result<(), Rejected> {
        match answer {
            Answer::Passes => Ok(()),
            Answer::Refused { limit, wait } => {
                let now = time::now().as_nanos();
                let denied = Denied { until: now.saturating_add(nanos(wait)), cost, limit };
                let is_over = |denied: &mut Denied| denied.until <= now;
                // A smaller cost says more than a greater one.
                let mut remember = |known: &mut Denied| {
                    if known.until <= now || cost <= known.cost {
                        *known = denied;
                    }
                };
                self.denied.change(key, || denied, is_over, &mut remember);
                self.refuse_for(limit, wait)
            }
        }
    }

    fn refuse_for(&self, limit: usize, wait: Duration) -> Result<(), Rejected> {
        let name = self.limits.get(limit).map_or(self.events.name(), |limit| limit.name);
        self.refuse(Rejected::new(name, Reason::RateLimited).with_retry_after(wait))
    }

    /// What need not be asked, because it was refused a moment ago.
    fn denied(&self, key: &K, cost: u64) -> Option<Result<(), Rejected>> {
        let denied = self.denied.look(key, |denied| *denied)?;
        let wait = denied.until.checked_sub(time::now().as_nanos()).filter(|wait| *wait > 0)?;
        (cost >= denied.cost).then(|| self.refuse_for(denied.limit, Duration::from_nanos(wait)))
    }

    /// Whether a lease pays for it.
    fn spend(self: &Arc<Self>, key: &K, cost: u64) -> bool {
        let Some((lease, accounts)) = &self.leases else { return false };
        let now = time::now();
        let is_idle = |account: &mut Account| account.is_idle();
        let mut spend = |account: &mut Account| account.spend(now, cost, lease.units);
        let Some(Spent { passes, fetches }) = accounts.change(key, Account::default, is_idle, &mut spend) else {
            return false;
        };
        if fetches {
            self.fetch(*lease, key.clone());
        }
        if let (true, Some(local)) = (passes, &self.local) {
            let _ = local.check(key, cost);
        }
        passes
    }

    /// Pays a batch, and when it ends gives back what is left of it.
    #[cold]
    fn fetch(self: &Arc<Self>, lease: LeaseSettings, key: K) {
        let (Ok(permit), Ok(runtime)) = (self.lanes.admit(), tokio::runtime::Handle::try_current()) else {
            return self.account(&key, |account| account.not_fetched(time::now(), lease.life)).unwrap_or_default();
        };
        let shared = Arc::clone(self);
        runtime.spawn(async move {
            // Before it is paid, so that no unit is spent later than the life of its lease.
            let ends = time::now().saturating_add(lease.life).as_nanos();
            match shared.ask(permit, What::Take, &key, lease.units).await {
                Ok(Answer::Passes) => {
                    shared.switch(true);
                    if shared.account(&key, |account| account.fetched(lease.units, ends)) != Some(true) {
                        return shared.tell(What::Refund, &key, lease.units);
                    }
                    tokio::time::sleep(lease.life).await;
                    let left = shared.account(&key, |account| account.end(ends));
                    shared.tell(What::Refund, &key, left.unwrap_or(0));
                }
                Ok(Answer::Refused { wait, .. }) => {
                    shared.switch(true);
                    shared.account(&key, |account| account.not_fetched(time::now(), wait)).unwrap_or_default();
                }
                Err(failure) => {
                    shared.events.emit(|| EventKind::StoreFailed { why: failure.as_str() });
                    shared.account(&key, |account| account.not_fetched(time::now(), lease.life)).unwrap_or_default();
                }
            }
        });
    }

    fn account<T>(&self, key: &K, change: impl FnOnce(&mut Account) -> T) -> Option<T> {
        self.leases.as_ref()?.1.look(key, change)
    }

    #[cold]
    fn refuse(&self, rejected: Rejected) -> Result<(), Rejected> {
        self.events.emit(|| EventKind::Rejected { rejected: &rejected, shadow: self.is_shadow });
        if self.is_shadow { Ok(()) } else { Err(rejected) }
    }

    fn decide_alone(&self, key: &K, cost: u64) -> Result<(), Rejected> {
        self.switch(false);
        match (&self.local, self.unavailable) {
            (Some(local), _) => local.try_acquire(key, cost),
            (None, Unavailable::Closed) => self.refuse(Rejected::new(self.events.name(), Reason::LimitUnknown)),
            (None, _) => Ok(()),
        }
    }

    fn switch(&self, shared: bool) {
        let is_away = !shared;
        if self.is_away.load(Ordering::Relaxed) != is_away && self.is_away.swap(is_away, Ordering::Relaxed) != is_away {
            self.events.emit(|| EventKind::StoreSwitched { shared });
        }
    }

    /// Soon, in a task of its own, and once: what gets no answer is not said again.
    fn tell(self: &Arc<Self>, what: What, key: &K, units: u64) {
        if units == 0 {
            return;
        }
        let (Ok(permit), Ok(runtime)) = (self.lanes.admit(), tokio::runtime::Handle::try_current()) else { return };
        let (shared, key) = (Arc::clone(self), key.clone());
        runtime.spawn(async move {
            if let Err(failure) = shared.ask(permit, what, &key, units).await {
                shared.events.emit(|| EventKind::StoreFailed { why: failure.as_str() });
            }
        });
    }
}

impl<K: Hash + Eq + Clone + fmt::Display + Send + Sync + 'static> LimitStore<K> for RedisLimits<K> {
    type Later = Verdict;

    /// At once where Redis need not be asked: when it is known to be away, and for a cost that never passes.
    fn take(&self, key: &K, cost: u64) -> Taken<Verdict> {
        if let Some(limit) = self.shared.limits.iter().find(|limit| cost > limit.at_once) {
            return Taken::Now(self.shared.refuse(Rejected::new(limit.name, Reason::CostTooHigh)));
        }
        if self.shared.spend(key, cost) {
            return Taken::Now(Ok(()));
        }
        // What was refused still is, but without Redis the policy decides.
        if !self.shared.is_away.load(Ordering::Relaxed)
            && let Some(refused) = self.shared.denied(key, cost)
        {
            return Taken::Now(refused);
        }
        match self.shared.lanes.admit() {
            Err(_) => Taken::Now(self.shared.decide_alone(key, cost)),
            Ok(permit) => {
                let (shared, key) = (Arc::clone(&self.shared), key.clone());
                Taken::Later(Verdict(Box::pin(async move { shared.decide(permit, &key, cost).await })))
            }
        }
    }

    /// Nothing: what Redis knows by now is not known here.
    fn decisions(&self, _: &K) -> Option<Decisions> {
        None
    }

    fn charge(&self, key: &K, units: u64) {
        if let Some(local) = &self.shared.local {
            local.charge(key, units);
        }
        self.shared.tell(What::Charge, key, units);
    }

    fn refund(&self, key: &K, units: u64, _: Duration) {
        self.shared.denied.look(key, |denied| denied.until = 0);
        if let Some(local) = &self.shared.local {
            local.refund(key, units);
        }
        self.shared.tell(What::Refund, key, units);
    }

    /// Of this process only, and while Redis is away.
    fn pause(&self, key: &K, wait: Duration) {
        if let Some(local) = &self.shared.local {
            local.pause(key, wait);
        }
    }
}

impl Future for Verdict {
    type Output = Result<(), Rejected>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verdict").finish_non_exhaustive()
    }
}

impl<K> Clone for RedisLimits<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K> fmt::Debug for RedisLimits<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RedisLimits");
        shown.field("events", &self.shared.events).field("lanes", &self.shared.lanes).finish_non_exhaustive()
    }
}
