//! The service.

use std::{
    fmt,
    hash::Hash,
    task::{Context, Poll},
};

use tower::Service;

use super::{
    future::{ResponseFuture, answer},
    handle::CacheHandle,
    hooks::{Failures, Hooks, KeepBy},
    memory::MemoryStore,
    miss::Miss,
    state::{Look, State},
    status::{CacheStatus, Tell},
    store::Store,
};
use crate::{outcome::Classify, shared::Shared};

/// See the [module docs](crate::cache).
pub struct Cache<S, K, V, R, St = MemoryStore<K, V>> {
    inner: S,
    hooks: R,
    state: Shared<State<K, V, St>>,
}

impl<S, K, V, R, St> Cache<S, K, V, R, St> {
    pub(super) const fn new(inner: S, hooks: R, state: Shared<State<K, V, St>>) -> Self {
        Self { inner, hooks, state }
    }

    /// The cache's handle.
    #[must_use]
    pub fn handle(&self) -> CacheHandle<K, V, St> {
        CacheHandle { state: self.state.clone() }
    }
}

crate::macros::inner_accessors!(Cache<S, K, V, R, St>);

impl<S, Req, K, V, St, F, C, H, M, T> Service<Req> for Cache<S, K, V, Hooks<F, C, H, M, T>, St>
where
    S: Service<Req, Response = V, Error: Send + 'static, Future: Send + 'static> + Clone + Send + 'static,
    Req: Send + 'static,
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    St: Store<K, V>,
    F: Fn(&Req) -> Option<K>,
    C: Classify<V, S::Error> + Clone + Send + 'static,
    H: KeepBy<Req, V> + Clone + Send + 'static,
    M: Failures<S::Error> + Clone + Send + 'static,
    T: Tell<V> + Clone,
{
    type Response = T::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, Req, K, St, C, H, M, T>;

    /// Always ready: a hit needs nothing of the inner service, and a load waits for its own clone's readiness.
    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let Some(key) = (self.hooks.key)(&request) else {
            self.state.count(CacheStatus::Bypassed);
            return ResponseFuture::passed(self.inner.clone(), request, self.hooks.tell.clone());
        };
        let (at_hand, at_once) = match self.state.look(&key) {
            Look::Serve(entry, status) => {
                self.state.count(status);
                return ResponseFuture::answered(answer(&entry, status, &self.hooks.tell, &self.hooks.failures));
            }
            Look::Refresh(entry, status) => (Some(entry), Some(status)),
            Look::Load(at_hand) => (at_hand, None),
        };
        let Hooks { classify, keep, failures, tell, .. } = &self.hooks;
        let miss = Miss {
            state: self.state.clone(),
            key,
            call: Some((self.inner.clone(), request)),
            hooks: Some((classify.clone(), keep.clone())),
            failures: failures.clone(),
            at_hand,
            at_once,
            waiting: None,
            is_counted: false,
            has_waited: false,
        };
        ResponseFuture::missed(miss, tell.clone())
    }
}

impl<S: Clone, K, V, R: Clone, St> Clone for Cache<S, K, V, R, St> {
    /// Shares the cache.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.hooks.clone(), self.state.clone())
    }
}

impl<S: fmt::Debug, K, V, R, St> fmt::Debug for Cache<S, K, V, R, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("inner", &self.inner).field("state", &*self.state).finish_non_exhaustive()
    }
}
