//! Several limits, or one in a window, for each key.

use std::{
    hash::Hash,
    sync::{Arc, PoisonError, RwLock},
};

use super::{
    decision::Decisions,
    homeless::Homeless,
    ledger::{Crossed, Ledger, Refused},
    policy::{Limit, UNKNOWN},
    quota::Quota,
};
use crate::{error::ConfigError, event::Events, keyed::cells::Cells, sync::Mutex, time};

pub(super) struct Ledgers<K> {
    limits: RwLock<Arc<[Limit]>>,
    cells: Cells<K, Ledger>,
    others: Mutex<Ledger>,
    homeless: Homeless,
}

impl<K: Hash + Eq + Clone> Ledgers<K> {
    pub(super) fn new(limits: Vec<Limit>, max_keys: usize) -> Self {
        Self {
            cells: Cells::new(max_keys),
            others: Mutex::new(Ledger::new(&limits)),
            limits: RwLock::new(limits.into()),
            homeless: Homeless::new(max_keys),
        }
    }

    fn limits(&self) -> Arc<[Limit]> {
        Arc::clone(&self.limits.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn name(&self, limit: usize) -> Option<&'static str> {
        self.limits().get(limit).map(|limit| limit.name)
    }

    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    pub(super) fn take(
        &self,
        key: &K,
        now: u64,
        cost: u64,
        near: Option<f64>,
        events: &Events,
    ) -> Result<Crossed, Refused> {
        self.change(key, now, events, |limits, ledger| ledger.take(limits, now, cost, near))
    }

    pub(super) fn decisions(&self, key: &K, now: u64, cost: u64) -> Decisions {
        let limits = self.limits();
        let look = |ledger: &mut Ledger| ledger.decisions(&limits, now, cost);
        match self.cells.look(key, look) {
            Some(known) => known,
            None if self.cells.has_room(key, |ledger| ledger.is_full(&limits, now)) => look(&mut Ledger::new(&limits)),
            None => look(&mut self.others.lock()),
        }
    }

    pub(super) fn charge(&self, key: &K, now: u64, units: u64, events: &Events) {
        self.change(key, now, events, |limits, ledger| ledger.charge(limits, now, units));
    }

    /// A key that has left has all of it.
    pub(super) fn refund(&self, key: &K, now: u64, units: u64, taken_at: u64) {
        let limits = self.limits();
        self.cells.look(key, |ledger| ledger.refund(&limits, now, units, taken_at));
    }

    /// Also of what those without a place share.
    pub(super) fn give_back(&self, key: &K, now: u64, units: u64) {
        let limits = self.limits();
        let refund = |ledger: &mut Ledger| ledger.refund(&limits, now, units, now);
        if self.cells.look(key, refund).is_none() {
            refund(&mut self.others.lock());
        }
    }

    pub(super) fn pause(&self, key: &K, now: u64, wait: u64, events: &Events) {
        self.change(key, now, events, |limits, ledger| ledger.pause(limits, now, wait));
    }

    pub(super) fn drain(&self, key: &K, now: u64, events: &Events) {
        self.change(key, now, events, |limits, ledger| ledger.drain(limits, now));
    }

    pub(super) fn reset(&self, key: &K) {
        let limits = self.limits();
        self.cells.look(key, |ledger| *ledger = Ledger::new(&limits));
    }

    pub(super) fn set_quota(&self, name: Option<&str>, quota: Quota) -> Result<(), ConfigError> {
        let mut limits = self.limits.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = limits.to_vec();
        let place = match name {
            None => Some(0),
            Some(name) => changed.iter().position(|limit| limit.name == name),
        };
        let limit = place.and_then(|place| changed.get_mut(place)).ok_or(UNKNOWN)?;
        limit.rate = limit.algorithm.check(quota)?;
        *limits = changed.into();
        // After the lock, which others may have held for a while.
        let now = time::now().as_nanos();
        self.cells.change_all(|ledger| ledger.requote(&limits, now));
        self.others.lock().requote(&limits, now);
        Ok(())
    }

    /// Changes what this key has used, or what all have that find no place.
    fn change<T>(&self, key: &K, now: u64, events: &Events, mut change: impl FnMut(&[Limit], &mut Ledger) -> T) -> T {
        let limits = self.limits();
        let mut go = |ledger: &mut Ledger| change(&limits, ledger);
        let make = || Ledger::new(&limits);
        match self.cells.change(key, make, |ledger| ledger.is_full(&limits, now), &mut go) {
            Some(changed) => changed,
            None => {
                self.homeless.one_more(events);
                go(&mut self.others.lock())
            }
        }
    }
}
