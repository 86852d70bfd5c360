//! The service: a gate before the inner readiness, and a permit for each call.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::Sleep;
use tower::Service;

use super::{
    future::ResponseFuture,
    handle::CircuitBreakerHandle,
    permit::{Gate, OnUnwind, Permit},
    state::{Circuit, Place},
    step::Ending,
};
use crate::{
    error::{CanReject, Rejected},
    outcome::{Classify, ErrorsAreTransient},
    time::{self, Instant},
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
    Unready,
    Pass { word: u64 },
    Probe(Permit),
    Rejected(Rejected),
}

/// A caller that waits for the readiness of the inner service.
#[derive(Default)]
struct Wait {
    place: Option<Place>,
    /// Ends the wait when time alone changes the answer. Made once there is something to wait for.
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<S, C> CircuitBreaker<S, C> {
    pub(super) const fn new(inner: S, classify: C, circuit: Circuit) -> Self {
        Self { inner, classify, circuit, latch: Latch::Unready, wait: None }
    }

    /// The circuit's handle.
    #[must_use]
    pub fn handle(&self) -> CircuitBreakerHandle {
        CircuitBreakerHandle { circuit: self.circuit.clone() }
    }

    /// Decides anew, unless a probe's place is held already.
    #[inline]
    fn gate(&mut self) -> bool {
        if let Latch::Probe(permit) = &self.latch
            && permit.is_current()
        {
            return true;
        }
        self.latch = match self.circuit.gate() {
            Gate::Pass { word } => Latch::Pass { word },
            Gate::Probe(permit) => Latch::Probe(permit),
            Gate::Refused(rejected) => Latch::Rejected(rejected),
        };
        !matches!(self.latch, Latch::Rejected(_))
    }

    /// The inner service is not ready: asks to be woken by a trip, and by the clock where that alone will change the answer.
    ///
    /// Returns whether the answer has changed already: between the gate and here, a trip would not have found the waker.
    #[cold]
    #[inline(never)]
    fn park(&mut self, cx: &mut Context<'_>) -> bool {
        let wait = self.wait.get_or_insert_default();
        self.circuit.park(&mut wait.place, cx.waker());
        let still_admitted = match &self.latch {
            Latch::Probe(permit) => permit.is_current(),
            Latch::Pass { word } => self.circuit.word() == *word,
            Latch::Unready | Latch::Rejected(_) => false,
        };
        if !still_admitted {
            return true;
        }
        let at = self.circuit.changes_at().filter(|at| *at != Instant::NEVER);
        if wait.timer.as_ref().map(|(at, _)| *at) != at {
            let arm = |at: Instant| Some((at, time::sleep(at.saturating_since(time::now()))?));
            wait.timer = at.and_then(arm);
        }
        let is_over = wait.timer.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready());
        if is_over {
            wait.timer = None;
            // Time changes a state only when somebody looks.
            self.circuit.state();
        }
        is_over
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
            if !self.gate() {
                self.wait = None;
                return Poll::Ready(Ok(()));
            }
            match self.inner.poll_ready(cx) {
                Poll::Ready(Ok(())) => {
                    self.wait = None;
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

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let admitted = match mem::replace(&mut self.latch, Latch::Unready) {
            // The inner service was perhaps never ready, so a refusal stays one, whatever has happened since.
            Latch::Rejected(rejected) => Err(rejected),
            Latch::Probe(permit) if permit.is_current() => Ok(permit),
            // The circuit may have changed between readiness and call.
            Latch::Probe(_) | Latch::Pass { .. } | Latch::Unready => self.circuit.admit(),
        };
        match admitted {
            Ok(mut permit) => {
                let on_unwind = OnUnwind(&mut permit);
                let inner = self.inner.call(request);
                mem::forget(on_unwind);
                ResponseFuture::called(inner, permit, self.classify.clone())
            }
            Err(rejected) => {
                self.circuit.report(&rejected);
                ResponseFuture::rejected(rejected, self.classify.clone())
            }
        }
    }
}

impl<S, C> CircuitBreaker<S, C> {
    /// A service that cannot become ready has failed a call.
    #[cold]
    fn fail<Res, E>(&mut self, error: &E)
    where
        C: Classify<Res, E>,
    {
        self.wait = None;
        let outcome = self.classify.classify(Err(error));
        let permit = match mem::replace(&mut self.latch, Latch::Unready) {
            Latch::Probe(permit) => Ok(permit),
            _ => self.circuit.admit(),
        };
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
