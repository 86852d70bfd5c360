//! A circuit per key: layer, service and handle over the bounded map of the core.

use std::{
    fmt,
    hash::Hash,
    sync::Arc,
    task::{Context, Poll},
};

use tower::{Layer, Service};

use super::{
    handle::CircuitBreakerHandle,
    keyed_future::KeyedResponseFuture,
    permit::Permit,
    policy::{CircuitBreakerSettings, Limits},
    state::Circuit,
    word::Refused,
};
use crate::{
    error::{CanReject, ConfigError},
    event::{Event, EventKind, Events, Pattern},
    keyed::Keyed,
    outcome::{Classify, ErrorsAreTransient},
    shared::Shared,
};

/// Builds [`KeyedCircuitBreaker`]s around one set of circuits, one for each key.
///
/// See the [module docs](crate::circuit_breaker#a-circuit-per-key).
pub struct KeyedCircuitBreakerLayer<K, F, C = ErrorsAreTransient> {
    circuits: Shared<Circuits<K>>,
    key: F,
    classify: C,
}

/// See the [module docs](crate::circuit_breaker#a-circuit-per-key).
pub struct KeyedCircuitBreaker<S, K, F, C = ErrorsAreTransient> {
    inner: S,
    circuits: Shared<Circuits<K>>,
    key: F,
    classify: C,
}

/// The circuits of all keys.
///
/// See the [module docs](crate::circuit_breaker#a-circuit-per-key).
pub struct KeyedCircuitBreakerHandle<K> {
    circuits: Shared<Circuits<K>>,
}

struct Circuits<K> {
    limits: Limits,
    events: Arc<Events>,
    map: Keyed<K, Circuit>,
    /// Stands in for the circuit of a key that found no place: admits, and counts nothing.
    none: Circuit,
}

// ===== impl Circuits =====

impl<K: Hash + Eq> Circuits<K> {
    fn try_new(settings: CircuitBreakerSettings) -> Result<Self, ConfigError> {
        let limits = settings.check()?;
        let events = Arc::new(Events::keyed(Pattern::CircuitBreaker, settings.name));
        Ok(Self { limits, map: Keyed::new(settings.max_keys), none: Circuit::new(limits, Arc::clone(&events)), events })
    }

    fn get_or_insert(&self, key: K) -> Option<Circuit> {
        self.map.get_or_insert(key, || Circuit::new(self.limits, Arc::clone(&self.events)), Circuit::may_leave)
    }

    fn admit(&self, key: K) -> Result<((Permit, u64), Circuit), Refused> {
        match self.get_or_insert(key) {
            Some(circuit) => {
                let word = circuit.place.word();
                match circuit.admit() {
                    Ok(permit) => Ok(((permit, word), circuit)),
                    Err(refusal) => Err(circuit.refuse(refusal)),
                }
            }
            None => {
                self.events.emit(|| EventKind::KeysExhausted { max_keys: self.map.max_keys() });
                Ok(((self.none.uncounted(), self.none.place.word()), self.none.clone()))
            }
        }
    }
}

// ===== impl KeyedCircuitBreakerLayer =====

impl<K: Hash + Eq, F> KeyedCircuitBreakerLayer<K, F> {
    /// A circuit of these settings for each key that `key` finds in a request.
    ///
    /// # Panics
    ///
    /// If the settings cannot work; [`try_new`](Self::try_new) says so instead.
    #[must_use]
    #[track_caller]
    pub fn new<Req>(settings: CircuitBreakerSettings, key: F) -> Self
    where
        F: Fn(&Req) -> K,
    {
        match Self::try_new(settings, key) {
            Ok(layer) => layer,
            Err(error) => panic!("{error}"),
        }
    }

    /// A circuit of these settings for each key that `key` finds in a request.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_new<Req>(settings: CircuitBreakerSettings, key: F) -> Result<Self, ConfigError>
    where
        F: Fn(&Req) -> K,
    {
        let circuits = Shared::new(Circuits::try_new(settings)?);
        Ok(Self { circuits, key, classify: ErrorsAreTransient })
    }
}

impl<K, F, C> KeyedCircuitBreakerLayer<K, F, C> {
    /// Decides what counts as a failure. Defaults to [`ErrorsAreTransient`].
    #[must_use]
    pub fn classify<D>(self, classify: D) -> KeyedCircuitBreakerLayer<K, F, D> {
        KeyedCircuitBreakerLayer { circuits: self.circuits, key: self.key, classify }
    }

    /// Tells `listener` of every [`Event`] of every circuit, under no lock.
    #[must_use]
    pub fn on_event(self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.circuits.events.listen(listener);
        self
    }

