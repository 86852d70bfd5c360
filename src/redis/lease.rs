//! A batch of quota that is paid in Redis first and spent here.
//!
//! What is spent was paid, so no process ever admits what another may admit too. What is left when a batch expires is given back.

use std::time::Duration;

use crate::{
    error::ConfigError,
    time::{self, nanos},
};

/// How much of a quota a process takes at a time, to decide on it without asking.
///
/// In any window a fleet sees at most the quota and what was leased before it and is spent in it: the outstanding leases, or what comes back in the life of one if
/// that is less. What a process has leased and does not use is missing to the others, for the life of a lease at most: two batches a process and key.
///
/// It is for keys with many calls: a key with few leaves most of each batch to be given back.
#[derive(Clone, Copy, Debug)]
pub struct LeaseSettings {
    pub(super) units: u64,
    pub(super) life: Duration,
}

impl LeaseSettings {
    /// So many units at a time.
    #[must_use]
    pub const fn new(units: u64) -> Self {
        Self { units, life: Duration::from_secs(1) }
    }

    /// How long a batch may be spent. Defaults to 1 s.
    #[must_use]
    pub const fn life(mut self, life: Duration) -> Self {
        self.life = life;
        self
    }

    pub(super) fn check(&self, at_once: u64) -> Result<(), ConfigError> {
        if self.units == 0 || self.units > at_once {
            return Err(ConfigError::new("lease", "must be at least one unit, and at most what there is at once"));
        }
        if self.life.is_zero() {
            return Err(ConfigError::new("life", "must be longer than zero"));
        }
        Ok(())
    }
}

/// So long after its end, in nanoseconds, nobody comes any more for what is left of a batch.
const ABANDONED: u64 = 10_000_000_000;

/// What a key has leased: the batch that is spent, and the one that comes after.
#[derive(Debug, Default)]
pub(super) struct Account {
    batches: [Batch; 2],
    is_fetching: bool,
    /// There was not a whole batch, and there will not be before then.
    no_batch_before: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    left: u64,
    ends: u64,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spent {
    /// The end of the batch that has paid for it, if one has.
    pub(super) batch: Option<u64>,
    /// Whether the caller is to fetch the next batch.
    pub(super) fetches: bool,
}

impl Account {
    pub(super) fn spend(&mut self, now: time::Instant, cost: u64, units: u64) -> Spent {
        let now = now.as_nanos();
        self.batches.sort_unstable_by_key(|batch| batch.ends);
        let has = |batch: &&mut Batch| batch.ends > now && batch.left >= cost;
        let batch = self.batches.iter_mut().find(has).map(|batch| {
            batch.left -= cost;
            batch.ends
        });
        let left = self.left_at(now);
        let has_room = self.batches.iter().any(|batch| batch.is_free(now));
        let fetches = !self.is_fetching && has_room && left <= units / 2 && now >= self.no_batch_before;
        self.is_fetching |= fetches;
        Spent { batch, fetches }
    }

    pub(super) fn left(&self, now: time::Instant) -> u64 {
        self.left_at(now.as_nanos())
    }

    fn left_at(&self, now: u64) -> u64 {
        self.batches.iter().filter(|batch| batch.ends > now).map(|batch| batch.left).sum()
    }

    /// What the batch of this end has paid and nobody used. `false` when it is gone.
    pub(super) fn put_back(&mut self, ends: u64, units: u64) -> bool {
        match self.batches.iter_mut().find(|batch| batch.ends == ends) {
            Some(batch) => {
                batch.left += units;
                true
            }
            None => false,
        }
    }

    /// A batch has come. `false` when there is no place for it.
    pub(super) fn fetched(&mut self, now: time::Instant, units: u64, ends: u64) -> bool {
        self.is_fetching = false;
        match self.batches.iter_mut().find(|batch| batch.is_free(now.as_nanos())) {
            Some(batch) => {
                *batch = Batch { left: units, ends };
                true
            }
            None => false,
        }
    }

    pub(super) fn not_fetched(&mut self, now: time::Instant, wait: Duration) {
        self.is_fetching = false;
        self.no_batch_before = now.as_nanos().saturating_add(nanos(wait));
    }

    /// Ends the batch of this end, and says what is left of it.
    pub(super) fn end(&mut self, ends: u64) -> u64 {
        let ended = self.batches.iter_mut().filter(|batch| batch.ends == ends);
        ended.map(|batch| std::mem::take(batch).left).sum()
    }

    pub(super) fn is_idle(&self, now: time::Instant) -> bool {
        !self.is_fetching && self.batches.iter().all(|batch| batch.is_free(now.as_nanos()))
    }
}

impl Batch {
    /// Or nobody has come at its end, because a runtime was shut down: then what is left of it stays paid.
    const fn is_free(&self, now: u64) -> bool {
        self.left == 0 || self.ends.saturating_add(ABANDONED) < now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_is_spent_that_was_not_leased_and_all_the_rest_is_given_back(
            units in 1_u64..20, steps in proptest::collection::vec((0_u64..5, 0_u64..4, any::<bool>(), any::<bool>()), 1..200),
        ) {
            let (mut account, mut now) = (Account::default(), 1_000);
            let (mut leased, mut spent, mut back, mut due, mut under_way) = (0, 0, 0, Vec::new(), false);
            for (wait, cost, arrives, is_used) in steps {
                now += wait;
                due.retain(|ends| {
                    if *ends <= now {
                        back += account.end(*ends);
                    }
                    *ends > now
                });
                let told = account.spend(Instant::from_nanos(now), cost, units);
                match told.batch {
                    Some(ends) if !is_used => prop_assert!(account.put_back(ends, cost)),
                    Some(_) => spent += cost,
                    None => {}
                }
                prop_assert!(!(told.fetches && under_way), "one flight at a time");
                under_way |= told.fetches;
                if under_way && arrives {
                    under_way = false;
                    let ends = now + 7;
                    leased += units;
                    // What was put back in the meantime may have taken its place.
                    if account.fetched(Instant::from_nanos(now), units, ends) {
                        due.push(ends);
                    } else {
                        back += units;
                    }
                }
                let held: u64 = account.batches.iter().map(|batch| batch.left).sum();
                prop_assert_eq!(leased, spent + back + held);
            }
        }
    }

