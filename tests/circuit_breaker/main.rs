//! How the circuit breaker behaves, by chapter. Test names are sentences; a bug of a peer is named after its report.

#![cfg(feature = "full")]

#[path = "../support/mod.rs"]
mod support;

mod events;
mod half_open;
mod handle;
mod keyed;
mod open;
mod readiness;
mod stress;
mod trips;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::{
    AsRejected, CircuitState, Event, EventKind, Reason, Trip,
    circuit_breaker::{CircuitBreaker, CircuitBreakerHandle, CircuitBreakerLayer, CircuitBreakerSettings},
};
use support::{Answer, AppError, Control, Probe};
use tower::{Layer, Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

type Settings = CircuitBreakerSettings;

/// A breaker over a probe, and all hands on both.
struct Rig {
    service: CircuitBreaker<Probe>,
    control: Arc<Control>,
    handle: CircuitBreakerHandle,
    log: Arc<Mutex<Vec<String>>>,
}

impl Rig {
    fn new(settings: Settings) -> Self {
        let (probe, control) = Probe::new();
        let layer = CircuitBreakerLayer::new(settings);
        let log = Arc::new(Mutex::new(Vec::new()));
        let handle = layer.handle();
        handle.on_event({
            let log = Arc::clone(&log);
            move |event| log.lock().unwrap().push(line(event))
        });
        Self { service: layer.layer(probe), control, handle, log }
    }

    /// A rig whose circuit is open.
    async fn open(settings: Settings) -> Self {
        let mut rig = Self::new(settings.or_consecutive_failures(1));
        rig.fail(1).await;
        assert_eq!(rig.state(), CircuitState::Open);
        rig
    }

    /// A rig whose circuit is half-open, with nothing admitted yet.
    async fn half_open(settings: Settings) -> Self {
        let rig = Self::open(settings.open_for(SECOND)).await;
        pass(SECOND).await;
        assert_eq!(rig.state(), CircuitState::HalfOpen);
        rig
    }

    async fn call(&mut self) -> Result<u32, AppError> {
        self.service.ready().await?.call(1).await
    }

    async fn answer(&mut self, answer: Answer, times: usize) {
        self.control.answer(answer);
        for _ in 0..times {
            let _ = self.call().await;
        }
        self.control.answer(Answer::Ok);
    }

    async fn ok(&mut self, times: usize) {
        self.answer(Answer::Ok, times).await;
    }

    async fn fail(&mut self, times: usize) {
        self.answer(Answer::Err, times).await;
    }

    /// A call that stays pending until it is dropped.
    async fn hang(&self) -> Hanging {
        self.control.answer(Answer::Never);
        let mut service = self.service.clone();
        let mut call = tokio_test::task::spawn(service.ready().await.unwrap().call(1));
        assert!(call.poll().is_pending());
        self.control.answer(Answer::Ok);
        call
    }

    /// The refusal of a call that must be refused.
    async fn refusal(&mut self) -> buttress::Rejected {
        let calls = self.control.calls();
        let rejected = self.call().await.unwrap_err().as_rejected().expect("a refusal");
        assert_eq!(self.control.calls(), calls, "the inner service was not called");
        rejected
    }

    fn state(&self) -> CircuitState {
        self.handle.state()
    }

    fn is_open(&self) -> bool {
        self.state() == CircuitState::Open
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

type Hanging = tokio_test::task::Spawn<
    buttress::circuit_breaker::ResponseFuture<support::ProbeFuture, buttress::ErrorsAreTransient>,
>;

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

fn trip(rejected: &buttress::Rejected) -> Trip {
    match rejected.reason() {
        Reason::CircuitOpen(trip) => trip,
        other => panic!("{other:?}"),
    }
}

/// An event in one line.
fn line(event: &Event<'_>) -> String {
    match event.kind {
        EventKind::Transition { from, to, generation, trip, .. } => match trip {
            Some(trip) => format!("{from} -> {to} #{generation} ({trip})"),
            None => format!("{from} -> {to} #{generation}"),
        },
        EventKind::Rejected { shadow: false, .. } => "rejected".into(),
        EventKind::Rejected { shadow: true, .. } => "would reject".into(),
        EventKind::Stale { admitted_in, generation, .. } => format!("stale #{admitted_in} in #{generation}"),
        EventKind::KeysExhausted { max_keys, .. } => format!("more than {max_keys} keys"),
        _ => format!("{:?}", event.kind),
    }
}
