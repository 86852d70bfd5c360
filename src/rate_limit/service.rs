//! The service, in its three modes.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tower::Service;

use super::{
    account::Own,
    future::{ResponseFuture, WaitingFuture},
    handle::RateLimitHandle,
    ledger::Refused,
    line::Patience,
    settle::{After, Bill, Nothing},
    state::Limiter,
    ticket::{Received, Ticket, give_back},
};
use crate::{
    error::CanReject,
    shared::Shared,
    time::{self, Instant},
};

/// See the [module docs](crate::rate_limit).
pub struct RateLimit<S, C = OneUnit, M = Refusing, A = Nothing> {
    inner: S,
    cost: C,
    mode: M,
    after: A,
    limiter: Shared<Limiter>,
}

/// What a request takes of the quota, in units. A closure wants its argument spelled out, `|request: &Request| ..`.
pub trait RequestCost<Req> {
    /// What this request costs. A cost of zero takes nothing, and passes unless there is a pause, a debt, or somebody in line.
    fn cost(&self, request: &Req) -> u64;
}

/// Every request costs one unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OneUnit;

/// What is too much is refused at once.
#[derive(Debug, Default)]
pub struct Refusing {
    /// `poll_ready` has answered because the next call is refused; the inner service is perhaps not ready.
    refuses: bool,
}

/// What is too much waits in line, in the response future.
#[derive(Debug, Default)]
pub struct Waiting;

/// What is too much waits in line, in `poll_ready`.
#[derive(Debug, Default)]
pub struct Backpressure {
    turn: Turn,
}

/// How far `poll_ready` has come.
#[derive(Debug, Default)]
enum Turn {
    #[default]
    None,
    InLine(Ticket<Limiter>),
    /// A unit for the next call.
    Has(Unit),
    /// The next call is refused: the line is full.
    Refuses(Refused),
}

/// A unit that is given back unless it is used.
#[derive(Debug)]
struct Unit {
    limiter: Option<Arc<Limiter>>,
    taken_at: Instant,
}

impl<Req> RequestCost<Req> for OneUnit {
    #[inline]
    fn cost(&self, _: &Req) -> u64 {
        1
    }
}

impl<Req, F: Fn(&Req) -> u64> RequestCost<Req> for F {
    #[inline]
    fn cost(&self, request: &Req) -> u64 {
        self(request)
    }
}

impl<S, C, M: Default, A> RateLimit<S, C, M, A> {
    pub(super) fn new(inner: S, cost: C, after: A, limiter: Shared<Limiter>) -> Self {
        Self { inner, cost, mode: M::default(), after, limiter }
    }
}

impl<S, C, M, A> RateLimit<S, C, M, A> {
    /// The limiter's handle.
    #[must_use]
    pub fn handle(&self) -> RateLimitHandle {
        RateLimitHandle { limiter: self.limiter.clone() }
    }
}

crate::macros::inner_accessors!(RateLimit<S, C, M, A>);

// ===== refusing =====

impl<S, C, A, Req> Service<Req> for RateLimit<S, C, Refusing, A>
where
    S: Service<Req>,
    S::Error: CanReject,
    C: RequestCost<Req>,
    A: After,
    A::Bill<Own>: Bill<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, A::Bill<Own>>;

    /// The inner readiness; but while nothing is left of the quota, the service is ready at once, and the refusal is the answer of the call.
    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let ready = self.inner.poll_ready(cx);
        // In shadow mode every call passes, so it needs the inner service.
        self.mode.refuses = ready.is_pending() && self.limiter.is_used_up() && !self.limiter.is_shadow();
        if self.mode.refuses { Poll::Ready(Ok(())) } else { ready }
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let cost = self.cost.cost(&request);
        if self.mode.refuses {
            return self.refuse_unready(cost);
        }
        match self.limiter.take(cost) {
            Ok(()) => {
                let bill = self.after.bill(|| Own::new(self.limiter.clone(), time::now()), Some(cost));
                ResponseFuture::called(self.inner.call(request), bill)
            }
            Err(refused) => self.call_refused(refused, request),
        }
    }
}

impl<S, C, A: After> RateLimit<S, C, Refusing, A> {
    /// In shadow mode it goes all the same, and has paid nothing. Apart, so that the future of a call that passes is put together in its place.
    #[inline(never)]
    fn call_refused<Req>(&mut self, refused: Refused, request: Req) -> ResponseFuture<S::Future, A::Bill<Own>>
    where
        S: Service<Req>,
    {
        match self.limiter.refuse(refused) {
            Ok(()) => {
                let bill = self.after.bill(|| Own::new(self.limiter.clone(), time::now()), None);
                ResponseFuture::called(self.inner.call(request), bill)
            }
            Err(rejected) => ResponseFuture::refused(rejected),
        }
    }

