//! Whether Redis is away, and who hears of it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::event::{EventKind, Events};

/// As of the last question.
#[derive(Default)]
pub(super) struct Away(AtomicBool);

impl Away {
    pub(super) fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Each change is told once.
    pub(super) fn set(&self, is_away: bool, events: &Events) {
        if self.is() != is_away && self.0.swap(is_away, Ordering::Relaxed) != is_away {
            events.emit(|| EventKind::StoreSwitched { shared: !is_away });
        }
    }
}
