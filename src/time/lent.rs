//! A reading of the clock that RED lends to the layers inside, so that a call that is only counted there costs no reading of its own.
//!
//! It is lent for as long as the inner `call` runs. A user's own layer in between may take its time, so what is lent may be a little old: it is good enough to
//! count a call in a window of seconds, and for no decision.

use std::cell::Cell;

use super::{Instant, now};

thread_local! {
    static LENT: Cell<Instant> = const { Cell::new(Instant::NEVER) };
}

/// Takes back what is lent when it is dropped.
#[must_use]
pub(crate) struct TakeBack;

/// Lends a reading that has just been taken.
#[inline]
pub(crate) fn lend(now: Instant) -> TakeBack {
    LENT.set(now);
    TakeBack
}

/// What is lent, or else a reading of one's own.
#[inline]
pub(crate) fn about_now() -> Instant {
    let lent = LENT.get();
    if lent == Instant::NEVER { now() } else { lent }
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
    fn a_reading_is_lent_until_the_call_is_over_however_it_ends() {
        let back = lend(NOON);
        assert_eq!((about_now(), about_now()), (NOON, NOON));
        assert!(std::thread::spawn(about_now).join().unwrap() > NOON, "to this thread alone");
        drop(back);
        assert!(about_now() > NOON);
        let panics = std::panic::catch_unwind(|| {
            let _back = lend(NOON);
            panic!("inside");
        });
        assert!(panics.is_err() && about_now() > NOON);
    }
}
