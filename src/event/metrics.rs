//! Events as counters and gauges: the only file that names the `metrics` crate for them.
//!
//! Handles are registered with the first event that finds a recorder, so a recorder that is installed after the layer was built is found
//! too, and after that an event costs a few nanoseconds.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ::metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, Unit, with_recorder};

use super::{
    Calls, CircuitState, Event, EventKind, GaveUp, Pattern, WhyStale,
    table::{METRICS, MetricKind},
};
use crate::{error::Reason, outcome::Outcome};

const STATES: [CircuitState; 3] = [CircuitState::Closed, CircuitState::Open, CircuitState::HalfOpen];
const WHY_STALE: [WhyStale; 3] = [WhyStale::Revalidating, WhyStale::Failed, WhyStale::Slow];
const GAVE_UP: [GaveUp; 6] =
    [GaveUp::Attempts, GaveUp::Delays, GaveUp::Within, GaveUp::Deadline, GaveUp::Budget, GaveUp::Request];

pub(super) struct Metrics {
    pattern: Pattern,
    name: &'static str,
    handles: OnceLock<Handles>,
    /// Registered with the first transition, so that no series says that a circuit is in no state.
    states: OnceLock<[Gauge; 3]>,
    /// Registered with the first event of a store, because most limits have none.
    store: OnceLock<Store>,
    /// Registered with the first call that has stood in line.
    waits: OnceLock<Histogram>,
    /// The newest generation and, in its lowest two bits, its state: an older event, overtaken on its way, must not move the gauges back.
    newest: AtomicU64,
    /// What has been told of each of a cache's calls.
    told: [AtomicU64; 3],
}

struct Store {
    failed: Counter,
    to_away: Counter,
    to_shared: Counter,
    /// Of caches only.
    foreign: Option<Counter>,
}

/// Those of one pattern.
enum Handles {
    Cache {
        /// Hits, misses, loads.
        calls: [Counter; 3],
        stale_served: [Counter; 3],
        loads_failed: Counter,
        loads_voided: Counter,
        evicted: Counter,
        expired: Counter,
        too_large: Counter,
        rejected: Counter,
    },
    CircuitBreaker {
        transitions: [Counter; 3],
        rejected: Counter,
        shadow_rejected: Counter,
        stale: Counter,
        keys_exhausted: Counter,
    },
    RateLimit {
        rejected: Counter,
        shadow_rejected: Counter,
        near_limit: Counter,
        keys_exhausted: Counter,
    },
    Retry {
        retries: Counter,
        recovered: Counter,
        gave_up: [Counter; 6],
    },
    Timeout {
        timed_out: Counter,
        deadline_exceeded: Counter,
    },
}

/// Whether a recorder is installed. The one that stands in for none has no size; a real one keeps something.
#[inline]
pub(super) fn is_recorded() -> bool {
    with_recorder(|recorder| size_of_val(recorder) != 0)
}

impl Metrics {
    pub(super) const fn named(pattern: Pattern, name: &'static str) -> Self {
        Self {
            pattern,
            name,
            handles: OnceLock::new(),
            states: OnceLock::new(),
            store: OnceLock::new(),
            waits: OnceLock::new(),
            newest: AtomicU64::new(0),
            told: [const { AtomicU64::new(0) }; 3],
        }
    }

    pub(super) fn record(&self, event: &Event<'_>, keyed: bool) {
        if !is_recorded() {
            return;
        }
        let handles = self.handles();
        if let (Handles::Cache { evicted, expired: gone, .. }, EventKind::Evicted { live, expired }) =
            (handles, event.kind)
        {
            evicted.increment(live);
            gone.increment(expired);
        }
        if let Some(counter) = handles.of(&event.kind) {
            counter.increment(1);
        }
        match event.kind {
            EventKind::StoreFailed { .. } => self.store().failed.increment(1),
            EventKind::StoreForeign => self.store().foreign.iter().for_each(|foreign| foreign.increment(1)),
            EventKind::StoreSwitched { shared: false } => self.store().to_away.increment(1),
            EventKind::StoreSwitched { shared: true } => self.store().to_shared.increment(1),
            _ => {}
        }
        // Many circuits share the name of a keyed layer: no one of them is "the state".
        if let EventKind::Transition { to, generation, .. } = event.kind
            && !keyed
        {
            self.show(to, generation);
        }
    }

