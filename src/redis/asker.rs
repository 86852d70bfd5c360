//! One question about some limits, and what is told of its answer.

use std::{fmt, time::Duration};

use deadpool_redis::redis::{FromRedisValue, Value};

use super::{
    away::Away,
    code::Code,
    failure::RedisFailure,
    lanes::Lanes,
    script::{Answer, Asked, CODE, What},
};
use crate::{
    circuit_breaker::Permit,
    error::Rejected,
    event::{EventKind, Events},
    rate_limit::Taken,
};

pub(super) struct Asker {
    pub(super) lanes: Lanes,
    code: Code,
    prefix: &'static str,
    is_shadow: bool,
    pub(super) events: Events,
    pub(super) away: Away,
}

impl Asker {
    pub(super) fn new(lanes: Lanes, prefix: &'static str, is_shadow: bool, events: Events) -> Self {
        Self { lanes, code: Code::new(CODE), prefix, is_shadow, events, away: Away::default() }
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
        let mut call = self.code.call(limits.iter().map(|limit| limit.key(self.prefix, key)));
        call.arg(what.as_str()).arg(cost).arg(u64::try_from(ago.as_micros()).unwrap_or(u64::MAX));
        for limit in limits {
            let (kind, numbers) = limit.arguments(cost);
            call.arg(kind).arg(&numbers[..]);
        }
        let answer = match self.lanes.run_admitted(permit, &call).await {
            Ok(Value::Int(used)) => Answer::read(&[0, 0, used, used], limits.len()).ok_or(RedisFailure::Answered),
            Ok(list) => Vec::<i64>::from_redis_value(list)
                .ok()
                .and_then(|numbers| Answer::read(&numbers, limits.len()))
                .ok_or(RedisFailure::Answered),
            Err(failure) => Err(failure),
        };
        match answer {
            Ok(_) => self.away.set(false, &self.events),
            Err(failure) => self.events.emit(|| EventKind::StoreFailed { why: failure.as_str() }),
        }
        answer
    }

    #[cold]
    pub(super) fn refuse<F>(&self, rejected: Rejected) -> Taken<F> {
        self.events.emit(|| EventKind::Rejected { rejected: &rejected, shadow: self.is_shadow });
        if self.is_shadow { Taken::Unpaid } else { Taken::Now(Err(rejected)) }
    }
}
