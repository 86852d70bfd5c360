//! A ledger for each key, for several limits and for windows, and one for all that find no place.

use std::{
    hash::Hash,
    sync::{Arc, PoisonError, RwLock},
};

use super::{
    decision::Decisions,
    ledger::{Crossed, Ledger, Refused},
    policy::Limit,
    quota::Quota,
};
use crate::{error::ConfigError, keyed::cells::Cells, sync::Mutex};

pub(super) struct Ledgers<K> {
    limits: RwLock<Arc<[Limit]>>,
    cells: Cells<K, Ledger>,
    others: Mutex<Ledger>,
}

impl<K: Hash + Eq + Clone> Ledgers<K> {
    pub(super) fn new(limits: Vec<Limit>, max_keys: usize) -> Self {
        let others = Mutex::new(Ledger::new(&limits));
        Self { limits: RwLock::new(limits.into()), cells: Cells::new(max_keys), others }
    }

    pub(super) fn limits(&self) -> Arc<[Limit]> {
        Arc::clone(&self.limits.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    /// Lets a call of this key pass, or says how long it would have to wait. `homeless` is called when there is no place for the key.
    pub(super) fn take(
        &self,
        key: &K,
        now: u64,
        cost: u64,
        near: Option<f64>,
        homeless: impl FnOnce(),
    ) -> Result<Crossed, Refused> {
        self.change(key, now, homeless, |limits, ledger| ledger.take(limits, now, cost, near))
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

    pub(super) fn charge(&self, key: &K, now: u64, units: u64, homeless: impl FnOnce()) {
        self.change(key, now, homeless, |limits, ledger| ledger.charge(limits, now, units));
    }

    pub(super) fn pause(&self, key: &K, now: u64, wait: u64, homeless: impl FnOnce()) {
        self.change(key, now, homeless, |limits, ledger| ledger.pause(limits, now, wait));
    }

    pub(super) fn drain(&self, key: &K, now: u64, homeless: impl FnOnce()) {
        self.change(key, now, homeless, |limits, ledger| ledger.drain(limits, now));
    }

    /// Gives back what was taken at a time. A key that has left has all of it.
    pub(super) fn refund(&self, key: &K, now: u64, units: u64, taken_at: u64) {
        let limits = self.limits();
        self.cells.look(key, |ledger| ledger.refund(&limits, now, units, taken_at));
    }

    /// Gives back what was taken just now, also of what those without a place share.
    pub(super) fn give_back(&self, key: &K, now: u64, units: u64) {
        let limits = self.limits();
        let refund = |ledger: &mut Ledger| ledger.refund(&limits, now, units, now);
        if self.cells.look(key, refund).is_none() {
            refund(&mut self.others.lock());
        }
    }

    pub(super) fn reset(&self, key: &K) {
        let limits = self.limits();
        self.cells.look(key, |ledger| *ledger = Ledger::new(&limits));
    }

    /// Another quota for the limit of this name, or else the first. `None` where there is none of this name.
    pub(super) fn set_quota(&self, now: u64, name: Option<&str>, quota: Quota) -> Option<Result<(), ConfigError>> {
        let mut limits = self.limits.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = limits.to_vec();
        let limit = changed.iter_mut().find(|limit| name.is_none_or(|name| name == limit.name))?;
        match limit.algorithm.check(quota) {
            Ok(rate) => limit.rate = rate,
            Err(error) => return Some(Err(error)),
        }
        *limits = changed.into();
        self.cells.change_all(|ledger| ledger.requote(&limits, now));
        self.others.lock().requote(&limits, now);
        Some(Ok(()))
    }

    fn change<T>(
        &self,
        key: &K,
        now: u64,
        homeless: impl FnOnce(),
        mut change: impl FnMut(&[Limit], &mut Ledger) -> T,
    ) -> T {
        let limits = self.limits();
        let mut go = |ledger: &mut Ledger| change(&limits, ledger);
        let make = || Ledger::new(&limits);
        match self.cells.change(key, make, |ledger| ledger.is_full(&limits, now), &mut go) {
            Some(changed) => changed,
            None => {
                homeless();
                go(&mut self.others.lock())
            }
        }
    }
}
