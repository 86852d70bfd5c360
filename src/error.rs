//! One error for a whole stack: a refusal explains itself and travels inside the inner service's own error type.
//!
//! A layer that refuses has `type Error = S::Error` and asks for [`CanReject`], which every error with a `From<Rejected>` has:
//!
//! | the inner error is | what to do |
//! |---|---|
//! | your own enum | add a variant: `#[error(transparent)] Rejected(#[from] buttress::Rejected)` |
//! | [`BoxError`] | nothing |
//! | a foreign client's | `.map_err(buttress::Error::Service)` below the stack |
//! | `Infallible`, an HTTP handler's | `buttress::http::respond(layers)` around it |
//!
//! The layers above find the refusal again through [`AsRejected`], so that nobody retries it blindly and nobody takes it for the
//! dependency's failure.

use std::{convert::Infallible, error::Error as StdError, fmt, time::Duration};

pub use tower::BoxError;

/// The answer of one of our layers instead of the inner service's: who refused, why, and when to come back.
///
/// 32 bytes, `Copy`, and built without an allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rejected(Refusal);

/// The content of a [`Rejected`].
///
/// A transparent wrapper (`#[error(transparent)]`) forwards `source()` and so hides the `Rejected` itself from a walk over sources. What
/// `Rejected::source` returns is still there to be found, and this is it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal {
    policy: &'static str,
    reason: Reason,
    /// In nanoseconds, or [`UNKNOWN`]: an `Option<Duration>` would take 8 bytes more, and the compiler would keep the discriminants of the
    /// enums around it in four bytes of them, which makes every move of a `Result` wait for its own writing.
    retry_after: u64,
}

const UNKNOWN: u64 = u64::MAX;

/// Why a layer refused, with its evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The circuit is open; the inner service was not called.
    CircuitOpen(Trip),
    /// A quota is used up; the inner service was not called.
    RateLimited,
    /// The call costs more than its quota ever has at once; the inner service was not called.
    CostTooHigh,
    /// The store of a limit gave no answer, and its policy is to let nothing pass then; the inner service was not called.
    LimitUnknown,
    /// Too many calls are in flight or queued; the inner service was not called.
    BulkheadFull,
    /// The inner service was not ready ([`tower::load_shed`]); it was not called.
    Overloaded,
    /// The attempt took too long; the inner service may have executed the call.
    TimedOut,
    /// The caller's deadline passed; the inner service may have executed the call.
    DeadlineExceeded,
    /// The load of a cache entry failed for somebody else; the inner service may have executed that call.
    LoadFailed(LoadFailure),
}

/// What became of the load of a cache entry. The default classifier takes it for what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoadFailure {
    /// The dependency failed; the same request may succeed later.
    Transient,
    /// The dependency is well and the request was at fault.
    Permanent,
    /// It said nothing about the dependency.
    Ignored,
    /// It panicked.
    Panicked,
    /// It was cancelled, as at a shutdown.
    Cancelled,
}

/// What opened a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Trip {
    /// This many calls failed in a row: more than were needed when several were found too slow at once.
    ConsecutiveFailures(u32),
    /// This many per cent of the calls in the window failed.
    FailureRate(u8),
    /// This many per cent of the calls in the window were slow.
    SlowCallRate(u8),
    /// The half-open circuit's probes failed.
    ProbesFailed,
    /// The half-open circuit's probes did not answer in time.
    ProbesTimedOut,
    /// An operator forced the circuit open.
    Forced,
}

/// An error that can carry a [`Rejected`]: what a layer that refuses asks of the inner service's error.
///
/// Every error that is `From<Rejected>` can, and nothing else does.
#[diagnostic::on_unimplemented(
    message = "a layer that refuses needs an error that can carry a refusal, and `{Self}` cannot",
    label = "this stack refuses calls, but its error `{Self}` has no place for a `buttress::Rejected`",
    note = "for a foreign client's error, add this line below the stack: `.map_err(buttress::Error::Service)`",
    note = "for an error of your own, add a variant: `#[error(transparent)] Rejected(#[from] buttress::Rejected)`",
    note = "for an HTTP handler, whose error is `Infallible`, wrap the layers: `buttress::http::respond(layers)`, with the feature `http`"
)]
pub trait CanReject: sealed::Sealed {
    /// Wraps a refusal.
    #[doc(hidden)]
    fn reject(rejected: Rejected) -> Self;
}

