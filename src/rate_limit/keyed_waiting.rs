//! One limit per key, and one line per key for those who wait.

use std::{
    fmt,
    hash::Hash,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};

use tower::{Layer, Service};

use super::{
    account::Own,
    future::WaitingFuture,
    handle::RateLimitHandle,
    homeless::Homeless,
    policy::RateLimitSettings,
    service::{OneUnit, RequestCost},
    settle::{After, Afterwards, Bill, Nothing},
    state::Limiter,
};
use crate::{
    error::{CanReject, ConfigError},
    event::{Event, Events, Pattern},
    keyed::{Keyed, Leave},
    shared::Shared,
};

/// Builds [`KeyedWaiting`]s: a whole limiter per key, in a bounded number, in whose line the calls of that key wait.
///
/// It takes some 500 bytes a key. Where nobody is to wait, a [`KeyedRateLimitLayer`](super::KeyedRateLimitLayer) takes a tenth of that.
///
/// See the [module docs](crate::rate_limit).
pub struct KeyedWaitingLayer<K, F, C = OneUnit, A = Nothing> {
    handle: KeyedWaitingHandle<K>,
    key: F,
    cost: C,
    after: A,
}

/// See the [module docs](crate::rate_limit).
pub struct KeyedWaiting<S, K, F, C = OneUnit, A = Nothing> {
    inner: S,
    limiters: Shared<Limiters<K>>,
    key: F,
    cost: C,
    after: A,
    keys: PhantomData<fn() -> K>,
}

/// The limiters of every key. Clones are handles of the same ones.
pub struct KeyedWaitingHandle<K> {
    limiters: Shared<Limiters<K>>,
}

struct Limiters<K> {
    keyed: Keyed<K, Shared<Limiter>>,
    settings: RateLimitSettings,
    /// For all keys that find no place of their own.
    others: Shared<Limiter>,
    homeless: Homeless,
    events: Arc<Events>,
}

impl<K: Hash + Eq> Limiters<K> {
    fn new(settings: RateLimitSettings) -> Result<Self, ConfigError> {
        let events = Arc::new(Events::keyed(Pattern::RateLimit, settings.own_name()));
        let others = Shared::new(Limiter::new(settings, Arc::clone(&events))?);
        Ok(Self {
            keyed: Keyed::new(settings.max_keys),
            settings,
            others,
            homeless: Homeless::new(settings.max_keys),
            events,
        })
    }

    /// The limiter of this key. One that is full, and that nobody uses, is as a new one and may leave.
    fn of(&self, key: K) -> Shared<Limiter> {
        let make = || match Limiter::new(self.settings, Arc::clone(&self.events)) {
            Ok(limiter) => Shared::new(limiter),
            Err(_) => self.others.clone(),
        };
        let may_leave = |limiter: &Shared<Limiter>| {
            if limiter.is_unique() && limiter.is_idle() { Leave::Gladly } else { Leave::No }
        };
        self.keyed.get_or_insert(key, make, may_leave).unwrap_or_else(|| {
            self.homeless.one_more(&self.events);
            self.others.clone()
        })
    }
}

impl<K: Hash + Eq> KeyedWaitingHandle<K> {
    /// The same settings for every key.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_new(settings: RateLimitSettings) -> Result<Self, ConfigError> {
        Ok(Self { limiters: Shared::new(Limiters::new(settings)?) })
    }

    /// The limiter of this key, which is made if need be. It is not forgotten while its handle is kept.
    #[must_use]
    pub fn limiter(&self, key: K) -> RateLimitHandle {
        RateLimitHandle { limiter: self.limiters.of(key) }
    }

    /// The limiter of this key, if it has one.
    #[must_use]
    pub fn get(&self, key: K) -> Option<RateLimitHandle> {
        self.limiters.keyed.peek(key).map(|limiter| RateLimitHandle { limiter })
    }

    /// How many keys are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.limiters.keyed.len()
    }

    /// Whether no key is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells `listener` of every [`Event`] of every key from now on, under no lock.
    pub fn on_event(&self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        self.limiters.events.listen(listener);
    }
}

