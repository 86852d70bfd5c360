//! The settings: small values, checked once.

use std::time::Duration;

use super::open_time::{OPEN_TIME, OpenTime};
use crate::error::ConfigError;

/// When a circuit opens, for how long, and what closes it again.
///
/// # Defaults
///
/// | setting | default | from |
/// |---|---|---|
/// | [`name`](Self::name) | `"circuit_breaker"` | |
/// | trip | [5 consecutive failures](Self::consecutive_failures) | finagle, failsafe-rs |
/// | [`window`](Self::window) of a rate | the last 100 calls | resilience4j |
/// | [`minimum_calls`](Self::minimum_calls) of a rate | 20, or the window if that is smaller | Hystrix |
/// | [`slow_calls`](Self::slow_calls) | none is slow | |
/// | [`count_cancelled`](Self::count_cancelled) | cancelled calls are ignored, unless they were slow | |
/// | [`open_for`](Self::open_for) | 60 s | resilience4j, gobreaker |
/// | [`probes`](Self::probes) in flight | 1 | gobreaker |
/// | [`successes`](Self::successes) to close | 2 | |
/// | [`half_open_timeout`](Self::half_open_timeout) | the open time, at least 1 s | |
/// | [`max_keys`](Self::max_keys) of a keyed layer | 10,000 | |
///
/// A trip is named by the constructor; `or_` adds another, and the first to fire opens the circuit.
///
/// ```
/// # use std::time::Duration;
/// # use buttress::circuit_breaker::{CircuitBreakerSettings, Window};
/// const PAYMENTS: CircuitBreakerSettings = CircuitBreakerSettings::failure_rate(0.5)
///     .window(Window::Time(Duration::from_secs(30)))
///     .or_consecutive_failures(10)
///     .name("payments");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CircuitBreakerSettings {
    pub(super) name: &'static str,
    pub(super) max_keys: usize,
    consecutive_failures: Option<u32>,
    failure_rate: Option<f64>,
    slow_call_rate: Option<f64>,
    window: Window,
    minimum_calls: Option<u32>,
    slow_threshold: Option<Duration>,
    count_cancelled: bool,
    open: OpenTime,
    probes: u32,
    successes: u32,
    half_open_timeout: Option<Duration>,
}

/// What a rate is counted over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last so many calls, at most 1,048,576: two bits each.
    Calls(u32),
    /// The last so much time, in ten buckets: a rate forgets a tenth at a time. 300 bytes however many calls there are.
    Time(Duration),
}

const MINIMUM_CALLS: u32 = 20;
const LONGEST_RING: u32 = 1 << 20;

// ===== impl CircuitBreakerSettings =====

impl CircuitBreakerSettings {
    const BASE: Self = Self {
        name: "circuit_breaker",
        max_keys: 10_000,
        consecutive_failures: None,
        failure_rate: None,
        slow_call_rate: None,
        window: Window::Calls(100),
        minimum_calls: None,
        slow_threshold: None,
        count_cancelled: false,
        open: OpenTime::fixed(OPEN_TIME),
        probes: 1,
        successes: 2,
        half_open_timeout: None,
    };

    /// Opens on 5 consecutive failures.
    #[must_use]
    pub const fn new() -> Self {
        Self::consecutive_failures(5)
    }

    /// Opens **on** the nth failure in a row.
    #[must_use]
    pub const fn consecutive_failures(n: u32) -> Self {
        Self::BASE.or_consecutive_failures(n)
    }

    /// Opens when at least this ratio of the calls in the window failed: above 0, at most 1, to a millionth.
    #[must_use]
    pub const fn failure_rate(ratio: f64) -> Self {
        Self::BASE.or_failure_rate(ratio)
    }

    /// Opens when at least this ratio of the calls in the window took `threshold` or longer.
    ///
    /// Slow calls then are a matter of their own and no failures.
    #[must_use]
    pub const fn slow_call_rate(ratio: f64, threshold: Duration) -> Self {
        Self::BASE.or_slow_call_rate(ratio, threshold)
    }

    /// Also opens on the nth failure in a row.
    #[must_use]
    pub const fn or_consecutive_failures(mut self, n: u32) -> Self {
        self.consecutive_failures = Some(n);
        self
    }

    /// Also opens on this [failure rate](Self::failure_rate).
    #[must_use]
    pub const fn or_failure_rate(mut self, ratio: f64) -> Self {
        self.failure_rate = Some(ratio);
        self
    }

    /// Also opens on this [slow call rate](Self::slow_call_rate).
    #[must_use]
    pub const fn or_slow_call_rate(mut self, ratio: f64, threshold: Duration) -> Self {
        self.slow_call_rate = Some(ratio);
        self.slow_threshold = Some(threshold);
        self
    }

