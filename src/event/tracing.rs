//! Events as `tracing` events, and as attributes of the span that the call runs in: the only file that names the `tracing` crate.
//!
//! Transitions are `INFO` (`WARN` into open); refusals, retries, stale results and what befalls a cache are `DEBUG`, because they come in floods exactly when the service is
//! overloaded.

use ::tracing::{Level, Span, debug, event, level_filters::LevelFilter, warn};

use super::{
    CircuitState, Ending, Event, EventKind, GaveUp,
    table::{ATTEMPTS, CACHE_STATUS, CIRCUIT_STATE, ERROR_TYPE, OUTCOME, REJECTED_BY, REJECTED_REASON, RESEND_COUNT},
};
use crate::error::Reason;

/// Whether any subscriber wants what is told here.
#[inline]
pub(super) fn is_subscribed() -> bool {
    LevelFilter::current() >= LevelFilter::WARN
}

/// How RED saw a call end.
#[inline]
pub(crate) fn note(ending: Ending) {
    if is_subscribed() {
        super::guarded(|| note_on(&Span::current(), ending));
    }
}

/// Where a cache's answer comes from.
#[inline]
pub(crate) fn note_cache(status: &'static str) {
    if is_subscribed() {
        super::guarded(|| {
            Span::current().record(CACHE_STATUS, status);
        });
    }
}

fn note_on(span: &Span, ending: Ending) {
    span.record(OUTCOME, ending.as_str());
    if let Some(reason) = ending.reason() {
        span.record(ERROR_TYPE, reason);
    }
}

/// A field that the span has not declared is left out.
fn attribute(event: &Event<'_>) {
    let span = Span::current();
    match event.kind {
        EventKind::Transition { to, .. } => {
            span.record(CIRCUIT_STATE, to.as_str());
        }
        EventKind::Rejected { rejected, shadow: false } => {
            span.record(REJECTED_BY, event.policy).record(REJECTED_REASON, rejected.reason().as_str());
            if let Reason::CircuitOpen(_) = rejected.reason() {
                span.record(CIRCUIT_STATE, CircuitState::Open.as_str());
            }
        }
        EventKind::Retried { attempts, .. } => {
            span.record(ATTEMPTS, attempts).record(RESEND_COUNT, attempts.saturating_sub(1));
        }
        _ => {}
    }
}

pub(super) fn record(event: &Event<'_>) {
    attribute(event);
    let policy = event.policy;
    match event.kind {
        EventKind::Transition { from, to, generation, trip, open_for } => {
            let open_for = open_for.map(::tracing::field::debug);
            let trip = trip.map(::tracing::field::display);
            let (from, to) = (from.as_str(), to.as_str());
            if to == CircuitState::Open.as_str() {
                event!(Level::WARN, policy, from, to, generation, trip, open_for, "circuit opened");
            } else {
                event!(Level::INFO, policy, from, to, generation, "circuit changed state");
            }
        }
        EventKind::Rejected { rejected, shadow } => {
            debug!(policy, shadow, reason = %rejected.reason(), "call rejected");
        }
        EventKind::Stale { admitted_in, generation, .. } => {
            debug!(policy, admitted_in, generation, "stale result ignored")
        }
        EventKind::KeysExhausted { max_keys } => {
            warn!(policy, max_keys, "key served without a state of its own");
        }
        EventKind::StoreFailed { why } => debug!(policy, why, "store gave no answer"),
        EventKind::StoreForeign => debug!(policy, "store has something else under a key"),
        EventKind::StoreSwitched { shared: false } => warn!(policy, "store is away, calls are decided without it"),
        EventKind::StoreSwitched { shared: true } => event!(Level::INFO, policy, "store is back"),
        EventKind::NearLimit { limit_name, used, limit } => {
            debug!(policy, limit_name, used, limit, "limit nearly used up");
        }
        EventKind::StaleServed { why, stale_for } => {
            debug!(policy, why = why.as_str(), ?stale_for, "stale answer served");
        }
        EventKind::LoadFailed { rejected } => {
            debug!(policy, reason = %rejected.reason(), "load failed");
        }
        EventKind::LoadVoided => debug!(policy, "load not stored, because its entry was invalidated"),
        EventKind::Evicted { live, expired } => {
            debug!(policy, live, expired, "entries left to make room");
        }
        EventKind::EntryTooLarge => warn!(policy, "entry not stored, because it is too large"),
        EventKind::Retry { attempt, outcome, delay } => {
            debug!(policy, attempt, ?outcome, ?delay, "attempt failed, another one follows");
        }
        EventKind::Retried { attempts, outcome, elapsed, gave_up } => {
            let gave_up = gave_up.map(GaveUp::as_str);
            debug!(policy, attempts, ?outcome, ?elapsed, gave_up, "call ended after its retries");
        }
    }
}
