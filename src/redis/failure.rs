//! Why Redis gave no answer, without a word of what it was asked.

use deadpool_redis::redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::error::Rejected;

/// Why an operation has no result.
///
/// It carries nothing of the address, the command or the reply, because those carry secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedisFailure {
    /// Redis was not asked, because it is known to be away.
    #[error(transparent)]
    Away(Rejected),
    /// There was no answer in time. Redis may have executed the command.
    #[error("redis did not answer in time")]
    TimedOut,
    /// There is no connection, or it was lost. Redis may have executed the command.
    #[error("redis is not connected")]
    Disconnected,
    /// Redis answered that it cannot serve now: it is loading, busy, read-only or has lost its master.
    #[error("redis cannot serve now")]
    Unavailable,
    /// Keys are on their way from one node of a cluster to another, and not all on the same one. The command was not executed, and passes when they have come.
    #[error("the keys are on their way to another node of redis")]
    Moving,
    /// Redis answered with an error, or with something else than was asked for.
    #[error("redis answered with an error")]
    Answered,
}

/// What a failure says of the lane that it came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneIs {
    Well,
    Broken,
}

impl RedisFailure {
    /// In a word, for events.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Away(_) => "away",
            Self::TimedOut => "timed_out",
            Self::Disconnected => "disconnected",
            Self::Unavailable => "unavailable",
            Self::Moving => "moving",
            Self::Answered => "answered",
        }
    }

    /// Whether it says of all of Redis that it is away, and not of this question alone.
    pub(super) const fn is_of_all(self) -> bool {
        !matches!(self, Self::Answered | Self::Moving)
    }

    pub(super) fn of(error: &RedisError) -> (Self, LaneIs) {
        let lane =
            if error.is_unrecoverable_error() || error.is_connection_dropped() { LaneIs::Broken } else { LaneIs::Well };
        if error.is_timeout() {
            return (Self::TimedOut, LaneIs::Well);
        }
        match error.kind() {
            // A master that was demoted: who asks again finds the new one.
            ErrorKind::Server(ServerErrorKind::ReadOnly) => (Self::Unavailable, LaneIs::Broken),
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::Moved,
            ) => (Self::Unavailable, lane),
            ErrorKind::Server(ServerErrorKind::TryAgain | ServerErrorKind::Ask) => (Self::Moving, lane),
            ErrorKind::ClusterConnectionNotFound => (Self::Disconnected, lane),
            ErrorKind::Extension if matches!(error.code(), Some("BUSY" | "MISCONF" | "NOREPLICAS")) => {
                (Self::Unavailable, lane)
            }
            _ if lane == LaneIs::Broken || error.is_io_error() => (Self::Disconnected, LaneIs::Broken),
            _ => (Self::Answered, lane),
        }
    }
}