    /// The name in errors, events and metrics. Defaults to `"circuit_breaker"`.
    #[must_use]
    pub const fn name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// What the rates are counted over. Defaults to the last 100 calls.
    #[must_use]
    pub const fn window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// A rate opens nothing before so many calls are in the window. Defaults to 20, or the window if that is smaller.
    #[must_use]
    pub const fn minimum_calls(mut self, n: u32) -> Self {
        self.minimum_calls = Some(n);
        self
    }

    /// A call that takes this long or longer is a failure, and it counts as soon as it is that old, so that a dependency that hangs opens the
    /// circuit although no call ever ends. With a [slow call rate](Self::or_slow_call_rate) it counts there instead. Defaults to none.
    ///
    /// Several that are found too slow at once count at once, so a row can end longer than the number that opens the circuit.
    ///
    /// A call whose answer is ready at once pays nothing for it. A call that is pending pays two clock readings and two short locks:
    /// `cargo bench` prints what that comes to.
    #[must_use]
    pub const fn slow_calls(mut self, threshold: Duration) -> Self {
        self.slow_threshold = Some(threshold);
        self
    }

    /// A cancelled call is a failure. Defaults to ignored, unless it was slow.
    #[must_use]
    pub const fn count_cancelled(mut self) -> Self {
        self.count_cancelled = true;
        self
    }

    /// How long the circuit stays open. Defaults to 60 s.
    #[must_use]
    pub const fn open_for(self, time: Duration) -> Self {
        self.open_time(OpenTime::fixed(time))
    }

    /// How long the circuit stays open. Defaults to 60 s.
    #[must_use]
    pub const fn open_time(mut self, time: OpenTime) -> Self {
        self.open = time;
        self
    }

    /// How many calls a half-open circuit admits at a time. Defaults to 1.
    #[must_use]
    pub const fn probes(mut self, n: u32) -> Self {
        self.probes = n;
        self
    }

    /// How many probes must succeed to close the circuit. Defaults to 2.
    ///
    /// A half-open period tries `max(probes, successes)` calls, and opens again as soon as those left can no longer bring the number about.
    #[must_use]
    pub const fn successes(mut self, n: u32) -> Self {
        self.successes = n;
        self
    }

    /// How long a half-open period may last before it gives up on the probes that are still out. Defaults to the time the circuit was open
    /// before, at least 1 s.
    ///
    /// It runs while probes are out: a period in which nobody is probing has nothing to give up on, and goes on.
    #[must_use]
    pub const fn half_open_timeout(mut self, time: Duration) -> Self {
        self.half_open_timeout = Some(time);
        self
    }

    /// How many keys a [keyed layer](super::KeyedCircuitBreakerLayer) remembers. Defaults to 10,000.
    ///
    /// A key costs about a kilobyte while it is remembered, beside the key itself and a window, if one is counted over. About a quarter of
    /// that stays with the process when it is forgotten, for the next circuit (`cargo test --test memory`).
    #[must_use]
    pub const fn max_keys(mut self, n: usize) -> Self {
        self.max_keys = n;
        self
    }

    pub(super) fn check(self) -> Result<Limits, ConfigError> {
        let err = |field, problem| Err(ConfigError::new(field, problem));
        if self.consecutive_failures == Some(0) {
            return err("consecutive_failures", "must be at least 1");
        }
        let failure_ppm = millionths("failure_rate", self.failure_rate)?;
        let slow_ppm = millionths("slow_call_rate", self.slow_call_rate)?;
        if self.consecutive_failures.is_none() && failure_ppm.is_none() && slow_ppm.is_none() {
            return err("trip", "nothing opens this circuit");
        }
        let most = match self.window {
            Window::Calls(0) => return err("window", "must be at least 1 call"),
            Window::Calls(n) if n > LONGEST_RING => {
                return err("window", "must be at most 1,048,576 calls");
            }
            Window::Time(time) if time < Duration::from_nanos(10) => {
                return err("window", "must be at least 10 ns");
            }
            Window::Calls(n) => n,
            Window::Time(_) => u32::MAX,
        };
        let minimum_calls = self.minimum_calls.unwrap_or(MINIMUM_CALLS.min(most));
        if minimum_calls == 0 || minimum_calls > most {
            return err("minimum_calls", "must be at least 1 and fit the window");
        }
        if self.slow_threshold == Some(Duration::ZERO) {
            return err("slow_calls", "must be longer than zero");
        }
        self.open.check()?;
        if self.probes == 0 {
            return err("probes", "must be at least 1");
        }
        if self.successes == 0 {
            return err("successes", "must be at least 1");
        }
        if self.half_open_timeout == Some(Duration::ZERO) {
            return err("half_open_timeout", "must be longer than zero");
        }
        if self.max_keys == 0 {
            return err("max_keys", "must be at least 1");
        }
        Ok(Limits {
            consecutive: self.consecutive_failures,
            failure_ppm,
            slow_ppm,
            window: (failure_ppm.is_some() || slow_ppm.is_some()).then_some(self.window),
            minimum_calls: u64::from(minimum_calls),
            slow_threshold: self.slow_threshold,
            count_cancelled: self.count_cancelled,
            open: self.open,
            probes: self.probes,
            successes: self.successes,
            half_open_timeout: self.half_open_timeout,
        })
    }
}

