//! What is kept of an answer, and for how long.

use std::{sync::Arc, time::Duration};

/// What is to be kept of an answer. A [`Duration`] is that ttl, and `None` is [`Keep::never`].
///
/// ```
/// use std::time::Duration;
/// use buttress::cache::Keep;
///
/// let keep = Keep::default().ttl(Duration::from_secs(5)).tag("user-7");
/// # let _ = keep;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Keep {
    pub(super) span: Span,
    pub(super) tags: Vec<Box<str>>,
}

/// For how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Span {
    #[default]
    OfSettings,
    Negative,
    For(Duration),
    Never,
}

/// The tags of an entry.
pub(super) type Tags = Arc<[Box<str>]>;

impl Keep {
    /// Nothing: the answer is passed on, and not stored.
    #[must_use]
    pub const fn never() -> Self {
        Self { span: Span::Never, tags: Vec::new() }
    }

    /// For the [`negative_ttl`](super::CacheSettings::negative_ttl), and not at all without one: for an answer that is a success in name only, such as
    /// an empty list.
    #[must_use]
    pub const fn negative() -> Self {
        Self { span: Span::Negative, tags: Vec::new() }
    }

    /// Fresh for so long. Zero stores nothing.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.span = if ttl.is_zero() { Span::Never } else { Span::For(ttl) };
        self
    }

    /// Adds a tag to [invalidate](super::CacheHandle::invalidate_tag) by.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<Box<str>>) -> Self {
        self.tags.push(tag.into());
        self
    }
}

impl From<Duration> for Keep {
    fn from(ttl: Duration) -> Self {
        Self::default().ttl(ttl)
    }
}

impl From<Option<Duration>> for Keep {
    fn from(ttl: Option<Duration>) -> Self {
        ttl.map_or_else(Self::never, Self::from)
    }
}
