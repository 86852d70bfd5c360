//! The one door to the clock.
//!
//! Everything else takes `now`. The clock is tokio's, so that `tokio::time::pause()` drives every layer; with the feature `quanta` it is
//! the time stamp counter, which is faster and which paused time does not drive.

#[cfg(feature = "timeout")]
mod alarm;
#[cfg_attr(not(all(feature = "rate-limit", feature = "retry")), allow(dead_code))]
mod noted;
#[cfg(any(test, feature = "quanta"))]
mod scale;

use std::{pin::Pin, sync::OnceLock, time::Duration};

use tokio::time::Sleep;

#[cfg(feature = "timeout")]
pub(crate) use alarm::Alarm;
#[cfg_attr(not(all(feature = "rate-limit", feature = "retry")), allow(unused_imports))]
pub(crate) use noted::{forget_noted, noted_or_now, now_noted};

/// A point in time that fits an atomic: nanoseconds since 146 years before the first reading.
///
/// The long lead keeps a reading positive when a clock stands before the first one (two paused runtimes in one process), and leaves 438
/// years ahead; arithmetic saturates at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Instant(u64);

const LEAD: u64 = 1 << 62;

impl Instant {
    /// Later than every reading.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    pub(crate) const fn saturating_add(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(nanos(wait)))
    }

    #[cfg_attr(not(feature = "cache"), allow(dead_code))]
    pub(crate) const fn saturating_sub(self, wait: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(wait)))
    }

    pub(crate) const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The length in nanoseconds, at most `u64::MAX`: 584 years.
pub(crate) const fn nanos(length: Duration) -> u64 {
    length.as_secs().saturating_mul(1_000_000_000).saturating_add(length.subsec_nanos() as u64)
}

/// Reads the clock.
#[cfg(feature = "quanta")]
#[inline]
pub(crate) fn now() -> Instant {
    static CLOCK: OnceLock<(quanta::Clock, u64, scale::Scale)> = OnceLock::new();
    let (clock, first, scale) = CLOCK.get_or_init(|| {
        let clock = quanta::Clock::new();
        let scale = scale::Scale::of(|ticks| clock.delta_as_nanos(0, ticks));
        let first = clock.raw();
        (clock, first, scale)
    });
    let now = clock.raw();
    Instant(if now >= *first {
        LEAD.saturating_add(scale.nanos(now - first))
    } else {
        // Another core's counter may stand behind.
        LEAD.saturating_sub(scale.nanos(first - now))
    })
}

/// The first reading, which stands [`LEAD`] after the beginning.
#[cfg(not(feature = "quanta"))]
static FIRST: OnceLock<tokio::time::Instant> = OnceLock::new();

/// Reads the clock.
#[cfg(not(feature = "quanta"))]
#[inline]
pub(crate) fn now() -> Instant {
    let now = tokio::time::Instant::now();
    let first = *FIRST.get_or_init(|| now);
    Instant(if now >= first {
        LEAD.saturating_add(nanos(now.saturating_duration_since(first)))
    } else {
        LEAD.saturating_sub(nanos(first.saturating_duration_since(now)))
    })
}

/// A point in time as a calendar has it.
#[cfg_attr(not(feature = "http"), allow(dead_code))]
pub(crate) type WallTime = std::time::SystemTime;

/// Reads the wall clock, put forward or back by as much as tokio's clock is away from the real one.
///
/// While time is not paused that is next to nothing, so whatever adjusts the wall clock is obeyed, and a suspended
/// machine wakes with the right time. Paused time drives it, to within the moment that passes between the three
/// readings, and each runtime has its own. The feature `quanta` changes nothing here.
#[cfg_attr(not(feature = "http"), allow(dead_code))]
pub(crate) fn wall() -> WallTime {
    #[expect(clippy::disallowed_types, reason = "what tokio's clock is compared with")]
    let (wall, real) = (WallTime::now(), std::time::Instant::now());
    let ours = tokio::time::Instant::now().into_std();
    let shifted = if ours >= real {
        wall.checked_add(ours.saturating_duration_since(real))
    } else {
        wall.checked_sub(real.saturating_duration_since(ours))
    };
    shifted.unwrap_or(wall)
}

/// A `now` that reads the clock when it is first asked, because most steps never ask.
#[derive(Debug)]
pub(crate) struct Now(Option<Instant>);

impl Now {
    #[inline]
    pub(crate) const fn when_asked() -> Self {
        Self(None)
    }

    #[inline]
    pub(crate) fn get(&mut self) -> Instant {
        *self.0.get_or_insert_with(now)
    }
}

impl From<Instant> for Now {
    fn from(now: Instant) -> Self {
        Self(Some(now))
    }
}

/// A timer fires this much late even on an idle machine, because tokio counts in milliseconds.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// A timer for a caller that has to wait, or `None` outside a tokio runtime and in one whose time is not enabled.
///
/// Boxed because `Sleep` is 112 bytes and almost no call needs one.
pub(crate) fn sleep(wait: Duration) -> Option<Pin<Box<Sleep>>> {
    timer(|| Box::pin(tokio::time::sleep(wait)))
}

