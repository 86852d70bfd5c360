//! Every interleaving of admission, settlement and transition: `RUSTFLAGS="--cfg buttress_loom" cargo test --lib loom`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Waker,
    time::Duration,
};

use loom::{model, thread};

use super::{permit::Permit, policy::CircuitBreakerSettings, state::Circuit, step::Ending, word::CLOSED};
use crate::{
    error::{Reason, Trip},
    event::CircuitState,
    outcome::Outcome,
};

const BASE: CircuitBreakerSettings = CircuitBreakerSettings::consecutive_failures(1).open_for(Duration::from_nanos(1));

fn circuit(settings: CircuitBreakerSettings) -> Circuit {
    Circuit::try_new(settings).unwrap()
}

fn end(mut permit: Permit, outcome: Outcome) {
    permit.settle(Ending::Answered(outcome));
}

fn fail(permit: Permit) {
    end(permit, Outcome::TRANSIENT);
}

fn half_open() -> Circuit {
    let circuit = circuit(BASE.half_open_timeout(Duration::MAX));
    fail(circuit.admit().ok().unwrap());
    while circuit.state() != CircuitState::HalfOpen {}
    circuit
}

#[test]
fn no_failure_is_lost_whatever_else_goes_on() {
    model(|| {
        let circuit = circuit(CircuitBreakerSettings::consecutive_failures(2));
        let fails = || {
            let circuit = circuit.clone();
            thread::spawn(move || circuit.admit().map(fail).is_ok())
        };
        let threads = [fails(), fails()];
        let counted = threads.map(|thread| thread.join().unwrap());
        assert_eq!(counted, [true, true]);
        assert_eq!(circuit.snapshot().state, CircuitState::Open);
    });
}

#[test]
fn a_success_that_skips_the_lock_hides_no_failure() {
    model(|| {
        let circuit = circuit(CircuitBreakerSettings::consecutive_failures(1));
        let other = circuit.clone();
        let succeeds = thread::spawn(move || {
            if let Ok(permit) = other.admit() {
                end(permit, Outcome::Success);
            }
        });
        fail(circuit.admit().ok().unwrap());
        succeeds.join().unwrap();
        assert_eq!(circuit.snapshot().state, CircuitState::Open);
    });
}

#[test]
fn never_more_probes_than_places_and_every_place_comes_back() {
    model(|| {
        let circuit = half_open();
        let out = Arc::new(AtomicUsize::new(0));
        let probe = || {
            let (circuit, out) = (circuit.clone(), Arc::clone(&out));
            thread::spawn(move || {
                if let Ok(permit) = circuit.admit() {
                    assert_eq!(out.fetch_add(1, SeqCst), 0, "one place");
                    thread::yield_now();
                    out.fetch_sub(1, SeqCst);
                    drop(permit);
                }
            })
        };
        let threads = [probe(), probe()];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(circuit.snapshot().probes_in_flight, 0);
    });
}

#[test]
fn a_probe_that_ends_while_the_circuit_is_reset_changes_nothing_after_it() {
    model(|| {
        let circuit = half_open();
        let permit = circuit.admit().ok().unwrap();
        let fails = thread::spawn(move || fail(permit));
        circuit.reset();
        let reset = circuit.snapshot();
        fails.join().unwrap();
        let after = circuit.snapshot();
        assert_eq!((after.state, after.generation), (CircuitState::Closed, reset.generation));
        assert_eq!((after.consecutive_failures, after.probes_in_flight), (0, 0));
    });
}

#[test]
fn a_caller_that_parks_while_the_circuit_trips_is_woken_or_sees_it() {
    struct Wakes(AtomicUsize);
    impl std::task::Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    model(|| {
        let circuit = circuit(CircuitBreakerSettings::consecutive_failures(1));
        let permit = circuit.admit().ok().unwrap();
        let trips = thread::spawn(move || fail(permit));
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        let mut place = None;
        let word = circuit.place.word();
        let passes = word & CLOSED != 0;
        circuit.park(&mut place, &Waker::from(Arc::clone(&wakes)));
        let sees = !passes || circuit.place.word() != word;
        trips.join().unwrap();
        assert!(sees || wakes.0.load(SeqCst) == 1, "parked for ever");
        drop(place);
    });
}

#[test]
fn whoever_is_refused_is_told_by_what() {
    model(|| {
        let circuit = circuit(CircuitBreakerSettings::consecutive_failures(1));
        let other = circuit.clone();
        let asks = thread::spawn(move || other.admit().err().map(|refusal| other.refuse(refusal).rejected()));
        fail(circuit.admit().ok().unwrap());
        if let Some(rejected) = asks.join().unwrap() {
            assert_eq!(rejected.reason(), Reason::CircuitOpen(Trip::ConsecutiveFailures(1)));
            assert!(rejected.retry_after().is_some_and(|wait| wait <= Duration::from_secs(60)));
        }
    });
}

#[test]
fn a_call_that_begins_to_wait_while_the_circuit_is_reset_leaves_no_trace() {
    model(|| {
        let circuit = circuit(CircuitBreakerSettings::consecutive_failures(9).slow_calls(Duration::from_secs(60)));
        let mut permit = circuit.admit().ok().unwrap();
        let waits = thread::spawn(move || {
            permit.pending();
            fail(permit);
        });
        circuit.reset();
        let reset = circuit.snapshot();
        waits.join().unwrap();
        let after = circuit.snapshot();
        assert_eq!((after.generation, after.consecutive_failures), (reset.generation, 0));
        assert_eq!(after.overdue_in_flight, 0);
    });
}
