//! Redis, as a cache asks it.

use std::{
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use deadpool_redis::redis::FromRedisValue;

use super::{
    away::Away,
    code::Code,
    codec::Codec,
    envelope::{self, FRONT, Stamp},
    failure::RedisFailure,
    lanes::{Lanes, Question},
    names::{Names, message},
    store_policy::{Invalidation, RedisStoreSettings},
    store_stats::Counts,
};
use crate::{
    error::ConfigError,
    event::{EventKind, Events, Pattern},
    random,
    time::Instant,
};

const CODE: &str = include_str!("far.lua");

pub(super) struct Far<V, C> {
    pub(super) lanes: Lanes,
    pub(super) code: Arc<Code>,
    pub(super) codec: C,
    pub(super) settings: RedisStoreSettings,
    pub(super) names: Names,
    /// Empty unless changes are published.
    pub(super) channel: String,
    pub(super) origin: u64,
    /// Numbers writes in the order in which they were decided on.
    next: AtomicU64,
    pub(super) events: Events,
    pub(super) counts: Counts,
    away: Away,
    value: PhantomData<fn() -> V>,
}

/// Set when something was heard of an entry that is being loaded.
pub(super) type Flag = Arc<AtomicBool>;

/// What Redis said when a load began.
pub(super) struct Note {
    pub(super) version: Version,
    /// In microseconds of its clock.
    pub(super) at: u64,
    /// When that was known here, which is a little later.
    pub(super) known: Instant,
    pub(super) flag: Option<Flag>,
    /// Whether the entry itself is from there.
    pub(super) is_found: bool,
}

/// What was under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Nobody knows.
    Unknown,
    Nothing,
    Of([u8; FRONT]),
    Foreign,
}

impl<V: Send + Sync + 'static, C: Codec<V>> Far<V, C> {
    pub(super) fn try_new(lanes: &Lanes, settings: RedisStoreSettings, codec: C) -> Result<Self, ConfigError> {
        settings.check()?;
        let names = Names::new(settings.prefix);
        let publishes = settings.invalidation == Invalidation::PubSub;
        Ok(Self {
            lanes: lanes.clone(),
            code: Arc::new(Code::new(CODE)),
            codec,
            settings,
            names,
            channel: if publishes { names.channel() } else { String::new() },
            origin: random::seed(),
            next: AtomicU64::new(1),
            events: Events::named(Pattern::Cache, settings.name),
            counts: Counts::default(),
            away: Away::default(),
            value: PhantomData,
        })
    }

    pub(super) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    pub(super) fn is_away(&self) -> bool {
        self.away.is()
    }

    /// Of the write that is decided on now.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp { origin: self.origin, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    /// What was loaded before now, and has this mark, is gone.
    pub(super) async fn mark(&self, name: String) -> Result<(), RedisFailure> {
        // As long as anything may be there that it is about.
        let life = self.settings.max_life.saturating_add(self.settings.longest_load);
        let message = message(self.origin, &name);
        let mut call = self.code.call([name].into_iter());
        call.arg("mark").arg(millis(life)).arg(&self.channel).arg(message);
        self.ask::<u8>(&call).await.map(drop)
    }

    pub(super) async fn ask<T: FromRedisValue + Send>(&self, question: &impl Question<T>) -> Result<T, RedisFailure> {
        let result = self.lanes.run(question).await;
        match &result {
            Ok(_) => self.away.set(false, &self.events),
            Err(failure) => {
                self.counts.errors.one();
                if !matches!(failure, RedisFailure::Away(_)) {
                    self.events.emit(|| EventKind::StoreFailed { why: failure.as_str() });
                }
                if failure.is_of_all() {
                    self.away.set(true, &self.events);
                }
            }
        }
        result
    }
}

impl Version {
    pub(super) fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() { Self::Nothing } else { envelope::front_of(bytes).map_or(Self::Foreign, Self::Of) }
    }

    pub(super) const fn is_of_a_value(&self) -> bool {
        matches!(self, Self::Of(front) if front[3] == envelope::VALUE)
    }
}

pub(super) fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX).max(1)
}

pub(super) fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}
