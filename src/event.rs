//! What a pattern reports, and to whom.
//!
//! Patterns report rare things only: a transition, a refusal, an answer that came too late. Figures of every call belong to RED.
//!
//! Events leave after every lock is released, so two of them can overtake one another on the way. Each carries the generation it belongs
//! to: a listener that keeps a state drops what is older than what it has seen. A listener's panic is caught, and costs only that
//! listener that event. Nothing is built when nobody listens.
//!
//! With feature `metrics` a recorder listens once it is installed, with feature `tracing` a subscriber does, and the span that a call runs in
//! is told too. [`METRICS`] and [`SPAN_ATTRIBUTES`] are the whole of it; the chapter of each pattern has its own part.

mod ending;
#[cfg(feature = "metrics")]
mod meter;
#[cfg(not(feature = "metrics"))]
#[path = "event/unmetered.rs"]
mod meter;
#[cfg(feature = "metrics")]
mod metrics;
mod table;
#[cfg(feature = "tracing")]
mod tracing;
#[cfg(not(feature = "tracing"))]
#[path = "event/untraced.rs"]
mod tracing;

pub use self::table::{METRICS, Metric, MetricKind, SPAN_ATTRIBUTES, SpanAttribute};
pub(crate) use self::{
    ending::{ENDINGS, Ending},
    meter::Meter,
    tracing::{note, note_cache},
};

use std::{
    collections::HashSet,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    error::{Rejected, Trip},
    outcome::Outcome,
};

/// Something rare that happened to a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event<'a> {
    /// What kind of policy it is.
    pub pattern: Pattern,
    /// The name of the policy.
    pub policy: &'a str,
    /// What happened.
    pub kind: EventKind<'a>,
}

/// The kinds of policy that report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pattern {
    /// `cache`
    Cache,
    /// `circuit_breaker`
    CircuitBreaker,
    /// `rate_limit`
    RateLimit,
    /// `retry`
    Retry,
    /// `timeout`
    Timeout,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind<'a> {
    /// A circuit changed its state.
    #[non_exhaustive]
    Transition {
        /// The state it left.
        from: CircuitState,
        /// The state it is in.
        to: CircuitState,
        /// The number of the new state's period.
        generation: u64,
        /// What opened the circuit, when `to` is open.
        trip: Option<Trip>,
        /// How long the circuit stays open, when `to` is open and not forced.
        open_for: Option<Duration>,
    },
    /// A call was refused, or would have been in shadow mode.
    #[non_exhaustive]
    Rejected {
        /// The refusal.
        rejected: &'a Rejected,
        /// Whether the call was let through all the same.
        shadow: bool,
    },
    /// A call ended that was admitted in another period of the circuit; it counts nowhere.
    #[non_exhaustive]
    Stale {
        /// The period that admitted it.
        admitted_in: u64,
        /// The present period.
        generation: u64,
        /// How it ended, or `None` when it was cancelled or panicked.
        outcome: Option<Outcome>,
    },
    /// A key was served without state of its own, because all `max_keys` places were taken by keys that must not be forgotten.
    #[non_exhaustive]
    KeysExhausted {
        /// The bound.
        max_keys: usize,
    },
    /// A store that is kept elsewhere gave no answer. What is known to be away is not asked, so this comes only as often as it is asked.
    #[non_exhaustive]
    StoreFailed {
        /// Why, in a word: `timed_out`, `disconnected`, `unavailable`, `moving`, `answered`; `full` for a write that found no place in the queue; `value` for one that has no form in bytes.
        why: &'a str,
    },
    /// A store that is kept elsewhere has something under a key that none of its kind wrote. It counts as nothing, and is overwritten.
    StoreForeign,
    /// Calls are decided by the store again, or no longer.
    #[non_exhaustive]
    StoreSwitched {
        /// Whether it is the store that decides from now on.
        shared: bool,
    },
    /// A call took what is used past the part of a limit of which a report was asked for.
    #[non_exhaustive]
    NearLimit {
        /// The name of the limit: the policy's own, unless it has several.
        limit_name: &'a str,
        /// How many units are used.
        used: u64,
        /// How many there are.
        limit: u64,
    },
    /// A cache answered with an entry that is past its time.
    #[non_exhaustive]
    StaleServed {
        /// Why it did.
        why: WhyStale,
        /// How long the entry has been past its time.
        stale_for: Duration,
    },
    /// The load of a cache entry failed.
    #[non_exhaustive]
    LoadFailed {
        /// The refusal that those who waited for it got, or would have got.
        rejected: &'a Rejected,
    },
    /// What was loaded was not stored, because its entry was invalidated or replaced meanwhile.
    LoadVoided,
    /// Entries had to leave to make room for another one.
    #[non_exhaustive]
    Evicted {
        /// How many had still been of use.
        live: u64,
        /// How many had not.
        expired: u64,
    },
    /// An entry was not stored, because it is larger than all the room there is.
    EntryTooLarge,
    /// An attempt failed, and there will be another one.
    #[non_exhaustive]
    Retry {
        /// The number of the attempt that failed, from 1.
        attempt: u32,
        /// How it failed.
        outcome: Outcome,
        /// How long from now until the next one.
        delay: Duration,
    },
    /// A call ended that was attempted more than once, or would have been.
    #[non_exhaustive]
    Retried {
        /// How many attempts it had.
        attempts: u32,
        /// How the last one ended.
        outcome: Outcome,
        /// How long the call took, from its first poll that was pending.
        elapsed: Duration,
        /// Why there was not another attempt, when the last one could have been followed by one.
        gave_up: Option<GaveUp>,
    },
}

