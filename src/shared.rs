//! [`Shared<T>`]: an `Arc<T>` whose count is striped by thread.
//!
//! hyper, axum and `oneshot` clone a service for each call, and each clone counts a reference up and down. When two threads do that on one
//! word, it costs ten times what the word alone does. Here a clone counts on the stripe of the thread that makes it.
//!
//! ```text
//! Shared ──> Stripe (thread 0) ──> T
//!               │ made on first use, kept by the parent
//!               ├──> Stripe (thread 1) ──> T
//!               └──> Stripe (thread 2) ──> T
//! ```
//!
//! References go one way, from a stripe to the stripes made from it, so nothing is leaked, and a thread that clones the same original
//! again allocates nothing.

use std::{
    cell::Cell,
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering, fence},
    },
};

/// Enough that two busy threads of one machine seldom meet; more only costs memory.
const STRIPES: usize = 16;

pub(crate) struct Shared<T> {
    stripe: Arc<Stripe<T>>,
}

/// One reference count, on a cache line of its own: the alignment parts it from what the other threads read here.
#[repr(align(64))]
struct Stripe<T> {
    index: usize,
    value: Arc<T>,
    others: OnceLock<Box<[OnceLock<Arc<Self>>; STRIPES]>>,
}

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { stripe: Arc::new(Stripe::new(this_stripe(), Arc::new(value))) }
    }

    /// Whether nobody else holds a reference.
    pub(crate) fn is_unique(&self) -> bool {
        Stripe::is_idle(&self.stripe)
    }

    /// Whether both are references to the same value.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.stripe.value, &other.stripe.value)
    }
}

impl<T> Clone for Shared<T> {
    #[inline]
    fn clone(&self) -> Self {
        let here = this_stripe();
        Self { stripe: if self.stripe.index == here { Arc::clone(&self.stripe) } else { self.stripe.other(here) } }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.stripe.value
    }
}

impl<T> Stripe<T> {
    const fn new(index: usize, value: Arc<T>) -> Self {
        Self { index, value, others: OnceLock::new() }
    }

    #[inline]
    fn other(&self, index: usize) -> Arc<Self> {
        match self.others.get().and_then(|others| others[index].get()) {
            Some(stripe) => Arc::clone(stripe),
            None => self.make(index),
        }
    }

    #[cold]
    #[inline(never)]
    fn make(&self, index: usize) -> Arc<Self> {
        let others = self.others.get_or_init(|| Box::new([const { OnceLock::new() }; STRIPES]));
        let stripe = others[index].get_or_init(|| Arc::new(Self::new(index, Arc::clone(&self.value))));
        Arc::clone(stripe)
    }

    /// Whether nobody uses the stripe, which its owner counts on itself, or one that was made from it.
    fn is_idle(stripe: &Arc<Self>) -> bool {
        if Arc::strong_count(stripe) > 1 {
            return false;
        }
        // Who has just let go of this stripe may have moved to another one before, and that one must be seen then.
        fence(Ordering::Acquire);
        stripe.others.get().is_none_or(|others| others.iter().filter_map(OnceLock::get).all(Self::is_idle))
    }
}

/// The stripe of this thread: threads take turns.
#[inline]
fn this_stripe() -> usize {
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(STRIPES) };
    }
    MINE.with(|mine| match mine.get() {
        STRIPES => next_stripe(mine),
        index => index,
    })
}

#[cold]
fn next_stripe(mine: &Cell<usize>) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let index = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
    mine.set(index);
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counted<'a>(&'a AtomicUsize);

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_value_is_dropped_once_with_the_last_clone_of_any_thread() {
        let drops = AtomicUsize::new(0);
        let original = Shared::new(Counted(&drops));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let clone = original.clone();
                    let second = clone.clone();
                    assert!(second.same(&original));
                    assert!(!original.is_unique());
                });
            }
        });
        assert!(original.is_unique());
        let last = original.clone();
        drop(original);
        assert_eq!(drops.load(Ordering::Relaxed), 0);
        drop(last);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_clone_outlives_the_original_on_another_thread() {
        let original = Shared::new(7);
        let clone = std::thread::scope(|scope| scope.spawn(|| original.clone()).join().unwrap());
        drop(original);
        assert_eq!(*clone, 7);
        assert!(clone.is_unique());
    }

    #[test]
    fn cloning_the_same_original_again_allocates_nothing() {
        let original = Shared::new(7);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                drop(original.clone());
                let again = allocation_counter::measure(|| drop(original.clone()));
                assert_eq!(again.count_total, 0);
            });
        });
    }
}