#[diagnostic::do_not_recommend]
impl<E: From<Rejected>> CanReject for E {
    #[inline]
    fn reject(rejected: Rejected) -> Self {
        Self::from(rejected)
    }
}

mod sealed {
    pub trait Sealed {}

    #[diagnostic::do_not_recommend]
    impl<E: From<super::Rejected>> Sealed for E {}
}

/// An error that may be a refusal: what the default classifier asks.
///
/// For an enum of your own the body is one line: `Rejected::find(self)`.
#[diagnostic::on_unimplemented(
    message = "the default classifier cannot tell whether `{Self}` is a refusal",
    label = "`{Self}` does not say whether a layer below refused the call",
    note = "for a foreign client's error, add this line below the stack: `.map_err(buttress::Error::Service)`",
    note = "for an error of your own: `impl AsRejected for MyError {{ fn as_rejected(&self) -> Option<Rejected> {{ Rejected::find(self) }} }}`",
    note = "or choose another classifier, such as `.classify(buttress::EveryErrorIsTransient)`"
)]
pub trait AsRejected {
    /// The refusal inside this error, if there is one.
    fn as_rejected(&self) -> Option<Rejected>;
}

/// The error of a stack around a client whose error type is not yours: either a refusal or the client's own error.
///
/// `Display` and `source` are those of what is inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error<E> {
    /// A layer refused the call.
    #[error(transparent)]
    Rejected(Rejected),
    /// The client answered with its own error.
    #[error(transparent)]
    Service(E),
}

/// Settings that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid `{field}`: {problem}")]
pub struct ConfigError {
    field: &'static str,
    problem: &'static str,
}

// ===== impl Rejected =====

impl Rejected {
    /// A refusal by the policy of this name.
    #[must_use]
    pub const fn new(policy: &'static str, reason: Reason) -> Self {
        Self(Refusal { policy, reason, retry_after: UNKNOWN })
    }

    /// Says when to come back, in 584 years at the latest.
    #[must_use]
    pub const fn with_retry_after(mut self, retry_after: Duration) -> Self {
        let nanos = retry_after.as_nanos();
        self.0.retry_after = if nanos < UNKNOWN as u128 { nanos as u64 } else { UNKNOWN - 1 };
        self
    }

    /// As [`with_retry_after`](Self::with_retry_after), in nanoseconds.
    #[cfg_attr(not(feature = "rate-limit"), allow(dead_code))]
    #[inline]
    pub(crate) const fn with_retry_after_nanos(mut self, nanos: u64) -> Self {
        self.0.retry_after = if nanos < UNKNOWN { nanos } else { UNKNOWN - 1 };
        self
    }

