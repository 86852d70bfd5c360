//! The settings in layer form.

use tower::Layer;

use super::{handle::CircuitBreakerHandle, policy::CircuitBreakerSettings, service::CircuitBreaker, state::Circuit};
use crate::{error::ConfigError, event::Event, outcome::ErrorsAreTransient};

/// Builds [`CircuitBreaker`]s around one circuit: the layer, its clones and all services they build share it.
///
/// See the [module docs](crate::circuit_breaker).
#[derive(Clone, Debug)]
pub struct CircuitBreakerLayer<C = ErrorsAreTransient> {
    circuit: Circuit,
    classify: C,
}

impl CircuitBreakerLayer {
    /// A circuit of these settings.
    ///
    /// # Panics
    ///
    /// If the settings cannot work; [`try_new`](Self::try_new) says so instead.
    #[must_use]
    #[track_caller]
    pub fn new(settings: CircuitBreakerSettings) -> Self {
        match Self::try_new(settings) {
            Ok(layer) => layer,
            Err(error) => panic!("{error}"),
        }
    }

    /// A circuit of these settings.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_new(settings: CircuitBreakerSettings) -> Result<Self, ConfigError> {
        Circuit::try_new(settings).map(Self::of)
    }

    const fn of(circuit: Circuit) -> Self {
        Self { circuit, classify: ErrorsAreTransient }
    }
}

impl<C> CircuitBreakerLayer<C> {
    /// Decides what counts as a failure. Defaults to [`ErrorsAreTransient`].
    #[must_use]
    pub fn classify<D>(self, classify: D) -> CircuitBreakerLayer<D> {
        CircuitBreakerLayer { circuit: self.circuit, classify }
    }

    /// Tells `listener` of every [`Event`] of the circuit, under no lock.
    #[must_use]
    pub fn on_event(self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.circuit.events().listen(listener);
        self
    }

    /// The circuit's handle.
    #[must_use]
    pub fn handle(&self) -> CircuitBreakerHandle {
        CircuitBreakerHandle { circuit: self.circuit.clone() }
    }
}

impl<S, C: Clone> Layer<S> for CircuitBreakerLayer<C> {
    type Service = CircuitBreaker<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker::new(inner, self.classify.clone(), self.circuit.clone())
    }
}

impl CircuitBreakerHandle {
    /// A further layer around the same circuit, with the default classifier.
    #[must_use]
    pub fn layer(&self) -> CircuitBreakerLayer {
        CircuitBreakerLayer::of(self.circuit.clone())
    }
}
