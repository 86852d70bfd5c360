//! [`Address<T>`]: a way back to something that may be gone, for the price of a copy.
//!
//! A call needs what its layer shares (who listens, the budget) only when something goes wrong. A counted reference would cost it two atomic
//! steps all the same, more than the rest of a good call. So it takes an address along, and asks there when it has to.
//!
//! Who has listeners of its own is kept for the call all the same: an event that nobody hears because a service was used once and dropped would
//! be a riddle.
//!
//! A [lasting](Resident::lasts) value is plain data that a call is to find even when it is the last that knows of it, as after a shutdown with calls
//! under way: it stays in its place until that is let to another.
//!
//! Places are never freed but let again, under another number, so an old address finds nobody. There are some 64 bytes for each home that there
//! ever was at a time, and [`SPARE`] more, so that what stays, stays for a while.

use std::{
    any::Any,
    collections::VecDeque,
    fmt,
    marker::PhantomData,
    mem,
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::shared::Shared;

/// Keeps a value and its address. Clones share both, and the last one takes them along.
pub(crate) struct Home<T: Resident> {
    house: Shared<House<T>>,
    /// Here too, because each step on the way there costs.
    address: Address<T>,
}

/// What lives in a home.
pub(crate) trait Resident: Send + Sync + 'static {
    /// Whether it stays for a while when all its homes are gone: it must not if anybody waits for its going. What does not last is kept by
    /// the calls.
    fn lasts(&self) -> bool;
}

/// Where a value is to be found, if it is still there.
pub(crate) struct Address<T> {
    place: &'static Place,
    number: u64,
    of: PhantomData<fn() -> T>,
}

/// What a call has of what its layer shares.
pub(crate) enum Link<T: Resident> {
    Address(Address<T>),
    Kept(Shared<House<T>>),
}

pub(crate) struct House<T: Resident> {
    value: Arc<T>,
    place: &'static Place,
}

struct Place {
    tenant: Mutex<Tenant>,
    /// Whether calls keep who lives here now. It stands for nothing else, and only who has a home here asks.
    kept: AtomicBool,
}

/// Who lives in a place, and the number of tenants there were before.
struct Tenant {
    number: u64,
    value: Value,
}

enum Value {
    None,
    Present(Weak<dyn Any + Send + Sync>),
    /// Left behind.
    Lasting(Arc<dyn Any + Send + Sync>),
}

/// Places where nobody lives, those that were left first in front.
static VACANT: Mutex<VecDeque<&'static Place>> = Mutex::new(VecDeque::new());

/// How many places stay vacant before one is let again.
const SPARE: usize = 256;

// ===== impl Home =====

impl<T: Resident> Home<T> {
    pub(crate) fn new(value: T) -> Self {
        let place = vacant().unwrap_or_else(|| Box::leak(Box::new(Place::new())));
        let value = Arc::new(value);
        let weak: Weak<T> = Arc::downgrade(&value);
        let mut tenant = place.lock();
        let next = Tenant { number: tenant.number + 1, value: Value::Present(weak) };
        let left = mem::replace(&mut *tenant, next);
        let address = Address { place, number: tenant.number, of: PhantomData };
        drop(tenant);
        // What was left behind goes under no lock.
        drop(left);
        let home = Self { house: Shared::new(House { value, place }), address };
        home.change(|_| ());
        home
    }

    #[inline]
    pub(crate) const fn address(&self) -> Address<T> {
        self.address
    }

    /// A reference that is counted in one place for all threads.
    pub(crate) fn value(&self) -> &Arc<T> {
        &self.house.value
    }

    /// A way back, or a reference where the value does not last, which costs more.
    #[inline]
    pub(crate) fn link(&self) -> Link<T> {
        if self.address.place.kept.load(Ordering::Acquire) {
            Link::Kept(self.keep())
        } else {
            Link::Address(self.address)
        }
    }

    #[cold]
    #[inline(never)]
    fn keep(&self) -> Shared<House<T>> {
        self.house.clone()
    }

    /// Changes the value, and asks again whether it lasts.
    pub(crate) fn change(&self, change: impl FnOnce(&T)) {
        change(self);
        self.address.place.kept.store(!self.lasts(), Ordering::Release);
    }
}

impl<T: Resident> Clone for Home<T> {
    #[inline]
    fn clone(&self) -> Self {
        Self { house: self.house.clone(), address: self.address }
    }
}

impl<T: Resident> Deref for Home<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.house.value
    }
}

impl<T: Resident + fmt::Debug> fmt::Debug for Home<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Resident> Drop for House<T> {
    fn drop(&mut self) {
        let place = self.place;
        let mut tenant = place.lock();
        if self.value.lasts() {
            let value: Arc<T> = Arc::clone(&self.value);
            tenant.value = Value::Lasting(value);
        } else {
            *tenant = Tenant::none(tenant.number + 1);
        }
        drop(tenant);
        VACANT.lock().unwrap_or_else(PoisonError::into_inner).push_back(place);
    }
}

