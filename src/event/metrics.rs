//! Events as counters and gauges: the only file that names the `metrics` crate for them.
//!
//! Handles are registered with the first event that finds a recorder, so a recorder that is installed after the layer was built is found
//! too, and after that an event costs a few nanoseconds.

use std::sync::{Mutex, OnceLock, PoisonError};

use ::metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder, with_recorder};

use super::{CircuitState, Event, EventKind};

const STATES: [CircuitState; 3] = [CircuitState::Closed, CircuitState::Open, CircuitState::HalfOpen];

pub(super) struct Metrics {
    name: &'static str,
    handles: OnceLock<Handles>,
    /// The generation that the state gauges show: an older event, overtaken on its way, must not move them back.
    shown: Mutex<u64>,
}

struct Handles {
    transitions: [Counter; 3],
    states: [Gauge; 3],
    rejected: Counter,
    shadow_rejected: Counter,
    stale: Counter,
    keys_exhausted: Counter,
}

/// Whether a recorder is installed. The one that stands in for none has no size.
#[inline]
pub(super) fn is_recorded() -> bool {
    with_recorder(|recorder| size_of_val(recorder) != 0)
}

impl Metrics {
    pub(super) const fn named(name: &'static str) -> Self {
        Self { name, handles: OnceLock::new(), shown: Mutex::new(0) }
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
                    self.show(handles, to, generation);
                }
            }
            EventKind::Rejected { shadow: false, .. } => handles.rejected.increment(1),
            EventKind::Rejected { shadow: true, .. } => handles.shadow_rejected.increment(1),
            EventKind::Stale { .. } => handles.stale.increment(1),
            EventKind::KeysExhausted { .. } => handles.keys_exhausted.increment(1),
        }
    }

    fn show(&self, handles: &Handles, to: CircuitState, generation: u64) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if generation > *shown {
            *shown = generation;
            for state in STATES {
                handles.states[state as usize].set(f64::from(u8::from(state == to)));
            }
        }
    }
}

impl Handles {
    fn register(recorder: &dyn Recorder, name: &'static str) -> Self {
        const METADATA: Metadata<'static> = Metadata::new("buttress", Level::INFO, Some("buttress"));
        let key = |metric: &'static str, label: Option<(&'static str, CircuitState)>| {
            let mut labels = vec![Label::from_static_parts("name", name)];
            labels.extend(label.map(|(key, state)| Label::from_static_parts(key, state.as_str())));
            Key::from_parts(metric, labels)
        };
        let counter = |metric, label| recorder.register_counter(&key(metric, label), &METADATA);
        let gauge = |metric, label| recorder.register_gauge(&key(metric, label), &METADATA);
        Self {
            transitions: STATES.map(|state| counter("buttress_circuit_breaker_transitions_total", Some(("to", state)))),
            states: STATES.map(|state| gauge("buttress_circuit_breaker_state", Some(("state", state)))),
            rejected: counter("buttress_circuit_breaker_rejected_total", None),
            shadow_rejected: counter("buttress_circuit_breaker_shadow_rejected_total", None),
            stale: counter("buttress_circuit_breaker_stale_total", None),
            keys_exhausted: counter("buttress_circuit_breaker_keys_exhausted_total", None),
        }
    }
}
