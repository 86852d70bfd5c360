//! The machine against a naive model: a circuit that keeps its whole history and counts it anew each time it is asked.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::{
    in_flight::Slot,
    machine::Machine,
    policy::{CircuitBreakerSettings, Window},
    step::{Admission, Admitted, Ending, Transitions},
    tally::Tally,
};
use crate::{
    event::CircuitState,
    outcome::Outcome,
    time::{Instant, Now},
};

/// Time in the model: nanoseconds, a few of which matter.
type Tick = u64;

const ORIGIN: Tick = 1 << 62;

#[derive(Clone, Debug)]
struct Config {
    consecutive: Option<u32>,
    failure_percent: Option<u32>,
    slow_percent: Option<u32>,
    window: Window,
    minimum_calls: u32,
    slow: Option<Tick>,
    count_cancelled: bool,
    open: Tick,
    probes: u32,
    successes: u32,
    half_open_timeout: Tick,
}

#[derive(Clone, Debug)]
enum Step {
    Admit,
    /// A call that is under way is polled and pending for the first time.
    Wait(u32),
    End(u32, Ending),
    Pass(Tick),
}

#[derive(Clone, Debug)]
struct Call {
    generation: u64,
    probe: bool,
    pending_since: Option<Tick>,
    overdue: bool,
}

#[derive(Clone, Debug)]
struct Model {
    config: Config,
    now: Tick,
    state: CircuitState,
    generation: u64,
    until: Tick,
    gives_up: Tick,
    /// Every call that counted since the circuit last closed: when, failed, slow.
    history: Vec<(Tick, bool, bool)>,
    /// Every event in the row of successes (false) and failures (true) since then.
    row: Vec<bool>,
    /// The verdicts on the probes of this half-open period.
    verdicts: Vec<bool>,
    calls: BTreeMap<u32, Call>,
    next_call: u32,
    /// What the last step answered, for comparison.
    answer: Option<Admission>,
    stale: bool,
}

impl Model {
    fn slow_is_failure(&self) -> bool {
        self.config.slow.is_some() && self.config.slow_percent.is_none()
    }

    fn trials(&self) -> usize {
        self.config.probes.max(self.config.successes) as usize
    }

    fn current(&self) -> impl Iterator<Item = &Call> {
        self.calls.values().filter(|call| call.generation == self.generation)
    }

    fn probes_out(&self) -> usize {
        self.current().filter(|call| call.probe).count()
    }

    fn run(&self) -> u32 {
        self.row.iter().rev().take_while(|failed| **failed).count() as u32
    }

    /// The last calls, or the last time, of the history and then of these.
    fn recount(&self, then: &[(Tick, bool, bool)]) -> Tally {
        let mut tally = Tally::default();
        if self.config.failure_percent.is_none() && self.config.slow_percent.is_none() {
            return tally;
        }
        let held: Vec<_> = match self.config.window {
            Window::Calls(n) => self.history.iter().chain(then).rev().take(n as usize).collect(),
            Window::Time(length) => {
                let width = (length.as_nanos() as u64 / 10).max(1);
                self.history.iter().chain(then).filter(|(then, ..)| self.now / width - then / width < 10).collect()
            }
        };
        for (_, failed, slow) in held {
            tally.calls += 1;
            tally.failed += u64::from(*failed);
            tally.slow += u64::from(*slow);
        }
        tally
    }

    fn with_overdue(&self) -> Tally {
        let overdue = self.current().filter(|call| call.overdue && self.state == CircuitState::Closed);
        let overdue: Vec<_> = overdue.map(|_| (self.now, self.slow_is_failure(), true)).collect();
        self.recount(&overdue)
    }

    fn for_failures(&self) -> Tally {
        if self.slow_is_failure() { self.with_overdue() } else { self.recount(&[]) }
    }

    fn enter(&mut self, state: CircuitState) {
        self.state = state;
        self.generation += 1;
        self.verdicts.clear();
        if state == CircuitState::Closed {
            self.history.clear();
            self.row.clear();
        }
    }

    fn open(&mut self, since: Tick) {
        self.until = since + self.config.open;
        self.enter(CircuitState::Open);
    }

