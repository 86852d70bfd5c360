//! Where the delays of a call come from.

use std::time::Duration;

use super::backoff::Backoff;

/// Where the delays of a call come from: the settings' [`Backoff`], or [`Each`].
pub trait Delays {
    /// The delays of one call.
    type Iter: Iterator<Item = Duration>;

    /// Those of a call that has failed for the first time.
    fn begin(&self, settings: &Backoff) -> Self::Iter;
}

/// The delays are those of the settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct OfSettings;

/// Each call has a clone of this iterator: [`RetryLayer::delays`](super::RetryLayer::delays).
#[derive(Clone, Copy, Debug)]
pub struct Each<I>(pub(super) I);

impl Delays for OfSettings {
    type Iter = Backoff;

    fn begin(&self, settings: &Backoff) -> Backoff {
        settings.clone()
    }
}

impl<I: Iterator<Item = Duration> + Clone> Delays for Each<I> {
    type Iter = I;

    fn begin(&self, _: &Backoff) -> I {
        self.0.clone()
    }
}
