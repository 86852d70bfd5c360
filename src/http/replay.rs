//! The layer that makes a body replayable.

use std::task::{Context, Poll};

use http::Request;
use http_body::Body;
use tower::{Layer, Service};

use super::replay_body::ReplayBody;

/// Makes the body of each request replayable. Goes outside the retry. See the
/// [chapter](super#a-body-that-is-read-once).
#[derive(Clone, Copy, Debug)]
pub struct ReplayLayer {
    limit: usize,
}

/// Makes the body of each request replayable. See the [chapter](super#a-body-that-is-read-once).
#[derive(Clone, Copy, Debug)]
pub struct Replay<S> {
    inner: S,
    limit: usize,
}

impl ReplayLayer {
    /// Keeps at most this many bytes of each body. A longer one is sent once only.
    #[must_use]
    pub const fn new(limit_bytes: usize) -> Self {
        Self { limit: limit_bytes }
    }
}

impl<S> Layer<S> for ReplayLayer {
    type Service = Replay<S>;

    fn layer(&self, inner: S) -> Replay<S> {
        Replay { inner, limit: self.limit }
    }
}

crate::macros::inner_accessors!(Replay<S>);

impl<S, B> Service<Request<B>> for Replay<S>
where
    S: Service<Request<ReplayBody<B>>>,
    B: Body,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> S::Future {
        self.inner.call(request.map(|body| ReplayBody::new(body, self.limit)))
    }
}
