//! What Redis has said lately, as far as it still holds.

use std::{hash::Hash, time::Duration};

use super::script::{Answer, Refused, Said};
use crate::{
    keyed::cells::Cells,
    sync::Mutex,
    time::{Instant, nanos},
};

/// How many refusals are remembered.
const MOST_DENIED: usize = 10_000;
/// Of how many keys it is remembered what is left.
const MOST_SAID: usize = 16_384;
/// For how long: who asks does so when a call ends that has just been admitted.
const KEPT: Duration = Duration::from_secs(10);

pub(super) struct Told<K> {
    /// The limits from here on are those of all keys.
    own: usize,
    denied: Cells<K, Denied>,
    denied_to_all: Mutex<Option<Denied>>,
    said: Cells<K, (u64, Said)>,
}

/// Calls that cost as much or more have no chance before then.
#[derive(Clone, Copy, Debug)]
struct Denied {
    until: u64,
    cost: u64,
    limit: usize,
}

impl<K: Hash + Eq + Clone> Told<K> {
    pub(super) fn new(own: usize) -> Self {
        let (denied, said) = (Cells::new(MOST_DENIED), Cells::new(MOST_SAID));
        Self { own, denied, denied_to_all: Mutex::new(None), said }
    }

    pub(super) fn hear(&self, key: &K, cost: u64, answer: Answer, now: Instant) -> Option<Refused> {
        let now = now.as_nanos();
        let is_old = |(at, _): &mut (u64, Said)| at.saturating_add(nanos(KEPT)) < now;
        self.said.change(key, || (now, answer.said), is_old, &mut |said| *said = (now, answer.said));
        let refused = answer.refused?;
        let denied = Denied { until: now.saturating_add(nanos(refused.wait)), cost, limit: refused.limit };
        if refused.limit >= self.own {
            let mut known = self.denied_to_all.lock();
            *known = Some(known.map_or(denied, |known| known.or_by(denied, now)));
        } else {
            let is_over = |denied: &mut Denied| denied.until <= now;
            self.denied.change(key, || denied, is_over, &mut |known| *known = known.or_by(denied, now));
        }
        Some(refused)
    }

    /// What need not be asked, because it was refused a moment ago.
    pub(super) fn known(&self, key: &K, cost: u64, now: Instant) -> Option<Refused> {
        let of_all = || if self.has_all() { *self.denied_to_all.lock() } else { None };
        [self.denied.look(key, |denied| *denied), of_all()].into_iter().flatten().find_map(|denied| {
            let wait = denied.until.checked_sub(now.as_nanos()).filter(|wait| *wait > 0)?;
            (cost >= denied.cost).then(|| Refused { limit: denied.limit, wait: Duration::from_nanos(wait) })
        })
    }

    /// What was given back may be taken before it was thought.
    pub(super) fn forget(&self, key: &K) {
        self.denied.look(key, |denied| denied.until = 0);
        if self.has_all() {
            *self.denied_to_all.lock() = None;
        }
    }

    /// What it said of this key, and how long ago.
    pub(super) fn said(&self, key: &K, now: Instant) -> Option<(Said, Duration)> {
        let (at, said) = self.said.look(key, |said| *said)?;
        Some((said, Duration::from_nanos(now.as_nanos().saturating_sub(at))))
    }

    const fn has_all(&self) -> bool {
        self.own < usize::MAX
    }
}

impl Denied {
    /// A smaller cost says more than a greater one.
    fn or_by(self, fresh: Self, now: u64) -> Self {
        if self.until <= now || fresh.cost <= self.cost { fresh } else { self }
    }
}
