//! What has been spent in the window.

use super::deposits::SLOTS;

/// Hundredths of a retry, slot by slot.
#[derive(Debug, Default)]
pub(super) struct Spent {
    slots: [u64; SLOTS],
    total: u64,
    /// The present slot, numbered since the clock's origin; it lives at this number modulo ten.
    present: u64,
}

impl Spent {
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// Forgets what has grown too old: at most ten steps, however long nobody looked.
    pub(super) fn advance(&mut self, present: u64) {
        let passed = present.saturating_sub(self.present).min(SLOTS as u64);
        for step in 0..passed {
            let slot = &mut self.slots[place(present - step)];
            self.total -= *slot;
            *slot = 0;
        }
        self.present = self.present.max(present);
    }

    /// Spends in the present slot, and says which that is. The new total is known to fit.
    pub(super) fn take(&mut self, hundredths: u64) -> u64 {
        self.slots[place(self.present)] += hundredths;
        self.total += hundredths;
        self.present
    }

    /// Gives back what was taken in this slot, unless that has been forgotten already.
    pub(super) fn give_back(&mut self, slot: u64, hundredths: u64) {
        if self.present - slot < SLOTS as u64 {
            self.slots[place(slot)] -= hundredths;
            self.total -= hundredths;
        }
    }
}

const fn place(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}
