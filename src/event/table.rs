//! Every metric there is, in one table: for the docs, for the recorder's descriptions, and for the tests that compare it with what is emitted.

/// A metric that the crate emits, with the feature `metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// The keys of its labels. The values are from closed sets.
    pub labels: &'static [&'static str],
    /// What it says.
    pub meaning: &'static str,
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

macro_rules! metrics {
    ($($kind:ident $name:literal [$($label:literal),*] $meaning:literal,)*) => {
        /// Every metric that the crate emits.
        ///
        /// A label `name` is the name of a layer, never anything of a request.
        ///
        /// | metric | kind | labels | meaning |
        /// |---|---|---|---|
        $(#[doc = concat!("| `", $name, "` | ", stringify!($kind), " |", $(" `", $label, "`",)* " | ", $meaning, " |")])*
        pub const METRICS: &[Metric] = &[
            $(Metric { name: $name, kind: MetricKind::$kind, labels: &[$($label),*], meaning: $meaning },)*
        ];
    };
}

metrics! {
    Gauge "buttress_circuit_breaker_state" ["name", "state"] "1 for the state that a circuit is in, 0 for the others; not for keyed circuits",
    Counter "buttress_circuit_breaker_transitions_total" ["name", "to"] "changes of state, by the state that was entered",
    Counter "buttress_circuit_breaker_rejected_total" ["name"] "calls that a circuit refused",
    Counter "buttress_circuit_breaker_shadow_rejected_total" ["name"] "calls that a circuit in shadow mode would have refused",
    Counter "buttress_circuit_breaker_stale_total" ["name"] "calls that ended in another state period than they began in, and count nowhere",
    Counter "buttress_circuit_breaker_keys_exhausted_total" ["name"] "keys that found no place for a circuit of their own",
    Counter "buttress_cache_calls_total" ["name", "result"] "calls with a key: a `hit` did not wait for a load, a `miss` did; moves with the end of a load and with a look at the stats",
    Counter "buttress_cache_loads_total" ["name"] "loads that began; moves with them",
    Counter "buttress_cache_stale_served_total" ["name", "why"] "answers from an entry past its time, by why it was served",
    Counter "buttress_cache_loads_failed_total" ["name"] "loads that failed",
    Counter "buttress_cache_loads_voided_total" ["name"] "loads that were not stored, because their entry was invalidated or replaced meanwhile",
    Counter "buttress_cache_evicted_total" ["name"] "entries still of use that left to make room",
    Counter "buttress_cache_expired_total" ["name"] "entries past their use that left to make room",
    Counter "buttress_cache_too_large_total" ["name"] "entries that were not stored, because they are larger than all the room",
    Counter "buttress_cache_rejected_total" ["name"] "calls that a cache refused",
    Counter "buttress_cache_store_failed_total" ["name"] "questions that a store elsewhere did not answer, and writes that were given up",
    Counter "buttress_cache_store_foreign_total" ["name"] "keys of a store elsewhere under which there was something else",
    Counter "buttress_cache_store_switches_total" ["name", "to"] "changes of what is used: the store elsewhere, or only what is near",
    Counter "buttress_rate_limit_rejected_total" ["name"] "calls that a limiter refused",
    Counter "buttress_rate_limit_shadow_rejected_total" ["name"] "calls that a limiter in shadow mode would have refused",
    Counter "buttress_rate_limit_near_limit_total" ["name"] "calls that took what is used past the chosen part of a limit",
    Counter "buttress_rate_limit_keys_exhausted_total" ["name"] "reports that keys found no place of their own",
    Histogram "buttress_rate_limit_wait_seconds" ["name"] "how long calls stood in line, whatever became of them",
    Counter "buttress_rate_limit_store_failed_total" ["name"] "questions that a store elsewhere did not answer",
    Counter "buttress_rate_limit_store_switches_total" ["name", "to"] "changes of who decides: the store, or what stands in for it",
    Gauge "buttress_red_in_flight" ["name"] "calls that have begun and not ended",
    Counter "buttress_red_requests_total" ["name", "outcome", "reason"] "calls that have ended, by outcome, and those that were refused by the reason as well",
    Histogram "buttress_red_duration_seconds" ["name", "outcome"] "how long calls took, until the answer's head",
    Counter "buttress_retry_retries_total" ["name"] "attempts that followed a failed one",
    Counter "buttress_retry_recovered_total" ["name"] "calls that succeeded after a retry",
    Counter "buttress_retry_gave_up_total" ["name", "why"] "failed calls that were not tried again, by what forbade it",
    Counter "buttress_timeout_rejected_total" ["name", "reason"] "calls that took too long, by whose patience ended",
}

/// What is recorded on the current span, with the feature `tracing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpanAttribute {
    /// The field's name.
    pub name: &'static str,
    /// What it says.
    pub meaning: &'static str,
}

macro_rules! span_attributes {
    ($($constant:ident $name:literal $meaning:literal,)*) => {
        $(#[cfg(feature = "tracing")] pub(super) const $constant: &str = $name;)*

        /// Everything that is recorded on the current span, if the span has declared it, empty: `tracing::info_span!("call", buttress.outcome =
        /// tracing::field::Empty)`. Where OpenTelemetry's semantic conventions have a name, it is theirs.
        ///
        /// | attribute | meaning |
        /// |---|---|
        $(#[doc = concat!("| `", $name, "` | ", $meaning, " |")])*
        pub const SPAN_ATTRIBUTES: &[SpanAttribute] = &[$(SpanAttribute { name: $name, meaning: $meaning },)*];
    };
}

span_attributes! {
    OUTCOME "buttress.outcome" "how the call ended, as RED counts it",
    ERROR_TYPE "error.type" "the reason, if RED saw it end with a refusal",
    ATTEMPTS "buttress.attempts" "how many attempts the call had, if the retry had to do with it",
    RESEND_COUNT "http.request.resend_count" "how often it was sent again",
    REJECTED_BY "buttress.rejected_by" "the name of the policy that refused last, also if the call was tried again",
    REJECTED_REASON "buttress.rejected_reason" "why it did",
    CIRCUIT_STATE "buttress.circuit_state" "the state of the circuit that refused, or that this call has put into another one",
    CACHE_STATUS "buttress.cache_status" "where the answer comes from: `fresh`, `stale`, `loaded`, `bypassed`",
}