/// As [`sleep`], until an instant after the present one, without a reading of its own.
pub(crate) fn sleep_until(at: Instant, now: Instant) -> Option<Pin<Box<Sleep>>> {
    let at = in_tokios_time(at, now).ok_or_else(|| at.saturating_since(now));
    timer(|| Box::pin(at.map_or_else(tokio::time::sleep, tokio::time::sleep_until)))
}

#[cfg(not(feature = "quanta"))]
#[inline]
fn in_tokios_time(at: Instant, _: Instant) -> Option<tokio::time::Instant> {
    FIRST.get()?.checked_add(Duration::from_nanos(at.0.checked_sub(LEAD)?))
}

/// The two clocks are compared once a second, in which they cannot drift apart by more than a timer is late anyhow.
#[cfg(feature = "quanta")]
#[inline]
fn in_tokios_time(at: Instant, now: Instant) -> Option<tokio::time::Instant> {
    const FRESH: u64 = 1_000_000_000;
    thread_local! {
        static COMPARED: std::cell::Cell<Option<(Instant, tokio::time::Instant)>> = const { std::cell::Cell::new(None) };
    }
    let (ours, tokios) = match COMPARED.get() {
        Some(compared) if now.0.wrapping_sub(compared.0.0) < FRESH => compared,
        _ => {
            let compared = (now, tokio::time::Instant::now());
            COMPARED.set(Some(compared));
            compared
        }
    };
    tokios.checked_add(at.saturating_since(ours))
}

#[inline]
fn timer<T>(make: impl FnOnce() -> T) -> Option<T> {
    thread_local! {
        /// Whether this thread was in a runtime when it was last asked.
        static IN_RUNTIME: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
    // To ask for the runtime's handle costs a counted reference. Who runs in a task runs in a runtime; and a thread that was in one mostly is,
    // or else finds out by the panic that is caught below.
    if !(cfg!(panic = "unwind") && IN_RUNTIME.get()) && tokio::task::try_id().is_none() {
        tokio::runtime::Handle::try_current().ok()?;
        IN_RUNTIME.set(true);
    }
    // tokio answers whether time is enabled only by panicking.
    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(make));
    if made.is_err() {
        IN_RUNTIME.set(false);
    }
    made.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let start = Instant::from_nanos(5);
        assert_eq!(start.saturating_add(Duration::MAX), Instant::NEVER);
        assert_eq!(start.saturating_since(Instant::from_nanos(9)), Duration::ZERO);
        assert_eq!(Instant::NEVER.saturating_add(Duration::from_nanos(1)), Instant::NEVER);
    }

    #[cfg(not(feature = "quanta"))]
    #[tokio::test(start_paused = true)]
    async fn paused_time_drives_the_clock() {
        let before = now();
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(now().saturating_since(before), Duration::from_secs(3600));
    }

    #[cfg(not(feature = "quanta"))]
    #[test]
    fn a_runtime_whose_clock_stands_earlier_still_sees_time_pass() {
        let in_a_paused_runtime = |advance: Duration| {
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(
                async {
                    tokio::time::advance(advance).await;
                    let before = now();
                    tokio::time::advance(Duration::from_secs(1)).await;
                    now().saturating_since(before)
                },
            )
        };
        assert_eq!(in_a_paused_runtime(Duration::from_secs(86_400)), Duration::from_secs(1));
        assert_eq!(in_a_paused_runtime(Duration::ZERO), Duration::from_secs(1));
    }

    /// Between readings of several clocks, on a busy machine.
    const A_MOMENT: Duration = Duration::from_secs(1);

    fn apart(a: WallTime, b: WallTime) -> Duration {
        a.duration_since(b).unwrap_or_else(|earlier| earlier.duration())
    }

    #[tokio::test(start_paused = true)]
    async fn paused_time_drives_the_wall_clock() {
        let before = wall();
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(apart(wall(), before + Duration::from_secs(3600)) < A_MOMENT);
    }

    #[test]
    fn the_wall_clock_of_a_runtime_is_moved_by_no_other() {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(
            async {
                tokio::time::advance(Duration::from_secs(86_400)).await;
                assert!(apart(wall(), WallTime::now() + Duration::from_secs(86_400)) < A_MOMENT);
            },
        );
        assert!(apart(wall(), WallTime::now()) < A_MOMENT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_whose_clock_stands_behind_still_has_a_wall_clock() {
        let before = wall();
        std::thread::park_timeout(Duration::from_millis(250));
        assert!(apart(wall(), before) < Duration::from_millis(150), "it followed the real clock");
    }

    #[test]
    fn no_timer_in_a_runtime_without_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(async { sleep(Duration::from_secs(1)) }).is_none());
    }

    #[test]
    fn no_timer_outside_a_runtime() {
        assert!(sleep(Duration::from_secs(1)).is_none());
    }
}
