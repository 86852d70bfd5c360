//! One question about some limits, and what is told of its answer.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use deadpool_redis::redis::{Cmd, Script, cmd};

use super::{
    failure::RedisFailure,
    lanes::{ByHash, Lanes},
    script::{Answer, Asked, CODE, What},
};
use crate::{
    circuit_breaker::Permit,
    error::Rejected,
    event::{EventKind, Events},
};

pub(super) struct Asker {
    pub(super) lanes: Lanes,
    hash: String,
    load: Cmd,
    prefix: &'static str,
    is_shadow: bool,
    pub(super) events: Events,
    /// Whether the last decision was made without Redis.
    is_away: AtomicBool,
}

impl Asker {
    pub(super) fn new(lanes: Lanes, prefix: &'static str, is_shadow: bool, events: Events) -> Self {
        let (hash, mut load) = (Script::new(CODE).get_hash().to_owned(), cmd("SCRIPT"));
        load.arg("LOAD").arg(CODE);
        Self { lanes, hash, load, prefix, is_shadow, events, is_away: AtomicBool::new(false) }
    }

    pub(super) async fn ask(
        &self,
        permit: Permit,
        what: What,
        limits: &[Asked],
        key: &impl fmt::Display,
        cost: u64,
        ago: Duration,
    ) -> Result<Answer, RedisFailure> {
        let mut call = cmd("EVALSHA");
        call.arg(&self.hash).arg(limits.len());
        for limit in limits {
            call.arg(limit.key(self.prefix, key));
        }
        call.arg(what.as_str()).arg(cost).arg(u64::try_from(ago.as_micros()).unwrap_or(u64::MAX));
        for limit in limits {
            let (kind, numbers) = limit.arguments(cost);
            call.arg(kind).arg(&numbers[..]);
        }
        let call = ByHash { call, load: &self.load };
        let answer = match self.lanes.run_admitted::<Vec<i64>>(permit, &call).await {
            Ok(numbers) => Answer::read(&numbers, limits.len()).ok_or(RedisFailure::Answered),
            Err(failure) => Err(failure),
        };
        match answer {
            Ok(_) => self.switch(true),
            Err(failure) => self.events.emit(|| EventKind::StoreFailed { why: failure.as_str() }),
        }
        answer
    }

    pub(super) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    pub(super) fn switch(&self, shared: bool) {
        let is_away = !shared;
        if self.is_away() != is_away && self.is_away.swap(is_away, Ordering::Relaxed) != is_away {
            self.events.emit(|| EventKind::StoreSwitched { shared });
        }
    }

    #[cold]
    pub(super) fn refuse(&self, rejected: Rejected) -> Result<(), Rejected> {
        self.events.emit(|| EventKind::Rejected { rejected: &rejected, shadow: self.is_shadow });
        if self.is_shadow { Ok(()) } else { Err(rejected) }
    }
}
