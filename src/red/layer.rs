//! The settings in layer form.

use tower::Layer;

use super::{
    handle::RedHandle,
    policy::RedSettings,
    service::{Red, Unlabelled},
};
use crate::{error::ConfigError, outcome::ErrorsAreTransient};

/// Builds [`Red`]s on the same figures: the layer, its clones and all services they build share them.
///
/// See the [module docs](crate::red).
#[derive(Clone, Debug)]
pub struct RedLayer<C = ErrorsAreTransient, L = Unlabelled> {
    classify: C,
    label: L,
    handle: RedHandle,
}

impl RedLayer {
    /// Figures of these settings, or of this name.
    ///
    /// # Panics
    ///
    /// If the settings cannot work; [`try_new`](Self::try_new) says so instead.
    #[must_use]
    #[track_caller]
    pub fn new(settings: impl Into<RedSettings>) -> Self {
        match Self::try_new(settings) {
            Ok(layer) => layer,
            Err(error) => panic!("{error}"),
        }
    }

    /// Figures of these settings.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_new(settings: impl Into<RedSettings>) -> Result<Self, ConfigError> {
        RedHandle::try_new(settings).map(|handle| handle.layer())
    }
}

impl<C, L> RedLayer<C, L> {
    /// Decides what an answer counts as. Defaults to [`ErrorsAreTransient`]; around a client whose error cannot be a refusal,
    /// [`EveryErrorIsTransient`](crate::EveryErrorIsTransient) asks nothing of it.
    #[must_use]
    pub fn classify<T>(self, classify: T) -> RedLayer<T, L> {
        RedLayer { classify, label: self.label, handle: self.handle }
    }

    /// Which value of the [declared label](RedSettings::label) a request has. Defaults to none, which is `"other"`.
    #[must_use]
    pub fn label_by<Req, F: Fn(&Req) -> &str>(self, label: F) -> RedLayer<C, F> {
        RedLayer { classify: self.classify, label, handle: self.handle }
    }

    /// The handle of what all clones share.
    #[must_use]
    pub fn handle(&self) -> RedHandle {
        self.handle.clone()
    }
}

impl<S, C: Clone, L: Clone> Layer<S> for RedLayer<C, L> {
    type Service = Red<S, C, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Red::new(inner, self.classify.clone(), self.label.clone(), self.handle.state.clone())
    }
}

impl RedHandle {
    /// A further layer on the same figures.
    #[must_use]
    pub fn layer(&self) -> RedLayer {
        RedLayer { classify: ErrorsAreTransient, label: Unlabelled, handle: self.clone() }
    }
}
