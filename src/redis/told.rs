//! What Redis has said lately, as far as it still holds.

use std::{
    hash::Hash,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

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
    /// For how long a refusal is remembered at most.
    longest: Duration,
    /// How often something was given back. What was refused meanwhile may have been refused before it was there.
    forgotten: AtomicU64,
    denied: Cells<K, Denied>,
    denied_to_all: Mutex<Option<Denied>>,
    said: Cells<K, (u64, Said)>,
}

/// Calls that cost as much or more have no chance before then.
#[derive(Clone, Copy, Debug)]
struct Denied {
    until: u64,
    known_until: u64,
    cost: u64,
    limit: usize,
}

/// How often something had been given back when Redis was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(u64);

impl<K: Hash + Eq + Clone> Told<K> {
    pub(super) fn new(own: usize, longest: Duration) -> Self {
        let (denied, said) = (Cells::new(MOST_DENIED), Cells::new(MOST_SAID));
        Self { own, longest, forgotten: AtomicU64::new(0), denied, denied_to_all: Mutex::new(None), said }
    }

    /// Before Redis is asked.
    pub(super) fn asks(&self) -> Moment {
        Moment(self.forgotten.load(Ordering::Acquire))
    }

    pub(super) fn hear(&self, key: &K, cost: u64, answer: Answer, asked: Moment, now: Instant) -> Option<Refused> {
        let now = now.as_nanos();
        let is_old = |(at, _): &mut (u64, Said)| at.saturating_add(nanos(KEPT)) < now;
        self.said.change(key, || (now, answer.said), is_old, &mut |said| *said = (now, answer.said));
        let refused = answer.refused?;
        let from_now = |wait| now.saturating_add(nanos(wait));
        let (until, known_until) = (from_now(refused.wait), from_now(refused.wait.min(self.longest)));
        let denied = Denied { until, known_until, cost, limit: refused.limit };
        if refused.limit >= self.own {
            let mut known = self.denied_to_all.lock();
            *known = Some(known.map_or(denied, |known| known.or_by(denied, now)));
        } else {
            let is_over = |denied: &mut Denied| denied.known_until <= now;
            self.denied.change(key, || denied, is_over, &mut |known| *known = known.or_by(denied, now));
        }
        // After it is written down, so that it is seen either here or there.
        if self.asks() != asked {
            self.erase(key);
        }
        Some(refused)
    }

    /// What need not be asked, because it was refused a moment ago.
    pub(super) fn known(&self, key: &K, cost: u64, now: Instant) -> Option<Refused> {
        let of_all = || if self.has_all() { *self.denied_to_all.lock() } else { None };
        [self.denied.look(key, |denied| *denied), of_all()].into_iter().flatten().find_map(|denied| {
            let wait = denied.until.saturating_sub(now.as_nanos());
            let is_known = now.as_nanos() < denied.known_until && cost >= denied.cost;
            is_known.then(|| Refused { limit: denied.limit, wait: Duration::from_nanos(wait) })
        })
    }

    /// What was given back may be taken before it was thought.
    pub(super) fn forget(&self, key: &K) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        self.erase(key);
    }

    fn erase(&self, key: &K) {
        self.denied.look(key, |denied| denied.known_until = 0);
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
        if self.known_until <= now || fresh.cost <= self.cost { fresh } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000);

    fn refusal(limit: usize) -> Answer {
        let wait = Duration::from_nanos(500);
        Answer { refused: Some(Refused { limit, wait }), said: Said::default() }
    }

    /// A refusal that was heard after something was given back may be older than that.
    #[test]
    fn a_refusal_that_was_asked_for_before_something_came_back_is_not_remembered() {
        for (own, limit) in [(usize::MAX, 0), (1, 0), (1, 1)] {
            let told = Told::new(own, Duration::MAX);
            let asked = told.asks();
            assert!(told.hear(&7, 1, refusal(limit), asked, NOW).is_some());
            assert!(told.known(&7, 1, NOW).is_some());
            told.forget(&7);
            assert!(told.known(&7, 1, NOW).is_none());
            assert!(told.hear(&7, 1, refusal(limit), asked, NOW).is_some());
            assert!(told.known(&7, 1, NOW).is_none(), "it is older");
            told.hear(&7, 1, refusal(limit), told.asks(), NOW);
            assert!(told.known(&7, 1, NOW).is_some(), "it is younger");
        }
    }

    #[test]
    fn a_refusal_is_known_until_its_end_or_for_the_longest_time() {
        let at = Instant::from_nanos;
        for (longest, until) in [(Duration::MAX, 1_500), (Duration::from_nanos(100), 1_100)] {
            let told = Told::new(usize::MAX, longest);
            told.hear(&7, 2, refusal(0), told.asks(), NOW);
            let known = told.known(&7, 2, at(until - 1)).unwrap();
            assert_eq!(known.wait, Duration::from_nanos(1_501 - until), "what Redis has said of the wait holds");
            assert!(told.known(&7, 2, at(until)).is_none() && told.known(&7, 1, NOW).is_none());
        }
    }
}
