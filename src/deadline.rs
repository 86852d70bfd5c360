//! [`Deadline`]: the instant after which the caller no longer wants the answer, carried by the task and obeyed wherever a layer would wait.
//!
//! A caller that waits two seconds gains nothing from a retry that begins in the third, and the dependency loses by it. So the deadline of a
//! call is set once, at its edge, and every layer inside that is about to wait looks at it first:
//!
//! | layer | what it does |
//! |---|---|
//! | retry | never sleeps past it: the last result is the answer |
//! | time-out | ends the attempt at it, if its own limit is later: [`DeadlineExceeded`](crate::Reason::DeadlineExceeded), which is not the dependency's failure |
//!
//! Nothing ends a call at its deadline but a time-out: `TimeoutLayer::new(Duration::MAX)` is one that has no limit of its own. Where nothing waits, nothing is
//! read, and the clock only for a deadline that is an instant already.
//!
//! # Example
//!
//! ```
//! use std::{convert::Infallible, time::Duration};
//! use buttress::{Deadline, DeadlineLayer};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Infallible> {
//! let mut stack = ServiceBuilder::new()
//!     .layer(DeadlineLayer::new(Duration::from_secs(2)))
//!     .service(service_fn(async |_: ()| Ok::<_, Infallible>(Deadline::current().unwrap().remaining())));
//! assert!(stack.ready().await?.call(()).await? <= Duration::from_secs(2));
//! assert_eq!(Deadline::current(), None);
//! # Ok(())
//! # }
//! ```
//!
//! # From a request, and on to the next
//!
//! [`DeadlineLayer::from_request`] asks the request how long its caller waits: a field of its own, or with feature `http` a header such as
//! `grpc-timeout`. [`StampDeadlineLayer`] writes what is left on a request that goes out. Of several deadlines the earliest holds, so a limit of one's own
//! goes around the one of the request.
//!
//! ```
//! use std::{convert::Infallible, time::Duration};
//! use buttress::{DeadlineLayer, StampDeadlineLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! struct Request { timeout: Option<Duration> }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Infallible> {
//! let stack = ServiceBuilder::new()
//!     .layer(DeadlineLayer::new(Duration::from_secs(10))) // Nobody waits longer, whatever they say.
//!     .layer(DeadlineLayer::from_request(|request: &Request| request.timeout))
//!     .layer(StampDeadlineLayer::new(|request: &mut Request, left| request.timeout = Some(left)))
//!     .service(service_fn(async |request: Request| Ok::<_, Infallible>(request.timeout.unwrap())));
//! let left = stack.clone().oneshot(Request { timeout: Some(Duration::from_secs(2)) }).await?;
//! assert!(left <= Duration::from_secs(2));
//! assert!(stack.oneshot(Request { timeout: None }).await? > Duration::from_secs(9));
//! # Ok(())
//! # }
//! ```
//!
//! # Tasks
//!
//! The deadline is in force while the future that carries it is polled. A task that is spawned inside has none, unless it is handed over:
//!
//! ```
//! # use buttress::Deadline;
//! # async fn work() {}
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! match Deadline::current() {
//!     Some(deadline) => tokio::spawn(deadline.scope(work())),
//!     None => tokio::spawn(work()),
//! };
//! # }
//! ```
//!
//! What is polled by that very future, a `LocalSet` or a `FuturesUnordered`, is inside. So it is there in a response future and in a handler, and not in `poll_ready` or `call`, which run in a worker's task when there is a `Buffer` outside.
//!
//! # A duration becomes an instant
//!
//! when it is first read, or else when the future is first pending: an answer that is ready at once costs no reading of the clock.
//!
//! # Errors, panics
//!
//! None: setting a deadline refuses nothing. A deadline that has passed is one that has no time left.
//!
//! # Cancel safety
//!
//! Nothing is held. Of callers that poll one shared future each is seen with its own deadline, but a timer that was set for the first stays set. When the inner future panics, the deadline around it is in force again.

mod layer;
mod span;
mod stamp;

use std::time::Duration;

pub(crate) use self::span::{Entered, Span, current, known, last_reading};
pub use self::{
    layer::{DeadlineFuture, DeadlineLayer, DeadlineService, FromRequest, Limit},
    span::Scope,
    stamp::{StampDeadline, StampDeadlineLayer, StampFuture},
};
use crate::time::{self, Instant, Now};

/// The instant after which the caller no longer wants the answer. See the [module docs](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Instant);

impl Deadline {
    /// So long from now.
    #[must_use]
    pub fn after(wait: Duration) -> Self {
        Self(time::now().saturating_add(wait))
    }

    /// The deadline of the call that is being polled, or `None` when it has none.
    #[must_use]
    pub fn current() -> Option<Self> {
        let at = current(&mut Now::when_asked());
        (at != Instant::NEVER).then_some(Self(at))
    }

    /// How much time is left: zero once it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_since(time::now())
    }

    /// Whether no time is left.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// The future with this deadline in force while it is polled. One that is in force outside and earlier stays so.
    ///
    /// This ends nothing by itself: what waits inside looks at the deadline.
    pub const fn scope<F>(self, future: F) -> Scope<F> {
        Scope::new(Span::until(self.0), future)
    }
}
