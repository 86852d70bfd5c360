//! x
#![warn(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
mod event;
#[cfg(feature = "circuit-breaker")]
mod keyed;
mod late;
mod macros;
mod outcome;
mod shared;
mod sync;
mod time;

#[cfg(feature = "circuit-breaker")]
pub mod circuit_breaker;

pub use error::{AsRejected, BoxError, CanReject, ConfigError, Error, Reason, Rejected, Trip};
pub use event::{CircuitState, Event, EventKind, intern};
pub use late::{Late, LateLayer};
pub use outcome::{Classify, ErrorsAreTransient, EveryErrorIsTransient, Outcome};

/// Does nothing, for a stack that is a service: put it before the first call, and the compiler says in its message what a stack that is
/// none is missing.
///
/// `.oneshot()` on such a stack only says that there is no such method.
pub fn check<Req, S: tower::Service<Req>>(_stack: &S) {}