    /// What has not been told yet: nobody tells it twice, and a recorder that comes late is told all.
    pub(super) fn count(&self, calls: impl FnOnce() -> Calls) {
        if !is_recorded() {
            return;
        }
        if let Handles::Cache { calls: counters, .. } = self.handles() {
            let Calls { hits, misses, loads } = calls();
            for ((counter, told), now) in counters.iter().zip(&self.told).zip([hits, misses, loads]) {
                let before = told.fetch_max(now, Ordering::Relaxed);
                counter.increment(now.saturating_sub(before));
            }
        }
    }

    pub(super) fn waited(&self, waited: impl FnOnce() -> Duration) {
        if !is_recorded() {
            return;
        }
        // They describe all of its pattern.
        self.handles();
        let register = |recorder: &dyn Recorder| {
            recorder.register_histogram(&key(self.name, "buttress_rate_limit_wait_seconds", None), &METADATA)
        };
        self.waits.get_or_init(|| with_recorder(register)).record(waited().as_secs_f64());
    }

    fn handles(&self) -> &Handles {
        let register = |recorder: &dyn Recorder| Handles::register(recorder, self.pattern, self.name);
        self.handles.get_or_init(|| with_recorder(register))
    }

    fn store(&self) -> &Store {
        let register = |recorder: &dyn Recorder| {
            let counter = |metric, label| recorder.register_counter(&key(self.name, metric, label), &METADATA);
            let [failed, switches, foreign] = match self.pattern {
                Pattern::Cache => [
                    "buttress_cache_store_failed_total",
                    "buttress_cache_store_switches_total",
                    "buttress_cache_store_foreign_total",
                ],
                _ => ["buttress_rate_limit_store_failed_total", "buttress_rate_limit_store_switches_total", ""],
            };
            let switches = |to| counter(switches, Some(("to", to)));
            let foreign = (!foreign.is_empty()).then(|| counter(foreign, None));
            Store { failed: counter(failed, None), to_away: switches("away"), to_shared: switches("shared"), foreign }
        };
        self.store.get_or_init(|| with_recorder(register))
    }

