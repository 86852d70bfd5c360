//! Which budget the call that runs on this thread has already paid into.
//!
//! When retries are nested and share a budget, only the outermost call is a call: the attempts of the outer one, which the inner ones see as
//! calls, would otherwise pay for retries themselves.

use std::{cell::Cell, marker::PhantomData};

const NONE: u64 = 0;

thread_local! {
    static ENTERED: Cell<u64> = const { Cell::new(NONE) };
}

/// Marks the budget of this id as paid into, until the guard is dropped: for the length of a poll.
#[inline]
pub(crate) fn enter(id: u64) -> Entered {
    Entered { before: ENTERED.replace(id), _stays_here: PhantomData }
}

/// Whether the call around this one has paid into the budget of this id.
///
/// Only the innermost mark is known: of nested retries with another budget in between, both pay.
#[inline]
pub(crate) fn is_entered(id: u64) -> bool {
    ENTERED.get() == id
}

/// Restores the mark that was there. Not `Send`: it belongs to this thread.
#[derive(Debug)]
#[must_use = "the mark lasts as long as the guard"]
pub(crate) struct Entered {
    before: u64,
    _stays_here: PhantomData<*const ()>,
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        ENTERED.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_ends_with_its_guard_also_in_a_panic() {
        let (outer, inner) = (1, 2);
        let guard = enter(outer);
        assert!(is_entered(outer) && !is_entered(inner));
        let panics = std::panic::catch_unwind(|| {
            let _guard = enter(inner);
            assert!(is_entered(inner) && !is_entered(outer));
            panic!("inside");
        });
        assert!(panics.is_err());
        assert!(is_entered(outer) && !is_entered(inner));
        drop(guard);
        assert!(!is_entered(outer));
    }

    #[test]
    fn another_thread_has_entered_nothing() {
        let id = 1;
        let _guard = enter(id);
        assert!(!std::thread::spawn(move || is_entered(id)).join().unwrap());
    }
}
