//! A client, a server and a wire: a server that fails the first time and echoes afterwards.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{body::Body, extract::Request, response::IntoResponse};
use buttress::{
    Classify, Outcome,
    http::{ByStatus, Idempotent, ReplayBody},
    retry::Resend,
};
use bytes::Bytes;
use futures::stream;
use http::{StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, StreamBody};
use hyper_util::{client::legacy, rt::TokioExecutor};

const LIMIT: usize = 64 * 1024;

/// Reads so many frames before it fails.
async fn server(frames: usize) -> (String, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let echo = async move |request: Request| {
        let mut body = request.into_body();
        if counted.fetch_add(1, Ordering::Relaxed) == 0 {
            for _ in 0..frames {
                if body.frame().await.is_none() {
                    break;
                }
            }
            return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "0")]).into_response();
        }
        body.collect().await.unwrap().to_bytes().into_response()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, axum::Router::new().fallback(echo)).await });
    (uri, calls)
}

/// The least retry there is.
async fn at_most_twice(uri: &str, body: Body) -> (StatusCode, Bytes) {
    let client = legacy::Client::builder(TokioExecutor::new()).build_http();
    let request = http::Request::put(uri).body(ReplayBody::new(body, LIMIT)).unwrap();
    let copy = Idempotent::new().copy(&request);
    let mut result = client.request(request).await.map_err(buttress::Error::Service);
    if let Some(copy) = copy
        && let Outcome::Transient { .. } = ByStatus::new().classify(result.as_ref())
        && Idempotent::new().can_resend(&copy)
    {
        drop(result);
        result = client.request(copy).await.map_err(buttress::Error::Service);
    }
    let response = result.unwrap();
    (response.status(), response.into_body().collect().await.unwrap().to_bytes())
}

fn content(length: usize) -> Bytes {
    (0..length).map(|i| (i % 251) as u8).collect()
}

fn streamed(content: &Bytes) -> Body {
    let frames: Vec<_> =
        content.chunks(1000).map(|chunk| Ok::<_, buttress::BoxError>(Bytes::copy_from_slice(chunk))).collect();
    Body::new(StreamBody::new(stream::iter(frames.into_iter().map(|chunk| chunk.map(http_body::Frame::data)))))
}

#[tokio::test]
async fn the_second_attempt_sends_every_byte_once() {
    for length in [0, 1, 999, 20_000, LIMIT] {
        for body in [Body::from(content(length)), streamed(&content(length))] {
            let (uri, calls) = server(1).await;
            let (status, echoed) = at_most_twice(&uri, body).await;
            assert_eq!(status, StatusCode::OK, "{length}");
            assert_eq!(echoed, content(length), "{length}");
            assert_eq!(calls.load(Ordering::Relaxed), 2, "{length}");
        }
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_not_sent_a_second_time() {
    for body in [Body::from(content(LIMIT + 1)), streamed(&content(LIMIT + 1))] {
        let (uri, calls) = server(usize::MAX).await;
        assert_eq!(at_most_twice(&uri, body).await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}
