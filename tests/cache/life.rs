//! Staleness and loads beside a naive model of them: who is answered when, with what, and who asks the dependency.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use tokio::task::JoinHandle;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Op {
    /// Somebody asks for a key, and waits for as long as it takes.
    Ask(u32),
    /// All who wait for a key go away.
    GoAway(u32),
    Invalidate(u32),
    /// From now on the dependency answers, or fails.
    Answers(bool),
    /// From now on it takes so many seconds.
    Takes(u64),
    Pass(u64),
}

// In seconds. Revalidation ends before the stale answer does in the one, and after it in the other.
const TTL: u64 = 5;
const WINDOWS: [(u64, u64); 2] = [(3, 9), (6, 2)];
const THROTTLE: u64 = 2;

/// An answer as its caller saw it.
type Seen = Result<(u32, &'static str), &'static str>;

#[derive(Clone, Copy, PartialEq)]
struct Kept {
    value: u32,
    until: u64,
    quiet_until: u64,
}

struct Load {
    key: u32,
    value: u32,
    ends: u64,
    answers: bool,
    is_void: bool,
    /// Callers that wait, the one that began it first, and what each has in hand.
    waiting: Vec<(usize, Option<Kept>)>,
    leader: Option<usize>,
    had: Option<Kept>,
}

#[derive(Debug, Default, PartialEq)]
struct Counted {
    hits: u64,
    stale: u64,
    misses: u64,
    covered: u64,
    loads: u64,
    errors: u64,
}

/// What the cache is to do, one second after the other.
struct Naive {
    revalidate: u64,
    if_error: u64,
    now: u64,
    answers: bool,
    takes: u64,
    kept: BTreeMap<u32, Kept>,
    loads: Vec<Load>,
    seen: BTreeMap<usize, Seen>,
    counted: Counted,
}

impl Naive {
    fn stale_until(&self, kept: &Kept) -> u64 {
        kept.until + self.revalidate.max(self.if_error)
    }

    fn see(&mut self, who: usize, seen: Seen) {
        match seen {
            Ok((_, "fresh")) => self.counted.hits += 1,
            Ok((_, status)) if status.starts_with("stale") => self.counted.stale += 1,
            _ => {}
        }
        self.seen.insert(who, seen);
    }

    fn ask(&mut self, who: usize, key: u32) {
        let kept = self.kept.get(&key).copied().filter(|kept| self.now < self.stale_until(kept));
        let mut in_hand = None;
        let mut is_answered = true;
        match kept {
            Some(kept) if self.now < kept.until => return self.see(who, Ok((kept.value, "fresh"))),
            Some(kept) if self.now < kept.quiet_until => return self.see(who, Ok((kept.value, "stale: failed"))),
            Some(kept) if self.now < kept.until + self.revalidate => {
                in_hand = Some(kept);
                self.see(who, Ok((kept.value, "stale: revalidating")));
            }
            _ => {
                in_hand = in_hand.or(kept);
                is_answered = false;
                self.counted.misses += 1;
            }
        }
        let waits = (!is_answered).then_some((who, in_hand));
        match self.loads.iter_mut().find(|load| load.key == key && !load.is_void) {
            Some(load) => load.waiting.extend(waits),
            None => {
                self.counted.loads += 1;
                self.loads.push(Load {
                    key,
                    value: self.counted.loads as u32,
                    ends: self.now + self.takes,
                    answers: self.answers,
                    is_void: false,
                    leader: waits.map(|(who, _)| who),
                    waiting: waits.into_iter().collect(),
                    had: in_hand,
                });
            }
        }
        self.land();
    }

    /// Loads that end now.
    fn land(&mut self) {
        while let Some(at) = self.loads.iter().position(|load| load.ends <= self.now) {
            let load = self.loads.remove(at);
            if load.answers && !load.is_void {
                self.kept.insert(load.key, Kept { value: load.value, until: self.now + TTL, quiet_until: 0 });
            }
            if !load.answers {
                self.counted.errors += 1;
                // Only the one it was to take the place of.
                if let Some(kept) = self.kept.get_mut(&load.key).filter(|kept| Some(**kept) == load.had) {
                    kept.quiet_until = self.now + THROTTLE;
                }
            }
            for (who, in_hand) in load.waiting {
                let leads = load.leader == Some(who);
                let seen = match in_hand.filter(|kept| !load.answers && self.now < self.stale_until(kept)) {
                    Some(kept) => {
                        self.counted.covered += 1;
                        Ok((kept.value, "stale: failed"))
                    }
                    None if load.answers && !leads => Ok((load.value, "collapsed")),
                    None if load.answers => Ok((load.value, if load.is_void { "loaded" } else { "stored" })),
                    None => Err(if leads { "down" } else { "refused" }),
                };
                self.see(who, seen);
            }
        }
    }

    fn invalidate(&mut self, key: u32) {
        self.kept.remove(&key);
        for load in self.loads.iter_mut().filter(|load| load.key == key) {
            load.is_void = true;
        }
    }

    /// Who goes away has counted, and its load goes on.
    fn go_away(&mut self, key: u32) -> Vec<usize> {
        let of_key = self.loads.iter_mut().filter(|load| load.key == key);
        of_key.flat_map(|load| load.waiting.drain(..)).map(|(who, _)| who).collect()
    }
}

fn seen(answer: &Result<Told, AppError>) -> Seen {
    match answer {
        Ok((value, status)) => Ok((*value, name(*status))),
        Err(AppError::Down) => Err("down"),
        Err(_) => Err("refused"),
    }
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 1..3_u32;
    prop_oneof![
        8 => key().prop_map(Op::Ask),
        1 => key().prop_map(Op::GoAway),
        1 => key().prop_map(Op::Invalidate),
        2 => any::<bool>().prop_map(Op::Answers),
        2 => (0..4_u64).prop_map(Op::Takes),
        6 => (0..5_u64).prop_map(Op::Pass),
    ]
}

async fn lives_as(ops: &[Op], (revalidate, if_error): (u64, u64)) -> Result<(), TestCaseError> {
    let settings = BASE
        .ttl(TTL as u32 * SECOND)
        .stale_while_revalidate(revalidate as u32 * SECOND)
        .stale_if_error(if_error as u32 * SECOND)
        .throttle(THROTTLE as u32 * SECOND);
    let bench = Bench::new(settings);
    let mut waiting: BTreeMap<usize, JoinHandle<Result<Told, AppError>>> = BTreeMap::new();
    let mut naive = Naive {
        revalidate,
        if_error,
        now: 0,
        answers: true,
        takes: 0,
        kept: BTreeMap::new(),
        loads: Vec::new(),
        seen: BTreeMap::new(),
        counted: Counted::default(),
    };
    for (who, op) in ops.iter().enumerate() {
        match *op {
            Op::Ask(key) => {
                waiting.insert(who, tokio::spawn(bench.service().oneshot(Ask(key))));
                naive.ask(who, key);
            }
            Op::GoAway(key) => {
                for who in naive.go_away(key) {
                    waiting.remove(&who).expect("it waits").abort();
                }
            }
            Op::Invalidate(key) => {
                bench.handle.invalidate(&key);
                naive.invalidate(key);
            }
            Op::Answers(answers) => {
                bench.dependency.then(if answers { Then::Answer } else { Then::Fail(AppError::Down) });
                naive.answers = answers;
            }
            Op::Takes(seconds) => {
                bench.dependency.takes(seconds as u32 * SECOND);
                naive.takes = seconds;
            }
            Op::Pass(seconds) => {
                for _ in 0..seconds {
                    pass(SECOND).await;
                    settle().await;
                    naive.now += 1;
                    naive.land();
                }
            }
        }
        settle().await;
        for (who, expected) in std::mem::take(&mut naive.seen) {
            let answer = waiting.remove(&who).expect("it has not been answered");
            prop_assert!(answer.is_finished(), "{who} still waits after {op:?}, and not for {expected:?}");
            prop_assert_eq!(seen(&answer.await.unwrap()), expected, "{} after {:?}", who, op);
        }
        prop_assert!(waiting.values().all(|answer| !answer.is_finished()), "answered too early, after {op:?}");
        let stats = bench.handle.stats();
        let counted = Counted {
            hits: stats.hits,
            stale: stats.stale,
            misses: stats.misses,
            covered: stats.covered,
            loads: stats.loads,
            errors: stats.errors,
        };
        prop_assert_eq!(&counted, &naive.counted, "after {:?}", op);
        prop_assert_eq!(stats.in_flight, naive.loads.len(), "after {:?}", op);
        prop_assert_eq!(u64::from(bench.dependency.calls()), stats.loads);
    }
    Ok(())
}

proptest! {
    #[test]
    fn answers_age_and_are_loaded_as_a_naive_cache_would_have_it(ops in vec(op(), 1..80)) {
        for windows in WINDOWS {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(lives_as(&ops, windows))?;
        }
    }
}
