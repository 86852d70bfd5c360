//! A real client, a real server and a wire: a server that fails the first time and echoes afterwards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, extract::Request, response::IntoResponse};
use buttress::{
    AsRejected, DeadlineLayer, Reason, StampDeadlineLayer,
    http::{ByStatus, Idempotent, ReplayBody, ReplayLayer, grpc_timeout, set_grpc_timeout},
    retry::{Backoff, RetryLayer, RetrySettings},
    timeout::TimeoutLayer,
};
use bytes::Bytes;
use futures::stream;
use http::{Method, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, StreamBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::Instant;
use tower::{ServiceBuilder, ServiceExt};

const LIMIT: usize = 64 * 1024;
const MS: Duration = Duration::from_millis(1);

type Http = Client<HttpConnector, ReplayBody<Body>>;
type Answer = Result<(StatusCode, Bytes), buttress::BoxError>;

struct Server {
    uri: String,
    calls: Arc<AtomicUsize>,
}

impl Server {
    /// Reads so many frames of its first call before it fails it.
    async fn fails_once(status: StatusCode, frames: usize, retry_after: &'static str) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let echo = async move |request: Request| {
            let mut body = request.into_body();
            if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                for _ in 0..frames {
                    if body.frame().await.is_none() {
                        break;
                    }
                }
                return (status, [(RETRY_AFTER, retry_after)]).into_response();
            }
            body.collect().await.unwrap().to_bytes().into_response()
        };
        Self::serve(axum::Router::new().fallback(echo), calls).await
    }

    async fn serve(router: axum::Router, calls: Arc<AtomicUsize>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router).await });
        Self { uri, calls }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn request(&self, method: Method, body: Body) -> http::Request<Body> {
        http::Request::builder().method(method).uri(&self.uri).body(body).unwrap()
    }
}

/// As the chapter has it, around hyper's client.
async fn send(request: http::Request<Body>) -> Answer {
    let client: Http = Client::builder(TokioExecutor::new()).build_http();
    let retry = RetryLayer::new(RetrySettings::new().backoff(Backoff::constant(5 * MS)))
        .classify(ByStatus::new())
        .resend(Idempotent::new());
    let stack = ServiceBuilder::new()
        .layer(ReplayLayer::new(LIMIT))
        .layer(retry)
        .layer(TimeoutLayer::new(Duration::from_secs(30)))
        .map_err(buttress::Error::Service)
        .service(client);
    buttress::check::<http::Request<Body>, _>(&stack);
    let response = stack.oneshot(request).await?;
    Ok((response.status(), response.into_body().collect().await?.to_bytes()))
}

fn content(length: usize) -> Bytes {
    (0..length).map(|i| (i % 251) as u8).collect()
}

fn streamed(content: &Bytes) -> Body {
    let frames: Vec<_> =
        content.chunks(1000).map(|chunk| Ok::<_, buttress::BoxError>(Bytes::copy_from_slice(chunk))).collect();
    Body::new(StreamBody::new(stream::iter(frames.into_iter().map(|chunk| chunk.map(http_body::Frame::data)))))
}

/// failsafe_go_73_empty_body_on_retry, linkerd2_proxy_4621_bytes_duplicated
#[tokio::test]
async fn the_second_attempt_sends_every_byte_once() {
    for length in [0, 1, 999, 20_000, LIMIT] {
        for body in [Body::from(content(length)), streamed(&content(length))] {
            let server = Server::fails_once(StatusCode::SERVICE_UNAVAILABLE, 1, "0").await;
            let (status, echoed) = send(server.request(Method::PUT, body)).await.unwrap();
            assert_eq!((status, server.calls()), (StatusCode::OK, 2), "{length}");
            assert_eq!(echoed, content(length), "{length}");
        }
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_delivered_once_and_not_sent_again() {
    for body in [Body::from(content(LIMIT + 1)), streamed(&content(LIMIT + 1))] {
        let server = Server::fails_once(StatusCode::SERVICE_UNAVAILABLE, usize::MAX, "0").await;
        let (status, _) = send(server.request(Method::PUT, body)).await.unwrap();
        assert_eq!((status, server.calls()), (StatusCode::SERVICE_UNAVAILABLE, 1));
    }
}

/// The client's connection goes on sending the first attempt, for the server goes on reading it.
#[tokio::test]
async fn a_server_that_answers_early_and_reads_on_does_not_disturb_the_second_attempt() {
    for _ in 0..20 {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let (over, mut is_over) = tokio::sync::mpsc::unbounded_channel();
        let early = async move |request: Request| {
            let mut body = request.into_body();
            if counted.fetch_add(1, Ordering::SeqCst) > 0 {
                return body.collect().await.unwrap().to_bytes().into_response();
            }
            body.frame().await.unwrap().unwrap();
            let over = over.clone();
            tokio::spawn(async move {
                while let Some(Ok(_)) = body.frame().await {
                    tokio::time::sleep(MS).await;
                }
                over.send(()).unwrap();
            });
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "0")]).into_response()
        };
        let server = Server::serve(axum::Router::new().fallback(early), calls).await;
        let slow = stream::unfold(0, async |index| {
            tokio::time::sleep(MS).await;
            let frame = http_body::Frame::data(content(31_000).slice(index * 1000..).slice(..1000));
            (index < 30).then_some((Ok::<_, buttress::BoxError>(frame), index + 1))
        });
        let body = Body::new(StreamBody::new(Box::pin(slow)));
        let (status, echoed) = send(server.request(Method::PUT, body)).await.unwrap();
        assert_eq!((status, server.calls()), (StatusCode::OK, 2));
        assert_eq!(echoed, content(30_000));
        let over = tokio::time::timeout(Duration::from_secs(10), is_over.recv()).await;
        assert!(over.is_ok(), "the first connection hangs");
    }
}

