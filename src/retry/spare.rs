//! Where a further attempt gets its service from.
//!
//! The first attempt goes to the service that was polled ready. For a further one a clone is needed, but hardly any call comes to that, and a
//! clone of a whole stack costs an allocation or a counted reference for each of its layers. So a call takes one reference to a spare, and
//! clones that when it must. A service without a destructor holds no reference and no memory, so there a copy is cheaper still.

use std::{
    mem::needs_drop,
    sync::{Mutex, OnceLock, PoisonError},
};

use crate::shared::Shared;

/// Of all clones of a retrying service.
pub(super) struct Spares<S>(Option<Shared<Kept<S>>>);

/// Of one call.
pub(super) enum Spare<S> {
    Copied(S),
    Kept(Shared<Kept<S>>),
}

/// A clone that is never called and never polled. It is behind a lock because a service need not be `Sync`, and made with the first call
/// because only that may ask for `Clone`.
type Kept<S> = OnceLock<Mutex<S>>;

impl<S> Spares<S> {
    pub(super) fn new() -> Self {
        Self(needs_drop::<S>().then(|| Shared::new(OnceLock::new())))
    }
}

impl<S: Clone> Spares<S> {
    /// A reference, for a service with a destructor.
    #[inline]
    pub(super) fn refer(&self, inner: &S) -> Shared<Kept<S>> {
        match &self.0 {
            Some(kept) if kept.get().is_some() => kept.clone(),
            _ => self.keep(inner),
        }
    }

    #[cold]
    #[inline(never)]
    fn keep(&self, inner: &S) -> Shared<Kept<S>> {
        let kept = self.0.clone().unwrap_or_else(|| Shared::new(OnceLock::new()));
        kept.get_or_init(|| Mutex::new(inner.clone()));
        kept
    }
}

impl<S> Clone for Spares<S> {
    #[inline]
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Clone> Spare<S> {
    /// A service of its own for an attempt, with no readiness yet.
    ///
    /// The service's `clone` runs under the lock. It is user code, but there is no other way to clone what is not `Sync`; it would have to call
    /// this very service to block itself.
    #[cold]
    pub(super) fn service(&self) -> S {
        match self {
            Self::Copied(service) => service.clone(),
            Self::Kept(kept) => {
                let kept = kept.get().expect("it was made before the first reference was handed out");
                kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
            }
        }
    }
}
