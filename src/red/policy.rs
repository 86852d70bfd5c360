//! The settings: a small value.

use crate::error::ConfigError;

/// What the figures of a layer are called.
///
/// # Defaults
///
/// | setting | default |
/// |---|---|
/// | [`new`](Self::new): the name | none: figures without one are of no use |
/// | [`label`](Self::label) | none |
///
/// A `&'static str` is these settings with their defaults.
#[derive(Clone, Copy, Debug)]
pub struct RedSettings {
    pub(super) name: &'static str,
    pub(super) label: Option<(&'static str, &'static [&'static str])>,
}

/// What a request is labelled with whose label is not declared.
pub(super) const OTHER: &str = "other";

/// Each value has series and counters of its own.
const MOST_VALUES: usize = 100;

impl RedSettings {
    /// Figures of this name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, label: None }
    }

    /// Tells requests apart by a label with one of these values, at most 100; every other request is `"other"`. Which one a request has is what
    /// [`RedLayer::label_by`](super::RedLayer::label_by) says. Defaults to no label.
    #[must_use]
    pub const fn label(mut self, key: &'static str, values: &'static [&'static str]) -> Self {
        self.label = Some((key, values));
        self
    }

    /// The values of the label, sorted and each once, and behind them the other one.
    pub(super) fn check(&self) -> Result<Option<(&'static str, Box<[&'static str]>)>, ConfigError> {
        let Some((key, values)) = self.label else {
            return Ok(None);
        };
        if ["", "name", "outcome", "reason", "le", "quantile"].contains(&key) {
            return Err(ConfigError::new("label", "the key is empty or taken"));
        }
        if values.len() > MOST_VALUES {
            return Err(ConfigError::new("label", "it has more than 100 values"));
        }
        let mut values: Vec<_> = values.iter().copied().filter(|value| *value != OTHER).collect();
        values.sort_unstable();
        values.dedup();
        values.push(OTHER);
        Ok(Some((key, values.into())))
    }
}

impl From<&'static str> for RedSettings {
    fn from(name: &'static str) -> Self {
        Self::new(name)
    }
}
