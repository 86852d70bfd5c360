//! Events as `tracing` events. A process of its own: which call sites are heard is global to a process.

#![cfg(feature = "full")]

use std::sync::{Arc, Mutex};

use buttress::{
    circuit_breaker::{CircuitBreakerHandle, CircuitBreakerSettings as Settings},
    retry::{Backoff, RetryLayer, RetrySettings},
};
use tower::{Layer, ServiceExt, service_fn};
use tracing::{
    Event, Id, Level, Metadata, Subscriber,
    field::{Field, Visit},
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
