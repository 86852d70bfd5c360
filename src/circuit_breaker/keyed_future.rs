//! The response future of a keyed breaker: it waits for the inner readiness itself, with an ear on the circuit.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower::Service;

use super::{
    future::ResponseFuture,
    permit::{OnUnwind, Permit},
    state::Circuit,
    step::Ending,
    wait::Wait,
    word::Refused,
};
use crate::{error::CanReject, outcome::Classify};

pin_project! {
    /// The answer of a [`KeyedCircuitBreaker`](super::KeyedCircuitBreaker).
    #[must_use = "futures do nothing unless polled"]
    pub struct KeyedResponseFuture<S, Req, C>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, Req, C>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Req, C>
    where
        S: Service<Req>,
    {
        Waiting {
            service: S,
            request: Option<Req>,
            permit: Permit,
            // The circuit's word before the call was admitted.
            word: u64,
            circuit: Circuit,
            wait: Wait,
            classify: C,
        },
        Answering {
            // Dropped before the circuit, which must not be forgotten before it has heard how the call ended.
            #[pin]
            answer: ResponseFuture<S::Future, C>,
            circuit: Option<Circuit>,
        },
    }
}

impl<S: Service<Req>, Req, C> KeyedResponseFuture<S, Req, C> {
    pub(super) fn waiting(service: S, request: Req, admitted: (Permit, u64), circuit: Circuit, classify: C) -> Self {
        let ((permit, word), request, wait) = (admitted, Some(request), Wait::default());
        Self { state: State::Waiting { service, request, permit, word, circuit, wait, classify } }
    }

    pub(super) const fn refused(refused: Refused, classify: C) -> Self {
        Self { state: State::Answering { answer: ResponseFuture::refused(refused, classify), circuit: None } }
    }
}

impl<S, Req, C> Future for KeyedResponseFuture<S, Req, C>
where
    S: Service<Req>,
    S::Error: CanReject,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Answering { answer, .. } => return answer.poll(cx),
                StateProj::Waiting { service, request, permit, word, circuit, wait, classify } => {
                    if !permit.is_good_under(*word, circuit) {
                        // The circuit has changed while this call waited: it is asked once more.
                        *word = circuit.place.word();
                        match circuit.admit() {
                            Ok(admitted) => mem::replace(permit, admitted).give_back(),
                            Err(refusal) => {
                                let refused = circuit.refuse(refusal);
                                let answer = ResponseFuture::refused(refused, classify.clone());
                                state.set(State::Answering { answer, circuit: None });
                                continue;
                            }
                        }
                    }
                    match service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => {
                            permit.settle(Ending::Answered(classify.classify(Err(&error))));
                            return Poll::Ready(Err(error));
                        }
                        Poll::Pending => {
                            if wait.park(circuit, || permit.is_good_under(*word, circuit), cx) {
                                continue;
                            }
                            return Poll::Pending;
                        }
                    }
                    let request = request.take().expect("polled after it was ready");
                    let on_unwind = OnUnwind(permit);
                    let inner = service.call(request);
                    mem::forget(on_unwind);
                    let answer = ResponseFuture::called(inner, permit.take(), classify.clone());
                    State::Answering { answer, circuit: Some(circuit.clone()) }
                }
            };
            state.set(next);
        }
    }
}

impl<S: Service<Req>, Req, C> fmt::Debug for KeyedResponseFuture<S, Req, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedResponseFuture").finish_non_exhaustive()
    }
}