    fn judge(&mut self) {
        match self.state {
            CircuitState::Closed => {
                let over = |part: u64, calls: u64, percent: Option<u32>| {
                    percent.is_some_and(|percent| {
                        calls >= u64::from(self.config.minimum_calls)
                            && calls > 0
                            && part * 100 >= calls * u64::from(percent)
                    })
                };
                let (failures, all) = (self.for_failures(), self.with_overdue());
                let tripped = self.config.consecutive.is_some_and(|n| self.run() >= n)
                    || over(failures.failed, failures.calls, self.config.failure_percent)
                    || over(all.slow, all.calls, self.config.slow_percent);
                if tripped {
                    self.open(self.now);
                }
            }
            CircuitState::HalfOpen => {
                let good = self.verdicts.iter().filter(|good| **good).count();
                let bad = self.verdicts.len() - good;
                if good >= self.config.successes as usize {
                    self.enter(CircuitState::Closed);
                } else if self.trials() - bad.min(self.trials()) < self.config.successes as usize {
                    self.open(self.now);
                }
            }
            CircuitState::Open => {}
        }
    }

    /// Calls that have grown too slow fail at that moment.
    fn sweep(&mut self) {
        if let Some(slow) = self.config.slow {
            let (generation, now) = (self.generation, self.now);
            let mut found = 0;
            for call in self.calls.values_mut().filter(|call| call.generation == generation && !call.overdue) {
                if call.pending_since.is_some_and(|since| since + slow <= now) {
                    call.overdue = true;
                    found += 1;
                }
            }
            for _ in 0..found {
                if self.state == CircuitState::HalfOpen {
                    self.verdicts.push(false);
                } else if self.slow_is_failure() {
                    self.row.push(true);
                }
            }
            if self.current().any(|call| call.overdue) {
                self.judge();
            }
        }
    }

    fn tick(&mut self) {
        self.sweep();
        if self.state == CircuitState::HalfOpen && self.probes_out() > 0 && self.now >= self.gives_up {
            self.open(self.gives_up);
        }
        if self.state == CircuitState::Open && self.now >= self.until {
            self.enter(CircuitState::HalfOpen);
        }
    }

    fn admit(&mut self) {
        self.tick();
        let answer = match self.state {
            CircuitState::Closed => Admission::Counted,
            CircuitState::Open => Admission::Refused { retry_at: Some(Instant::from_nanos(self.until)) },
            CircuitState::HalfOpen => {
                let undecided = self.current().filter(|call| call.probe && !call.overdue).count();
                let room = self.probes_out() < self.config.probes as usize;
                if room && self.verdicts.len() + undecided < self.trials() {
                    if self.probes_out() == 0 {
                        self.gives_up = self.now + self.config.half_open_timeout;
                    }
                    Admission::Probe
                } else {
                    Admission::Refused { retry_at: None }
                }
            }
        };
        if !matches!(answer, Admission::Refused { .. }) {
            let call = Call {
                generation: self.generation,
                probe: answer == Admission::Probe,
                pending_since: None,
                overdue: false,
            };
            self.calls.insert(self.next_call, call);
            self.next_call += 1;
        }
        self.answer = Some(answer);
    }

    fn end(&mut self, id: u32, ending: Ending) {
        let Some(call) = self.calls.remove(&id) else { return };
        if call.generation == self.generation {
            self.sweep();
        }
        self.stale = call.generation != self.generation;
        if self.stale {
            return;
        }
        let slow = call.overdue
            || call.pending_since.zip(self.config.slow).is_some_and(|(since, slow)| self.now - since >= slow);
        let failed = match ending {
            Ending::Answered(Outcome::Success | Outcome::Permanent) => Some(false),
            Ending::Answered(Outcome::Transient { .. }) | Ending::Panicked => Some(true),
            Ending::Answered(_) => None,
            Ending::Cancelled if self.config.count_cancelled => Some(true),
            Ending::Cancelled if slow => Some(false),
            Ending::Cancelled => None,
        };
        if call.probe {
            if let Some(failed) = failed
                && !call.overdue
            {
                self.verdicts.push(!failed && !slow);
            }
        } else if let Some(failed) = failed {
            let failed = failed || (slow && self.slow_is_failure());
            if !(call.overdue && self.slow_is_failure()) && (failed || ending != Ending::Cancelled) {
                self.row.push(failed);
            }
            self.history.push((self.now, failed, slow));
        } else {
            return;
        }
        self.judge();
    }
}