    /// The handle of all circuits.
    #[must_use]
    pub fn handle(&self) -> KeyedCircuitBreakerHandle<K> {
        KeyedCircuitBreakerHandle { circuits: self.circuits.clone() }
    }
}

impl<S, K, F: Clone, C: Clone> Layer<S> for KeyedCircuitBreakerLayer<K, F, C> {
    type Service = KeyedCircuitBreaker<S, K, F, C>;

    fn layer(&self, inner: S) -> Self::Service {
        KeyedCircuitBreaker {
            inner,
            circuits: self.circuits.clone(),
            key: self.key.clone(),
            classify: self.classify.clone(),
        }
    }
}

// ===== impl KeyedCircuitBreaker =====

impl<S, K, F, C> KeyedCircuitBreaker<S, K, F, C> {
    /// The handle of all circuits.
    #[must_use]
    pub fn handle(&self) -> KeyedCircuitBreakerHandle<K> {
        KeyedCircuitBreakerHandle { circuits: self.circuits.clone() }
    }
}

crate::macros::inner_accessors!(KeyedCircuitBreaker<S, K, F, C>);

impl<S, K, F, C, Req> Service<Req> for KeyedCircuitBreaker<S, K, F, C>
where
    S: Service<Req> + Clone,
    S::Error: CanReject,
    K: Hash + Eq,
    F: Fn(&Req) -> K,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = KeyedResponseFuture<S, Req, C>;

    /// Always ready: which circuit decides is in the request, so the inner readiness is the future's business, as in [`Late`](crate::Late).
    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        match self.circuits.admit((self.key)(&request)) {
            Ok((admitted, circuit)) => {
                KeyedResponseFuture::waiting(self.inner.clone(), request, admitted, circuit, self.classify.clone())
            }
            Err(refused) => KeyedResponseFuture::refused(refused, self.classify.clone()),
        }
    }
}

// ===== impl KeyedCircuitBreakerHandle =====

impl<K: Hash + Eq> KeyedCircuitBreakerHandle<K> {
    /// The circuit of this key, made if it has none. It is not forgotten while the handle lives.
    ///
    /// `None` when all `max_keys` places are taken by circuits that must not be forgotten yet.
    #[must_use]
    pub fn circuit(&self, key: K) -> Option<CircuitBreakerHandle> {
        self.circuits.get_or_insert(key).map(|circuit| CircuitBreakerHandle { circuit })
    }

    /// The circuit of this key, if it has one.
    #[must_use]
    pub fn get(&self, key: K) -> Option<CircuitBreakerHandle> {
        self.circuits.map.peek(key).map(|circuit| CircuitBreakerHandle { circuit })
    }

    /// How many keys have a circuit.
    #[must_use]
    pub fn len(&self) -> usize {
        self.circuits.map.len()
    }

    /// Whether no key has a circuit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Resets every circuit.
    pub fn reset(&self) {
        self.circuits.map.values().iter().for_each(Circuit::reset);
    }

    /// Tells `listener` of every [`Event`] of every circuit from now on, under no lock.
    pub fn on_event(&self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        self.circuits.events.listen(listener);
    }
}

// ===== Clone and Debug, without asking for either of the key =====

impl<K, F: Clone, C: Clone> Clone for KeyedCircuitBreakerLayer<K, F, C> {
    fn clone(&self) -> Self {
        Self { circuits: self.circuits.clone(), key: self.key.clone(), classify: self.classify.clone() }
    }
}

impl<S: Clone, K, F: Clone, C: Clone> Clone for KeyedCircuitBreaker<S, K, F, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            circuits: self.circuits.clone(),
            key: self.key.clone(),
            classify: self.classify.clone(),
        }
    }
}

impl<K> Clone for KeyedCircuitBreakerHandle<K> {
    fn clone(&self) -> Self {
        Self { circuits: self.circuits.clone() }
    }
}

impl<K> fmt::Debug for Circuits<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.events.name())
    }
}

impl<K, F, C> fmt::Debug for KeyedCircuitBreakerLayer<K, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedCircuitBreakerLayer").field("circuits", &*self.circuits).finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, K, F, C> fmt::Debug for KeyedCircuitBreaker<S, K, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedCircuitBreaker")
            .field("inner", &self.inner)
            .field("circuits", &*self.circuits)
            .finish_non_exhaustive()
    }
}

impl<K> fmt::Debug for KeyedCircuitBreakerHandle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedCircuitBreakerHandle").field("circuits", &*self.circuits).finish()
    }
}
