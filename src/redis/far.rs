//! What is asked of Redis for a cache: one entry, its lease, the marks of its tags.

use std::{
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use deadpool_redis::redis::{FromRedisValue, Script, cmd};

use super::{
    codec::Codec,
    envelope::{self, FRONT, Lengths, Opened, Sealed, Stamp},
    failure::RedisFailure,
    lanes::{Lanes, Question},
    names::{Digest, Names, digest_of_tag, message},
    store_policy::{Invalidation, RedisStoreSettings, SingleLoad},
    store_stats::Counts,
};
use crate::{
    cache::{Entry, Envelope, Fetched, Seen},
    error::{BoxError, ConfigError},
    event::{EventKind, Events, Pattern},
    random,
    time::{self, Instant},
};

const CODE: &str = include_str!("far.lua");

pub(super) struct Far<V, C> {
    lanes: Lanes,
    script: Script,
    codec: C,
    pub(super) settings: RedisStoreSettings,
    pub(super) names: Names,
    /// Empty unless changes are published.
    channel: String,
    pub(super) origin: u64,
    /// Numbers writes in the order in which they were decided on.
    next: AtomicU64,
    pub(super) events: Events,
    pub(super) counts: Counts,
    /// Whether the last question had no answer.
    is_away: AtomicBool,
    value: PhantomData<fn() -> V>,
}

/// Set when something was heard of an entry that is being loaded.
pub(super) type Flag = Arc<AtomicBool>;

/// What Redis said when a load began.
pub(super) struct Note {
    version: Version,
    /// In microseconds of its clock.
    at: u64,
    /// When that was known here, which is a little later.
    known: Instant,
    pub(super) flag: Option<Flag>,
    /// Whether the entry itself is from there.
    pub(super) is_found: bool,
}

/// What was under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// Nobody knows.
    Unknown,
    Nothing,
    Of([u8; FRONT]),
    Foreign,
}

struct Looked<V> {
    entry: Option<Entry<V>>,
    is_fresh: bool,
    is_foreign: bool,
    version: Version,
    at: u64,
    known: Instant,
    has_lease: bool,
    /// A mark that nobody could read was overwritten.
    had_bad_mark: bool,
}

/// The right to load for all, given back when it is dropped.
struct Lease<V, C: Codec<V>> {
    far: Arc<Far<V, C>>,
    digest: Digest,
    token: String,
}

/// How often it is looked whether another process has loaded: seldom enough to cost less than a load.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LAST_LOOK: Duration = Duration::from_millis(50);

