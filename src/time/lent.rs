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

/// Takes back what is lent when it is dropped, if nobody has borrowed it.
pub(crate) struct TakeBack;

/// Lends a reading that has just been taken, or borrowed.
#[inline]
pub(crate) fn lend(now: Instant) {
    LENT.set(now);
}

/// What is lent, to the first who asks.
#[inline]
pub(crate) fn borrow() -> Option<Instant> {
    let lent = LENT.replace(Instant::NEVER);
    (lent != Instant::NEVER).then_some(lent)
}

/// What is lent, or else a reading of one's own: lent on to the next.
#[inline]
pub(crate) fn pass_on() -> Instant {
    let lent = LENT.get();
    if lent != Instant::NEVER {
        return lent;
    }
    let now = now();
    lend(now);
    now
}

impl Drop for TakeBack {
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
        lend(NOON);
        assert_eq!((borrow(), borrow()), (Some(NOON), None));
        let back = TakeBack;
        lend(NOON);
        assert_eq!((pass_on(), borrow()), (NOON, Some(NOON)));
        assert_eq!(Some(pass_on()), borrow());
        lend(NOON);
        drop(back);
        assert_eq!(borrow(), None);
        let panics = std::panic::catch_unwind(|| {
            let _back = TakeBack;
            lend(NOON);
            panic!("inside");
        });
        assert!(panics.is_err());
        assert_eq!(borrow(), None);
    }

    #[test]
    fn another_thread_borrows_nothing() {
        let _back = TakeBack;
        lend(NOON);
        assert_eq!(std::thread::spawn(borrow).join().unwrap(), None);
    }
}
