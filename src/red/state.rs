//! What clones share: the counters.

use std::fmt;

use super::{
    policy::RedSettings,
    seconds::{WINDOW, second},
    snapshot::{Durations, RedSnapshot, Requests},
    stripe::{Stripes, Total},
};
use crate::{
    error::ConfigError,
    event::{Ending, Meter},
    shared::Shared,
    time::{self, Instant},
};

pub(super) struct State {
    pub(super) name: &'static str,
    /// The declared values, sorted, and `other`: one for each series. Empty without a label.
    values: Box<[&'static str]>,
    series: Box<[Series]>,
    /// The second in which it was made.
    since: u64,
}

/// The counters of one value of the label, or of all calls.
pub(super) struct Series {
    pub(super) stripes: Stripes,
    pub(super) meter: Meter,
}

impl State {
    pub(super) fn share(settings: &RedSettings) -> Result<Shared<Self>, ConfigError> {
        let (name, label) = (settings.name, settings.check()?);
        let series = |label| Series { stripes: Stripes::new(), meter: Meter::new(name, label) };
        let (values, series) = match label {
            None => (Box::default(), Box::from([series(None)])),
            Some((key, values)) => {
                let all = values.iter().map(|value| series(Some((key, *value)))).collect();
                (values, all)
            }
        };
        Ok(Shared::new(Self { name, values, series, since: second(time::now()) }))
    }

    /// The series of requests with this label. What is not declared has the last one.
    #[inline]
    pub(super) fn place(&self, label: Option<&str>) -> usize {
        match label {
            None => self.series.len() - 1,
            Some(label) => self.find(label),
        }
    }

    fn find(&self, label: &str) -> usize {
        let last = self.series.len() - 1;
        let declared = self.values.get(..last).unwrap_or_default();
        declared.binary_search(&label).unwrap_or(last)
    }

    #[inline]
    pub(super) fn series(&self, place: usize) -> &Series {
        &self.series[place]
    }

    /// A call that came to nothing: the inner service never became ready.
    #[cold]
    pub(super) fn fail(&self, ending: Ending) {
        let series = self.series(self.place(None));
        let noted = series.meter.begin();
        series.stripes.begin(time::now());
        series.stripes.end(ending, None);
        series.meter.end(noted, ending, None);
    }

    pub(super) fn snapshot(&self) -> RedSnapshot {
        self.snapshot_of(&self.series, time::now())
    }

    pub(super) fn snapshot_by_label(&self) -> Vec<(&'static str, RedSnapshot)> {
        let now = time::now();
        let of = |series| self.snapshot_of(std::slice::from_ref(series), now);
        self.values.iter().copied().zip(self.series.iter().map(of)).collect()
    }

    fn snapshot_of(&self, series: &[Series], now: Instant) -> RedSnapshot {
        let mut total = Total::new();
        series.iter().for_each(|series| series.stripes.add_to(&mut total));
        let present = second(now);
        let within = |seconds: u64| {
            let from = present.saturating_sub(seconds);
            series.iter().map(|series| series.stripes.begun_within(from, present)).sum::<u64>()
        };
        let seconds = present.saturating_sub(self.since).clamp(1, WINDOW);
        let per_second = within(WINDOW) as f64 / seconds as f64;
        RedSnapshot {
            name: self.name,
            requests: Requests::of(&total, within(1), per_second),
            duration: Durations::of(&total),
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RedSnapshot { name, requests, .. } = self.snapshot();
        f.debug_struct("State").field("name", &name).field("requests", &requests).finish_non_exhaustive()
    }
}