impl<V: Send + Sync + 'static, C: Codec<V>> Far<V, C> {
    pub(super) fn try_new(lanes: &Lanes, settings: RedisStoreSettings, codec: C) -> Result<Self, ConfigError> {
        settings.check()?;
        let names = Names::new(settings.prefix);
        let publishes = settings.invalidation == Invalidation::PubSub;
        Ok(Self {
            lanes: lanes.clone(),
            script: Script::new(CODE),
            codec,
            settings,
            names,
            channel: if publishes { names.channel() } else { String::new() },
            origin: random::seed(),
            next: AtomicU64::new(1),
            events: Events::named(Pattern::Cache, settings.name),
            counts: Counts::default(),
            is_away: AtomicBool::new(false),
            value: PhantomData,
        })
    }

    pub(super) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    pub(super) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    /// Of the write that is decided on now.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp { origin: self.origin, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    // ===== what is there =====

    pub(super) async fn fetch(self: Arc<Self>, digest: Digest, flag: Option<Flag>) -> Fetched<V> {
        let began = time::now();
        let lease = self.settings.single_load.map(|single| {
            let Stamp { origin, number } = self.stamp();
            (single, format!("{origin:016x}{number:016x}"))
        });
        let (mut pause, mut insists) = (FIRST_LOOK, false);
        loop {
            let mut looked = self.look(&digest, lease.as_ref(), insists).await;
            if looked.as_ref().is_ok_and(|looked| looked.had_bad_mark) {
                // What is loaded from now on is younger than the mark that took its place.
                looked = self.look(&digest, lease.as_ref(), insists).await;
            }
            let Ok(looked) = looked else {
                let note = Note { version: Version::Unknown, at: 0, known: time::now(), flag, is_found: false };
                return Fetched { entry: None, seen: Some(Seen::new(note)), hold: None };
            };
            if let Some((single, _)) = &lease
                && !looked.is_fresh
                && !looked.has_lease
                && time::now().saturating_since(began) < single.wait
            {
                // What is fresh by its own account is not given a lease for, unless one insists.
                let insisted = std::mem::replace(&mut insists, looked.version.is_of_a_value());
                if insists && !insisted {
                    continue;
                }
                if let Some(sleep) = time::sleep(pause) {
                    sleep.await;
                    pause = (pause * 2).min(LAST_LOOK);
                    continue;
                }
            }
            return self.found(digest, looked, flag.as_ref(), lease.map(|(_, token)| token));
        }
    }

    fn found(
        self: Arc<Self>,
        digest: Digest,
        looked: Looked<V>,
        flag: Option<&Flag>,
        token: Option<String>,
    ) -> Fetched<V> {
        let Looked { entry, is_foreign, version, at, known, has_lease, .. } = looked;
        if is_foreign {
            self.counts.foreign.one();
            self.events.emit(|| EventKind::StoreForeign);
        }
        if entry.is_some() { &self.counts.hits } else { &self.counts.misses }.one();
        let note = |is_found| Seen::new(Note { version, at, known, flag: flag.cloned(), is_found });
        let entry = entry.map(|entry| entry.with_seen(note(true)));
        let hold = token.filter(|_| has_lease).map(|token| Box::new(Lease { far: self, digest, token }) as Box<_>);
        Fetched { entry, seen: Some(note(false)), hold }
    }

    async fn look(
        &self,
        digest: &Digest,
        lease: Option<&(SingleLoad, String)>,
        insists: bool,
    ) -> Result<Looked<V>, RedisFailure> {
        let is_cluster = self.lanes.is_cluster();
        let mut call = self.script.prepare_invoke();
        call.key(self.names.key(digest)).arg("read");
        match lease {
            Some((single, token)) => {
                call.key(self.names.lease(digest)).arg(token).arg(millis(single.hold)).arg(u8::from(insists));
            }
            None => {
                call.arg("");
            }
        }
        if !is_cluster {
            call.key(self.names.all());
        }
        let (bytes, at, all, has_lease): (Vec<u8>, u64, Vec<u8>, u8) = self.ask(&call).await?;
        let known = time::now();
        let mut looked = Looked {
            entry: None,
            is_fresh: false,
            is_foreign: false,
            version: Version::of(&bytes),
            at,
            known,
            has_lease: has_lease != 0,
            had_bad_mark: false,
        };
        let opened = envelope::open(&bytes);
        looked.is_foreign = opened == Opened::Foreign && !bytes.is_empty();
        if let Opened::Sealed(sealed) = opened
            && !self.is_void(&sealed, all, &mut looked.had_bad_mark).await?
        {
            let entry = self.entry(&sealed, at);
            looked.is_foreign = entry.is_none();
            if let Some((entry, is_fresh)) = entry {
                (looked.entry, looked.is_fresh) = (Some(entry), is_fresh);
            }
        }
        Ok(looked)
    }

    /// The entry, and whether it is fresh.
    fn entry(&self, sealed: &Sealed<'_>, at: u64) -> Option<(Entry<V>, bool)> {
        let decoded = catch_unwind(AssertUnwindSafe(|| self.codec.decode(sealed.payload)));
        let value = decoded.ok()?.ok()?;
        let Lengths { age, ttl, max_stale, cost } = sealed.lengths(at, self.settings.max_life);
        let mut envelope = Envelope::new(ttl);
        envelope.age = age;
        envelope.max_stale = max_stale;
        envelope.cost = cost;
        envelope.tags = Arc::clone(&sealed.tags);
        Some((Entry::new(value, envelope), age < ttl))
    }

    /// Whether everything, or one of its tags, was invalidated since its load began.
    async fn is_void(&self, sealed: &Sealed<'_>, all: Vec<u8>, had_bad_mark: &mut bool) -> Result<bool, RedisFailure> {
        let is_cluster = self.lanes.is_cluster();
        let mut names: Vec<String> = sealed.tags.iter().map(|tag| self.names.tag(&digest_of_tag(tag))).collect();
        let mut marks: Vec<Option<Vec<u8>>> = vec![Some(all)];
        if is_cluster {
            marks.clear();
            names.insert(0, self.names.all());
        }
        if !names.is_empty() {
            let mut told: Vec<Option<Vec<u8>>> = self.ask(cmd("MGET").arg(&names)).await?;
            marks.append(&mut told);
        }
        if !is_cluster {
            names.insert(0, self.names.all());
        }
        let mut is_void = false;
        for (mark, name) in marks.iter().zip(names) {
            let mark = mark.as_deref().unwrap_or_default();
            if mark.is_empty() {
                continue;
            }
            match str::from_utf8(mark).ok().and_then(|mark| mark.parse().ok()) {
                Some(mark) => is_void |= sealed.is_void_by(mark),
                // Nobody knows since when: since now.
                None => {
                    self.mark(name).await?;
                    (*had_bad_mark, is_void) = (true, true);
                }
            }
        }
        Ok(is_void)
    }

    /// Whether what is there is what was written with this stamp.
    pub(super) async fn is_still(&self, digest: &Digest, stamp: Stamp) -> bool {
        let front: Result<Vec<u8>, _> =
            self.ask(cmd("GETRANGE").arg(self.names.key(digest)).arg(0).arg(FRONT - 1)).await;
        front.is_ok_and(|front| front == envelope::front(false, stamp))
    }

    // ===== what is to be there =====

    pub(super) async fn write(&self, digest: &Digest, entry: &Entry<V>, stamp: Stamp) -> Result<(), BoxError> {
        // What failed for good stays in this process.
        let Some(value) = entry.value() else { return Ok(()) };
        let Envelope { age, ttl, max_stale, cost, tags, seen, .. } = entry.envelope();
        let note = seen.as_ref().and_then(Seen::get::<Note>);
        let front;
        let version: &[u8] = match note.map(|note| note.version) {
            None => b"*",
            Some(Version::Unknown) => {
                self.counts.refused.one();
                return Ok(());
            }
            Some(Version::Nothing) => b"",
            Some(Version::Foreign) => b"x",
            Some(Version::Of(of)) => {
                front = of;
                &front
            }
        };
        let encode = |bytes: &mut Vec<u8>| self.codec.encode(value, bytes);
        let back = match catch_unwind(AssertUnwindSafe(|| envelope::back(&tags, encode))) {
            Ok(Some(Ok(back))) if envelope::size(back.len()) <= self.settings.max_bytes => back,
            Ok(Some(Ok(_)) | None) => {
                self.counts.unfit.one();
                self.events.emit(|| EventKind::EntryTooLarge);
                return Ok(());
            }
            Ok(Some(Err(_))) | Err(_) => {
                self.counts.unfit.one();
                self.events.emit(|| EventKind::StoreFailed { why: "value" });
                return Err("the value has no form in bytes".into());
            }
        };
        let stored = time::now().saturating_sub(age);
        let at = note.map(|note| note.at.to_string()).unwrap_or_default();
        let since = note.map_or(Duration::ZERO, |note| stored.saturating_since(note.known));
        let longest = self.settings.max_life;
        let ttl = ttl.min(longest);
        let name = self.names.key(digest);
        let mut call = self.script.prepare_invoke();
        call.key(&name).arg("write").arg(&envelope::front(false, stamp)[..]).arg(version).arg(at);
        call.arg(micros(since)).arg(micros(cost)).arg(micros(ttl)).arg(micros(max_stale.min(longest - ttl)));
        call.arg(back).arg(&self.channel).arg(message(self.origin, &name));
        let written: u8 = self.ask(&call).await?;
        if written != 0 { &self.counts.writes } else { &self.counts.refused }.one();
        Ok(())
    }

    /// Leaves a grave, so that who is loading does not store what there was before.
    pub(super) async fn forget(&self, digest: &Digest, stamp: Stamp) -> Result<(), BoxError> {
        let name = self.names.key(digest);
        let mut call = self.script.prepare_invoke();
        call.key(&name).arg("forget").arg(&envelope::front(true, stamp)[..]);
        call.arg(millis(self.settings.longest_load)).arg(&self.channel).arg(message(self.origin, &name));
        self.ask::<u8>(&call).await?;
        Ok(())
    }

    pub(super) async fn forget_tag(&self, tag: &Digest) -> Result<(), BoxError> {
        Ok(self.mark(self.names.tag(tag)).await?)
    }

    pub(super) async fn forget_all(&self) -> Result<(), BoxError> {
        Ok(self.mark(self.names.all()).await?)
    }

    /// What was loaded before now, and has this mark, is gone.
    async fn mark(&self, name: String) -> Result<(), RedisFailure> {
        // As long as anything may be there that it is about.
        let life = self.settings.max_life.saturating_add(self.settings.longest_load);
        let mut call = self.script.prepare_invoke();
        call.key(&name).arg("mark").arg(millis(life)).arg(&self.channel).arg(message(self.origin, &name));
        self.ask::<u8>(&call).await.map(drop)
    }

    async fn ask<T: FromRedisValue + Send>(&self, question: &impl Question<T>) -> Result<T, RedisFailure> {
        let result = self.lanes.run(question).await;
        match &result {
            Ok(_) => self.switch(true),
            Err(failure) => {
                self.counts.errors.one();
                if !matches!(failure, RedisFailure::Away(_)) {
                    self.events.emit(|| EventKind::StoreFailed { why: failure.as_str() });
                }
                if *failure != RedisFailure::Answered {
                    self.switch(false);
                }
            }
        }
        result
    }

    fn switch(&self, shared: bool) {
        let is_away = !shared;
        if self.is_away() != is_away && self.is_away.swap(is_away, Ordering::Relaxed) != is_away {
            self.events.emit(|| EventKind::StoreSwitched { shared });
        }
    }
}

impl Version {
    fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() { Self::Nothing } else { envelope::front_of(bytes).map_or(Self::Foreign, Self::Of) }
    }

    const fn is_of_a_value(&self) -> bool {
        matches!(self, Self::Of(front) if front[3] == 0)
    }
}

impl<V, C: Codec<V>> Drop for Lease<V, C> {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (lanes, script) = (self.far.lanes.clone(), self.far.script.clone());
        let (name, token) = (self.far.names.lease(&self.digest), std::mem::take(&mut self.token));
        runtime.spawn(async move {
            let mut call = script.prepare_invoke();
            call.key(name).arg("release").arg(token);
            // One that is not given back ends by itself.
            let _: Result<u8, _> = lanes.run(&call).await;
        });
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}