/// Why a cache answered with an entry that is past its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhyStale {
    /// A new one is being loaded in the background.
    Revalidating,
    /// The load failed, or has failed a short while ago.
    Failed,
    /// The load takes too long.
    Slow,
}

/// Why a failed attempt was not followed by another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GaveUp {
    /// It was the last one of those that are allowed.
    Attempts,
    /// The delays have ended.
    Delays,
    /// The total time does not allow for another one.
    Within,
    /// The caller's deadline does not allow for another one.
    Deadline,
    /// The budget is used up.
    Budget,
    /// The request cannot be sent again.
    Request,
}

/// Where a circuit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CircuitState {
    /// Calls pass and are counted.
    Closed,
    /// Calls are refused.
    Open,
    /// A few calls pass, to find out whether the dependency is well again.
    HalfOpen,
}

/// What a cache has counted since it was made.
pub(crate) struct Calls {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) loads: u64,
}

type Listener = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// A policy's name, and who listens to it.
pub(crate) struct Events {
    pattern: Pattern,
    name: &'static str,
    /// Whether many states share this name, one for each key.
    keyed: bool,
    heard: AtomicBool,
    listeners: RwLock<Arc<[Listener]>>,
    #[cfg(feature = "metrics")]
    metrics: metrics::Metrics,
}

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl CircuitState {
    /// `closed`, `open` or `half_open`: as metrics and logs have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl Pattern {
    /// `cache`, `circuit_breaker`, `rate_limit`, `retry`, `timeout`: as metrics and logs have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::CircuitBreaker => "circuit_breaker",
            Self::RateLimit => "rate_limit",
            Self::Retry => "retry",
            Self::Timeout => "timeout",
        }
    }
}

impl WhyStale {
    /// `revalidating`, `failed`, `slow`: as metrics and logs have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Revalidating => "revalidating",
            Self::Failed => "failed",
            Self::Slow => "slow",
        }
    }
}

impl GaveUp {
    /// `attempts`, `delays`, `within`, `deadline`, `budget`, `request`: as metrics and logs have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Delays => "delays",
            Self::Within => "within",
            Self::Deadline => "deadline",
            Self::Budget => "budget",
            Self::Request => "request",
        }
    }
}

// ===== impl Events =====

impl Events {
    pub(crate) fn named(pattern: Pattern, name: &'static str) -> Self {
        Self::new(pattern, name, false)
    }

    /// The events of all keys of one layer.
    pub(crate) fn keyed(pattern: Pattern, name: &'static str) -> Self {
        Self::new(pattern, name, true)
    }

    fn new(pattern: Pattern, name: &'static str, keyed: bool) -> Self {
        Self {
            pattern,
            name,
            keyed,
            heard: AtomicBool::new(false),
            listeners: RwLock::new(Arc::new([])),
            #[cfg(feature = "metrics")]
            metrics: metrics::Metrics::named(pattern, name),
        }
    }

    /// The same name, with the same listeners to begin with.
    pub(crate) fn again(&self) -> Self {
        let again = Self::new(self.pattern, self.name, self.keyed);
        let listeners = Arc::clone(&self.listeners.read().unwrap_or_else(PoisonError::into_inner));
        again.heard.store(!listeners.is_empty(), Ordering::Release);
        Self { listeners: RwLock::new(listeners), ..again }
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn listen(&self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        let listener: Listener = Arc::new(listener);
        let mut listeners = self.listeners.write().unwrap_or_else(PoisonError::into_inner);
        *listeners = listeners.iter().cloned().chain([listener]).collect();
        self.heard.store(true, Ordering::Release);
    }

    /// Reports what `build` makes of nothing, if anybody listens.
    #[inline]
    pub(crate) fn emit<'a>(&self, build: impl FnOnce() -> EventKind<'a>) {
        if self.is_heard() {
            self.tell(build());
        }
    }

