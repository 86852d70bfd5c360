//! Locks and atomics, as std has them or as loom models them (`--cfg buttress_loom`).

#[cfg(not(buttress_loom))]
use std::sync::Mutex as Inner;
#[cfg(not(buttress_loom))]
pub(crate) use std::sync::MutexGuard;
#[cfg(not(buttress_loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(buttress_loom)]
use loom::sync::Mutex as Inner;
#[cfg(buttress_loom)]
pub(crate) use loom::sync::MutexGuard;
#[cfg(buttress_loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};

use std::sync::PoisonError;

/// A mutex that a panic does not poison: no user code runs under it, and what it guards is whole between any two statements.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(Inner<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Inner::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
