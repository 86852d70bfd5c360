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
//! Places are never freed but let again, under another number, so an old address finds nobody. There are some 80 bytes for each home that there
//! ever was at a time, and [`SPARE`] more, so that what stays, stays for a while.

use std::{
    any::Any,
    collections::VecDeque,
    fmt,
    marker::PhantomData,
    mem,
    num::NonZeroU64,
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::shared::Shared;

/// Keeps a value and its address. Clones share both, and the last one takes them along.
pub(crate) struct Home<T: Resident> {
    house: Shared<House<T>>,
    /// Here too, because each step on the way there costs.
    place: &'static Place,
    address: Address<T>,
}

/// What lives in a home.
pub(crate) trait Resident: Send + Sync + 'static {
    /// Whether it stays for a while when all its homes are gone: it must not if anybody waits for its going. What does not last is kept by
    /// the calls.
    fn lasts(&self) -> bool;
}

/// Where a value is to be found, if it is still there: the index of its place in [`PLACES`], and in the lower half which tenant it is there. One word,
/// because every call takes it along.
pub(crate) struct Address<T> {
    number: NonZeroU64,
    of: PhantomData<fn() -> T>,
}

/// What a call has of what its layer shares.
pub(crate) enum Link<T: Resident> {
    Address(Address<T>),
    Kept(Kept<T>),
}

/// A counted reference.
pub(crate) type Kept<T> = Shared<House<T>>;

pub(crate) struct House<T: Resident> {
    value: Arc<T>,
    place: &'static Place,
}

struct Place {
    index: u32,
    tenant: Mutex<Tenant>,
    /// Whether calls keep who lives here now. It stands for nothing else, and only who has a home here asks.
    kept: AtomicBool,
    /// See [`Home::at_hand`].
    at_hand: AtomicU64,
}

/// Who lives in a place, and how many tenants there were, this one included.
struct Tenant {
    number: u32,
    value: Value,
}

enum Value {
    None,
    Present(Weak<dyn Any + Send + Sync>),
    /// Left behind.
    Lasting(Arc<dyn Any + Send + Sync>),
}

/// All places there are.
static PLACES: RwLock<Vec<&'static Place>> = RwLock::new(Vec::new());

/// Places where nobody lives, those that were left first in front.
static VACANT: Mutex<VecDeque<&'static Place>> = Mutex::new(VecDeque::new());

/// How many places stay vacant before one is let again.
const SPARE: usize = 256;

// ===== impl Home =====

impl<T: Resident> Home<T> {
    pub(crate) fn new(value: T) -> Self {
        let place = vacant().unwrap_or_else(Place::new);
        let value = Arc::new(value);
        let weak: Weak<T> = Arc::downgrade(&value);
        let mut tenant = place.lock();
        let next = Tenant { number: tenant.number + 1, value: Value::Present(weak) };
        let left = mem::replace(&mut *tenant, next);
        let address = Address::new(place.index, tenant.number);
        drop(tenant);
        // What was left behind goes under no lock.
        drop(left);
        let home = Self { house: Shared::new(House { value, place }), place, address };
        home.change(|_| ());
        home.put_at_hand(0);
        home
    }

    /// A number that every call reads: it is one step away, where the value is four.
    #[inline]
    pub(crate) fn at_hand(&self) -> u64 {
        // Relaxed, because it stands for nothing else.
        self.place.at_hand.load(Ordering::Relaxed)
    }

    pub(crate) fn put_at_hand(&self, number: u64) {
        self.place.at_hand.store(number, Ordering::Relaxed);
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
        if self.place.kept.load(Ordering::Acquire) { Link::Kept(self.keep()) } else { Link::Address(self.address) }
    }

    #[cold]
    #[inline(never)]
    fn keep(&self) -> Kept<T> {
        self.house.clone()
    }

    /// Changes the value, and asks again whether it lasts.
    pub(crate) fn change(&self, change: impl FnOnce(&T)) {
        change(self);
        self.place.kept.store(!self.lasts(), Ordering::Release);
    }
}

impl<T: Resident> Clone for Home<T> {
    #[inline]
    fn clone(&self) -> Self {
        Self { house: self.house.clone(), place: self.place, address: self.address }
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
            tenant.value = Value::None;
        }
        let full = tenant.number == u32::MAX;
        drop(tenant);
        if full {
            // The next tenant would have the number of the first.
            return;
        }
        VACANT.lock().unwrap_or_else(PoisonError::into_inner).push_back(place);
    }
}

impl Place {
    fn new() -> &'static Self {
        let mut places = PLACES.write().unwrap_or_else(PoisonError::into_inner);
        // Each takes memory of its own, so there are never so many.
        let index = u32::try_from(places.len()).unwrap_or(u32::MAX);
        let tenant = Mutex::new(Tenant { number: 0, value: Value::None });
        let place = Self { index, tenant, kept: AtomicBool::new(false), at_hand: AtomicU64::new(0) };
        let place = Box::leak(Box::new(place));
        places.push(place);
        place
    }

    fn lock(&self) -> MutexGuard<'_, Tenant> {
        self.tenant.lock().unwrap_or_else(PoisonError::into_inner)
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

impl<T: Resident> Clone for Link<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Address(address) => Self::Address(*address),
            Self::Kept(house) => Self::Kept(house.clone()),
        }
    }
}

impl<T: Resident> Address<T> {
    fn new(place: u32, tenant: u32) -> Self {
        let number = NonZeroU64::new(u64::from(place) << 32 | u64::from(tenant)).expect("tenants are counted from one");
        Self { number, of: PhantomData }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn find(self) -> Option<Arc<T>> {
        let number = self.number.get();
        let place = *PLACES.read().unwrap_or_else(PoisonError::into_inner).get((number >> 32) as usize)?;
        let tenant = place.lock();
        if u64::from(tenant.number) != number & u64::from(u32::MAX) {
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

    /// The same for all addresses of one home, and no other's. Never 0.
    #[inline]
    pub(crate) const fn id(self) -> u64 {
        self.number.get()
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
    fn what_is_at_hand_goes_with_the_tenant() {
        for n in 1..4 * SPARE as u64 {
            let home = Home::new(Plain(n));
            assert_eq!(home.at_hand(), 0);
            home.put_at_hand(n);
            assert_eq!(home.clone().at_hand(), n);
        }
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
