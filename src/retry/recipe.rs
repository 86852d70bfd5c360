//! What a call has of its settings: one word that costs nothing.
//!
//! A call must have its settings even when its layer and its services are gone, and to copy them or to count a reference would cost more than
//! all the rest of a good call. Settings come from configuration, so there are few of them: each is kept once, for the life of the process. Where a
//! program makes up ever new ones, those that come too late are kept by their layer, and their calls count a reference to that.

use std::sync::{Mutex, PoisonError};

use super::{backoff::Backoff, decision::Plan};

/// Settings, once they are checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Checked {
    pub(super) plan: Plan,
    pub(super) backoff: Backoff,
}

/// Some 150 bytes each.
const MOST: usize = 256;

impl Checked {
    /// The same settings, kept for ever, if there is room.
    pub(super) fn known(&self) -> Option<&'static Self> {
        static KNOWN: Mutex<Vec<&'static Checked>> = Mutex::new(Vec::new());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.iter().find(|known| **known == self) {
            return Some(same);
        }
        if known.len() == MOST {
            return None;
        }
        let kept: &'static Self = Box::leak(Box::new(self.clone()));
        known.push(kept);
        Some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::RetrySettings;
    use std::time::Duration;

    #[test]
    fn the_same_settings_are_kept_once_and_too_many_are_not_kept() {
        let checked = |seed: u64| {
            RetrySettings::new().backoff(Backoff::exponential(Duration::from_secs(1)).seed(seed)).check().unwrap()
        };
        let first = checked(1).known().expect("tests have few settings");
        assert!(std::ptr::eq(first, checked(1).known().unwrap()));
        for seed in 1..=2 * MOST as u64 {
            assert!(checked(seed).known().is_none_or(|known| *known == checked(seed)));
        }
        assert!(checked(u64::MAX / 2).known().is_none());
    }
}