    /// Tells a recorder, and nobody else: nothing is rare about these.
    #[inline]
    pub(crate) fn count(&self, calls: impl FnOnce() -> Calls) {
        #[cfg(feature = "metrics")]
        guarded(|| self.metrics.count(calls));
        #[cfg(not(feature = "metrics"))]
        let _ = calls;
    }

    /// As [`count`](Self::count), that a call stood in line.
    #[inline]
    pub(crate) fn waited(&self, waited: impl FnOnce() -> Duration) {
        #[cfg(feature = "metrics")]
        guarded(|| self.metrics.waited(waited));
        #[cfg(not(feature = "metrics"))]
        let _ = waited;
    }

    /// Whether it has listeners of its own: a recorder and a subscriber need none of this.
    #[inline]
    pub(crate) fn has_listeners(&self) -> bool {
        self.heard.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn is_heard(&self) -> bool {
        let heard = self.heard.load(Ordering::Acquire);
        #[cfg(feature = "metrics")]
        let heard = heard || metrics::is_recorded();
        #[cfg(feature = "tracing")]
        let heard = heard || tracing::is_subscribed();
        heard
    }

    #[cold]
    #[inline(never)]
    fn tell(&self, kind: EventKind<'_>) {
        let event = Event { pattern: self.pattern, policy: self.name, kind };
        #[cfg(feature = "metrics")]
        guarded(|| self.metrics.record(&event, self.keyed));
        #[cfg(feature = "tracing")]
        guarded(|| tracing::record(&event));
        let listeners = Arc::clone(&self.listeners.read().unwrap_or_else(PoisonError::into_inner));
        for listener in listeners.iter() {
            guarded(|| listener(&event));
        }
    }
}

/// Runs code that is not ours. It runs while a permit is dropped too, perhaps by a panic, and a second panic there would end the process.
pub(crate) fn guarded(tell: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(tell)) {
        // The panic hook has already reported it, and the payload's own destructor may panic too.
        std::mem::forget(payload);
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Makes a name that is only known at run time a `&'static str`, as the settings of every policy want it.
///
/// Each distinct name is kept for the life of the process, so names must come from configuration, never from a request.
///
/// ```
/// let region = String::from("eu-1");
/// assert_eq!(buttress::intern(&format!("payments-{region}")), "payments-eu-1");
/// ```
#[must_use]
pub fn intern(name: &str) -> &'static str {
    static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let names = names.get_or_insert_with(HashSet::new);
    match names.get(name) {
        Some(known) => known,
        None => {
            let kept: &'static str = Box::leak(name.into());
            names.insert(kept);
            kept
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    const STALE: EventKind<'static> = EventKind::Stale { admitted_in: 1, generation: 3, outcome: None };

    #[test]
    fn nothing_is_built_when_nobody_listens() {
        let events = Events::named(Pattern::CircuitBreaker, "quiet");
        events.emit(|| unreachable!("nobody listens"));
    }

    #[test]
    fn telling_allocates_nothing_itself() {
        let events = Events::named(Pattern::CircuitBreaker, "frugal");
        events.listen(|_| {});
        let told = allocation_counter::measure(|| events.emit(|| STALE));
        assert_eq!(told.count_total, 0);
    }

    #[test]
    fn a_listener_that_panics_costs_the_others_nothing() {
        let events = Events::named(Pattern::CircuitBreaker, "loud");
        let heard = Arc::new(AtomicUsize::new(0));
        events.listen(|_| panic!("listener"));
        events.listen({
            let heard = Arc::clone(&heard);
            move |event| {
                assert_eq!((event.policy, event.kind), ("loud", STALE));
                heard.fetch_add(1, Ordering::Relaxed);
            }
        });
        events.emit(|| STALE);
        events.emit(|| STALE);
        assert_eq!(heard.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_listener_may_add_a_listener() {
        let events = Arc::new(Events::named(Pattern::CircuitBreaker, "nested"));
        let weak = Arc::downgrade(&events);
        events.listen(move |_| weak.upgrade().unwrap().listen(|_| {}));
        events.emit(|| STALE);
        assert_eq!(events.listeners.read().unwrap().len(), 2);
    }

    #[test]
    fn a_name_is_kept_once() {
        let first = intern(&String::from("once"));
        assert!(std::ptr::eq(first, intern(&String::from("once"))));
    }
}
