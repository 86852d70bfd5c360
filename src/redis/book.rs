//! Limits that one script decides on, all or nothing, with what is leased of them and known of them here.

use std::{fmt, hash::Hash, sync::Arc, time::Duration};

use super::{
    asker::Asker,
    failure::RedisFailure,
    lease::{Account, LeaseSettings, Spent},
    script::{Asked, Refused, What},
    told::Told,
};
use crate::{
    circuit_breaker::Permit,
    error::{Reason, Rejected},
    keyed::cells::Cells,
    rate_limit::Decisions,
    time,
};

/// How many keys have leases.
const MOST_LEASED: usize = 10_000;

/// What a key must be, to be kept in Redis.
pub(super) trait Key: Hash + Eq + Clone + fmt::Display + Send + Sync + 'static {}

impl<K: Hash + Eq + Clone + fmt::Display + Send + Sync + 'static> Key for K {}

/// The key of what belongs to no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Everyone;

pub(super) struct Book<K> {
    pub(super) asker: Arc<Asker>,
    pub(super) limits: Vec<Asked>,
    told: Told<K>,
    leases: Option<(LeaseSettings, Cells<K, Account>)>,
}

/// A batch that is being fetched. If its task is dropped, as with a runtime, somebody else may fetch one.
struct Flight<K: Key> {
    book: Arc<Book<K>>,
    key: K,
    has_landed: bool,
}

/// Units of a key that go back unless they are used.
pub(super) struct Held<K: Key> {
    book: Arc<Book<K>>,
    key: K,
    units: u64,
    /// The end of the batch that they are of. `None` when they were paid in Redis by themselves.
    batch: Option<u64>,
}

impl<K: Hash + Eq + Clone> Book<K> {
    /// The limits from the `own`th on are those of all keys.
    pub(super) fn new(asker: Arc<Asker>, limits: Vec<Asked>, own: usize, lease: Option<LeaseSettings>) -> Self {
        // What others have leased and do not use comes back when its life is over, whatever Redis says of the wait.
        let longest = lease.map_or(Duration::MAX, |lease| lease.life);
        let told = Told::new(if own < limits.len() { own } else { usize::MAX }, longest);
        Self { asker, limits, told, leases: lease.map(|lease| (lease, Cells::new(MOST_LEASED))) }
    }
}

impl<K: Key> Book<K> {
    pub(super) async fn take(&self, permit: Permit, key: &K, cost: u64) -> Result<Option<Refused>, RedisFailure> {
        let asked = self.told.asks();
        let answer = self.asker.ask(permit, What::Take, &self.limits, key, cost, Duration::ZERO).await?;
        Ok(self.told.hear(key, cost, answer, asked, time::now()))
    }

    pub(super) fn known(&self, key: &K, cost: u64) -> Option<Refused> {
        self.told.known(key, cost, time::now())
    }

    pub(super) fn rejected(&self, refused: Refused) -> Rejected {
        let name = self.limits.get(refused.limit).map_or(self.asker.events.name(), |limit| limit.name);
        Rejected::new(name, Reason::RateLimited).with_retry_after(refused.wait)
    }

    /// What Redis said last, with what has come back since, and what is leased here.
    pub(super) fn decisions(&self, key: &K) -> Option<Decisions> {
        let now = time::now();
        let (said, ago) = self.told.said(key, now)?;
        let leased = self.account(key, |account| account.left(now)).unwrap_or(0);
        let mut decisions = self.limits.iter().zip(said.0).map(|(limit, said)| limit.decision(said, ago, leased));
        Some(Decisions::new(decisions.next()?, decisions))
    }

    // ===== leases =====

    /// Pays with a lease, if there is one: the end of the batch that it is of.
    pub(super) fn spend(self: &Arc<Self>, key: &K, cost: u64) -> Option<u64> {
        let (lease, accounts) = self.leases.as_ref()?;
        let now = time::now();
        let is_idle = |account: &mut Account| account.is_idle(now);
        let mut spend = |account: &mut Account| account.spend(now, cost, lease.units);
        let Spent { batch, fetches } = accounts.change(key, Account::default, is_idle, &mut spend)?;
        if fetches {
            self.fetch(*lease, key.clone());
        }
        batch
    }

