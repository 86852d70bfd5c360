//! The service: a gate before the inner readiness, and a permit for each call.

use std::{
    fmt, mem,
    task::{Context, Poll},
};

use tower::Service;

use super::{
    future::ResponseFuture,
    handle::CircuitBreakerHandle,
    permit::{Calling, Gate, Permit},
    state::Circuit,
    step::Ending,
    wait::Wait,
    word::Refusal,
};
use crate::{
    error::CanReject,
    outcome::{Classify, ErrorsAreTransient},
};

/// See the [module docs](crate::circuit_breaker).
pub struct CircuitBreaker<S, C = ErrorsAreTransient> {
    inner: S,
    classify: C,
    circuit: Circuit,
    latch: Latch,
    wait: Option<Wait>,
}

/// What `poll_ready` has decided for the next call.
enum Latch {
    /// Nothing: `call` asks. A closed circuit that is ready leaves no trace here.
    Undecided,
    Pass {
        word: u64,
    },
    Probe(Latched),
    Refused(Refusal),
}

/// A probe's place that no call has taken yet: readiness that is never used is no call, and no call has ended.
struct Latched(Option<Permit>);

impl<S, C> CircuitBreaker<S, C> {
    pub(super) const fn new(inner: S, classify: C, circuit: Circuit) -> Self {
        Self { inner, classify, circuit, latch: Latch::Undecided, wait: None }
    }

    /// The circuit's handle.
    #[must_use]
    pub fn handle(&self) -> CircuitBreakerHandle {
        CircuitBreakerHandle { circuit: self.circuit.clone() }
    }

    /// Decides anew, unless a probe's place is held already. Returns whether the call may go on.
    #[inline(never)]
    fn decide(&mut self) -> bool {
        if let Latch::Probe(latched) = &self.latch
            && latched.is_current()
        {
            return true;
        }
        // Before anything else is asked, and without its answer: while a circuit is open, this is all there is.
        if let Some(refusal) = self.circuit.place.refusal(self.circuit.place.word()) {
            self.latch = Latch::Refused(refusal);
            return false;
        }
        self.latch = match self.circuit.gate() {
            Gate::Pass { word } => Latch::Pass { word },
            Gate::Probe(permit) => Latch::Probe(Latched(Some(permit))),
            Gate::Refused(refusal) => Latch::Refused(refusal),
        };
        !matches!(self.latch, Latch::Refused(_))
    }

    #[inline]
    fn stop_waiting(&mut self) {
        if self.wait.is_some() {
            self.forget_wait();
        }
    }

    #[cold]
    #[inline(never)]
    fn forget_wait(&mut self) {
        self.wait = None;
    }

    /// The inner service is not ready: asks to be woken by a trip, and by the clock where that alone will change the answer.
    ///
    /// Returns whether the answer has changed already: between the gate and here, a trip would not have found the waker.
    #[cold]
    #[inline(never)]
    fn park(&mut self, cx: &mut Context<'_>) -> bool {
        if let Latch::Undecided = self.latch
            && !self.decide()
        {
            return true;
        }
        let still_admitted = || match &self.latch {
            Latch::Probe(latched) => latched.is_current(),
            Latch::Pass { word } => self.circuit.place.word() == *word,
            Latch::Undecided | Latch::Refused(_) => false,
        };
        self.wait.get_or_insert_default().park(&self.circuit, still_admitted, cx)
    }
}

crate::macros::inner_accessors!(CircuitBreaker<S, C>);

impl<S, C, Req> Service<Req> for CircuitBreaker<S, C>
where
    S: Service<Req>,
    S::Error: CanReject,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, C>;

    /// The gate comes before the inner readiness: while the circuit refuses, the service is ready at once, and the refusal is the answer of
    /// the call. A refusal as a readiness error would end every `Buffer` above.
    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        loop {
            let passes = matches!(self.latch, Latch::Undecided) && self.circuit.is_passing();
            if !passes && !self.decide() {
                self.stop_waiting();
                return Poll::Ready(Ok(()));
            }
            match self.inner.poll_ready(cx) {
                Poll::Ready(Ok(())) => {
                    self.stop_waiting();
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => {
                    self.fail(&error);
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    if !self.park(cx) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    // The future is put together where it is returned, and the other ways to it are apart: each move of it costs more than all the rest of a
    // call.
    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        if let Latch::Undecided = self.latch
            && let Some(word) = self.circuit.pass()
        {
            let classify = self.classify.clone();
            let calling = Calling(self.circuit.permit(word));
            return ResponseFuture::called(self.inner.call(request), calling.end_anew(&self.circuit, word), classify);
        }
        self.call_decided(request)
    }
}

impl<S, C> CircuitBreaker<S, C> {
    #[inline(never)]
    fn call_decided<Req>(&mut self, request: Req) -> ResponseFuture<S::Future, C>
    where
        S: Service<Req>,
        C: Clone,
    {
        // The inner service was perhaps never ready, so a refusal stays one, whatever has happened since.
        if let Latch::Refused(refusal) = self.latch {
            self.latch = Latch::Undecided;
            return ResponseFuture::refused(self.circuit.refuse(refusal), self.classify.clone());
        }
        match self.admit() {
            Ok(permit) => {
                let calling = Calling(permit);
                ResponseFuture::called(self.inner.call(request), calling.end(), self.classify.clone())
            }
            Err(refusal) => ResponseFuture::refused(self.circuit.refuse(refusal), self.classify.clone()),
        }
    }

    /// The permit of a probe, or what the circuit says now: it may have changed between readiness and call.
    #[inline(never)]
    fn admit(&mut self) -> Result<Permit, Refusal> {
        match self.take_latched() {
            Some(permit) => Ok(permit),
            None => self.circuit.admit(),
        }
    }

    /// What `poll_ready` has taken for the next call, if it is still worth anything.
    fn take_latched(&mut self) -> Option<Permit> {
        match mem::replace(&mut self.latch, Latch::Undecided) {
            Latch::Probe(mut latched) if latched.is_current() => latched.0.take(),
            _ => None,
        }
    }

    /// A service that cannot become ready has failed a call.
    #[cold]
    fn fail<Res, E>(&mut self, error: &E)
    where
        C: Classify<Res, E>,
    {
        self.wait = None;
        let outcome = self.classify.classify(Err(error));
        let permit = self.admit();
        if let Ok(mut permit) = permit {
            permit.settle(Ending::Answered(outcome));
        }
    }
}

impl<S: Clone, C: Clone> Clone for CircuitBreaker<S, C> {
    /// Shares the circuit. Readiness, and the probe's place that may come with it, stays with the original.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.classify.clone(), self.circuit.clone())
    }
}

impl<S: fmt::Debug, C> fmt::Debug for CircuitBreaker<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("inner", &self.inner)
            .field("circuit", &self.circuit)
            .finish_non_exhaustive()
    }
}

// ===== impl Latched =====

impl Latched {
    fn is_current(&self) -> bool {
        self.0.as_ref().is_some_and(Permit::is_current)
    }
}

impl Drop for Latched {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            permit.give_back();
        }
    }
}
