//! Events as `tracing` events. A process of its own: which call sites are heard is global to a process.

#![cfg(feature = "full")]

use std::sync::{Arc, Mutex};

use buttress::circuit_breaker::{CircuitBreakerHandle, CircuitBreakerSettings as Settings};

#[test]
fn a_subscriber_hears_a_trip_as_a_warning_and_refusals_only_when_it_asks() {
    use tracing::{
        Event, Id, Level, Metadata, Subscriber,
        field::{Field, Visit},
        span,
    };
    struct Lines(Level, Arc<Mutex<Vec<String>>>);
    struct Line(String);
    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            if ["message", "policy", "trip", "reason"].contains(&field.name()) {
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
    for (level, refusal) in [(Level::INFO, None), (Level::DEBUG, Some("DEBUG call rejected"))] {
        let lines = Arc::new(Mutex::new(Vec::new()));
        tracing::subscriber::with_default(Lines(level, Arc::clone(&lines)), || {
            let handle = CircuitBreakerHandle::try_new(Settings::consecutive_failures(2).name("payments")).unwrap();
            handle.try_acquire().unwrap().failure();
            handle.try_acquire().unwrap().failure();
            handle.try_acquire().unwrap_err();
            handle.reset();
        });
        let lines = lines.lock().unwrap();
        assert!(lines[0].starts_with("WARN circuit opened"), "{lines:?}");
        assert!(lines[0].contains("payments") && lines[0].contains("2 consecutive failures"), "{lines:?}");
        assert!(lines.last().unwrap().starts_with("INFO circuit changed state"), "{lines:?}");
        assert_eq!(lines.len(), 2 + refusal.iter().len(), "{lines:?}");
        assert!(refusal.is_none_or(|start| lines[1].starts_with(start)), "{lines:?}");
    }
}
