//! Failures in a row: one number, independent of every window.

/// A run of failures.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Consecutive {
    run: u32,
}

impl Consecutive {
    pub(super) const fn failure(&mut self) {
        self.run = self.run.saturating_add(1);
    }

    pub(super) const fn success(&mut self) {
        self.run = 0;
    }

    pub(super) const fn run(self) -> u32 {
        self.run
    }
}
