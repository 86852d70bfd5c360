//! What a finished call means, decided once for every pattern.
//!
//! | | breaker | retry | RED | cache |
//! |---|---|---|---|---|
//! | [`Success`](Outcome::Success) | success | stop | ok | stores |
//! | [`Transient`](Outcome::Transient) | failure | again | error | serves stale if allowed |
//! | [`Permanent`](Outcome::Permanent): the dependency answered, the request was at fault | success | stop | error | remembers it if allowed |
//! | [`Rejected`](Outcome::Rejected): by a layer inside | neither | stop unless asked | rejected | serves stale if allowed |
//! | [`Ignored`](Outcome::Ignored) | neither | stop | ignored | passes it on |
//!
//! Named classifiers infer; a closure needs its argument spelled out, `|result: Result<&Reply, &Failure>| ..`.

use std::time::Duration;

use crate::error::{AsRejected, LoadFailure, Reason};

/// What a finished call means to every pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The dependency did its work.
    Success,
    /// The dependency failed; the same request may succeed later.
    Transient {
        /// When the dependency asked to be called again.
        retry_after: Option<Duration>,
    },
    /// The dependency is well and the request was at fault: no retry helps.
    Permanent,
    /// A layer inside refused the call.
    Rejected {
        /// Why it refused.
        reason: Reason,
        /// When it would admit the call.
        retry_after: Option<Duration>,
    },
    /// Says nothing about the dependency.
    Ignored,
}

/// Decides what a finished call means.
///
/// A classifier is cloned for every call, so it should be small. It runs under no lock, and its panic harms only its own call.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot classify the result of this service",
    note = "the default classifier asks `AsRejected` of the error: for a foreign client's error, add `.map_err(buttress::Error::Service)` below the stack",
    note = "a closure needs its argument spelled out: `|result: Result<&Reply, &Failure>| ..`"
)]
pub trait Classify<Res, E> {
    /// What this result means.
    fn classify(&self, result: Result<&Res, &E>) -> Outcome;
}

/// The default classifier: `Ok` is a success, a refusal found by [`AsRejected`] is [`Outcome::Rejected`], any other `Err` is transient.
///
/// A time-out of the attempt ([`Reason::TimedOut`]) is transient too: the dependency was too slow. A cache's load that failed for somebody
/// else ([`Reason::LoadFailed`]) is what it was for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorsAreTransient;

/// `Ok` is a success and every `Err` is transient, whatever its type: for a bare client whose error cannot be a refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EveryErrorIsTransient;

impl Outcome {
    /// A failure of the dependency without a word on when to come back.
    pub const TRANSIENT: Self = Self::Transient { retry_after: None };

    /// When the answer said to come back.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after } | Self::Rejected { retry_after, .. } => *retry_after,
            Self::Success | Self::Permanent | Self::Ignored => None,
        }
    }
}

impl<Res, E: AsRejected> Classify<Res, E> for ErrorsAreTransient {
    #[inline]
    fn classify(&self, result: Result<&Res, &E>) -> Outcome {
        match result {
            Ok(_) => Outcome::Success,
            Err(error) => failure(error),
        }
    }
}

#[cold]
fn failure<E: AsRejected>(error: &E) -> Outcome {
    match error.as_rejected() {
        None => Outcome::TRANSIENT,
        Some(rejected) => match rejected.reason() {
            Reason::LoadFailed(LoadFailure::Permanent) => Outcome::Permanent,
            Reason::LoadFailed(LoadFailure::Ignored) => Outcome::Ignored,
            // A dependency that was too slow, or a load that somebody else had to suffer.
            Reason::TimedOut | Reason::LoadFailed(_) => Outcome::Transient { retry_after: rejected.retry_after() },
            reason => Outcome::Rejected { reason, retry_after: rejected.retry_after() },
        },
    }
}

impl<Res, E> Classify<Res, E> for EveryErrorIsTransient {
    #[inline]
    fn classify(&self, result: Result<&Res, &E>) -> Outcome {
        match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::TRANSIENT,
        }
    }
}

impl<Res, E, F: Fn(Result<&Res, &E>) -> Outcome> Classify<Res, E> for F {
    #[inline]
    fn classify(&self, result: Result<&Res, &E>) -> Outcome {
        self(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Rejected};

    fn default(error: &Error<std::io::Error>) -> Outcome {
        ErrorsAreTransient.classify(Err::<&(), _>(error))
    }

    #[test]
    fn the_default_tells_failures_from_refusals() {
        let wait = Duration::from_secs(3);
        let refused = |reason| Error::Rejected(Rejected::new("p", reason).with_retry_after(wait));
        assert_eq!(default(&Error::Service(std::io::Error::other("down"))), Outcome::TRANSIENT);
        assert_eq!(
            default(&refused(Reason::RateLimited)),
            Outcome::Rejected { reason: Reason::RateLimited, retry_after: Some(wait) }
        );
        assert_eq!(default(&refused(Reason::TimedOut)), Outcome::Transient { retry_after: Some(wait) });
        assert!(matches!(default(&refused(Reason::DeadlineExceeded)), Outcome::Rejected { .. }));
        let load = |failure| default(&refused(Reason::LoadFailed(failure)));
        assert_eq!(load(LoadFailure::Panicked), Outcome::Transient { retry_after: Some(wait) });
        assert_eq!([load(LoadFailure::Permanent), load(LoadFailure::Ignored)], [Outcome::Permanent, Outcome::Ignored]);
    }

    #[test]
    fn a_closure_classifies() {
        let by_value = |result: Result<&u16, &std::io::Error>| match result {
            Ok(500..) => Outcome::TRANSIENT,
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Ignored,
        };
        assert_eq!(by_value.classify(Ok(&503)), Outcome::TRANSIENT);
        assert_eq!(by_value.classify(Ok(&200)), Outcome::Success);
    }
}
