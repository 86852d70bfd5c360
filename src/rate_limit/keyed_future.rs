//! The response future of a keyed layer.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower::{Service, util::Oneshot};

use super::{
    decision::Decisions,
    settle::{Account, Bill},
    store::{LimitStore, Taken},
};
use crate::{
    error::{CanReject, Rejected},
    time::{self, Instant},
};

pin_project! {
    /// The answer of a [`KeyedRateLimit`](super::KeyedRateLimit).
    #[must_use = "futures do nothing unless polled"]
    pub struct KeyedResponseFuture<S, Req, L, B>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, Req, L, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Req, L, B>
    where
        S: Service<Req>,
    {
        Asks {
            #[pin]
            verdict: L,
            // Taken out when it is called.
            call: Option<(S, Req, B)>,
        },
        Called {
            #[pin]
            inner: Oneshot<S, Req>,
            bill: B,
        },
        Refused {
            rejected: Rejected,
        },
    }
}

impl<S: Service<Req>, Req, L, B> KeyedResponseFuture<S, Req, L, B> {
    pub(super) const fn asks(verdict: L, inner: S, request: Req, bill: B) -> Self {
        Self { state: State::Asks { verdict, call: Some((inner, request, bill)) } }
    }

    #[inline]
    pub(super) fn called(inner: S, request: Req, bill: B) -> Self {
        Self { state: State::Called { inner: Oneshot::new(inner, request), bill } }
    }

    pub(super) const fn refused(rejected: Rejected) -> Self {
        Self { state: State::Refused { rejected } }
    }
}

impl<S, Req, L, B> Future for KeyedResponseFuture<S, Req, L, B>
where
    S: Service<Req>,
    S::Error: CanReject,
    L: Future<Output = Taken<Infallible>>,
    B: Bill<S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Called { inner, bill } => {
                    let mut result = ready!(inner.poll(cx));
                    bill.end(&mut result);
                    return Poll::Ready(result);
                }
                StateProj::Refused { rejected } => return Poll::Ready(Err(S::Error::reject(*rejected))),
                StateProj::Asks { verdict, call } => match (ready!(verdict.poll(cx)), call.take()) {
                    (Taken::Now(Err(rejected)), _) => State::Refused { rejected },
                    (taken, Some((inner, request, mut bill))) => {
                        if matches!(taken, Taken::Unpaid) {
                            bill.waive();
                        }
                        State::Called { inner: Oneshot::new(inner, request), bill }
                    }
                    (_, None) => unreachable!("it is called once"),
                },
            };
            state.set(next);
        }
    }
}

impl<S: Service<Req>, Req, L, B> fmt::Debug for KeyedResponseFuture<S, Req, L, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedResponseFuture").finish_non_exhaustive()
    }
}

/// The key of a call, and where its limits are kept.
pub struct Kept<K, T> {
    pub(super) key: K,
    pub(super) store: Arc<T>,
    pub(super) taken_at: Instant,
}

impl<K, T: LimitStore<K>> Account for Kept<K, T> {
    fn decisions(&self) -> Option<Decisions> {
        self.store.decisions(&self.key)
    }

    fn charge(&self, units: u64) {
        self.store.charge(&self.key, units);
    }

    fn refund(&self, units: u64) {
        self.store.refund(&self.key, units, time::now().saturating_since(self.taken_at));
    }

    fn pause(&self, wait: Duration) {
        self.store.pause(&self.key, wait);
    }
}

impl<K, T> fmt::Debug for Kept<K, T> {
    /// Keys are nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}