    /// Sets the gauges by the newest transition, and once more if it is not by then: a recorder's gauges are not set under a lock.
    fn show(&self, to: CircuitState, generation: u64) {
        let register = |recorder: &dyn Recorder| {
            STATES.map(|state| {
                let key = key(self.name, "buttress_circuit_breaker_state", Some(("state", state.as_str())));
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
    fn register(recorder: &dyn Recorder, pattern: Pattern, name: &'static str) -> Self {
        describe(recorder, &format!("buttress_{}_", pattern.as_str()));
        let counter = |metric, label| recorder.register_counter(&key(name, metric, label), &METADATA);
        match pattern {
            Pattern::Cache => Self::Cache {
                calls: [
                    counter("buttress_cache_calls_total", Some(("result", "hit"))),
                    counter("buttress_cache_calls_total", Some(("result", "miss"))),
                    counter("buttress_cache_loads_total", None),
                ],
                stale_served: WHY_STALE
                    .map(|why| counter("buttress_cache_stale_served_total", Some(("why", why.as_str())))),
                loads_failed: counter("buttress_cache_loads_failed_total", None),
                loads_voided: counter("buttress_cache_loads_voided_total", None),
                evicted: counter("buttress_cache_evicted_total", None),
                expired: counter("buttress_cache_expired_total", None),
                too_large: counter("buttress_cache_too_large_total", None),
                rejected: counter("buttress_cache_rejected_total", None),
            },
            Pattern::CircuitBreaker => Self::CircuitBreaker {
                transitions: STATES
                    .map(|state| counter("buttress_circuit_breaker_transitions_total", Some(("to", state.as_str())))),
                rejected: counter("buttress_circuit_breaker_rejected_total", None),
                shadow_rejected: counter("buttress_circuit_breaker_shadow_rejected_total", None),
                stale: counter("buttress_circuit_breaker_stale_total", None),
                keys_exhausted: counter("buttress_circuit_breaker_keys_exhausted_total", None),
            },
            Pattern::RateLimit => Self::RateLimit {
                rejected: counter("buttress_rate_limit_rejected_total", None),
                shadow_rejected: counter("buttress_rate_limit_shadow_rejected_total", None),
                near_limit: counter("buttress_rate_limit_near_limit_total", None),
                keys_exhausted: counter("buttress_rate_limit_keys_exhausted_total", None),
            },
            Pattern::Retry => Self::Retry {
                retries: counter("buttress_retry_retries_total", None),
                recovered: counter("buttress_retry_recovered_total", None),
                gave_up: GAVE_UP.map(|why| counter("buttress_retry_gave_up_total", Some(("why", why.as_str())))),
            },
            Pattern::Timeout => Self::Timeout {
                timed_out: counter("buttress_timeout_rejected_total", Some(("reason", "timed_out"))),
                deadline_exceeded: counter("buttress_timeout_rejected_total", Some(("reason", "deadline_exceeded"))),
            },
        }
    }

    /// The counter of an event, if it has one.
    fn of(&self, kind: &EventKind<'_>) -> Option<&Counter> {
        match (self, kind) {
            (Self::Cache { stale_served, .. }, EventKind::StaleServed { why, .. }) => {
                Some(&stale_served[*why as usize])
            }
            (Self::Cache { loads_failed, .. }, EventKind::LoadFailed { .. }) => Some(loads_failed),
            (Self::Cache { loads_voided, .. }, EventKind::LoadVoided) => Some(loads_voided),
            (Self::Cache { too_large, .. }, EventKind::EntryTooLarge) => Some(too_large),
            (Self::Cache { rejected, .. }, EventKind::Rejected { .. }) => Some(rejected),
            (Self::CircuitBreaker { transitions, .. }, EventKind::Transition { to, .. }) => {
                Some(&transitions[*to as usize])
            }
            (Self::CircuitBreaker { rejected, .. }, EventKind::Rejected { shadow: false, .. }) => Some(rejected),
            (Self::CircuitBreaker { shadow_rejected, .. }, EventKind::Rejected { .. }) => Some(shadow_rejected),
            (Self::CircuitBreaker { stale, .. }, EventKind::Stale { .. }) => Some(stale),
            (Self::CircuitBreaker { keys_exhausted, .. }, EventKind::KeysExhausted { .. }) => Some(keys_exhausted),
            (Self::RateLimit { rejected, .. }, EventKind::Rejected { shadow: false, .. }) => Some(rejected),
            (Self::RateLimit { shadow_rejected, .. }, EventKind::Rejected { .. }) => Some(shadow_rejected),
            (Self::RateLimit { near_limit, .. }, EventKind::NearLimit { .. }) => Some(near_limit),
            (Self::RateLimit { keys_exhausted, .. }, EventKind::KeysExhausted { .. }) => Some(keys_exhausted),
            (Self::Retry { retries, .. }, EventKind::Retry { .. }) => Some(retries),
            (Self::Retry { gave_up, .. }, EventKind::Retried { gave_up: Some(why), .. }) => {
                Some(&gave_up[*why as usize])
            }
            (Self::Retry { recovered, .. }, EventKind::Retried { outcome: Outcome::Success, .. }) => Some(recovered),
            (Self::Timeout { timed_out, deadline_exceeded }, EventKind::Rejected { rejected, .. }) => {
                match rejected.reason() {
                    Reason::TimedOut => Some(timed_out),
                    _ => Some(deadline_exceeded),
                }
            }
            _ => None,
        }
    }
}

pub(super) const METADATA: Metadata<'static> = Metadata::new("buttress", Level::INFO, Some("buttress"));

fn key(name: &'static str, metric: &'static str, label: Option<(&'static str, &'static str)>) -> Key {
    let mut labels = vec![Label::from_static_parts("name", name)];
    labels.extend(label.map(|(key, value)| Label::from_static_parts(key, value)));
    Key::from_parts(metric, labels)
}

/// Tells the recorder what the metrics of this prefix mean.
pub(super) fn describe(recorder: &dyn Recorder, prefix: &str) {
    for metric in METRICS.iter().filter(|metric| metric.name.starts_with(prefix)) {
        let (name, meaning) = (metric.name.into(), metric.meaning.into());
        match metric.kind {
            MetricKind::Counter => recorder.describe_counter(name, None, meaning),
            MetricKind::Gauge => recorder.describe_gauge(name, None, meaning),
            MetricKind::Histogram => recorder.describe_histogram(name, Some(Unit::Seconds), meaning),
        }
    }
}
