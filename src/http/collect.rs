//! Whole bodies, for who keeps answers.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes};
use http::{Response, response::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::error::BoxError;

/// Reads the body of each response to its end, so that the response can be cloned and kept. Goes inside a cache. See the [chapter](super#a-response-that-is-kept).
#[derive(Clone, Copy, Debug)]
pub struct CollectLayer {
    limit: usize,
}

/// Reads the body of each response to its end. See the [chapter](super#a-response-that-is-kept).
#[derive(Clone, Copy, Debug)]
pub struct Collect<S> {
    inner: S,
    limit: usize,
}

/// A body could not be read to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// It is longer than the limit.
    #[error("the body is longer than {limit} bytes")]
    #[non_exhaustive]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// It ended with an error.
    #[error("the body could not be read")]
    Body(#[source] BoxError),
}

pin_project! {
    /// The answer of a [`Collect`].
    #[must_use = "futures do nothing unless polled"]
    pub struct CollectFuture<F, B> {
        #[pin]
        state: State<F, B>,
        limit: usize,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B> {
        Calling {
            #[pin]
            inner: F,
        },
        // Nothing once it is over.
        Collecting {
            parts: Option<Parts>,
            #[pin]
            body: B,
            data: Vec<u8>,
        },
    }
}

impl CollectLayer {
    /// Reads at most this many bytes of each body. A longer one is an error, and nothing of it is kept.
    #[must_use]
    pub const fn new(limit_bytes: usize) -> Self {
        Self { limit: limit_bytes }
    }
}

impl<S> Layer<S> for CollectLayer {
    type Service = Collect<S>;

    fn layer(&self, inner: S) -> Collect<S> {
        Collect { inner, limit: self.limit }
    }
}

crate::macros::inner_accessors!(Collect<S>);

impl<S, Req, B> Service<Req> for Collect<S>
where
    S: Service<Req, Response = Response<B>>,
    S::Error: From<CollectError>,
    B: Body<Error: Into<BoxError>>,
{
    type Response = Response<Bytes>;
    type Error = S::Error;
    type Future = CollectFuture<S::Future, B>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        CollectFuture { state: State::Calling { inner: self.inner.call(request) }, limit: self.limit }
    }
}

impl<F, B, E> Future for CollectFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Error: Into<BoxError>>,
    E: From<CollectError>,
{
    type Output = Result<Response<Bytes>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let limit = *this.limit;
        let too_long = || Poll::Ready(Err(CollectError::TooLong { limit }.into()));
        loop {
            match this.state.as_mut().project() {
                StateProj::Calling { inner } => {
                    let (parts, body) = ready!(inner.poll(cx))?.into_parts();
                    if body.size_hint().lower() > limit as u64 {
                        return too_long();
                    }
                    this.state.set(State::Collecting { parts: Some(parts), body, data: Vec::new() });
                }
                StateProj::Collecting { parts, body, data } => match ready!(body.poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        // Trailers end with the stream that they were for.
                        let Ok(part) = frame.into_data() else { continue };
                        if part.remaining() > limit.saturating_sub(data.len()) {
                            return too_long();
                        }
                        data.put(part);
                    }
                    Some(Err(error)) => return Poll::Ready(Err(CollectError::Body(error.into()).into())),
                    None => {
                        let parts = parts.take().expect("polled after it was ready");
                        // Copied, because a slice holds on to all of what it is a slice of.
                        let data = std::mem::take(data).into_boxed_slice();
                        return Poll::Ready(Ok(Response::from_parts(parts, data.into())));
                    }
                },
            }
        }
    }
}

impl<F, B> fmt::Debug for CollectFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectFuture").finish_non_exhaustive()
    }
}
