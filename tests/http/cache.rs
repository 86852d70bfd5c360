//! Responses in a cache.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use buttress::{
    BoxError,
    cache::{CacheLayer, CacheSettings},
    http::{ByStatus, CacheStatusHeader, CollectError, CollectLayer},
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tower::{ServiceBuilder, ServiceExt, service_fn};

/// A body in parts, which cannot be cloned.
struct Parts {
    frames: VecDeque<Result<Frame<Bytes>, BoxError>>,
    says: u64,
}

impl Parts {
    fn of(frames: impl IntoIterator<Item = &'static str>) -> Self {
        let frames = frames.into_iter().map(|part| Ok(Frame::data(Bytes::from(part)))).collect();
        Self { frames, says: 0 }
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.frames.pop_front())
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.says);
        hint
    }
}

async fn collect(limit: usize, body: impl FnOnce() -> Parts + Clone) -> Result<Response<Bytes>, BoxError> {
    let client = service_fn(move |()| {
        let body = body.clone();
        async move { Ok::<_, BoxError>(Response::builder().status(203).header("x-kept", "yes").body(body())?) }
    });
    ServiceBuilder::new().layer(CollectLayer::new(limit)).service(client).oneshot(()).await
}

#[tokio::test]
async fn a_body_is_read_to_its_end_within_the_limit() {
    let response = collect(6, || Parts::of(["ab", "", "cdef"])).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["x-kept"]), (203, &"yes".parse().unwrap()));
    assert_eq!(response.body(), "abcdef");
    let error = collect(5, || Parts::of(["ab", "", "cdef"])).await.unwrap_err();
    assert_eq!(error.to_string(), "the body is longer than 5 bytes");
    assert_eq!(collect(0, || Parts::of([])).await.unwrap().body(), "");
}

#[tokio::test]
async fn a_body_that_says_that_it_is_longer_is_not_read() {
    let body = || Parts { frames: [Err("it was read".into())].into(), says: 7 };
    let error = collect(6, body).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(CollectError::TooLong { limit: 6, .. })));
    let error = collect(7, body).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(CollectError::Body(_))));
}

#[tokio::test]
async fn trailers_are_left_out() {
    let body = || {
        let mut body = Parts::of(["ab"]);
        body.frames.push_back(Ok(Frame::trailers(HeaderMap::new())));
        body
    };
    assert_eq!(collect(2, body).await.unwrap().body(), "ab");
}

/// aspnetcore_66877_truncated_responses_are_cached
#[tokio::test]
async fn a_response_with_a_body_is_kept_and_says_so_and_half_a_body_is_not() {
    let layer = CacheLayer::new(CacheSettings::new().jitter(0.0), |request: &Request<Full<Bytes>>| {
        (request.method() == "GET").then(|| request.uri().path().to_owned())
    });
    let handle = layer.handle();
    let client = service_fn(async |request: Request<Full<Bytes>>| {
        let mut body = Parts::of(["ab", "cd"]);
        if request.uri().path() == "/broken" {
            body.frames.push_back(Err("reset".into()));
        }
        let status = if request.uri().path() == "/down" { 503 } else { 200 };
        Ok::<_, BoxError>(Response::builder().status(status).body(body)?)
    });
    let stack = ServiceBuilder::new()
        .layer(layer.classify(ByStatus::new()).tell(CacheStatusHeader::new("shop")))
        .layer(CollectLayer::new(1024))
        .service(client);
    let ask = async |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).body(Full::default()).unwrap();
        let response = stack.clone().oneshot(request).await?;
        assert_eq!(response.body(), "abcd");
        Ok::<_, BoxError>(response.headers()["cache-status"].to_str()?.to_owned())
    };
    assert_eq!(ask("GET", "/").await.unwrap(), "shop; fwd=miss; stored");
    assert!(ask("GET", "/").await.unwrap().starts_with("shop; hit; ttl="));
    assert_eq!(ask("POST", "/").await.unwrap(), "shop; fwd=bypass");
    assert!(ask("GET", "/broken").await.is_err());
    assert_eq!(ask("GET", "/down").await.unwrap(), "shop; fwd=miss");
    assert_eq!(handle.stats().entries, 1);
}
