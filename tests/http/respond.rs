//! A server whose refusals are responses.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
    response::IntoResponse,
    routing::get,
};
use buttress::{
    BoxError, DeadlineLayer, Error, Reason, Rejected,
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings},
    http::{ByStatus, ClientKeys, NoBody, Problem, RateLimitHeaders, RespondWith, grpc_timeout, respond},
    rate_limit::{Quota, RateLimitLayer, RateLimitSettings},
    timeout::TimeoutLayer,
};
use bytes::Bytes;
use futures::task::noop_waker_ref;
use http::{Extensions, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, layer::layer_fn, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const DAILY: RateLimitSettings = RateLimitSettings::token_bucket(Quota::per_day(2)).name("per \"day\"");

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async { axum::serve(listener, service).await });
    uri
}

/// The status, the headers by name, and the body, as a client sees them.
async fn fetch(uri: &str, headers: &[(&str, &str)]) -> (u16, impl Fn(&str) -> Option<String>, String) {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut request = http::Request::get(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, body) = client.request(request.body(Empty::new()).unwrap()).await.unwrap().into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap();
    let header = move |name: &str| Some(parts.headers.get(name)?.to_str().unwrap().to_owned());
    (parts.status.as_u16(), header, body)
}

/// tower_governor_retry_after_is_zero
#[tokio::test]
async fn a_client_over_its_quota_reads_what_to_do_about_it() {
    let limit = RateLimitLayer::new(DAILY);
    let layers = ServiceBuilder::new().layer(limit).layer(TimeoutLayer::new(10 * SECOND));
    let uri = serve(Router::new().route("/", get(async || "hello")).layer(respond(layers))).await;
    for _ in 0..2 {
        let (status, header, body) = fetch(&uri, &[]).await;
        assert_eq!((status, header("retry-after"), &*body), (200, None, "hello"));
    }
    let (status, header, body) = fetch(&uri, &[]).await;
    let wait: u64 = header("retry-after").unwrap().parse().unwrap();
    assert_eq!(status, 429);
    assert!((43_000..=43_200).contains(&wait), "{wait}");
    assert_eq!(header("ratelimit").unwrap(), format!(r#""per \"day\"";r=0;t={wait}"#));
    assert_eq!(header("content-type").unwrap(), "application/problem+json");
    assert_eq!(
        body,
        r#"{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"the quota is used up","status":429,"violated-policies":["per \"day\""]}"#
    );
}

#[tokio::test]
async fn an_admitted_client_reads_what_is_left() {
    let settings = RateLimitSettings::sliding_log(Quota::per_day(10)).name("daily");
    let limit = RateLimitLayer::new(settings).cost(|_: &Request| 3).after(RateLimitHeaders::new().legacy());
    let uri = serve(Router::new().fallback(async || "hello").layer(respond(limit))).await;
    let (_, header, _) = fetch(&uri, &[]).await;
    assert_eq!(header("ratelimit-policy").unwrap(), r#""daily";q=10;w=86400"#);
    assert_eq!(header("ratelimit").unwrap(), r#""daily";r=7;t=60480"#);
    assert_eq!(header("x-ratelimit-limit").unwrap(), "10");
    assert_eq!(header("x-ratelimit-remaining").unwrap(), "7");
    assert_eq!(header("x-ratelimit-reset").unwrap(), "60480");
}

/// The limit is the test's own: what is tested is who is who.
#[tokio::test]
async fn clients_behind_a_proxy_are_told_apart_and_cannot_choose() {
    let peer = |extensions: &Extensions| Some(extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip());
    let clients = ClientKeys::new(peer).trust(["127.0.0.0/8".parse().unwrap()]);
    let whoami = async move |request: Request| clients.key(&request).address().to_string();
    let uri = serve(Router::new().fallback(whoami)).await;
    let rows: [(&[(&str, &str)], &str); 5] = [
        (&[], "127.0.0.1"),
        (&[("x-forwarded-for", "203.0.113.7")], "203.0.113.7"),
        (&[("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "2001:db8:0:1::9")], "2001:db8:0:1::"),
        (&[("forwarded", "for=198.51.100.1"), ("x-forwarded-for", "203.0.113.7")], "203.0.113.7"),
        (&[("x-forwarded-for", "198.51.100.1, \u{ff}\u{fe}")], "127.0.0.1"),
    ];
    for (headers, expected) in rows {
        assert_eq!(fetch(&uri, headers).await.2, expected, "{headers:?}");
    }
}

/// A layer that refuses everything for this reason.
fn refuses(reason: Reason) -> impl Clone + Layer<Unused, Service = Refusing> {
    layer_fn(move |_: Unused| Refusing { rejected: Rejected::new("test", reason), ready: true })
}

type Handler =
    tower::util::ServiceFn<fn(http::Request<Body>) -> std::future::Ready<Result<Response<Body>, Infallible>>>;
type Unused = buttress::http::Fallible<Handler>;

fn handler() -> Handler {
    service_fn(|_| std::future::ready(Ok(Response::new(Body::empty()))))
}

/// Refuses when it is called, or already when it is asked whether it is ready.
#[derive(Clone)]
struct Refusing {
    rejected: Rejected,
    ready: bool,
}

impl Service<http::Request<Body>> for Refusing {
    type Response = Response<Body>;
    type Error = Error<Infallible>;
    type Future = std::future::Ready<Result<Response<Body>, Error<Infallible>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error<Infallible>>> {
        Poll::Ready(if self.ready { Ok(()) } else { Err(self.rejected.into()) })
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        assert!(self.ready, "called without readiness");
        std::future::ready(Err(self.rejected.into()))
    }
}

fn request() -> http::Request<Body> {
    http::Request::new(Body::empty())
}

async fn body(response: Response<Body>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

/// The table of the chapter, over axum's body.
#[tokio::test]
async fn every_reason_has_its_status() {
    let rows = [
        (Reason::RateLimited, 429),
        (Reason::CostTooHigh, 413),
        (Reason::LimitUnknown, 503),
        (Reason::BulkheadFull, 503),
        (Reason::Overloaded, 503),
        (Reason::LoadFailed(buttress::LoadFailure::Transient), 503),
        (Reason::TimedOut, 504),
        (Reason::DeadlineExceeded, 504),
    ];
    for (reason, status) in rows {
        let Ok(response) = respond(refuses(reason)).layer(handler()).oneshot(request()).await;
        assert_eq!(response.status(), status, "{reason}");
        assert!(!body(response).await.is_empty());
        let Ok(response) = respond(refuses(reason)).with(NoBody).layer(handler()).oneshot(request()).await;
        assert_eq!(response.status(), status, "{reason}");
        assert!(body(response).await.is_empty());
    }
}

#[tokio::test]
async fn a_closure_makes_another_response() {
    let with = |rejected: Rejected| {
        let mut response: Response<Body> = Problem.response(rejected);
        if rejected.reason() == Reason::CostTooHigh {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        }
        response.headers_mut().insert("x-refused-by", rejected.policy().parse().unwrap());
        response
    };
    for (reason, status) in [(Reason::CostTooHigh, 429), (Reason::TimedOut, 504)] {
        let Ok(response) = respond(refuses(reason)).with(with).layer(handler()).oneshot(request()).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["x-refused-by"]),
            (status, &"test".parse().unwrap())
        );
    }
}

/// tower_pr_855_error_in_poll_ready_kills_a_buffer
#[tokio::test]
async fn a_refusal_of_readiness_is_the_answer_of_the_next_call_and_of_no_other() {
    let mut service =
        respond(layer_fn(|_: Unused| Refusing { rejected: Rejected::new("test", Reason::Overloaded), ready: false }))
            .layer(handler());
    for _ in 0..3 {
        let Ok(response) = service.ready().await.unwrap().call(request()).await;
        assert_eq!(response.status(), 503);
    }
    // The refusal belongs to the readiness, so neither a later one nor a clone has it.
    let Ok(_) = service.ready().await;
    let mut clone = service.clone();
    for service in [&mut clone, &mut service] {
        service.get_mut().ready = true;
        service.get_mut().rejected = Rejected::new("test", Reason::TimedOut);
        let Ok(response) = service.ready().await.unwrap().call(request()).await;
        assert_eq!(response.status(), 504);
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_that_is_pending_stays_pending_and_its_place_comes_back() {
    let hangs = service_fn(async |_: http::Request<Body>| {
        tokio::time::sleep(SECOND).await;
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let one = tower::limit::ConcurrencyLimit::new(hangs, 1);
    let layers = ServiceBuilder::new().layer(TimeoutLayer::new(Duration::from_millis(100)));
    let service = respond(layers).layer(one);
    let (mut first, mut second) = (service.clone(), service.clone());
    let mut cx = Context::from_waker(noop_waker_ref());
    assert!(first.poll_ready(&mut cx).is_ready());
    assert!(second.poll_ready(&mut cx).is_pending());
    {
        let mut cancelled = pin!(first.call(request()));
        assert!(cancelled.as_mut().poll(&mut cx).is_pending());
        assert!(second.poll_ready(&mut cx).is_pending());
    }
    assert!(second.poll_ready(&mut cx).is_ready(), "a dropped call keeps its place");
    let Ok(response) = second.call(request()).await;
    assert_eq!(response.status(), 504);
    // The place came back with the refusal.
    let Ok(response) = service.oneshot(request()).await;
    assert_eq!(response.status(), 504);
}

/// As in the chapter, around an axum router, with every layer that there is.
#[tokio::test(start_paused = true)]
async fn a_router_answers_for_its_whole_stack() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let route = async move |request: Request| match request.uri().path() {
        "/slow" => std::future::pending().await,
        "/fails" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => counted.fetch_add(1, Ordering::SeqCst).to_string().into_response(),
    };
    let classify = ByStatus::new().transient(StatusCode::INTERNAL_SERVER_ERROR);
    let cost = |request: &Request| if request.uri().path() == "/costly" { 1_000 } else { 1 };
    let layers = ServiceBuilder::new()
        .layer(DeadlineLayer::from_request(grpc_timeout::<Body>))
        .layer(CircuitBreakerLayer::new(CircuitBreakerSettings::consecutive_failures(2)).classify(classify))
        .layer(RateLimitLayer::new(RateLimitSettings::token_bucket(Quota::per_second(100))).cost(cost))
        .layer(TimeoutLayer::new(5 * SECOND));
    let router = Router::new().fallback(route).layer(respond(layers));
    let fetch = async |path: &str, timeout: &str| {
        let request = http::Request::get(path).header("grpc-timeout", timeout).body(Body::empty()).unwrap();
        let Ok(response) = router.clone().oneshot(request).await;
        let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), retry_after)
    };
    assert_eq!(fetch("/", "1H").await, (200, None));
    assert_eq!(fetch("/costly", "1H").await, (413, None));
    assert_eq!(fetch("/slow", "100m").await, (504, None));
    assert_eq!(fetch("/slow", "1H").await, (504, None));
    assert_eq!(fetch("/fails", "1H").await, (500, None));
    assert_eq!(fetch("/", "1H").await, (503, Some("60".to_owned())));
    tokio::time::advance(Duration::from_millis(100)).await;
    assert_eq!(fetch("/", "1H").await, (503, Some("60".to_owned())), "59.9 s are 60");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_layer_that_boxes_errors_needs_one_line() {
    let find = |error: BoxError| -> Error<Infallible> {
        Rejected::find(&*error).unwrap_or(Rejected::new("server", Reason::Overloaded)).into()
    };
    let layers = ServiceBuilder::new().map_err(find).load_shed().concurrency_limit(1);
    let handler =
        service_fn(async |request: http::Request<Full<Bytes>>| Ok::<_, Infallible>(Response::new(request.into_body())));
    let service = respond(layers).layer(handler);
    let (mut first, mut second) = (service.clone(), service);
    let held = first.ready().await.unwrap().call(http::Request::new(Full::from("held")));
    let Ok(refused) = second.ready().await.unwrap().call(http::Request::new(Full::from("refused"))).await;
    assert_eq!(refused.status(), 503);
    let Ok(answer) = held.await;
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "held");
}

/// A peer without an address, such as a Unix socket, is one client to all.
#[test]
fn a_connection_without_a_peer_has_a_key() {
    let clients = ClientKeys::new(|_: &Extensions| None::<IpAddr>);
    assert_eq!(clients.key(&request()), buttress::http::ClientKey::UNKNOWN);
}