struct Circuit;

impl ReferenceStateMachine for Circuit {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        let window = prop_oneof![
            (1_u32..12).prop_map(Window::Calls),
            (10_u64..300).prop_map(|nanos| Window::Time(Duration::from_nanos(nanos))),
        ];
        let trips = (
            prop::option::of(1_u32..5),
            prop::option::of(1_u32..=100),
            prop::option::of(1_u32..=100),
            window,
            1_u32..6,
        );
        let rest = (prop::option::of(1_u64..60), any::<bool>(), 1_u64..80, 1_u32..4, 1_u32..4, 1_u64..80);
        (trips, rest)
            .prop_map(|((consecutive, failure_percent, slow_percent, window, minimum), rest)| {
                let (slow, count_cancelled, open, probes, successes, half_open_timeout) = rest;
                let slow_percent = slow_percent.filter(|_| slow.is_some());
                let nothing = consecutive.is_none() && failure_percent.is_none() && slow_percent.is_none();
                let minimum_calls = match window {
                    Window::Calls(n) => minimum.min(n),
                    Window::Time(_) => minimum,
                };
                let config = Config {
                    consecutive: consecutive.or(nothing.then_some(2)),
                    failure_percent,
                    slow_percent,
                    window,
                    minimum_calls,
                    slow,
                    count_cancelled,
                    open,
                    probes,
                    successes,
                    half_open_timeout,
                };
                Model {
                    config,
                    now: ORIGIN,
                    state: CircuitState::Closed,
                    generation: 1,
                    until: 0,
                    gives_up: 0,
                    history: Vec::new(),
                    row: Vec::new(),
                    verdicts: Vec::new(),
                    calls: BTreeMap::new(),
                    next_call: 0,
                    answer: None,
                    stale: false,
                }
            })
            .boxed()
    }

    fn transitions(model: &Model) -> BoxedStrategy<Step> {
        let ending = prop_oneof![
            4 => Just(Ending::Answered(Outcome::Success)),
            4 => Just(Ending::Answered(Outcome::TRANSIENT)),
            1 => Just(Ending::Answered(Outcome::Permanent)),
            1 => Just(Ending::Answered(Outcome::Ignored)),
            1 => Just(Ending::Cancelled),
            1 => Just(Ending::Panicked),
        ];
        let pass = prop_oneof![6 => 0_u64..20, 2 => 20_u64..200, 1 => Just(1_u64 << 40)].prop_map(Step::Pass);
        let ids: Vec<u32> = model.calls.keys().copied().collect();
        if ids.is_empty() {
            return prop_oneof![3 => Just(Step::Admit), 1 => pass].boxed();
        }
        let id = prop::sample::select(ids);
        prop_oneof![
            4 => Just(Step::Admit),
            2 => id.clone().prop_map(Step::Wait),
            5 => (id, ending).prop_map(|(id, ending)| Step::End(id, ending)),
            2 => pass,
        ]
        .boxed()
    }

    fn preconditions(model: &Model, step: &Step) -> bool {
        match step {
            Step::Wait(id) | Step::End(id, _) => model.calls.contains_key(id),
            Step::Admit | Step::Pass(_) => true,
        }
    }

    fn apply(mut model: Model, step: &Step) -> Model {
        (model.answer, model.stale) = (None, false);
        match *step {
            Step::Admit => model.admit(),
            Step::Wait(id) => {
                let (now, timed) = (model.now, model.config.slow.is_some());
                if let Some(call) = model.calls.get_mut(&id)
                    && timed
                {
                    call.pending_since.get_or_insert(now);
                }
            }
            Step::End(id, ending) => model.end(id, ending),
            Step::Pass(time) => {
                model.now += time;
                model.tick();
            }
        }
        model
    }
}

struct Tested {
    machine: Machine,
    now: Tick,
    calls: BTreeMap<u32, Admitted>,
    next_call: u32,
}

impl StateMachineTest for Tested {
    type SystemUnderTest = Self;
    type Reference = Circuit;

