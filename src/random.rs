//! Seeds: the only unseeded randomness of the crate.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
};

/// Differs between calls, threads and processes.
pub(crate) fn seed() -> u64 {
    thread_local! {
        static NEXT: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
    }
    // An odd step visits every seed before it comes back to one.
    NEXT.with(|next| next.replace(next.get().wrapping_add(0x9E37_79B9_7F4A_7C15)))
}
