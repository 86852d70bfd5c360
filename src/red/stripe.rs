//! What one thread has counted, and the stripes of all threads.
//!
//! An atomic addition costs several times what a load and a store do, and far more when two threads share the word. So every thread has a
//! stripe of which it is the only writer, and who wants the figures adds the stripes up. A call may end on another thread than it began on.
//!
//! ```text
//! Stripes ──> Stripe (thread 0): begun, ended by outcome, seconds, buckets
//!        │ made on first use
//!        ├──> Stripe (thread 1)
//!        └──> Stripe (all threads without an index, one at a time)
//! ```

use std::{
    array,
    sync::{OnceLock, atomic},
};

use super::{
    buckets::{self, BUCKETS},
    seconds::Seconds,
};
use crate::{
    event::{ENDINGS, Ending},
    sync::{AtomicU64, Mutex, Ordering},
    thread_slot::{self, THREADS},
    time::Instant,
};

pub(super) struct Stripes {
    stripes: [OnceLock<Box<Stripe>>; THREADS + 1],
    /// Makes its holder the one writer of the last stripe.
    last: Mutex<()>,
}

/// On cache lines of its own. Only its thread writes.
#[repr(align(128))]
struct Stripe {
    begun: AtomicU64,
    ended: [AtomicU64; ENDINGS],
    seconds: Seconds,
    durations: Durations,
}

/// Plain atomics also under loom: they are counted one by one, and what they are to each other is not promised while calls end.
struct Durations {
    nanos: atomic::AtomicU64,
    longest: atomic::AtomicU64,
    buckets: Box<[atomic::AtomicU64]>,
}

/// The sum of stripes.
#[derive(Clone, Debug)]
pub(super) struct Total {
    pub(super) begun: u64,
    pub(super) ended: [u64; ENDINGS],
    pub(super) nanos: u128,
    pub(super) longest: u64,
    pub(super) buckets: Box<[u64]>,
}

// ===== impl Stripes =====

impl Stripes {
    pub(super) fn new() -> Self {
        Self { stripes: [const { OnceLock::new() }; THREADS + 1], last: Mutex::new(()) }
    }

    /// A call begins on this thread.
    #[inline]
    pub(super) fn begin(&self, now: Instant) {
        self.begin_as(thread_slot::index(), now);
    }

    /// A call ends on this thread. Without a duration it is only counted.
    #[inline]
    pub(super) fn end(&self, ending: Ending, took: Option<u64>) {
        self.end_as(thread_slot::index(), ending, took);
    }

    #[inline]
    pub(super) fn begin_as(&self, index: Option<usize>, now: Instant) {
        self.with(index, |stripe| {
            stripe.seconds.see(now, stripe.begun.load(Ordering::Relaxed));
            add(&stripe.begun);
        });
    }

    #[inline]
    pub(super) fn end_as(&self, index: Option<usize>, ending: Ending, took: Option<u64>) {
        self.with(index, |stripe| {
            if let Some(nanos) = took {
                stripe.durations.add(nanos);
            }
            add(&stripe.ended[ending.index()]);
        });
    }

    #[inline]
    fn with(&self, index: Option<usize>, write: impl Fn(&Stripe)) {
        match index {
            Some(index) => write(self.stripe(index)),
            None => {
                let _writer = self.last.lock();
                write(self.stripe(THREADS));
            }
        }
    }

    #[inline]
    fn stripe(&self, index: usize) -> &Stripe {
        match self.stripes[index].get() {
            Some(stripe) => stripe,
            None => self.make(index),
        }
    }

    #[cold]
    #[inline(never)]
    fn make(&self, index: usize) -> &Stripe {
        self.stripes[index].get_or_init(|| Box::new(Stripe::new()))
    }

    fn all(&self) -> impl Iterator<Item = &Stripe> {
        self.stripes.iter().filter_map(|stripe| stripe.get().map(|stripe| &**stripe))
    }

    /// Adds what is in them to the total.
    ///
    /// What has ended is read before what has begun: a call that is seen to have ended is then seen to have begun, on whatever thread. So there
    /// are never more that have ended than have begun.
    pub(super) fn add_to(&self, total: &mut Total) {
        for stripe in self.all() {
            for (sum, count) in total.ended.iter_mut().zip(&stripe.ended) {
                *sum += count.load(Ordering::Acquire);
            }
        }
        for stripe in self.all() {
            total.begun += stripe.begun.load(Ordering::Acquire);
            stripe.durations.add_to(total);
        }
    }

    /// How many calls began from the first of these seconds on, and before the second.
    pub(super) fn begun_within(&self, from: u64, until: u64) -> u64 {
        let of = |stripe: &Stripe| {
            let begun = stripe.begun.load(Ordering::Acquire);
            let before = |second| stripe.seconds.begun_before(second, begun);
            before(until).saturating_sub(before(from))
        };
        self.all().map(of).sum()
    }
}

// ===== impl Stripe =====

impl Stripe {
    fn new() -> Self {
        Self {
            begun: AtomicU64::new(0),
            ended: array::from_fn(|_| AtomicU64::new(0)),
            seconds: Seconds::new(),
            durations: Durations {
                nanos: atomic::AtomicU64::new(0),
                longest: atomic::AtomicU64::new(0),
                buckets: (0..BUCKETS).map(|_| atomic::AtomicU64::new(0)).collect(),
            },
        }
    }
}

/// Nobody else writes, so nothing is lost between the two.
#[inline]
fn add(count: &AtomicU64) {
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Release);
}

impl Durations {
    #[inline]
    fn add(&self, nanos: u64) {
        use atomic::Ordering::Relaxed;
        self.nanos.store(self.nanos.load(Relaxed).saturating_add(nanos), Relaxed);
        if nanos > self.longest.load(Relaxed) {
            self.longest.store(nanos, Relaxed);
        }
        let bucket = &self.buckets[buckets::index(nanos)];
        bucket.store(bucket.load(Relaxed) + 1, Relaxed);
    }

    fn add_to(&self, total: &mut Total) {
        use atomic::Ordering::Relaxed;
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Relaxed);
        }
        total.nanos += u128::from(self.nanos.load(Relaxed));
        total.longest = total.longest.max(self.longest.load(Relaxed));
    }
}

// ===== impl Total =====

impl Total {
    pub(super) fn new() -> Self {
        Self { begun: 0, ended: [0; ENDINGS], nanos: 0, longest: 0, buckets: vec![0; BUCKETS].into() }
    }
}
