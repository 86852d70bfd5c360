//! Measures cases against one another in one run: CPU time, allocations, and how two threads get along. What skews it: a busy machine
//! (caches, not time: a thread's own CPU time is taken), and two cores that stand far apart.
//!
//! * A case is a closure that makes a batch of calls. Batches of all cases are interleaved, in another order each round, so that a change of
//!   the machine's mood meets all of them alike; the figure is the median over the rounds.
//! * Allocations are counted in a pass of their own. The counting allocator is told to look away while time is taken.
//! * Two threads run the same loop, each on its own service, both at a time and each alone; that is wall time, because a thread that waits
//!   for a lock burns no other. 2.00 is perfect: twice the calls of one thread. Rounds in which the two did not meet do not count.
//! * Only ratios within one run mean anything; nanoseconds are remarks.
//!
//! ```text
//! cargo bench --bench NAME [-- [--short] [FILTER]]
//! ```

// Each benchmark uses its own part of this.
#![allow(dead_code)]

pub(crate) mod drive;
mod report;
pub(crate) mod usage;

use std::{
    cell::Cell,
    hash::BuildHasher,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cpu_time::ThreadTime;

/// A batch of so many calls, for a thread of its own.
pub(crate) type Batch = Box<dyn FnMut(u64) + Send>;

/// Times the batch of work it is given, or counts its allocations, and leaves what comes before it out.
type Meter<'a> = &'a mut dyn FnMut(&mut dyn FnMut());

/// All cases of one benchmark.
pub(crate) struct Bench {
    name: &'static str,
    mode: Mode,
    filter: Option<String>,
    section: &'static str,
    cases: Vec<Case>,
    gates: Vec<Gate>,
    remarks: Vec<(String, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// As `cargo test --benches` runs it: each case once, to see that it still works.
    Smoke,
    Short,
    Full,
}

/// One row of the table.
pub(crate) struct Case {
    section: &'static str,
    name: String,
    ours: bool,
    may_allocate: bool,
    waits: bool,
    run: Box<dyn FnMut(u64, Meter<'_>)>,
    two_threads: Option<[Batch; 2]>,
    measured: Measured,
}

#[derive(Clone, Copy, Default)]
struct Measured {
    ns: Option<f64>,
    allocations: Option<f64>,
    /// Throughput of two threads in units of one.
    two_threads: Option<f64>,
}

/// A case, to speak of it in a gate.
#[derive(Clone, Copy)]
pub(crate) struct CaseId(usize);

struct Gate {
    name: String,
    bound: Bound,
    measure: Measure,
}

/// What a gate wants.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
    Between(f64, f64),
}

#[derive(Clone, Copy)]
enum Measure {
    Ratio(CaseId, CaseId),
    /// Without what both have in common.
    RatioBeyond(CaseId, CaseId, CaseId),
    TwoThreads(CaseId),
    /// The most that any of our cases allocates per call, but for those that may.
    Allocations,
    AllocationsOf(CaseId),
    Value(f64),
}

impl Bench {
    pub(crate) fn from_args(name: &'static str) -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let has = |flag: &str| args.iter().any(|arg| arg == flag);
        let mode = match (has("--bench"), has("--short")) {
            (false, _) => Mode::Smoke,
            (true, true) => Mode::Short,
            (true, false) => Mode::Full,
        };
        let filter = args.iter().find(|arg| !arg.starts_with('-')).cloned();
        Self { name, mode, filter, section: "", cases: Vec::new(), gates: Vec::new(), remarks: Vec::new() }
    }

    /// Heads the cases that follow. The first of ours in a section is what the ratios of the section refer to.
    pub(crate) fn section(&mut self, section: &'static str) {
        self.section = section;
    }

    pub(crate) fn case(&mut self, name: &str, mut batch: impl FnMut(u64) + 'static) -> &mut Case {
        self.case_with(name, || (), move |(), calls| batch(calls))
    }

    /// A case that prepares something before each batch, outside the measurement.
    pub(crate) fn case_with<T>(
        &mut self,
        name: &str,
        mut prepare: impl FnMut() -> T + 'static,
        mut batch: impl FnMut(&mut T, u64) + 'static,
    ) -> &mut Case {
        let run = move |calls: u64, meter: Meter<'_>| {
            let mut prepared = prepare();
            meter(&mut || batch(&mut prepared, calls));
        };
        self.cases.push(Case {
            section: self.section,
            name: name.to_owned(),
            ours: false,
            may_allocate: false,
            waits: false,
            run: Box::new(run),
            two_threads: None,
            measured: Measured::default(),
        });
        self.cases.last_mut().expect("it has just been pushed")
    }

    /// The case that was added last.
    pub(crate) fn last(&self) -> CaseId {
        CaseId(self.cases.len() - 1)
    }

    /// Wants the time of one case in units of another's to keep a bound.
    pub(crate) fn gate(&mut self, name: &str, case: CaseId, of: CaseId, bound: Bound) {
        self.gates.push(Gate { name: name.to_owned(), bound, measure: Measure::Ratio(case, of) });
    }

    /// As [`gate`](Self::gate), of what each takes beyond a third: the loop that calls both of them, say.
    pub(crate) fn gate_beyond(&mut self, name: &str, case: CaseId, of: CaseId, beyond: CaseId, bound: Bound) {
        self.gates.push(Gate { name: name.to_owned(), bound, measure: Measure::RatioBeyond(case, of, beyond) });
    }

    /// Wants the throughput of two threads in units of one to keep a bound.
    pub(crate) fn gate_two_threads(&mut self, name: &str, case: CaseId, bound: Bound) {
        self.gates.push(Gate { name: name.to_owned(), bound, measure: Measure::TwoThreads(case) });
    }

    /// Wants none of our cases to allocate.
    pub(crate) fn gate_allocations(&mut self) {
        let name = "allocations of ours, the most".to_owned();
        self.gates.push(Gate { name, bound: Bound::AtMost(0.0), measure: Measure::Allocations });
    }

    /// Wants what a case allocates per call to keep a bound: for one that may allocate, and not just anything.
    pub(crate) fn gate_allocations_of(&mut self, name: &str, case: CaseId, bound: Bound) {
        self.gates.push(Gate { name: name.to_owned(), bound, measure: Measure::AllocationsOf(case) });
    }

    /// Wants what was measured elsewhere to keep a bound.
    pub(crate) fn gate_value(&mut self, name: &str, value: f64, bound: Bound) {
        self.gates.push(Gate { name: name.to_owned(), bound, measure: Measure::Value(value) });
    }

    /// Something measured that is not a time.
    pub(crate) fn remark(&mut self, name: String, value: String) {
        self.remarks.push((name, value));
    }

    /// Measures, prints and writes.
    pub(crate) fn run(mut self) {
        if let Some(filter) = &self.filter {
            // A gate about a case that is left out simply does not show.
            for case in self.cases.iter_mut().filter(|case| !case.full_name().contains(filter.as_str())) {
                case.run = Box::new(|_, _| ());
                case.two_threads = None;
                case.section = report::LEFT_OUT;
            }
        }
        if self.mode == Mode::Smoke {
            self.cases.iter_mut().for_each(Case::smoke);
            println!("{}: each of {} cases ran once; `cargo bench` measures them", self.name, self.cases.len());
            return;
        }
        self.count_allocations();
        self.take_time();
        if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
            let before = cache_line_round_trip();
            self.pit_two_threads();
            let after = cache_line_round_trip();
            let name = "a cache line from one core to another and back, before and after the rows with two threads";
            self.remark(name.into(), format!("{before:.0} ns, {after:.0} ns"));
        }
        self.report();
    }

    fn count_allocations(&mut self) {
        const CALLS: u64 = 2000;
        for case in self.cases.iter_mut().filter(|case| case.is_in()) {
            // What is allocated once, at first use, is not the price of a call.
            (case.run)(CALLS, &mut |work| work());
            let counted = Cell::new(0);
            (case.run)(CALLS, &mut |work| counted.set(allocation_counter::measure(work).count_total));
            case.measured.allocations = Some(counted.get() as f64 / CALLS as f64);
        }
    }

    fn take_time(&mut self) {
        let (rounds, batch) = match self.mode {
            Mode::Full => (25, Duration::from_millis(3)),
            Mode::Short | Mode::Smoke => (7, Duration::from_millis(1)),
        };
        let mut cases: Vec<_> = self.cases.iter_mut().filter(|case| case.is_in()).collect();
        let calls: Vec<u64> = cases.iter_mut().map(|case| case.calibrate(batch)).collect();
        let mut ns = vec![Vec::with_capacity(rounds); cases.len()];
        for order in orders(cases.len(), rounds) {
            for index in order {
                ns[index].push(cases[index].time(calls[index]));
            }
        }
        for (case, ns) in cases.into_iter().zip(ns) {
            case.measured.ns = Some(median(ns));
        }
    }

    /// Both threads at a time, then each alone, in each round and for each case.
    fn pit_two_threads(&mut self) {
        let (rounds, batch) = match self.mode {
            Mode::Full => (25, 5e6),
            Mode::Short | Mode::Smoke => (7, 2e6),
        };
        let mut indices = Vec::new();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for (index, case) in self.cases.iter_mut().enumerate() {
            if let Some([one, other]) = case.two_threads.take() {
                let calls = (batch / case.measured.ns.expect("time was taken before")) as u64 + 1;
                indices.push(index);
                first.push((one, calls));
                second.push((other, calls));
            }
        }
        let orders = orders(indices.len(), rounds);
        let meeting = Meeting::new();
        // The seconds of each round in which they met: both at a time, then each alone.
        let lane = |mut batches: Vec<(Batch, u64)>, lane: usize| {
            let mut walls = vec![Vec::with_capacity(rounds); batches.len()];
            let mut turn = 0;
            for index in orders.iter().flatten() {
                let (batch, calls) = &mut batches[*index];
                let mut run = |runs: bool| {
                    let met = meeting.meet(lane, &mut turn);
                    let start = tokio::time::Instant::now();
                    if runs {
                        batch(*calls);
                    }
                    (met, start.elapsed().as_secs_f64())
                };
                let ((met, both), (_, alone)) = (run(true), [run(lane == 0), run(lane == 1)][lane]);
                if met {
                    walls[*index].push((both, alone));
                }
            }
            walls
        };
        let lanes = std::thread::scope(|scope| {
            let lanes = [first, second].into_iter().enumerate();
            let threads: Vec<_> = lanes.map(|(index, batches)| scope.spawn(move || lane(batches, index))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no batch panics")).collect::<Vec<_>>()
        });
        let met = lanes.iter().flatten().map(Vec::len).sum::<usize>() / 2;
        let name = "rounds in which two threads were seen to run at a time; the others do not count".to_owned();
        self.remark(name, format!("{met} of {}", indices.len() * rounds));
        for lane in lanes {
            for (index, walls) in indices.iter().zip(lane).filter(|(_, walls)| !walls.is_empty()) {
                let (both, alone): (Vec<_>, Vec<_>) = walls.into_iter().unzip();
                // Each thread against itself, because one may be the slower for the place of its stack alone.
                *self.cases[*index].measured.two_threads.get_or_insert(0.0) += undisturbed(alone) / undisturbed(both);
            }
        }
    }
}

impl Case {
    /// One of ours: ratios refer to the first of them in its section, and it must not allocate.
    pub(crate) fn ours(&mut self) -> &mut Self {
        self.ours = true;
        self
    }

    /// Its time is that of the wall, because most of it is spent waiting for another process. Its batches are longer.
    pub(crate) fn in_wall_time(&mut self) -> &mut Self {
        self.waits = true;
        self
    }

    /// It is one of ours and allocates, for a reason that stands beside this.
    pub(crate) fn may_allocate(&mut self) -> &mut Self {
        self.may_allocate = true;
        self
    }

    /// Also runs on two threads. Both batches are made here, on the main thread: that is where services are built.
    pub(crate) fn on_two_threads(&mut self, mut make: impl FnMut() -> Batch) -> &mut Self {
        self.two_threads = Some([make(), make()]);
        self
    }

    fn full_name(&self) -> String {
        format!("{}: {}", self.section, self.name)
    }

    fn is_in(&self) -> bool {
        self.section != report::LEFT_OUT
    }

    fn smoke(&mut self) {
        (self.run)(1, &mut |work| work());
        self.two_threads.iter_mut().flatten().for_each(|batch| batch(1));
    }

    /// Nanoseconds of CPU a call.
    fn time(&mut self, calls: u64) -> f64 {
        self.cpu(calls).as_nanos() as f64 / calls as f64
    }

    fn cpu(&mut self, calls: u64) -> Duration {
        let (mut taken, waits) = (Duration::ZERO, self.waits);
        (self.run)(calls, &mut |work| {
            allocation_counter::opt_out(|| {
                let (start, start_of_all) = (ThreadTime::now(), tokio::time::Instant::now());
                work();
                taken = if waits { start_of_all.elapsed() } else { start.elapsed() };
            });
        });
        taken
    }

    /// How many calls take about so long.
    fn calibrate(&mut self, batch: Duration) -> u64 {
        let (mut calls, batch) = (64, if self.waits { 10 * batch } else { batch });
        loop {
            let taken = self.cpu(calls);
            if taken >= batch / 4 {
                return (calls as f64 * batch.as_secs_f64() / taken.as_secs_f64()) as u64 + 1;
            }
            calls *= 2;
        }
    }
}

/// Where two threads begin at a time. Behind a barrier alone they would not: on a busy machine it wakes both on one core, they run one after
/// the other, and what they share is contended by nobody.
struct Meeting {
    barrier: Barrier,
    asked: AtomicU64,
    answered: AtomicU64,
}

impl Meeting {
    /// Only two that run at a time answer each other as quickly; the time slice of one core is milliseconds.
    const QUICKLY: Duration = Duration::from_micros(10);
    const PATIENCE: Duration = Duration::from_millis(50);

    const MET: u64 = 1;
    const MISSED: u64 = 2;
    /// A question is a multiple of it, and the end of a meeting is a question with one of the above.
    const TURN: u64 = 4;

    fn new() -> Self {
        Self { barrier: Barrier::new(2), asked: AtomicU64::new(0), answered: AtomicU64::new(0) }
    }

    /// Whether the two were seen to run at a time: the same for both of them.
    fn meet(&self, lane: usize, turn: &mut u64) -> bool {
        self.barrier.wait();
        if lane == 0 { self.ask(turn) } else { self.answer(turn) }
    }

    fn ask(&self, turn: &mut u64) -> bool {
        let begin = tokio::time::Instant::now();
        loop {
            *turn += Self::TURN;
            let asked = tokio::time::Instant::now();
            self.asked.store(*turn, Ordering::Release);
            while self.answered.load(Ordering::Acquire) != *turn {
                std::hint::spin_loop();
            }
            let met = asked.elapsed() < Self::QUICKLY;
            if met || begin.elapsed() > Self::PATIENCE {
                self.asked.store(*turn + if met { Self::MET } else { Self::MISSED }, Ordering::Release);
                return met;
            }
        }
    }

    fn answer(&self, turn: &mut u64) -> bool {
        loop {
            let asked = self.asked.load(Ordering::Acquire);
            if asked == *turn {
                std::hint::spin_loop();
                continue;
            }
            *turn = asked;
            if !asked.is_multiple_of(Self::TURN) {
                return asked % Self::TURN == Self::MET;
            }
            self.answered.store(asked, Ordering::Release);
        }
    }
}

/// How far apart the two cores stand, in nanoseconds: what two threads share costs a multiple of it, and virtual cores are moved about.
fn cache_line_round_trip() -> f64 {
    const TURNS: u64 = 2_000;
    let game = |_| {
        let (turn, barrier) = (AtomicU64::new(0), Barrier::new(2));
        let play = |parity| {
            barrier.wait();
            let start = tokio::time::Instant::now();
            for mine in (parity..TURNS).step_by(2) {
                while turn.load(Ordering::Acquire) != mine {
                    std::hint::spin_loop();
                }
                turn.store(mine + 1, Ordering::Release);
            }
            start.elapsed().as_nanos() as f64 / (TURNS / 2) as f64
        };
        std::thread::scope(|scope| {
            scope.spawn(|| play(1));
            play(0)
        })
    };
    undisturbed((0..12).map(game).collect())
}

/// For each round, the numbers below `len` in a random order.
fn orders(len: usize, rounds: usize) -> Vec<Vec<usize>> {
    let random = std::hash::RandomState::new();
    let order = |round| {
        let mut order: Vec<usize> = (0..len).collect();
        order.sort_by_cached_key(|index| random.hash_one((round, index)));
        order
    };
    (0..rounds).map(order).collect()
}

fn median(values: Vec<f64>) -> f64 {
    quantile(values, 2)
}

/// The lower quartile: whatever else the machine does can only lengthen wall time.
fn undisturbed(walls: Vec<f64>) -> f64 {
    quantile(walls, 4)
}

fn quantile(mut values: Vec<f64>, of: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / of]
}
