//! What stays in memory. One test in a process of its own: the places of circuits are the process's.

#![cfg(feature = "full")]

use buttress::circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings as Settings, KeyedCircuitBreakerLayer};
use tower::Layer;

const PATIENT: Settings = Settings::consecutive_failures(1_000_000);

#[test]
fn memory_follows_the_circuits_that_live_at_a_time() {
    resilience4j_2243_layers_that_come_and_go_leave_nothing_behind();
    a_key_costs_a_kilobyte_while_it_lives_and_a_quarter_of_it_after();
}

/// resilience4j_2243: whatever registers itself and is never removed.
fn resilience4j_2243_layers_that_come_and_go_leave_nothing_behind() {
    let come_and_go = || {
        let layer = CircuitBreakerLayer::new(PATIENT.or_failure_rate(0.5).name(buttress::intern("come and go")));
        layer.handle().on_event(|_| {});
        let _watch = layer.handle().watch();
        layer.layer(()).handle().try_acquire().unwrap().failure();
    };
    come_and_go();
    let measured = allocation_counter::measure(|| (0..10_000).for_each(|_| come_and_go()));
    assert_eq!((measured.count_current, measured.bytes_current), (0, 0));
}

/// The figures in the docs of `max_keys`.
fn a_key_costs_a_kilobyte_while_it_lives_and_a_quarter_of_it_after() {
    const KEYS: u64 = 20_000;
    let mut layer = None;
    let living = allocation_counter::measure(|| {
        let keyed = KeyedCircuitBreakerLayer::new(PATIENT.max_keys(KEYS as usize), |request: &u32| *request);
        for key in 0..KEYS as u32 {
            let _ = keyed.handle().circuit(key);
        }
        layer = Some(keyed);
    });
    let left = allocation_counter::measure(|| drop(layer.take()));
    let (lives, stays) =
        (living.bytes_current / KEYS as i64, (living.bytes_current + left.bytes_current) / KEYS as i64);
    assert!((500..1_100).contains(&lives), "{lives} bytes a key");
    assert!((100..300).contains(&stays), "{stays} bytes a key stay");
}