    /// What has come back in between is not taken: nobody is ready to use it.
    #[cold]
    fn refuse_unready<F, B>(&mut self, cost: u64) -> ResponseFuture<F, B> {
        self.mode.refuses = false;
        ResponseFuture::refused(self.limiter.refuse_unready(self.limiter.look(cost)))
    }
}

// ===== waiting =====

impl<S, C, A, Req> Service<Req> for RateLimit<S, C, Waiting, A>
where
    S: Service<Req> + Clone,
    S::Error: CanReject,
    C: RequestCost<Req>,
    A: After + Clone,
    A::Bill<Own>: Bill<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = WaitingFuture<S, Req, A>;

    /// Always ready: who waits in line must not hold the inner readiness, so the future takes it afterwards, of a clone.
    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let cost = self.cost.cost(&request);
        WaitingFuture::new(self.inner.clone(), request, self.after.clone(), cost, self.limiter.clone())
    }
}

// ===== backpressure =====

impl<S, A, Req> Service<Req> for RateLimit<S, OneUnit, Backpressure, A>
where
    S: Service<Req>,
    S::Error: CanReject,
    A: After,
    A::Bill<Own>: Bill<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, A::Bill<Own>>;

    /// Waits for a unit, and then for the inner service: the unit is given back if the service is dropped before it is called.
    ///
    /// When the line is full it is ready at once, and the refusal is the answer of the call.
    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let has_unit = ready!(self.poll_unit(cx));
        if has_unit { self.inner.poll_ready(cx) } else { Poll::Ready(Ok(())) }
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let (paid, taken_at) = match std::mem::take(&mut self.mode.turn) {
            Turn::Refuses(refused) => return ResponseFuture::refused(self.limiter.refuse_unready(refused)),
            Turn::Has(mut unit) => (unit.limiter.take().map(|_| 1), unit.taken_at),
            Turn::None | Turn::InLine(_) => panic!("called without being ready"),
        };
        let bill = self.after.bill(|| Own::new(self.limiter.clone(), taken_at), paid);
        ResponseFuture::called(self.inner.call(request), bill)
    }
}

impl<S, C, A> RateLimit<S, C, Backpressure, A> {
    /// Whether there is a unit for the next call.
    #[inline]
    fn poll_unit(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match &mut self.mode.turn {
            Turn::Has(_) => Poll::Ready(true),
            Turn::None if self.limiter.line.is_empty() => {
                let now = time::now();
                if self.limiter.take_at(now, 1).is_ok() {
                    self.has_unit(now);
                    return Poll::Ready(true);
                }
                self.poll_line(cx)
            }
            _ => self.poll_line(cx),
        }
    }

    fn has_unit(&mut self, taken_at: Instant) {
        self.mode.turn = Turn::Has(Unit { limiter: Some(Arc::clone(self.limiter.value())), taken_at });
    }

    fn pass_in_shadow(&mut self, refused: Refused) {
        let _ = self.limiter.refuse(refused);
        self.mode.turn = Turn::Has(Unit { limiter: None, taken_at: time::now() });
    }

    #[cold]
    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let settled = match &mut self.mode.turn {
            Turn::InLine(ticket) => ready!(ticket.poll(cx)),
            _ if self.limiter.is_shadow() => {
                self.pass_in_shadow(self.limiter.look(1));
                return Poll::Ready(true);
            }
            _ => match Ticket::draw(self.limiter.value(), time::now(), 1, Patience::ENDLESS, cx) {
                Received::Granted(at) => Ok(at),
                Received::Waits(ticket) => {
                    self.mode.turn = Turn::InLine(ticket);
                    return Poll::Pending;
                }
                Received::Refused(wait) => Err(wait),
            },
        };
        match settled {
            Ok(taken_at) => self.has_unit(taken_at),
            Err(wait) => {
                let refused = self.limiter.refusal(wait, 1);
                if !self.limiter.is_shadow() {
                    // It is reported when there is a call to refuse.
                    self.mode.turn = Turn::Refuses(refused);
                    return Poll::Ready(false);
                }
                self.pass_in_shadow(refused);
            }
        }
        Poll::Ready(true)
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        if let Some(limiter) = self.limiter.take() {
            give_back(&limiter, 1, self.taken_at);
        }
    }
}

// ===== common =====

impl<S: Clone, C: Clone, M: Default, A: Clone> Clone for RateLimit<S, C, M, A> {
    /// Shares the quota. Readiness, and a place in line, stay with the original.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.cost.clone(), self.after.clone(), self.limiter.clone())
    }
}

impl<S: fmt::Debug, C, M, A> fmt::Debug for RateLimit<S, C, M, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").field("inner", &self.inner).field("limiter", &*self.limiter).finish_non_exhaustive()
    }
}