impl<K: Hash + Eq, F> KeyedWaitingLayer<K, F> {
    /// The same settings for every key, which `key` takes from the request: `|request: &Request| ..`.
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

    /// The same settings for every key.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_new<Req>(settings: RateLimitSettings, key: F) -> Result<Self, ConfigError>
    where
        F: Fn(&Req) -> K,
    {
        Ok(Self { handle: KeyedWaitingHandle::try_new(settings)?, key, cost: OneUnit, after: Nothing })
    }
}

impl<K: Hash + Eq, F, C, A> KeyedWaitingLayer<K, F, C, A> {
    /// What each request takes of the quota. Defaults to one unit.
    #[must_use]
    pub fn cost<D>(self, cost: D) -> KeyedWaitingLayer<K, F, D, A> {
        KeyedWaitingLayer { handle: self.handle, key: self.key, cost, after: self.after }
    }

    /// What is to be done after each admitted call, to the account of its key: a [`Settle`](super::Settle). Defaults to nothing.
    #[must_use]
    pub fn after<D>(self, after: D) -> KeyedWaitingLayer<K, F, C, Afterwards<D>> {
        KeyedWaitingLayer { handle: self.handle, key: self.key, cost: self.cost, after: Afterwards(after) }
    }

    /// Tells `listener` of every [`Event`], under no lock.
    #[must_use]
    pub fn on_event(self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.handle.on_event(listener);
        self
    }

    /// The handle of the limiters of every key.
    #[must_use]
    pub fn handle(&self) -> KeyedWaitingHandle<K> {
        self.handle.clone()
    }
}

impl<S, K, F: Clone, C: Clone, A: Clone> Layer<S> for KeyedWaitingLayer<K, F, C, A> {
    type Service = KeyedWaiting<S, K, F, C, A>;

    fn layer(&self, inner: S) -> Self::Service {
        let (limiters, key) = (self.handle.limiters.clone(), self.key.clone());
        KeyedWaiting { inner, limiters, key, cost: self.cost.clone(), after: self.after.clone(), keys: PhantomData }
    }
}

crate::macros::inner_accessors!(KeyedWaiting<S, K, F, C, A>);

impl<S, K, F, C, A, Req> Service<Req> for KeyedWaiting<S, K, F, C, A>
where
    S: Service<Req> + Clone,
    S::Error: CanReject,
    K: Hash + Eq,
    F: Fn(&Req) -> K,
    C: RequestCost<Req>,
    A: After + Clone,
    A::Bill<Own>: Bill<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = WaitingFuture<S, Req, A>;

    /// Always ready: the key is in the request, and who waits in line must not hold the inner readiness.
    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let cost = self.cost.cost(&request);
        let limiter = self.limiters.of((self.key)(&request));
        WaitingFuture::new(self.inner.clone(), request, self.after.clone(), cost, limiter)
    }
}

impl<K> Clone for KeyedWaitingHandle<K> {
    fn clone(&self) -> Self {
        Self { limiters: self.limiters.clone() }
    }
}

impl<K, F: Clone, C: Clone, A: Clone> Clone for KeyedWaitingLayer<K, F, C, A> {
    fn clone(&self) -> Self {
        let (handle, key) = (self.handle.clone(), self.key.clone());
        Self { handle, key, cost: self.cost.clone(), after: self.after.clone() }
    }
}

impl<S: Clone, K, F: Clone, C: Clone, A: Clone> Clone for KeyedWaiting<S, K, F, C, A> {
    /// Shares the limiters of every key.
    fn clone(&self) -> Self {
        let (inner, limiters, key) = (self.inner.clone(), self.limiters.clone(), self.key.clone());
        Self { inner, limiters, key, cost: self.cost.clone(), after: self.after.clone(), keys: PhantomData }
    }
}

impl<K> fmt::Debug for KeyedWaitingHandle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedWaitingHandle").field("events", &self.limiters.events).finish_non_exhaustive()
    }
}

impl<K, F, C, A> fmt::Debug for KeyedWaitingLayer<K, F, C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedWaitingLayer").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, K, F, C, A> fmt::Debug for KeyedWaiting<S, K, F, C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedWaiting").field("inner", &self.inner).finish_non_exhaustive()
    }
}
