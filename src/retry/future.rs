//! The response future: attempts, and the sleeps between them.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::Service;

use super::{
    backoff::Backoff,
    cost::RetryCost,
    course::{Asks, Course},
    delays::Delays,
    resend::Resend,
    spare::Spare,
    state::Rules,
};
use crate::{
    budget,
    outcome::{Classify, Outcome},
};

pin_project! {
    /// The answer of a [`Retry`](super::Retry).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, C, R, K, D>
    where
        S: Service<Req>,
        D: Delays,
    {
        #[pin]
        attempt: Attempt<S::Future>,
        // `None` when the request cannot be sent again, or no further attempt is allowed.
        copy: Option<Req>,
        spare: Spare<S>,
        rules: Rules<C, R, K>,
        delays: D,
        course: Course<D::Iter, Between<S, Result<S::Response, S::Error>>>,
    }
}

pin_project! {
    // Apart from what there is between two attempts: over both, a destructor would read a word where a call has just written a byte, and a
    // processor waits for that.
    #[project = AttemptProj]
    enum Attempt<F> {
        // The first, with no total time.
        Plain {
            #[pin]
            inner: F,
        },
        Watched {
            #[pin]
            inner: F,
        },
        None,
    }
}

/// The last result is the answer if the time ends here.
pub(super) enum Between<S, T> {
    Sleeping { sleep: Pin<Box<Sleep>>, last: T },
    Readying { service: S, last: T, end: Option<Pin<Box<Sleep>>> },
}

impl<S: Service<Req>, Req, C, R, K, D: Delays> ResponseFuture<S, Req, C, R, K, D> {
    #[inline(always)]
    pub(super) const fn new(
        inner: S::Future,
        has_limit: bool,
        copy: Option<Req>,
        spare: Spare<S>,
        rules: Rules<C, R, K>,
        delays: D,
        course: Course<D::Iter, Between<S, Result<S::Response, S::Error>>>,
    ) -> Self {
        let attempt = if has_limit { Attempt::Watched { inner } } else { Attempt::Plain { inner } };
        Self { attempt, copy, spare, rules, delays, course }
    }
}

impl<S, Req, C, R, K, D> Future for ResponseFuture<S, Req, C, R, K, D>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
    R: Resend<Req>,
    K: RetryCost<S::Response, S::Error>,
    D: Delays,
{
    type Output = Result<S::Response, S::Error>;

    /// The way of a call that does not fail. Each arm owns its part: an answer that met the others in one variable would be moved about.
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        // What retries inside, on the same budget, is part of this call and no call of its own.
        let _entered = this.course.budget_id().map(budget::enter);
        let AttemptProj::Plain { inner } = this.attempt.project() else {
            return self.go_on(None, cx);
        };
        match inner.poll(cx) {
            Poll::Pending => {
                this.course.pending();
                Poll::Pending
            }
            Poll::Ready(Ok(response)) => match this.rules.classify.classify(Ok(&response)) {
                Outcome::Success => Poll::Ready(Ok(response)),
                outcome => self.go_on(Some((Ok(response), outcome)), cx),
            },
            Poll::Ready(Err(error)) => self.fail(error, cx),
        }
    }
}

impl<S, Req, C, R, K, D> ResponseFuture<S, Req, C, R, K, D>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
    R: Resend<Req>,
    K: RetryCost<S::Response, S::Error>,
    D: Delays,
{
    #[cold]
    #[inline(never)]
    fn fail(self: Pin<&mut Self>, error: S::Error, cx: &mut Context<'_>) -> Poll<Result<S::Response, S::Error>> {
        let outcome = self.rules.classify.classify(Err(&error));
        self.go_on(Some((Err(error), outcome)), cx)
    }

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
                    delays: |backoff: &Backoff| this.delays.begin(backoff),
                    cost: || rules.cost.cost(result.as_ref()),
                };
                let sleep = this.course.end_attempt(outcome, asks);
                // With the inner future goes all that it held.
                this.attempt.set(Attempt::None);
                match sleep {
                    Some(sleep) => this.course.keep(Between::Sleeping { sleep, last: result }),
                    None => return Poll::Ready(result),
                }
            }
            let result = match this.attempt.as_mut().project() {
                AttemptProj::Plain { inner } | AttemptProj::Watched { inner } => {
                    match this.course.poll(|| inner.poll(cx)) {
                        Poll::Ready(result) => result,
                        Poll::Pending => {
                            this.course.pending();
                            return Poll::Pending;
                        }
                    }
                }
                AttemptProj::None => match this.course.take().expect("polled after it was ready") {
                    Between::Sleeping { mut sleep, last } => {
                        if sleep.as_mut().poll(cx).is_pending() {
                            this.course.keep(Between::Sleeping { sleep, last });
                            return Poll::Pending;
                        }
                        // A body may have turned out too long in the meantime.
                        let can_resend = this.copy.as_ref().is_some_and(|copy| this.rules.resend.can_resend(copy));
                        if this.course.is_over(can_resend) {
                            return Poll::Ready(last);
                        }
                        this.course.keep(Between::Readying { service: this.spare.service(), last, end: None });
                        continue;
                    }
                    Between::Readying { mut service, last, mut end } => {
                        let ready = this.course.poll(|| service.poll_ready(cx));
                        if ready.is_pending() {
                            if end.is_none() {
                                end = this.course.until_end();
                            }
                            if end.as_mut().is_none_or(|end| end.as_mut().poll(cx).is_pending()) {
                                this.course.keep(Between::Readying { service, last, end });
                                return Poll::Pending;
                            }
                        }
                        if this.course.is_over(true) {
                            return Poll::Ready(last);
                        }
                        match ready {
                            // The timer was early.
                            Poll::Pending => {
                                this.course.keep(Between::Readying { service, last, end: None });
                                continue;
                            }
                            Poll::Ready(Ok(())) => {
                                let mut request = this.copy.take().expect("it gets ready only to try again");
                                this.rules.resend.prepare(&mut request, this.course.next_attempt());
                                if this.course.goes_on() {
                                    *this.copy = this.rules.resend.copy(&request);
                                }
                                this.course.begin_attempt();
                                let inner = service.call(request);
                                this.attempt.set(Attempt::Watched { inner });
                                continue;
                            }
                            // An attempt that found no service is one that failed.
                            Poll::Ready(Err(error)) => {
                                this.course.begin_attempt();
                                Err(error)
                            }
                        }
                    }
                },
            };
            let outcome = this.rules.classify.classify(result.as_ref());
            ended = Some((result, outcome));
        }
    }
}

impl<S: Service<Req>, Req, C, R, K, D: Delays> fmt::Debug for ResponseFuture<S, Req, C, R, K, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
