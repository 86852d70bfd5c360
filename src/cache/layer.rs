//! The settings in layer form.

use std::{fmt, hash::Hash};

use tower::Layer;

use super::{
    handle::CacheHandle,
    hooks::{ByRequest, ByResponse, Hooks, KeepAll, RefuseWaiters, ShareErrors},
    keep::Keep,
    memory::MemoryStore,
    policy::CacheSettings,
    service::Cache,
    status::Untold,
};
use crate::{error::ConfigError, event::Event, outcome::ErrorsAreTransient};

/// Builds [`Cache`]s: the layer, its clones and all services they build share the entries.
///
/// See the [module docs](crate::cache).
pub struct CacheLayer<K, V, R, St = MemoryStore<K, V>> {
    handle: CacheHandle<K, V, St>,
    hooks: R,
}

impl<K, V, F> CacheLayer<K, V, Hooks<F>>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// A cache in memory with this key, and without one for requests that are to pass by: writes, say. There is no default: what the key leaves out is shared by all who differ in nothing else, so it begins with whoever may see the answer.
    ///
    /// # Panics
    ///
    /// If the settings cannot work; [`try_new`](Self::try_new) says so instead.
    #[must_use]
    #[track_caller]
    pub fn new<Req>(settings: CacheSettings, key: F) -> Self
    where
        F: Fn(&Req) -> Option<K>,
    {
        CacheHandle::new(settings).layer(key)
    }

    /// As [`new`](Self::new).
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_new<Req>(settings: CacheSettings, key: F) -> Result<Self, ConfigError>
    where
        F: Fn(&Req) -> Option<K>,
    {
        CacheHandle::try_new(settings).map(|handle| handle.layer(key))
    }
}

impl<K, V, St, F, C, H, M, T> CacheLayer<K, V, Hooks<F, C, H, M, T>, St> {
    /// Decides what an answer means. Defaults to [`ErrorsAreTransient`].
    #[must_use]
    pub fn classify<N>(self, classify: N) -> CacheLayer<K, V, Hooks<F, N, H, M, T>, St> {
        let Hooks { key, keep, failures, tell, .. } = self.hooks;
        CacheLayer { handle: self.handle, hooks: Hooks { key, classify, keep, failures, tell } }
    }

    /// Decides by the response what is kept: a [`Keep`], a ttl, or `None` for not at all. It is asked for successes and permanent failures only. Defaults to
    /// every success, for the ttl of the settings.
    #[must_use]
    pub fn keep<N, I>(self, keep: N) -> CacheLayer<K, V, Hooks<F, C, ByResponse<N>, M, T>, St>
    where
        N: Fn(&V) -> I,
        I: Into<Keep>,
    {
        self.keeping(ByResponse(keep))
    }

    /// As [`keep`](Self::keep), by the request and the response: a function of the request that answers with one of the response, because the inner
    /// service takes the request with it.
    #[must_use]
    pub fn keep_by_request<Req, N, G, I>(self, keep: N) -> CacheLayer<K, V, Hooks<F, C, ByRequest<N>, M, T>, St>
    where
        N: Fn(&Req) -> G,
        G: FnOnce(&V) -> I,
        I: Into<Keep>,
    {
        self.keeping(ByRequest(keep))
    }

    fn keeping<N>(self, keep: N) -> CacheLayer<K, V, Hooks<F, C, N, M, T>, St> {
        let Hooks { key, classify, failures, tell, .. } = self.hooks;
        CacheLayer { handle: self.handle, hooks: Hooks { key, classify, keep, failures, tell } }
    }

    /// Those who waited for a load that failed get a clone of its error. Defaults to a [`Rejected`](crate::Rejected) for each.
    #[must_use]
    pub fn share_errors(self) -> CacheLayer<K, V, Hooks<F, C, H, ShareErrors, T>, St> {
        let Hooks { key, classify, keep, tell, .. } = self.hooks;
        CacheLayer { handle: self.handle, hooks: Hooks { key, classify, keep, failures: ShareErrors, tell } }
    }

    /// Makes the answer of the inner service's and of the [`CacheStatus`](super::CacheStatus). Defaults to the answer alone.
    #[must_use]
    pub fn tell<N>(self, tell: N) -> CacheLayer<K, V, Hooks<F, C, H, M, N>, St> {
        let Hooks { key, classify, keep, failures, .. } = self.hooks;
        CacheLayer { handle: self.handle, hooks: Hooks { key, classify, keep, failures, tell } }
    }
}

impl<K, V, R, St> CacheLayer<K, V, R, St> {
    /// Tells `listener` of every [`Event`], under no lock.
    #[must_use]
    pub fn on_event(self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.handle.on_event(listener);
        self
    }

    /// The cache's handle.
    #[must_use]
    pub fn handle(&self) -> CacheHandle<K, V, St> {
        self.handle.clone()
    }
}

impl<S, K, V, R: Clone, St> Layer<S> for CacheLayer<K, V, R, St> {
    type Service = Cache<S, K, V, R, St>;

    fn layer(&self, inner: S) -> Self::Service {
        Cache::new(inner, self.hooks.clone(), self.handle.state.clone())
    }
}

impl<K, V, St> CacheHandle<K, V, St> {
    /// A further layer over the same entries: they must not mean another thing there.
    #[must_use]
    pub fn layer<Req, F>(&self, key: F) -> CacheLayer<K, V, Hooks<F>, St>
    where
        F: Fn(&Req) -> Option<K>,
    {
        let hooks = Hooks { key, classify: ErrorsAreTransient, keep: KeepAll, failures: RefuseWaiters, tell: Untold };
        CacheLayer { handle: self.clone(), hooks }
    }
}

impl<K, V, R: Clone, St> Clone for CacheLayer<K, V, R, St> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), hooks: self.hooks.clone() }
    }
}

impl<K, V, R, St> fmt::Debug for CacheLayer<K, V, R, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLayer").field("handle", &self.handle).finish_non_exhaustive()
    }
}
