//! Every call as counter, gauge and histogram of the `metrics` facade: what RED measures by.
//!
//! Handles are registered with the first call that finds a recorder. Macros in their place would build the key, look it up and allocate for
//! each call.

use std::{fmt, sync::OnceLock};

use ::metrics::{Counter, Gauge, Histogram, Key, Label, Recorder, with_recorder};

use super::{
    ENDINGS, Ending, guarded,
    metrics::{METADATA, describe, is_recorded},
};

/// The series of one name, and of one value of its label if it has one.
pub(crate) struct Meter {
    name: &'static str,
    label: Option<(&'static str, &'static str)>,
    handles: OnceLock<Handles>,
}

struct Handles {
    in_flight: Gauge,
    /// Those of refusals are registered with the first one for that reason: most stacks know only two or three.
    requests: [OnceLock<Counter>; ENDINGS],
    durations: [OnceLock<Histogram>; ENDINGS],
}

impl Meter {
    pub(crate) const fn new(name: &'static str, label: Option<(&'static str, &'static str)>) -> Self {
        Self { name, label, handles: OnceLock::new() }
    }

    /// A call begins. Whether anybody has noted it, who then is to note its end.
    #[inline]
    pub(crate) fn begin(&self) -> bool {
        let Some(handles) = self.handles() else {
            return false;
        };
        guarded(|| handles.in_flight.increment(1.0));
        true
    }

    /// A call ends, after so many nanoseconds.
    #[inline]
    pub(crate) fn end(&self, noted: bool, ending: Ending, took: Option<u64>) {
        let Some(handles) = self.handles() else {
            return;
        };
        guarded(|| {
            if noted {
                handles.in_flight.decrement(1.0);
            }
            match handles.requests[ending.index()].get() {
                Some(requests) => requests.increment(1),
                None => handles.requests[ending.index()].get_or_init(|| self.requests(ending)).increment(1),
            }
            if let Some(took) = took {
                // A product costs a part of the quotient that `as_secs_f64` takes.
                let seconds = took as f64 * 1e-9;
                match handles.durations[ending.index()].get() {
                    Some(durations) => durations.record(seconds),
                    None => handles.durations[ending.index()].get_or_init(|| self.durations(ending)).record(seconds),
                }
            }
        });
    }

    #[inline]
    fn handles(&self) -> Option<&Handles> {
        match self.handles.get() {
            Some(handles) => Some(handles),
            None if is_recorded() => self.register(),
            None => None,
        }
    }

    #[cold]
    #[inline(never)]
    fn register(&self) -> Option<&Handles> {
        guarded(|| {
            self.handles.get_or_init(|| with_recorder(|recorder| self.handles_of(recorder)));
        });
        self.handles.get()
    }

    fn handles_of(&self, recorder: &dyn Recorder) -> Handles {
        describe(recorder, "buttress_red_");
        let handles = Handles {
            in_flight: recorder.register_gauge(&self.key("buttress_red_in_flight", []), &METADATA),
            requests: [const { OnceLock::new() }; ENDINGS],
            durations: [const { OnceLock::new() }; ENDINGS],
        };
        // A rate needs a zero to begin with.
        for ending in Ending::all().filter(|ending| ending.reason().is_none()) {
            handles.requests[ending.index()].get_or_init(|| self.requests_of(recorder, ending));
        }
        handles
    }

    #[cold]
    fn requests(&self, ending: Ending) -> Counter {
        with_recorder(|recorder| self.requests_of(recorder, ending))
    }

    fn requests_of(&self, recorder: &dyn Recorder, ending: Ending) -> Counter {
        let outcome = ("outcome", ending.as_str());
        let key = match ending.reason() {
            None => self.key("buttress_red_requests_total", [outcome]),
            Some(reason) => self.key("buttress_red_requests_total", [outcome, ("reason", reason)]),
        };
        recorder.register_counter(&key, &METADATA)
    }

    /// All refusals are one histogram.
    #[cold]
    fn durations(&self, ending: Ending) -> Histogram {
        let key = self.key("buttress_red_duration_seconds", [("outcome", ending.as_str())]);
        with_recorder(|recorder| recorder.register_histogram(&key, &METADATA))
    }

    fn key<const N: usize>(&self, metric: &'static str, labels: [(&'static str, &'static str); N]) -> Key {
        let labels = [("name", self.name)].into_iter().chain(self.label).chain(labels);
        let labels = labels.map(|(key, value)| Label::from_static_parts(key, value));
        Key::from_parts(metric, labels.collect::<Vec<_>>())
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").field("name", &self.name).finish_non_exhaustive()
    }
}
