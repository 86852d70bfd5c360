//! Events as `tracing` events. A process of its own: which call sites are heard is global to a process.

#![cfg(feature = "full")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use buttress::{
    cache::{CacheLayer, CacheSettings},
    circuit_breaker::{CircuitBreakerHandle, CircuitBreakerLayer, CircuitBreakerSettings as Settings},
    event::SPAN_ATTRIBUTES,
    red::RedLayer,
    retry::{Backoff, RetryLayer, RetrySettings},
};
use tower::{Layer, ServiceExt, service_fn};
use tracing::{
    Event, Id, Instrument, Level, Metadata, Subscriber,
    field::{Empty, Field, Visit},
    span,
};

#[test]
fn a_subscriber_hears_trips_as_warnings_and_what_comes_in_floods_only_when_it_asks() {
    for (level, refusal) in [(Level::INFO, None), (Level::DEBUG, Some("DEBUG call rejected"))] {
        let lines = heard(level, || {
            let handle = CircuitBreakerHandle::try_new(Settings::consecutive_failures(2).name("payments")).unwrap();
            handle.try_acquire().unwrap().failure();
            handle.try_acquire().unwrap().failure();
            handle.try_acquire().unwrap_err();
            handle.reset();
        });
        assert!(lines[0].starts_with("WARN circuit opened"), "{lines:?}");
        assert!(lines[0].contains("payments") && lines[0].contains("2 consecutive failures"), "{lines:?}");
        assert!(lines.last().unwrap().starts_with("INFO circuit changed state"), "{lines:?}");
        assert_eq!(lines.len(), 2 + refusal.iter().len(), "{lines:?}");
        assert!(refusal.is_none_or(|start| lines[1].starts_with(start)), "{lines:?}");

        let lines = heard(level, || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let layer = RetryLayer::new(
                RetrySettings::new().backoff(Backoff::constant(std::time::Duration::ZERO)).name("orders"),
            );
            let down = service_fn(|(): ()| std::future::ready(Err::<(), _>(buttress::Error::Service(std::fmt::Error))));
            assert!(runtime.block_on(layer.layer(down).oneshot(())).is_err());
        });
        let expected: &[&str] = match level {
            Level::DEBUG => &[
                "DEBUG attempt failed, another one follows \"orders\" 1",
                "DEBUG attempt failed, another one follows \"orders\" 2",
                "DEBUG call ended after its retries \"orders\" 3 \"attempts\"",
            ],
            _ => &[],
        };
        assert_eq!(lines, expected);
    }
}

/// The span has declared everything in the table, and all of it is told, by one call or another.
#[test]
fn the_span_of_a_call_is_told_exactly_what_the_table_says() {
    let attributes = Arc::default();
    tracing::subscriber::with_default(Attributes(Arc::clone(&attributes)), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let span = tracing::info_span!(
            "call",
            buttress.outcome = Empty,
            error.type = Empty,
            buttress.attempts = Empty,
            http.request.resend_count = Empty,
            buttress.rejected_by = Empty,
            buttress.rejected_reason = Empty,
            buttress.circuit_state = Empty,
            buttress.cache_status = Empty,
        );
        let settings = RetrySettings::new().backoff(Backoff::constant(std::time::Duration::ZERO)).name("orders");
        let stack = tower::ServiceBuilder::new()
            .layer(RedLayer::new("orders"))
            .layer(CacheLayer::new(CacheSettings::new(), |_: &()| None::<u32>))
            .layer(RetryLayer::new(settings))
            .layer(CircuitBreakerLayer::new(Settings::consecutive_failures(2).name("payments")))
            .service_fn(|(): ()| std::future::ready(Err::<(), _>(buttress::Error::Service(std::fmt::Error))));
        assert!(runtime.block_on(stack.oneshot(()).instrument(span)).is_err());
    });
    let told: BTreeMap<String, String> = attributes.lock().unwrap().clone();
    let expected = [
        ("buttress.attempts", "3"),
        ("buttress.cache_status", "\"bypassed\""),
        ("buttress.circuit_state", "\"open\""),
        ("buttress.outcome", "\"rejected\""),
        ("buttress.rejected_by", "\"payments\""),
        ("buttress.rejected_reason", "\"circuit_open\""),
        ("error.type", "\"circuit_open\""),
        ("http.request.resend_count", "2"),
    ];
    assert_eq!(told, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let table: BTreeSet<_> = SPAN_ATTRIBUTES.iter().map(|attribute| attribute.name.to_owned()).collect();
    assert_eq!(table, told.into_keys().collect());
}

#[test]
fn the_span_of_a_call_is_told_where_the_answer_comes_from() {
    let attributes: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    let told = || std::mem::take(&mut *attributes.lock().unwrap()).remove("buttress.cache_status");
    tracing::subscriber::with_default(Attributes(Arc::clone(&attributes)), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let second = std::time::Duration::from_secs(1);
        let settings = CacheSettings::new().ttl(second).jitter(0.0).stale_if_error(second);
        let layer = CacheLayer::new(settings, |key: &u32| (*key > 0).then_some(*key));
        let answer = |fails: bool| {
            service_fn(move |_: u32| {
                std::future::ready(if fails { Err(buttress::Error::Service(std::fmt::Error)) } else { Ok(()) })
            })
        };
        let ask = |key, fails| {
            let span = tracing::info_span!("cached", buttress.cache_status = Empty);
            let _ = runtime.block_on(layer.layer(answer(fails)).oneshot(key).instrument(span));
            told()
        };
        assert_eq!(ask(0, false).as_deref(), Some("\"bypassed\""));
        assert_eq!(ask(1, false).as_deref(), Some("\"loaded\""));
        assert_eq!(ask(1, false).as_deref(), Some("\"fresh\""));
        runtime.block_on(async { tokio::time::advance(second).await });
        assert_eq!(ask(1, true).as_deref(), Some("\"stale\""));
        assert_eq!(ask(2, true), None, "there is no answer");
    });
}

/// Keeps what is recorded on spans.
struct Attributes(Arc<Mutex<BTreeMap<String, String>>>);

struct Attribute<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Attribute<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }
}

impl Subscriber for Attributes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span()
    }
    fn current_span(&self) -> tracing_core::span::Current {
        let call = SPAN.get().expect("a span");
        tracing_core::span::Current::new(Id::from_u64(1), call)
    }
    fn event(&self, _: &Event<'_>) {}
    fn new_span(&self, attributes: &span::Attributes<'_>) -> Id {
        SPAN.set(Some(attributes.metadata()));
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &span::Record<'_>) {
        values.record(&mut Attribute(&mut self.0.lock().unwrap()));
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

thread_local! {
    /// Each test has a thread of its own.
    static SPAN: std::cell::Cell<Option<&'static Metadata<'static>>> = const { std::cell::Cell::new(None) };
}

/// What a subscriber of this level hears of the work, with the fields that the test looks at.
fn heard(level: Level, work: impl FnOnce()) -> Vec<String> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    tracing::subscriber::with_default(Lines(level, Arc::clone(&lines)), work);
    lines.lock().unwrap().clone()
}

struct Lines(Level, Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if ["message", "policy", "trip", "reason", "attempt", "attempts", "gave_up"].contains(&field.name()) {
            self.0 += &format!(" {value:?}");
        }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.0
    }
    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.0.into())
    }
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.1.lock().unwrap().push(line.0);
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
