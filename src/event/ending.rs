//! How a call ended, as RED counts it.

use crate::{error::Reason, outcome::Outcome};

/// One of the ways in which a call ends: an index, so that what is kept for each is an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending(usize);

/// How many there are.
pub(crate) const ENDINGS: usize = REJECTED + Reason::NAMES.len();

const NAMES: [&str; REJECTED] = ["ok", "error", "permanent", "ignored", "cancelled"];
const REJECTED: usize = 5;

impl Ending {
    pub(crate) const OK: Self = Self(0);
    pub(crate) const ERROR: Self = Self(1);
    pub(crate) const PERMANENT: Self = Self(2);
    pub(crate) const IGNORED: Self = Self(3);
    pub(crate) const CANCELLED: Self = Self(4);

    #[inline]
    pub(crate) const fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::OK,
            Outcome::Transient { .. } => Self::ERROR,
            Outcome::Permanent => Self::PERMANENT,
            Outcome::Ignored => Self::IGNORED,
            Outcome::Rejected { reason, .. } => Self::rejected(reason.index()),
        }
    }

    /// The ending of a call that was refused for the reason of this index.
    pub(crate) const fn rejected(reason: usize) -> Self {
        Self(REJECTED + reason)
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..ENDINGS).map(Self)
    }

    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0
    }

    /// The value of the label `outcome`.
    pub(crate) const fn as_str(self) -> &'static str {
        if self.0 < REJECTED { NAMES[self.0] } else { "rejected" }
    }

    /// The value of the label `reason`, for those that were refused.
    pub(crate) const fn reason(self) -> Option<&'static str> {
        if self.0 < REJECTED { None } else { Some(Reason::NAMES[self.0 - REJECTED]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_its_labels() {
        let labels: Vec<_> = Ending::all().map(|ending| (ending.as_str(), ending.reason())).collect();
        let plain = ["ok", "error", "permanent", "ignored", "cancelled"].map(|outcome| (outcome, None));
        let refused = Reason::NAMES.map(|reason| ("rejected", Some(reason)));
        assert_eq!(labels, [&plain[..], &refused[..]].concat());
    }
}
