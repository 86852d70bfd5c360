//! What the layer is told beside its settings: the classifier, what is kept, and what those get who waited for a load that failed.

use std::sync::Arc;

use super::{
    entry::{Failure, SharedError},
    keep::Keep,
    status::Untold,
};
use crate::{
    error::{AsRejected, CanReject, Rejected},
    outcome::ErrorsAreTransient,
};

/// What a layer is told: key, classifier, what to keep, failures, status.
#[derive(Clone, Copy, Debug)]
pub struct Hooks<F, C = ErrorsAreTransient, H = KeepAll, M = RefuseWaiters, T = Untold> {
    pub(super) key: F,
    pub(super) classify: C,
    pub(super) keep: H,
    pub(super) failures: M,
    pub(super) tell: T,
}

/// What is kept of an answer, by its request.
pub trait KeepBy<Req, Res> {
    /// What of the request decides with the response.
    type Of: KeepOf<Res> + Send + 'static;
    /// Looks at the request, before the inner service takes it.
    fn of(&self, request: &Req) -> Self::Of;
}

/// What is kept of an answer.
pub trait KeepOf<Res> {
    /// Looks at the response.
    fn keep(self, response: &Res) -> Keep;
}

/// Keeps every success for the ttl of the settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepAll;

/// Asks a function of the response.
#[derive(Clone, Copy, Debug)]
pub struct ByResponse<F>(pub(super) F);

/// Asks a function of the request, which answers with one of the response.
#[derive(Clone, Copy, Debug)]
pub struct ByRequest<F>(pub(super) F);

/// A function of the response.
#[derive(Clone, Copy, Debug)]
pub struct OfResponse<F>(F);

impl<Res> KeepOf<Res> for KeepAll {
    #[inline]
    fn keep(self, _: &Res) -> Keep {
        Keep::default()
    }
}

impl<Req, Res> KeepBy<Req, Res> for KeepAll {
    type Of = Self;

    #[inline]
    fn of(&self, _: &Req) -> Self {
        Self
    }
}

impl<Res, F, I> KeepOf<Res> for OfResponse<F>
where
    F: FnOnce(&Res) -> I,
    I: Into<Keep>,
{
    fn keep(self, response: &Res) -> Keep {
        (self.0)(response).into()
    }
}

impl<Req, Res, F, I> KeepBy<Req, Res> for ByResponse<F>
where
    F: Fn(&Res) -> I + Clone + Send + 'static,
    I: Into<Keep>,
{
    type Of = OfResponse<F>;

    fn of(&self, _: &Req) -> Self::Of {
        OfResponse(self.0.clone())
    }
}

impl<Req, Res, F, G, I> KeepBy<Req, Res> for ByRequest<F>
where
    F: Fn(&Req) -> G,
    G: FnOnce(&Res) -> I + Send + 'static,
    I: Into<Keep>,
{
    type Of = OfResponse<G>;

    fn of(&self, request: &Req) -> Self::Of {
        OfResponse((self.0)(request))
    }
}

/// What those get who waited for a load that failed.
pub trait Failures<E> {
    /// The refusal by a layer below, if the error is one.
    fn refusal(&self, error: &E) -> Option<Rejected>;
    /// Keeps what is shared of an error. It still goes to who began the load.
    #[doc(hidden)]
    fn share(&self, error: &E) -> Option<Shareable>;
    /// The error for one who waited.
    #[doc(hidden)]
    fn answer(&self, rejected: Rejected, shared: Option<&Shareable>) -> E;
}

/// An error that is shared.
#[derive(Clone)]
#[doc(hidden)]
#[expect(missing_debug_implementations, reason = "nobody sees it")]
pub struct Shareable(SharedError);

/// Each gets a [`Rejected`]: that of the layer below, or one with [`LoadFailed`](crate::Reason::LoadFailed).
#[derive(Clone, Copy, Debug, Default)]
pub struct RefuseWaiters;

/// Each gets a clone of the error.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShareErrors;

impl<E: CanReject + AsRejected> Failures<E> for RefuseWaiters {
    fn refusal(&self, error: &E) -> Option<Rejected> {
        error.as_rejected()
    }

    fn share(&self, _: &E) -> Option<Shareable> {
        None
    }

    fn answer(&self, rejected: Rejected, _: Option<&Shareable>) -> E {
        E::reject(rejected)
    }
}

impl<E: CanReject + Clone + Send + Sync + 'static> Failures<E> for ShareErrors {
    fn refusal(&self, _: &E) -> Option<Rejected> {
        None
    }

    fn share(&self, error: &E) -> Option<Shareable> {
        Some(Shareable(Arc::new(error.clone())))
    }

    fn answer(&self, rejected: Rejected, shared: Option<&Shareable>) -> E {
        // Services with other errors may share the cache.
        let error = shared.and_then(|shared| shared.0.downcast_ref::<E>());
        error.cloned().unwrap_or_else(|| E::reject(rejected))
    }
}

/// A failure to share.
pub(super) fn failure(rejected: Rejected, shared: Option<Shareable>) -> Failure {
    Failure { rejected, error: shared.map(|shared| shared.0) }
}

/// The error of a failure that was shared.
pub(super) fn error_of<E, M: Failures<E>>(failures: &M, failure: &Failure) -> E {
    failures.answer(failure.rejected, failure.error.clone().map(Shareable).as_ref())
}
