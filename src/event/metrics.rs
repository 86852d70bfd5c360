//! Events as counters and gauges: the only file that names the `metrics` crate for them.
//!
//! Handles are registered with the first event that finds a recorder, so a recorder that is installed after the layer was built is found
//! too, and after that an event costs a few nanoseconds.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use ::metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder, with_recorder};

use super::{CircuitState, Event, EventKind};

const STATES: [CircuitState; 3] = [CircuitState::Closed, CircuitState::Open, CircuitState::HalfOpen];

pub(super) struct Metrics {
    name: &'static str,
    handles: OnceLock<Handles>,
    /// Registered with the first transition, so that no series says that a circuit is in no state.
    states: OnceLock<[Gauge; 3]>,
    /// The newest generation and, in its lowest two bits, its state: an older event, overtaken on its way, must not move the gauges back.
    newest: AtomicU64,
}

struct Handles {
    transitions: [Counter; 3],
    rejected: Counter,
    shadow_rejected: Counter,
    stale: Counter,
    keys_exhausted: Counter,
}

/// Whether a recorder is installed. The one that stands in for none has no size; a real one keeps something.
#[inline]
pub(super) fn is_recorded() -> bool {
    with_recorder(|recorder| size_of_val(recorder) != 0)
}

impl Metrics {
    pub(super) const fn named(name: &'static str) -> Self {
        Self { name, handles: OnceLock::new(), states: OnceLock::new(), newest: AtomicU64::new(0) }
    }

    pub(super) fn record(&self, event: &Event<'_>, keyed: bool) {
        if !is_recorded() {
            return;
        }
        let handles = self.handles.get_or_init(|| with_recorder(|recorder| Handles::register(recorder, self.name)));
        match event.kind {
            EventKind::Transition { to, generation, .. } => {
                handles.transitions[to as usize].increment(1);
                // Many circuits share the name of a keyed layer: no one of them is "the state".
                if !keyed {
                    self.show(to, generation);
                }
            }
            EventKind::Rejected { shadow: false, .. } => handles.rejected.increment(1),
            EventKind::Rejected { shadow: true, .. } => handles.shadow_rejected.increment(1),
            EventKind::Stale { .. } => handles.stale.increment(1),
            EventKind::KeysExhausted { .. } => handles.keys_exhausted.increment(1),
        }
    }

    /// Sets the gauges by the newest transition, and once more if it is not by then: a recorder's gauges are not set under a lock.
    fn show(&self, to: CircuitState, generation: u64) {
        let register = |recorder: &dyn Recorder| {
            STATES.map(|state| {
                let key = key(self.name, "buttress_circuit_breaker_state", Some(("state", state)));
                recorder.register_gauge(&key, &METADATA)
            })
        };
        let gauges = self.states.get_or_init(|| with_recorder(register));
        self.newest.fetch_max(generation << 2 | to as u64, Ordering::SeqCst);
        loop {
            let newest = self.newest.load(Ordering::SeqCst);
            for state in STATES {
                gauges[state as usize].set(f64::from(u8::from(newest & 3 == state as u64)));
            }
            if self.newest.load(Ordering::SeqCst) == newest {
                return;
            }
        }
    }
}

impl Handles {
    fn register(recorder: &dyn Recorder, name: &'static str) -> Self {
        let counter = |metric, label| recorder.register_counter(&key(name, metric, label), &METADATA);
        Self {
            transitions: STATES.map(|state| counter("buttress_circuit_breaker_transitions_total", Some(("to", state)))),
            rejected: counter("buttress_circuit_breaker_rejected_total", None),
            shadow_rejected: counter("buttress_circuit_breaker_shadow_rejected_total", None),
            stale: counter("buttress_circuit_breaker_stale_total", None),
            keys_exhausted: counter("buttress_circuit_breaker_keys_exhausted_total", None),
        }
    }
}

const METADATA: Metadata<'static> = Metadata::new("buttress", Level::INFO, Some("buttress"));

fn key(name: &'static str, metric: &'static str, label: Option<(&'static str, CircuitState)>) -> Key {
    let mut labels = vec![Label::from_static_parts("name", name)];
    labels.extend(label.map(|(key, state)| Label::from_static_parts(key, state.as_str())));
    Key::from_parts(metric, labels)
}
