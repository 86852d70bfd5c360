//! Failures in a row: one number, independent of every window.

/// A run of failures.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Consecutive {
    run: u32,
}

impl Consecutive {
    pub(super) const fn record(&mut self, failed: bool) {
        self.run = if failed { self.run.saturating_add(1) } else { 0 };
    }

    /// So many failures at once.
    pub(super) fn add(&mut self, failures: u64) {
        self.run = self.run.saturating_add(u32::try_from(failures).unwrap_or(u32::MAX));
    }

    pub(super) const fn run(self) -> u32 {
        self.run
    }
}
