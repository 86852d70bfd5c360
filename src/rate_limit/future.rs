//! The response futures: of a layer that refuses, and of one that waits.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::{Service, util::Oneshot};

use super::{
    account::Own,
    line::Patience,
    settle::{After, Bill, sealed::Bill as _},
    state::Limiter,
    ticket::{Received, Ticket},
};
use crate::{
    deadline,
    error::{CanReject, Rejected},
    shared::Shared,
    time::{self, Instant, Now},
};

pin_project! {
    /// The answer of a [`RateLimit`](super::RateLimit) that refuses.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, B = ()> {
        #[pin]
        state: State<F, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B> {
        Called {
            #[pin]
            inner: F,
            bill: B,
        },
        Refused {
            rejected: Rejected,
        },
    }
}

impl<F, B> ResponseFuture<F, B> {
    #[inline]
    pub(super) const fn called(inner: F, bill: B) -> Self {
        Self { state: State::Called { inner, bill } }
    }

    #[inline]
    pub(super) const fn refused(rejected: Rejected) -> Self {
        Self { state: State::Refused { rejected } }
    }
}

impl<F, B, Res, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Res, E>>,
    E: CanReject,
    B: Bill<Res, E>,
{
    type Output = Result<Res, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Called { inner, bill } => {
                let mut result = ready!(inner.poll(cx));
                bill.end(&mut result);
                Poll::Ready(result)
            }
            StateProj::Refused { rejected } => Poll::Ready(Err(E::reject(*rejected))),
        }
    }
}

impl<F, B> fmt::Debug for ResponseFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// The answer of a [`RateLimit`](super::RateLimit) that waits.
    #[must_use = "futures do nothing unless polled"]
    pub struct WaitingFuture<S, Req, A>
    where
        S: Service<Req>,
        A: After,
    {
        // Until it is called.
        waiting: Option<Waiting<S, Req, A>>,
        #[pin]
        called: Option<Called<S, Req, A>>,
    }
}

struct Waiting<S, Req, A> {
    inner: S,
    request: Req,
    after: A,
    cost: u64,
    limiter: Shared<Limiter>,
    ticket: Option<Ticket<Limiter>>,
}

pin_project! {
    struct Called<S, Req, A>
    where
        S: Service<Req>,
        A: After,
    {
        #[pin]
        inner: Oneshot<S, Req>,
        bill: A::Bill<Own>,
    }
}

impl<S, Req, A> WaitingFuture<S, Req, A>
where
    S: Service<Req>,
    A: After,
{
    pub(super) const fn new(inner: S, request: Req, after: A, cost: u64, limiter: Shared<Limiter>) -> Self {
        Self { waiting: Some(Waiting { inner, request, after, cost, limiter, ticket: None }), called: None }
    }
}

impl<S, Req, A> Waiting<S, Req, A> {
    /// Until it may go: since when it has what it costs, or `None` when it has paid nothing.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Instant>, Rejected>> {
        let (limiter, cost) = (self.limiter.value(), self.cost);
        let refused = match &mut self.ticket {
            Some(ticket) => match ready!(ticket.poll(cx)) {
                Ok(taken_at) => return Poll::Ready(Ok(Some(taken_at))),
                Err(wait) => wait,
            },
            None => {
                let mut now = Now::when_asked();
                if limiter.is_shadow() {
                    return Poll::Ready(self.pass_in_shadow(now.get()));
                }
                if limiter.line.is_empty() && limiter.take_at(now.get(), cost).is_ok() {
                    return Poll::Ready(Ok(Some(now.get())));
                }
                let deadline = deadline::current(&mut now);
                let patience = Patience { max_wait: now.get().saturating_add(limiter.max_wait), deadline };
                match Ticket::draw(limiter, now.get(), cost, patience, cx) {
                    Received::Granted(taken_at) => return Poll::Ready(Ok(Some(taken_at))),
                    Received::Waits(ticket) => {
                        self.ticket = Some(ticket);
                        return Poll::Pending;
                    }
                    Received::Refused(wait) => wait,
                }
            }
        };
        Poll::Ready(limiter.refuse(limiter.refusal(refused, cost)).map(|()| None))
    }

    /// Nobody waits for what is only counted.
    #[cold]
    fn pass_in_shadow(&self, now: Instant) -> Result<Option<Instant>, Rejected> {
        match self.limiter.take_at(now, self.cost) {
            Ok(()) => Ok(Some(now)),
            Err(refused) => self.limiter.refuse(refused).map(|()| None),
        }
    }
}

impl<S, Req, A> Future for WaitingFuture<S, Req, A>
where
    S: Service<Req>,
    S::Error: CanReject,
    A: After,
    A::Bill<Own>: Bill<S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(waiting) = this.waiting {
            let taken_at = match ready!(waiting.poll(cx)) {
                Ok(taken_at) => taken_at,
                Err(rejected) => {
                    // What would have been called is gone before the caller hears of it.
                    *this.waiting = None;
                    return Poll::Ready(Err(S::Error::reject(rejected)));
                }
            };
            if let Some(Waiting { inner, request, after, cost, limiter, .. }) = this.waiting.take() {
                let account = || Own::new(limiter, taken_at.unwrap_or_else(time::now));
                let bill = after.bill(account, taken_at.map(|_| cost));
                this.called.set(Some(Called { inner: Oneshot::new(inner, request), bill }));
            }
        }
        let Some(called) = this.called.as_mut().as_pin_mut() else { panic!("polled after it was ready") };
        let called = called.project();
        let mut result = ready!(called.inner.poll(cx));
        called.bill.end(&mut result);
        this.called.set(None);
        Poll::Ready(result)
    }
}

impl<S, Req, A> fmt::Debug for WaitingFuture<S, Req, A>
where
    S: Service<Req>,
    A: After,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitingFuture").finish_non_exhaustive()
    }
}