impl Place {
    const fn new() -> Self {
        Self { tenant: Mutex::new(Tenant::none(0)), kept: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Tenant> {
        self.tenant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tenant {
    const fn none(number: u64) -> Self {
        Self { number, value: Value::None }
    }
}

fn vacant() -> Option<&'static Place> {
    let mut vacant = VACANT.lock().unwrap_or_else(PoisonError::into_inner);
    if vacant.len() > SPARE { vacant.pop_front() } else { None }
}

// ===== impl Link =====

impl<T: Resident> Link<T> {
    /// The value, unless it was not kept and all its homes are gone.
    #[cold]
    #[inline(never)]
    pub(crate) fn find(&self) -> Option<Arc<T>> {
        match self {
            Self::Address(address) => address.find(),
            Self::Kept(house) => Some(Arc::clone(&house.value)),
        }
    }
}

impl<T: Resident> Address<T> {
    #[cold]
    #[inline(never)]
    pub(crate) fn find(self) -> Option<Arc<T>> {
        let tenant = self.place.lock();
        if tenant.number != self.number {
            return None;
        }
        let value = match &tenant.value {
            Value::None => None,
            Value::Present(value) => value.upgrade(),
            Value::Lasting(value) => Some(Arc::clone(value)),
        };
        drop(tenant);
        value?.downcast().ok()
    }

    /// The same for all addresses of one place, and never 0.
    #[inline]
    pub(crate) fn id(self) -> u64 {
        std::ptr::from_ref(self.place).addr() as u64
    }
}

impl<T> Clone for Address<T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Address<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain<T>(T);
    struct Lasting(u32);

    impl<T: Send + Sync + 'static> Resident for Plain<T> {
        fn lasts(&self) -> bool {
            false
        }
    }

    impl Resident for Lasting {
        fn lasts(&self) -> bool {
            true
        }
    }

    #[test]
    fn an_address_finds_the_value_as_long_as_anybody_keeps_it() {
        let home = Home::new(Plain(7_u32));
        let (address, clone) = (home.address(), home.clone());
        drop(home);
        assert_eq!(address.find().map(|found| found.0), Some(7));
        let kept = clone.link();
        drop(clone);
        assert_eq!(kept.find().map(|found| found.0), Some(7));
        drop(kept);
        assert!(address.find().is_none());
    }

    #[test]
    fn a_value_that_lasts_no_longer_is_kept_by_the_calls_that_follow() {
        struct Changing(AtomicBool);
        impl Resident for Changing {
            fn lasts(&self) -> bool {
                self.0.load(Ordering::Relaxed)
            }
        }
        let home = Home::new(Changing(AtomicBool::new(true)));
        assert!(matches!(home.link(), Link::Address(_)));
        home.clone().change(|value| value.0.store(false, Ordering::Relaxed));
        let kept = home.link();
        drop(home);
        assert!(kept.find().is_some());
    }

    #[test]
    fn a_link_is_two_words() {
        assert_eq!(size_of::<Link<Plain<u64>>>(), 16);
    }

    #[test]
    fn a_lasting_value_stays_until_its_place_is_let_again() {
        // Other tests let places too, and may come to this one at once.
        let address = std::iter::repeat_with(|| Home::new(Lasting(7)).address())
            .take(1_000)
            .find(|address| address.find().is_some_and(|found| found.0 == 7))
            .expect("it never stays");
        let others: Vec<_> = (0..2 * SPARE).map(|n| Home::new(Plain(n))).collect();
        drop(others);
        // Each of these comes to the end of the queue, so all that were in it have had their turn.
        let more: Vec<_> = (0..4 * SPARE).map(|n| Home::new(Plain(n))).collect();
        assert!(address.find().is_none());
        drop(more);
    }

    #[test]
    fn an_old_address_never_finds_the_next_tenant() {
        let old: Vec<_> = (0..100).map(|n| Home::new(Plain(n)).address()).collect();
        let _next: Vec<_> = (0..100_u64).map(|n| Home::new(Plain(n))).collect();
        assert!(old.iter().all(|address: &Address<Plain<u64>>| address.find().is_none()));
    }

    #[test]
    fn places_are_let_again() {
        // Other tests let places too, so only the bound is known.
        let count = || VACANT.lock().unwrap().len();
        let first: Vec<_> = (0..50).map(|n| Home::new(Plain(n))).collect();
        drop(first);
        let before = count();
        for n in 0..10_000 {
            drop(Home::new(Plain(n)));
        }
        assert!(count() < before + 10 * SPARE);
    }
}
