//! What is there: one entry, its lease, the marks of its tags.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use deadpool_redis::redis::{ErrorKind, RedisResult, ServerErrorKind, cmd};

use super::{
    codec::Codec,
    envelope::{self, FRONT, Lengths, Opened, Sealed, Stamp},
    failure::RedisFailure,
    far::{Far, Flag, Note, Version, millis},
    follow::Followed,
    lanes::Question,
    names::{Digest, digest_of_tag},
    store_policy::SingleLoad,
};
use crate::{
    cache::{Entry, Envelope, Fetched, Seen},
    event::EventKind,
    time::{self, Instant},
};

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

/// What is under these names.
struct Marks<'a>(&'a [String]);

/// The right to load for all, given back when it is dropped: also where nobody knows whether it was given.
struct Lease<V, C: Codec<V>> {
    far: Arc<Far<V, C>>,
    digest: Digest,
    token: String,
    may_be_held: bool,
}

/// A mark that is further ahead than this is from a clock that was put back, as the script has it.
const AHEAD: u64 = 60_000_000;

/// How often it is looked whether another process has loaded: seldom enough to cost less than a load.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LAST_LOOK: Duration = Duration::from_millis(50);

impl<V: Send + Sync + 'static, C: Codec<V>> Far<V, C> {
    pub(super) async fn fetch(self: Arc<Self>, digest: Digest, flag: Option<Flag>) -> Fetched<V> {
        let began = time::now();
        let mut lease = self.settings.single_load.map(|single| {
            let Stamp { origin, number } = self.stamp();
            let token = format!("{origin:016x}{number:016x}");
            (single, Lease { far: Arc::clone(&self), digest, token, may_be_held: false })
        });
        let (mut pause, mut insists) = (FIRST_LOOK, false);
        loop {
            let mut looked = self.look(&digest, lease.as_mut(), insists).await;
            if let Ok(Looked { had_bad_mark: true, has_lease, .. }) = looked {
                // What is loaded from now on is younger than the mark that took its place.
                looked = self.look(&digest, lease.as_mut().filter(|_| !has_lease), insists).await.map(|mut looked| {
                    looked.has_lease |= has_lease;
                    looked
                });
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
                    pause = pause.saturating_mul(2).min(LAST_LOOK);
                    continue;
                }
            }
            return self.found(looked, flag.as_ref(), lease.map(|(_, lease)| lease));
        }
    }

    fn found(&self, looked: Looked<V>, flag: Option<&Flag>, lease: Option<Lease<V, C>>) -> Fetched<V> {
        let Looked { entry, is_foreign, version, at, known, has_lease, .. } = looked;
        if is_foreign {
            self.counts.foreign.one();
            self.events.emit(|| EventKind::StoreForeign);
        }
        if entry.is_some() { &self.counts.hits } else { &self.counts.misses }.one();
        let note = |is_found| Seen::new(Note { version, at, known, flag: flag.cloned(), is_found });
        let entry = entry.map(|entry| entry.with_seen(note(true)));
        let hold = lease.filter(|_| has_lease).map(|lease| Box::new(lease) as Box<_>);
        Fetched { entry, seen: Some(note(false)), hold }
    }

    async fn look(
        &self,
        digest: &Digest,
        mut lease: Option<&mut (SingleLoad, Lease<V, C>)>,
        insists: bool,
    ) -> Result<Looked<V>, RedisFailure> {
        let is_cluster = self.lanes.is_cluster();
        let mut keys = vec![self.names.key(digest)];
        keys.extend(lease.is_some().then(|| self.names.lease(digest)));
        // In a cluster it is in another slot.
        keys.extend((!is_cluster).then(|| self.names.all()));
        let mut call = self.code.call(keys.into_iter());
        call.arg("read");
        match &mut lease {
            Some((single, lease)) => {
                lease.may_be_held = true;
                call.arg(&lease.token).arg(millis(single.hold)).arg(u8::from(insists))
            }
            None => call.arg(""),
        };
        let answer: Result<(Vec<u8>, u64, Vec<u8>, u8), RedisFailure> = self.ask(&call).await;
        let known = time::now();
        if let Some((_, lease)) = lease {
            lease.may_be_held = match &answer {
                Ok((.., has_lease)) => *has_lease != 0,
                Err(failure) => !matches!(failure, RedisFailure::Away(_)),
            };
        }
        let (bytes, at, all, has_lease) = answer?;
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
            && !self.is_void(&sealed, (all, at), &mut looked.had_bad_mark).await?
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
    async fn is_void(
        &self,
        sealed: &Sealed<'_>,
        (all, now): (Vec<u8>, u64),
        had_bad_mark: &mut bool,
    ) -> Result<bool, RedisFailure> {
        let is_cluster = self.lanes.is_cluster();
        let mut names: Vec<String> = sealed.tags.iter().map(|tag| self.names.tag(&digest_of_tag(tag))).collect();
        let mut marks: Vec<Option<Vec<u8>>> = vec![Some(all)];
        if is_cluster {
            marks.clear();
            names.insert(0, self.names.all());
        }
        if !names.is_empty() {
            marks.append(&mut self.ask(&Marks(&names)).await?);
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
            let mark = str::from_utf8(mark).ok().and_then(|mark| mark.parse::<u64>().ok());
            match mark.filter(|mark| *mark < now.saturating_add(AHEAD)) {
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
}

impl Question<Vec<Option<Vec<u8>>>> for Marks<'_> {
    async fn ask(&self, mut lane: Followed<'_>) -> RedisResult<Vec<Option<Vec<u8>>>> {
        match cmd("MGET").arg(self.0).query_async(&mut lane).await {
            // They are in several slots, of which one has moved or is on its way: each finds its own.
            Err(error) if matches!(error.kind(), ErrorKind::Server(ServerErrorKind::Ask | ServerErrorKind::Moved)) => {}
            told => return told,
        }
        let mut told = Vec::with_capacity(self.0.len());
        for name in self.0 {
            told.push(cmd("GET").arg(name).query_async(&mut lane).await?);
        }
        Ok(told)
    }
}

impl<V, C: Codec<V>> Drop for Lease<V, C> {
    fn drop(&mut self) {
        if !self.may_be_held {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (lanes, code) = (self.far.lanes.clone(), Arc::clone(&self.far.code));
        let (name, token) = (self.far.names.lease(&self.digest), std::mem::take(&mut self.token));
        runtime.spawn(async move {
            let mut call = code.call([name].into_iter());
            call.arg("release").arg(token);
            // One that is not given back ends by itself.
            let _: Result<u8, _> = lanes.run(&call).await;
        });
    }
}