    /// The name of the policy that refused: in nested stacks it says whose refusal this is.
    #[must_use]
    pub const fn policy(&self) -> &'static str {
        self.0.policy
    }

    /// Why.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.0.reason
    }

    /// How long to wait before the next attempt has a chance, when that is known.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self.0.retry_after {
            UNKNOWN => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Whether the inner service may have executed the call: this attempt of it, if there is a retry in between.
    #[must_use]
    pub const fn reached_inner(&self) -> bool {
        self.0.reason.reached_inner()
    }

    /// Finds the refusal in an error or in its sources, however deeply nested or transparently wrapped.
    ///
    /// tower's own [`Elapsed`](tower::timeout::error::Elapsed) and [`Overloaded`](tower::load_shed::error::Overloaded) count as
    /// [`Reason::TimedOut`] and [`Reason::Overloaded`]. The outermost refusal wins.
    #[must_use]
    pub fn find(error: &(dyn StdError + 'static)) -> Option<Self> {
        // A chain that leads back to itself must not hang the caller.
        const LONGEST_CHAIN: usize = 64;
        let mut next = Some(error);
        (0..LONGEST_CHAIN).find_map(|_| {
            let error = next?;
            next = error.source();
            Self::of(error)
        })
    }

    fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        if let Some(rejected) = error.downcast_ref::<Self>() {
            Some(*rejected)
        } else if let Some(refusal) = error.downcast_ref::<Refusal>() {
            Some(Self(*refusal))
        } else if error.is::<tower::timeout::error::Elapsed>() {
            Some(Self::new("tower::timeout", Reason::TimedOut))
        } else if error.is::<tower::load_shed::error::Overloaded>() {
            Some(Self::new("tower::load_shed", Reason::Overloaded))
        } else {
            None
        }
    }
}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected")
            .field("policy", &self.0.policy)
            .field("reason", &self.0.reason)
            .field("retry_after", &self.retry_after())
            .finish()
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rejected by `{}`: {}", self.0.policy, self.0.reason)?;
        match self.retry_after() {
            Some(wait) => write!(f, ", retry after {wait:?}"),
            None => Ok(()),
        }
    }
}

impl StdError for Rejected {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.reason.reached_inner() {
            "the inner service may have been called"
        } else {
            "the inner service was not called"
        })
    }
}

impl StdError for Refusal {}

// ===== impl Reason =====

impl Reason {
    /// As metrics and logs have them.
    pub(crate) const NAMES: [&'static str; 9] = [
        "circuit_open",
        "rate_limited",
        "cost_too_high",
        "bulkhead_full",
        "overloaded",
        "timed_out",
        "deadline_exceeded",
        "load_failed",
        "limit_unknown",
    ];

    /// Its place in [`NAMES`](Self::NAMES).
    #[inline]
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::CircuitOpen(_) => 0,
            Self::RateLimited => 1,
            Self::CostTooHigh => 2,
            Self::BulkheadFull => 3,
            Self::Overloaded => 4,
            Self::TimedOut => 5,
            Self::DeadlineExceeded => 6,
            Self::LoadFailed(_) => 7,
            Self::LimitUnknown => 8,
        }
    }

    /// `circuit_open`, `rate_limited`, `cost_too_high`, `bulkhead_full`, `overloaded`, `timed_out`, `deadline_exceeded`, `load_failed`,
    /// `limit_unknown`: as metrics and logs have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self.index()]
    }

    /// Whether a call that ended for this reason may have been executed by the inner service.
    #[must_use]
    pub const fn reached_inner(self) -> bool {
        match self {
            Self::CircuitOpen(_)
            | Self::RateLimited
            | Self::CostTooHigh
            | Self::LimitUnknown
            | Self::BulkheadFull
            | Self::Overloaded => false,
            Self::TimedOut | Self::DeadlineExceeded | Self::LoadFailed(_) => true,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CircuitOpen(trip) => write!(f, "circuit open ({trip})"),
            Self::RateLimited => f.write_str("rate limited"),
            Self::CostTooHigh => f.write_str("cost too high"),
            Self::LimitUnknown => f.write_str("limit unknown"),
            Self::BulkheadFull => f.write_str("bulkhead full"),
            Self::Overloaded => f.write_str("overloaded"),
            Self::TimedOut => f.write_str("timed out"),
            Self::DeadlineExceeded => f.write_str("deadline exceeded"),
            Self::LoadFailed(failure) => write!(f, "load failed ({failure})"),
        }
    }
}

impl fmt::Display for LoadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Ignored => "ignored",
            Self::Panicked => "panicked",
            Self::Cancelled => "cancelled",
        })
    }
}

