//! A server that obeys the deadline of its callers.

use std::time::Duration;

use axum::{body::Body, routing::get};
use buttress::{
    Deadline, DeadlineLayer,
    http::{grpc_timeout, timeout_millis},
};
use http::{HeaderName, Request};
use http_body_util::BodyExt;
use tower::ServiceExt;

async fn left() -> String {
    Deadline::current().map_or_else(|| "none".to_owned(), |deadline| deadline.remaining().as_millis().to_string())
}

/// The handler's error stays `Infallible`, because setting a deadline refuses nothing.
#[tokio::test(start_paused = true)]
async fn a_handler_knows_how_long_its_caller_waits() {
    let expected = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
    let router = axum::Router::new()
        .route("/", get(left))
        .layer(DeadlineLayer::from_request(timeout_millis::<Body>(expected)))
        .layer(DeadlineLayer::from_request(grpc_timeout::<Body>))
        .layer(DeadlineLayer::new(Duration::from_secs(10)));
    for (header, value, expected) in [
        ("grpc-timeout", "250m", "250"),
        ("grpc-timeout", "1H", "10000"),
        ("x-envoy-expected-rq-timeout-ms", "300", "300"),
        ("grpc-timeout", "nonsense", "10000"),
        ("x-other", "1", "10000"),
    ] {
        let request = Request::get("/").header(header, value).body(Body::empty()).unwrap();
        let body = router.clone().oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, expected, "{header}: {value}");
    }
}
