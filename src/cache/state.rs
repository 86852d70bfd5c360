//! What clones share: the store, the loads under way, and who listens.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use super::{
    entry::{Content, Entry, Failure},
    flight::{Flight, Landed, Place},
    hashed::{BuildAsItIs, Hashed, Look as LookAt},
    life::{Life, Times},
    policy::CacheSettings,
    stats::{CacheStats, Counts, add},
    status::{CacheStatus, WhyStale},
    store::{Put, Store},
    tags::Marks,
};
use crate::{
    error::{ConfigError, LoadFailure, Reason, Rejected},
    event::{Calls, EventKind, Events, Pattern, guarded, note_cache},
    random,
    sync::{AtomicU64, Mutex, Ordering},
    time::{self, Instant},
};

pub(super) struct State<K, V, St> {
    pub(super) settings: CacheSettings,
    pub(super) store: St,
    pub(super) events: Events,
    pub(super) counts: Counts,
    hasher: RandomState,
    flights: Mutex<Flights<K, V>>,
    /// Numbers loads and invalidations in the order in which they began.
    generations: AtomicU64,
    marks: Marks,
    pub(super) loads: Arc<AtomicUsize>,
    pub(super) waiters: Arc<AtomicUsize>,
}

type Flights<K, V> = HashMap<Hashed<K>, Arc<Flight<V>>, BuildAsItIs>;

/// What a call finds.
pub(super) enum Look<V> {
    /// The answer.
    Serve(Entry<V>, CacheStatus),
    /// The answer, and it is to be loaded anew.
    Refresh(Entry<V>, CacheStatus),
    /// It is to be loaded. There may be a stale answer in case that fails.
    Load(Option<Entry<V>>),
}

/// Who loads.
pub(super) enum Join<V> {
    Lead(Arc<Flight<V>>),
    Wait(Arc<Flight<V>>),
}