    pub(super) fn hold(self: &Arc<Self>, key: K, units: u64, batch: Option<u64>) -> Held<K> {
        Held { book: Arc::clone(self), key, units, batch }
    }

    /// Pays a batch, and when it ends gives back what is left of it.
    #[cold]
    fn fetch(self: &Arc<Self>, lease: LeaseSettings, key: K) {
        let (Ok(permit), Ok(runtime)) = (self.asker.lanes.admit(), tokio::runtime::Handle::try_current()) else {
            return self.account(&key, |account| account.not_fetched(time::now(), lease.life)).unwrap_or_default();
        };
        let flight = Flight { book: Arc::clone(self), key, has_landed: false };
        runtime.spawn(async move {
            // Before it is paid, so that no unit is spent later than the life of its lease.
            let ends = time::now().saturating_add(lease.life).as_nanos();
            let Flight { book, key, .. } = &flight;
            let asked = book.told.asks();
            let answer = book.asker.ask(permit, What::Take, &book.limits, key, lease.units, Duration::ZERO).await;
            let heard = answer.map(|answer| book.told.hear(key, lease.units, answer, asked, time::now()));
            let wait = match heard {
                Ok(None) => None,
                Ok(Some(refused)) => Some(refused.wait.min(lease.life)),
                Err(_) => Some(lease.life),
            };
            let (book, key) = flight.land();
            let now = time::now();
            if let Some(wait) = wait {
                return book.account(&key, |account| account.not_fetched(now, wait)).unwrap_or_default();
            }
            if book.account(&key, |account| account.fetched(now, lease.units, ends)) != Some(true) {
                return book.tell(What::Refund, &key, lease.units, Duration::ZERO);
            }
            tokio::time::sleep(lease.life).await;
            let left = book.account(&key, |account| account.end(ends));
            book.tell(What::Refund, &key, left.unwrap_or(0), lease.life);
        });
    }

    fn life(&self) -> Duration {
        self.leases.as_ref().map_or(Duration::ZERO, |(lease, _)| lease.life)
    }

    fn account<T>(&self, key: &K, change: impl FnOnce(&mut Account) -> T) -> Option<T> {
        self.leases.as_ref()?.1.look(key, change)
    }

    /// Soon, in a task of its own, and once: what gets no answer is not said again.
    pub(super) fn tell(self: &Arc<Self>, what: What, key: &K, units: u64, ago: Duration) {
        if units == 0 {
            return;
        }
        let (Ok(permit), Ok(runtime)) = (self.asker.lanes.admit(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let (book, key) = (Arc::clone(self), key.clone());
        if what == What::Refund {
            book.told.forget(&key);
        }
        runtime.spawn(async move {
            let _ = book.asker.ask(permit, what, &book.limits, &key, units, ago).await;
            if what == What::Refund {
                // Who was refused meanwhile may have asked before it was there.
                book.told.forget(&key);
            }
        });
    }
}

impl<K: Key> Flight<K> {
    fn land(mut self) -> (Arc<Book<K>>, K) {
        self.has_landed = true;
        (Arc::clone(&self.book), self.key.clone())
    }
}

impl<K: Key> Drop for Flight<K> {
    fn drop(&mut self) {
        if !self.has_landed {
            let _ = self.book.account(&self.key, |account| account.not_fetched(time::now(), Duration::ZERO));
        }
    }
}

impl<K: Key> Held<K> {
    /// Nothing of it goes back.
    pub(super) fn used(mut self) {
        self.units = 0;
    }
}

impl<K: Key> Drop for Held<K> {
    fn drop(&mut self) {
        if self.units == 0 {
            return;
        }
        let into = |batch| self.book.account(&self.key, |account| account.put_back(batch, self.units)) == Some(true);
        if !self.batch.is_some_and(into) {
            let ago = if self.batch.is_some() { self.book.life() } else { Duration::ZERO };
            self.book.tell(What::Refund, &self.key, self.units, ago);
        }
    }
}

impl fmt::Display for Everyone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("*")
    }
}
