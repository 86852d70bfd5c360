//! A reading of the clock that a layer lends to the next one inside, so that a call costs one on its way in and not one for each layer.
//!
//! It is lent for as long as the inner `call` runs, and to the first who asks. In between there is mostly nothing. But a user's own layer may
//! have taken its time there, so whoever borrows takes a reading that may be a little old, as that of a thread which was put aside is: it serves
//! to count a call and to let one pass, and never to refuse one.

use std::cell::Cell;

use super::{Instant, now};

thread_local! {
    static LENT: Cell<Instant> = const { Cell::new(Instant::NEVER) };
}

/// A reading is lent until this is dropped, or until somebody has borrowed it.
#[must_use = "it is lent as long as this lives"]
pub(crate) struct Lent(());

/// Lends a reading that has just been taken, or borrowed.
#[inline]
pub(crate) fn lend(now: Instant) -> Lent {
    LENT.set(now);
    Lent(())
}

/// What is lent, to the first who asks.
#[inline]
pub(crate) fn borrow() -> Option<Instant> {
    let lent = LENT.replace(Instant::NEVER);
    (lent != Instant::NEVER).then_some(lent)
}

/// What is lent, or else a reading of one's own.
#[inline]
pub(crate) fn borrow_or_read() -> Instant {
    borrow().unwrap_or_else(now)
}

impl Drop for Lent {
    #[inline]
    fn drop(&mut self) {
        LENT.set(Instant::NEVER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Instant = Instant::from_nanos(12);

    #[test]
    fn a_reading_is_lent_once_and_to_nobody_when_the_call_is_over() {
        let lent = lend(NOON);
        assert_eq!((borrow(), borrow()), (Some(NOON), None));
        drop(lent);
        drop(lend(NOON));
        assert_eq!(borrow(), None);
        let panics = std::panic::catch_unwind(|| {
            let _lent = lend(NOON);
            panic!("inside");
        });
        assert!(panics.is_err());
        assert_eq!(borrow(), None);
    }

    #[test]
    fn another_thread_borrows_nothing() {
        let _lent = lend(NOON);
        assert_eq!(std::thread::spawn(borrow).join().unwrap(), None);
    }
}
