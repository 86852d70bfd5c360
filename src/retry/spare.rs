//! Where a further attempt gets its service from.
//!
//! The first attempt goes to the service that was polled ready. For a further one a clone is needed, but hardly any call comes to that, and a
//! clone of a whole stack costs an allocation or a counted reference for each of its layers. So a call takes one reference to a spare, and
//! clones that when it must. A service that is no more than a function takes no room and no time to copy, so there not even that is needed.

use std::{
    mem::needs_drop,
    sync::{Mutex, OnceLock, PoisonError},
};

use crate::shared::Shared;

/// Of all clones of a retrying service.
pub(super) struct Spares<S>(Option<Shared<Kept<S>>>);

/// Of one call: two words, however large the service is.
pub(super) enum Spare<S> {
    /// A box of nothing takes no memory.
    Copied(Box<S>),
    Kept(Shared<Kept<S>>),
}

/// A clone that is never called and never polled. It is behind a lock because a service need not be `Sync`, and made with the first call
/// because only that may ask for `Clone`.
type Kept<S> = OnceLock<Mutex<S>>;

impl<S> Spares<S> {
    /// Whether the service is no more than a function: nothing to keep, and nothing to drop.
    const ARE_COPIES: bool = size_of::<S>() == 0 && !needs_drop::<S>();

    pub(super) fn new() -> Self {
        Self((!Self::ARE_COPIES).then(|| Shared::new(OnceLock::new())))
    }
}

impl<S: Clone> Spares<S> {
    #[inline]
    pub(super) fn take(&self, inner: &S) -> Spare<S> {
        match &self.0 {
            // What is known when it is compiled costs nothing when it runs.
            Some(kept) if !Self::ARE_COPIES => {
                if kept.get().is_none() {
                    Self::keep(kept, inner);
                }
                Spare::Kept(kept.clone())
            }
            _ => Spare::Copied(Box::new(inner.clone())),
        }
    }

    #[cold]
    #[inline(never)]
    fn keep(kept: &Kept<S>, inner: &S) {
        kept.get_or_init(|| Mutex::new(inner.clone()));
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
            Self::Copied(service) => S::clone(service),
            Self::Kept(kept) => {
                let kept = kept.get().expect("it was made before the first reference was handed out");
                kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
            }
        }
    }
}
