//! A small number of its own for each thread, for as long as the thread lives.
//!
//! What is kept per number has one writer at a time, so the writer needs plain loads and stores only. A number goes from a thread that ended
//! to a new one through a mutex: all that the first has written happens before anything the second does.

use std::{
    cell::Cell,
    sync::{Mutex, PoisonError},
};

/// How many numbers there are: a thread that comes when all are taken stays without.
pub(crate) const THREADS: usize = 64;

const NONE: usize = THREADS;
const NOT_ASKED: usize = THREADS + 1;

/// One bit for each number that nobody has.
static FREE: Mutex<u64> = Mutex::new(u64::MAX);

thread_local! {
    /// Without a destructor, so that it can be read until the very end of the thread.
    static MINE: Cell<usize> = const { Cell::new(NOT_ASKED) };
    static LEASE: Cell<Option<Lease>> = const { Cell::new(None) };
}

/// The number of this thread, below [`THREADS`]. `None` if it came too late, or is about to end.
#[inline]
pub(crate) fn index() -> Option<usize> {
    let mine = MINE.get();
    if mine < THREADS { Some(mine) } else { claim() }
}

/// As [`index`], for who does without where that is not known yet: then it is [`THREADS`] or more.
#[inline]
pub(crate) fn known() -> usize {
    MINE.get()
}

#[cold]
#[inline(never)]
fn claim() -> Option<usize> {
    if MINE.replace(NONE) == NONE {
        return None;
    }
    let lease = Lease::take()?;
    let index = lease.0;
    // Where the thread's locals are already gone nobody would end the lease: it is dropped at once.
    LEASE.try_with(move |place| place.set(Some(lease))).ok()?;
    MINE.set(index);
    Some(index)
}

/// Dropped by the thread that has it, when it ends.
struct Lease(usize);

impl Lease {
    fn take() -> Option<Self> {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let index = free.trailing_zeros() as usize;
        (index < THREADS).then(|| {
            *free &= !(1 << index);
            Self(index)
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Destructors that run after this one are no longer the owner.
        MINE.set(NONE);
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) |= 1 << self.0;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        sync::{Barrier, mpsc},
        thread,
    };

    use super::*;

    #[test]
    fn a_thread_keeps_its_index_and_nobody_else_has_it_meanwhile() {
        let together = Barrier::new(100);
        let ask = || {
            let mine = index();
            together.wait();
            assert_eq!(index(), mine);
            mine
        };
        let all: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..100).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let some: Vec<_> = all.into_iter().flatten().collect();
        assert!(some.len() <= THREADS && some.iter().all(|index| *index < THREADS));
        assert_eq!(some.iter().collect::<HashSet<_>>().len(), some.len());
    }

    /// Other tests may have all of them for a moment.
    #[test]
    fn an_index_is_reused_after_its_thread_has_ended() {
        let served = (0..20_000).filter_map(|_| thread::spawn(index).join().unwrap()).take(200);
        assert_eq!(served.count(), 200);
    }

    #[test]
    fn who_is_destroyed_after_the_lease_has_no_index_any_more() {
        struct Last(mpsc::Sender<Option<usize>>);
        impl Drop for Last {
            fn drop(&mut self) {
                self.0.send(index()).unwrap();
            }
        }
        thread_local! {
            static LAST: Cell<Option<Last>> = const { Cell::new(None) };
        }
        // Locals go in the order in which they came, or in the reverse one: one of the two goes after the lease.
        let (sender, last_words) = mpsc::channel();
        let other = sender.clone();
        thread::spawn(move || (LAST.set(Some(Last(sender))), index())).join().unwrap();
        thread::spawn(move || (index(), LAST.set(Some(Last(other))))).join().unwrap();
        assert!(last_words.iter().any(|index| index.is_none()));
    }
}
