//! The response future.

use std::{
    fmt,
    hash::Hash,
    panic::resume_unwind,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::{Service, util::Oneshot};

use super::{
    entry::{Content, Entry},
    hooks::{Failures, KeepBy, error_of},
    miss::{Miss, Step},
    status::{CacheStatus, Tell},
    store::Store,
};
use crate::outcome::Classify;

pin_project! {
    /// The answer of a [`Cache`](super::Cache).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, K, St, C, H, M, T>
    where
        S: Service<Req>,
        T: Tell<S::Response>,
    {
        #[pin]
        state: State<S, Req, K, St, C, H, M, T>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Req, K, St, C, H, M, T>
    where
        S: Service<Req>,
        T: Tell<S::Response>,
    {
        // A hit. Nothing when it is over.
        Answered {
            answer: Option<Result<T::Response, S::Error>>,
        },
        // No key.
        Passed {
            #[pin]
            inner: Oneshot<S, Req>,
            tell: T,
        },
        // Boxed because a hit should not be as large.
        Missed {
            miss: Box<Miss<S, Req, K, St, C, H, M>>,
            tell: Option<T>,
        },
    }
}

impl<S, Req, K, St, C, H, M, T> ResponseFuture<S, Req, K, St, C, H, M, T>
where
    S: Service<Req>,
    T: Tell<S::Response>,
{
    #[inline]
    pub(super) const fn answered(answer: Result<T::Response, S::Error>) -> Self {
        Self { state: State::Answered { answer: Some(answer) } }
    }

    pub(super) fn passed(service: S, request: Req, tell: T) -> Self {
        Self { state: State::Passed { inner: Oneshot::new(service, request), tell } }
    }

    pub(super) fn missed(miss: Miss<S, Req, K, St, C, H, M>, tell: T) -> Self {
        Self { state: State::Missed { miss: Box::new(miss), tell: Some(tell) } }
    }
}

impl<S, Req, K, St, C, H, M, T> Future for ResponseFuture<S, Req, K, St, C, H, M, T>
where
    S: Service<Req, Response: Clone + Send + Sync + 'static, Error: Send + 'static, Future: Send + 'static>
        + Send
        + 'static,
    Req: Send + 'static,
    K: Hash + Eq + Clone + Send + Sync + 'static,
    St: Store<K, S::Response>,
    C: Classify<S::Response, S::Error> + Send + 'static,
    H: KeepBy<Req, S::Response> + Send + 'static,
    M: Failures<S::Error> + Clone + Send + 'static,
    T: Tell<S::Response>,
{
    type Output = Result<T::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let answer = match state.as_mut().project() {
                StateProj::Answered { answer } => {
                    return Poll::Ready(answer.take().expect("polled after it was ready"));
                }
                StateProj::Passed { inner, tell } => {
                    let response = ready!(inner.poll(cx));
                    response.map(|response| tell.tell(response, CacheStatus::Bypassed))
                }
                StateProj::Missed { miss, tell } => {
                    let step = ready!(miss.poll(cx));
                    let Some(tell) = tell.take() else { unreachable!("it ends once") };
                    match step {
                        Step::Answer(entry, status) => {
                            miss.count(status);
                            answer(&entry, status, &tell, &miss.failures)
                        }
                        Step::Error(error) => Err(error),
                        Step::Panic(payload) => {
                            state.set(State::Answered { answer: None });
                            resume_unwind(payload)
                        }
                        Step::Pass(service, request) => {
                            miss.count(CacheStatus::Bypassed);
                            state.set(State::Passed { inner: Oneshot::new(service, request), tell });
                            continue;
                        }
                    }
                }
            };
            // What the call held is given back before the caller has its answer.
            state.set(State::Answered { answer: None });
            return Poll::Ready(answer);
        }
    }
}

/// What an entry answers.
#[inline]
pub(super) fn answer<V, E, M, T>(
    entry: &Entry<V>,
    status: CacheStatus,
    tell: &T,
    failures: &M,
) -> Result<T::Response, E>
where
    V: Clone,
    M: Failures<E>,
    T: Tell<V>,
{
    match entry.content() {
        Content::Value(value) => Ok(tell.tell(value.clone(), status)),
        Content::Failure(failure) => Err(error_of(failures, failure)),
    }
}

impl<S, Req, K, St, C, H, M, T> fmt::Debug for ResponseFuture<S, Req, K, St, C, H, M, T>
where
    S: Service<Req>,
    T: Tell<S::Response>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
