//! Health over HTTP, as a plain service.

use std::{
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use tower::Service;

use super::Health;

/// Answers `/health/live`, `/health/ready`, `/metrics.json` and, if it is told how, `/metrics`. See the [module docs](super).
#[derive(Clone)]
pub struct HealthService {
    health: Health,
    render: Option<Arc<dyn Fn() -> String + Send + Sync>>,
}

/// A body in one piece.
#[derive(Clone, Debug)]
pub struct HealthBody(Option<Bytes>);

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

impl HealthService {
    pub(super) const fn new(health: Health) -> Self {
        Self { health, render: None }
    }

    /// What `/metrics` answers, in the text format of Prometheus: mostly `move || handle.render()`. Defaults to not found.
    #[must_use]
    pub fn metrics(self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { render: Some(Arc::new(render)), ..self }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<HealthBody> {
        if method != Method::GET && method != Method::HEAD {
            let mut response = bare(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let report = |key| {
            let report = self.health.report();
            let status = if report[key] == true { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (status, JSON, report.to_string())
        };
        let (status, content_type, text) = match (path, &self.render) {
            ("/health/live", _) => report("live"),
            ("/health/ready", _) => report("ready"),
            ("/metrics.json", _) => (StatusCode::OK, JSON, self.health.metrics().to_string()),
            ("/metrics", Some(render)) => (StatusCode::OK, PROMETHEUS, render()),
            _ => return bare(StatusCode::NOT_FOUND),
        };
        let mut response = bare(status);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if method == Method::GET {
            *response.body_mut() = HealthBody(Some(text.into()));
        }
        response
    }
}

fn bare(status: StatusCode) -> Response<HealthBody> {
    let mut response = Response::new(HealthBody(None));
    *response.status_mut() = status;
    response
}

impl<B> Service<Request<B>> for HealthService {
    type Response = Response<HealthBody>;
    type Error = Infallible;
    type Future = Ready<Result<Response<HealthBody>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.answer(request.method(), request.uri().path())))
    }
}

impl fmt::Debug for HealthService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthService").field("health", &self.health).finish_non_exhaustive()
    }
}

impl Body for HealthBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