impl Default for CircuitBreakerSettings {
    fn default() -> Self {
        Self::new()
    }
}

/// Settings that have been checked: what the machine goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) consecutive: Option<u32>,
    /// Rates in millionths, so that a comparison is exact.
    pub(super) failure_ppm: Option<u32>,
    pub(super) slow_ppm: Option<u32>,
    /// `None` when no rate needs one.
    pub(super) window: Option<Window>,
    pub(super) minimum_calls: u64,
    pub(super) slow_threshold: Option<Duration>,
    pub(super) count_cancelled: bool,
    pub(super) open: OpenTime,
    pub(super) probes: u32,
    pub(super) successes: u32,
    pub(super) half_open_timeout: Option<Duration>,
}

impl Limits {
    /// Whether a slow call is a failure, rather than a matter of its own rate.
    pub(super) const fn slow_is_failure(&self) -> bool {
        self.slow_threshold.is_some() && self.slow_ppm.is_none()
    }

    /// How many calls a half-open period tries.
    pub(super) const fn trials(&self) -> u32 {
        if self.probes > self.successes { self.probes } else { self.successes }
    }
}

fn millionths(field: &'static str, ratio: Option<f64>) -> Result<Option<u32>, ConfigError> {
    match ratio {
        None => Ok(None),
        Some(ratio) if (0.000_001..=1.0).contains(&ratio) => Ok(Some((ratio * 1e6).round() as u32)),
        Some(_) => Err(ConfigError::new(field, "must be above 0 and at most 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn settings_that_cannot_work_name_the_field() {
        type S = CircuitBreakerSettings;
        let time = |time| S::new().open_time(time);
        let rows: [(&str, S); 20] = [
            ("consecutive_failures", S::consecutive_failures(0)),
            ("failure_rate", S::failure_rate(0.0)),
            ("failure_rate", S::failure_rate(-0.0)),
            ("failure_rate", S::failure_rate(1.1)),
            ("failure_rate", S::failure_rate(f64::NAN)),
            ("slow_call_rate", S::slow_call_rate(f64::INFINITY, SECOND)),
            ("window", S::failure_rate(0.5).window(Window::Calls(0))),
            ("window", S::failure_rate(0.5).window(Window::Calls(u32::MAX))),
            ("window", S::failure_rate(0.5).window(Window::Time(Duration::ZERO))),
            ("minimum_calls", S::failure_rate(0.5).minimum_calls(0)),
            ("minimum_calls", S::failure_rate(0.5).minimum_calls(101)),
            ("slow_calls", S::new().slow_calls(Duration::ZERO)),
            ("open_time", S::new().open_for(Duration::ZERO)),
            ("open_time", time(OpenTime::exponential(Duration::ZERO, SECOND))),
            ("open_time", time(OpenTime::exponential(2 * SECOND, SECOND))),
            ("open_time", time(OpenTime::fixed(SECOND).jitter(f64::NAN))),
            ("probes", S::new().probes(0)),
            ("successes", S::new().successes(0)),
            ("half_open_timeout", S::new().half_open_timeout(Duration::ZERO)),
            ("max_keys", S::new().max_keys(0)),
        ];
        for (field, settings) in rows {
            assert_eq!(settings.check().unwrap_err().field(), field, "{settings:?}");
        }
    }

    #[test]
    fn extreme_settings_are_accepted() {
        let settings = CircuitBreakerSettings::failure_rate(0.000_001)
            .window(Window::Time(Duration::MAX))
            .minimum_calls(u32::MAX)
            .or_slow_call_rate(1.0, Duration::MAX)
            .or_consecutive_failures(u32::MAX)
            .open_for(Duration::MAX)
            .probes(u32::MAX)
            .successes(u32::MAX)
            .half_open_timeout(Duration::MAX)
            .max_keys(usize::MAX);
        assert!(settings.check().is_ok());
    }
}
