//! Why a body is not sent once more.

/// Why a copy of a body cannot be read: the error of [`ReplayBody`](super::ReplayBody), besides those of the original
/// body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A later attempt has begun to read it, so nobody waits for the answer to this one.
    #[error("a later attempt has taken over the request body")]
    Superseded,
    /// It was longer than the limit, its trailers included.
    #[error("the request body was too long to be kept")]
    TooLong,
    /// It was read while there was no copy.
    #[error("the request body was read before it was copied")]
    NotKept,
    /// Its own error, or its panic, ended an earlier attempt.
    #[error("the request body failed during an earlier attempt")]
    Failed,
}
