//! What HTTP says about failure, repetition and time: for the layers, which know no protocol.
//!
//! | piece | for | what it does |
//! |---|---|---|
//! | [`ByStatus`] | every layer with a classifier | says what an answer means, by its status and `Retry-After` |
//! | [`Idempotent`] | the retry | copies the requests that may be executed twice |
//! | [`ReplayLayer`] | outside the retry | makes a streamed body one that can be sent again |
//! | [`CollectLayer`] | inside a cache | reads bodies to their ends, so that responses can be kept |
//! | `CacheStatusHeader` (with feature `cache`) | a cache | writes `Cache-Status` |
//! | [`grpc_timeout`], [`timeout_millis`] | a deadline | read how much time the caller has left |
//! | [`set_grpc_timeout`], [`set_timeout_millis`] | a client | tell the next hop |
//! | [`respond`] | a server | makes a response of each refusal, around a handler whose error is `Infallible` |
//! | [`RateLimitHeaders`] | a server | tells clients what is left of their quotas |
//! | [`ClientKeys`] | limits per client | finds out who sent a request, past the proxies that you trust |
//! | [`retry_after`], [`retry_after_header`] | classifiers and servers of your own | read and write `Retry-After` |
//!
//! # Examples
//!
//! A client whose requests are sent again where they may be, body and all:
//!
//! ```
//! use buttress::{
//!     http::{ByStatus, Idempotent, ReplayBody, ReplayLayer},
//!     retry::{RetryLayer, RetrySettings},
//! };
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! type Body = ReplayBody<Full<bytes::Bytes>>;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), buttress::BoxError> {
//! // Answers 503 once, with `Retry-After: 2`.
//! let client = service_fn(async |request: Request<Body>| {
//!     let is_first = request.headers().get("x-attempt").is_none();
//!     let body = request.into_body().collect().await?.to_bytes();
//!     let response = Response::builder().status(if is_first { 503 } else { 200 });
//!     Ok::<_, buttress::BoxError>(response.header("retry-after", "2").body(body)?)
//! });
//! let retry = RetryLayer::new(RetrySettings::new())
//!     .classify(ByStatus::new())
//!     .resend(Idempotent::new())
//!     .prepare(|request: &mut Request<Body>, attempt| {
//!         request.headers_mut().insert("x-attempt", attempt.into());
//!     });
//! let stack = ServiceBuilder::new()
//!     .layer(ReplayLayer::new(64 * 1024)) // Outside the retry: it keeps what an attempt has read of the body.
//!     .layer(retry)
//!     .service(client);
//! buttress::check::<Request<Full<bytes::Bytes>>, _>(&stack);
//!
//! let request = Request::put("/orders/7").body(Full::from("two of them"))?;
//! let response = stack.oneshot(request).await?;
//! assert_eq!((response.status().as_u16(), response.into_body()), (200, "two of them".into()));
//! # Ok(())
//! # }
//! ```
//!
//! The caller's time, taken from its header and passed on less what has been spent:
//!
//! ```
//! use std::time::Duration;
//!
//! use buttress::http::{grpc_timeout, set_grpc_timeout, timeout_millis};
//! use http::{HeaderName, Request};
//!
//! let request = Request::builder().header("grpc-timeout", "1500m").body(()).unwrap();
//! let left = grpc_timeout(&request).unwrap();
//! assert_eq!(left, Duration::from_millis(1500));
//!
//! let mut onwards = Request::new(());
//! set_grpc_timeout(&mut onwards, left - Duration::from_millis(300));
//! assert_eq!(onwards.headers()["grpc-timeout"], "1200000u");
//!
//! let expected = timeout_millis(HeaderName::from_static("x-envoy-expected-rq-timeout-ms"));
//! assert_eq!(expected(&onwards), None);
//! ```
//!
//! A server that refuses what is too much. The handler's error stays `Infallible`, as `axum::Router::layer` asks:
//!
//! ```
//! use std::convert::Infallible;
//!
//! use buttress::{
//!     http::respond,
//!     rate_limit::{Quota, RateLimitLayer, RateLimitSettings},
//!     timeout::TimeoutLayer,
//! };
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Infallible> {
//! let greet = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Full::from("hello"))));
//! let layers = ServiceBuilder::new()
//!     .layer(RateLimitLayer::new(RateLimitSettings::token_bucket(Quota::per_minute(1)).name("greetings")))
//!     .layer(TimeoutLayer::new(std::time::Duration::from_secs(10)));
//! let server = ServiceBuilder::new().layer(respond(layers)).service(greet);
//!
//! assert_eq!(server.clone().oneshot(Request::new(())).await?.status(), 200);
//! let refused: Response<Full<Bytes>> = server.oneshot(Request::new(())).await?;
//! assert_eq!(refused.status(), 429);
//! assert_eq!(refused.headers()["retry-after"], "60");
//! assert_eq!(refused.headers()["ratelimit"], r#""greetings";r=0;t=60"#);
//! # Ok(())
//! # }
//! ```
//!
//! What is left of a quota, in the headers of each answer:
//!
//! ```
//! use buttress::{http::{RateLimitHeaders, respond}, rate_limit::{Quota, RateLimitLayer, RateLimitSettings}};
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), std::convert::Infallible> {
//! let settings = RateLimitSettings::token_bucket(Quota::per_minute(60)).name("search");
//! let limit = RateLimitLayer::new(settings).cost(|_: &Request<()>| 20).after(RateLimitHeaders::new());
//! let handler = service_fn(async |_: Request<()>| Ok(Response::new(Bytes::from("found"))));
//! let stack = ServiceBuilder::new().layer(respond(limit)).service(handler);
//! let response = stack.oneshot(Request::new(())).await?;
//! assert_eq!(response.headers()["ratelimit-policy"], r#""search";q=60;w=60"#);
//! assert_eq!(response.headers()["ratelimit"], r#""search";r=40;t=40"#);
//! # Ok(())
//! # }
//! ```
//!
//! Who the client is, behind proxies of yours; in axum the peer is `ConnectInfo<SocketAddr>`:
//!
//! ```
//! use std::net::SocketAddr;
//!
//! use buttress::http::{ClientKeys, IpPrefix};
//! use http::{Extensions, Request};
//!
//! # #[derive(Clone)]
//! struct ConnectInfo(SocketAddr);
//!
//! let proxies: [IpPrefix; 2] = ["10.0.0.0/24".parse()?, "fd00::/64".parse()?];
//! let clients = ClientKeys::new(|extensions: &Extensions| Some(extensions.get::<ConnectInfo>()?.0.ip())).trust(proxies);
//! let key = move |request: &Request<()>| clients.key(request);
//!
//! let from = |peer: &str, forwarded: &str| {
//!     let peer = ConnectInfo(peer.parse().unwrap());
//!     Request::builder().extension(peer).header("x-forwarded-for", forwarded).body(()).unwrap()
//! };
//! let honest = key(&from("10.0.0.7:80", "2001:db8::1"));
//! assert_eq!(key(&from("10.0.0.7:80", "192.0.2.1, 2001:db8::2")), honest, "the same network, and it says what it likes");
//! assert_ne!(key(&from("203.0.113.9:80", "2001:db8::1")), honest, "not one of our proxies");
//! # Ok::<_, buttress::ConfigError>(())
//! ```
//!
//! # Refusals
//!
//! [`respond`] makes a response of what a layer inside refused. It has a [`Problem`] for its body, or [none](NoBody), or is
//! whatever a closure [makes of it](RespondLayer::with), which may begin with one of these.
//!
//! | [`Reason`](crate::Reason) | status | headers |
//! |---|---|---|
//! | `RateLimited` | 429 | `Retry-After`, and `RateLimit` with the name of the limiter |
//! | `CostTooHigh` | 413 | |
//! | `CircuitOpen`, `LimitUnknown`, `BulkheadFull`, `Overloaded`, `LoadFailed` | 503 | `Retry-After`, where the time is known |
//! | `TimedOut`, `DeadlineExceeded` | 504 | `Retry-After`, where the time is known |
//!
//! A request that costs more than its quota ever has at once never passes, so it gets no 429, which clients repeat, but is
//! told to be smaller. Times are rounded up to seconds, and are at least one.
//!
//! A layer that boxes errors, as tower's `LoadShed` does, needs a line outside of it that finds the refusal again:
//!
//! ```
//! # use buttress::{BoxError, Error, Reason, Rejected, http::respond};
//! # use std::convert::Infallible;
//! # use tower::ServiceBuilder;
//! let layers = ServiceBuilder::new()
//!     .map_err(|error: BoxError| -> Error<Infallible> {
//!         Rejected::find(&*error).unwrap_or(Rejected::new("server", Reason::Overloaded)).into()
//!     })
//!     .load_shed()
//!     .concurrency_limit(64);
//! # let server = ServiceBuilder::new().layer(respond(layers)).service_fn(async |_: http::Request<()>| {
//! #     Ok::<_, Infallible>(http::Response::new(bytes::Bytes::new()))
//! # });
//! # buttress::check::<http::Request<()>, _>(&server);
//! ```
//!
//! # Clients by their addresses
//!
//! [`ClientKeys`] takes the peer of the connection for the client, unless you [trust](ClientKeys::trust) it. Then the client
//! is whom the proxy names, on the right of `X-Forwarded-For`, unless you trust that one, and so on to the left. What is
//! left of the first address that you do not trust is the client's own writing, and it has no say, however it is written.
//!
//! * One header is read, the one that your proxies write: `X-Forwarded-For`, or [`Forwarded`](ClientKeys::forwarded).
//! * Where a proxy of yours wrote something else than an address, its own address is the client's.
//! * An IPv4 address mapped into IPv6 is that IPv4 address. Clients with IPv6 are told apart by
//!   [their networks](ClientKeys::ipv6_prefix), because each has more addresses than you have memory.
//!
//! # A body that is read once
//!
//! The body of a request is read while it is sent, so the retry's copy of the request would have none. [`ReplayLayer`]
//! wraps it into a [`ReplayBody`], whose copies share what one of them has read:
//!
//! * An attempt streams: nothing waits for the whole body. What passes is copied, up to the limit, and the next attempt
//!   gets the copy as one frame or a few. The names and values of trailers count, too.
//! * When the next attempt reads, it plays what was kept and goes on with the rest.
//! * Past the limit, what was kept is thrown away and the attempt goes on. There is no other: [`Idempotent`] says so to
//!   the retry. A body that says beforehand that it is longer is never kept.
//! * Nothing is kept of a request that nobody copied, nor during the last attempt.
//! * One attempt reads at a time, and the later one wins. A server may answer before it has read everything, and the
//!   client's connection goes on sending: that ends with [`ReplayError::Superseded`] when the next attempt begins to
//!   read. So this is for a retry and not for a hedge, which has two attempts at once.
//!
//! # A response that is kept
//!
//! A streamed body is read once, so a response that has one cannot be cloned, and a cache clones what it keeps. [`CollectLayer`] goes inside the cache, reads each body
//! to its end, and answers with `Response<Bytes>`, whose clones are cheap. A body that is longer than the limit is a [`CollectError`], in the error of the inner
//! service: a box has it already, and an enum gets one more variant with `#[from]`. Trailers are left out.
//!
//! # Errors
//!
//! A classifier, a parser and a layer of this chapter never fail: what makes no sense in a header counts as no header.
//! [`ReplayBody`] yields the errors of the original body, boxed, and [`ReplayError`] if a copy cannot be read; a client
//! wraps it into an error of its own. The retry prevents this with [`Idempotent`].
//! [`CloneRequest`](crate::retry::CloneRequest) does not ask whether a body can be replayed.
//!
//! # Panics
//!
//! [`ByStatus::transient`] and [`ByStatus::permanent`], for what is no error status; [`ClientKeys::ipv6_prefix`], for what
//! is no length of a prefix. A panic of the original body
//! passes through, and no later attempt gets that body.
//!
//! # Clone
//!
//! Copies of a [`ReplayBody`] share the body, those of [`ClientKeys`] the proxies, and those of [`respond`]'s layer and
//! services whatever the layers inside share. Nothing else here shares anything.
//!
//! # Cancel safety
//!
//! The body is in an attempt's hands only during a poll, so an attempt can be dropped anywhere. [`respond`] holds nothing
//! itself.

#[cfg(feature = "cache")]
mod cache_status;
mod client_key;
mod collect;
mod digits;
mod grpc_timeout;
mod hops;
mod idempotent;
mod ip_prefix;
mod place;
mod rate_limit_headers;
mod reading;
mod refusal;
mod replay;
mod replay_body;
mod replay_error;
mod replayable;
mod respond;
mod retry_after;
mod status;
mod structured;
mod tape;
mod timeout_millis;

#[cfg(feature = "cache")]
pub use self::cache_status::CacheStatusHeader;
pub use self::{
    client_key::{ClientKey, ClientKeys},
    collect::{Collect, CollectError, CollectFuture, CollectLayer},
    grpc_timeout::{grpc_timeout, set_grpc_timeout},
    idempotent::Idempotent,
    ip_prefix::IpPrefix,
    rate_limit_headers::RateLimitHeaders,
    refusal::{NoBody, Problem, RespondWith, refusal_status},
    replay::{Replay, ReplayLayer},
    replay_body::ReplayBody,
    replay_error::ReplayError,
    replayable::Replayable,
    respond::{Fallible, Respond, RespondFuture, RespondLayer, respond},
    retry_after::{retry_after, retry_after_header},
    status::ByStatus,
    timeout_millis::{set_timeout_millis, timeout_millis},
};

/// The pure parsers, for the targets in `fuzz/`.
#[doc(hidden)]
pub mod fuzzing {
    pub use super::{
        grpc_timeout::{format as format_grpc_timeout, parse as parse_grpc_timeout},
        hops::Hops,
        retry_after::parse as parse_retry_after,
    };
}