    /// What a unit takes to come back, how many there are at once, and how long a batch lives.
    const UNIT: u64 = 10;
    const BURST: u64 = 30;
    const LIFE: u64 = 100;

    /// The bucket in Redis, by the moment when it is full again.
    struct Bucket(u64);

    impl Bucket {
        fn take(&mut self, now: u64, units: u64) -> bool {
            let full_at = self.0.max(now) + units * UNIT;
            let passes = full_at <= now + BURST * UNIT;
            self.0 = if passes { full_at } else { self.0 };
            passes
        }

        fn give_back(&mut self, now: u64, units: u64) {
            self.0 = self.0.saturating_sub(units * UNIT).max(now);
        }
    }

    proptest! {
        /// The bound of [`LeaseSettings`], with processes that ask by themselves for what no batch pays.
        #[test]
        fn a_window_sees_the_quota_and_what_was_leased_before_it(
            units in 1_u64..12, steps in proptest::collection::vec((0_u64..25, 0_usize..3, any::<bool>()), 50..400),
        ) {
            let (mut bucket, mut now) = (Bucket(0), LIFE);
            let mut processes: Vec<(Account, Vec<u64>)> = (0..3).map(|_| Default::default()).collect();
            let mut admitted = Vec::new();
            for (wait, caller, is_pressed) in steps {
                now += wait;
                for (account, due) in &mut processes {
                    due.retain(|ends| {
                        if *ends <= now {
                            bucket.give_back(now, account.end(*ends));
                        }
                        *ends > now
                    });
                }
                let (account, due) = &mut processes[caller];
                for _ in 0..if is_pressed { 2 * units } else { 1 } {
                    let told = account.spend(Instant::from_nanos(now), 1, units);
                    if told.batch.is_some() || bucket.take(now, 1) {
                        admitted.push(now);
                    }
                    if told.fetches && bucket.take(now, units) {
                        prop_assert!(account.fetched(Instant::from_nanos(now), units, now + LIFE));
                        due.push(now + LIFE);
                    } else if told.fetches {
                        account.not_fetched(Instant::from_nanos(now), Duration::from_nanos(UNIT));
                    }
                    // What the others miss: two batches of each process.
                    prop_assert!(account.batches.iter().map(|batch| batch.left).sum::<u64>() <= 2 * units);
                }
            }
            let window = 3 * LIFE;
            let leased = (3 * 2 * units).min(LIFE / UNIT);
            for (first, began) in admitted.iter().enumerate() {
                let seen = admitted[first..].iter().take_while(|at| **at < began + window).count() as u64;
                prop_assert!(seen <= BURST + window / UNIT + leased, "{seen} in a window, {leased} leased");
            }
        }
    }

    #[test]
    fn a_batch_that_has_ended_is_not_spent() {
        let mut account = Account::default();
        assert_eq!(account.spend(Instant::from_nanos(5), 1, 10), Spent { batch: None, fetches: true });
        assert!(account.fetched(Instant::from_nanos(0), 10, 20));
        assert_eq!(account.spend(Instant::from_nanos(19), 1, 10), Spent { batch: Some(20), fetches: false });
        assert_eq!(account.spend(Instant::from_nanos(20), 1, 10), Spent { batch: None, fetches: true });
        assert_eq!((account.end(20), account.end(20)), (9, 0));
        assert!(!account.put_back(20, 1), "what is left of it has gone back");
    }

    #[test]
    fn the_next_batch_is_fetched_before_this_one_ends() {
        let mut account = Account::default();
        let now = Instant::from_nanos(5);
        account.spend(now, 1, 10);
        assert!(account.fetched(Instant::from_nanos(0), 10, 20));
        let fetched_at = (1..=10).find(|_| account.spend(now, 1, 10).fetches);
        assert_eq!(fetched_at, Some(5));
        account.not_fetched(now, Duration::from_nanos(3));
        assert!(!account.spend(Instant::from_nanos(7), 1, 10).fetches);
        assert!(account.spend(Instant::from_nanos(8), 1, 10).fetches);
    }

    /// Where the runtime was shut down that would have given it back.
    #[test]
    fn a_batch_for_which_nobody_came_makes_room_after_a_while() {
        let mut account = Account::default();
        let at = Instant::from_nanos;
        assert!(account.fetched(at(0), 10, 20) && account.fetched(at(0), 10, 20));
        for (now, is_over) in [(21, false), (20 + ABANDONED, false), (21 + ABANDONED, true)] {
            let spent = account.spend(at(now), 1, 10);
            assert_eq!((spent.batch, spent.fetches, account.is_idle(at(now))), (None, is_over, false));
            account.not_fetched(at(now), Duration::ZERO);
            assert_eq!(account.is_idle(at(now)), is_over);
        }
        assert!(account.fetched(at(21 + ABANDONED), 10, u64::MAX));
    }
}
