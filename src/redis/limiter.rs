//! How a call is decided: here, by Redis, or without it.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use sync_wrapper::SyncFuture;

use super::{
    book::{Book, Everyone, Held, Key},
    failure::RedisFailure,
    policy::Unavailable,
};
use crate::{
    circuit_breaker::Permit,
    error::{Reason, Rejected},
    rate_limit::{KeyedRateLimitHandle, LimitStore, Taken},
    time::{self, Instant},
};

pub(super) struct Limiter<K> {
    /// What a call's key is asked for; where they share a slot, the limits of all are among them.
    pub(super) own: Arc<Book<K>>,
    /// The limits of all, where they are asked for apart.
    pub(super) all: Option<Arc<Book<Everyone>>>,
    pub(super) unavailable: Unavailable,
    /// Counts along, to be warm when it is needed.
    pub(super) local: Option<KeyedRateLimitHandle<K>>,
    /// How much that one ever has at once.
    pub(super) local_at_once: u64,
}

/// What Redis will say to a call, or what is decided without it. It always ends, within the deadline of the lanes, or twice that where limits of all keys are
/// leased and the call has to ask for both.
#[must_use = "futures do nothing unless polled"]
pub struct Verdict(SyncFuture<Asking>);

type Asking = Pin<Box<dyn Future<Output = Taken<Infallible>> + Send>>;

/// What a call has paid before it knows that it passes.
struct Paid<K: Key> {
    of_key: Option<Held<K>>,
    of_all: Option<Held<Everyone>>,
}

impl<K: Key> Limiter<K> {
    /// At once where Redis need not be asked: with leases, when it is known to be away or to refuse, and for a cost that never passes.
    pub(super) fn take(self: &Arc<Self>, key: &K, cost: u64) -> Taken<Verdict> {
        let asker = &self.own.asker;
        let of_all = self.all.iter().flat_map(|all| &all.limits);
        if let Some(limit) = self.own.limits.iter().chain(of_all).find(|limit| cost > limit.at_once) {
            return asker.refuse(Rejected::new(limit.name, Reason::CostTooHigh));
        }
        let of_key = self.own.spend(key, cost);
        let of_all = self.all.as_ref().and_then(|all| all.spend(&Everyone, cost));
        if of_key.is_some() && of_all.is_some() == self.all.is_some() {
            self.pay_along(key, cost);
            return Taken::Now(Ok(()));
        }
        let paid = Paid {
            of_key: of_key.map(|batch| self.own.hold(key.clone(), cost, Some(batch))),
            of_all: self.all.as_ref().zip(of_all).map(|(all, batch)| all.hold(Everyone, cost, Some(batch))),
        };
        // What was refused still is, but without Redis the policy decides.
        if !asker.away.is()
            && let Some(rejected) = self.known(key, cost, &paid)
        {
            return asker.refuse(rejected);
        }
        let began = time::now();
        match asker.lanes.admit() {
            Err(_) => self.decide_alone(key, cost, paid, began, true),
            Ok(permit) => {
                let (limiter, key) = (Arc::clone(self), key.clone());
                let asking: Asking = Box::pin(async move { limiter.decide(permit, &key, cost, paid, began).await });
                Taken::Later(Verdict(SyncFuture::new(asking)))
            }
        }
    }

    fn known(&self, key: &K, cost: u64, paid: &Paid<K>) -> Option<Rejected> {
        let of_key = || self.own.known(key, cost).map(|refused| self.own.rejected(refused));
        let of_all = |all: &Arc<Book<_>>| all.known(&Everyone, cost).map(|refused| all.rejected(refused));
        let of_key = if paid.of_key.is_none() { of_key() } else { None };
        of_key.or_else(|| self.all.as_ref().filter(|_| paid.of_all.is_none()).and_then(of_all))
    }

    async fn decide(&self, permit: Permit, key: &K, cost: u64, mut paid: Paid<K>, began: Instant) -> Taken<Infallible> {
        match self.ask(permit, key, cost, &mut paid).await {
            Ok(None) => {
                paid.used();
                self.pay_along(key, cost);
                Taken::Now(Ok(()))
            }
            Ok(Some(rejected)) => self.own.asker.refuse(rejected),
            // What is on its way is decided without Redis, which is there for all others.
            Err(failure) => self.decide_alone(key, cost, paid, began, failure != RedisFailure::Moving),
        }
    }

    /// For what no lease has paid. The limits of all come first, because their units can be given back at once.
    async fn ask(
        &self,
        permit: Permit,
        key: &K,
        cost: u64,
        paid: &mut Paid<K>,
    ) -> Result<Option<Rejected>, RedisFailure> {
        let mut permit = Some(permit);
        let mut place = || permit.take().map_or_else(|| self.own.asker.lanes.admit(), Ok);
        if let (Some(all), None) = (&self.all, &paid.of_all) {
            if let Some(refused) = all.take(place()?, &Everyone, cost).await? {
                return Ok(Some(all.rejected(refused)));
            }
            paid.of_all = Some(all.hold(Everyone, cost, None));
        }
        if paid.of_key.is_none()
            && let Some(refused) = self.own.take(place()?, key, cost).await?
        {
            return Ok(Some(self.own.rejected(refused)));
        }
        Ok(None)
    }

    fn decide_alone<F>(&self, key: &K, cost: u64, paid: Paid<K>, began: Instant, is_away: bool) -> Taken<F> {
        let asker = &self.own.asker;
        asker.away.decided_alone(began, is_away, &asker.events);
        let taken = match (&self.local, self.unavailable) {
            (Some(local), _) => self.take_locally(local, key, cost),
            (None, Unavailable::Closed) => asker.refuse(Rejected::new(asker.events.name(), Reason::LimitUnknown)),
            (None, _) => Taken::Now(Ok(())),
        };
        if matches!(taken, Taken::Now(Ok(()))) {
            paid.used();
        }
        taken
    }

    /// What costs more than the share ever has at once takes all of it, and the rest is a debt: so it passes as seldom as the share says, and not never.
    fn take_locally<F>(&self, local: &KeyedRateLimitHandle<K>, key: &K, cost: u64) -> Taken<F> {
        let at_once = cost.min(self.local_at_once);
        match LimitStore::take(local, key, at_once) {
            Taken::Now(Ok(())) => {
                if cost > at_once {
                    LimitStore::charge(local, key, cost - at_once);
                }
                Taken::Now(Ok(()))
            }
            Taken::Now(refused) => Taken::Now(refused),
            Taken::Unpaid | Taken::Later(_) => Taken::Unpaid,
        }
    }

    /// As far as it is there: what others take is no debt of this process.
    fn pay_along(&self, key: &K, cost: u64) {
        if let Some(local) = &self.local {
            local.take_along(key, cost);
        }
    }
}

impl<K: Key> Paid<K> {
    fn used(self) {
        self.of_key.map(Held::used).unwrap_or_default();
        self.of_all.map(Held::used).unwrap_or_default();
    }
}

impl Future for Verdict {
    type Output = Taken<Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verdict").finish_non_exhaustive()
    }
}
