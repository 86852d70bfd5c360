//! Those who find no place for their key.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::event::{EventKind, Events};

/// How many calls found none. Not each of a flood is worth a word.
pub(super) struct Homeless {
    calls: AtomicUsize,
    max_keys: usize,
}

impl Homeless {
    pub(super) const fn new(max_keys: usize) -> Self {
        Self { calls: AtomicUsize::new(0), max_keys }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn one_more(&self, events: &Events) {
        if self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.max_keys) {
            events.emit(|| EventKind::KeysExhausted { max_keys: self.max_keys });
        }
    }
}