    fn init_test(model: &Model) -> Self {
        let config = &model.config;
        let ratio = |percent: u32| f64::from(percent) / 100.0;
        let mut settings = CircuitBreakerSettings::new()
            .window(config.window)
            .minimum_calls(config.minimum_calls)
            .open_for(Duration::from_nanos(config.open))
            .probes(config.probes)
            .successes(config.successes)
            .half_open_timeout(Duration::from_nanos(config.half_open_timeout));
        // `new()` brings a trip of its own; u32::MAX failures never come.
        settings = settings.or_consecutive_failures(config.consecutive.unwrap_or(u32::MAX));
        if let Some(percent) = config.failure_percent {
            settings = settings.or_failure_rate(ratio(percent));
        }
        if let Some(slow) = config.slow {
            settings = settings.slow_calls(Duration::from_nanos(slow));
            if let Some(percent) = config.slow_percent {
                settings = settings.or_slow_call_rate(ratio(percent), Duration::from_nanos(slow));
            }
        }
        if config.count_cancelled {
            settings = settings.count_cancelled();
        }
        let machine = Machine::new(settings.check().unwrap(), 7);
        Self { machine, now: ORIGIN, calls: BTreeMap::new(), next_call: 0 }
    }

    fn apply(mut tested: Self, model: &Model, step: Step) -> Self {
        let mut transitions = Transitions::default();
        let generation = tested.machine.generation();
        let at = Instant::from_nanos(tested.now);
        match step {
            Step::Admit => {
                tested.machine.tick(at, &mut transitions);
                let answer = tested.machine.admit(at);
                assert_eq!(Some(answer), model.answer);
                if !matches!(answer, Admission::Refused { .. }) {
                    let admitted = Admitted {
                        generation: tested.machine.generation(),
                        probe: answer == Admission::Probe,
                        pending: None,
                    };
                    tested.calls.insert(tested.next_call, admitted);
                    tested.next_call += 1;
                }
            }
            Step::Wait(id) => {
                let call = tested.calls.get_mut(&id).unwrap();
                if call.pending.is_none() && tested.machine.is_timed() {
                    let slot: Option<Slot> = tested.machine.wait(call.generation, at);
                    call.pending = Some((at, slot));
                }
            }
            Step::End(id, ending) => {
                let call = tested.calls.remove(&id).unwrap();
                let current = tested.machine.settle(call, ending, &mut Now::from(at), &mut transitions);
                assert_eq!(current, !model.stale);
            }
            Step::Pass(time) => {
                tested.now += time;
                let now = Instant::from_nanos(tested.now);
                tested.machine.tick(now, &mut transitions);
                assert!(tested.machine.changes_at(now).is_none_or(|at| at > now), "what is due has been done");
            }
        }
        for (steps, transition) in transitions.iter().enumerate() {
            use CircuitState::{Closed, HalfOpen, Open};
            assert!(
                matches!(
                    (transition.from, transition.to),
                    (Closed | HalfOpen, Open) | (Open, HalfOpen) | (HalfOpen, Closed)
                ),
                "illegal edge {transition:?}"
            );
            assert_eq!(transition.generation, generation + 1 + steps as u64);
        }
        tested
    }

    fn check_invariants(tested: &Self, model: &Model) {
        let mut machine = tested.machine.clone();
        let snapshot = machine.snapshot(Instant::from_nanos(tested.now));
        assert_eq!(snapshot.state, model.state);
        assert_eq!(snapshot.generation, model.generation);
        assert_eq!(snapshot.consecutive_failures, model.run());
        let (failures, all) = (model.for_failures(), model.with_overdue());
        assert_eq!((snapshot.calls, snapshot.slow, snapshot.failed), (all.calls, all.slow, failures.failed));
        assert_eq!(snapshot.probes_in_flight as usize, model.probes_out());
        assert!(snapshot.probes_in_flight <= model.config.probes);
        // What the fast path takes for granted: where it says so, one more good call changes nothing.
        if tested.machine.is_quiet() {
            let mut transitions = Transitions::default();
            let good = Admitted { generation: snapshot.generation, probe: false, pending: None };
            let now = Instant::from_nanos(tested.now);
            machine.settle(good, Ending::Answered(Outcome::Success), &mut now.into(), &mut transitions);
            assert_eq!(machine.snapshot(now), snapshot);
            assert!(transitions.is_empty() && machine.is_quiet());
        }
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_machine_agrees_with_its_history(sequential 1..120 => Tested);
}
