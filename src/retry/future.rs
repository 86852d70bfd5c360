//! The response future: attempts, and the sleeps between them.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::Service;

use super::{
    cost::RetryCost,
    resend::Resend,
    spare::Spare,
    state::{Asks, Course, Rules},
};
use crate::{
    budget,
    outcome::{Classify, Outcome},
    time,
};

pin_project! {
    /// The answer of a [`Retry`](super::Retry).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, C, R, K, B>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, S::Future>,
        // `None` when the request cannot be sent again, or no further attempt is allowed.
        copy: Option<Req>,
        spare: Spare<S>,
        rules: Rules<C, R, K>,
        delays: B,
        course: Course,
        // The budget's number, or 0.
        budget: u64,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F> {
        Calling {
            #[pin]
            inner: F,
        },
        Sleeping {
            sleep: Pin<Box<Sleep>>,
        },
        Readying {
            service: S,
        },
        Over,
    }
}

impl<S: Service<Req>, Req, C, R, K, B> ResponseFuture<S, Req, C, R, K, B> {
    #[inline]
    pub(super) const fn new(
        inner: S::Future,
        copy: Option<Req>,
        spare: Spare<S>,
        rules: Rules<C, R, K>,
        delays: B,
        course: Course,
        budget: u64,
    ) -> Self {
        Self { state: State::Calling { inner }, copy, spare, rules, delays, course, budget }
    }
}

impl<S, Req, C, R, K, B> Future for ResponseFuture<S, Req, C, R, K, B>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
    R: Resend<Req>,
    K: RetryCost<S::Response, S::Error>,
    B: Iterator<Item = Duration>,
{
    type Output = Result<S::Response, S::Error>;

    /// The way of a call that does not fail. Each arm owns its part: an answer that met the others in one variable would be moved about.
    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        // What retries inside, on the same budget, is part of this call and no call of its own.
        let _entered = (*this.budget != 0).then(|| budget::enter(*this.budget));
        let StateProj::Calling { inner } = this.state.project() else {
            return self.go_on(None, cx);
        };
        if this.course.has_limit() {
            return self.go_on(None, cx);
        }
        match inner.poll(cx) {
            Poll::Pending => {
                this.course.pending();
                Poll::Pending
            }
            Poll::Ready(Ok(response)) => match this.rules.classify.classify(Ok(&response)) {
                Outcome::Success if this.course.is_fresh() => Poll::Ready(Ok(response)),
                outcome => self.go_on(Some((Ok(response), outcome)), cx),
            },
            Poll::Ready(Err(error)) => {
                let outcome = this.rules.classify.classify(Err(&error));
                self.go_on(Some((Err(error), outcome)), cx)
            }
        }
    }
}

impl<S, Req, C, R, K, B> ResponseFuture<S, Req, C, R, K, B>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
    R: Resend<Req>,
    K: RetryCost<S::Response, S::Error>,
    B: Iterator<Item = Duration>,
{
    /// The way of all others. `ended` is what has become of an attempt, and what that means.
    #[cold]
    #[inline(never)]
    fn go_on(
        mut self: Pin<&mut Self>,
        mut ended: Option<(Result<S::Response, S::Error>, Outcome)>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, S::Error>> {
        let mut this = self.as_mut().project();
        loop {
            if let Some((result, outcome)) = ended.take() {
                let (rules, copy) = (&*this.rules, &*this.copy);
                let asks = Asks {
                    can_resend: || copy.as_ref().is_some_and(|copy| rules.resend.can_resend(copy)),
                    delay: || this.delays.next(),
                    cost: || rules.cost.cost(result.as_ref()),
                };
                // Without a timer nobody could wake the caller.
                let Some(sleep) = this.course.end_attempt(outcome, asks).and_then(time::sleep) else {
                    this.state.set(State::Over);
                    return Poll::Ready(result);
                };
                // Nothing of the attempt is left while it sleeps: no permit, no connection, no answer.
                this.state.set(State::Sleeping { sleep });
            }
            let result = match this.state.as_mut().project() {
                StateProj::Calling { inner } => match this.course.poll(|| inner.poll(cx)) {
                    Poll::Ready(result) => result,
                    Poll::Pending => {
                        this.course.pending();
                        return Poll::Pending;
                    }
                },
                StateProj::Sleeping { sleep } => {
                    ready!(sleep.as_mut().poll(cx));
                    let service = this.spare.service();
                    this.state.set(State::Readying { service });
                    continue;
                }
                StateProj::Readying { service } => match ready!(this.course.poll(|| service.poll_ready(cx))) {
                    Ok(()) => {
                        let Some(mut request) = this.copy.take() else {
                            unreachable!("it gets ready only to try again")
                        };
                        let goes_on = this.course.goes_on();
                        let attempt = this.course.begin_attempt();
                        this.rules.resend.prepare(&mut request, attempt);
                        if goes_on {
                            *this.copy = this.rules.resend.copy(&request);
                        }
                        let inner = service.call(request);
                        this.state.set(State::Calling { inner });
                        continue;
                    }
                    // An attempt that found no service is one that failed.
                    Err(error) => {
                        this.course.begin_attempt();
                        Err(error)
                    }
                },
                StateProj::Over => panic!("polled after it was ready"),
            };
            let outcome = this.rules.classify.classify(result.as_ref());
            ended = Some((result, outcome));
        }
    }
}

impl<S: Service<Req>, Req, C, R, K, B> fmt::Debug for ResponseFuture<S, Req, C, R, K, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