/// hyper_pool_retries_post, rate_limit_redis_251: nothing is executed twice that may not be.
#[tokio::test]
async fn only_idempotent_requests_are_sent_again() {
    let rows = [
        (Method::GET, false, 2),
        (Method::HEAD, false, 2),
        (Method::DELETE, false, 2),
        (Method::POST, false, 1),
        (Method::PATCH, false, 1),
        (Method::POST, true, 2),
    ];
    for (method, key, calls) in rows {
        let server = Server::fails_once(StatusCode::BAD_GATEWAY, 1, "0").await;
        let mut request = server.request(method.clone(), Body::from("once"));
        if key {
            request.headers_mut().insert("idempotency-key", "7".parse().unwrap());
        }
        send(request).await.unwrap();
        assert_eq!(server.calls(), calls, "{method} {key}");
    }
}

#[tokio::test]
async fn the_status_decides_what_is_worth_another_attempt() {
    for (status, calls) in
        [(408, 2), (429, 2), (502, 2), (503, 2), (504, 2), (200, 1), (302, 1), (400, 1), (404, 1), (500, 1), (501, 1)]
    {
        let server = Server::fails_once(StatusCode::from_u16(status).unwrap(), 1, "0").await;
        send(server.request(Method::GET, Body::empty())).await.unwrap();
        assert_eq!(server.calls(), calls, "{status}");
    }
}

/// Not a test of speed: an attempt that comes too early is what it would catch.
#[tokio::test]
async fn the_server_says_when_to_come_back() {
    let in_two_seconds = || {
        let date = std::time::SystemTime::now() + Duration::from_secs(2);
        &*Box::leak(httpdate::fmt_http_date(date).into_boxed_str())
    };
    let rows: [fn() -> &'static str; 2] = [|| "1", in_two_seconds];
    for retry_after in rows {
        let retry_after = retry_after();
        let server = Server::fails_once(StatusCode::TOO_MANY_REQUESTS, 1, retry_after).await;
        let began = Instant::now();
        let (status, _) = send(server.request(Method::GET, Body::empty())).await.unwrap();
        assert_eq!((status, server.calls()), (StatusCode::OK, 2), "{retry_after}");
        // A date has whole seconds, so of two of them at least one is left.
        assert!(began.elapsed() >= Duration::from_millis(900), "{retry_after}: {:?}", began.elapsed());
    }
}

/// The server hears how much time its caller has left.
#[tokio::test]
async fn the_deadline_goes_along_as_a_header_and_ends_the_call() {
    let calls = Arc::new(AtomicUsize::new(0));
    let hang = async |request: Request| {
        let left = grpc_timeout(&request).map_or(Duration::MAX, |left| left);
        if request.method() == Method::GET {
            return format!("{}", left.as_millis()).into_response();
        }
        std::future::pending().await
    };
    let server = Server::serve(axum::Router::new().fallback(hang), calls).await;
    let client: Client<HttpConnector, Body> = Client::builder(TokioExecutor::new()).build_http();
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Duration::from_millis(400)))
        .layer(TimeoutLayer::new(Duration::MAX))
        .layer(StampDeadlineLayer::new(set_grpc_timeout))
        .map_err(buttress::Error::Service)
        .service(client);
    let response = stack.clone().oneshot(server.request(Method::GET, Body::empty())).await.unwrap();
    let left = response.into_body().collect().await.unwrap().to_bytes();
    let left: u64 = std::str::from_utf8(&left).unwrap().parse().unwrap();
    assert!((1..=400).contains(&left), "{left}");
    let error = stack.oneshot(server.request(Method::POST, Body::empty())).await.unwrap_err();
    assert_eq!(error.as_rejected().unwrap().reason(), Reason::DeadlineExceeded);
}
