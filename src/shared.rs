//! [`Shared<T>`]: an `Arc<T>` whose count is striped by thread.
//!
//! hyper, axum and `oneshot` clone a service for each call, and each clone counts a reference up and down. When two threads do that on one
//! word, neither has it at hand any more. Here a clone counts on the stripe of the thread that makes it.
//!
//! ```text
//! Shared ──> Stripe (thread 0, the original) ──> T
//!               │ made on first use, kept by the original
//!               ├──> Stripe (thread 1) ──> T
//!               └──> Stripe (thread 2) ──> T
//! ```
//!
//! Only the original keeps others, and these know it weakly, so nothing is leaked and no chain grows, however often a clone of a clone
//! moves to another thread. Once the original is gone, a clone that moves stays on the stripe it came from: slower, and as right.

use std::{
    cell::Cell,
    ops::Deref,
    sync::{
        Arc, OnceLock, Weak,
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
    /// `None` in the original itself.
    original: Option<Weak<Self>>,
    /// Empty in all but the original.
    others: OnceLock<Box<[OnceLock<Arc<Self>>; STRIPES]>>,
    /// How often somebody went from one stripe of this original to another.
    moves: AtomicUsize,
}

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { stripe: Arc::new(Stripe::new(this_stripe(), Arc::new(value), None)) }
    }

    /// Whether this is the original and nobody else holds a reference.
    pub(crate) fn is_unique(&self) -> bool {
        let stripe = &self.stripe;
        // Who goes from a stripe that is still to be counted to one that has been would be missed, but for the count of moves.
        let moves = stripe.moves.load(Ordering::SeqCst);
        if stripe.original.is_some() || Arc::strong_count(stripe) > 1 {
            return false;
        }
        // Who has just left the original for another stripe, perhaps the first other one, is to be seen there.
        fence(Ordering::SeqCst);
        let mut others = stripe.others.get().into_iter().flat_map(|others| others.iter().filter_map(OnceLock::get));
        if others.any(|other| Arc::strong_count(other) > 1) {
            return false;
        }
        fence(Ordering::SeqCst);
        stripe.moves.load(Ordering::SeqCst) == moves && Arc::strong_count(stripe) == 1
    }

    /// A reference that is counted in one place for all threads.
    #[cfg_attr(not(feature = "rate-limit"), allow(dead_code))]
    pub(crate) fn value(&self) -> &Arc<T> {
        &self.stripe.value
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
        Self { stripe: if self.stripe.index == here { Arc::clone(&self.stripe) } else { self.stripe.on(here) } }
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
    const fn new(index: usize, value: Arc<T>, original: Option<Weak<Self>>) -> Self {
        Self { index, value, original, others: OnceLock::new(), moves: AtomicUsize::new(0) }
    }

    /// A reference on the stripe of another thread.
    #[inline]
    fn on(self: &Arc<Self>, index: usize) -> Arc<Self> {
        match self.others.get().and_then(|others| others[index].get()) {
            Some(stripe) => Arc::clone(stripe),
            None => self.find(index),
        }
    }

    #[cold]
    #[inline(never)]
    fn find(self: &Arc<Self>, index: usize) -> Arc<Self> {
        let Some(original) = &self.original else {
            return self.make(index);
        };
        let Some(original) = original.upgrade() else {
            return Arc::clone(self);
        };
        original.moves.fetch_add(1, Ordering::SeqCst);
        if original.index == index { original } else { original.make(index) }
    }

    fn make(self: &Arc<Self>, index: usize) -> Arc<Self> {
        let others = self.others.get_or_init(|| Box::new([const { OnceLock::new() }; STRIPES]));
        let make = || Arc::new(Self::new(index, Arc::clone(&self.value), Some(Arc::downgrade(self))));
        Arc::clone(others[index].get_or_init(make))
    }
}

/// The stripe of this thread: threads take turns.
#[inline]
pub(crate) fn this_stripe() -> usize {
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
    }

    /// tower's `mem::replace(&mut self.inner, self.inner.clone())` on a runtime that steals work does just this.
    #[test]
    fn a_clone_of_a_clone_that_moves_from_thread_to_thread_leaves_no_trail() {
        let original = Shared::new(7);
        let mut clone = original.clone();
        for _ in 0..2_000 {
            clone = std::thread::scope(|scope| scope.spawn(|| clone.clone()).join().unwrap());
        }
        let kept = original.stripe.others.get().unwrap();
        assert!(kept.iter().filter_map(OnceLock::get).all(|stripe| stripe.others.get().is_none()));
        drop(clone);
        assert!(original.is_unique());

        // Without the original it stays where it is.
        let mut clone = std::thread::scope(|scope| scope.spawn(|| original.clone()).join().unwrap());
        drop(original);
        for _ in 0..100 {
            clone = std::thread::scope(|scope| scope.spawn(|| clone.clone()).join().unwrap());
        }
        assert_eq!((*clone, Arc::strong_count(&clone.stripe)), (7, 1));
    }

    /// A handle that moves from stripe to stripe while somebody counts them.
    #[test]
    fn unique_is_never_said_while_a_clone_lives() {
        let original = Shared::new(7);
        std::thread::scope(|scope| {
            let mut clone = original.clone();
            let moving = scope.spawn(move || {
                for _ in 0..300 {
                    clone = std::thread::scope(|scope| scope.spawn(|| clone.clone()).join().unwrap());
                }
                clone
            });
            while !moving.is_finished() {
                assert!(!original.is_unique());
            }
            drop(moving.join().unwrap());
        });
        assert!(original.is_unique());
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
