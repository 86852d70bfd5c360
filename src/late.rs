//! [`Late<S>`]: always ready, and takes the inner readiness inside the future.
//!
//! A layer that decides by the request (keyed, by cost, by priority) cannot know in `poll_ready` whether it will need the inner service at
//! all. Over `Late` it decides in `call`, refuses at once, and only an admitted call waits for readiness: of its own clone, which it polls
//! ready before it calls it.
//!
//! # Example
//!
//! ```
//! use buttress::Late;
//! use tower::{Service, ServiceExt, limit::ConcurrencyLimit, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), std::convert::Infallible> {
//! let busy = ConcurrencyLimit::new(service_fn(async |n: u32| Ok::<_, std::convert::Infallible>(n + 1)), 1);
//! let mut late = Late::new(busy);
//! assert_eq!(late.ready().await?.call(1).await?, 2);
//! # Ok(())
//! # }
//! ```
//!
//! # Clone
//!
//! Each call clones the inner service, so what its clones share is shared here too.
//!
//! # Cancel safety
//!
//! A dropped future drops its clone, and with it any readiness it held.

use std::task::{Context, Poll};

use tower::{Layer, Service, util::Oneshot};

/// See the [module docs](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Late<S> {
    inner: S,
}

/// Puts [`Late`] around a service. See the [module docs](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct LateLayer;

impl<S> Layer<S> for LateLayer {
    type Service = Late<S>;

    fn layer(&self, inner: S) -> Late<S> {
        Late::new(inner)
    }
}

impl<S> Late<S> {
    /// Takes the readiness of `inner` inside the future of each call.
    pub const fn new(inner: S) -> Self {
        Self { inner }
    }
}

crate::macros::inner_accessors!(Late<S>);

impl<S, Req> Service<Req> for Late<S>
where
    S: Service<Req> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Oneshot<S, Req>;

    /// Always ready: readiness is the future's business.
    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        Oneshot::new(self.inner.clone(), request)
    }
}
