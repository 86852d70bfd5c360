//! Where an answer comes from.

use std::time::Duration;

pub use crate::event::WhyStale;

/// Where an answer comes from: what [`CacheLayer::tell`](super::CacheLayer::tell) is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheStatus {
    /// The request has no key: the answer is the inner service's.
    Bypassed,
    /// It was in the cache.
    #[non_exhaustive]
    Fresh {
        /// How long it will be fresh.
        ttl: Duration,
    },
    /// It was in the cache and is past its time.
    #[non_exhaustive]
    Stale {
        /// How long it has been past its time.
        stale_for: Duration,
        /// Why it was answered with all the same.
        why: WhyStale,
    },
    /// It was loaded for this call.
    #[non_exhaustive]
    Loaded {
        /// Whether it went into the cache.
        stored: bool,
        /// Whether another call had begun to load it.
        collapsed: bool,
    },
}

impl CacheStatus {
    /// `bypassed`, `fresh`, `stale`, `loaded`: as traces have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bypassed => "bypassed",
            Self::Fresh { .. } => "fresh",
            Self::Stale { .. } => "stale",
            Self::Loaded { .. } => "loaded",
        }
    }
}

/// Puts the status where the caller finds it.
///
/// A closure gets the answer and its [`CacheStatus`] and makes an answer of them. [`Untold`] is the default; with feature `http`, `CacheStatusHeader` writes a header.
pub trait Tell<V> {
    /// What the service answers with.
    type Response;
    /// Makes it of an answer of the inner service.
    fn tell(&self, response: V, status: CacheStatus) -> Self::Response;
}

/// The answer without its status.
#[derive(Clone, Copy, Debug, Default)]
pub struct Untold;

impl<V> Tell<V> for Untold {
    type Response = V;

    #[inline]
    fn tell(&self, response: V, _: CacheStatus) -> V {
        response
    }
}

impl<V, R, F: Fn(V, CacheStatus) -> R> Tell<V> for F {
    type Response = R;

    #[inline]
    fn tell(&self, response: V, status: CacheStatus) -> R {
        self(response, status)
    }
}
