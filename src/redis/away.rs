//! Whether Redis is away, and who hears of it.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    event::{EventKind, Events},
    time::{self, Instant},
};

/// As of the last question.
#[derive(Default)]
pub(super) struct Away {
    is: AtomicBool,
    /// When the first call began that was decided alone in the last absence, and when Redis answered again: in nanoseconds.
    from: AtomicU64,
    back: AtomicU64,
}

impl Away {
    pub(super) fn is(&self) -> bool {
        self.is.load(Ordering::Relaxed)
    }

    /// Each change is told once.
    pub(super) fn set(&self, is_away: bool, events: &Events) {
        if self.is() != is_away && self.is.swap(is_away, Ordering::Relaxed) != is_away {
            if !is_away {
                self.back.store(time::now().as_nanos(), Ordering::Relaxed);
            }
            events.emit(|| EventKind::StoreSwitched { shared: !is_away });
        }
    }

    /// A call that began then had no answer.
    pub(super) fn decided_alone(&self, began: Instant, events: &Events) {
        let began = began.as_nanos();
        if self.is() {
            self.from.fetch_min(began, Ordering::Relaxed);
        } else {
            self.from.store(began, Ordering::Relaxed);
        }
        self.set(true, events);
    }

    /// Whether a call may have been decided alone that was so long ago: during the last absence.
    pub(super) fn was_at(&self, ago: Duration) -> bool {
        let at = time::now().saturating_sub(ago).as_nanos();
        let (from, back) = (self.from.load(Ordering::Relaxed), self.back.load(Ordering::Relaxed));
        from <= at && (self.is() || at < back)
    }
}
