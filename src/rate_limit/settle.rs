//! A look at the answer of an admitted call.

use std::ops::Deref;

use super::decision::Decision;

/// Looks at the answer of an admitted call, and may change it.
pub trait Settle<Res, E> {
    /// The call is over.
    fn settle(&self, result: &mut Result<Res, E>, paid: &Paid<'_>);
}

/// What an admitted call took, of which limiters.
#[derive(Debug)]
pub struct Paid<'a> {
    decisions: &'a [Decision],
}

/// What each limiter says now.
#[derive(Clone, Copy, Debug)]
pub struct Decisions {
    decisions: [Option<Decision>; 1],
    none: [Decision; 0],
}

impl Paid<'_> {
    /// What each limiter says now, at most four.
    #[must_use]
    pub fn decisions(&self) -> Decisions {
        Decisions { decisions: [self.decisions.first().copied()], none: [] }
    }
}

impl Deref for Decisions {
    type Target = [Decision];

    fn deref(&self) -> &[Decision] {
        self.decisions[0].as_ref().map_or(&self.none, std::slice::from_ref)
    }
}