impl fmt::Display for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConsecutiveFailures(1) => f.write_str("1 failure"),
            Self::ConsecutiveFailures(n) => write!(f, "{n} consecutive failures"),
            Self::FailureRate(percent) => write!(f, "{percent} % of calls failed"),
            Self::SlowCallRate(percent) => write!(f, "{percent} % of calls were slow"),
            Self::ProbesFailed => f.write_str("probes failed"),
            Self::ProbesTimedOut => f.write_str("probes timed out"),
            Self::Forced => f.write_str("forced"),
        }
    }
}

// ===== impl AsRejected =====

impl AsRejected for Rejected {
    fn as_rejected(&self) -> Option<Rejected> {
        Some(*self)
    }
}

impl AsRejected for Infallible {
    fn as_rejected(&self) -> Option<Rejected> {
        match *self {}
    }
}

impl AsRejected for BoxError {
    fn as_rejected(&self) -> Option<Rejected> {
        Rejected::find(&**self)
    }
}

impl<E: StdError + 'static> AsRejected for Error<E> {
    fn as_rejected(&self) -> Option<Rejected> {
        match self {
            Self::Rejected(rejected) => Some(*rejected),
            Self::Service(error) => Rejected::find(error),
        }
    }
}

impl<E> From<Rejected> for Error<E> {
    #[inline]
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

// ===== impl ConfigError =====

impl ConfigError {
    pub(crate) const fn new(field: &'static str, problem: &'static str) -> Self {
        Self { field, problem }
    }

    /// The name of the setting that cannot work.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        self.field
    }
}

// A refusal is copied through every future of a stack: growing it is a decision, not an accident.
const _: () = assert!(size_of::<Rejected>() <= 32);

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Rejected = Rejected::new("payments", Reason::CircuitOpen(Trip::ConsecutiveFailures(5)))
        .with_retry_after(Duration::from_secs(30));

    #[derive(Debug, thiserror::Error)]
    enum Transparent {
        #[error(transparent)]
        Rejected(#[from] Rejected),
    }

    #[derive(Debug, thiserror::Error)]
    #[error("while paying")]
    struct Context(#[source] BoxError);

    #[derive(Debug, thiserror::Error)]
    #[error("round and round")]
    struct Circular;

    #[test]
    fn a_refusal_reads_as_a_sentence() {
        assert_eq!(OPEN.to_string(), "rejected by `payments`: circuit open (5 consecutive failures), retry after 30s");
        assert_eq!(OPEN.source().unwrap().to_string(), "the inner service was not called");
    }

    #[test]
    fn a_refusal_is_found_through_every_wrapper() {
        let boxed: BoxError = OPEN.into();
        let wrapped = |inner: BoxError| -> BoxError { Context(inner).into() };
        let rows: [(&str, BoxError); 6] = [
            ("boxed", boxed),
            ("transparent", Transparent::from(OPEN).into()),
            ("context", wrapped(OPEN.into())),
            ("context over transparent", wrapped(Transparent::from(OPEN).into())),
            ("our error", Error::<std::io::Error>::from(OPEN).into()),
            ("inside a client's error", Error::Service(std::io::Error::other(OPEN)).into()),
        ];
        for (wrapper, error) in rows {
            assert_eq!(error.as_rejected(), Some(OPEN), "{wrapper}");
        }
        assert_eq!(Error::Service(std::io::Error::other(OPEN)).as_rejected(), Some(OPEN));
    }

    #[test]
    fn towers_own_refusals_are_ours() {
        let elapsed: BoxError = tower::timeout::error::Elapsed::new().into();
        assert_eq!(elapsed.as_rejected().unwrap().reason(), Reason::TimedOut);
        let overloaded: BoxError = tower::load_shed::error::Overloaded::new().into();
        assert_eq!(overloaded.as_rejected().unwrap().reason(), Reason::Overloaded);
        let foreign: BoxError = Circular.into();
        assert_eq!(foreign.as_rejected(), None);
    }

    #[test]
    fn an_endless_chain_of_sources_ends() {
        #[derive(Debug)]
        struct Endless;
        impl fmt::Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("endless")
            }
        }
        impl StdError for Endless {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(&Self)
            }
        }
        assert_eq!(Rejected::find(&Endless), None);
    }
}
