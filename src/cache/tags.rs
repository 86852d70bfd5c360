//! Invalidation by tag: a mark per tag, and who is older than the mark is gone.

use std::collections::HashMap;

use super::entry::Entry;
use crate::sync::{AtomicU64, Mutex, Ordering};

/// A tag is invalidated in one step, however many entries have it. An entry that has tags looks at the marks once after each invalidation, one
/// that has none never does.
pub(super) struct Marks {
    /// How many invalidations there were.
    epoch: AtomicU64,
    marks: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    /// By generation.
    of: HashMap<Box<str>, u64>,
    /// The mark of all tags, those that were forgotten included.
    floor: u64,
}

/// Tags come from answers, so their number is bounded: past it, whatever has a tag is gone.
const MOST: usize = 4096;

impl Marks {
    pub(super) fn new() -> Self {
        Self { epoch: AtomicU64::new(0), marks: Mutex::new(Tables::default()) }
    }

    /// What has this tag and a generation below is gone.
    pub(super) fn mark(&self, tag: &str, generation: u64) {
        let tag: Box<str> = tag.into();
        let mut marks = self.marks.lock();
        let mut forgotten = HashMap::new();
        if marks.of.len() >= MOST && !marks.of.contains_key(&tag) {
            forgotten = std::mem::take(&mut marks.of);
            // Others may have overtaken this one.
            marks.floor = forgotten.values().copied().fold(marks.floor.max(generation), u64::max);
        }
        let mark = marks.of.entry(tag).or_insert(0);
        *mark = generation.max(*mark);
        self.epoch.fetch_add(1, Ordering::Release);
        drop(marks);
        drop(forgotten);
    }

    /// Whether the entry has outlived all invalidations of its tags.
    #[inline]
    pub(super) fn spare<V>(&self, entry: &Entry<V>) -> bool {
        entry.outlived().is_none_or(|outlived| self.spare_tagged(entry, outlived))
    }

    fn spare_tagged<V>(&self, entry: &Entry<V>, outlived: &AtomicU64) -> bool {
        let epoch = self.epoch.load(Ordering::Acquire);
        if outlived.load(Ordering::Relaxed) == epoch {
            return true;
        }
        let lives = self.mark_of(entry) <= entry.generation();
        if lives {
            outlived.store(epoch, Ordering::Relaxed);
        }
        lives
    }

    /// The newest mark of its tags.
    pub(super) fn mark_of<V>(&self, entry: &Entry<V>) -> u64 {
        let Some(tags) = entry.tags() else { return 0 };
        let marks = self.marks.lock();
        tags.iter().filter_map(|tag| marks.of.get(tag).copied()).fold(marks.floor, u64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::{entry::Content, life::Times},
        time::{self, Instant},
    };

    #[test]
    fn an_invalidation_that_was_overtaken_does_not_undo_the_later_ones() {
        let marks = Marks::new();
        for tag in 0..MOST {
            marks.mark(&tag.to_string(), 9);
        }
        let times = Times {
            fresh_until: Instant::NEVER,
            stale_until: Instant::NEVER,
            created: time::now(),
            stored: time::now(),
        };
        let entry = Entry::provisional(Content::Value(()), times, 7, ["0".into()]);
        assert!(!marks.spare(&entry));
        // Numbered before, and here after.
        marks.mark("late", 5);
        assert!(!marks.spare(&entry));
    }
}
