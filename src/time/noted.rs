//! The reading of the clock that was last taken on this thread, for who only wants to know about when a call was made.
//!
//! A reading is among the dearest steps of a call. Who counts calls in slots of a window does so once the inner `call` has returned, by the reading of whoever
//! needed one inside: a limiter, which takes its own, because whatever is around it may have taken its time.

use std::cell::Cell;

use super::{Instant, now};

thread_local! {
    static NOTED: Cell<Instant> = const { Cell::new(Instant::NEVER) };
}

/// Forgets what was noted, so that what is noted afterwards is of the call that begins here.
#[inline]
pub(crate) fn forget_noted() {
    NOTED.set(Instant::NEVER);
}

/// Reads the clock and notes it.
#[inline]
pub(crate) fn now_noted() -> Instant {
    let now = now();
    NOTED.set(now);
    now
}

/// What was noted since it was last forgotten, or else what the clock says.
#[inline]
pub(crate) fn noted_or_now() -> Instant {
    let noted = NOTED.get();
    if noted == Instant::NEVER { Instant::from_nanos(now_noted_apart()) } else { noted }
}

/// Has no way out but its end (no clock panics; if one did, the process would end), so that who calls it while it holds a future need not keep that in
/// memory for another way out.
#[inline(never)]
extern "C" fn now_noted_apart() -> u64 {
    now_noted().as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_since_is_known_and_nothing_from_before() {
        let before = now_noted();
        assert_eq!(noted_or_now(), before);
        forget_noted();
        let own = noted_or_now();
        assert!(own >= before);
        assert_eq!(noted_or_now(), own, "of two around one another the outer one has the reading of the inner one");
        let later = now_noted();
        assert_eq!(noted_or_now(), later);
    }

    #[test]
    fn another_thread_has_noted_nothing() {
        NOTED.set(Instant::from_nanos(12));
        assert_ne!(std::thread::spawn(noted_or_now).join().unwrap(), Instant::from_nanos(12));
    }
}
