//! One limit per key of the request.

use std::{
    fmt,
    hash::Hash,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};

use tower::{Layer, Service};

use super::{
    handle::RateLimitHandle,
    keyed_future::{Kept, KeyedResponseFuture},
    keyed_handle::KeyedRateLimitHandle,
    policy::RateLimitSettings,
    service::{OneUnit, RequestCost},
    settle::{After, Afterwards, Bill, Nothing},
    store::{LimitStore, Taken},
};
use crate::{
    error::{CanReject, ConfigError},
    event::Event,
    shared::Shared,
    time,
};

/// Builds [`KeyedRateLimit`]s: one limit per key, in a bounded number.
///
/// See the [module docs](crate::rate_limit).
pub struct KeyedRateLimitLayer<K, F, C = OneUnit, A = Nothing, T = KeyedRateLimitHandle<K>> {
    store: Shared<T>,
    key: F,
    cost: C,
    after: A,
    keys: PhantomData<fn() -> K>,
}

/// See the [module docs](crate::rate_limit).
pub struct KeyedRateLimit<S, K, F, C = OneUnit, A = Nothing, T = KeyedRateLimitHandle<K>> {
    inner: S,
    store: Shared<T>,
    key: F,
    cost: C,
    after: A,
    keys: PhantomData<fn() -> K>,
}

impl<K: Hash + Eq + Clone, F> KeyedRateLimitLayer<K, F> {
    /// The same limits for every key, which `key` takes from the request: `|request: &Request| ..`.
    ///
    /// # Panics
    ///
    /// If the settings cannot work; [`try_new`](Self::try_new) says so instead.
    #[must_use]
    #[track_caller]
    pub fn new<Req>(settings: RateLimitSettings, key: F) -> Self
    where
        F: Fn(&Req) -> K,
    {
        match Self::try_new(settings, key) {
            Ok(layer) => layer,
            Err(error) => panic!("{error}"),
        }
    }

    /// The same limits for every key.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_new<Req>(settings: RateLimitSettings, key: F) -> Result<Self, ConfigError>
    where
        F: Fn(&Req) -> K,
    {
        KeyedRateLimitHandle::try_new(settings).map(|handle| Self::over(handle, key))
    }
}

impl<K: Hash + Eq + Clone, F, C, A> KeyedRateLimitLayer<K, F, C, A> {
    /// The handle of the limits of every key.
    #[must_use]
    pub fn handle(&self) -> KeyedRateLimitHandle<K> {
        (*self.store).clone()
    }

    /// With one more limit for the calls of all keys together: a call passes both or takes nothing of either. See
    /// [`and_all`](KeyedRateLimitHandle::and_all) of the handle.
    #[must_use]
    pub fn and_all(self, all: &RateLimitHandle) -> Self {
        Self { store: Shared::new(self.store.and_all(all)), ..self }
    }

    /// Tells `listener` of every [`Event`], under no lock.
    #[must_use]
    pub fn on_event(self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.store.on_event(listener);
        self
    }
}

impl<K, F, T> KeyedRateLimitLayer<K, F, OneUnit, Nothing, T> {
    /// Over limits that are kept elsewhere, or over those of a handle.
    #[must_use]
    pub fn over(store: T, key: F) -> Self {
        Self { store: Shared::new(store), key, cost: OneUnit, after: Nothing, keys: PhantomData }
    }
}

impl<K, F, C, A, T> KeyedRateLimitLayer<K, F, C, A, T> {
    /// What each request takes of the quota. Defaults to one unit.
    #[must_use]
    pub fn cost<D>(self, cost: D) -> KeyedRateLimitLayer<K, F, D, A, T> {
        KeyedRateLimitLayer { store: self.store, key: self.key, cost, after: self.after, keys: PhantomData }
    }

    /// What is to be done after each admitted call, to the account of its key: a [`Settle`](super::Settle). Defaults to nothing.
    #[must_use]
    pub fn after<D>(self, after: D) -> KeyedRateLimitLayer<K, F, C, Afterwards<D>, T> {
        let after = Afterwards(after);
        KeyedRateLimitLayer { store: self.store, key: self.key, cost: self.cost, after, keys: PhantomData }
    }
}

impl<S, K, F: Clone, C: Clone, A: Clone, T> Layer<S> for KeyedRateLimitLayer<K, F, C, A, T> {
    type Service = KeyedRateLimit<S, K, F, C, A, T>;

    fn layer(&self, inner: S) -> Self::Service {
        KeyedRateLimit {
            inner,
            store: self.store.clone(),
            key: self.key.clone(),
            cost: self.cost.clone(),
            after: self.after.clone(),
            keys: PhantomData,
        }
    }
}

crate::macros::inner_accessors!(KeyedRateLimit<S, K, F, C, A, T>);

impl<S, K, F, C, A, T, Req> Service<Req> for KeyedRateLimit<S, K, F, C, A, T>
where
    S: Service<Req> + Clone,
    S::Error: CanReject,
    F: Fn(&Req) -> K,
    C: RequestCost<Req>,
    A: After,
    A::Bill<Kept<K, T>>: Bill<S::Response, S::Error>,
    T: LimitStore<K>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = KeyedResponseFuture<S, Req, T::Later, A::Bill<Kept<K, T>>>;

    /// Always ready: the key is in the request. The future takes the inner readiness, of a clone, once the call is admitted.
    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let (key, cost) = ((self.key)(&request), self.cost.cost(&request));
        let taken = self.store.take(&key, cost);
        if let Taken::Now(Err(rejected)) = taken {
            return KeyedResponseFuture::refused(rejected);
        }
        let store = &self.store;
        let kept = || Kept { key, store: Arc::clone(store.value()), taken_at: time::now() };
        let bill = self.after.bill(kept, (!matches!(taken, Taken::Unpaid)).then_some(cost));
        match taken {
            Taken::Later(verdict) => KeyedResponseFuture::asks(verdict, self.inner.clone(), request, bill),
            Taken::Now(_) | Taken::Unpaid => KeyedResponseFuture::called(self.inner.clone(), request, bill),
        }
    }
}

impl<K, F: Clone, C: Clone, A: Clone, T> Clone for KeyedRateLimitLayer<K, F, C, A, T> {
    fn clone(&self) -> Self {
        let (store, key) = (self.store.clone(), self.key.clone());
        Self { store, key, cost: self.cost.clone(), after: self.after.clone(), keys: PhantomData }
    }
}

impl<S: Clone, K, F: Clone, C: Clone, A: Clone, T> Clone for KeyedRateLimit<S, K, F, C, A, T> {
    /// Shares the limits of every key.
    fn clone(&self) -> Self {
        let (inner, store, key) = (self.inner.clone(), self.store.clone(), self.key.clone());
        Self { inner, store, key, cost: self.cost.clone(), after: self.after.clone(), keys: PhantomData }
    }
}

impl<K, F, C, A, T: fmt::Debug> fmt::Debug for KeyedRateLimitLayer<K, F, C, A, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimitLayer").field("store", &*self.store).finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, K, F, C, A, T: fmt::Debug> fmt::Debug for KeyedRateLimit<S, K, F, C, A, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("KeyedRateLimit");
        shown.field("inner", &self.inner).field("store", &*self.store).finish_non_exhaustive()
    }
}