impl<K, V, St> State<K, V, St>
where
    K: Hash + Eq + Clone,
    St: Store<K, V>,
{
    pub(super) fn try_new(settings: CacheSettings, store: St) -> Result<Self, ConfigError> {
        settings.check()?;
        Ok(Self {
            settings,
            store,
            events: Events::named(Pattern::Cache, settings.name),
            counts: Counts::default(),
            hasher: RandomState::new(),
            flights: Mutex::new(HashMap::default()),
            generations: AtomicU64::new(1),
            marks: Marks::new(),
            loads: Arc::default(),
            waiters: Arc::default(),
        })
    }

    /// The entry, unless it was invalidated.
    #[inline]
    fn spared(&self, key: &K, entry: Entry<V>) -> Option<Entry<V>> {
        if !self.marks.spare(&entry) {
            self.store.expire(key, &entry);
            return None;
        }
        Some(entry)
    }

    #[inline]
    pub(super) fn look(&self, key: &K) -> Look<V> {
        let Some(entry) = self.store.get(key) else { return Look::Load(None) };
        if !entry.is_confirmed() {
            return self.look_at_aged(entry);
        }
        let Some(entry) = self.spared(key, entry) else { return Look::Load(None) };
        let now = time::now();
        match entry.times().life(now, &self.settings, uniform) {
            Life::Fresh => {
                let ttl = entry.times().fresh_until.saturating_since(now);
                Look::Serve(entry, CacheStatus::Fresh { ttl })
            }
            life => self.look_again(key, entry, life, now),
        }
    }

    #[cold]
    #[inline(never)]
    fn look_again(&self, key: &K, entry: Entry<V>, life: Life, now: Instant) -> Look<V> {
        let is_quiet = entry.is_refreshing() || entry.is_throttled(now);
        let ttl = entry.times().fresh_until.saturating_since(now);
        let stale = |why| CacheStatus::Stale { stale_for: entry.times().stale_for(now), why };
        match life {
            Life::Fresh => Look::Serve(entry, CacheStatus::Fresh { ttl }),
            Life::Due if is_quiet => Look::Serve(entry, CacheStatus::Fresh { ttl }),
            Life::Due => Look::Refresh(entry, CacheStatus::Fresh { ttl }),
            Life::Gone => {
                self.store.expire(key, &entry);
                add(&self.counts.here().expirations, 1);
                self.events.emit(|| EventKind::Evicted { live: 0, expired: 1 });
                Look::Load(None)
            }
            Life::Revalidate | Life::IfError if entry.is_throttled(now) => {
                let status = stale(WhyStale::Failed);
                Look::Serve(entry, status)
            }
            Life::Revalidate => {
                let status = stale(WhyStale::Revalidating);
                if is_quiet { Look::Serve(entry, status) } else { Look::Refresh(entry, status) }
            }
            Life::IfError => Look::Load(Some(entry)),
        }
    }

    /// What became stale before its time, as far as what is stale is served at all.
    #[cold]
    #[inline(never)]
    fn look_at_aged(&self, entry: Entry<V>) -> Look<V> {
        let now = time::now();
        if !entry.is_aged() || !self.marks.spare(&entry) || !entry.times().is_servable(now, &self.settings) {
            return Look::Load(None);
        }
        let stale = |why| CacheStatus::Stale { stale_for: entry.times().stale_for(now), why };
        if self.max_stale().is_zero() {
            Look::Load(None)
        } else if entry.is_throttled(now) {
            let status = stale(WhyStale::Failed);
            Look::Serve(entry, status)
        } else if self.settings.while_revalidate.is_zero()
            || entry.times().life(now, &self.settings, uniform) == Life::IfError
        {
            Look::Load(Some(entry))
        } else {
            let status = stale(WhyStale::Revalidating);
            Look::Refresh(entry, status)
        }
    }

    /// What is in the store and fresh.
    pub(super) fn peek(&self, key: &K) -> Option<Entry<V>> {
        let entry = self.store.get(key).filter(Entry::is_confirmed)?;
        let entry = self.spared(key, entry)?;
        (time::now() < entry.times().fresh_until).then_some(entry)
    }

    fn hashed<Q>(&self, key: Q) -> Hashed<Q>
    where
        Q: Hash,
    {
        Hashed { hash: self.hasher.hash_one(&key), key }
    }

    /// A number that no load before has, and every one after exceeds.
    fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::AcqRel)
    }

    /// The number of the next load.
    pub(super) fn generation(&self) -> u64 {
        self.generations.load(Ordering::Acquire)
    }

    /// Begins the load of a key, unless it has begun.
    pub(super) fn join(&self, key: &K) -> Join<V> {
        let hashed = self.hashed(key.clone());
        let made = Arc::new(Flight::new(self.next_generation()));
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&hashed as &dyn LookAt<K>) {
            let flight = Arc::clone(flight);
            drop(flights);
            return Join::Wait(flight);
        }
        flights.insert(hashed, Arc::clone(&made));
        drop(flights);
        Join::Lead(made)
    }

    /// Ends a load: whoever comes from now on begins another one. Whether it was still the one of its key; `then` runs while nobody can invalidate it.
    fn leave(&self, key: &K, flight: &Arc<Flight<V>>, then: impl FnOnce()) -> bool {
        let hashed = self.hashed(key);
        let mut left = None;
        let mut flights = self.flights.lock();
        if flights.get(&hashed as &dyn LookAt<K>).is_some_and(|other| Arc::ptr_eq(other, flight)) {
            left = flights.remove_entry(&hashed as &dyn LookAt<K>);
            then();
        }
        drop(flights);
        left.is_some()
    }

    /// Ends a load after the code of its key has panicked, and so without it.
    #[cold]
    pub(super) fn abandon(&self, flight: &Arc<Flight<V>>) {
        let is_it = |_: &Hashed<K>, other: &mut Arc<Flight<V>>| Arc::ptr_eq(other, flight);
        let left: Vec<_> = self.flights.lock().extract_if(is_it).collect();
        let rejected = Rejected::new(self.settings.name, Reason::LoadFailed(LoadFailure::Cancelled));
        flight.land(Landed::Failure { failure: Failure { rejected, error: None }, gives_way: true });
        guarded(|| drop(left));
    }

    /// Ends a load without anything to store.
    pub(super) fn land(&self, key: &K, flight: &Arc<Flight<V>>, landed: Landed<V>) {
        self.leave(key, flight, || ());
        flight.land(landed);
    }

    /// Stores what was loaded, unless that was voided meanwhile. What became of it, if it was not.
    pub(super) fn store(&self, key: &K, flight: &Arc<Flight<V>>, entry: &Entry<V>) -> Option<Put<St::Writing>> {
        let put = self.store.put(key.clone(), entry.clone());
        self.account(&put);
        if self.leave(key, flight, || entry.confirm()) && self.marks.spare(entry) {
            return Some(put);
        }
        drop(put);
        self.store.expire(key, entry);
        self.events.emit(|| EventKind::LoadVoided);
        None
    }

    fn account(&self, put: &Put<St::Writing>) {
        let Put { evicted, expired, too_large, .. } = *put;
        if evicted > 0 || expired > 0 {
            let counts = self.counts.here();
            for (count, left) in [(&counts.evictions, evicted), (&counts.expirations, expired)] {
                if left > 0 {
                    add(count, left);
                }
            }
            self.events.emit(|| EventKind::Evicted { live: evicted, expired });
        }
        if too_large {
            self.events.emit(|| EventKind::EntryTooLarge);
        }
    }

    /// Whether a call that came at `joined` must not have what a load brought that had begun before: its tag was invalidated in between.
    pub(super) fn is_void_for(&self, entry: &Entry<V>, joined: u64) -> bool {
        let mark = self.marks.mark_of(entry);
        entry.generation() < mark && mark < joined
    }

    // What the handle does.

    /// Whoever waits for the load that is under way had come before, and gets it; it is not stored.
    fn void(&self, key: &K) -> Option<(Hashed<K>, Arc<Flight<V>>)> {
        // Mostly nothing is being loaded, and then the key need not be hashed.
        if self.flights.lock().is_empty() {
            return None;
        }
        let hashed = self.hashed(key);
        self.flights.lock().remove_entry(&hashed as &dyn LookAt<K>)
    }

    pub(super) fn put(
        &self,
        key: K,
        value: V,
        (ttl, max_stale): (Duration, Duration),
        tags: Vec<Box<str>>,
    ) -> St::Writing {
        let _left = self.void(&key);
        let now = time::now();
        let times = Times::new(now, now, ttl, max_stale);
        let entry = Entry::provisional(Content::Value(value), times, self.next_generation(), tags).with_far(
            None,
            self.store.near_ttl(),
            now,
        );
        entry.confirm();
        let put = self.store.put(key, entry);
        self.account(&put);
        put.writing
    }

    pub(super) fn invalidate(&self, key: &K) -> St::Writing {
        let _left = self.void(key);
        let writing = self.store.remove(key);
        // Who came in between may have found what was still there.
        let _left_since = self.void(key);
        writing
    }

    pub(super) fn invalidate_tag(&self, tag: &str) -> St::Writing {
        self.marks.mark(tag, self.next_generation());
        self.store.remove_tag(tag)
    }

    pub(super) fn clear(&self) -> St::Writing {
        let _left = std::mem::take(&mut *self.flights.lock());
        let writing = self.store.clear();
        let _left_since = std::mem::take(&mut *self.flights.lock());
        writing
    }

    /// Hits tell nobody, so this is done where it costs them nothing.
    pub(super) fn tell_of_calls(&self) {
        self.events.count(|| {
            let stats = self.counts.sum();
            Calls { hits: stats.at_once(), misses: stats.misses, loads: stats.loads }
        });
    }

    pub(super) fn stats(&self) -> CacheStats {
        self.tell_of_calls();
        let usage = self.store.usage();
        let in_flight = self.loads.load(std::sync::atomic::Ordering::Relaxed);
        CacheStats { entries: usage.entries, bytes: usage.bytes, in_flight, ..self.counts.sum() }
    }

    pub(super) fn max_stale(&self) -> Duration {
        self.settings.while_revalidate.max(self.settings.if_error)
    }

    /// A place for a load.
    pub(super) fn place_for_a_load(&self) -> Option<Place> {
        Place::take(&self.loads, self.settings.max_loads)
    }

    pub(super) fn place_for_a_waiter(&self) -> Option<Place> {
        Place::take(&self.waiters, self.settings.max_waiters)
    }
}

impl<K, V, St> State<K, V, St> {
    /// Counts what was answered with, and tells the span of the call.
    #[inline]
    pub(super) fn count(&self, status: CacheStatus) {
        note_cache(status.as_str());
        match status {
            CacheStatus::Fresh { .. } => self.counts.hit(),
            CacheStatus::Stale { stale_for, why } => self.count_stale(stale_for, why),
            _ => {}
        }
    }

    #[cold]
    fn count_stale(&self, stale_for: Duration, why: WhyStale) {
        add(&self.counts.here().stale, 1);
        self.events.emit(|| EventKind::StaleServed { why, stale_for });
    }

    #[cold]
    pub(super) fn refuse(&self, reason: Reason) -> Rejected {
        let rejected = Rejected::new(self.settings.name, reason);
        self.events.emit(|| EventKind::Rejected { rejected: &rejected, shadow: false });
        rejected
    }
}

impl<K, V, St> fmt::Debug for State<K, V, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Above 0, to 1.
pub(super) fn uniform() -> f64 {
    // splitmix64's last steps: seeds in a row are not alike any more.
    let mut bits = random::seed();
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^= bits >> 31;
    ((bits >> 11) + 1) as f64 / (1_u64 << 53) as f64
}
