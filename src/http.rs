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
//! [`ByStatus::transient`] and [`ByStatus::permanent`], for what is no error status. A panic of the original body
//! passes through, and no later attempt gets that body.
//!
//! # Clone
//!
//! Copies of a [`ReplayBody`] share the body. Nothing else here shares anything.
//!
//! # Cancel safety
//!
//! The body is in an attempt's hands only during a poll, so an attempt can be dropped anywhere.

#[cfg(feature = "cache")]
mod cache_status;
mod collect;
mod digits;
mod grpc_timeout;
mod idempotent;
mod place;
mod reading;
mod replay;
mod replay_body;
mod replay_error;
mod replayable;
mod retry_after;
mod status;
mod tape;
mod timeout_millis;

#[cfg(feature = "cache")]
pub use self::cache_status::CacheStatusHeader;
pub use self::{
    collect::{Collect, CollectError, CollectFuture, CollectLayer},
    grpc_timeout::{grpc_timeout, set_grpc_timeout},
    idempotent::Idempotent,
    replay::{Replay, ReplayLayer},
    replay_body::ReplayBody,
    replay_error::ReplayError,
    replayable::Replayable,
    retry_after::{retry_after, retry_after_header},
    status::ByStatus,
    timeout_millis::{set_timeout_millis, timeout_millis},
};

/// The pure parsers, for the targets in `fuzz/`.
#[doc(hidden)]
pub mod fuzzing {
    pub use super::{
        grpc_timeout::{format as format_grpc_timeout, parse as parse_grpc_timeout},
        retry_after::parse as parse_retry_after,
    };
}
